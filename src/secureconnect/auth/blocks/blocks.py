"""The rules of blocking."""

from __future__ import annotations

from collections.abc import Callable

from ...deps.contracts import Database, Tx
from ...errors import Conflict, Invalid, NotFound
from ...identity import UserId
from ..devicekeys import company
from ..devicekeys.news import News
from ..friends import store as friends
from . import store
from .store import Blocked

Parted = Callable[[UserId, UserId], None]


def _nobody(_: UserId, __: UserId) -> None:
    """Whoever shows people to each other is told once `connect` says who that is."""


class Blocks:
    """most: people one account may block.  parted: is told of two people who must no longer see each other;
    never waits.  news: told whose keys the two may not have any more, or may have again."""

    def __init__(self, db: Database, most: int, news: News) -> None:
        self._db = db
        self._most = most
        self._news = news
        self.parted: Parted = _nobody

    async def add(self, caller: UserId, other: UserId) -> int:
        """Returns since when `other` is blocked. What there was of a friendship ends. Raises NotFound, and
        Conflict when there are as many as may be."""
        if other == caller:
            raise Invalid("You cannot block yourself.", details={"field": "user_id"})
        since_us = await self._db.write(self._add, caller, other)
        self.parted(caller, other)
        self._news.related(caller, other, quietly=True)
        return since_us

    async def _add(self, tx: Tx, caller: UserId, other: UserId) -> int:
        if other not in await store.lock_pair(tx, caller, other):
            raise NotFound
        now_us = self._db.now_us()
        since_us = await store.add(tx, caller, other, now_us)
        if await store.count(tx, caller) > self._most:
            raise Conflict(f"You can block at most {self._most} people.")
        await friends.remove(tx, caller, other)
        await friends.remove(tx, other, caller)
        await company.note_relation(tx, caller, other, now_us, quietly=True)
        return since_us

    async def remove(self, caller: UserId, other: UserId) -> None:
        """Nothing happens when `other` is not blocked."""
        if await self._db.write(self._remove, caller, other):
            self._news.related(caller, other)

    async def _remove(self, tx: Tx, caller: UserId, other: UserId) -> bool:
        """Whether there was a block."""
        if not await store.remove(tx, caller, other):
            return False
        await company.note_relation(tx, caller, other, self._db.now_us())
        return True

    async def list_of(self, caller: UserId, after: UserId, limit: int) -> list[Blocked]:
        """One more than `limit` if there are more."""
        return await self._db.read(store.list_of, caller, after, limit + 1)
