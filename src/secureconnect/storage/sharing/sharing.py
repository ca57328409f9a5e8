"""The rules of sharing: what messages do to the files they carry, in the units of the messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ... import audit
from ...deps.contracts import Tx
from ...errors import E2eeRequired, Forbidden, Invalid, NotFound, Problem
from ...identity import ConversationId, FileId, MessageId, UserId
from .. import store as files
from ..store import File
from . import store
from .store import Place, Seat

NAMELESS = "encrypted"  # what a file is called where its name is nobody else's business


class Sharing:
    """`attach`, `detach` and `detach_before` run in units of whoever keeps messages, which hold the
    conversation; nothing of them is kept here."""

    async def attach(
        self,
        tx: Tx,
        file_ids: Sequence[FileId],
        *,
        sender: UserId,
        conversation: ConversationId,
        seq: int,
        message: MessageId,
        is_e2ee: bool,
        now_us: int,
    ) -> Problem | None:
        """Share these, if `sender` may read them all; to forward is no more than that. Returns why not: then
        nothing is shared."""
        for file_id in sorted(file_ids):  # in one order, or two who share the same could wait for each other
            found = await store.lock_shareable(tx, file_id, sender)
            if found is None:
                return Invalid("There is no such file.", details={"field": "file_ids"})
            if is_e2ee and not (found.is_encrypted and found.file_name == NAMELESS):
                return E2eeRequired()
        for file_id in file_ids:
            await store.share(tx, file_id, Place(conversation, seq), message, now_us)
        return None

    async def detach(
        self,
        tx: Tx,
        conversation: ConversationId,
        seq: int,
        message: MessageId,
        actor: UserId | None,
        now_us: int,
    ) -> None:
        """The message is deleted.  actor: by whom."""
        freed = await store.unshare(tx, Place(conversation, seq), message)
        await self._drop_unshared(tx, freed, actor, now_us)

    async def detach_before(
        self, tx: Tx, conversation: ConversationId, seq: int | None, actor: UserId | None, now_us: int
    ) -> None:
        """What was said before `seq` is gone; None: the conversation is."""
        freed = await store.unshare_before(tx, conversation, seq)
        await self._drop_unshared(tx, freed, actor, now_us)

    @staticmethod
    async def _drop_unshared(tx: Tx, freed: Iterable[FileId], actor: UserId | None, now_us: int) -> None:
        """A file goes with the last message that carried it."""
        gone: list[File] = []
        for file_id in sorted(set(freed)):
            file = await files.lock(tx, file_id)
            if file is not None and file.status == "completed" and not await store.is_shared(tx, file_id):
                gone.append(file)
        for file in sorted(gone, key=_by_owner):  # whoever changes files and quotas changes the files first
            await files.delete(tx, file, now_us)
            await audit.record(
                tx,
                action="storage:file:deleted",
                actor=actor,
                subject=file.file_id,
                facts={"size_bytes": file.file_size},
                now_us=now_us,
            )


async def require_place(
    tx: Tx, caller: UserId, conversation: ConversationId, *, is_encrypted: bool, file_name: str
) -> Seat:
    """That the caller may share such a file there. Raises NotFound, Forbidden, E2eeRequired."""
    seat = await require_seat(tx, caller, conversation)
    if seat.is_apart:
        raise Forbidden(denial="denied:forbidden", subject=conversation)
    if seat.is_e2ee and not (is_encrypted and file_name == NAMELESS):
        raise E2eeRequired
    return seat


async def require_seat(tx: Tx, caller: UserId, conversation: ConversationId) -> Seat:
    seat = await store.seat(tx, conversation, caller)
    if seat is None:
        raise NotFound(denial="denied:conversation", subject=conversation)
    return seat


async def place(tx: Tx, file: File, now_us: int) -> None:
    """A file that was uploaded into a conversation is complete. It stays its owner's alone if they may not
    share it there any more."""
    if file.conversation_id is None:
        return
    seat = await store.seat(tx, file.conversation_id, file.owner_id)
    if seat is None or seat.is_apart:
        return
    if seat.is_e2ee and not (file.is_encrypted and file.file_name == NAMELESS):
        return
    # as what is said next
    await store.share(tx, file.file_id, Place(file.conversation_id, seat.last_seq + 1), None, now_us)


def _by_owner(file: File) -> UserId:
    return file.owner_id
