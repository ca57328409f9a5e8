"""The SQL of the export: what this room holds of one person."""

from __future__ import annotations

from typing import NamedTuple

from ...deps.contracts import Tx
from ...identity import UserId

_BLOCKED = "SELECT blocked_id, created_at FROM blocks WHERE user_id = $1 ORDER BY created_at"
_FRIENDS = (
    "SELECT friend_id, created_at, 1 FROM friends WHERE user_id = $1"
    " UNION ALL SELECT user_id, created_at, 0 FROM friends WHERE friend_id = $1 ORDER BY 2"
)


class Word(NamedTuple):
    """A request of friendship.  is_mine: made by the person, not to them."""

    user_id: UserId
    created_us: int
    is_mine: bool


async def list_blocked(tx: Tx, user: UserId) -> list[tuple[UserId, int]]:
    return [(UserId(blocked), created_us) for blocked, created_us in await tx.all(_BLOCKED, user)]


async def list_words(tx: Tx, user: UserId) -> list[Word]:
    return [
        Word(other, created_us, bool(is_mine)) for other, created_us, is_mine in await tx.all(_FRIENDS, user)
    ]
