"""The rules of sharing: what messages do to the files they carry, in the units of the messages."""

from __future__ import annotations

from collections.abc import Sequence

from ... import audit
from ...clock import SECOND_US
from ...deps.contracts import Tx
from ...errors import E2eeRequired, Forbidden, Invalid, NotFound, Problem
from ...identity import ConversationId, FileId, MessageId, UserId
from .. import store as files
from ..store import File
from . import store
from .store import Place, Seat

NAMELESS = "encrypted"  # what a file is called where its name is nobody else's business
AT_ONCE = 100  # shares that go in one unit of work
LAST_SEQ = 2**63 - 1


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
        ends_us: int | None,
    ) -> Problem | None:
        """Share these, if `sender` may read them all; to forward is no more than that. Returns why not: then
        nothing is shared."""
        for file_id in sorted(file_ids):  # in one order, or two who share the same could wait for each other
            found = await store.lock_shareable(tx, file_id, sender, now_us)
            if found is None:
                return Invalid("There is no such file.", details={"field": "file_ids"})
            if is_e2ee and not (found.is_encrypted and found.file_name == NAMELESS):
                return E2eeRequired()
        for file_id in file_ids:
            await store.share(tx, file_id, Place(conversation, seq), message, now_us, ends_us)
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
        shares = [(seq, file_id) for file_id in await store.carried(tx, Place(conversation, seq), message)]
        await self._unshare(tx, conversation, shares, actor, now_us)

    async def detach_before(
        self, tx: Tx, conversation: ConversationId, seq: int | None, actor: UserId | None, now_us: int
    ) -> bool:
        """What was said before `seq` goes; None: all of the conversation. False: so much was shared there
        that the rest is for another unit of work."""
        shares = await store.shared_before(tx, conversation, LAST_SEQ if seq is None else seq, AT_ONCE)
        await self._unshare(tx, conversation, shares, actor, now_us)
        return len(shares) < AT_ONCE

    @staticmethod
    async def _unshare(
        tx: Tx,
        conversation: ConversationId,
        shares: Sequence[tuple[int, FileId]],
        actor: UserId | None,
        now_us: int,
    ) -> None:
        """A file goes with the last message that carried it."""
        # the file before its shares, and files before quotas: as all do who change them
        held = [await files.lock(tx, file_id) for file_id in sorted({file_id for _, file_id in shares})]
        await store.unshare(tx, conversation, shares)
        gone = [
            file
            for file in held
            if file is not None and file.status == "completed" and not await store.is_shared(tx, file.file_id)
        ]
        for file in sorted(gone, key=_by_owner):
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
    ends_us = now_us + seat.disappear_after_s * SECOND_US if seat.disappear_after_s else None
    # as what is said next
    next_place = Place(file.conversation_id, seat.last_seq + 1)
    await store.share(tx, file.file_id, next_place, None, now_us, ends_us)


def _by_owner(file: File) -> UserId:
    return file.owner_id
