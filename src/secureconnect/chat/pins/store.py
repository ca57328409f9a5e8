"""The SQL of pins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...deps.contracts import Tx
from ...identity import ConversationId, MessageId, UserId
from ..store import MESSAGE, Message, message_of


class Pin(NamedTuple):
    message_id: MessageId
    conversation_id: ConversationId
    seq: int
    pinned_by: UserId
    pinned_us: int


class Pinned(NamedTuple):
    """A message with who pinned it, and when."""

    message: Message
    pinned_by: UserId
    pinned_us: int


_PIN = "p.message_id, p.conversation_id, p.seq, p.pinned_by, p.pinned_at"
_ADD = (
    "INSERT INTO pins (message_id, conversation_id, seq, pinned_by, pinned_at) VALUES ($1, $2, $3, $4, $5)"
    " ON CONFLICT DO NOTHING"
)
_REMOVE = "DELETE FROM pins WHERE conversation_id = $1 AND message_id = $2"
_COUNT = "SELECT COUNT(*) FROM pins WHERE conversation_id = $1"
_LIST = (
    f"SELECT {MESSAGE}, p.pinned_by, p.pinned_at FROM pins p"  # noqa: S608
    " JOIN messages g ON g.message_id = p.message_id"
    " WHERE p.conversation_id = $1 AND p.seq >= $2 ORDER BY p.pinned_at DESC, p.message_id DESC"
)
_DROP = "DELETE FROM pins WHERE conversation_id = $1 AND seq < $2"
_BY_USER = (
    f"SELECT {_PIN} FROM pins p WHERE p.pinned_by = $1 AND p.message_id > $2"  # noqa: S608
    " ORDER BY p.message_id LIMIT $3"
)


async def add(tx: Tx, pin: Pin) -> bool:
    """False when it was there."""
    return await tx.run(_ADD, *pin) > 0


async def remove(tx: Tx, conversation: ConversationId, message: MessageId) -> bool:
    """False when it was not there."""
    return await tx.run(_REMOVE, conversation, message) > 0


async def clear(tx: Tx, messages: Sequence[Message]) -> None:
    """Of messages that are deleted."""
    await tx.many(_REMOVE, [(each.conversation_id, each.message_id) for each in messages])


async def count(tx: Tx, conversation: ConversationId) -> int:
    row = await tx.one(_COUNT, conversation)
    return int(row[0]) if row else 0


async def list_of(tx: Tx, conversation: ConversationId, from_seq: int, now_us: int) -> list[Pinned]:
    """The latest pinned first. All of them: a conversation has few."""
    return [Pinned(message_of(row, now_us), *row[-2:]) for row in await tx.all(_LIST, conversation, from_seq)]


async def drop_before(tx: Tx, conversation: ConversationId, seq: int) -> None:
    """Those that go with the messages before `seq`."""
    await tx.run(_DROP, conversation, seq)


async def by_user(tx: Tx, user: UserId, after: MessageId, limit: int) -> list[Pin]:
    """What they have pinned, by message, from after that one on."""
    return [Pin._make(row) for row in await tx.all(_BY_USER, user, after, limit)]
