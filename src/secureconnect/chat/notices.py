"""Notices: what happened to a conversation, told among its messages.

A message of type `system`, stored in the unit of the change that it stands beside. Its text names nobody, for
names may be erased: `sender_id` says who did it, and `metadata` what (`event`) and to whom (`user_id`).
Nobody can edit, delete, pin, quote or react to one, and none is counted as unread.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from ..clock import HOUR_US
from ..deps.contracts import Tx
from ..identity import ConversationId, MessageId, UserId, new_id
from .append import insert
from .changes import Event
from .store import Conversation, Message, activate

What = Literal[
    "member_added",
    "member_left",
    "member_removed",
    "title_changed",
    "encryption_enabled",
    "disappearing_changed",
    "call",
]

SENTENCES: Mapping[What, str] = {
    "member_added": "Somebody was added.",
    "member_left": "Somebody left.",
    "member_removed": "Somebody was removed.",
    "title_changed": "The title was changed.",
    "encryption_enabled": "Encryption was switched on.",
    "disappearing_changed": "How long messages are kept was changed.",
    "call": "There was a call.",
}
_NEXT = (
    "UPDATE conversations SET last_seq = last_seq + 1, last_change = last_change + 1, touched_at = $2"
    " WHERE conversation_id = $1 RETURNING last_seq, last_change, active_hour"
)


async def give(
    tx: Tx,
    conversation: ConversationId,
    actor: UserId,
    what: What,
    now_us: int,
    name: str | None = None,
    **facts: str | int,
) -> Event:
    """The next message of the conversation.  name: its client_message_id; one of its own if left out."""
    row = await tx.one(_NEXT, conversation, now_us)
    assert row is not None
    seq, change, active_hour = row
    if active_hour < (hour := now_us // HOUR_US):
        await activate(tx, [(conversation, hour)])
    message = Message(
        message_id=MessageId(new_id()),
        conversation_id=conversation,
        seq=seq,
        change=change,
        sender_id=actor,
        client_message_id=name or f"notice:{new_id()}",
        message_type="system",
        content=SENTENCES[what],
        is_encrypted=False,
        reply_to=None,
        file_ids="[]",
        metadata=msgspec.json.encode({"event": what, **facts}).decode(),
        sent_us=now_us,
        edited_us=None,
        deleted_us=None,
    )
    await insert(tx, [message])
    return Event("chat", conversation, change, now_us, seq, message.message_id, message)


async def give_all(tx: Tx, actor: UserId, old: Conversation, new: Conversation) -> list[Event]:
    """Of what was changed that all should know of."""
    conversation, now_us = new.conversation_id, new.updated_us
    given: list[Event] = []
    if new.title != old.title:
        given.append(await give(tx, conversation, actor, "title_changed", now_us))
    if new.is_e2ee_enabled and not old.is_e2ee_enabled:
        given.append(await give(tx, conversation, actor, "encryption_enabled", now_us))
    if new.disappear_after_s != old.disappear_after_s:
        after_s = new.disappear_after_s
        given.append(
            await give(tx, conversation, actor, "disappearing_changed", now_us, disappear_after_s=after_s)
        )
    return given
