"""Disappearing: messages past their end are deleted, each as if its sender had just then done so.

A message gets its end when it is stored, from what its conversation asks for at that moment. From its end on
every reader is shown what its deletion will leave (`store.as_shown`); this is the deletion, a moment later.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import structlog

from ..config import ChatConfig
from ..deps.contracts import Database, Tx
from ..identity import ConversationId, MessageId
from ..periodic import every
from . import archive, changes, store
from .attachments import Attachments
from .changes import Event
from .store import Message
from .writer import Done, Writer

log = structlog.get_logger(module="chat")

BATCH = 200  # messages looked up at a time; those of one conversation go in one transaction
CARRIERS = 10  # of those with files, earlier versions or reactions: each brings many rows along


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
        found = [await archive.get_ended(tx, message, now_us) for message in messages]
        ended = _together(message for message in found if message is not None)  # or another node was faster
        if not ended:
            return Done(0)
        first = await changes.number(tx, conversation, now_us, len(ended)) - len(ended) + 1
        events = [_gone(message, change, now_us) for change, message in enumerate(ended, first)]
        await archive.delete(tx, ended, [message.expires_us or now_us for message in ended])
        for message in ended:
            if message.file_ids != "[]":
                await self._attachments.detach(
                    tx, conversation, message.seq, message.message_id, None, now_us
                )
        await changes.record_all(tx, events, None)
        return Done(len(events), events)


def _together(messages: Iterable[Message]) -> list[Message]:
    """The first of them, CARRIERS that bring much along at most; the rest goes with the next look."""
    taken: list[Message] = []
    carriers = 0
    for message in messages:
        carriers += message.file_ids != "[]" or message.edited_us is not None or message.reaction_count > 0
        if carriers > CARRIERS:
            break
        taken.append(message)
    return taken


def _gone(message: Message, change: int, now_us: int) -> Event:
    return Event(
        "message_deleted",
        message.conversation_id,
        change,
        now_us,
        message.seq,
        message.message_id,
        deleted_us=message.expires_us,
    )
