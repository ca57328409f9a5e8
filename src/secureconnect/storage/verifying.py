"""Large files are verified after the answer: whoever says that one is complete waits for a moment only.

What is to be verified stands in the table. A node claims one, holds the claim for as long as it is at it, and
another takes over when it does not: every step can be done again.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import cast

import structlog
import trio

from .. import audit
from ..clock import SECOND_US
from ..config import StorageConfig
from ..deps.contracts import Database, Objects, Tx
from ..errors import Problem, Unavailable, UploadMismatch, UploadMissing, UploadOver
from ..identity import FileId, NodeId
from ..metrics import counter
from ..periodic import Trouble
from . import store
from .files import Files
from .parts import MB, Parts
from .sharing.sharing import place
from .store import File

log = structlog.get_logger(module="storage")

# result: completed; mismatched: not what was announced; expired: never completed
ENDED = counter("secureconnect_storage_uploads_ended_total", "How uploads ended.", ["result"])
COMPLETED, MISMATCHED, EXPIRED = (ENDED.labels(how) for how in ("completed", "mismatched", "expired"))

LOOKED_AT = 10  # of those waiting, for one that nobody else claims
TOLD_MISSING = 100
CLEAN_UP_S = 2.0
PAUSE_S = 2.0  # before a store that broke off is asked for the rest


class Verifier:
    """Of files in parts. Every node has one; `work_forever` may run several times."""

    def __init__(
        self,
        config: StorageConfig,
        db: Database,
        objects: Objects,
        parts: Parts,
        files: Files,
        node_id: NodeId,
    ) -> None:
        self._config = config
        self._db = db
        self._objects = objects
        self._parts = parts
        self._files = files
        self._node_id = node_id
        self._hurried = trio.Event()
        self._waited_for: dict[FileId, trio.Event] = {}

    # asking

    async def complete(self, file: File, said: Sequence[tuple[int, str]], address: str) -> File:
        """It is `completed`, or `verifying` while that goes on. Safe to repeat.

        said: (number, ETag) of parts, as their sender has it.  address: of whom it is asked from.
        Raises UploadMissing with the parts that are, UploadMismatch, UploadOver.
        """
        if file.status == "completed":
            return file
        if file.status == "failed":
            raise UploadOver
        ended = self._waited_for.setdefault(file.file_id, trio.Event())
        try:
            if file.status == "uploading":
                await self._ask(file, said, address)
            self._hurry()
            if self._is_here(file):
                with trio.move_on_after(self._config.verify_wait_s):
                    await ended.wait()
        finally:
            if not ended.statistics().tasks_waiting and self._waited_for.get(file.file_id) is ended:
                del self._waited_for[file.file_id]
        seen = await self._files.own(file.owner_id, file.file_id)
        if seen.status == "failed":
            raise UploadMismatch
        if seen.status == "uploading":
            raise UploadMissing
        return seen

    async def _ask(self, file: File, said: Sequence[tuple[int, str]], address: str) -> None:
        if self._is_here(file):
            missing = await self._parts.missing(file, said)
            if missing:
                raise UploadMissing(
                    "Parts of this file have not arrived.", details={"parts": missing[:TOLD_MISSING]}
                )
        now_us = self._db.now_us()
        # what has arrived in time is not given up because its turn, or the store, comes later
        ends_us = max(file.upload_ends_us, now_us + self._config.upload_s * SECOND_US)
        await self._db.write(store.ask, file.file_id, now_us, address, ends_us)

    def _is_here(self, file: File) -> bool:
        """What arrives in another node's spool is looked at there."""
        return file.node_id in (None, self._node_id)

    def _hurry(self) -> None:
        self._hurried.set()
        self._hurried = trio.Event()

    # doing it

    async def work_forever(self) -> None:
        trouble = Trouble(log, "files_not_verified")
        while True:
            hurried, found = self._hurried, False
            with trouble:
                found = await self.work_once()
            if not found:
                with trio.move_on_after(self._config.verify_poll_s):
                    await hurried.wait()

    async def work_once(self) -> bool:
        """Verify one file. False: there was none."""
        for file_id in await self._db.read(store.unverified, self._node_id, self._db.now_us(), LOOKED_AT):
            claim = _Claim(file_id, self._db, self._config.verify_lease_s)
            file = await claim.take()
            if file is not None:
                await self._verify(file, claim)
                return True
        return False

    async def _verify(self, file: File, claim: _Claim) -> None:
        try:
            checksum = await self._held(file, claim)
            kept = None
            if not claim.is_lost:
                node_id = self._files.node_of(file)
                with self._files.noticing(node_id):
                    kept = await self._db.write(self._keep, file, claim.until_us, checksum, node_id)
            if kept is None:
                await self._clear_away(file)
                return
            COMPLETED.inc()
            await self._files.completed(kept)
        except UploadMismatch:
            MISMATCHED.inc()
            await self._db.relieve(store.fail, file.file_id, claim.until_us, self._db.now_us())
            self._files.tell(file._replace(status="failed"), ())
        except UploadMissing:
            await self._db.relieve(store.unclaim, file.file_id, claim.until_us)
        except Problem as problem:
            log.info("verifying_waits", code=problem.code)
            await claim.hold_for(self._config.verify_poll_s)
        except Exception:  # of one file, which waits until the claim ends; the others go on
            log.exception("verifying_failed")
        finally:
            ended = self._waited_for.pop(file.file_id, None)
            if ended is not None:
                ended.set()

    async def _clear_away(self, file: File) -> None:
        """If it was given up meanwhile, what was made of it since is nobody's."""
        seen = await self._db.read(store.get, file.file_id)
        if seen is None or seen.status in ("deleted", "failed"):
            await self._parts.abandon(file)
            await self._objects.delete(file.key)

    async def _held(self, file: File, claim: _Claim) -> str | None:
        """The SHA-256 of what is at its key now, if it is known. Nothing counts if the claim was lost."""
        limit_s = self._config.verify_s + file.file_size / (self._config.verify_mb_s * MB)
        checksum: str | None = None
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(claim.hold, nursery.cancel_scope)
            try:
                with trio.fail_after(limit_s):
                    checksum = await self._put_in_place(file)
            except trio.TooSlowError:
                failure = Unavailable("The file could not be verified in time.")
            except Exception as exc:
                failure = exc  # raised below as it is: the nursery would wrap it in a group
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return checksum

    async def _put_in_place(self, file: File) -> str | None:
        stored = await self._parts.finish(file)
        if stored.size_bytes != file.file_size:
            raise UploadMismatch
        checksum = stored.sha256
        if file.checksum_sha256 is not None:
            checksum = checksum or await sha256_of(self._objects, file.key)
            if checksum != file.checksum_sha256:
                raise UploadMismatch
        return checksum or None

    async def _keep(
        self, tx: Tx, file: File, until_us: int, checksum: str | None, node_id: NodeId | None
    ) -> File | None:
        now_us = self._db.now_us()
        kept = await store.keep(tx, file.file_id, until_us, now_us, checksum, node_id)
        return None if kept is None else await complete(tx, file.file_id, file.asked_from, now_us)


