"""The journal: one file in the data folder that keeps what this node accepted while the database is away.

Records are appended and synced; what is done is noted by a further record. Each begins with a mark that no
text and no record contains, its length and a checksum. So a tail torn by a crash is seen and cut off, and a
byte that a disk has turned costs the record it stands in and none behind it. Once most of the file is of no
more use it is written anew beside it and renamed; once all of it is, it is emptied.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

import msgspec
import structlog
import trio
from msgspec import Struct

from .. import clock, metrics
from ..config import JournalConfig
from ..durable import sync_folder
from ..errors import DiskFull, OutcomeUnknown, Problem, Unavailable
from .contracts import JournalRecord

log = structlog.get_logger(module="journal")

RECORDS = metrics.gauge("secureconnect_journal_records", "Accepted and not done yet, on this node's disk.")
BYTES = metrics.gauge("secureconnect_journal_bytes", "Size of those records.")
OLDEST = metrics.gauge("secureconnect_journal_oldest_age_seconds", "How long the oldest of them waits.")

MARK = b"\xc1\xfe\xc1\xff"  # 0xc1 stands in no msgpack and no UTF-8, 0xfe and 0xff in no UTF-8
MEGABYTE = 1024 * 1024
DEAD_BYTES = MEGABYTE  # of no more use, before the file is written anew for it
READ_BYTES = 4 * MEGABYTE  # of records handed out at once

_HEAD = struct.Struct(">4sII")  # mark, length of the body, checksum of length and body
_FULL = (errno.ENOSPC, errno.EDQUOT)

P = ParamSpec("P")
R = TypeVar("R")


class _Kept(Struct, array_like=True, tag=1):
    number: int
    topic: str
    at_us: int
    payload: bytes


class _Done(Struct, array_like=True, tag=2):
    numbers: list[int]


_encode = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[_Kept | _Done] = msgspec.msgpack.Decoder(_Kept | _Done)


class _Place(NamedTuple):
    """Where a record lies in the file.  size: with its head."""

    topic: str
    at_us: int
    offset: int
    size: int


class _Found(NamedTuple):
    """What a file says.  end: of the last whole record.  damaged: bytes between records that are none."""

    places: dict[int, _Place]
    last: int
    end: int
    damaged: int


class _Job:
    """One append on its way to the disk."""

    __slots__ = ("error", "numbers", "payloads", "topic")

    def __init__(self, topic: str, payloads: Sequence[bytes]) -> None:
        self.topic = topic
        self.payloads = payloads
        self.numbers: list[int] | None = None
        self.error: Problem | None = None


class FileJournal:
    """contracts.Journal; see `open`. One operation at a time, in a thread."""

    def __init__(self, file: _File, config: JournalConfig) -> None:
        self._file = file
        self._write_s = config.write_s
        self._waiting: list[_Job] = []
        self._turn = trio.Lock()
        self._thread = trio.CapacityLimiter(1)
        self._closed = False

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path, config: JournalConfig) -> AsyncIterator[FileJournal]:
        """The journal in `path`, made if missing (mode 0600; its folder must exist), for one process.

        Raises OSError if the file cannot be used; BlockingIOError if another process has it.
        """
        file = await trio.to_thread.run_sync(_File, path, config)
        journal = cls(file, config)
        OLDEST.set_function(file.oldest_age_s)
        try:
            yield journal
        finally:
            journal._closed = True
            OLDEST.set_function(lambda: 0.0)
            if not journal._thread.borrowed_tokens:  # or a disk that hangs would close it under the thread
                file.close()

    @property
    def waiting(self) -> int:
        """Records not done yet, of all topics."""
        return len(self._file)

    async def append(self, topic: str, payloads: Sequence[bytes]) -> list[int]:
        job = _Job(topic, payloads)
        self._waiting.append(job)
        try:
            async with self._turn:
                if job.numbers is None and job.error is None:
                    await self._append_waiting()
        finally:
            if job in self._waiting:
                self._waiting.remove(job)
        if job.error is not None:
            raise job.error
        assert job.numbers is not None
        return job.numbers

    async def read(self, topic: str, after: int, limit: int) -> list[JournalRecord]:
        async with self._turn:
            return await self._do(self._file.read, topic, after, limit)

    async def done(self, numbers: Sequence[int]) -> None:
        async with self._turn:
            await self._do(self._file.done, numbers)

    async def _append_waiting(self) -> None:
        """Everybody's who waits, with one sync."""
        jobs, self._waiting = self._waiting, []
        try:
            await self._do(self._file.append, jobs)
        except Problem as problem:
            for job in jobs:
                if job.numbers is None and job.error is None:
                    job.error = problem

    async def _do(self, work: Callable[P, R], *args: P.args, **_: P.kwargs) -> R:
        """Shielded, since what was begun is on the disk or not, whoever asked; and bounded."""
        if self._closed or self._thread.borrowed_tokens:  # a thread the disk has not let go of
            raise Unavailable
        with _mapped(), trio.move_on_after(self._write_s, shield=True):
            return await trio.to_thread.run_sync(work, *args, limiter=self._thread, abandon_on_cancel=True)
        log.error("journal_stuck", waited_s=self._write_s)
        raise OutcomeUnknown


