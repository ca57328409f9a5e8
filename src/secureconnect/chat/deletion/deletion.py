"""The rules of deleting a conversation, and the pass that takes its rows away."""

from __future__ import annotations

import structlog

from ... import audit
from ...config import ChatConfig
from ...deps.contracts import Database, Tx
from ...errors import Conflict
from ...identity import ConversationId, UserId
from ...periodic import every
from .. import archive, permissions
from .. import store as conversations
from ..archive import Prefix
from ..attachments import Attachments
from ..catchup import REACH_US
from ..conversations import MembersLeft, dissolve, not_found, unmissed
from ..search import store as search
from ..writer import Done, Writer
from . import store
from .store import Deleted

log = structlog.get_logger(module="chat")

BATCH = 500  # changes, with their messages, taken away in one transaction
PAGE = 100  # conversations looked up at a time
KEPT_US = 2 * REACH_US
"""How long it can be told that one was deleted: each node finds it in less."""


class Deletion:
    def __init__(self, config: ChatConfig, db: Database, writer: Writer, attachments: Attachments) -> None:
        self._period_s = config.retention_pass_s
        self._db = db
        self._writer = writer
        self._attachments = attachments
        self.members_left: MembersLeft = unmissed

    async def delete(self, caller: UserId, conversation: ConversationId) -> None:
        """Deleting twice is deleting once. Raises NotFound, Forbidden; Conflict for a direct conversation,
        which is neither's alone."""
        await self._writer.relieve(self._delete, caller, conversation)

    async def _delete(self, tx: Tx, caller: UserId, conversation: ConversationId) -> Done[None]:
        await conversations.lock(tx, conversation)
        seat = await conversations.seat(tx, conversation, caller)
        if seat is None:
            before = await store.get(tx, conversation)
            if before is not None and before.deleted_by == caller:
                return Done(None)
            raise not_found(conversation)
        if seat.conversation.type == "direct":
            raise Conflict("A direct conversation belongs to both and cannot be deleted; mute it instead.")
        permissions.require(seat, "delete_conversation")
        now_us = self._db.now_us()
        await self.members_left(tx, conversation, list(await conversations.viewers(tx, conversation)), now_us)
        event = await dissolve(tx, conversation, caller, now_us)
        await audit.record(
            tx, action="chat:conversation:deleted", actor=caller, subject=conversation, now_us=now_us
        )
        return Done(None, [event])

    async def pass_once(self) -> int:
        """Take away what is left of those deleted. Returns how many batches that took. Safe to repeat, and on
        every node."""
        batches = 0
        after: ConversationId | None = None
        while page := await self._db.read(store.list_of, after, PAGE):
            for deleted in page:
                while await self._writer.relieve(self._take_away, deleted.conversation_id):
                    batches += 1
            after = page[-1].conversation_id
        return batches

    async def pass_forever(self) -> None:
        await every(self._period_s, self.pass_once, log, "deletion_failed")

    async def _take_away(self, tx: Tx, conversation_id: ConversationId) -> Done[bool]:
        """One batch. False when there is nothing left to do now."""
        await conversations.lock(tx, conversation_id)
        conversation = await conversations.get(tx, conversation_id)
        deleted = await store.get(tx, conversation_id)
        if conversation is None or deleted is None:
            return Done(False)
        last, now_us = deleted.change - 1, self._db.now_us()
        if conversation.min_change < last:
            upto = min(conversation.min_change + BATCH, last)
            next_seq = await store.seq_after(tx, conversation_id, upto)
            # what has no message after it, like a poll, stands where the next one would
            first_seq = conversation.last_seq + 2 if next_seq is None else next_seq
            if await self._detach(tx, deleted, next_seq, now_us):
                await archive.drop_prefix(tx, conversation_id, Prefix(first_seq, upto))
            return Done(True)
        if deleted.deleted_us < now_us - KEPT_US:
            if not (
                await search.clear(tx, conversation_id, BATCH, now_us)
                and await self._detach(tx, deleted, None, now_us)
            ):
                return Done(True)
            await store.finish(tx, conversation_id)
        return Done(False)

    async def _detach(self, tx: Tx, deleted: Deleted, seq: int | None, now_us: int) -> bool:
        return await self._attachments.detach_before(
            tx, deleted.conversation_id, seq, deleted.deleted_by, now_us
        )
