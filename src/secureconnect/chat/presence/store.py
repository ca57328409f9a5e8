"""The SQL of presence: who may see whom, and when people were last here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...deps.contracts import Tx
from ...identity import UserId
from ..store import NO_ID

PAGE = 100  # people named in one statement; the places of fewer are filled up

_SHARERS = (
    "SELECT DISTINCT other.user_id FROM members mine JOIN members other"
    " ON other.conversation_id = mine.conversation_id WHERE mine.user_id = $1 AND other.user_id > $2"
    " AND other.user_id NOT IN (SELECT blocked_id FROM blocks WHERE user_id = $1)"
    " AND other.user_id NOT IN (SELECT user_id FROM blocks WHERE blocked_id = $1)"
    " ORDER BY other.user_id LIMIT $3"
)
_THESE = ", ".join(f"${number}" for number in range(2, PAGE + 2))
_VISIBLE = (
    "SELECT u.user_id, u.user_id = $1 OR u.shows_last_seen, l.seen_at FROM users u"  # noqa: S608
    f" LEFT JOIN last_seen l ON l.user_id = u.user_id WHERE u.user_id IN ({_THESE}) AND (u.user_id = $1"
    " OR (EXISTS (SELECT 1 FROM members mine JOIN members other"
    " ON other.conversation_id = mine.conversation_id"
    " WHERE mine.user_id = $1 AND other.user_id = u.user_id)"
    " AND NOT EXISTS (SELECT 1 FROM blocks b WHERE (b.user_id = $1 AND b.blocked_id = u.user_id)"
    " OR (b.user_id = u.user_id AND b.blocked_id = $1))))"
)
_SHARE = (
    "SELECT 1 FROM members one JOIN members other ON other.conversation_id = one.conversation_id"
    " WHERE one.user_id = $1 AND other.user_id = $2 LIMIT 1"
)
_SHOWS_LAST_SEEN = "SELECT 1 FROM users WHERE user_id = $1 AND shows_last_seen"
_SAVE = (
    "INSERT INTO last_seen (user_id, seen_at) SELECT u.user_id, $2 FROM users u"
    " WHERE u.user_id = $1 AND u.shows_last_seen AND u.erased_at IS NULL"
    " ON CONFLICT (user_id) DO UPDATE SET seen_at = excluded.seen_at"
    " WHERE last_seen.seen_at < excluded.seen_at"
)
_LAST_SEEN = "SELECT seen_at FROM last_seen WHERE user_id = $1"
_FORGET = "DELETE FROM last_seen WHERE user_id = $1"


class Visible(NamedTuple):
    """Somebody whose presence one may see.  seen_us: as it is stored."""

    user_id: UserId
    shows_last_seen: bool
    seen_us: int | None


async def sharers(tx: Tx, user: UserId, after: str, limit: int) -> list[UserId]:
    """Who shares a conversation with `user` and is not apart from them, themselves included, by id from after
    that one on."""
    return [row[0] for row in await tx.all(_SHARERS, user, after, limit)]


async def share(tx: Tx, one: UserId, other: UserId) -> bool:
    """Whether they have a conversation in common, apart or not."""
    return await tx.one(_SHARE, one, other) is not None


async def visible(tx: Tx, caller: UserId, users: Sequence[UserId]) -> list[Visible]:
    """Those of `users`, PAGE at most, whose presence the caller may see."""
    rows = await tx.all(_VISIBLE, caller, *users, *[NO_ID] * (PAGE - len(users)))
    found = {row[0]: Visible(row[0], bool(row[1]), row[2]) for row in rows}
    return [found[user] for user in users if user in found]


async def shows_last_seen(tx: Tx, user: UserId) -> bool:
    return await tx.one(_SHOWS_LAST_SEEN, user) is not None


async def save(tx: Tx, seen: Sequence[tuple[UserId, int]]) -> None:
    """When each was last here; of those who do not show it nothing is kept."""
    await tx.many(_SAVE, seen)


async def last_seen(tx: Tx, user: UserId) -> int | None:
    """As it is stored."""
    row = await tx.one(_LAST_SEEN, user)
    return row[0] if row else None


async def forget(tx: Tx, user: UserId) -> None:
    await tx.run(_FORGET, user)
