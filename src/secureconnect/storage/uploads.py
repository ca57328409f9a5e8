"""Taking files in: room is reserved, content arrives where nobody reads, and is verified and put in place.

A small file comes whole, as told here; a large one in parts (`parts`), and is verified in its own time
(`verifying`).
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from itertools import islice

import msgspec
import structlog
import trio

from .. import audit
from ..clock import SECOND_US
from ..config import StorageConfig
from ..deps.contracts import Database, Objects, Presigner, Tx, UploadedPart
from ..errors import (
    Conflict,
    DiskFull,
    FileOnAwayNode,
    FileTooLarge,
    NotFound,
    Problem,
    QuotaExceeded,
    TooManyUploads,
    Unavailable,
    UploadArrived,
    UploadMismatch,
    UploadMissing,
    UploadOver,
)
from ..idempotency import Attempt, once
from ..identity import ConversationId, FileId, NodeId, UserId, new_id
from ..metrics import counter
from . import store
from .addresses import Addresses, Grant
from .arriving import Read, exactly, mismatch
from .files import Files
from .parts import MB, PartAddress, Parts, division_of
from .sharing.sharing import require_place
from .store import File
from .verifying import COMPLETED, MISMATCHED, Verifier, complete, sha256_of

log = structlog.get_logger(module="storage")

# place: store, spool, folder
BEGUN = counter("secureconnect_storage_uploads_total", "Uploads begun, by where content goes.", ["place"])
_DIRECT, _SPOOL, _FOLDER = (BEGUN.labels(place) for place in ("store", "spool", "folder"))

CLEAN_UP_S = 2.0

# (tx, until_us, checksum, node_id): what is known of what was verified under the claim that `until_us` names
Keep = Callable[[Tx, int, str | None, NodeId | None], Awaitable[File | None]]


class Announcement(msgspec.Struct, frozen=True):
    """What a client says of a file it is going to upload.  encryption_metadata: a JSON object.
    conversation_id: into which."""

    file_name: str
    file_size: int
    content_type: str
    is_encrypted: bool = False
    encryption_metadata: str | None = None
    checksum_sha256: str | None = None
    conversation_id: ConversationId | None = None


class Progress(msgspec.Struct, frozen=True):
    """An upload under way.  url: where all of it is to be put; None: in parts.
    parts: where the next ones that are missing are to be put.  done: those that have arrived."""

    file: File
    url: str | None = None
    parts: Sequence[PartAddress] = ()
    done: Sequence[UploadedPart] = ()


class Uploads:
    """presigner: None where files lie in a folder.  is_store_away: as this node knows it."""

    def __init__(
        self,
        config: StorageConfig,
        db: Database,
        objects: Objects,
        presigner: Presigner | None,
        is_store_away: Callable[[], bool],
        addresses: Addresses,
        files: Files,
        parts: Parts,
        verifier: Verifier,
        node_id: NodeId,
    ) -> None:
        self._config = config
        self._db = db
        self._objects = objects
        self._presigner = presigner
        self._is_store_away = is_store_away
        self._addresses = addresses
        self._files = files
        self._parts = parts
        self._verifier = verifier
        self._node_id = node_id
        self._arriving: set[FileId] = set()

    # beginning

    async def begin(
        self,
        owner: UserId,
        announced: Announcement,
        address: str | None = None,
        attempt: Attempt | None = None,
    ) -> Progress:
        """Where the content is to be put; that must begin within `upload_url_s`.  address: of the client.

        Of an earlier attempt at the same: its file, if content may still arrive, and fresh addresses.
        """
        limit_bytes = self._config.max_file_mb * MB
        if announced.file_size > limit_bytes:
            raise FileTooLarge(
                f"A file has at most {self._config.max_file_mb} MiB.", details={"limit_bytes": limit_bytes}
            )
        to_spool = self._presigner is not None and self._is_store_away()
        now_us = self._db.now_us()
        part_size = self._parts.size_for(announced.file_size)
        upload_s = self._config.upload_s if part_size is None else self._config.upload_parts_s
        file = File(
            file_id=FileId(new_id()),
            owner_id=owner,
            file_name=announced.file_name,
            file_size=announced.file_size,
            content_type=announced.content_type,
            is_encrypted=announced.is_encrypted,
            encryption_metadata=announced.encryption_metadata,
            checksum_sha256=announced.checksum_sha256,
            status="uploading",
            created_us=now_us,
            incoming=secrets.token_hex(16),
            upload_ends_us=now_us + upload_s * SECOND_US,
            received_us=None,
            claimed_until_us=None,
            node_id=self._node_id if to_spool else None,
            conversation_id=announced.conversation_id,
            part_size=part_size,
        )
        file, is_new = await self._reserved(file, attempt, address)
        if not is_new:
            return await self._progress(file)
        if self._presigner is not None and not to_spool:
            _DIRECT.inc()
        else:
            (_SPOOL if to_spool else _FOLDER).inc()
        if part_size is None:
            return Progress(file, self._address(file))
        numbers = range(1, division_of(file).count + 1)[: self._config.parts_told]
        return Progress(file, parts=self._parts.addresses(file, numbers))

    async def _reserved(self, file: File, attempt: Attempt | None, address: str | None) -> tuple[File, bool]:
        """The file, or the one that an earlier attempt has made; and whether it is new."""
        if file.part_size is not None:
            # first, for a unit of work asks no store; what a crash leaves there is swept as unfinished
            file = file._replace(upload_id=await self._parts.begin(file))
        try:
            file_id = await once(self._db, attempt, FileId, self._reserve, file, address)
        except Unavailable:
            raise  # after a commit, perhaps: the row would be left with an upload that has ended
        except Problem:
            await self._let_go(file)
            raise
        if file_id == file.file_id:
            return file, True
        await self._let_go(file)
        return self._unfinished(await self._db.read(store.get, file_id)), False

    async def _let_go(self, file: File) -> None:
        """What was begun in the store for a file that is none."""
        if file.upload_id is not None:
            with trio.move_on_after(CLEAN_UP_S, shield=True):
                await self._abandon(file)

    async def _abandon(self, file: File) -> None:
        try:
            await self._parts.abandon(file)
        except Problem as problem:
            log.info("parts_left", code=problem.code)

    async def progress(
        self, caller: UserId, file_id: FileId, after: int = 0, number: int | None = None
    ) -> Progress:
        """How far an upload is, with fresh addresses: of parts after `after` that are missing, or of the one
        part `number`, whether it has arrived or not. Raises UploadArrived, UploadOver."""
        file = self._unfinished(await self._files.own(caller, file_id))
        if file.status == "verifying" and file.part_size is not None:
            raise UploadArrived
        return await self._progress(file, after, number)

    async def _progress(self, file: File, after: int = 0, number: int | None = None) -> Progress:
        if file.part_size is None:
            return Progress(file, self._address(file))
        try:
            done = await self._parts.done(file)
        except NotFound:
            raise UploadOver from None
        there = {part.number for part in done}
        count = division_of(file).count
        if number is not None:
            numbers = [number] if number <= count else []
        else:
            missing = (each for each in range(after + 1, count + 1) if each not in there)
            numbers = list(islice(missing, self._config.parts_told))
        return Progress(file, parts=self._parts.addresses(file, numbers), done=done)

    def _address(self, file: File) -> str:
        if self._presigner is not None and file.node_id is None:
            return self._presigner.upload_url(file.incoming_key, file.file_size, self._config.upload_url_s)
        expires_us = self._db.now_us() + self._config.upload_url_s * SECOND_US
        grant = Grant("PUT", file.file_id, file.file_size, expires_us, file.owner_id)
        return self._addresses.of(grant, file.node_id)

    async def _reserve(self, tx: Tx, file: File, address: str | None) -> FileId:
        if file.conversation_id is not None:
            await require_place(
                tx,
                file.owner_id,
                file.conversation_id,
                is_encrypted=file.is_encrypted,
                file_name=file.file_name,
            )
        limit_bytes, most = self._config.quota_mb * MB, self._config.max_unfinished
        if not await store.reserve(tx, file.owner_id, file.file_size, limit_bytes, most):
            quota = await store.quota(tx, file.owner_id)
            if quota.uploads >= most:
                raise TooManyUploads
            raise QuotaExceeded(
                details={
                    "quota_bytes": limit_bytes,
                    "used_bytes": quota.used_bytes,
                    "reserved_bytes": quota.reserved_bytes,
                }
            )
        most_files = self._config.max_files
        if await store.count(tx, file.owner_id, most_files) == most_files:
            raise QuotaExceeded("There are too many files.", details={"files": most_files})
        await store.add(tx, file)
        await audit.record(
            tx,
            action="storage:file:announced",
            actor=file.owner_id,
            subject=file.file_id,
            address=address,
            facts={"size_bytes": file.file_size},
            now_us=file.created_us,
        )
        return file.file_id

    # content that comes through here

    async def receive(self, token: str, read: Read, length: int | None) -> UploadedPart | None:
        """Take in the content of one file, or of a part of it, which is returned.  token: of its address.
        length: what the client says it sends."""
        grant = self._addresses.read(token, "PUT", self._db.now_us())

        async def keep(tx: Tx, until_us: int, checksum: str | None, node_id: NodeId | None) -> File | None:
            now_us = self._db.now_us()
            return await store.keep(tx, grant.file_id, until_us, now_us, checksum, node_id)

        file = await self._db.read(store.get, grant.file_id)
        if file is None:
            raise NotFound
        self._require_waiting(file)
        if length not in (None, grant.size_bytes):
            raise mismatch(grant.size_bytes, "part" if grant.part else "file")
        if grant.part:
            return await self._receive_part(file, grant, read)
        if file.file_id in self._arriving:
            raise Conflict("The content of this file is just arriving.")
        self._arriving.add(file.file_id)
        try:
            async with aclosing(exactly(read, grant.size_bytes)) as chunks:
                await self._objects.put(file.incoming_key, chunks, limit_bytes=grant.size_bytes)
            try:
                kept = await self._verify(file, keep)
            except DiskFull:
                await self._remove_incoming(file)  # or what has no place would take one
                raise
            if kept is None:
                await self._require_alive(file)
        finally:
            self._arriving.discard(file.file_id)
        return None

    async def _receive_part(self, file: File, grant: Grant, read: Read) -> UploadedPart:
        if file.status != "uploading":
            raise UploadArrived
        part = await self._parts.receive(file, grant, read)
        await self._require_alive(file)
        return part

    async def _require_alive(self, file: File) -> None:
        """Somebody else is verifying what has arrived, or has; unless the upload has come to its end: what
        came after that is nobody's, and no row may be left to remove it by."""
        seen = await self._db.read(store.get, file.file_id)
        if seen is None or seen.status in ("deleted", "failed"):
            await (self._remove_incoming(file) if file.part_size is None else self._abandon(file))
            raise UploadOver

    @staticmethod
    def _unfinished(file: File | None) -> File:
        if file is None or file.status not in ("uploading", "verifying"):
            raise UploadOver
        if file.received_us is not None:
            raise UploadArrived
        return file

    def _require_waiting(self, file: File) -> None:
        self._unfinished(file)
        if file.node_id not in (None, self._node_id):
            raise FileOnAwayNode

    # completing

    async def complete(
        self, caller: UserId, file_id: FileId, address: str, said: Sequence[tuple[int, str]] = ()
    ) -> File:
        """Its status is `completed`, or `verifying` while somebody is at it. Safe to repeat.

        said: (number, ETag) of parts, as their sender has it.
        Raises UploadMissing while there is nothing to complete.
        """
        file = await self._files.own(caller, file_id)
        if file.part_size is not None:
            return await self._verifier.complete(file, said, address)
        for _ in range(2):  # whoever was at it may have been the upload itself
            file = await self._files.own(caller, file_id)
            if file.status == "failed":
                raise UploadOver
            if file.status == "completed":
                return file
            done = await self._try_complete(file, address)
            if done is not None:
                COMPLETED.inc()
                await self._files.completed(done)
                return done
            file = await self._files.own(caller, file_id)
            if file.status != "uploading":
                return file
        raise UploadMissing

    async def _try_complete(self, file: File, address: str) -> File | None:
        """None: another call is at it, or was."""

        async def keep(tx: Tx, until_us: int, checksum: str | None, node_id: NodeId | None) -> File | None:
            now_us = self._db.now_us()
            kept = await store.keep(tx, file.file_id, until_us, now_us, checksum, node_id)
            return None if kept is None else await complete(tx, file.file_id, address, now_us)

        if file.received_us is not None:
            return await self._db.write(complete, file.file_id, address, self._db.now_us())
        if file.node_id not in (None, self._node_id):
            raise UploadMissing  # what arrives there is verified there
        return await self._verify(file, keep)

    async def _verify(self, file: File, keep: Keep) -> File | None:
        """Look at what arrived and put it in its place. None: somebody else is at it, or it is over.

        keep: the unit of work that notes it.
        """
        now_us = self._db.now_us()
        until_us = now_us + int((self._config.verify_s + 2 * CLEAN_UP_S) * SECOND_US)
        claimed = await self._db.write(store.claim, file.file_id, now_us, until_us)
        if claimed is None:
            return None
        try:
            checksum = await self._put_in_place(claimed)
            node_id = self._files.node_of(claimed)
            with self._files.noticing(node_id):
                kept = await self._db.write(keep, until_us, checksum, node_id)
        except UploadMismatch:
            MISMATCHED.inc()
            await self._db.relieve(store.fail, file.file_id, until_us, self._db.now_us())
            raise
        except BaseException:
            await self._give_back(file.file_id, until_us)
            raise
        await self._remove_incoming(claimed)
        return kept

    async def _put_in_place(self, file: File) -> str | None:
        """Copied first and looked at then: what lies at its key cannot be exchanged any more. Returns its
        SHA-256, if it is known."""
        with trio.move_on_after(self._config.verify_s):
            try:
                arrived = await self._objects.stat(file.incoming_key)
            except NotFound:
                raise UploadMissing from None
            if arrived.size_bytes != file.file_size:
                raise mismatch(file.file_size)
            kept = await self._objects.copy(file.incoming_key, file.key, version=arrived.version)
            checksum = kept.sha256
            if file.checksum_sha256 is not None:
                checksum = checksum or await sha256_of(self._objects, file.key)
                if checksum != file.checksum_sha256:
                    raise UploadMismatch(details={"field": "checksum_sha256"})
            return checksum or None
        raise Unavailable("The file could not be verified in time.")

    async def _give_back(self, file_id: FileId, until_us: int) -> None:
        """The next attempt need not wait for the claim to end."""
        with trio.move_on_after(CLEAN_UP_S, shield=True):
            try:
                await self._db.relieve(store.unclaim, file_id, until_us)
            except Problem as problem:
                log.info("claim_left", code=problem.code)

    async def _remove_incoming(self, file: File) -> None:
        try:
            await self._objects.delete(file.incoming_key)
        except Problem as problem:
            log.info("incoming_left", code=problem.code)  # for the sweeper
