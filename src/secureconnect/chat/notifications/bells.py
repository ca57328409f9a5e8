"""Bells: devices are woken when somebody calls, and told when it rings no more; who missed it is notified.

Each is written in the transaction of the step it tells of. Calls ring on all devices of a person, connected
or not, ahead of whatever else waits to be pushed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ...clock import MINUTE_US
from ...deps.contracts import Database, Tx
from ...identity import CallId, ConversationId, DeviceId, UserId
from . import push_store, store
from .making import UNMADE, Maker, preferences_of
from .push_store import Ring
from .pushes import AHEAD_US
from .store import Notification

HUSH_US = MINUTE_US  # after which a device that was off rings no more by itself


class Rung(Protocol):
    """A call, as the room signaling has it.  ring_until_us: None once it rings for nobody."""

    @property
    def call_id(self) -> CallId: ...
    @property
    def conversation_id(self) -> ConversationId: ...
    @property
    def caller_id(self) -> UserId: ...
    @property
    def ring_until_us(self) -> int | None: ...


class Bells:
    """is_pushing: whether devices are woken at all.  tell: offers a notification to its person's sockets."""

    def __init__(
        self, db: Database, maker: Maker, is_pushing: bool, tell: Callable[[Notification], None]
    ) -> None:
        self._db = db
        self._maker = maker
        self._is_pushing = is_pushing
        self._tell = tell

    async def ring(self, tx: Tx, call: Rung, people: Sequence[UserId]) -> None:
        """Not for those who have muted the conversation, or want no calls now."""
        now_us = self._db.now_us()
        for user in people:
            if await self._is_rung(tx, call, user, now_us):
                await self._queue(tx, call, user, "incoming", now_us, call.ring_until_us or now_us)

    async def hush(self, tx: Tx, call: Rung, people: Sequence[UserId], answered_on: DeviceId | None) -> None:
        """It rings no more for them. A device that was not woken yet never is."""
        now_us = self._db.now_us()
        for user in people:
            if await self._is_rung(tx, call, user, now_us):
                spared = await push_store.unring(tx, user, call.call_id)
                if answered_on is not None:
                    spared.append(answered_on)
                await self._queue(tx, call, user, "cancelled", now_us, now_us + HUSH_US, spared)

    async def missed(self, tx: Tx, call: Rung, people: Sequence[UserId]) -> Callable[[], None]:
        """The same, and they are notified: their sockets by what is returned, once this is committed."""
        await self.hush(tx, call, people, None)
        now_us = self._db.now_us()
        made = [each for user in people if (each := await self._notify(tx, call, user, now_us)) is not None]

        def tell() -> None:
            for each in made:
                self._tell(each)

        return tell

    async def _notify(self, tx: Tx, call: Rung, user: UserId, now_us: int) -> Notification | None:
        member = await store.listener(tx, call.conversation_id, user)
        if member is None or not member.wants("missed_call", now_us):
            return None
        wanted = Notification(
            UNMADE, user, "missed_call", call.conversation_id, call.call_id, None, call.caller_id, now_us
        )
        return await self._maker.make(tx, wanted)

    async def _is_rung(self, tx: Tx, call: Rung, user: UserId, now_us: int) -> bool:
        if not self._is_pushing:
            return False
        member = await store.listener(tx, call.conversation_id, user)  # None: out of it while it rang
        if member is not None and not member.wants("missed_call", now_us):
            return False
        return (await preferences_of(tx, user)).is_called(now_us)

    @staticmethod
    async def _queue(
        tx: Tx,
        call: Rung,
        user: UserId,
        ring: Ring,
        now_us: int,
        until_us: int,
        spared: Sequence[DeviceId] = (),
    ) -> None:
        await push_store.ring(tx, user, call.call_id, call.call_id, ring, now_us - AHEAD_US, until_us, spared)
