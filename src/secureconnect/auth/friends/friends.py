"""The rules of friendship. Each unit holds both accounts, so that what it answers is how things then are."""

from __future__ import annotations

from ...deps.contracts import Database, Tx
from ...errors import Conflict, Forbidden, Invalid, NotFound
from ...idempotency import Attempt, once
from ...identity import UserId
from ..blocks import store as blocks
from ..devicekeys import company
from ..devicekeys.news import News
from . import store
from .store import Friend, State


class Friends:
    """most: friends and requests one account may have made.  news: told of friendships, for friends have each
    other's keys."""

    def __init__(self, db: Database, most: int, news: News) -> None:
        self._db = db
        self._most = most
        self._news = news

    async def ask(self, caller: UserId, other: UserId, attempt: Attempt | None) -> State:
        """Ask `other` to be friends; if they have asked already, they are. Raises NotFound, Forbidden where
        either has blocked the other, and Conflict when there are as many as may be."""
        if other == caller:
            raise Invalid("You cannot befriend yourself.", details={"field": "user_id"})
        state = await once(self._db, attempt, State, self._ask, caller, other)
        if state == "accepted":
            self._news.related(caller, other)
        return state

    async def _ask(self, tx: Tx, caller: UserId, other: UserId) -> State:
        if other not in await blocks.lock_pair(tx, caller, other):
            raise NotFound
        if await blocks.are_apart(tx, caller, other):
            raise Forbidden(denial="denied:forbidden", subject=other)
        await self._add(tx, caller, other)
        if not await store.wants(tx, other, caller):
            return "outgoing"
        await company.note_relation(tx, caller, other, self._db.now_us())
        return "accepted"

    async def accept(self, caller: UserId, other: UserId) -> None:
        """Raises NotFound unless `other` has asked; nothing happens when they are friends."""
        await self._db.write(self._accept, caller, other)
        self._news.related(caller, other)

    async def _accept(self, tx: Tx, caller: UserId, other: UserId) -> None:
        await blocks.lock_pair(tx, caller, other)
        if other == caller or not await store.wants(tx, other, caller):
            raise NotFound
        await self._add(tx, caller, other)
        await company.note_relation(tx, caller, other, self._db.now_us())

    async def reject(self, caller: UserId, other: UserId) -> None:
        """Raises NotFound unless `other` has asked and waits."""
        await self._db.write(self._reject, caller, other)

    async def _reject(self, tx: Tx, caller: UserId, other: UserId) -> None:
        await blocks.lock_pair(tx, caller, other)
        if await store.wants(tx, caller, other) or not await store.remove(tx, other, caller):
            raise NotFound

    async def remove(self, caller: UserId, other: UserId) -> None:
        """End a friendship, or take a request back. Raises NotFound where there is neither."""
        if await self._db.write(self._remove, caller, other):
            self._news.related(caller, other)

    async def _remove(self, tx: Tx, caller: UserId, other: UserId) -> bool:
        """Whether they were friends."""
        await blocks.lock_pair(tx, caller, other)
        if not await store.remove(tx, caller, other):
            raise NotFound
        if not await store.remove(tx, other, caller):
            return False
        await company.note_relation(tx, caller, other, self._db.now_us())
        return True

    async def list_of(self, caller: UserId, state: State, after: UserId, limit: int) -> list[Friend]:
        """One more than `limit` if there are more."""
        return await self._db.read(store.list_of, caller, state, after, limit + 1)

    async def _add(self, tx: Tx, caller: UserId, other: UserId) -> None:
        await store.add(tx, caller, other, self._db.now_us())
        if await store.count(tx, caller) > self._most:
            raise Conflict(f"You can have at most {self._most} friends and requests.")
