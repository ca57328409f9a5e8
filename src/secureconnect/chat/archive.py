"""The chat room's SQL for messages that are stored: history, edit, delete, retention, export."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..deps.contracts import Tx
from ..identity import ConversationId, MessageId, UserId
from . import tallies
from .mentions import store as mentions
from .notifications import store as notifications
from .pins import store as pins
from .polls import store as polls
from .reactions import store as reactions
from .store import CONVERSATION, MEMBER, MESSAGE, Conversation, Message, Seat, message_of, seat_of
from .versions import store as versions

_GET_VISIBLE = (
    f"SELECT {MESSAGE} FROM messages g JOIN members m ON m.conversation_id = g.conversation_id"  # noqa: S608
    " WHERE g.message_id = $1 AND m.user_id = $2 AND g.seq >= m.visible_from_seq"
)
_BEFORE = (
    f"SELECT {MESSAGE} FROM messages g WHERE g.conversation_id = $1 AND g.seq >= $2 AND g.seq < $3"  # noqa: S608
    " ORDER BY g.seq DESC LIMIT $4"
)
_AFTER = (
    f"SELECT {MESSAGE} FROM messages g WHERE g.conversation_id = $1 AND g.seq > $2"  # noqa: S608
    " ORDER BY g.seq LIMIT $3"
)
_EDIT = (
    "UPDATE messages SET content = $2, is_encrypted = $3, metadata = $4, edited_at = $5 WHERE message_id = $1"
)
_DELETE = (
    "UPDATE messages SET content = '', metadata = NULL, file_ids = '[]', reaction_count = 0, deleted_at = $2"
    " WHERE message_id = $1"
)
_IS_ENDED = (  # of a conversation that is deleted everything goes, and nothing is told of it
    "g.deleted_at IS NULL"
    " AND NOT EXISTS (SELECT 1 FROM deleted_conversations d WHERE d.conversation_id = g.conversation_id)"
)
_ENDED = (
    "SELECT g.conversation_id, g.message_id FROM messages g"  # noqa: S608
    f" WHERE g.expires_at <= $1 AND {_IS_ENDED} ORDER BY g.expires_at LIMIT $2"
)
_GET_ENDED = (
    f"SELECT {MESSAGE} FROM messages g"  # noqa: S608
    f" WHERE g.message_id = $1 AND g.expires_at <= $2 AND {_IS_ENDED}"
)
_SENT_BY = (
    f"SELECT {MESSAGE} FROM messages g WHERE g.sender_id = $1 AND g.client_message_id > $2"  # noqa: S608
    " ORDER BY g.client_message_id LIMIT $3"
)
_SEATS = (
    f"SELECT {CONVERSATION}, {MEMBER} FROM members m"  # noqa: S608
    " JOIN conversations c ON c.conversation_id = m.conversation_id"
    " WHERE m.user_id = $1 AND m.conversation_id > $2 ORDER BY m.conversation_id LIMIT $3"
)


async def get_visible(tx: Tx, message: MessageId, user: UserId, now_us: int) -> Message | None:
    """None also when `user` may not see it."""
    row = await tx.one(_GET_VISIBLE, message, user)
    return message_of(row, now_us) if row else None


async def newest_before(
    tx: Tx, conversation: ConversationId, from_seq: int, before_seq: int, limit: int, now_us: int
) -> list[Message]:
    """The last `limit` messages with from_seq ≤ seq < before_seq, ascending."""
    rows = await tx.all(_BEFORE, conversation, from_seq, before_seq, limit)
    return [message_of(row, now_us) for row in reversed(rows)]


async def oldest_after(
    tx: Tx, conversation: ConversationId, after_seq: int, limit: int, now_us: int
) -> list[Message]:
    """The first `limit` messages with seq > after_seq, ascending."""
    return [message_of(row, now_us) for row in await tx.all(_AFTER, conversation, after_seq, limit)]


async def edit(
    tx: Tx, message: MessageId, content: str, is_encrypted: bool, metadata: str | None, now_us: int
) -> None:
    await tx.run(_EDIT, message, content, is_encrypted, metadata, now_us)


async def delete(tx: Tx, messages: Sequence[Message], deleted_us: Sequence[int]) -> None:
    """Leave tombstones: the rows without what was said, and nothing of what hung on them.
    deleted_us: of each."""
    ids = [each.message_id for each in messages]
    await tx.many(_DELETE, list(zip(ids, deleted_us, strict=True)))
    await versions.clear(tx, ids)
    await mentions.clear(tx, messages)
    await reactions.clear(tx, ids)
    await pins.clear(tx, messages)


async def ended(tx: Tx, now_us: int, limit: int) -> list[tuple[ConversationId, MessageId]]:
    """Messages past their end that are still there, the longest first."""
    return [(row[0], row[1]) for row in await tx.all(_ENDED, now_us, limit)]


async def get_ended(tx: Tx, message: MessageId, now_us: int) -> Message | None:
    """One of them, as it was."""
    row = await tx.one(_GET_ENDED, message, now_us)
    return message_of(row, 0) if row else None


async def sent_by(tx: Tx, user: UserId, after: str, limit: int, now_us: int) -> list[Message]:
    """Messages of `user` by `client_message_id`, from after that one on."""
    return [message_of(row, now_us) for row in await tx.all(_SENT_BY, user, after, limit)]


async def seats_of(tx: Tx, user: UserId, after: ConversationId, limit: int) -> list[Seat]:
    """Conversations of `user` by id, from after that one on."""
    return [seat_of(row) for row in await tx.all(_SEATS, user, after, limit)]


# Retention: a prefix goes


CHANGES = 5_000  # dropped in one transaction, which holds the conversation and, on SQLite, everybody


class Prefix(NamedTuple):
    """What may go.  first_seq: the first message that stays.  min_change: of the last that goes."""

    first_seq: int
    min_change: int


_TERMS = "SELECT DISTINCT message_retention_days FROM conversations"
_OVERDUE = (
    "SELECT c.conversation_id FROM conversations c"
    " JOIN messages g ON g.conversation_id = c.conversation_id AND g.seq = c.first_seq"
    " WHERE c.message_retention_days = $1 AND g.sent_at < $2"
    " UNION SELECT c.conversation_id FROM conversations c"
    " JOIN polls p ON p.conversation_id = c.conversation_id"
    " WHERE c.message_retention_days = $1 AND p.created_at < $2"
    " AND NOT EXISTS (SELECT 1 FROM deleted_conversations d WHERE d.conversation_id = c.conversation_id)"
    " LIMIT $3"
)
_OLDEST = (
    "SELECT seq, change, sent_at FROM messages WHERE conversation_id = $1 AND seq >= $2 ORDER BY seq LIMIT $3"
)
_DROP_MESSAGES = "DELETE FROM messages WHERE conversation_id = $1 AND seq < $2"
_NTH_CHANGE = (
    "SELECT change FROM changes WHERE conversation_id = $1 AND change <= $2 ORDER BY change LIMIT 1 OFFSET $3"
)
_DROP_CHANGES = "DELETE FROM changes WHERE conversation_id = $1 AND change <= $2"
_ADVANCE = (  # of a conversation that is deleted it is beyond all that is left
    "UPDATE conversations SET first_seq = CASE WHEN first_seq < $2 THEN $2 ELSE first_seq END,"
    " min_change = $3 WHERE conversation_id = $1"
)


async def retention_terms(tx: Tx) -> list[int]:
    """Each number of days that some conversation asks for."""
    return [row[0] for row in await tx.all(_TERMS)]


async def overdue(tx: Tx, days: int, before_us: int, limit: int) -> list[ConversationId]:
    """Conversations of this term whose oldest message was sent before, or in which a poll was made then."""
    return [row[0] for row in await tx.all(_OVERDUE, days, before_us, limit)]


async def prefix_before(tx: Tx, conversation: Conversation, before_us: int, limit: int) -> Prefix | None:
    """The messages at the beginning that were all sent before, at most `limit` of them."""
    prefix: Prefix | None = None
    name, first_seq = conversation.conversation_id, conversation.first_seq
    for seq, change, sent_us in await tx.all(_OLDEST, name, first_seq, limit):
        if sent_us >= before_us:
            break
        prefix = Prefix(seq + 1, change)
    return prefix


async def drop_prefix(tx: Tx, conversation: ConversationId, prefix: Prefix) -> bool:
    """False: so much hangs on it that this took a part of that, and the messages stay until another time."""
    if not await reactions.drop_before(tx, conversation, prefix.first_seq):
        return False
    if not await versions.drop_before(tx, conversation, prefix.first_seq):
        return False
    if row := await tx.one(_NTH_CHANGE, conversation, prefix.min_change, CHANGES - 1):
        await _drop_changes(tx, conversation, Prefix(0, row[0]))
        return False
    await tx.run(_DROP_MESSAGES, conversation, prefix.first_seq)
    await mentions.drop_before(tx, conversation, prefix.first_seq)
    await pins.drop_before(tx, conversation, prefix.first_seq)
    await polls.drop_before(tx, conversation, prefix.first_seq)
    await tallies.drop_before(tx, conversation, prefix.first_seq)
    await notifications.drop_before(tx, conversation, prefix.first_seq)
    await _drop_changes(tx, conversation, prefix)
    return True


async def _drop_changes(tx: Tx, conversation: ConversationId, prefix: Prefix) -> None:
    """Whoever stands before `prefix.min_change` is told of a gap from then on."""
    await tx.run(_DROP_CHANGES, conversation, prefix.min_change)
    await tx.run(_ADVANCE, conversation, prefix.first_seq, prefix.min_change)
