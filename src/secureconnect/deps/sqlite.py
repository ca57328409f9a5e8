"""The embedded database: one SQLite file, one writer thread, a few readers.

Units of work are driven in the writer thread, each between SAVEPOINT and RELEASE, and whatever is queued
goes into one COMMIT (group commit): a sync to disk costs the same for one unit as for two hundred. Readers
are threads with connections of their own, never wait for the writer, and see every commit made before they
began.
"""

from __future__ import annotations

import math
import os
import queue
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import structlog
import trio

from .. import clock, metrics
from ..config import SqliteConfig
from ..errors import DiskFull, OutcomeUnknown, PoolExhausted, Unavailable
from .contracts import P, T, Unit
from .meters import READ_S, READING, WRITE_S, WRITING
from .sqlite_jobs import Pending, Read, Write
from .sqlite_log import CommitLog
from .sqlite_unit import SqliteTx, drive, meaning

log = structlog.get_logger(module="sqlite")

GROUP = metrics.histogram(
    "secureconnect_db_group_units",
    "Units of work in one commit.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
)

FULL_WAIT_S = 1.0  # how long a unit waits for room in a full queue
LOCK_WAIT_S = 10.0  # how long another process may hold the file's lock
STATEMENTS = 512  # prepared statements kept per connection
STEPS = 10_000  # virtual machine steps between two looks at the clock: well below a millisecond


