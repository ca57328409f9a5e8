"""Announcements: everybody is notified, a page of people at a time.

That one is to be told of is written in its own transaction, by the room that makes it; how far that has come
moves with each page, so that everybody is told once, whatever crashes meanwhile.
"""

from __future__ import annotations

import structlog

from ...config import ChatConfig
from ...deps.contracts import Database, Tx
from ...identity import UserId
from ...periodic import every
from . import store
from .making import UNMADE, Maker
from .store import Notification

log = structlog.get_logger(module="chat")

PAGE = 100  # people in one transaction


async def note_announcement(tx: Tx, announcement_id: str, made_by: UserId) -> None:
    """In the transaction that makes it."""
    await store.note_announcement(tx, announcement_id, made_by)


class Announced:
    def __init__(self, config: ChatConfig, db: Database, maker: Maker) -> None:
        self._period_s = config.notify_pass_s
        self._db = db
        self._maker = maker

    async def pass_once(self) -> int:
        """Tell whoever has not been told. Returns how many pages that took. Safe to repeat, on every node."""
        pages = 0
        while await self._db.write(self._tell_some, self._db.now_us()):
            pages += 1
        return pages

    async def pass_forever(self) -> None:
        await every(self._period_s, self.pass_once, log, "not_announced")

    async def _tell_some(self, tx: Tx, now_us: int) -> bool:
        """False when there is nothing to tell."""
        announced = await store.next_announced(tx)
        if announced is None:
            return False
        people = await store.people_after(tx, announced.told_up_to, PAGE)
        for user in people:
            if user != announced.made_by:
                wanted = Notification(
                    UNMADE,
                    user,
                    "announcement",
                    None,
                    announced.announcement_id,
                    None,
                    announced.made_by,
                    now_us,
                )
                await self._maker.make(tx, wanted)
        if len(people) < PAGE:
            await store.all_announced(tx, announced.announcement_id)
        else:
            await store.announce_on(tx, announced.announcement_id, people[-1])
        return True
