"""The rule of reading what a message said before."""

from __future__ import annotations

from ...deps.contracts import Database, Tx
from ...errors import MessageDeleted
from ...identity import MessageId, UserId
from ..messages import require_visible
from . import store
from .store import Version


class Versions:
    def __init__(self, db: Database) -> None:
        self._db = db

    async def page(self, caller: UserId, message: MessageId, after: int, limit: int) -> list[Version]:
        """Ascending, from after version `after` on; the last of all is what it says now. Raises NotFound,
        MessageDeleted."""
        return await self._db.read(self._page, caller, message, after, limit)

    async def _page(
        self, tx: Tx, caller: UserId, message_id: MessageId, after: int, limit: int
    ) -> list[Version]:
        message = await require_visible(tx, caller, message_id, self._db.now_us())
        if message.deleted_us is not None:
            raise MessageDeleted
        return await store.of_message(tx, message, after, limit)
