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
    """A conversation as one of its members stands in it.  is_apart: it is a direct one, and either has
    blocked the other."""

    visible_from_seq: int
    last_seq: int
    is_e2ee: bool
    is_apart: bool


class Shareable(NamedTuple):
    is_encrypted: bool
    file_name: str


_MAY_SEE = (
    "SELECT 1 FROM file_shares s JOIN members m ON m.conversation_id = s.conversation_id"
    " WHERE s.file_id = $1 AND m.user_id = $2 AND s.seq >= m.visible_from_seq LIMIT 1"
)
_LOCK_SHAREABLE = (
    "UPDATE files SET status = status WHERE file_id = $1 AND status = 'completed' AND (owner_id = $2"
    " OR EXISTS (SELECT 1 FROM file_shares s JOIN members m ON m.conversation_id = s.conversation_id"
    " WHERE s.file_id = $1 AND m.user_id = $2 AND s.seq >= m.visible_from_seq))"
    " RETURNING is_encrypted, file_name"
)
_SEAT = (
    "SELECT m.visible_from_seq, c.last_seq, c.is_e2ee_enabled,"
    " CASE WHEN c.type = 'direct' AND EXISTS (SELECT 1 FROM members other JOIN blocks b"
    " ON (b.user_id = $2 AND b.blocked_id = other.user_id)"
    " OR (b.user_id = other.user_id AND b.blocked_id = $2)"
    " WHERE other.conversation_id = $1 AND other.user_id <> $2) THEN 1 ELSE 0 END"
    " FROM members m JOIN conversations c ON c.conversation_id = m.conversation_id"
    " WHERE m.conversation_id = $1 AND m.user_id = $2"
)
_SHARE = (
    "INSERT INTO file_shares (conversation_id, seq, file_id, message_id, shared_at)"
    " VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING"
)
_TAKE_UP = "DELETE FROM file_shares WHERE file_id = $1 AND conversation_id = $2 AND message_id IS NULL"
_UNSHARE = (
    "DELETE FROM file_shares WHERE conversation_id = $1 AND seq = $2 AND message_id = $3 RETURNING file_id"
)
_UNSHARE_BEFORE = "DELETE FROM file_shares WHERE conversation_id = $1 AND seq < $2 RETURNING file_id"
_UNSHARE_ALL = "DELETE FROM file_shares WHERE conversation_id = $1 RETURNING file_id"
_IS_SHARED = "SELECT 1 FROM file_shares WHERE file_id = $1 LIMIT 1"
_PLACES = (
    "SELECT conversation_id, MAX(seq) FROM file_shares WHERE file_id = $1"
    " GROUP BY conversation_id ORDER BY conversation_id LIMIT $2"
)


async def may_see(tx: Tx, file_id: FileId, user: UserId) -> bool:
    """Whether it is shared where `user` is a member, and may see that."""
    return await tx.one(_MAY_SEE, file_id, user) is not None


async def lock_shareable(tx: Tx, file_id: FileId, user: UserId) -> Shareable | None:
    """A file that `user` may read, and so share; it stays until the transaction ends. None: there is none."""
    row = await tx.one(_LOCK_SHAREABLE, file_id, user)
    return None if row is None else Shareable(bool(row[0]), row[1])


async def seat(tx: Tx, conversation: ConversationId, user: UserId) -> Seat | None:
    row = await tx.one(_SEAT, conversation, user)
    return None if row is None else Seat(row[0], row[1], bool(row[2]), bool(row[3]))


async def share(tx: Tx, file_id: FileId, place: Place, message: MessageId | None, now_us: int) -> None:
    """message: that carries it; what was uploaded there for it needs no place of its own any more."""
    if message is not None:
        await tx.run(_TAKE_UP, file_id, place.conversation_id)
    await tx.run(_SHARE, *place, file_id, message, now_us)


async def unshare(tx: Tx, place: Place, message: MessageId) -> list[FileId]:
    """What one message carried."""
    return [row[0] for row in await tx.all(_UNSHARE, *place, message)]


async def unshare_before(tx: Tx, conversation: ConversationId, seq: int | None) -> list[FileId]:
    """What was shared before that message; None: all that ever was."""
    if seq is None:
        return [row[0] for row in await tx.all(_UNSHARE_ALL, conversation)]
    return [row[0] for row in await tx.all(_UNSHARE_BEFORE, conversation, seq)]


async def is_shared(tx: Tx, file_id: FileId) -> bool:
    return await tx.one(_IS_SHARED, file_id) is not None


async def places(tx: Tx, file_id: FileId, limit: int) -> Sequence[Place]:
    """Some of the conversations in which it is shared."""
    return [Place._make(row) for row in await tx.all(_PLACES, file_id, limit)]
