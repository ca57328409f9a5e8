"""Objects while MinIO is away: kept in a folder of this node, moved when it is back.

A key that lies in the spool is read and changed there, until it has been moved: the store's object of that
name, if there is one, is older. What is deleted from the spool leaves a mark, for the store may have the
object too (an older one, or one whose put seemed to fail); the mark goes once the store has deleted it.
Folder, marks and the bytes in between survive a crash at any point: an object is removed here only after the
store has given back the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TypeVar, cast

import structlog
import trio

from ..config import MinioConfig
from ..durable import sync_folder
from ..errors import DiskFull, NotFound, Unavailable
from ..metrics import counter, gauge
from ..periodic import Trouble
from .contracts import Division, Objects, Place, StoredObject, UploadedPart
from .files import SUFFIX, FolderObjects, check_key

T = TypeVar("T")

log = structlog.get_logger(module="spool")

MB = 1024 * 1024
PASS_S = 1.0
BLOCK_BYTES = 4096  # what even an empty object takes: bounds their number, too
KEPT = "kept"
DELETED = "deleted"

OBJECTS = gauge("secureconnect_spool_objects", "Objects on this node that wait for the store.")
BYTES = gauge("secureconnect_spool_bytes", "What the spool takes on this node's disk.")
MOVED = counter("secureconnect_spool_moved_total", "Spooled objects by how their move ended.", ["result"])
_MOVED = MOVED.labels("moved")
_DIFFERENT = MOVED.labels("different")  # from what the store gave back: stays, and is tried again


class SpooledObjects:
    """contracts.Objects before a store that may be away, and contracts.Drafts. What can be done here is; the
    rest is Unavailable.

    One process to a folder, as for FolderObjects.
    """

    def __init__(
        self,
        store: Objects,
        kept: FolderObjects,
        deleted: FolderObjects,
        is_away: Callable[[], bool],
        config: MinioConfig,
    ) -> None:
        """Use `open`."""
        self._store = store
        self._local = kept
        self._marks = deleted
        self._is_away = is_away
        self._limit_bytes = config.spool_mb * MB
        self._replay_bytes = config.part_mb * MB
        self._most = config.spool_pass
        self._held: dict[str, int] = {}  # key -> bytes on the disk, oldest first
        self._gone: set[str] = set()  # deleted here, and perhaps not yet there
        self._last: dict[str, None] = {}  # whose turn comes after the others', for it has failed
        self._drafts: dict[str, int] = {}  # key -> bytes it takes, or will have taken
        self._bytes = 0  # of all three
        self._coming = 0  # bytes of puts under way
        self._locks: dict[str, trio.Lock] = {}
        self._moves: dict[str, trio.CancelScope] = {}
        self._passing = trio.Lock()

    @classmethod
    async def open(
        cls,
        store: Objects,
        folder: Path,
        is_away: Callable[[], bool],
        config: MinioConfig,
        *,
        reserve_mb: int = 0,
    ) -> SpooledObjects:
        """Finds what an earlier run left in `folder`, which is made if need be.

        reserve_mb: kept free on its disk.
        """

        def make() -> tuple[FolderObjects, FolderObjects]:
            folder.mkdir(mode=0o700, exist_ok=True)
            sync_folder(folder.parent)
            return FolderObjects(folder / KEPT, reserve_mb=reserve_mb), FolderObjects(folder / DELETED)

        spool = cls(store, *await trio.to_thread.run_sync(make), is_away, config)
        await spool._load()
        return spool

    @staticmethod
    def is_left(folder: Path) -> bool:
        """Whether an earlier run left objects in `folder` that no store has yet. Blocks."""
        return any(path.is_file() for path in (folder / KEPT).rglob(f"*{SUFFIX}"))

    @property
    def waiting(self) -> int:
        """Objects and deletions that the store has yet to learn of."""
        return len(self._held) + len(self._gone)

    def path_of(self, key: str) -> Path | None:
        return self._local.path_of(key) if key in self._held else self._store.path_of(key)

    def where(self, key: str) -> Place:
        return "spool" if key in self._held or key in self._gone else "store"

    # contracts.Objects

    async def put(self, key: str, chunks: AsyncIterator[bytes], *, limit_bytes: int) -> StoredObject:
        if self.where(key) == "spool" or self._is_away():
            return await self._keep(key, chunks, limit_bytes)
        replay = _Replay(chunks, self._replay_bytes)
        try:
            return await self._store.put(key, replay, limit_bytes=limit_bytes)
        except DiskFull:
            raise
        except Unavailable:
            if not replay.is_possible:
                raise
        async with aclosing(replay.again()) as again:
            return await self._keep(key, again, limit_bytes)

    async def get(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        if key in self._held:
            try:
                async with _closing(self._local.get(key, start, end)) as chunks:
                    async for chunk in chunks:
                        yield chunk
                return
            except NotFound:  # told before the first chunk: moved since we looked
                pass
        self._require_store(key)
        async with _closing(self._store.get(key, start, end)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def stat(self, key: str) -> StoredObject:
        if key in self._held:
            try:
                return await self._local.stat(key)
            except NotFound:  # moved since we looked
                pass
        self._require_store(key)
        return await self._store.stat(key)

    async def copy(self, source: str, target: str, *, version: str | None = None) -> StoredObject:
        if source in self._held:
            try:
                return await self._copy_here(source, target, version)
            except NotFound:  # moved since we looked
                pass
        self._require_store(source)
        # or the older one here would be moved over the copy
        if self.where(target) == "spool" and not await self._settle(target) and self.where(target) == "spool":
            raise Unavailable()
        return await self._store.copy(source, target, version=version)

    async def delete(self, key: str) -> None:
        async with self._changing(key):
            if key in self._held:
                try:
                    await self._mark(key)
                except DiskFull:  # deleting must go on: the object makes room for its mark
                    await self._drop(key)
                    await self._mark(key)
                else:
                    await self._drop(key)
        if key not in self._gone:
            self._require_store(key)
            await self._store.delete(key)
        elif not self._is_away():
            try:
                await self._settle(key)
            except Unavailable:
                log.info("deletion_waits")  # for a pass: here it has been deleted

    async def list(self, prefix: str) -> AsyncIterator[str]:
        """First what lies here. Raises Unavailable after that while the store is away."""
        held = [key for key in self._held if key.startswith(prefix)]
        for key in held:
            yield key
        self._require_store(None)
        skipped = {*held, *self._gone}
        async with _closing(self._store.list(prefix)) as keys:
            async for key in keys:
                if key not in skipped:
                    yield key

    # contracts.Drafts: what is begun here is finished here, whether the store is back or not

    async def put_part(
        self, key: str, division: Division, number: int, chunks: AsyncIterator[bytes]
    ) -> UploadedPart:
        """Room for all parts is taken with the first. Raises DiskFull."""
        if key not in self._drafts:
            self._require_room(division.size_bytes)
            self._measure_draft(key, division.size_bytes)
        return await self._local.put_part(key, division, number, chunks)

    async def parts(self, key: str, division: Division) -> Sequence[UploadedPart]:
        return await self._local.parts(key, division)

    async def finish_draft(self, key: str, division: Division, target: str) -> StoredObject:
        async with self._changing(target):
            stored = await self._local.finish_draft(key, division, target)
            self._measure_draft(key, 0)
            self._remember(target, stored.size_bytes)
            await self._unmark(target)
        return stored

    async def abandon_draft(self, key: str) -> None:
        await self._local.abandon_draft(key)
        self._measure_draft(key, 0)

    async def drafts(self) -> Sequence[str]:
        return await self._local.drafts()

    # moving

    async def pass_forever(self) -> None:
        """`pass_once` each second in which something waits. What this disk refuses is tried again."""
        trouble = Trouble(log, "spool_pass_failed")
        while True:
            await trio.sleep(PASS_S)
            if self.waiting and not self._is_away():
                with trouble:
                    await self.pass_once()

    async def pass_once(self) -> int:
        """Bring what waits to the store: deletions, then objects, the oldest first, then what has failed
        before; `minio.spool_pass` in all. Returns how much was brought; nothing while the store is away. Safe
        to repeat and to cancel."""
        done = 0
        async with self._passing:
            waiting = [key for key in (*self._gone, *self._held) if key not in self._last]
            for key in [*waiting, *self._last][: self._most]:
                if self._is_away():
                    break
                try:
                    done += await self._settle(key)
                except Unavailable as exc:
                    log.info("spool_waits", reason=exc.code, waiting=self.waiting)
                    self._put_last(key)
                    break
        return done

    async def _settle(self, key: str) -> bool:
        """Make the store agree with what lies here. False: nothing to do any more, or not yet."""
        with trio.CancelScope() as move:
            async with self._locked(key):
                self._moves[key] = move
                try:
                    if key in self._held:
                        return await self._move(key)
                    if key in self._gone:
                        await self._store.delete(key)
                        await self._unmark(key)
                        return True
                finally:
                    del self._moves[key]
        return False  # also when someone who changes the object has cancelled it

    async def _move(self, key: str) -> bool:
        await self._unmark(key)  # a deletion that was begun and never told to anyone
        try:
            mine = await self._local.stat(key)
        except NotFound:
            log.warning("spooled_object_lost")  # someone has been in the folder
            self._forget(key)
            return False
        async with _closing(self._local.get(key)) as chunks:
            await self._store.put(key, chunks, limit_bytes=mine.size_bytes)
        if await self._read_back(key) != (mine.size_bytes, mine.sha256):
            log.warning("spooled_object_differs")
            _DIFFERENT.inc()
            self._put_last(key)
            return False
        await self._drop(key)
        _MOVED.inc()
        return True

    async def _read_back(self, key: str) -> tuple[int, str]:
        size, digest = 0, hashlib.sha256()
        try:
            async with _closing(self._store.get(key)) as chunks:
                async for chunk in chunks:
                    size += len(chunk)
                    await trio.to_thread.run_sync(digest.update, chunk)
        except NotFound:
            return -1, ""
        return size, digest.hexdigest()

    # the folder

    async def _load(self) -> None:
        found = [await self._local.stat(key) async for key in self._local.list("")]
        for each in sorted(found, key=lambda each: each.modified_us):
            self._remember(each.key, each.size_bytes)
        async for key in self._marks.list(""):
            self._gone.add(key)
            self._measure(BLOCK_BYTES)
        for key in await self._local.drafts():
            self._measure_draft(key, await self._local.draft_bytes(key))
        for key in self._gone & self._held.keys():  # begun and never told to anyone: the object stays
            await self._unmark(key)

    async def _keep(self, key: str, chunks: AsyncIterator[bytes], limit_bytes: int) -> StoredObject:
        if not self._limit_bytes:
            raise Unavailable()
        async with self._changing(key):
            counted = _Counted(chunks, self._take)
            try:
                self._take(0)
                stored = await self._local.put(key, counted, limit_bytes=limit_bytes)
                self._remember(key, stored.size_bytes)
            finally:
                self._coming -= counted.size
            await self._unmark(key)
        return stored

    async def _copy_here(self, source: str, target: str, version: str | None) -> StoredObject:
        async with self._changing(target):
            size = self._held.get(source, 0)
            self._take(size)
            try:
                stored = await self._local.copy(source, target, version=version)
                self._remember(target, stored.size_bytes)
            finally:
                self._coming -= size
            await self._unmark(target)
        return stored

    def _take(self, size: int) -> None:
        """Room for so many bytes more, until they are remembered or given back. Raises DiskFull."""
        self._require_room(size)
        self._coming += size

    def _require_room(self, size: int) -> None:
        if self._bytes + self._coming + size + BLOCK_BYTES > self._limit_bytes:
            raise DiskFull()

    async def _drop(self, key: str) -> None:
        await self._local.delete(key)  # runs to its end once begun, so that the next line is always reached
        self._forget(key)

    async def _mark(self, key: str) -> None:
        """Durably, before the object goes."""
        async with aclosing(_nothing()) as nothing:
            await self._marks.put(key, nothing, limit_bytes=0)
        if key not in self._gone:
            self._gone.add(key)
            self._measure(BLOCK_BYTES)

    async def _unmark(self, key: str) -> None:
        if key in self._gone:
            await self._marks.delete(key)
            self._gone.discard(key)
            self._last.pop(key, None)
            self._measure(-BLOCK_BYTES)

    def _remember(self, key: str, size_bytes: int) -> None:
        cost = max(1, -(-size_bytes // BLOCK_BYTES)) * BLOCK_BYTES
        before = self._held.pop(key, 0)
        self._held[key] = cost
        self._measure(cost - before)

    def _forget(self, key: str) -> None:
        self._last.pop(key, None)
        self._measure(-self._held.pop(key))

    def _measure_draft(self, key: str, size_bytes: int) -> None:
        before = self._drafts.pop(key, 0)
        if size_bytes:
            self._drafts[key] = size_bytes
        self._measure(size_bytes - before)

    def _put_last(self, key: str) -> None:
        """The others first, next time."""
        self._last.pop(key, None)
        if self.where(key) == "spool":
            self._last[key] = None

    def _measure(self, change: int) -> None:
        self._bytes += change
        OBJECTS.set(len(self._held))
        BYTES.set(self._bytes)

    # who may change what, when

    def _require_store(self, key: str | None) -> None:
        """key: to be read from there."""
        if key is not None:
            check_key(key)
            if key in self._gone:
                raise NotFound()
        if self._is_away():
            raise Unavailable()

    @asynccontextmanager
    async def _changing(self, key: str) -> AsyncIterator[None]:
        """Alone with `key`, at once: its move is given up, to be begun anew with what comes of it."""
        if (move := self._moves.get(key)) is not None:
            move.cancel()
        async with self._locked(key):
            yield

    @asynccontextmanager
    async def _locked(self, key: str) -> AsyncIterator[None]:
        lock = self._locks.setdefault(key, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked() and self._locks.get(key) is lock:
                del self._locks[key]


class _Counted:
    """Chunks on their way to the disk; `take` refuses when there is no room.  size: taken so far."""

    def __init__(self, chunks: AsyncIterator[bytes], take: Callable[[int], None]) -> None:
        self.size = 0
        self._chunks = chunks
        self._take = take

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        chunk = await anext(self._chunks)
        self._take(len(chunk))
        self.size += len(chunk)
        return chunk


class _Replay:
    """Chunks that can be read again from the first, as long as no more than `most_bytes` have been read."""

    def __init__(self, chunks: AsyncIterator[bytes], most_bytes: int) -> None:
        self.is_possible = True
        self._chunks = chunks
        self._room = most_bytes
        self._read: list[bytes] = []

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk = await anext(self._chunks)
        except StopAsyncIteration:
            raise
        except BaseException:
            self._give_up()  # what broke would look like the end
            raise
        self._room -= len(chunk)
        if self._room < 0:
            self._give_up()
        elif self.is_possible:
            self._read.append(chunk)
        return chunk

    async def again(self) -> AsyncGenerator[bytes, None]:
        for chunk in self._read:
            yield chunk
        async for chunk in self._chunks:
            yield chunk

    def _give_up(self) -> None:
        self.is_possible = False
        self._read.clear()


async def _nothing() -> AsyncGenerator[bytes, None]:
    return
    yield


def _closing(iterator: AsyncIterator[T]) -> aclosing[AsyncGenerator[T, None]]:
    """Ends with the block: what `Objects` iterates with are generators."""
    return aclosing(cast("AsyncGenerator[T, None]", iterator))
