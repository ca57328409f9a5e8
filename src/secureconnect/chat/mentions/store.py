"""The SQL of mentions."""

from __future__ import annotations

from collections.abc import Sequence

from ...deps.contracts import Tx
from ...identity import ConversationId, UserId
from ..store import Message

_ADD = "INSERT INTO mentions (user_id, conversation_id, seq) VALUES ($1, $2, $3)"
_CLEAR = "DELETE FROM mentions WHERE conversation_id = $1 AND seq = $2"
_DROP = "DELETE FROM mentions WHERE conversation_id = $1 AND seq < $2"
_OF_MESSAGE = "SELECT user_id FROM mentions WHERE conversation_id = $1 AND seq = $2 ORDER BY user_id"
_FORGET = (
    "DELETE FROM mentions WHERE (user_id, conversation_id, seq) IN (SELECT user_id, conversation_id, seq"
    " FROM mentions WHERE user_id = $1 LIMIT $2)"
)


async def add(tx: Tx, mentioned: Sequence[tuple[UserId, ConversationId, int]]) -> None:
    """mentioned: who, where, in which message."""
    await tx.many(_ADD, mentioned)


async def of_message(tx: Tx, conversation: ConversationId, seq: int) -> list[UserId]:
    return [row[0] for row in await tx.all(_OF_MESSAGE, conversation, seq)]


async def clear(tx: Tx, messages: Sequence[Message]) -> None:
    """Of messages that are deleted, or edited."""
    await tx.many(_CLEAR, [(each.conversation_id, each.seq) for each in messages])


async def drop_before(tx: Tx, conversation: ConversationId, seq: int) -> None:
    """Those that go with the messages before `seq`."""
    await tx.run(_DROP, conversation, seq)


async def forget(tx: Tx, user: UserId, limit: int) -> int:
    """Of somebody who is erased. Returns how many went."""
    return await tx.run(_FORGET, user, limit)
