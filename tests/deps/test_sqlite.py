"""What is peculiar to SQLite: the writer thread, group commit, cancellation, limits, durability."""

from __future__ import annotations

import contextlib
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from secureconnect.config import SqliteConfig
from secureconnect.deps.contracts import ConstraintViolation, Row, Tx, Value
from secureconnect.deps.sqlite import Sqlite
from secureconnect.deps.sqlite_log import KEPT_PAGES, LOG_FRAMES
from secureconnect.errors import DeadlineExceeded, DiskFull, OutcomeUnknown, PoolExhausted, Unavailable

QUICK = SqliteConfig(statement_s=0.5)
FOREVER = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


@asynccontextmanager
async def opened(data_dir: Path, config: SqliteConfig = SqliteConfig()) -> AsyncIterator[Sqlite]:  # noqa: B008
    async with Sqlite.open(data_dir / "x.db", config) as db:
        await db.relieve(run, "CREATE TABLE IF NOT EXISTS t (v INTEGER PRIMARY KEY, b BLOB) STRICT")
        yield db


async def run(tx: Tx, sql: str, *args: Value) -> int:
    return await tx.run(sql, *args)


async def rows(tx: Tx, sql: str, *args: Value) -> list[Row]:
    return await tx.all(sql, *args)


async def add(tx: Tx, value: int) -> int:
    await tx.run("INSERT INTO t (v) VALUES ($1)", value)
    return value


def modes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}


async def values(db: Sqlite) -> list[int]:
    return [row[0] for row in await db.read(rows, "SELECT v FROM t ORDER BY v")]


class Held:
    """A unit that stops in the middle of the writer thread until `release`."""

    def __init__(self) -> None:
        self._entered = threading.Event()
        self._go_on = threading.Event()

    async def unit(self, tx: Tx, value: int = 1) -> int:
        self._entered.set()
        await add(tx, value)
        assert self._go_on.wait(10)
        return value

    async def entered(self) -> None:
        assert await trio.to_thread.run_sync(self._entered.wait, 5)

    def release(self) -> None:
        self._go_on.set()


@contextmanager
def holding() -> Iterator[Held]:
    held = Held()
    try:
        yield held
    finally:
        held.release()


async def test_files_are_private_and_settings_safe(data_dir: Path) -> None:
    async with opened(data_dir) as db:
        await db.write(add, 1)
        assert modes(data_dir) == dict.fromkeys(("x.db", "x.db-wal", "x.db-shm"), 0o600)
        for pragma, expected in {
            "auto_vacuum": 2,
            "journal_mode": "wal",
            "synchronous": 2,
            "secure_delete": 1,
            "foreign_keys": 1,
        }.items():
            assert await db.write(rows, f"PRAGMA {pragma}") == [(expected,)]
            assert await db.read(rows, f"PRAGMA {pragma}") == [(expected,)]
    assert modes(data_dir) == {"x.db": 0o600}


async def test_what_is_queued_shares_one_commit(data_dir: Path) -> None:
    commits: list[str] = []
    async with opened(data_dir) as db, trio.open_nursery() as nursery:
        db._writer.set_trace_callback(commits.append)
        with holding() as held:
            nursery.start_soon(db.write, held.unit)
            await held.entered()
            for value in range(2, 52):
                nursery.start_soon(db.write, add, value)
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(db.write, add, 100)
    assert commits.count("COMMIT") <= 3


