"""The SQL of deleting conversations."""

from __future__ import annotations

from typing import NamedTuple

from ...deps.contracts import Tx
from ...identity import ConversationId, UserId
from ..store import NO_ID


class Deleted(NamedTuple):
    """change: of the deletion, the last that is told."""

    conversation_id: ConversationId
    change: int
    deleted_by: UserId
    deleted_us: int


_DELETED = "d.conversation_id, d.change, d.deleted_by, d.deleted_at"
_BEGIN = (
    "INSERT INTO deleted_conversations (conversation_id, change, deleted_by, deleted_at)"
    " VALUES ($1, $2, $3, $4)"
)
_REMEMBER = (
    "INSERT INTO deleted_members (conversation_id, user_id, visible_from_seq)"
    " SELECT conversation_id, user_id, visible_from_seq FROM members WHERE conversation_id = $1"
)
_PUT_OUT = "DELETE FROM members WHERE conversation_id = $1"
# those about a message go with it
_UNNOTIFY = "DELETE FROM notifications WHERE conversation_id = $1 AND seq IS NULL"
_HIDE = "UPDATE conversations SET first_seq = last_seq + 1 WHERE conversation_id = $1"
_GET = f"SELECT {_DELETED} FROM deleted_conversations d WHERE d.conversation_id = $1"  # noqa: S608
_LIST = (
    f"SELECT {_DELETED} FROM deleted_conversations d WHERE d.conversation_id > $1"  # noqa: S608
    " ORDER BY d.conversation_id LIMIT $2"
)
_VIEWERS = "SELECT user_id, visible_from_seq FROM deleted_members WHERE conversation_id = $1"
_SEQ_AFTER = "SELECT seq FROM messages WHERE conversation_id = $1 AND change > $2 ORDER BY change LIMIT 1"
_FINISH = tuple(
    f"DELETE FROM {table} WHERE conversation_id = $1"  # noqa: S608
    for table in (
        *("changes", "notifications", "notified", "deleted_members", "conversations"),
        "deleted_conversations",
    )
)


async def begin(tx: Tx, deleted: Deleted) -> None:
    """Put its members out, keep nothing that was said for anybody, and note that its rows are to go."""
    await tx.run(_REMEMBER, deleted.conversation_id)
    await tx.run(_PUT_OUT, deleted.conversation_id)
    await tx.run(_UNNOTIFY, deleted.conversation_id)
    await tx.run(_HIDE, deleted.conversation_id)
    await tx.run(_BEGIN, *deleted)


async def get(tx: Tx, conversation: ConversationId) -> Deleted | None:
    row = await tx.one(_GET, conversation)
    return Deleted._make(row) if row else None


async def list_of(tx: Tx, after: ConversationId | None, limit: int) -> list[Deleted]:
    """Those not done with, by id, from after that one on."""
    return [Deleted._make(row) for row in await tx.all(_LIST, after or NO_ID, limit)]


async def viewers(tx: Tx, conversation: ConversationId) -> dict[UserId, int]:
    """User → visible_from_seq, of those who were in it."""
    return {row[0]: row[1] for row in await tx.all(_VIEWERS, conversation)}


async def seq_after(tx: Tx, conversation: ConversationId, change: int) -> int | None:
    """The first message stored after a change."""
    row = await tx.one(_SEQ_AFTER, conversation, change)
    return row[0] if row else None


async def finish(tx: Tx, conversation: ConversationId) -> None:
    """Take away the last that spoke of it."""
    for statement in _FINISH:
        await tx.run(statement, conversation)
