"""The SQL of blocks."""

from __future__ import annotations

from typing import NamedTuple

from ...deps.contracts import Tx
from ...identity import UserId
from ..store import USER, User

_LOCK = "UPDATE users SET user_id = user_id WHERE user_id = $1 RETURNING erased_at"
_ADD = (
    "INSERT INTO blocks (user_id, blocked_id, created_at) VALUES ($1, $2, $3)"
    " ON CONFLICT (user_id, blocked_id) DO NOTHING"
)
_GET = "SELECT created_at FROM blocks WHERE user_id = $1 AND blocked_id = $2"
_REMOVE = "DELETE FROM blocks WHERE user_id = $1 AND blocked_id = $2"
_COUNT = "SELECT COUNT(*) FROM blocks WHERE user_id = $1"
_LIST = (
    f"SELECT b.created_at, {USER} FROM blocks b JOIN users u ON u.user_id = b.blocked_id"  # noqa: S608
    " WHERE b.user_id = $1 AND b.blocked_id > $2 ORDER BY b.blocked_id LIMIT $3"
)
_APART = (
    "SELECT 1 FROM blocks WHERE (user_id = $1 AND blocked_id = $2) OR (user_id = $2 AND blocked_id = $1)"
    " LIMIT 1"
)


class Blocked(NamedTuple):
    created_us: int
    user: User


async def lock_pair(tx: Tx, one: UserId, other: UserId) -> frozenset[UserId]:
    """Hold both accounts until the transaction ends, so that what is decided about the two stays true.
    Returns those who are there and not erased."""
    found = {user: await tx.one(_LOCK, user) for user in sorted({one, other})}
    return frozenset(user for user, row in found.items() if row is not None and row[0] is None)


async def add(tx: Tx, user: UserId, blocked: UserId, now_us: int) -> int:
    """Returns since when it is there."""
    await tx.run(_ADD, user, blocked, now_us)
    row = await tx.one(_GET, user, blocked)
    assert row is not None
    return int(row[0])


async def remove(tx: Tx, user: UserId, blocked: UserId) -> bool:
    """False when there was none."""
    return await tx.run(_REMOVE, user, blocked) > 0


async def count(tx: Tx, user: UserId) -> int:
    row = await tx.one(_COUNT, user)
    assert row is not None
    return int(row[0])


async def list_of(tx: Tx, user: UserId, after: UserId, limit: int) -> list[Blocked]:
    """Whom `user` has blocked, by id, from after that one on."""
    return [Blocked(row[0], User(*row[1:])) for row in await tx.all(_LIST, user, after, limit)]


async def are_apart(tx: Tx, one: UserId, other: UserId) -> bool:
    """Whether either has blocked the other."""
    return await tx.one(_APART, one, other) is not None