class _File:
    """The file itself: every method blocks, and raises OSError. Only one runs at a time."""

    def __init__(self, path: Path, config: JournalConfig) -> None:
        self._path = path
        self._limit_bytes = config.limit_mb * MEGABYTE
        self._age_us = config.age_s * clock.SECOND_US
        self._fd = _open(path)
        self._suspect = False  # the disk failed: what the file holds must be written anew before it is used
        try:
            self._load()
        except BaseException:
            os.close(self._fd)
            raise

    def close(self) -> None:
        os.close(self._fd)

    def __len__(self) -> int:
        return len(self._places)

    def oldest_age_s(self) -> float:
        """0 when there is none. May be called by any thread."""
        with suppress(StopIteration, RuntimeError, KeyError):  # it changes meanwhile
            oldest_us = self._places[next(iter(self._places))].at_us
            return max(0.0, (clock.now_us() - oldest_us) / clock.SECOND_US)
        return 0.0

    def append(self, jobs: Sequence[_Job]) -> None:
        """Sets the numbers or the error of each."""
        self._settle_suspicion()
        places: dict[int, _Place] = {}
        blob = bytearray()
        taken: list[tuple[_Job, list[int]]] = []
        now_us = clock.now_us()
        is_old = self.oldest_age_s() * clock.SECOND_US > self._age_us
        for job in jobs:
            first = self._last + len(places) + 1
            records = [
                _record(_Kept(first + index, job.topic, now_us, payload))
                for index, payload in enumerate(job.payloads)
            ]
            size = sum(map(len, records))
            if is_old or self._live + len(blob) + size > self._limit_bytes:
                job.error = Unavailable("The database is away, and no more can be kept until it is back.")
                continue
            for number, record in enumerate(records, first):
                places[number] = _Place(job.topic, now_us, self._end + len(blob), len(record))
                blob += record
            taken.append((job, list(range(first, first + len(records)))))
        if blob:
            self._write(blob)
        self._places |= places
        self._last += len(places)
        self._live += len(blob)
        self._tell()
        for job, numbers in taken:
            job.numbers = numbers

    def read(self, topic: str, after: int, limit: int) -> list[JournalRecord]:
        found: list[JournalRecord] = []
        size = 0
        for number, place in self._places.items():
            if number <= after or place.topic != topic:
                continue
            size += place.size
            if len(found) == limit or (found and size > READ_BYTES):
                break
            kept = _kept(os.pread(self._fd, place.size, place.offset))
            if kept is None:
                self._rewrite()  # without it
                return self.read(topic, after, limit)
            found.append(JournalRecord(number, place.at_us, kept.payload))
        return found

    def done(self, numbers: Sequence[int]) -> None:
        known = [number for number in numbers if number in self._places]
        for number in known:
            self._live -= self._places.pop(number).size
        self._tell()
        try:
            if not self._places:
                self._cut(0)
                os.fsync(self._fd)
            elif self._end - self._live > max(DEAD_BYTES, self._live):
                self._rewrite()
            elif known:
                self._write(_record(_Done(known)))
        except OSError as exc:
            # They are done, and would be worked off once more after a crash: no reason to stop now.
            self._suspect = True
            log.warning("journal_not_noted", records=len(known), error=errno.errorcode.get(exc.errno or 0))

    # the bytes

    def _load(self) -> None:
        found = _scan(self._fd)
        self._places, self._last, self._end = found.places, found.last, found.end
        self._live = sum(place.size for place in self._places.values())
        torn = os.fstat(self._fd).st_size - found.end
        if found.damaged:
            self._keep_aside(found.damaged)
            self._rewrite()
        elif torn:
            log.warning("journal_tail_cut", bytes=torn)
            self._cut(found.end)
            os.fsync(self._fd)
        self._tell()

    def _write(self, blob: bytes | bytearray) -> None:
        """Append, durably. What a failure leaves behind is cut off again."""
        try:
            done = 0
            while done < len(blob):
                done += os.pwrite(self._fd, memoryview(blob)[done:], self._end + done)
            os.fdatasync(self._fd)
        except OSError as exc:
            # A sync that failed once may say nothing the next time, though the bytes are lost.
            self._suspect = exc.errno not in _FULL
            try:
                os.ftruncate(self._fd, self._end)
            except OSError:
                self._suspect = True
            raise
        self._end += len(blob)

    def _cut(self, end: int) -> None:
        os.ftruncate(self._fd, end)
        self._end = end

    def _settle_suspicion(self) -> None:
        if self._suspect:
            self._rewrite()
            self._suspect = False

    def _rewrite(self) -> None:
        """The records that are not done, in a new file in the place of this one. Those that the disk has
        damaged since are left behind, in a file aside."""
        draft = self._path.with_name(f"{self._path.name}.new")
        draft.unlink(missing_ok=True)
        fd = _open(draft)
        try:
            places: dict[int, _Place] = {}
            end = damaged = 0
            for number, place in self._places.items():
                record = os.pread(self._fd, place.size, place.offset)
                if _kept(record) is None:
                    damaged += place.size
                    continue
                _write_all(fd, record)
                places[number] = place._replace(offset=end)
                end += place.size
            os.fsync(fd)
            if damaged:
                self._keep_aside(damaged)
            draft.replace(self._path)
        except BaseException:
            os.close(fd)
            draft.unlink(missing_ok=True)
            raise
        os.close(self._fd)
        self._fd, self._places, self._end, self._live = fd, places, end, end
        sync_folder(self._path.parent)

    def _keep_aside(self, damaged_bytes: int) -> None:
        """The file as it is, for a person to look at."""
        aside = self._path.with_name(f"{self._path.name}.damaged-{time.time_ns()}")
        os.link(self._path, aside)
        log.error("journal_damaged", bytes=damaged_bytes, kept_aside=aside.name)

    def _tell(self) -> None:
        RECORDS.set(len(self._places))
        BYTES.set(self._live)


