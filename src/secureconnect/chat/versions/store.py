"""The SQL of versions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...deps.contracts import Row, Tx
from ...identity import ConversationId, MessageId, UserId
from ..store import Message

DROPPED = 500  # in one transaction; their texts are overwritten


class Version(NamedTuple):
    """What a message said.  version: from 1, what was sent."""

    message_id: MessageId
    version: int
    content: str
    is_encrypted: bool
    written_us: int


_VERSION = "message_id, version, content, is_encrypted, written_at"
_LAST = "SELECT COALESCE(MAX(version), 0) FROM message_versions WHERE message_id = $1"
_KEEP = (
    "INSERT INTO message_versions (message_id, version, conversation_id, seq, sender_id, content,"
    " is_encrypted, written_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
)
_PRUNE = "DELETE FROM message_versions WHERE message_id = $1 AND version <= $2"
_LIST = (
    f"SELECT {_VERSION} FROM message_versions WHERE message_id = $1 AND version > $2"  # noqa: S608
    " ORDER BY version LIMIT $3"
)
_CLEAR = "DELETE FROM message_versions WHERE message_id = $1"
_DROP = (
    "DELETE FROM message_versions WHERE (message_id, version) IN (SELECT message_id, version"
    " FROM message_versions WHERE conversation_id = $1 AND seq < $2 LIMIT $3)"
)
_WRITTEN_BY = (
    f"SELECT {_VERSION} FROM message_versions"  # noqa: S608
    " WHERE sender_id = $1 AND (message_id, version) > ($2, $3) ORDER BY message_id, version LIMIT $4"
)


def _version(row: Row) -> Version:
    return Version(row[0], row[1], row[2], bool(row[3]), row[4])


async def _last(tx: Tx, message: MessageId) -> int:
    """0: it was never edited."""
    row = await tx.one(_LAST, message)
    return int(row[0]) if row else 0


async def keep(tx: Tx, message: Message, most: int) -> None:
    """Keep what it says now, and at most so many in all."""
    version = await _last(tx, message.message_id) + 1
    await tx.run(
        _KEEP,
        message.message_id,
        version,
        message.conversation_id,
        message.seq,
        message.sender_id,
        message.content,
        message.is_encrypted,
        message.edited_us or message.sent_us,
    )
    await tx.run(_PRUNE, message.message_id, version - most)


async def of_message(tx: Tx, message: Message, after: int, limit: int) -> list[Version]:
    """Ascending, from after version `after` on; the last of all is what it says now."""
    found = [_version(row) for row in await tx.all(_LIST, message.message_id, after, limit)]
    last = await _last(tx, message.message_id) + 1
    if len(found) < limit and after < last:
        written_us = message.edited_us or message.sent_us
        found.append(Version(message.message_id, last, message.content, message.is_encrypted, written_us))
    return found


async def clear(tx: Tx, messages: Sequence[MessageId]) -> None:
    """Of messages that are deleted."""
    await tx.many(_CLEAR, [(each,) for each in messages])


async def drop_before(tx: Tx, conversation: ConversationId, seq: int) -> bool:
    """Those that go with the messages before `seq`, DROPPED at most. False: there may be others."""
    return await tx.run(_DROP, conversation, seq, DROPPED) < DROPPED


async def written_by(tx: Tx, user: UserId, after: tuple[MessageId, int], limit: int) -> list[Version]:
    """Their own, by message and version, from after that one on."""
    return [_version(row) for row in await tx.all(_WRITTEN_BY, user, *after, limit)]
