"""Rules for announcements."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ... import audit
from ...deps.contracts import Database, Tx
from ...edge import require_admin
from ...errors import Invalid
from ...idempotency import Attempt, once
from ...identity import Principal, UserId, new_id
from . import store
from .store import Announcement


def _to_nobody(_: Announcement) -> None:
    """Until somebody is named who can tell."""


async def _unnoted(_: Tx, __: str, ___: UserId) -> None:
    """Until somebody is named who tells those who are away."""


class Announcements:
    """tell: tells every connected client, on every node; never waits.  noted: sees to it that everybody is
    notified, in the transaction that makes one: of its id and who makes it."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.tell: Callable[[Announcement], None] = _to_nobody
        self.noted: Callable[[Tx, str, UserId], Awaitable[None]] = _unnoted

    async def make(
        self, caller: Principal, text: str, until_us: int | None, address: str, attempt: Attempt | None
    ) -> Announcement:
        """Raises Forbidden, Invalid."""

        async def unit(tx: Tx) -> Announcement:
            if until_us is not None and until_us <= now_us:
                raise Invalid("An announcement ends in the future.", details={"field": "until"})
            await store.add(tx, new)
            await self.noted(tx, new.announcement_id, caller.user_id)
            await audit.record(
                tx,
                action="admin:announcement:made",
                actor=caller.user_id,
                subject=new.announcement_id,
                address=address,
                now_us=now_us,
            )
            return new

        require_admin(caller, "announcements")
        now_us = self._db.now_us()
        new = Announcement(new_id(), text, now_us, caller.user_id, until_us)
        made = await once(self._db, attempt, Announcement, unit)
        if made == new:  # not by an earlier attempt, which has told of it
            self.tell(made)
        return made

    async def list_current(self, before: str, limit: int) -> list[Announcement]:
        """Those that hold now, the newest first; one more than `limit` if there are more."""
        return await self._db.read(store.list_announcements, before, limit + 1, self._db.now_us())

    async def list_all(self, caller: Principal, before: str, limit: int) -> list[Announcement]:
        """The same with those that have ended. Raises Forbidden."""
        require_admin(caller, "announcements")
        return await self._db.read(store.list_announcements, before, limit + 1, None)