def _open(path: Path) -> int:
    """Descriptor of the file, which is private and, until that closes, ours alone."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        sync_folder(path.parent)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _record(content: _Kept | _Done) -> bytes:
    body = _encode(content)
    return _HEAD.pack(MARK, len(body), _checksum(body)) + body


def _checksum(body: bytes) -> int:
    return zlib.crc32(body, len(body))


def _at(data: bytes | mmap.mmap, start: int) -> tuple[_Kept | _Done, int] | None:
    """The record that begins there and its size; None when there is no whole one."""
    head = data[start : start + _HEAD.size]
    if len(head) < _HEAD.size:
        return None
    mark, length, checksum = _HEAD.unpack(head)
    if mark != MARK or start + _HEAD.size + length > len(data):
        return None
    body = data[start + _HEAD.size : start + _HEAD.size + length]
    if _checksum(body) != checksum:
        return None
    try:
        return _decoder.decode(body), _HEAD.size + length
    except msgspec.DecodeError:
        return None


def _kept(record: bytes) -> _Kept | None:
    """What is in it; None when it is damaged."""
    found = _at(record, 0)
    return found[0] if found is not None and isinstance(found[0], _Kept) else None


def _scan(fd: int) -> _Found:
    size = os.fstat(fd).st_size
    if size == 0:
        return _Found({}, 0, 0, 0)
    with mmap.mmap(fd, size, access=mmap.ACCESS_READ) as data:
        places: dict[int, _Place] = {}
        last = end = damaged = 0
        for start, content, length in _records(data):
            damaged += start - end
            end = start + length
            if isinstance(content, _Done):
                for number in content.numbers:
                    places.pop(number, None)
            else:
                last = max(last, content.number)
                places[content.number] = _Place(content.topic, content.at_us, start, length)
        return _Found(places, last, end, damaged)


def _records(data: mmap.mmap) -> Iterator[tuple[int, _Kept | _Done, int]]:
    """Every whole record; where there is none, from the next mark on."""
    start = 0
    while 0 <= start < len(data):
        found = _at(data, start)
        if found is None:
            start = data.find(MARK, start + 1)
            continue
        yield start, *found
        start += found[1]


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


@contextmanager
def _mapped() -> Iterator[None]:
    """Our errors for the system's: the one table."""
    try:
        yield
    except OSError as exc:
        if exc.errno in _FULL:
            raise DiskFull from exc
        log.error("journal_failed", error=errno.errorcode.get(exc.errno or 0))
        raise Unavailable from exc
