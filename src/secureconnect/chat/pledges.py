"""Pledges: messages accepted while the database is away, until each is stored or returned (DATA.md, §6).

They lie in this node's journal and are remembered here by their keys. The writer asks: `take` accepts what
may be accepted, `page` gives them back in order once the database may be asked again, `settle` ends them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import structlog
import trio
from msgspec import Struct

from ..clock import now_us
from ..config import JournalConfig
from ..deps.contracts import Journal
from ..errors import ClientMessageIdReused, E2eeRequired, Problem
from ..identity import ConversationId, MessageId, UserId
from .append import Draft, Outcome, Stored
from .hub import Hub

log = structlog.get_logger(module="chat")

TOPIC = "chat"
LOADED = 1_000  # records read at once at the start
FIRST_PAUSE_S = 0.05  # before what was accepted is tried again; doubles up to journal.retry_s

_Key = tuple[UserId, str]


class Accepted(NamedTuple):
    """The answer to a send: it will be stored, or returned with the reason.  sent_us: when that was said."""

    message_id: MessageId
    client_message_id: str
    conversation_id: ConversationId
    sent_us: int


class Pledge(Struct, array_like=True, frozen=True):
    """A record of the journal. What is added later stands at the end and has a default."""

    draft: Draft
    accepted_us: int

    @property
    def key(self) -> _Key:
        return self.draft.sender_id, self.draft.client_message_id

    @property
    def accepted(self) -> Accepted:
        draft = self.draft
        return Accepted(draft.message_id, draft.client_message_id, draft.conversation_id, self.accepted_us)


Answer = Outcome | Accepted
Numbered = tuple[int, Pledge]

encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Pledge)


class Pledges:
    """journal: without one nothing is accepted.

    told: hears what was accepted, to show it.  settled: hears what became of each.
    """

    def __init__(
        self,
        journal: Journal | None,
        config: JournalConfig,
        hub: Hub,
        *,
        told: Callable[[Sequence[Pledge]], None],
        settled: Callable[[Pledge, Outcome], None],
    ) -> None:
        self._journal = journal
        self._config = config
        self._hub = hub
        self._told = told
        self._settled = settled
        self._by_key: dict[_Key, Accepted] = {}
        self._ids: set[MessageId] = set()
        self._unreadable: set[int] = set()
        self._pause_s = FIRST_PAUSE_S
        self._due = 0.0
        self._began = 0.0
        self._stored = self._rejected = 0

    @property
    def is_empty(self) -> bool:
        return not self._by_key

    @property
    def due(self) -> float:
        """When the next attempt to store them is due, on trio's clock."""
        return self._due

    def holds(self, message: MessageId) -> bool:
        """Whether this message is accepted and not stored yet."""
        return message in self._ids

    async def load(self) -> None:
        """Find what an earlier run of this node has left, before anything new is sent. Raises Unavailable."""
        after = 0
        while page := await self._read(after, LOADED):
            for _, pledge in page:
                self._remember(pledge)
            after = page[-1][0]
        if not self.is_empty:
            log.info("journal_found", records=len(self._by_key))

    # accepting

    async def take(self, drafts: Sequence[Draft], reason: Problem) -> list[Answer]:
        """Accept what may be accepted: durably, and shown to whoever may see it. The others get `reason`, or
        what is wrong with them in any case."""
        if self._journal is None:
            return [reason] * len(drafts)
        at_us = now_us()
        new: dict[_Key, Pledge] = {}
        answers: list[Answer] = []
        for draft in drafts:
            pledge = Pledge(draft, at_us)
            earlier = new.get(pledge.key)
            known = earlier.accepted if earlier else self._by_key.get(pledge.key)
            if known is not None:
                same = known.conversation_id == draft.conversation_id
                answers.append(known if same else ClientMessageIdReused())
            elif refusal := self._refusal(draft, reason):
                answers.append(refusal)
            else:
                new[pledge.key] = pledge
                answers.append(pledge.accepted)
        if new:
            try:
                await self._journal.append(TOPIC, [encode(pledge) for pledge in new.values()])
            except Problem as problem:
                lost = {pledge.draft.message_id for pledge in new.values()}
                return [
                    problem if isinstance(answer, Accepted) and answer.message_id in lost else answer
                    for answer in answers
                ]
            self._begin(reason)
            for pledge in new.values():
                self._remember(pledge)
            self._told(list(new.values()))
        return answers

    def _refusal(self, draft: Draft, reason: Problem) -> Problem | None:
        view = self._hub.trusted(draft.conversation_id, draft.sender_id, self._config.trust_s)
        if view is None:
            return reason
        if view.is_e2ee and not draft.is_encrypted:
            return E2eeRequired()
        return None

    def _begin(self, reason: Problem) -> None:
        if self.is_empty:
            self._began = trio.current_time()
            self._stored = self._rejected = 0
            self._pause_s = FIRST_PAUSE_S
            self.put_off()
            log.warning("journal_began", reason=reason.code)

    # storing

    async def page(self, after: int, limit: int) -> list[Numbered]:
        """Those with a number above `after`, in the order they were accepted. Raises Unavailable."""
        return await self._read(after, limit)

    async def settle(self, page: Sequence[Numbered], outcomes: Sequence[Outcome]) -> None:
        """These are stored, or refused for good."""
        assert self._journal is not None
        self._began = self._began or trio.current_time()  # found at the start
        try:
            await self._journal.done([number for number, _ in page])
        except Problem as problem:  # tried once more after the next start, which changes nothing
            log.warning("journal_not_noted", records=len(page), code=problem.code)
        for (_, pledge), outcome in zip(page, outcomes, strict=True):
            self._by_key.pop(pledge.key, None)
            self._ids.discard(pledge.draft.message_id)
            if isinstance(outcome, Stored):
                self._stored += 1
            else:
                self._rejected += 1
            self._settled(pledge, outcome)
        if self.is_empty:
            log.info(
                "journal_replayed",
                stored=self._stored,
                rejected=self._rejected,
                lasted_s=round(trio.current_time() - self._began, 3),
            )
            self._began = 0.0
            self._stored = self._rejected = 0

    def forget(self) -> None:
        """Nothing of this is in the journal any more."""
        self._by_key.clear()
        self._ids.clear()

    def put_off(self) -> None:
        """The database is still away."""
        self._due = trio.current_time() + random.uniform(0.5, 1) * self._pause_s  # noqa: S311
        self._pause_s = min(self._pause_s * 2, self._config.retry_s)

    async def _read(self, after: int, limit: int) -> list[Numbered]:
        """At least one, if there are more that can be read."""
        if self._journal is None:
            return []
        while records := await self._journal.read(TOPIC, after, limit):
            found: list[Numbered] = []
            for record in records:
                try:
                    found.append((record.number, _decoder.decode(record.payload)))
                except msgspec.DecodeError:
                    self._complain(record.number)
            if found:
                return found
            after = records[-1].number
        return []

    def _complain(self, number: int) -> None:
        """A later version wrote it: it stays, and is stored when that runs again."""
        if number not in self._unreadable:
            self._unreadable.add(number)
            log.error("journal_record_unreadable", number=number)

    def _remember(self, pledge: Pledge) -> None:
        self._by_key[pledge.key] = pledge.accepted
        self._ids.add(pledge.draft.message_id)
