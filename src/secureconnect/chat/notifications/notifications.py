"""The rules of a person's own notifications: seeing, reading, and choosing which there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from ...deps.contracts import Database, Tx
from ...errors import NotFound
from ...identity import ConversationId, NotificationId, UserId
from ..conversations import not_found
from . import push_store, store
from .making import preferences_of
from .preferences import Preferences, require_zone
from .store import Choice, Notification, Notify


class Listed(NamedTuple):
    """A page of somebody's.  unread: of all of them."""

    notifications: list[Notification]
    unread: int


class Notifications:
    """tell: offers one that was read to its person's other screens.  tell_all: says up to which all are
    read."""

    def __init__(
        self,
        db: Database,
        tell: Callable[[Notification], None],
        tell_all: Callable[[UserId, NotificationId, int], None],
    ) -> None:
        self._db = db
        self._tell = tell
        self._tell_all = tell_all

    async def page(self, caller: UserId, before: NotificationId, limit: int, *, only_unread: bool) -> Listed:
        """The newest first."""

        async def unit(tx: Tx) -> Listed:
            found = await store.page(tx, caller, before, limit, only_unread=only_unread)
            return Listed(found, await store.count_unread(tx, caller))

        return await self._db.read(unit)

    async def read(self, caller: UserId, notification: NotificationId) -> Notification:
        """Reading twice is reading once. Raises NotFound."""

        async def unit(tx: Tx) -> tuple[Notification, bool]:
            moved = await store.read(tx, caller, notification, self._db.now_us())
            found = await store.get(tx, caller, notification)
            if found is None:
                raise NotFound
            return found, moved

        found, moved = await self._db.write(unit)
        if moved:
            self._tell(found)
        return found

    async def read_all(self, caller: UserId, up_to: NotificationId) -> int:
        """Those up to that one; what comes meanwhile stays unread. How many that were."""

        async def unit(tx: Tx) -> int:
            return await store.read_all(tx, caller, up_to, now_us)

        now_us = self._db.now_us()
        read = await self._db.write(unit)
        if read:
            self._tell_all(caller, up_to, now_us)
        return read

    async def preferences(self, caller: UserId) -> Preferences:
        return await self._db.read(preferences_of, caller)

    async def choose(self, caller: UserId, wanted: Preferences) -> None:
        """Raises Invalid."""
        if wanted.quiet_hours is not None:
            require_zone(wanted.quiet_hours.time_zone)
        await self._db.write(store.choose, caller, msgspec.json.encode(wanted).decode(), self._db.now_us())

    async def notify(self, caller: UserId, conversation: ConversationId) -> Choice:
        """Raises NotFound."""
        found = await self._db.read(store.notify, conversation, caller)
        if found is None:
            raise not_found(conversation)
        return found

    async def set_notify(self, caller: UserId, conversation: ConversationId, notify: Notify | None) -> None:
        """What they are told of it; None: as everywhere. Raises NotFound."""
        if not await self._db.write(store.set_notify, conversation, caller, notify):
            raise not_found(conversation)

    async def forget(self, user: UserId) -> None:
        """Somebody is erased. Safe to repeat."""
        await self._db.relieve(store.forget, user)
        await self._db.relieve(push_store.forget, user)
