"""The SQL of friends. A row is one person's word; two that point at each other are a friendship."""

from __future__ import annotations

from typing import Literal, NamedTuple

from ...deps.contracts import Tx
from ...identity import UserId
from ..store import USER, User

State = Literal["accepted", "incoming", "outgoing"]


class Friend(NamedTuple):
    """since_us: of the word that made it what it is."""

    since_us: int
    user: User


_ADD = (
    "INSERT INTO friends (user_id, friend_id, created_at) VALUES ($1, $2, $3)"
    " ON CONFLICT (user_id, friend_id) DO NOTHING"
)
_GET = "SELECT 1 FROM friends WHERE user_id = $1 AND friend_id = $2"
_REMOVE = "DELETE FROM friends WHERE user_id = $1 AND friend_id = $2"
_COUNT = "SELECT COUNT(*) FROM friends WHERE user_id = $1"
_ACCEPTED = (
    "SELECT CASE WHEN f.created_at < b.created_at THEN b.created_at ELSE f.created_at END,"  # noqa: S608
    f" {USER} FROM friends f JOIN friends b ON b.user_id = f.friend_id AND b.friend_id = f.user_id"
    " JOIN users u ON u.user_id = f.friend_id"
    " WHERE f.user_id = $1 AND f.friend_id > $2 ORDER BY f.friend_id LIMIT $3"
)
_OUTGOING = (
    f"SELECT f.created_at, {USER} FROM friends f JOIN users u ON u.user_id = f.friend_id"  # noqa: S608
    " WHERE f.user_id = $1 AND f.friend_id > $2 AND NOT EXISTS"
    " (SELECT 1 FROM friends b WHERE b.user_id = f.friend_id AND b.friend_id = f.user_id)"
    " ORDER BY f.friend_id LIMIT $3"
)
_INCOMING = (
    f"SELECT f.created_at, {USER} FROM friends f JOIN users u ON u.user_id = f.user_id"  # noqa: S608
    " WHERE f.friend_id = $1 AND f.user_id > $2 AND NOT EXISTS"
    " (SELECT 1 FROM friends b WHERE b.user_id = f.friend_id AND b.friend_id = f.user_id)"
    " ORDER BY f.user_id LIMIT $3"
)
_LISTS: dict[State, str] = {"accepted": _ACCEPTED, "incoming": _INCOMING, "outgoing": _OUTGOING}


async def add(tx: Tx, user: UserId, friend: UserId, now_us: int) -> None:
    await tx.run(_ADD, user, friend, now_us)


async def wants(tx: Tx, user: UserId, friend: UserId) -> bool:
    return await tx.one(_GET, user, friend) is not None


async def remove(tx: Tx, user: UserId, friend: UserId) -> bool:
    """False when there was nothing to take back."""
    return await tx.run(_REMOVE, user, friend) > 0


async def count(tx: Tx, user: UserId) -> int:
    row = await tx.one(_COUNT, user)
    assert row is not None
    return int(row[0])


async def list_of(tx: Tx, user: UserId, state: State, after: UserId, limit: int) -> list[Friend]:
    """By id, from after that one on."""
    return [Friend(row[0], User(*row[1:])) for row in await tx.all(_LISTS[state], user, after, limit)]
