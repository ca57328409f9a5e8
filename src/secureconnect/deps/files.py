"""MinIO's twin: objects in a folder.

`files/42` lies in `files/42=`: no key has a `=`, so the object never collides with the folder of
`files/42/thumb`. An object ends with the SHA-256 of what comes before, 32 bytes: content and checksum appear
and vanish together. Files are never changed in place; a new one is synced, then renamed over the old.

What arrives in parts is written into one file, each part at its place, with a ledger beside it that holds the
SHA-256 of each part that is there whole. When all are, the file is renamed like any other: nothing is copied.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

import trio

from ..durable import sync_folder
from ..errors import Conflict, DiskFull, NotFound, TooLarge, Unavailable
from ..identity import new_id
from .contracts import Division, Place, StoredObject, UploadedPart
from .draft import LEDGER, Draft

R = TypeVar("R")

MB = 1024 * 1024
CHUNK_BYTES = 256 * 1024
THREADS = 8  # file operations at once
CLEAN_UP_S = 2.0
SUFFIX = "="
INCOMING = "=incoming"
DRAFTS = "=parts"
_SEGMENT = re.compile(r"[a-z0-9_.-]{1,200}")
_DIGEST_BYTES = hashlib.sha256().digest_size


class FolderObjects:
    """contracts.Objects and contracts.Drafts in one folder, which no other process writes to."""

    def __init__(self, root: Path, *, reserve_mb: int = 0, reads_only: bool = False) -> None:
        """Makes the folder (mode 0700) if need be, and removes what a crash left half-written: blocking, for
        the start only.

        reserve_mb: kept free on the disk: `put` raises DiskFull before it takes from that.
        reads_only: it is another process that writes there; nothing is made or removed.
        """
        self._root = root
        self._reserve_bytes = reserve_mb * MB
        self._incoming = root / INCOMING
        self._drafts = root / DRAFTS
        self._coming: set[tuple[str, int]] = set()  # parts, by key and number
        self._finishing: set[str] = set()
        self._threads = trio.CapacityLimiter(THREADS)
        if reads_only:
            return
        for folder in (root, self._incoming, self._drafts):
            folder.mkdir(mode=0o700, exist_ok=True)
        sync_folder(root.parent)
        for stale in self._incoming.iterdir():
            stale.unlink()

    async def put(self, key: str, chunks: AsyncIterator[bytes], *, limit_bytes: int) -> StoredObject:
        path = self._path(key)
        digest = hashlib.sha256()

        def write(parts: list[bytes]) -> None:
            self._require_room(file.fileno())
            for part in parts:
                digest.update(part)
                file.write(part)

        def finish(parts: list[bytes]) -> StoredObject:
            write(parts)
            file.write(digest.digest())
            self._publish(file, path)
            return _stored(key, file.fileno())

        file = await self._thread(self._new)
        try:
            parts = await _gather(chunks, limit_bytes, lambda parts: self._thread(write, parts))
            return await self._thread(finish, parts)
        finally:
            with trio.move_on_after(CLEAN_UP_S, shield=True):
                await self._thread(_discard, file)

    async def get(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        path = self._path(key)
        file = await self._thread(_open, path)
        try:
            size = os.fstat(file.fileno()).st_size - _DIGEST_BYTES
            end = size if end is None else min(end, size)
            while start < end:
                length = min(CHUNK_BYTES, end - start)
                chunk = await self._thread(os.pread, file.fileno(), length, start)
                if not chunk:
                    raise Unavailable()  # cut short by something else than us
                yield chunk
                start += len(chunk)
        finally:
            file.close()

    async def stat(self, key: str) -> StoredObject:
        path = self._path(key)

        def look() -> StoredObject:
            with _open(path) as file:
                return _stored(key, file.fileno())

        return await self._thread(look)

    async def copy(self, source: str, target: str, *, version: str | None = None) -> StoredObject:
        """A second link to the same bytes, which never change; both are separate objects from then on.
        `modified_us` stays that of the source."""
        old, new = self._path(source), self._path(target)

        def link() -> StoredObject:
            temporary = self._incoming / new_id()
            try:
                temporary.hardlink_to(old)
                with _open(temporary) as file:
                    found = _stored(target, file.fileno())
                if version not in (None, found.version):
                    raise Conflict()
                self._move(temporary, new)
            finally:
                temporary.unlink(missing_ok=True)  # a rename between two links of one file does nothing
            return found

        return await self._thread(link)

    async def delete(self, key: str) -> None:
        path = self._path(key)

        def remove() -> None:
            try:
                path.unlink()
            except (FileNotFoundError, NotADirectoryError):
                return
            sync_folder(path.parent)

        await self._thread(remove)

    async def list(self, prefix: str) -> AsyncIterator[str]:
        """Keys that begin with `prefix`, in no order; one folder at a time is held in memory."""
        parent, _, _ = prefix.rpartition("/")
        if parent:
            self._path(parent)  # for its check
        folders = [parent]
        while folders:
            folder = folders.pop()
            for name in await self._thread(_names, self._root / folder):
                key = f"{folder}/{name}" if folder else name
                if not key.startswith(prefix):
                    continue
                if key.endswith(SUFFIX):
                    yield key.removesuffix(SUFFIX)
                else:
                    folders.append(key)

    def path_of(self, key: str) -> Path | None:
        return self._path(key)

    def where(self, key: str) -> Place:
        check_key(key)
        return "store"

    # contracts.Drafts

    async def put_part(
        self, key: str, division: Division, number: int, chunks: AsyncIterator[bytes]
    ) -> UploadedPart:
        if not 1 <= number <= division.count:
            raise ValueError(f"not the number of a part: {number}")
        draft = self._draft(key)
        if key in self._finishing or (key, number) in self._coming:
            raise Conflict()

        def write(pieces: list[bytes]) -> None:
            self._require_room(part.descriptor)
            part.write(pieces)

        def finish(pieces: list[bytes]) -> UploadedPart:
            write(pieces)
            return part.keep()

        self._coming.add((key, number))
        try:
            part = await self._thread(draft.part, division, number)
            try:
                length = division.length(number)
                pieces = await _gather(chunks, length, lambda pieces: self._thread(write, pieces))
                return await self._thread(finish, pieces)
            finally:
                with trio.move_on_after(CLEAN_UP_S, shield=True):
                    await self._thread(part.close)
        finally:
            self._coming.discard((key, number))

    async def parts(self, key: str, division: Division) -> Sequence[UploadedPart]:
        return await self._thread(self._draft(key).parts, division)

    async def finish_draft(self, key: str, division: Division, target: str) -> StoredObject:
        draft, path = self._draft(key), self._path(target)
        if key in self._finishing or any(each == key for each, _ in self._coming):
            raise Conflict()
        self._finishing.add(key)
        try:
            if len(await self._thread(draft.parts, division)) < division.count:
                raise NotFound()
            digest: bytes | None = None
            with closing(draft.digests(division.size_bytes)) as digests:
                while digest is None:
                    digest = await self._thread(next, digests)
            return await self._thread(self._finish, draft, division.size_bytes, digest, path, target)
        finally:
            self._finishing.discard(key)

    def _finish(self, draft: Draft, size: int, digest: bytes, path: Path, target: str) -> StoredObject:
        with draft.content.open("r+b", buffering=0) as file:
            os.truncate(file.fileno(), size)  # an attempt before this one may have come as far
            os.pwrite(file.fileno(), digest, size)
            self._publish(file, path)
            draft.remove()
            return _stored(target, file.fileno())

    async def abandon_draft(self, key: str) -> None:
        await self._thread(self._draft(key).remove)

    async def drafts(self) -> Sequence[str]:
        def names() -> set[str]:
            return {entry.name.removesuffix(LEDGER) for entry in self._drafts.iterdir()}

        return [name.replace("=", "/") for name in sorted(await self._thread(names))]

    async def draft_bytes(self, key: str) -> int:
        """What a draft will take when all of it is there."""
        return await self._thread(self._draft(key).size)

    def _draft(self, key: str) -> Draft:
        return Draft(self._drafts, "=".join(check_key(key)))

    async def _thread(self, work: Callable[..., R], *args: object) -> R:
        """A thread once begun is waited for, so that nothing happens after a cancelled call has returned."""
        with _mapped():
            return await trio.to_thread.run_sync(work, *args, limiter=self._threads)

    def _path(self, key: str) -> Path:
        segments = check_key(key)
        return self._root.joinpath(*segments[:-1], segments[-1] + SUFFIX)

    def _new(self) -> BinaryIO:
        return open(self._incoming / new_id(), "x+b", opener=_private)

    def _require_room(self, descriptor: int) -> None:
        if self._reserve_bytes:
            disk = os.fstatvfs(descriptor)
            if disk.f_bavail * disk.f_frsize < self._reserve_bytes:
                raise DiskFull()

    def _publish(self, file: BinaryIO, path: Path) -> None:
        file.flush()
        os.fsync(file.fileno())
        self._move(Path(file.name), path)

    def _move(self, temporary: Path, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary.replace(path)
        # all: a folder that is there may have been made a moment ago, by a put that has yet to sync it
        for folder in (path.parent, *path.parent.parents):
            sync_folder(folder)
            if folder == self._root:
                break


async def _gather(
    chunks: AsyncIterator[bytes], limit_bytes: int, write: Callable[[list[bytes]], Awaitable[None]]
) -> list[bytes]:
    """Hand chunks on, `CHUNK_BYTES` or more at a time. Returns what is left at their end. Raises TooLarge."""
    gathered: list[bytes] = []
    size, held = 0, 0
    async for chunk in chunks:
        size += len(chunk)
        if size > limit_bytes:
            raise TooLarge()
        gathered.append(chunk)
        held += len(chunk)
        if held >= CHUNK_BYTES:
            await write(gathered)
            gathered, held = [], 0
    return gathered


def check_key(key: str) -> list[str]:
    """Its segments. Raises ValueError for what is no key."""
    segments = key.split("/")
    if len(key) > 512 or any(not _SEGMENT.fullmatch(one) or one in (".", "..") for one in segments):
        raise ValueError(f"not a key: {key!r}")
    return segments


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _open(path: Path) -> BinaryIO:
    return path.open("rb", buffering=0)


def _discard(file: BinaryIO) -> None:
    """Close, and remove what was not renamed to its place."""
    Path(file.name).unlink(missing_ok=True)
    file.close()


def _stored(key: str, descriptor: int) -> StoredObject:
    found = os.fstat(descriptor)
    size = found.st_size - _DIGEST_BYTES
    digest = os.pread(descriptor, _DIGEST_BYTES, size).hex()
    return StoredObject(key, size, digest, found.st_mtime_ns // 1000, digest)


def _names(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir() if not entry.name.startswith(SUFFIX)]
    except (FileNotFoundError, NotADirectoryError):
        return []


@contextmanager
def _mapped() -> Iterator[None]:
    """Our errors for the system's: the one table."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise NotFound() from exc
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull() from exc
        raise Unavailable() from exc
