"""Retention: messages past their term go, a prefix of the conversation at a time, and polls with them."""

from __future__ import annotations

import structlog
import trio

from ..clock import DAY_US
from ..config import ChatConfig
from ..deps.contracts import Database, Tx
from ..identity import ConversationId
from ..periodic import Trouble
from . import archive, changes, store
from .attachments import Attachments
from .changes import Event
from .polls import polls
from .writer import Done, Writer

log = structlog.get_logger(module="chat")

BATCH = 500  # messages deleted in one transaction
POLLS = 20  # and polls, each with its votes
CONVERSATIONS = 100  # looked up at a time


class Retention:
    def __init__(self, config: ChatConfig, db: Database, writer: Writer, attachments: Attachments) -> None:
        self._config = config
        self._db = db
        self._writer = writer
        self._attachments = attachments

    async def pass_once(self) -> int:
        """Delete what is past its term. Returns how many batches that took."""
        batches = 0
        for asked in await self._db.read(archive.retention_terms):
            terms = [days for days in (asked, self._config.retention_days) if days]
            if not terms:
                continue
            before_us = self._db.now_us() - min(terms) * DAY_US
            while overdue := await self._db.read(archive.overdue, asked, before_us, CONVERSATIONS):
                for conversation in overdue:
                    while await self.drop(conversation, asked, before_us):
                        batches += 1
        return batches

    async def drop(self, conversation: ConversationId, asked: int, before_us: int) -> bool:
        """Delete one batch of what was sent before. False when there is nothing left to delete, or the
        conversation asks for another number of days than `asked` by now."""
        return await self._writer.relieve(self._drop, conversation, asked, before_us)

    async def _drop(self, tx: Tx, conversation_id: ConversationId, asked: int, before_us: int) -> Done[bool]:
        await store.lock(tx, conversation_id)
        conversation = await store.get(tx, conversation_id)
        if conversation is None or conversation.message_retention_days != asked:
            return Done(False)
        now_us = self._db.now_us()
        events = await polls.drop(tx, conversation_id, before_us, POLLS, now_us)
        if len(events) == POLLS:
            return Done(True, events)
        prefix = await archive.prefix_before(tx, conversation, before_us, BATCH)
        if prefix is None:
            return Done(bool(events), events)
        if not await self._attachments.detach_before(tx, conversation_id, prefix.first_seq, None, now_us):
            return Done(True, events)
        if not await archive.drop_prefix(tx, conversation_id, prefix):
            return Done(True, events)
        change = await changes.number(tx, conversation_id, now_us)
        shrunk = conversation._replace(
            first_seq=prefix.first_seq, min_change=prefix.min_change, last_change=change, touched_us=now_us
        )
        event = Event("conversation_updated", conversation_id, change, now_us, conversation=shrunk)
        await changes.record(tx, event, None)
        return Done(True, [*events, event])

    async def pass_forever(self) -> None:
        trouble = Trouble(log, "retention_failed")
        while True:
            with trouble:
                await self.pass_once()
            await trio.sleep(self._config.retention_pass_s)
