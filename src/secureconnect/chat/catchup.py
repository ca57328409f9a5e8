"""Catch-up: finds in the table what the bus has lost, and reads what the hub is behind in (DATA.md, §4).

A pass compares heads, not messages: one indexed read of the conversations touched since the last pass, less
an overlap, says where the hub is behind; only those are read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import structlog
import trio

from .. import metrics
from ..clock import MINUTE_US, SECOND_US
from ..deps.contracts import Database, Tx
from ..errors import Problem, Unavailable, is_away
from ..identity import ConversationId, UserId
from ..periodic import Trouble
from . import changes, frames, store
from .changes import Event
from .deletion import store as deletion
from .hub import About, Behind, Hub
from .store import Head

log = structlog.get_logger(module="chat")

HEALED = metrics.counter("secureconnect_chat_healed_total", "Events told because catch-up found them.")

# The longest a committed change can hide behind an older time: lock and statement limits of 10 s each, 5 s of
# difference between the nodes' clocks, and 5 s to spare.
OVERLAP_US = 30 * SECOND_US
REACH_US = 10 * MINUTE_US  # of the pass made each minute
REACH_EVERY_US = MINUTE_US
PAGE = 500
BLOCKS_S = 120.0  # after which blocks of direct conversations are looked at again: well below journal.trust_s
BLOCKS = 500  # such conversations in one pass a minute
FAST_S = 0.5  # between passes while the bus does not work
PAUSE_S = 0.5


class RolledBack(Exception):
    """The database has forgotten a change this node had seen committed: it went back to an earlier state."""


class Hole(NamedTuple):
    """What the table says of a conversation.  after: the position before `events`.  viewers: those at their
    end, without whoever joins in them, to whom nothing before that is told."""

    after: int
    viewers: dict[UserId, int]
    events: list[Event]
    about: About


class _Page:
    """Where to go on reading heads."""

    def __init__(self, since_us: int) -> None:
        self.since_us = since_us
        self.after: str = store.NO_ID
        self.is_next = True


class CatchUp:
    """heads: how many conversations a pass looks at together."""

    def __init__(self, db: Database, hub: Hub, heads: int) -> None:
        self._db = db
        self._hub = hub
        self._heads = heads
        self._last_us = 0
        self._reached_us = 0
        self._wanted = trio.Event()
        self._has_set_out = False

    async def set_out(self) -> None:
        """Take the position of every conversation that moved lately, before there is a socket. While the
        database is away that is left to the first pass."""
        now = trio.current_time()
        self._last_us = self._db.now_us()
        try:
            await self._take_positions(self._last_us)
        except Unavailable as problem:
            if not is_away(problem):
                raise
            log.warning("chat_without_database", code=problem.code)
            self._hub.lose_sight()
        else:
            self._hub.confirm(now)

    async def _take_positions(self, until_us: int) -> None:
        """Of conversations that moved lately, and not after `until_us`: that is news."""
        now_us = self._db.now_us()
        page = _Page(now_us - REACH_US)
        while page.is_next:
            heads = await self._heads_on(page)
            self._hub.set_out(
                head for head in heads if head[2] <= until_us and self._hub.change_of(head[0]) is None
            )
        self._reached_us = now_us
        self._has_set_out = True

    async def pass_once(self) -> int:
        """Tell whatever was missed. Returns how many events that were. Raises RolledBack."""
        now, now_us = trio.current_time(), self._db.now_us()
        if not self._has_set_out:
            await self._take_positions(self._last_us - OVERLAP_US)
        since_us = self._last_us - OVERLAP_US
        reaches = now_us - self._reached_us >= REACH_EVERY_US
        if reaches:
            since_us = min(since_us, now_us - REACH_US)
        healed = 0
        page = _Page(since_us)
        while page.is_next:
            for conversation, head, _ in await self._heads_on(page):
                position = self._hub.change_of(conversation)
                if position is None or position < head:
                    self._hub.fall_behind(conversation, None, since_us, head=head)
                elif position > head:
                    await self._require_forward(conversation)
            healed += await self.repair_once()  # before the next: the hub notes so many at a time
        HEALED.inc(healed)
        self._last_us = now_us
        if reaches:
            self._reached_us = now_us
            await self._look_at_blocks()
        self._hub.confirm(now)
        return healed

    async def _look_at_blocks(self) -> None:
        """They are no events, so that those of quiet conversations would be known no more."""
        now = trio.current_time()
        if pairs := self._hub.unclear(now - BLOCKS_S, BLOCKS):
            for conversation, is_clear in await self._db.read(_look, pairs):
                self._hub.looked(conversation, is_clear, now)

    async def _heads_on(self, page: _Page) -> list[Head]:
        """Those on the page, which is turned."""
        heads = await self._db.read(store.heads_since, page.since_us, page.after, self._heads)
        page.is_next = len(heads) == self._heads  # or those touched meanwhile would keep us for ever
        if heads:
            page.after, _, page.since_us = heads[-1]
        return heads

    async def _require_forward(self, conversation: ConversationId) -> None:
        """Raises RolledBack unless the hub just moved on while the heads were being read."""
        position = self._hub.change_of(conversation)
        stored = await self._db.read(store.get, conversation)
        if position is not None and stored is not None and stored.last_change < position:
            raise RolledBack(f"{conversation} is at change {stored.last_change}, {position} was seen")

    async def repair_once(self) -> int:
        """Read every conversation the hub is behind in. Returns how many events were told."""
        told = 0
        while (next_ := self._hub.take_behind()) is not None:
            conversation, behind = next_
            with self._hub.reading(conversation, behind):
                try:
                    told += await self._repair(conversation, behind)
                except Problem:
                    self._hub.put_back(conversation, behind)
                    raise
        return told

    async def _repair(self, conversation: ConversationId, behind: Behind) -> int:
        told = 0
        while True:
            position = self._hub.change_of(conversation)
            hole = await self._db.read(self._read_hole, conversation, position, behind)
            if hole is None:
                return told
            lives = [frames.live(event) for event in hole.events]
            told += self._hub.fill(conversation, hole.after, hole.viewers, lives, behind, hole.about)
            if len(hole.events) < PAGE:
                return told

    async def _read_hole(
        self, tx: Tx, conversation_id: ConversationId, position: int | None, behind: Behind
    ) -> Hole | None:
        conversation = await store.get(tx, conversation_id)
        if conversation is None:
            return None
        after = position
        if after is None:
            since_us = behind.since_us if behind.since_us is not None else self._db.now_us() - OVERLAP_US
            after = await changes.last_before(tx, conversation, since_us)
            if behind.change is not None and behind.change <= after:
                # what was heard is told, unless it is so old that everybody has had it
                reach = await changes.last_before(tx, conversation, self._db.now_us() - REACH_US)
                after = max(behind.change - 1, reach)
        after = max(after, conversation.min_change)  # what retention took is told to nobody
        events = await changes.events(tx, conversation.conversation_id, after, PAGE, self._db.now_us())
        viewers = await store.viewers(tx, conversation_id) or await deletion.viewers(tx, conversation_id)
        is_direct = conversation.type == "direct"
        is_clear = not is_direct or await store.are_clear(tx, *_pair(viewers))
        for event in events:
            if event.kind == "user_joined" and event.user is not None:
                viewers.pop(event.user.user_id, None)
        about = About(is_direct, conversation.is_e2ee_enabled, is_clear)
        return Hole(after, viewers, events, about)

    def hurry(self) -> None:
        """Something may have been missed: make the next pass at once."""
        self._wanted.set()

    async def pass_forever(self, period_s: float, is_bus_healthy: Callable[[], bool]) -> None:
        failing = not self._has_set_out
        while True:
            if not failing:
                await self._pause(period_s, is_bus_healthy)
            self._wanted = trio.Event()
            try:
                await self.pass_once()
            except Problem as problem:
                if not failing:
                    log.warning("catch_up_failed", code=problem.code)
                failing = True
                if is_away(problem):
                    self._hub.lose_sight()
                await trio.sleep(PAUSE_S)
            else:
                if failing:
                    log.info("caught_up")
                failing = False

    async def _pause(self, period_s: float, is_bus_healthy: Callable[[], bool]) -> None:
        """Until the next pass is due: soon if the bus does not work, at once if one is wanted."""
        due = trio.current_time() + period_s
        while not self._wanted.is_set() and trio.current_time() < due:
            with trio.move_on_after(min(FAST_S, period_s)):
                await self._wanted.wait()
            if not is_bus_healthy():
                return

    async def repair_forever(self) -> None:
        trouble = Trouble(log, "repair_failed")
        while True:
            await self._hub.wait_behind()
            with trouble:
                await self.repair_once()
                continue
            await trio.sleep(PAUSE_S)


async def _look(
    tx: Tx, pairs: list[tuple[ConversationId, UserId, UserId]]
) -> list[tuple[ConversationId, bool]]:
    """Whether the people of each may write to each other."""
    return [(name, await store.are_clear(tx, one, other)) for name, one, other in pairs]


def _pair(viewers: dict[UserId, int]) -> tuple[UserId, UserId]:
    """Both people of a direct conversation; one of them may be gone."""
    one, *others = [*viewers, UserId(store.NO_ID)]
    return one, others[0] if others else one
