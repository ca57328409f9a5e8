"""The rules of reacting."""

from __future__ import annotations

import unicodedata

from ...config import ChatConfig
from ...deps.contracts import Database, Tx
from ...errors import Conflict, Invalid, MessageDeleted
from ...identity import MessageId, UserId
from .. import changes
from ..changes import Event
from ..messages import lock_message, require_said, require_unblocked
from ..writer import Done, Writer
from . import store

EMOJI_CHARS = 32  # a family of four with skin tones has eleven
REFUSED = frozenset({"Cc", "Cs", "Zs", "Zl", "Zp"})  # categories of Unicode
UNSEEN = frozenset({"Cf", "Mn", "Me"})  # seen only together with what they stand behind or between


class Reactions:
    def __init__(self, config: ChatConfig, db: Database, writer: Writer) -> None:
        self._most = config.max_reactions
        self._db = db
        self._writer = writer

    async def set(self, caller: UserId, message: MessageId, emoji: str, *, on: bool) -> None:
        """React, or take it back; doing either twice is doing it once. Whoever may see a message may react,
        but for two people in their direct conversation of whom one has blocked the other.

        Raises Invalid, NotFound, Forbidden, MessageDeleted; Conflict when the message has as many different
        reactions as may be.
        """
        _check(emoji)
        self._writer.require_settled(message)
        await self._writer.change(self._set, caller, message, emoji, on)

    async def _set(self, tx: Tx, caller: UserId, message_id: MessageId, emoji: str, on: bool) -> Done[None]:
        seat, message = await lock_message(tx, caller, message_id, self._db.now_us)
        if message.deleted_us is not None:
            raise MessageDeleted
        require_said(message)
        await require_unblocked(tx, seat)
        now_us = self._db.now_us()
        conversation = message.conversation_id
        if on:
            moved = await store.add(tx, message_id, emoji, caller, conversation, message.seq, now_us)
            if moved and await store.kinds(tx, message_id) > self._most:
                raise Conflict(f"A message takes at most {self._most} different reactions.")
        else:
            moved = await store.remove(tx, message_id, emoji, caller)
        if not moved:
            return Done(None)
        event = Event(
            "reaction",
            conversation,
            await changes.number(tx, conversation, now_us),
            now_us,
            message.seq,
            message_id,
            actor_id=caller,
            emoji=emoji,
            on=on,
            people=await store.count(tx, message_id, emoji),
            expires_us=message.expires_us,
        )
        await changes.record(tx, event, caller)
        return Done(None, [event])


def _check(emoji: str) -> None:
    """Something to be seen, and short. Which characters are emoji changes each year: it is not asked, and
    those that this Python does not know yet are taken for such."""
    kinds = {unicodedata.category(char) for char in emoji[: EMOJI_CHARS + 1]}
    if len(emoji) > EMOJI_CHARS or kinds & REFUSED or not kinds - UNSEEN:
        raise Invalid(
            f"A reaction is an emoji: 1 to {EMOJI_CHARS} characters, no spaces.", details={"field": "emoji"}
        )