async def test_a_lost_group_is_run_again_one_by_one(data_dir: Path) -> None:
    """A real SQLITE_FULL rolls the whole transaction back; only the unit that caused it may fail."""
    runs: list[int] = []
    outcomes: dict[int, str] = {}

    async def counted(tx: Tx, value: int) -> None:
        runs.append(value)
        await add(tx, value)

    async def too_big(tx: Tx, value: int) -> None:
        await tx.run("INSERT INTO t (v, b) VALUES ($1, zeroblob(1000000))", value)

    async def swallows(tx: Tx, value: int) -> None:
        try:
            await too_big(tx, value)
        except DiskFull:
            await add(tx, value)  # would commit by itself

    async def send(unit: Callable[[Tx, int], object], value: int) -> None:
        try:
            await db.write(unit, value)  # type: ignore[arg-type]
            outcomes[value] = "written"
        except Exception as exc:
            outcomes[value] = type(exc).__name__

    async with opened(data_dir) as db:
        await db.write(rows, "PRAGMA max_page_count = 50")
        async with trio.open_nursery() as nursery:
            with holding() as held:
                nursery.start_soon(db.write, held.unit)
                await held.entered()
                for value, unit in enumerate((counted, too_big, counted, swallows, counted), 10):
                    nursery.start_soon(send, unit, value)
                    await trio.testing.wait_all_tasks_blocked()  # so that they queue in this order
        assert outcomes == {
            10: "written",
            11: "DiskFull",
            12: "written",
            13: "RuntimeError",
            14: "written",
        }
        assert runs == [10, 10, 12, 14]
        assert await values(db) == [1, 10, 12, 14]


async def test_a_commit_that_fails_blames_the_right_unit(data_dir: Path) -> None:
    outcomes: dict[int, str] = {}

    async def send(sql: str, value: int) -> None:
        try:
            await db.write(run, sql, value)
            outcomes[value] = "written"
        except ConstraintViolation:
            outcomes[value] = "refused"

    async with opened(data_dir) as db:
        await db.write(run, "CREATE TABLE child (v INTEGER REFERENCES t (v) DEFERRABLE INITIALLY DEFERRED)")
        async with trio.open_nursery() as nursery:
            with holding() as held:
                nursery.start_soon(db.write, held.unit)
                await held.entered()
                for value in range(10, 20):
                    sql = "INSERT INTO child VALUES ($1)" if value == 15 else "INSERT INTO t (v) VALUES ($1)"
                    nursery.start_soon(send, sql, value)
                await trio.testing.wait_all_tasks_blocked()
        assert outcomes == {value: "refused" if value == 15 else "written" for value in range(10, 20)}
        assert await values(db) == [1, *(value for value in range(10, 20) if value != 15)]


