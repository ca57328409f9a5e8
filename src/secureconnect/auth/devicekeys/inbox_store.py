"""The SQL of inboxes: what devices send each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...deps.contracts import Tx
from ...identity import DeviceId, UserId

_SENDING = (
    "INSERT INTO inbox_sendings (device_id, txn, answer, sent_at) VALUES ($1, $2, '', $3)"
    " ON CONFLICT (device_id, txn) DO UPDATE SET txn = excluded.txn RETURNING answer"
)
_ANSWER = "UPDATE inbox_sendings SET answer = $3 WHERE device_id = $1 AND txn = $2"
# the lock under which a queue's positions are given, so that they are seen in their order
_OPEN = (
    "INSERT INTO inboxes (device_id, last_position, messages, size_bytes, lists_us) VALUES ($1, $2, 0, 0, $2)"
    " ON CONFLICT (device_id) DO UPDATE SET device_id = excluded.device_id"
    " RETURNING last_position, messages, size_bytes, lists_us"
)
_SET = (
    "UPDATE inboxes SET last_position = $2, messages = $3, size_bytes = $4, lists_us = $5"
    " WHERE device_id = $1"
)
_GET = "SELECT last_position, messages, size_bytes, lists_us FROM inboxes WHERE device_id = $1"
_ADD = (
    "INSERT INTO inbox_messages (device_id, position, sender_id, type, content, size_bytes)"
    " VALUES ($1, $2, $3, $4, $5, $6)"
)
_AFTER = (
    "SELECT position, sender_id, type, content FROM inbox_messages"
    " WHERE device_id = $1 AND position > $2 ORDER BY position LIMIT $3"
)
_TAKEN = (
    "SELECT COUNT(*), COALESCE(SUM(size_bytes), 0) FROM inbox_messages"
    " WHERE device_id = $1 AND position <= $2"
)
_DROP = "DELETE FROM inbox_messages WHERE device_id = $1 AND position <= $2"


class Inbox(NamedTuple):
    """messages, size_bytes: of those that wait.  lists_us: up to when it knows whose keys have changed."""

    last_position: int
    messages: int
    size_bytes: int
    lists_us: int


class Message(NamedTuple):
    position: int
    sender_id: UserId
    type: str
    content: str


async def begin_sending(tx: Tx, device: DeviceId, txn: str, now_us: int) -> str:
    """The answer that was given to it; empty when it is new. Held by this transaction."""
    row = await tx.one(_SENDING, device, txn, now_us)
    assert row is not None
    return str(row[0])


async def keep_answer(tx: Tx, device: DeviceId, txn: str, answer: str) -> None:
    await tx.run(_ANSWER, device, txn, answer)


async def open_inbox(tx: Tx, device: DeviceId, now_us: int) -> Inbox:
    """Held by this transaction."""
    row = await tx.one(_OPEN, device, now_us)
    assert row is not None
    return Inbox(*row)


async def get_inbox(tx: Tx, device: DeviceId) -> Inbox | None:
    row = await tx.one(_GET, device)
    return Inbox(*row) if row else None


async def set_inbox(tx: Tx, device: DeviceId, inbox: Inbox) -> None:
    await tx.run(_SET, device, *inbox)


async def add_messages(
    tx: Tx, device: DeviceId, messages: Sequence[tuple[int, UserId, str, str, int]]
) -> None:
    """messages: position, sender, type, content, bytes."""
    await tx.many(_ADD, [(device, *each) for each in messages])


async def list_after(tx: Tx, device: DeviceId, position: int, limit: int) -> list[Message]:
    return [Message(*row) for row in await tx.all(_AFTER, device, position, limit)]


async def drop_up_to(tx: Tx, device: DeviceId, position: int) -> tuple[int, int]:
    """How many messages that were, and their bytes."""
    row = await tx.one(_TAKEN, device, position)
    assert row is not None
    await tx.run(_DROP, device, position)
    return int(row[0]), int(row[1])
