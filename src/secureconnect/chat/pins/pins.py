"""The rules of pinning."""

from __future__ import annotations

from ...config import ChatConfig
from ...deps.contracts import Database, Tx
from ...errors import Conflict, MessageDeleted, NotFound
from ...identity import ConversationId, MessageId, UserId
from .. import changes, permissions
from ..changes import Event, Kind
from ..conversations import require_seat
from ..messages import lock_message, require_said, require_unblocked
from ..reactions import store as reactions
from ..writer import Done, Writer
from . import store
from .store import Pin, Pinned


class Pins:
    def __init__(self, config: ChatConfig, db: Database, writer: Writer) -> None:
        self._most = config.max_pins
        self._db = db
        self._writer = writer

    async def list_of(self, caller: UserId, conversation: ConversationId) -> list[Pinned]:
        """The latest pinned first. Raises NotFound."""
        return await self._db.read(self._list, caller, conversation)

    async def _list(self, tx: Tx, caller: UserId, conversation: ConversationId) -> list[Pinned]:
        seat = await require_seat(tx, conversation, caller)
        kept = await store.list_of(tx, conversation, seat.member.visible_from_seq, self._db.now_us())
        found = [each for each in kept if each.message.deleted_us is None]  # or it has just disappeared
        messages = await reactions.with_reactions(tx, [each.message for each in found], caller)
        return [each._replace(message=message) for each, message in zip(found, messages, strict=True)]

    async def set(
        self, caller: UserId, conversation: ConversationId, message: MessageId, *, on: bool
    ) -> None:
        """Pin, or take a pin away; doing either twice is doing it once. Raises NotFound, Forbidden,
        MessageDeleted; Conflict when as many are pinned as may be."""
        self._writer.require_settled(message)
        await self._writer.change(self._set, caller, conversation, message, on)

    async def _set(
        self, tx: Tx, caller: UserId, conversation: ConversationId, message_id: MessageId, on: bool
    ) -> Done[None]:
        seat, message = await lock_message(tx, caller, message_id, self._db.now_us)
        if message.conversation_id != conversation:
            raise NotFound
        permissions.require(seat, "pin")
        if message.deleted_us is not None:
            raise MessageDeleted
        require_said(message)
        await require_unblocked(tx, seat)
        now_us = self._db.now_us()
        if on:
            moved = await store.add(tx, Pin(message_id, conversation, message.seq, caller, now_us))
            if moved and await store.count(tx, conversation) > self._most:
                raise Conflict(f"A conversation pins at most {self._most} messages.")
        else:
            moved = await store.remove(tx, conversation, message_id)
        if not moved:
            return Done(None)
        kind: Kind = "message_pinned" if on else "message_unpinned"
        change = await changes.number(tx, conversation, now_us)
        event = Event(
            kind,
            conversation,
            change,
            now_us,
            message.seq,
            message_id,
            actor_id=caller,
            expires_us=message.expires_us,
        )
        await changes.record(tx, event, caller)
        return Done(None, [event])
