"""The SQL of reactions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ...deps.contracts import Tx
from ...identity import ConversationId, MessageId, UserId
from ..store import NO_ID, Message, Reacted, in_order

DROPPED = 5_000  # in one transaction
NEAR = 100  # messages so close together, as on a page, are read in one statement


class Reaction(NamedTuple):
    message_id: MessageId
    emoji: str
    reacted_us: int


class _Run(NamedTuple):
    """A stretch of a conversation.  low, high: the first and last `seq` of it."""

    conversation_id: ConversationId
    low: int
    high: int


_ADD = (
    "INSERT INTO reactions (message_id, emoji, user_id, conversation_id, seq, reacted_at)"
    " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING"
)
_REMOVE = "DELETE FROM reactions WHERE message_id = $1 AND emoji = $2 AND user_id = $3"
_CLEAR = "DELETE FROM reactions WHERE message_id = $1"
_DROP = (
    "DELETE FROM reactions WHERE (message_id, emoji, user_id) IN (SELECT message_id, emoji, user_id"
    " FROM reactions WHERE conversation_id = $1 AND seq < $2 LIMIT $3)"
)
_COUNT_ON = "UPDATE messages SET reaction_count = reaction_count + $2 WHERE message_id = $1"
_COUNT = "SELECT COUNT(*) FROM reactions WHERE message_id = $1 AND emoji = $2"
_KINDS = "SELECT COUNT(DISTINCT emoji) FROM reactions WHERE message_id = $1"
_OF_MESSAGES = (
    "SELECT message_id, emoji, COUNT(*), MAX(CASE WHEN user_id = $4 THEN 1 ELSE 0 END) FROM reactions"
    " WHERE conversation_id = $1 AND seq >= $2 AND seq <= $3"
    " GROUP BY message_id, emoji"
)
_OF_USER = (
    "SELECT message_id, emoji, reacted_at FROM reactions"
    " WHERE user_id = $1 AND (message_id, emoji) > ($2, $3) ORDER BY message_id, emoji LIMIT $4"
)


async def add(
    tx: Tx,
    message: MessageId,
    emoji: str,
    user: UserId,
    conversation: ConversationId,
    seq: int,
    now_us: int,
) -> bool:
    """False when it was there."""
    if not await tx.run(_ADD, message, emoji, user, conversation, seq, now_us):
        return False
    await tx.run(_COUNT_ON, message, 1)
    return True


async def remove(tx: Tx, message: MessageId, emoji: str, user: UserId) -> bool:
    """False when it was not there."""
    if not await tx.run(_REMOVE, message, emoji, user):
        return False
    await tx.run(_COUNT_ON, message, -1)
    return True


async def clear(tx: Tx, messages: Sequence[MessageId]) -> None:
    """Of messages that are deleted, which say themselves that they have none any more."""
    await tx.many(_CLEAR, [(each,) for each in messages])


async def drop_before(tx: Tx, conversation: ConversationId, seq: int) -> bool:
    """Those that go with the messages before `seq`, DROPPED at most. False: there may be others."""
    return await tx.run(_DROP, conversation, seq, DROPPED) < DROPPED


async def count(tx: Tx, message: MessageId, emoji: str) -> int:
    row = await tx.one(_COUNT, message, emoji)
    return int(row[0]) if row else 0


async def kinds(tx: Tx, message: MessageId) -> int:
    """How many different ones it has."""
    row = await tx.one(_KINDS, message)
    return int(row[0]) if row else 0


async def reacted_to(
    tx: Tx, messages: Sequence[Message], viewer: UserId | None = None
) -> dict[MessageId, tuple[Reacted, ...]]:
    """How people react to each of these that anybody reacts to."""
    some = [message for message in messages if message.reaction_count]
    asked = {message.message_id for message in some}
    found: dict[MessageId, list[Reacted]] = {}
    for run in _runs(some):
        for message_id, emoji, people, mine in await tx.all(_OF_MESSAGES, *run, viewer or NO_ID):
            reacted = Reacted(emoji, people, None if viewer is None else bool(mine))
            if message_id in asked:  # others in between are shown without, or not at all
                found.setdefault(message_id, []).append(reacted)
    return {message_id: in_order(reactions) for message_id, reactions in found.items()}


def _runs(messages: Iterable[Message]) -> list[_Run]:
    """Where these are, without the wide stretches between pins, hits or edits that lie far apart."""
    runs: list[_Run] = []
    for conversation, seq in sorted({(message.conversation_id, message.seq) for message in messages}):
        last = runs[-1] if runs else None
        if last is not None and last.conversation_id == conversation and seq - last.high <= NEAR:
            runs[-1] = last._replace(high=seq)
        else:
            runs.append(_Run(conversation, seq, seq))
    return runs


async def with_reactions(tx: Tx, messages: list[Message], viewer: UserId) -> list[Message]:
    """The same, with how people react, as `viewer` sees it."""
    reacted = await reacted_to(tx, messages, viewer)
    if not reacted:
        return messages
    return [
        message._replace(reactions=reacted[message.message_id]) if message.message_id in reacted else message
        for message in messages
    ]


async def of_user(tx: Tx, user: UserId, after: tuple[MessageId, str], limit: int) -> list[Reaction]:
    """Their own, by message and emoji, from after that one on."""
    return [Reaction._make(row) for row in await tx.all(_OF_USER, user, *after, limit)]
