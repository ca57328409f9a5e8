"""The rule of forwarding."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from ...deps.contracts import Database, Tx
from ...errors import E2eeRequired, Forbidden, MessageDeleted, Unavailable
from ...identity import ConversationId, MessageId, UserId, new_id
from ..append import Draft, Stored
from ..conversations import require_seat
from ..messages import require_unblocked, require_visible
from ..store import Message
from ..writer import Writer

MARK = "forwarded"  # in the metadata: true
OWN = ("mentions",)  # in the metadata: what concerns the conversation it was said in


class Forwards:
    def __init__(self, db: Database, writer: Writer) -> None:
        self._db = db
        self._writer = writer

    async def send(
        self,
        caller: UserId,
        message: MessageId,
        targets: Sequence[ConversationId],
        client_message_id: str,
    ) -> list[Stored]:
        """Into each of these, in their order; the same again finds what was stored. When one of them refuses,
        nothing is sent anywhere; should it begin to refuse at that very moment, the others may have it.

        Raises NotFound, Forbidden, MessageDeleted; E2eeRequired where either side is encrypted: the server
        has no text to take along. Unavailable when the database went away on the way: the same again says
        what has become of it.
        """
        self._writer.require_settled(message)
        found = await self._db.read(self._look, caller, message, targets)
        sent: list[Stored] = []
        for target in targets:
            answer = await self._writer.store(_draft(found, caller, target, client_message_id))
            if not isinstance(answer, Stored):
                raise Unavailable(retry_after_s=1)
            sent.append(answer)
        return sent

    async def _look(
        self, tx: Tx, caller: UserId, message: MessageId, targets: Sequence[ConversationId]
    ) -> Message:
        found = await require_visible(tx, caller, message, self._db.now_us())
        source = await require_seat(tx, found.conversation_id, caller)
        if found.deleted_us is not None:
            raise MessageDeleted
        if found.message_type == "system":
            raise Forbidden(denial="denied:forbidden", subject=message)
        if found.is_encrypted or source.conversation.is_e2ee_enabled:
            raise E2eeRequired
        for target in targets:
            seat = await require_seat(tx, target, caller)
            if seat.conversation.is_e2ee_enabled:
                raise E2eeRequired
            await require_unblocked(tx, seat)
        return found


def _draft(message: Message, sender: UserId, target: ConversationId, client_message_id: str) -> Draft:
    metadata = {} if message.metadata is None else msgspec.json.decode(message.metadata)
    kept = {name: value for name, value in metadata.items() if name not in OWN}
    return Draft(
        MessageId(new_id()),
        target,
        sender,
        _derived(client_message_id, target),
        message.message_type,
        message.content,
        is_encrypted=False,
        reply_to=None,
        file_ids=message.file_ids,
        metadata=msgspec.json.encode(kept | {MARK: True}).decode(),
    )


def _derived(client_message_id: str, target: ConversationId) -> str:
    """One for each conversation, the same whenever the same is asked; of no other message, unless somebody
    sets about it."""
    return "fwd:" + hashlib.sha256(f"{client_message_id} {target}".encode()).hexdigest()[:48]
