"""Recall: what may be told from memory while the database is away, and to whom.

Only what is known to be whole: of conversations that the hub is not behind in, and to members whom it knows
as well as it must to accept messages of theirs (`journal.trust_s`). Where anything is missing there is no
answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import trio

from .. import metrics
from ..clock import SECOND_US, now_us
from ..edge import Frame
from ..errors import Unavailable, is_away
from ..identity import ConversationId, MessageId, UserId
from .hub import Hub
from .recent import Past, Recent
from .retold import UNCHANGED, message_now, retell, retell_poll
from .store import Message, Page

# result: told, unknown (answered 503, as without a memory)
READS = metrics.counter(
    "secureconnect_chat_recalled_total", "Reads of messages while the database was away.", ["result"]
)
_TOLD, _UNKNOWN = READS.labels("told"), READS.labels("unknown")

T = TypeVar("T")


class Missed(NamedTuple):
    """What a client has missed of a conversation.  change: where it stands after that."""

    change: int
    frames: list[Frame]


class Recall:
    """trust_s: how long before the database went away the members must have been known for certain.
    now_us: the database's clock, which goes on without it."""

    def __init__(self, hub: Hub, recent: Recent, trust_s: float, now_us: Callable[[], int]) -> None:
        self._hub = hub
        self._recent = recent
        self._trust_s = trust_s
        self._now_us = now_us

    def as_of_us(self) -> int:
        """Everything stored before then is in what is told, and perhaps more."""
        return now_us() - int((trio.current_time() - self._hub.true_at) * SECOND_US)

    # messages

    def page(
        self,
        away: Unavailable,
        caller: UserId,
        conversation: ConversationId,
        limit: int,
        before_seq: int | None = None,
        after_seq: int | None = None,
    ) -> Page:
        """As `Messages.page`. Raises `away` where memory has not all of it."""
        if not is_away(away):
            raise away
        return _told(self._page(caller, conversation, limit, before_seq, after_seq), away)

    def message(self, away: Unavailable, caller: UserId, message: MessageId) -> Message:
        """As `Messages.get`. Raises `away` where memory has not got it."""
        if not is_away(away):
            raise away
        return _told(self._message(caller, message), away)

    def _page(
        self,
        caller: UserId,
        conversation: ConversationId,
        limit: int,
        before_seq: int | None,
        after_seq: int | None,
    ) -> Page | None:
        held = self._held(caller, conversation)
        if held is None:
            return None
        past, visible_from = held
        messages = past.messages()
        if not messages:
            return None
        lowest, last = next(iter(messages)), next(reversed(messages))
        if after_seq is not None:
            first = max(visible_from, after_seq + 1)
            last = min(last, first + limit - 1)
        else:
            last = last if before_seq is None else min(last, before_seq - 1)
            first = max(visible_from, last - limit + 1)
        if first <= last and first < lowest:
            return None
        changes, now_us = past.changes(), self._now_us()
        found = [
            message_now(messages[seq], changes.get(seq, UNCHANGED), now_us) for seq in range(first, last + 1)
        ]
        return Page(found, past.head)

    def _message(self, caller: UserId, message: MessageId) -> Message | None:
        conversation = self._recent.conversation_of(message)
        held = self._held(caller, conversation) if conversation is not None else None
        if held is None:
            return None
        past, visible_from = held
        for seq, first in past.messages().items():
            if first.message_id == message and seq >= visible_from:
                return message_now(first, past.changes().get(seq, UNCHANGED), self._now_us())
        return None

    def _held(self, caller: UserId, conversation: ConversationId) -> tuple[Past, int] | None:
        """What is held, if nothing has happened since, and the first message that the caller may see."""
        view = self._hub.known(conversation, caller, self._trust_s)
        past = self._recent.past(conversation)
        if view is None or view.viewers is None or past is None or past.head != view.change:
            return None
        return past, max(view.viewers[caller], past.first_kept_seq())

    # resuming

    def missed(self, caller: UserId, conversation: ConversationId, change: int, limit: int) -> Missed | None:
        """What happened after `change`, as it is to be told now; None where that is not known, or more than
        `limit`."""
        view = self._hub.known(conversation, caller, self._trust_s)
        if view is None or view.viewers is None or not 0 <= view.change - change <= limit:
            return None
        if view.change == change:
            return Missed(change, [])
        past = self._recent.past(conversation)
        if past is None or past.head != view.change or past.start > change:
            return None
        visible_from, first_kept = view.viewers[caller], past.first_kept_seq()
        visible_from_change = past.joined(caller) if visible_from else 0
        changes, polls, now_us = past.changes(), past.polls(), self._now_us()
        told: list[Frame] = []
        for live in past.since(change):
            if live.seq is None:
                if live.user_id == caller or live.change >= visible_from_change:
                    told.append(live.frame)
            elif live.seq < first_kept:
                return None  # retention took it: the table would send a gap
            elif live.seq >= visible_from:
                told.append(
                    retell(live, changes.get(live.seq, UNCHANGED), now_us)
                    if live.poll_id is None
                    else retell_poll(live, polls[live.poll_id], now_us)
                )
        return Missed(view.change, told)


def _told(found: T | None, away: Unavailable) -> T:
    if found is None:
        _UNKNOWN.inc()
        raise away
    _TOLD.inc()
    return found