class _Claim:
    """This node's on one file, for as long as it is prolonged.  until_us: by which the table knows it."""

    def __init__(self, file_id: FileId, db: Database, lease_s: float) -> None:
        self.is_lost = False
        self.until_us = 0
        self._file_id = file_id
        self._db = db
        self._lease_s = lease_s

    async def take(self) -> File | None:
        """None: another was faster."""
        now_us = self._db.now_us()
        self.until_us = now_us + int(self._lease_s * SECOND_US)
        return await self._db.write(store.claim, self._file_id, now_us, self.until_us)

    async def hold(self, work: trio.CancelScope) -> None:
        """Prolong it until it is lost.  work: cancelled then."""
        ends = trio.current_time() + self._lease_s
        while not self.is_lost and trio.current_time() < ends:
            await trio.sleep(self._lease_s / 3)
            began = trio.current_time()
            try:
                # shielded: cancelled in between, nobody would know by which name it stands
                with trio.fail_after(CLEAN_UP_S, shield=True):
                    await self.hold_for(self._lease_s)
                ends = began + self._lease_s
            except (Problem, trio.TooSlowError):
                log.info("claim_not_prolonged")
        self.is_lost = True
        work.cancel()

    async def hold_for(self, seconds: float) -> None:
        until_us = self._db.now_us() + int(seconds * SECOND_US)
        self.is_lost = not await self._db.relieve(store.extend, self._file_id, self.until_us, until_us)
        self.until_us = until_us


async def complete(tx: Tx, file_id: FileId, address: str | None, now_us: int) -> File | None:
    """What was verified is its owner's file.  None: it was no upload that has arrived."""
    file = await store.complete(tx, file_id)
    if file is not None:
        await place(tx, file, now_us)
        await audit.record(
            tx,
            action="storage:file:uploaded",
            actor=file.owner_id,
            subject=file.file_id,
            address=address,
            facts={"size_bytes": file.file_size},
            now_us=now_us,
        )
    return file


async def sha256_of(objects: Objects, key: str) -> str:
    """Of an object that nobody replaces. A store that is away for a moment does not make it begin anew."""
    digest, at, tried_at = hashlib.sha256(), 0, -1
    while True:
        chunks = cast("AsyncGenerator[bytes, None]", objects.get(key, at))
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    await trio.to_thread.run_sync(digest.update, chunk)
                    at += len(chunk)
            return digest.hexdigest()
        except Unavailable:
            if at == tried_at:
                raise
            tried_at = at
        await trio.sleep(PAUSE_S)
