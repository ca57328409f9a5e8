"""Disappearing: messages past their end are deleted, each as if its sender had just then done so.

A message gets its end when it is stored, from what its conversation asks for at that moment. From its end on
every reader is shown what its deletion will leave (`store.as_shown`); this is the deletion, a moment later.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from ..config import ChatConfig
from ..deps.contracts import Database, Tx
from ..identity import ConversationId, MessageId
from ..periodic import every
from . import archive, changes, store
from .attachments import Attachments
from .changes import Event
from .writer import Done, Writer

log = structlog.get_logger(module="chat")

BATCH = 200  # messages looked up at a time; those of one conversation go in one transaction
CARRIERS = 10  # of those with files: each brings many rows along


class Disappearing:
    def __init__(self, config: ChatConfig, db: Database, writer: Writer, attachments: Attachments) -> None:
        self._config = config
        self._db = db
        self._writer = writer
        self._attachments = attachments

    async def pass_once(self) -> int:
        """Delete what is past its end. Returns how many messages that were. Safe to repeat, and on every
        node."""
        deleted = 0
        while ended := await self._db.read(archive.ended, self._db.now_us(), BATCH):
            by_conversation: dict[ConversationId, list[MessageId]] = {}
            for conversation, message in ended:
                by_conversation.setdefault(conversation, []).append(message)
            gone = 0
            for conversation, messages in by_conversation.items():
                gone += await self._writer.relieve(self._delete, conversation, messages)
            deleted += gone
            if not gone:  # another node was faster
                break
        return deleted

    async def pass_forever(self) -> None:
        await every(self._config.disappear_pass_s, self.pass_once, log, "messages_not_deleted")

    async def _delete(self, tx: Tx, conversation: ConversationId, messages: Sequence[MessageId]) -> Done[int]:
        await store.lock(tx, conversation)
        now_us = self._db.now_us()
        events: list[Event] = []
        carriers = 0
        for message_id in messages:
            message = await archive.get_ended(tx, message_id, now_us)
            if message is None:
                continue
            carriers += message.file_ids != "[]"
            if carriers > CARRIERS:
                break  # the rest with the next look
            event = Event(
                "message_deleted",
                conversation,
                await changes.number(tx, conversation, now_us),
                now_us,
                message.seq,
                message_id,
                deleted_us=message.expires_us,
            )
            await archive.delete(tx, message, message.expires_us or now_us)
            if message.file_ids != "[]":
                await self._attachments.detach(tx, conversation, message.seq, message_id, None, now_us)
            await changes.record(tx, event, None)
            events.append(event)
        return Done(len(events), events)
