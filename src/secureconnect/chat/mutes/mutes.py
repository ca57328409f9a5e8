"""The rule of muting."""

from __future__ import annotations

from ...deps.contracts import Database, Tx
from ...errors import Invalid
from ...identity import ConversationId, UserId
from .. import store
from ..conversations import require_seat
from ..writer import Done, MuteMark, Writer


class Mutes:
    def __init__(self, db: Database, writer: Writer) -> None:
        self._db = db
        self._writer = writer

    async def set(self, caller: UserId, conversation: ConversationId, until_us: int | None) -> None:
        """until_us: `FOREVER_US` for good; None mutes no more. Raises NotFound, Invalid."""
        if until_us is not None and until_us <= self._db.now_us():
            raise Invalid("That is over already.", details={"field": "until"})
        await self._writer.change(self._set, caller, conversation, until_us)

    async def _set(
        self, tx: Tx, caller: UserId, conversation: ConversationId, until_us: int | None
    ) -> Done[None]:
        seat = await require_seat(tx, conversation, caller)
        if seat.member.muted_until_us == until_us:
            return Done(None)
        await store.mute(tx, conversation, caller, until_us)
        return Done(None, marks=[MuteMark(conversation, caller, until_us)])