@contextmanager
def failing_log(path: Path) -> Iterator[None]:
    """The log cannot grow: the system refuses with EFBIG, an input/output error to SQLite."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (Path(f"{path}-wal").stat().st_size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_commit_the_disk_did_not_confirm_is_unknown(data_dir: Path) -> None:
    """After a crash the log may yet hold it."""
    async with opened(data_dir) as db:
        with failing_log(data_dir / "x.db"), pytest.raises(OutcomeUnknown):
            await db.write(run, "INSERT INTO t (v, b) VALUES (1, zeroblob(100000))")
        await db.write(add, 2)
        assert await values(db) == [2]


async def test_cancelled_in_the_queue_it_is_never_written(data_dir: Path) -> None:
    async with opened(data_dir) as db, trio.open_nursery() as nursery:
        with holding() as held:
            nursery.start_soon(db.write, held.unit)
            await held.entered()
            with trio.move_on_after(0.02) as scope:
                await db.write(add, 2)
            assert scope.cancelled_caught
        await db.write(add, 3)
        assert await values(db) == [1, 3]


async def test_cancelled_after_it_began_its_outcome_is_awaited(data_dir: Path) -> None:
    async with opened(data_dir) as db, trio.open_nursery() as nursery:
        with holding() as held:
            scope = trio.CancelScope()
            returned = trio.Event()

            async def write() -> None:
                with scope:
                    await db.write(held.unit)
                returned.set()

            nursery.start_soon(write)
            await held.entered()
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert not returned.is_set()
        with trio.fail_after(5):
            await returned.wait()
        assert scope.cancelled_caught
        assert await values(db) == [1]


async def test_a_unit_stuck_past_the_limit_is_unknown_and_those_behind_it_withdrawn(data_dir: Path) -> None:
    async with opened(data_dir, QUICK) as db:
        with holding() as held:

            async def behind() -> None:
                with pytest.raises(PoolExhausted):
                    await db.write(add, 2)

            async def stuck() -> None:
                with pytest.raises(OutcomeUnknown):
                    await db.write(held.unit)

            with trio.fail_after(5):
                async with trio.open_nursery() as senders:
                    senders.start_soon(stuck)
                    await held.entered()
                    senders.start_soon(behind)
        await db.write(add, 3)
        assert await values(db) == [1, 3]


async def test_outcomes_that_came_while_the_event_loop_stood_still_are_known(data_dir: Path) -> None:
    """As after SIGSTOP: the answer and the end of the waiting time are found at the same moment."""
    async with opened(data_dir, QUICK) as db:
        for value in range(4):
            async with trio.open_nursery() as nursery:
                with holding() as held:
                    nursery.start_soon(db.write, held.unit, value)
                    await held.entered()
                time.sleep(QUICK.statement_s + 0.1)  # noqa: ASYNC251  (that is the point)
        assert await values(db) == list(range(4))


async def test_a_cancelled_caller_of_a_stuck_unit_gets_away(data_dir: Path) -> None:
    async with opened(data_dir, QUICK) as db:
        with holding() as held, trio.fail_after(5), trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(db.write, held.unit)
                await held.entered()
                scope.cancel()
        assert scope.cancelled_caught


async def test_a_runaway_statement_is_interrupted(data_dir: Path) -> None:
    async with opened(data_dir, QUICK) as db:
        with trio.fail_after(5):
            for method in (db.write, db.read):
                with pytest.raises(DeadlineExceeded):
                    await method(rows, FOREVER)
            async with trio.open_nursery() as nursery:  # in a group, it harms nobody

                async def runaway(tx: Tx) -> None:
                    await add(tx, 99)
                    await tx.all(FOREVER)

                async def expect_interrupt() -> None:
                    with pytest.raises(DeadlineExceeded):
                        await db.write(runaway)

                nursery.start_soon(db.write, add, 1)
                nursery.start_soon(expect_interrupt)
                nursery.start_soon(db.relieve, add, 2)
        assert await values(db) == [1, 2]


async def test_a_full_queue_refuses(data_dir: Path) -> None:
    async with opened(data_dir, SqliteConfig(waiting=3)) as db:
        with holding() as held:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(db.write, held.unit)
                await held.entered()
                nursery.start_soon(db.write, add, 2)
                nursery.start_soon(db.write, add, 3)
                await trio.testing.wait_all_tasks_blocked()
                with trio.fail_after(5), pytest.raises(PoolExhausted):
                    await db.write(add, 4)
                nursery.cancel_scope.cancel()
                held.release()
        assert await db.write(add, 5) == 5
        assert 4 not in await values(db)


async def test_whoever_waits_for_room_gets_it(data_dir: Path) -> None:
    async with opened(data_dir, SqliteConfig(waiting=2)) as db, trio.open_nursery() as nursery:
        with holding() as held:
            nursery.start_soon(db.write, held.unit)
            await held.entered()
            for value in range(2, 12):
                nursery.start_soon(db.write, add, value)
            await trio.testing.wait_all_tasks_blocked()
    async with opened(data_dir) as db:
        assert await values(db) == list(range(1, 12))


async def test_below_the_reserve_only_relief_is_written(data_dir: Path) -> None:
    async with opened(data_dir, SqliteConfig(disk_reserve_mb=1_048_576)) as db:
        await db.relieve(add, 1)
        with pytest.raises(DiskFull):
            await db.write(add, 2)
        async with trio.open_nursery() as nursery:

            async def refused(value: int) -> None:
                with pytest.raises(DiskFull):
                    await db.write(add, value)

            for value in range(10, 20):
                nursery.start_soon(db.relieve, add, value)
                nursery.start_soon(refused, 100 + value)
        assert await values(db) == [1, *range(10, 20)]


async def test_readers_do_not_wait_for_a_long_write(data_dir: Path) -> None:
    async with opened(data_dir) as db:
        await db.write(add, 7)
        with holding() as held:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(db.write, held.unit)
                await held.entered()
                with trio.fail_after(2):
                    for _ in range(20):
                        assert await values(db) == [7]
                held.release()
        assert await values(db) == [1, 7]


async def test_a_read_is_one_snapshot(data_dir: Path) -> None:
    async with opened(data_dir) as db:
        entered, go_on = threading.Event(), threading.Event()
        seen: list[list[Row]] = []

        async def twice(tx: Tx) -> None:
            seen.append(await tx.all("SELECT v FROM t"))
            entered.set()
            assert go_on.wait(10)
            seen.append(await tx.all("SELECT v FROM t"))

        await db.write(add, 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(db.read, twice)
            assert await trio.to_thread.run_sync(entered.wait, 5)
            await db.write(add, 2)
            go_on.set()
        assert seen == [[(1,)], [(1,)]]
        assert await values(db) == [1, 2]


async def test_cancelled_reads_give_their_connections_back(data_dir: Path) -> None:
    async with opened(data_dir, SqliteConfig(readers=2)) as db:
        with trio.fail_after(5):
            for _ in range(5):
                with trio.move_on_after(0.05) as scope:
                    async with trio.open_nursery() as nursery:
                        for _ in range(4):
                            nursery.start_soon(db.read, rows, FOREVER)
                assert scope.cancelled_caught
            assert await values(db) == []


async def test_no_free_reader_within_the_limit(data_dir: Path) -> None:
    async with opened(data_dir, replace(QUICK, readers=1)) as db:
        go_on = threading.Event()

        async def stuck(tx: Tx) -> None:
            go_on.wait(10)

        async def expect_timeout() -> None:
            with pytest.raises(DeadlineExceeded):
                await db.read(stuck)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect_timeout)
            await trio.testing.wait_all_tasks_blocked()
            with trio.fail_after(5), pytest.raises(PoolExhausted):
                await values(db)
        go_on.set()
        assert await values(db) == []


async def test_two_processes_may_write(data_dir: Path) -> None:
    """The command line does so beside a running server."""
    async with opened(data_dir) as one, opened(data_dir) as other, trio.open_nursery() as nursery:
        for value in range(100):
            nursery.start_soon(one.write, add, 2 * value)
            nursery.start_soon(other.write, add, 2 * value + 1)
            await trio.lowlevel.checkpoint()
    async with opened(data_dir) as db:
        assert await values(db) == list(range(200))


async def test_a_database_held_by_another_is_unavailable(data_dir: Path) -> None:
    async with opened(data_dir, QUICK) as db:
        intruder = sqlite3.connect(data_dir / "x.db", isolation_level=None)
        intruder.execute("BEGIN IMMEDIATE")
        with trio.fail_after(5), pytest.raises(Unavailable):
            await db.write(add, 1)
        intruder.execute("ROLLBACK")
        intruder.close()
        assert await db.write(add, 2) == 2
        assert await values(db) == [2]


async def test_opening_does_not_wait_for_a_lock_as_long_as_for_a_unit(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secureconnect.deps.sqlite.LOCK_WAIT_S", 0.2)
    async with opened(data_dir):
        pass
    with closing(sqlite3.connect(data_dir / "x.db", isolation_level=None)) as intruder:
        intruder.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        with pytest.raises(Unavailable):
            async with opened(data_dir, SqliteConfig(statement_s=6)):
                pass
        assert time.monotonic() - began < 3


async def test_the_file_shrinks_after_much_was_deleted(data_dir: Path) -> None:
    async with opened(data_dir) as db:
        file = data_dir / "x.db"
        for value in range(14):
            await db.write(run, "INSERT INTO t (v, b) VALUES ($1, zeroblob(1000000))", value)
        with trio.fail_after(10):
            while file.stat().st_size < 14_000_000:  # noqa: ASYNC110
                await trio.sleep(0.02)
        await db.write(run, "DELETE FROM t WHERE v > 0")
        with trio.fail_after(15):
            while file.stat().st_size > 1_000_000 + (KEPT_PAGES + 200) * 4096:  # noqa: ASYNC110
                await trio.sleep(0.02)
        assert await db.read(rows, "PRAGMA integrity_check") == [("ok",)]
        assert await values(db) == [0]


async def test_the_log_is_begun_anew_under_constant_writing(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secureconnect.deps.sqlite_log.CHECKPOINT_S", 0.05)
    written = 0

    async def write_forever(db: Sqlite) -> None:
        nonlocal written
        while True:
            written += 1
            await db.write(run, "INSERT INTO t (v, b) VALUES ($1, zeroblob(200000))", written)

    async with opened(data_dir) as db, trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(write_forever, db)
        log, size, since = data_dir / "x.db-wal", 0, 0
        while since == 0 or written < since + 200:  # it has not grown for 40 MB
            await trio.lowlevel.checkpoint()
            if size != (size := log.stat().st_size):
                since = written if size > LOG_FRAMES * 4096 else 0
            assert size < 10 * LOG_FRAMES * 4096
        nursery.cancel_scope.cancel()


async def test_the_log_is_cut_after_what_was_written(data_dir: Path) -> None:
    async with opened(data_dir, SqliteConfig(log_cut_s=1)) as db:
        await db.write(run, "INSERT INTO t (v, b) VALUES (1, zeroblob(4000000))")
        with trio.fail_after(10):
            while (data_dir / "x.db-wal").stat().st_size > 0:  # noqa: ASYNC110
                await trio.sleep(0.02)
        assert await values(db) == [1]


async def test_what_was_queued_at_the_end_is_written_and_nothing_after(data_dir: Path) -> None:
    async with trio.open_nursery() as nursery, opened(data_dir) as db:
        with holding() as held:
            nursery.start_soon(db.write, held.unit)
            await held.entered()
            nursery.start_soon(db.write, add, 2)
            await trio.testing.wait_all_tasks_blocked()
    for call in (db.write, db.read):
        with pytest.raises(Unavailable):
            await call(add, 3)
    async with opened(data_dir) as again:
        assert await values(again) == [1, 2]


async def test_an_exception_of_the_block_comes_out_as_it_is(data_dir: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with opened(data_dir):
            raise ZeroDivisionError


async def test_when_the_writer_dies_the_block_ends_and_nobody_hangs(data_dir: Path) -> None:
    async def write_for_ever(db: Sqlite) -> None:
        with contextlib.suppress(Unavailable):  # or it is cancelled
            while True:
                await db.write(run, "UPDATE t SET v = v")

    async def lose_the_folder() -> None:
        async with opened(data_dir) as db, trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(write_for_ever, db)
            await trio.to_thread.run_sync(shutil.rmtree, data_dir)

    with trio.fail_after(10), pytest.raises(ExceptionGroup) as caught:
        await lose_the_folder()
    assert caught.group_contains(RuntimeError, match="writer died")


async def test_a_file_that_is_no_database(data_dir: Path) -> None:
    (data_dir / "x.db").write_bytes(b"this is not a database" * 100)
    with pytest.raises(Unavailable, match=r"x\.db cannot be opened"):
        async with opened(data_dir):
            pass


WRITER = """
import sys, trio
from pathlib import Path
from secureconnect.config import SqliteConfig
from secureconnect.deps.sqlite import Sqlite

async def add(tx, value):
    await tx.run("INSERT INTO t (v) VALUES ($1)", value)

async def send(db, start):
    for value in range(start, start + 1_000_000):
        await db.write(add, value)
        print(value, flush=True)

async def main():
    async with Sqlite.open(Path(sys.argv[1]), SqliteConfig()) as db, trio.open_nursery() as nursery:
        for sender in range(8):
            nursery.start_soon(send, db, sender * 1_000_000)

trio.run(main)
"""


def write_until_killed(path: Path) -> list[int]:
    """Kill a writing process after its 500th acknowledged value; all that it acknowledged."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if len(lines) == 500:
                process.kill()
    assert process.returncode == -signal.SIGKILL
    return [int(line) for line in lines if line.endswith("\n")]


async def test_kill_9_loses_nothing_acknowledged(data_dir: Path) -> None:
    async with opened(data_dir):
        pass
    acknowledged = write_until_killed(data_dir / "x.db")
    assert len(acknowledged) >= 500
    async with opened(data_dir) as db:
        assert set(acknowledged) <= set(await values(db))
        assert await db.read(rows, "PRAGMA integrity_check") == [("ok",)]