class Sqlite:
    """contracts.Database over one file; see `open`."""

    def __init__(self, path: Path, config: SqliteConfig) -> None:
        self._path = path
        self._config = config
        self._jobs: queue.SimpleQueue[Write | None] = queue.SimpleQueue()
        self._reads: queue.SimpleQueue[Read | None] = queue.SimpleQueue()
        self._pending = Pending(config.statement_s)
        self._unfinished = 0  # jobs handed to the writer and not handed back
        self._freed = trio.lowlevel.ParkingLot()
        self._closed = False
        self._died: BaseException | None = None
        self._death = trio.Event()
        self._commits = 0
        self._stop = math.inf  # when the unit being written is interrupted, on time.monotonic
        self._opened: list[sqlite3.Connection] = []
        self._short_of_disk = False
        self._next_look = 0.0
        self._trio = trio.lowlevel.current_trio_token()

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path, config: SqliteConfig) -> AsyncIterator[Sqlite]:
        """The database in `path`, made if missing (mode 0600; its folder must exist).

        What was queued at the end of the block is still written. Raises Unavailable if the file cannot be
        opened or is no database.
        """
        db = cls(path, config)
        await trio.to_thread.run_sync(db._connect)
        threads = [threading.Thread(target=db._write_forever, name="sqlite-writer", daemon=True)]
        for reader in db._readers:
            threads.append(
                threading.Thread(target=db._read_forever, args=(reader,), name="sqlite-reader", daemon=True)
            )
        for thread in threads:
            thread.start()
        failure: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(db._pending.expire_forever)
                nursery.start_soon(db._log.keep_forever)
                nursery.start_soon(db._fail_when_dead)
                try:
                    yield db
                except BaseException as exc:
                    failure = exc  # raised below as it is: the nursery would wrap it in a group
                nursery.cancel_scope.cancel()
        finally:
            db._closed = True
            db._jobs.put(None)
            for _ in db._readers:
                db._reads.put(None)
            with trio.move_on_after(config.statement_s + 1, shield=True):
                for thread in threads:  # a unit that nobody waits for is interrupted, and soon ends
                    await trio.to_thread.run_sync(thread.join, abandon_on_cancel=True)
                await trio.to_thread.run_sync(db._disconnect)
        if failure is not None:
            raise failure

    async def write(self, unit: Unit[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """contracts.Database.write. A cancelled caller gets `Cancelled` in every case, even if the outcome
        did not become known in time; others then get OutcomeUnknown."""
        result: T = await self._submit(unit, args, kwargs, relieves=False)
        return result

    async def relieve(self, unit: Unit[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """contracts.Database.relieve."""
        result: T = await self._submit(unit, args, kwargs, relieves=True)
        return result

    async def read(self, unit: Unit[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """contracts.Database.read. Cancelled, it returns at once and the statement is interrupted."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closed:
            raise Unavailable()
        if self._reads.qsize() >= self._config.waiting:
            raise PoolExhausted()
        job = Read(unit, args, kwargs, self._config.statement_s)
        self._reads.put(job)
        result: T = await self._pending.wait(job)
        return result

    def now_us(self) -> int:
        return clock.now_us()

    def waiting(self) -> int:
        """Units that have not begun. For metrics, whose thread asks."""
        return self._jobs.qsize() + self._reads.qsize()

    # The event loop's side of a write

    async def _submit(
        self,
        unit: Callable[..., Awaitable[Any]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        relieves: bool,
    ) -> Any:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closed:
            raise Unavailable()
        if self._unfinished >= self._config.waiting or self._freed:
            await self._wait_for_room()
        job = Write(unit, args, kwargs, self._config.statement_s, relieves=relieves)
        self._unfinished += 1
        self._jobs.put(job)
        return await self._pending.wait(job)

    async def _wait_for_room(self) -> None:
        with trio.move_on_after(min(FULL_WAIT_S, self._config.statement_s)):
            await self._freed.park()
            while self._unfinished >= self._config.waiting:
                await self._freed.park()
        if self._closed or self._unfinished >= self._config.waiting:
            raise PoolExhausted()

    def _deliver(self, jobs: list[Write]) -> None:
        self._unfinished -= len(jobs)
        for job in jobs:
            job.wake()
        if self._freed:
            self._freed.unpark(count=max(0, self._config.waiting - self._unfinished))

    async def _fail_when_dead(self) -> None:
        await self._death.wait()
        raise RuntimeError("the database writer died") from self._died

    def _dead(self, exc: BaseException) -> None:
        self._closed = True
        self._died = exc
        self._pending.expire_all()
        self._death.set()

    # Threads

    def _connect(self) -> None:
        try:
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._writer = self._connection("PRAGMA auto_vacuum = INCREMENTAL", "PRAGMA journal_mode = WAL")
            self._control = self._writer.cursor()
            # CommitLog does it; read to its end, or the writer is not closed with the others
            self._control.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
            self._writer.set_progress_handler(lambda: time.monotonic() > self._stop, STEPS)
            self._readers = [self._connection("PRAGMA query_only = ON") for _ in range(self._config.readers)]
            beside = self._connection("PRAGMA busy_timeout = 100")  # the writer waits meanwhile
            self._log = CommitLog(beside, self._config.log_cut_s, lambda: self._commits, self.relieve)
        except (sqlite3.Error, OSError) as exc:
            self._disconnect()
            raise Unavailable(f"The database {self._path} cannot be opened: {exc}.") from exc

    def _connection(self, *settings: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path,
            timeout=min(self._config.statement_s, LOCK_WAIT_S),
            isolation_level=None,
            check_same_thread=False,
            cached_statements=STATEMENTS,
        )
        self._opened.append(connection)
        for setting in (
            *settings,
            "PRAGMA synchronous = FULL",
            "PRAGMA secure_delete = ON",
            "PRAGMA foreign_keys = ON",
        ):
            connection.execute(setting).fetchall()
        return connection

    def _disconnect(self) -> None:
        while self._opened:
            self._opened.pop().close()  # the writer, last, moves the log into the database

    def _read_forever(self, connection: sqlite3.Connection) -> None:
        job: Read | None = None
        connection.set_progress_handler(lambda: job is not None and time.monotonic() > job.stop, STEPS)
        try:
            while (job := self._reads.get()) is not None:
                if job.begin():
                    self._read(connection, job)
                    self._trio.run_sync_soon(job.wake)
        except trio.RunFinishedError:
            pass  # nobody is left to tell

    @staticmethod
    def _read(connection: sqlite3.Connection, job: Read) -> None:
        began = time.monotonic()
        READING.inc()
        try:
            connection.execute("BEGIN")
            try:
                job.result = drive(job.unit, SqliteTx(connection), job.args, job.kwargs)
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        except sqlite3.Error as exc:
            job.error = meaning(exc)
            job.error.__cause__ = exc
        except BaseException as exc:
            job.error = exc
        READING.dec()
        READ_S.observe(time.monotonic() - began)

    def _write_forever(self) -> None:
        try:
            while (job := self._jobs.get()) is not None:
                jobs = [job]
                for _ in range(min(self._jobs.qsize(), self._config.group - 1)):
                    job = self._jobs.get()
                    if job is None:
                        self._jobs.put(None)
                        break
                    jobs.append(job)
                self._commit(jobs)
                self._trio.run_sync_soon(self._deliver, jobs)
        except trio.RunFinishedError:
            pass  # nobody is left to tell
        except BaseException as exc:
            log.error("database_writer_died", exc_info=exc)
            self._trio.run_sync_soon(self._dead, exc)

    def _commit(self, jobs: list[Write]) -> None:
        began = time.monotonic()
        if began >= self._next_look:
            self._look_at_disk(began)
        if self._short_of_disk:
            jobs = [job for job in jobs if job.relieves or self._refuse(job, DiskFull())]
            if not jobs:
                return
        WRITING.inc()
        if len(jobs) == 1:
            self._commit_one(jobs[0])
        else:
            self._commit_group(jobs)
        WRITING.dec()
        GROUP.observe(len(jobs))
        WRITE_S.observe(time.monotonic() - began)
        self._commits += 1

    def _commit_group(self, jobs: list[Write]) -> None:
        execute = self._control.execute
        guilty: Write | None = None
        try:
            execute("BEGIN IMMEDIATE")
        except sqlite3.Error as exc:
            for job in jobs:
                self._refuse(job, meaning(exc))
            return
        try:
            for job in jobs:
                if not job.begin():
                    continue
                execute("SAVEPOINT unit")
                self._run(job)
                if job.error is not None:
                    if not self._writer.in_transaction:
                        guilty = job
                        break
                    execute("ROLLBACK TO unit")
                execute("RELEASE unit")
            else:
                execute("COMMIT")
                return
        except sqlite3.Error as exc:
            log.warning("group_commit_failed", units=len(jobs), error=exc.sqlite_errorname)
            self._roll_back()
        # Everything was rolled back: the others are run again, each by itself.
        for job in jobs:
            if job is not guilty:
                self._commit_one(job)

    def _commit_one(self, job: Write) -> None:
        execute = self._control.execute
        try:
            execute("BEGIN IMMEDIATE")
        except sqlite3.Error as exc:
            self._refuse(job, meaning(exc))
            return
        if job.begin():
            self._run(job)
            if job.error is None:
                try:
                    execute("COMMIT")
                except sqlite3.Error as exc:
                    # the log may hold the commit though the disk did not confirm it
                    unknown = exc.sqlite_errorcode & 0xFF == sqlite3.SQLITE_IOERR
                    job.error = OutcomeUnknown() if unknown else meaning(exc)
        self._roll_back()

    def _run(self, job: Write) -> None:
        self._stop = job.stop
        job.error = None
        try:
            job.result = drive(job.unit, SqliteTx(self._writer), job.args, job.kwargs)
        except BaseException as exc:
            job.error = exc
        self._stop = math.inf

    def _roll_back(self) -> None:
        if self._writer.in_transaction:
            self._control.execute("ROLLBACK")

    @staticmethod
    def _refuse(job: Write, error: Exception) -> bool:
        """Always False."""
        if job.begin():
            job.error = error
        return False

    def _look_at_disk(self, now: float) -> None:
        self._next_look = now + 1
        disk = os.statvfs(self._path.parent)
        short = disk.f_bavail * disk.f_frsize < self._config.disk_reserve_mb * 1024 * 1024
        if short != self._short_of_disk:
            self._short_of_disk = short
            log.warning("disk_reserve", short=short, reserve_mb=self._config.disk_reserve_mb)
