"""Files of which nobody knows beforehand how long they get: recordings of calls, for the room of calls.

Each part is an object of its own until the end; then one file is made of them, through this process, a chunk
at a time. Until then the file's row is claimed like one that is being verified, so that nothing else may
arrive at its place, and given up by the sweeper when nobody finishes it.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import cast

from ..clock import HOUR_US
from ..config import StorageConfig
from ..deps.contracts import Database, Objects, Tx
from ..errors import QuotaExceeded, TooManyUploads, Unavailable, UploadMismatch, UploadOver
from ..identity import FileId, NodeId, UserId, new_id
from . import store
from .files import Files
from .parts import MB
from .store import File
from .verifying import COMPLETED, complete


class Growing:
    """is_store_away: as this node knows it."""

    def __init__(
        self,
        config: StorageConfig,
        db: Database,
        objects: Objects,
        files: Files,
        is_store_away: Callable[[], bool],
    ) -> None:
        self._config = config
        self._db = db
        self._objects = objects
        self._files = files
        self._is_store_away = is_store_away

    async def open(
        self, tx: Tx, owner: UserId, file_name: str, content_type: str, *, is_encrypted: bool, hours: int
    ) -> tuple[FileId, str]:
        """A file with nothing in it yet, and the place of its parts.  hours: after which it is given up.
        Raises QuotaExceeded, TooManyUploads."""
        now_us = self._db.now_us()
        ends_us = now_us + hours * HOUR_US
        file = File(
            file_id=FileId(new_id()),
            owner_id=owner,
            file_name=file_name,
            file_size=0,
            content_type=content_type,
            is_encrypted=is_encrypted,
            encryption_metadata=None,
            checksum_sha256=None,
            status="verifying",
            created_us=now_us,
            incoming=secrets.token_hex(16),
            upload_ends_us=ends_us,
            received_us=None,
            claimed_until_us=ends_us,
            node_id=None,
        )
        limit_bytes, most = self._config.quota_mb * MB, self._config.max_unfinished
        if not await store.reserve(tx, owner, 0, limit_bytes, most):
            raise TooManyUploads
        most_files = self._config.max_files
        if await store.count(tx, owner, most_files) == most_files:
            raise QuotaExceeded("There are too many files.", details={"files": most_files})
        await store.add(tx, file)
        return file.file_id, file.incoming

    async def resize(self, tx: Tx, file_id: FileId, size_bytes: int) -> None:
        """It has so many bytes now. Raises QuotaExceeded; UploadOver for what has ended."""
        file = await store.lock(tx, file_id)
        if file is None or file.status != "verifying":
            raise UploadOver
        limit_bytes = self._config.quota_mb * MB
        if not await store.grow(tx, file, size_bytes - file.file_size, limit_bytes):
            quota = await store.quota(tx, file.owner_id)
            raise QuotaExceeded(
                details={
                    "quota_bytes": limit_bytes,
                    "used_bytes": quota.used_bytes,
                    "reserved_bytes": quota.reserved_bytes,
                }
            )

    async def put_part(self, place: str, number: int, content: bytes) -> None:
        """Durable once it returns; the same again is the same. Raises Unavailable while the store is away:
        what lay with one node could not be put together by another."""
        self._require_store()
        key = store.part_key(place, number)

        async def once() -> AsyncIterator[bytes]:
            yield content

        async with aclosing(cast("AsyncGenerator[bytes, None]", once())) as chunks:
            await self._objects.put(key, chunks, limit_bytes=len(content))
        if self._objects.where(key) == "spool":
            await self._objects.delete(key)
            raise _away()

    async def finish(self, file_id: FileId, numbers: Sequence[int]) -> bool:
        """Make the file of these parts, in this order. Safe to repeat, and to cancel. False: it was given up
        or deleted. Raises NotFound when a part is not there, UploadMismatch when they are not as long as
        they were."""
        self._require_store()
        file = await self._db.read(store.get, file_id)
        if file is None or file.status != "verifying":
            return file is not None and file.status == "completed"
        chunks = self._joined(file.incoming, numbers)
        async with aclosing(chunks):
            stored = await self._objects.put(file.key, chunks, limit_bytes=file.file_size)
        if stored.size_bytes != file.file_size:
            raise UploadMismatch
        node_id = self._files.node_of(file)
        with self._files.noticing(node_id):
            kept = await self._db.write(self._keep, file, stored.sha256 or None, node_id)
        if kept is None:
            now = await self._db.read(store.get, file_id)
            if now is not None and now.status == "completed":  # by another node, of the same parts
                return True
            await self._objects.delete(file.key)
            return False
        COMPLETED.inc()
        await self._files.completed(kept)
        return True

    async def _keep(self, tx: Tx, file: File, checksum: str | None, node_id: NodeId | None) -> File | None:
        assert file.claimed_until_us is not None, "it grew"
        now_us = self._db.now_us()
        kept = await store.keep(tx, file.file_id, file.claimed_until_us, now_us, checksum, node_id)
        return None if kept is None else await complete(tx, file.file_id, None, now_us)

    async def _joined(self, place: str, numbers: Sequence[int]) -> AsyncGenerator[bytes, None]:
        for number in numbers:
            part = cast("AsyncGenerator[bytes, None]", self._objects.get(store.part_key(place, number)))
            async with aclosing(part):
                async for chunk in part:
                    yield chunk

    async def discard(self, tx: Tx, file_id: FileId) -> None:
        """It is gone for everybody, its room free, and what there is at its key for the sweeper. Its parts
        are for `drop_parts`. Idempotent."""
        file = await store.lock(tx, file_id)
        if file is not None and file.status != "deleted":
            await store.delete(tx, file, self._db.now_us())

    async def drop_parts(self, place: str, numbers: Sequence[int]) -> None:
        """Idempotent."""
        self._require_store()
        for number in numbers:
            await self._objects.delete(store.part_key(place, number))

    async def is_there(self, tx: Tx, file_id: FileId) -> bool:
        """Whether it is a file, or becomes one."""
        file = await store.get(tx, file_id)
        return file is not None and file.status not in ("deleted", "failed")

    async def address(self, caller: UserId, file_id: FileId, client: str) -> tuple[str, int]:
        """As `Files.address`, and for how many seconds it is good."""
        return await self._files.address(caller, file_id, client), self._config.download_url_s

    def _require_store(self) -> None:
        if self._is_store_away():
            raise _away()


def _away() -> Unavailable:
    return Unavailable("The file store is not available right now.", details={"dependency": "minio"})
