"""Resume: replays to one socket what it has missed, and joins it to the live stream (DATA.md, section 5).

In rounds: from the beginning of a round the hub holds back what happens; the round reads the table once and
sends what it found at the client's pace. If that was not everything, or more happened meanwhile than could be
held, another round reads on. After the last one `resumed` is sent, once, and what was held follows at once,
except what the table gave already: so that nothing lies between how things stand and what happens next.

While the database is away, what memory holds whole is replayed from there (`recall`), and the socket is live
for those conversations; for the others, and what only the table knows, it resumes when the database is back.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import NamedTuple

import trio

from .. import metrics
from ..clock import DAY_US
from ..config import ChatConfig
from ..deps.contracts import Database, Tx
from ..edge import Frame
from ..errors import Unavailable, is_away
from ..identity import ConversationId, UserId
from . import changes, frames, store
from .catchup import REACH_US
from .changes import Event
from .connection import Connection
from .hub import Hub
from .recall import Recall
from .shapes import muted_until
from .store import Standing

# result: whole, gap (something had to be read again), recalled (from memory; one of the others follows)
RESUMES = metrics.counter("secureconnect_chat_resumes_total", "Sockets that resumed.", ["result"])
_WHOLE, _GAP, _RECALLED = (RESUMES.labels(result) for result in ("whole", "gap", "recalled"))

ROUND_EVENTS = 1_000  # read in one round
ROUND_BYTES = 262_144  # of texts and metadata; a slow client keeps a round in memory until it has taken it
CHUNK = 16  # events read between two looks at their size
STANDINGS = 500  # conversations in one `resumed` frame


class _Round(NamedTuple):
    """What one read found.  positions: where the client will stand.  is_whole: there is no more."""

    standings: list[Standing]
    events: list[Event]
    gaps: list[frames.Gap]
    positions: dict[ConversationId, int]
    is_whole: bool


class _Room:
    """What a round may still hold.  taken: events it holds already."""

    def __init__(self) -> None:
        self.taken = 0
        self._bytes = 0

    @property
    def is_full(self) -> bool:
        return self.taken >= ROUND_EVENTS or self._bytes >= ROUND_BYTES

    def take(self, events: Sequence[Event]) -> None:
        self.taken += len(events)
        said = (event.message for event in events if event.message is not None)
        self._bytes += sum(len(each.content) + len(each.metadata or "") for each in said)


class Resume:
    """One socket's way from its positions to the live stream.

    positions: conversation → the last change the client holds.  is_ours: whether they belong to our history.
    """

    def __init__(
        self,
        config: ChatConfig,
        db: Database,
        hub: Hub,
        recall: Recall,
        connection: Connection,
        positions: dict[ConversationId, int],
        is_ours: bool,
    ) -> None:
        self._config = config
        self._db = db
        self._hub = hub
        self._recall = recall
        self._connection = connection
        self._positions = positions
        self._stale = set() if is_ours else set(positions)
        self._left = config.resume_total
        self._gaps = 0
        self._compared = hub.compared

    async def begin(self) -> bool:
        """Returns whether the socket is live for all. If not, because the database is away, there is `finish`
        to do. Raises SocketClosed."""
        return await self._replay(nullcontext())

    async def finish(self, turns: trio.CapacityLimiter) -> None:
        """When the database is back, resume for the rest; returns when the socket is live for all. Raises
        SocketClosed.

        turns: of those that waited, as many as may read at the same time.
        """
        while True:
            await self._compared.wait()
            if await self._replay(turns):
                return

    async def _replay(self, turn: AbstractAsyncContextManager[object]) -> bool:
        """turn: what each reading of the table waits for."""
        socket = self._connection.socket
        while True:
            try:
                async with turn:
                    found = await self._look()
            except Unavailable as problem:
                if not is_away(problem):
                    raise
                await self._recall_all()
                return False
            if self._connection.only is not None and not found.standings:
                self._connection.lose()
            for gap in found.gaps:
                await socket.send(frames.frame(gap))
            for event in found.events:
                await socket.send(frames.live(event).frame)
            self._positions |= found.positions  # one left meanwhile may be joined again in the next round
            self._stale.difference_update(found.positions)
            self._left -= len(found.events)
            self._gaps += len(found.gaps)
            if found.is_whole and await self._join(found.standings):
                (_GAP if self._gaps else _WHOLE).inc()
                return True

    async def _look(self) -> _Round:
        """Begin a round: hold back what happens, and read what did."""
        self._positions |= self._connection.served or {}
        self._connection.hold()
        self._compared = self._hub.compared
        return await self._db.read(self._read, dict(self._positions), self._left)

    async def _recall_all(self) -> None:
        """Replay what memory holds, and be live for the conversations of which it holds everything."""
        while True:
            missed, told = self._recalled()
            if not told:
                break
            for frame in told:
                await self._connection.socket.send(frame)
            self._positions |= missed
            self._left -= len(told)
        self._connection.serve(missed)
        self._connection.socket.offer(frames.frame(frames.Resuming(conversations=missed)))
        _RECALLED.inc()

    def _recalled(self) -> tuple[dict[ConversationId, int], list[Frame]]:
        """The next round from memory: where the client stands after it, and what it is told."""
        only, user = self._connection.only, self._connection.user_id
        after: dict[ConversationId, int] = {}
        told: list[Frame] = []
        for name, change in self._positions.items():
            if name in self._stale or only not in (None, name):
                continue
            limit = min(self._config.resume_changes, self._left - len(told))
            missed = self._recall.missed(user, name, change, limit)
            if missed is not None:
                after[name] = missed.change
                told += missed.frames
            if len(told) >= ROUND_EVENTS:
                break
        return after, told

    async def _read(self, tx: Tx, positions: dict[ConversationId, int], left: int) -> _Round:
        only, user = self._connection.only, self._connection.user_id
        standings = await store.standings(tx, user)
        if only is not None:
            standings = [each for each in standings if each.conversation_id == only]
        events: list[Event] = []
        gaps: list[frames.Gap] = []
        after: dict[ConversationId, int] = {}
        room = _Room()
        for each in standings:
            name, head = each.conversation_id, each.last_change
            position = positions.get(name)
            after[name] = head
            if position is None:
                continue  # `resumed` tells of it
            if position == head and name not in self._stale:
                continue
            if not self._is_near(each, position, left - room.taken):
                gaps.append(_gap(each))
                continue
            if room.is_full:
                after[name] = position
                continue
            now_us = self._db.now_us()
            page = await _read_on(tx, name, position, room, now_us)
            if page and page[0].stored_us < now_us - self._config.resume_days * DAY_US:
                gaps.append(_gap(each))
                continue
            after[name] = page[-1].change if page else head
            events += [event for event in page if _is_visible(event, each, user)]
        heads = {each.conversation_id: each.last_change for each in standings}
        return _Round(standings, events, gaps, after, after == heads)

    def _is_near(self, standing: Standing, position: int, left: int) -> bool:
        """Whether what was missed is there and not too much."""
        missed = standing.last_change - position
        return (
            standing.conversation_id not in self._stale
            and position >= standing.min_change
            and 0 <= missed <= min(self._config.resume_changes, left)
        )

    async def _join(self, standings: list[Standing]) -> bool:
        """Send `resumed` and go live. False when more happened than could be held."""
        *first, last = _resumed(standings)
        for told in first:
            await self._connection.socket.send(frames.frame(told))
        if self._connection.overflowed:
            return False
        self._connection.socket.offer(frames.frame(last))
        self._connection.release(self._positions)
        self._forget_floors(standings)
        return True

    def _forget_floors(self, standings: list[Standing]) -> None:
        """Keep only the positions that the hub has yet to pass."""
        recent_us = self._db.now_us() - REACH_US
        self._connection.keep_floors(
            [
                each.conversation_id
                for each in standings
                if each.touched_us >= recent_us
                and (self._hub.change_of(each.conversation_id) or 0) < each.last_change
            ]
        )


def _resumed(standings: list[Standing]) -> list[frames.Resumed]:
    """The frames that name all of them, at least one."""
    lines: list[tuple[str, frames.Standing]] = [
        (
            each.conversation_id,
            frames.Standing(
                seq=each.last_seq,
                change=each.last_change,
                first_seq=max(each.first_seq, each.visible_from_seq),
                last_read_seq=each.last_read_seq,
                unread_count=each.unread_count,
                unread_mentions=each.unread_mentions,
                is_muted=(mute := muted_until(each.muted_until_us))[0],
                muted_until=mute[1],
            ),
        )
        for each in standings
    ]
    parts = [dict(lines[start : start + STANDINGS]) for start in range(0, max(len(lines), 1), STANDINGS)]
    return [
        *(frames.Resumed(conversations=part, more=True) for part in parts[:-1]),
        frames.Resumed(conversations=parts[-1]),
    ]


async def _read_on(tx: Tx, conversation: ConversationId, after: int, room: _Room, now_us: int) -> list[Event]:
    """What happened after a change, as far as there is room for it."""
    found: list[Event] = []
    while not room.is_full:
        chunk = await changes.events(tx, conversation, after, CHUNK, now_us)
        room.take(chunk)
        found += chunk
        if len(chunk) < CHUNK:
            break
        after = chunk[-1].change
    return found


def _is_visible(event: Event, standing: Standing, user: UserId) -> bool:
    """The position is the client's word: it may lie before its person joined. That they came and went
    themselves is theirs to know."""
    if event.seq is not None:
        return event.seq >= standing.visible_from_seq
    is_theirs = event.user is not None and event.user.user_id == user
    return is_theirs or event.change >= standing.visible_from_change


def _gap(standing: Standing) -> frames.Gap:
    return frames.Gap(
        conversation_id=standing.conversation_id,
        from_seq=max(standing.first_seq, standing.visible_from_seq),
        to_seq=standing.last_seq,
        change=standing.last_change,
    )
