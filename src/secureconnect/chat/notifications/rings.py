"""Rings: devices woken for what is said in groups, without a notification of it.

The writer says where something was said. Once `push.delay_s` has passed, one look tells which members that
concerns and who of them is not connected; for those alone something is written. A look at the table from time
to time finds what a crash has made a node forget, and who was connected then and is not any more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial

import structlog
import trio

from ...clock import MINUTE_US, SECOND_US
from ...config import PushConfig
from ...deps.contracts import Database, Tx
from ...identity import ConversationId, UserId
from ...periodic import every, modestly
from ..changes import Event
from ..hub import Hub
from . import push_store
from .preferences import preferences_from
from .push_store import Listener

log = structlog.get_logger(module="chat")

TOGETHER = 50  # people in one transaction
IDLE_S = 5.0  # until the next look at a group where there was nobody to wake
SWEEP_S = 60.0  # between two looks for what was forgotten, and for who has left
SWEEP_US = 10 * MINUTE_US  # how far back the first of them looks
Ring = Callable[[Tx, ConversationId, Sequence[Listener], int], Awaitable[None]]


class Rings:
    """limit: groups that wait for a look, and that rest after one.  share: part of the time that looking may
    take.  ring: of `Pushes`.  is_here: whether somebody is connected, on any node, as far as that is known
    here."""

    def __init__(
        self,
        config: PushConfig,
        db: Database,
        hub: Hub,
        limit: int,
        share: float,
        ring: Ring,
        is_here: Callable[[UserId], bool],
    ) -> None:
        self._config = config
        self._db = db
        self._hub = hub
        self._limit = limit
        self._share = share
        self._ring = ring
        self._is_here = is_here
        self._waiting: dict[ConversationId, float] = {}  # when to look, on trio's clock
        self._resting: dict[ConversationId, float] = {}  # not before
        self._sweep_at = -SWEEP_S
        self._reach_us = SWEEP_US

    def heard(self, events: Iterable[Event]) -> None:
        """These are committed. Never waits; one that is forgotten for want of room is found later."""
        at = trio.current_time() + self._config.delay_s
        for event in events:
            name = event.conversation_id
            if event.kind == "chat" and name not in self._waiting and not self._hub.is_direct(name):
                self._wait(name, at)

    def _wait(self, group: ConversationId, at: float) -> None:
        if len(self._waiting) < self._limit:
            self._waiting.setdefault(group, at)

    async def pass_once(self) -> None:
        """Look where something was said. Safe to repeat, and on every node."""
        now = trio.current_time()
        if now >= self._sweep_at:
            await self.sweep_once()
            self._sweep_at = now + SWEEP_S
            self._reach_us = int((self._config.again_s + 2 * SWEEP_S) * SECOND_US)
        now = trio.current_time()
        self._resting = {group: until for group, until in self._resting.items() if until > now}
        for group in [name for name, at in self._waiting.items() if at <= now and name not in self._resting]:
            del self._waiting[group]
            try:
                await modestly(self._share, partial(self._look, group))
            except BaseException:
                self._wait(group, now)
                raise

    async def sweep_once(self) -> None:
        """Have the next pass look wherever something happened lately and somebody may be left to wake."""
        now = trio.current_time()
        since_us = self._db.now_us() - self._reach_us
        for group in await self._db.read(push_store.unrung, since_us, self._limit):
            self._wait(group, now)

    async def pass_forever(self) -> None:
        await every(self._config.poll_s, self.pass_once, log, "nobody_rung")

    async def _look(self, group: ConversationId) -> None:
        now_us = self._db.now_us()
        wanted = [
            each
            for each in await self._db.read(push_store.listeners, group, now_us)
            if not self._is_here(each.user_id) and preferences_from(each.chosen).is_rung(each.notify, now_us)
        ]
        for start in range(0, len(wanted), TOGETHER):
            await self._db.write(self._ring, group, wanted[start : start + TOGETHER], now_us)
        every_s = self._config.group_every_s
        if len(self._resting) < self._limit:
            self._resting[group] = trio.current_time() + (every_s if wanted else min(IDLE_S, every_s))
