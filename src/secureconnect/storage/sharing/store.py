"""The SQL of sharing: the table file_shares, and who may see what is in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...deps.contracts import Tx
from ...identity import ConversationId, FileId, MessageId, UserId


class Place(NamedTuple):
    """A conversation in which a file is shared, and from which message on."""

    conversation_id: ConversationId
    seq: int


class Seat(NamedTuple):
    """A conversation as one of its members stands in it.  disappear_after_s: how long what is said there
    lasts; 0: for ever.  is_apart: it is a direct one, and either has blocked the other."""

    visible_from_seq: int
    last_seq: int
    is_e2ee: bool
    disappear_after_s: int
    is_apart: bool


class Shareable(NamedTuple):
    is_encrypted: bool
    file_name: str


_MAY_SEE = (
    "SELECT 1 FROM file_shares s JOIN members m ON m.conversation_id = s.conversation_id"
    " WHERE s.file_id = $1 AND m.user_id = $2 AND s.seq >= m.visible_from_seq"
    " AND (s.ends_at IS NULL OR s.ends_at > $3)"
)
_LOCK_SHAREABLE = (
    "UPDATE files SET status = status WHERE file_id = $1 AND status = 'completed'"  # noqa: S608
    f" AND (owner_id = $2 OR EXISTS ({_MAY_SEE})) RETURNING is_encrypted, file_name"
)
_SEAT = (
    "SELECT m.visible_from_seq, c.last_seq, c.is_e2ee_enabled, c.disappear_after_s,"
    " CASE WHEN c.type = 'direct' AND EXISTS (SELECT 1 FROM members other JOIN blocks b"
    " ON (b.user_id = $2 AND b.blocked_id = other.user_id)"
    " OR (b.user_id = other.user_id AND b.blocked_id = $2)"
    " WHERE other.conversation_id = $1 AND other.user_id <> $2) THEN 1 ELSE 0 END"
    " FROM members m JOIN conversations c ON c.conversation_id = m.conversation_id"
    " WHERE m.conversation_id = $1 AND m.user_id = $2"
)
_SHARE = (
    "INSERT INTO file_shares (conversation_id, seq, file_id, message_id, shared_at, ends_at)"
    " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING"
)
_TAKE_UP = "DELETE FROM file_shares WHERE file_id = $1 AND conversation_id = $2 AND message_id IS NULL"
_CARRIED = "SELECT file_id FROM file_shares WHERE conversation_id = $1 AND seq = $2 AND message_id = $3"
_SHARED_BEFORE = (
    "SELECT seq, file_id FROM file_shares WHERE conversation_id = $1 AND seq < $2"
    " ORDER BY seq, file_id LIMIT $3"
)
_UNSHARE = "DELETE FROM file_shares WHERE conversation_id = $1 AND seq = $2 AND file_id = $3"
_IS_SHARED = "SELECT 1 FROM file_shares WHERE file_id = $1 LIMIT 1"
_PLACES = (
    "SELECT conversation_id, MAX(seq) FROM file_shares WHERE file_id = $1"
    " GROUP BY conversation_id ORDER BY conversation_id LIMIT $2"
)


async def may_see(tx: Tx, file_id: FileId, user: UserId, now_us: int) -> bool:
    """Whether it is shared where `user` is a member, and may see that."""
    return await tx.one(_MAY_SEE, file_id, user, now_us) is not None


async def lock_shareable(tx: Tx, file_id: FileId, user: UserId, now_us: int) -> Shareable | None:
    """A file that `user` may read, and so share; it stays until the transaction ends. None: there is none."""
    row = await tx.one(_LOCK_SHAREABLE, file_id, user, now_us)
    return None if row is None else Shareable(bool(row[0]), row[1])


async def seat(tx: Tx, conversation: ConversationId, user: UserId) -> Seat | None:
    row = await tx.one(_SEAT, conversation, user)
    return None if row is None else Seat(row[0], row[1], bool(row[2]), row[3], bool(row[4]))


async def share(
    tx: Tx, file_id: FileId, place: Place, message: MessageId | None, now_us: int, ends_us: int | None
) -> None:
    """message: that carries it; what was uploaded there for it needs no place of its own any more.
    ends_us: when nobody reads it there any more; None: as long as it is shared."""
    if message is not None:
        await tx.run(_TAKE_UP, file_id, place.conversation_id)
    await tx.run(_SHARE, *place, file_id, message, now_us, ends_us)


async def carried(tx: Tx, place: Place, message: MessageId) -> list[FileId]:
    """What one message carries."""
    return [row[0] for row in await tx.all(_CARRIED, *place, message)]


async def shared_before(
    tx: Tx, conversation: ConversationId, seq: int, limit: int
) -> list[tuple[int, FileId]]:
    """(seq, file) of what is shared there before that message, from the first on."""
    return [(row[0], row[1]) for row in await tx.all(_SHARED_BEFORE, conversation, seq, limit)]


async def unshare(tx: Tx, conversation: ConversationId, shares: Sequence[tuple[int, FileId]]) -> None:
    """shares: as `shared_before` gives them."""
    await tx.many(_UNSHARE, [(conversation, *share) for share in shares])


async def is_shared(tx: Tx, file_id: FileId) -> bool:
    return await tx.one(_IS_SHARED, file_id) is not None


async def places(tx: Tx, file_id: FileId, limit: int) -> Sequence[Place]:
    """Some of the conversations in which it is shared."""
    return [Place._make(row) for row in await tx.all(_PLACES, file_id, limit)]
