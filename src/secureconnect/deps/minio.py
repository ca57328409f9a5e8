"""Objects in MinIO, or another S3 server.

The object `files/42` is called `files/42=` there: MinIO takes no `files/42/thumb` beside `files/42`, and what
of ours does not end so is no object yet. An object larger than a part is put together under `=incoming/` and
then copied by the store: S3 wants an object's metadata before its first byte, and our checksum is known after
the last.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
import trio
from miniopy_async.datatypes import Part

from .. import clock
from ..config import MinioConfig
from ..errors import Conflict, NotFound, Problem, RangeNotSatisfiable, TooLarge, Unavailable
from ..identity import new_id
from ..settings import BadSetting
from .asyncio_bridge import Bridge
from .contracts import Place, StoredObject, UploadedPart
from .files import check_key
from .minio_bucket import INCOMING, PAGE, Body, Found, Piece
from .minio_calls import CLEAN_UP_S, Calls, Turns
from .minio_presign import Signer

log = structlog.get_logger(module="minio")

MB = 1024 * 1024
CHUNK_BYTES = MB  # of one read, which is one call: a slow reader holds no connection
MOST_PARTS = 10_000  # S3's limit
SUFFIX = "="
LONGEST_S = 7 * 24 * 3600  # an address of S3 is never valid for longer


class MinioObjects:
    """contracts.Objects and contracts.Presigner."""

    def __init__(self, config: MinioConfig, calls: Calls, signer: Signer) -> None:
        self._calls = calls
        self._signer = signer
        self._there = calls.bucket
        self._part_bytes = config.part_mb * MB
        self._copy_bytes_s = config.copy_mb_s * MB
        self._unfinished_us = config.unfinished_h * clock.HOUR_US
        self._uploads = Turns(config.uploads, config.waiting, config.wait_s)

    @classmethod
    @asynccontextmanager
    async def open(cls, config: MinioConfig, bridge: Bridge) -> AsyncIterator[MinioObjects]:
        """Nothing is asked of the store: it may be away. Raises BadSetting."""
        try:
            signer = Signer(config)
        except ValueError as exc:
            raise BadSetting(f"minio.endpoint or minio.public_endpoint is not valid: {exc}") from exc
        async with Calls.open(config, bridge) as calls:
            yield cls(config, calls, signer)

    async def probe(self, limit_s: float | None = None) -> None:
        """Raises Unavailable unless the store answers for its bucket within `limit_s`."""
        await self._calls.probe(limit_s)

    def abandon(self) -> None:
        """End what has been silent for `minio.connect_s`, or will have been: the store does not answer."""
        self._calls.abandon()

    # contracts.Objects

    async def put(self, key: str, chunks: AsyncIterator[bytes], *, limit_bytes: int) -> StoredObject:
        name = _name(key)
        async with self._uploads.turn():
            part_bytes = max(self._part_bytes, -(-limit_bytes // MOST_PARTS))
            source = _Parts(chunks, part_bytes, limit_bytes)
            first = await source.next()
            if source.ended:
                found = await self._calls.run(self._there.put, name, first)
            else:
                found = await self._put_parts(name, first, source)
        return found.of(key)

    async def get(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        name = _name(key)
        if end is not None and start >= end:
            await self.stat(key)
            return
        piece = await self._read(name, start, end, None)
        while piece is not None:
            yield piece.content
            start += len(piece.content)
            end = piece.total if end is None else min(end, piece.total)
            if start >= end:
                return
            try:
                piece = await self._read(name, start, end, piece.etag)
            except (NotFound, Conflict) as exc:
                raise Unavailable() from exc  # replaced or deleted meanwhile
            if piece is None or not piece.content:
                raise Unavailable()

    async def stat(self, key: str) -> StoredObject:
        return (await self._calls.run(self._there.stat, _name(key))).of(key)

    async def copy(self, source: str, target: str, *, version: str | None = None) -> StoredObject:
        old, new = _name(source), _name(target)
        found = await self._calls.run(self._there.stat, old)
        if version not in (None, found.version):
            raise Conflict()
        try:
            return (await self._copy(old, new, found, found.sha256)).of(target)
        except Conflict as exc:  # replaced since we looked
            raise (Unavailable() if version is None else exc) from exc

    async def delete(self, key: str) -> None:
        await self._remove(_name(key))

    async def list(self, prefix: str) -> AsyncIterator[str]:
        """Keys that begin with `prefix`, as the store orders them; one page at a time is held in memory."""
        parent, _, _ = prefix.rpartition("/")
        if parent:
            check_key(parent)
        last: str | None = None
        while True:
            page = await self._calls.run(self._there.page, prefix, last)
            names = [name for name, _ in page]
            for name in names:
                if name.endswith(SUFFIX):
                    yield name.removesuffix(SUFFIX)
            if len(names) < PAGE:
                return
            last = names[-1]

    def path_of(self, key: str) -> Path | None:
        check_key(key)
        return None

    def where(self, key: str) -> Place:
        check_key(key)
        return "store"

    # contracts.Presigner

    def upload_url(self, key: str, size_bytes: int, expires_s: int) -> str:
        return self._sign("PUT", key, expires_s, {}, size_bytes)

    def download_url(self, key: str, expires_s: int, *, disposition: str, content_type: str) -> str:
        said = {"response-content-disposition": disposition, "response-content-type": content_type}
        return self._sign("GET", key, expires_s, said)

    async def begin_parts(self, key: str) -> str:
        return await self._calls.run(self._there.begin, _name(key))

    def part_url(self, key: str, upload_id: str, number: int, size_bytes: int, expires_s: int) -> str:
        if not 1 <= number <= MOST_PARTS:
            raise ValueError(f"not the number of a part: {number}")
        part = {"partNumber": str(number), "uploadId": upload_id}
        return self._sign("PUT", key, expires_s, part, size_bytes)

    async def list_parts(self, key: str, upload_id: str) -> Sequence[UploadedPart]:
        name, parts, after = _name(key), list[UploadedPart](), 0
        while True:
            page = await self._calls.run(self._there.parts, name, upload_id, after)
            parts += page
            if len(page) < PAGE:
                return parts
            after = page[-1].number

    async def finish_parts(self, key: str, upload_id: str, parts: Sequence[UploadedPart]) -> StoredObject:
        """Raises NotFound when the upload has ended, Conflict when a part is not there like this."""
        name = _name(key)
        size = sum(part.size_bytes for part in parts)
        done = [Part(part.number, part.etag) for part in sorted(parts, key=lambda part: part.number)]
        await self._calls.run_long(size / self._copy_bytes_s, self._there.finish, name, upload_id, done)
        return await self.stat(key)

    async def abandon_parts(self, key: str, upload_id: str) -> None:
        await self._abandon(_name(key), upload_id)

    async def sweep_once(self) -> int:
        """Remove what was begun `minio.unfinished_h` ago and never finished. Returns how much; a pass looks
        at one page of each kind."""
        before_us = clock.now_us() - self._unfinished_us
        objects, uploads = await self._calls.run(self._there.unfinished, before_us)
        for name in objects:
            await self._remove(name)
        for name, upload_id in uploads:
            await self._abandon(name, upload_id)
        return len(objects) + len(uploads)

    # on our side

    async def _put_parts(self, name: str, first: Body, source: _Parts) -> Found:
        temporary = INCOMING + new_id()
        upload_id = await self._calls.run(self._there.begin, temporary)
        try:
            parts = [await self._calls.run(self._there.put_part, temporary, upload_id, 1, first)]
            while not source.ended:
                body = await source.next()
                parts.append(
                    await self._calls.run(self._there.put_part, temporary, upload_id, len(parts) + 1, body)
                )
            work_s = source.size / self._copy_bytes_s
            await self._calls.run_long(work_s, self._there.finish, temporary, upload_id, parts)
            found = await self._calls.run(self._there.stat, temporary)
            if found.size_bytes != source.size:
                raise Unavailable()
            return await self._copy(temporary, name, found, source.sha256)
        finally:
            with trio.move_on_after(CLEAN_UP_S, shield=True):
                await self._discard(temporary, upload_id)

    async def _discard(self, temporary: str, upload_id: str) -> None:
        try:
            await self._abandon(temporary, upload_id)
            await self._remove(temporary)
        except Problem as exc:
            log.warning("upload_left_behind", reason=exc.code)  # for `sweep_once`

    async def _read(self, name: str, start: int, end: int | None, etag: str | None) -> Piece | None:
        """None: there are no bytes from `start` on."""
        length = CHUNK_BYTES if end is None else min(CHUNK_BYTES, end - start)
        try:
            return await self._calls.run(self._there.range, name, start, length, etag)
        except RangeNotSatisfiable:
            return None

    async def _copy(self, old: str, new: str, found: Found, sha256: str) -> Found:
        work_s = found.size_bytes / self._copy_bytes_s
        return await self._calls.run_long(work_s, self._there.copy, old, new, found.etag, sha256)

    async def _remove(self, name: str) -> None:
        try:
            await self._calls.run(self._there.delete, name)
        except NotFound:
            return

    async def _abandon(self, name: str, upload_id: str) -> None:
        try:
            await self._calls.run(self._there.abort, name, upload_id)
        except NotFound:
            return

    def _sign(
        self, method: str, key: str, expires_s: int, query: Mapping[str, str], size_bytes: int | None = None
    ) -> str:
        if not 1 <= expires_s <= LONGEST_S:
            raise ValueError(f"an address is valid for 1 to {LONGEST_S} seconds, not {expires_s}")
        return self._signer.address(method, _name(key), expires_s, query, size_bytes)


class _Parts:
    """The chunks of a put, gathered into parts; counts and hashes on the way."""

    def __init__(self, chunks: AsyncIterator[bytes], part_bytes: int, limit_bytes: int) -> None:
        self.ended = False  # the part given last was the last
        self.size = 0
        self._chunks = chunks
        self._part_bytes = part_bytes
        self._limit_bytes = limit_bytes
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Of the parts given so far."""
        return self._digest.hexdigest()

    async def next(self) -> Body:
        # one byte more than a part, to know whether it is the last
        while self._held_bytes <= self._part_bytes:
            chunk = await anext(self._chunks, None)
            if chunk is None:
                self.ended = True
                break
            self.size += len(chunk)
            if self.size > self._limit_bytes:
                raise TooLarge()
            self._held.append(chunk)
            self._held_bytes += len(chunk)
        return await trio.to_thread.run_sync(self._cut)

    def _cut(self) -> Body:
        whole = b"".join(self._held)
        part, rest = whole[: self._part_bytes], whole[self._part_bytes :]
        self._held, self._held_bytes = [rest], len(rest)
        self._digest.update(part)
        return Body(part)


def _name(key: str) -> str:
    check_key(key)
    return key + SUFFIX
