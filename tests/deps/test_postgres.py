"""What Postgres does beyond the contract: waits, retries, errors and its clock."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from structlog.testing import capture_logs

from kit.postgres import PostgresServer
from kit.wait import until
from secureconnect import clock, metrics
from secureconnect.config import PostgresConfig
from secureconnect.deps import postgres
from secureconnect.deps.asyncio_bridge import open_bridge
from secureconnect.deps.contracts import ConstraintViolation, Row, Tx, UniqueViolation, Value
from secureconnect.deps.postgres import Postgres
from secureconnect.errors import DeadlineExceeded, DiskFull, PoolExhausted, Unavailable
from secureconnect.settings import BadSetting

TABLES = (
    "CREATE TABLE counters (name text PRIMARY KEY, value bigint NOT NULL);"
    "INSERT INTO counters VALUES ('a', 0), ('b', 0)"
)
COUNT = "UPDATE counters SET value = value + 1 WHERE name = $1 RETURNING value"
SLEEP = "SELECT CAST(pg_sleep($1) AS text)"


@asynccontextmanager
async def opened(url: str, **settings: float) -> AsyncIterator[Postgres]:
    async with (
        open_bridge() as bridge,
        Postgres.open(PostgresConfig(url=url, **settings), bridge) as db,  # type: ignore[arg-type]
    ):
        yield db


@pytest.fixture
def url(postgres_server: PostgresServer, postgres_url: str) -> str:
    """A database with two counters, `a` and `b`."""
    postgres_server.sql(TABLES, postgres_url.rpartition("/")[2])
    return postgres_url


async def rows(tx: Tx, sql: str, *args: Value) -> list[Row]:
    return await tx.all(sql, *args)


async def count(tx: Tx, *names: str) -> None:
    for name in names:
        await tx.one(COUNT, name)


async def counters(db: Postgres) -> list[int]:
    return [row[0] for row in await db.read(rows, "SELECT value FROM counters ORDER BY name")]


def active(role: str) -> float:
    return metrics.REGISTRY.get_sample_value("db_connections_active", {"role": role}) or 0


async def runs(db: Postgres, statement: str) -> bool:
    """Whether the server is executing this now."""
    sql = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = $1"
    return bool((await db.read(rows, sql, statement))[0][0])


# cancelling


async def test_a_cancelled_read_ends_its_statement_and_keeps_its_connection(url: str) -> None:
    async with opened(url, connections=2) as db:
        for _ in range(10):
            with trio.move_on_after(0.05) as scope:
                await db.read(rows, SLEEP, 60.0)
            assert scope.cancelled_caught
        assert not await runs(db, SLEEP)
        own = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        assert await db.read(rows, own) == [(1,)]


async def test_a_write_that_began_is_finished_though_nobody_waits(url: str) -> None:
    begun = trio.Event()

    async def slow(tx: Tx) -> None:
        await count(tx, "a")
        begun.set()
        await tx.one(SLEEP, 0.2)
        await count(tx, "b")

    async with opened(url) as db:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(db.write, slow)
            await begun.wait()
            nursery.cancel_scope.cancel()
        assert await counters(db) == [1, 1]
        assert (active("writer"), active("reader")) == (0, 0)


async def test_many_cancelled_at_any_moment_leave_the_pool_whole(url: str) -> None:
    async with opened(url, connections=3, wait_s=30) as db:
        for step in range(40):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(db.write, count, "a")
                nursery.start_soon(db.read, rows, SLEEP, 0.02)
                await trio.sleep(step / 4000)
                nursery.cancel_scope.cancel()
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(db.write, count, "b")
        assert (await counters(db))[1] == 3
        idle = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state <> 'idle'"
        assert await db.read(rows, idle) == [(1,)]


# waiting for a connection


async def test_the_pool_has_bounds(url: str) -> None:
    async with opened(url, connections=2, waiting=1, wait_s=0.2) as db, trio.open_nursery() as nursery:
        nursery.start_soon(db.read, rows, SLEEP, 2.0)
        nursery.start_soon(db.read, rows, SLEEP, 2.0)
        await until(lambda: active("reader") == 2)
        refused_after: list[float] = []

        async def ask() -> None:
            began = trio.current_time()
            with pytest.raises(PoolExhausted):
                await db.write(count, "a")
            refused_after.append(trio.current_time() - began)

        async with trio.open_nursery() as asking:
            asking.start_soon(ask)
            asking.start_soon(ask)
        assert refused_after[0] < 0.2 <= refused_after[1] < 1
        nursery.cancel_scope.cancel()


async def test_a_pool_that_stays_nearly_full_is_told_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(url, connections=5, waiting=5) as db:

        async def crowd() -> None:
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(db.read, rows, SLEEP, 0.05)

        monkeypatch.setattr(postgres, "NEARLY_FULL_S", 60.0)
        with capture_logs() as logged:
            await crowd()
        assert logged == []
        monkeypatch.setattr(postgres, "NEARLY_FULL_S", 0.04)
        with capture_logs() as logged:
            for _ in range(3):
                await crowd()
        assert [(line["event"], line["log_level"]) for line in logged] == [
            ("database_pool_nearly_full", "warning"),
            ("database_pool_relaxed", "info"),
        ]
        assert logged[0]["busy"] >= 4
        assert logged[1]["busy"] <= 2


# time limits, locks and what is tried again


async def test_a_statement_has_its_time(url: str) -> None:
    async with opened(url, statement_s=0.2) as db:
        for method in (db.read, db.write):
            with pytest.raises(DeadlineExceeded):
                await method(rows, SLEEP, 60.0)
        await db.write(count, "a")


async def test_a_lock_is_waited_for_twice_and_then_the_database_is_busy(url: str) -> None:
    tries = 0

    async def wait(tx: Tx) -> None:
        nonlocal tries
        tries += 1
        await count(tx, "a")

    async def hold(tx: Tx) -> None:
        await count(tx, "a")
        await tx.one(SLEEP, 1.0)

    async with opened(url, lock_s=0.2) as db, trio.open_nursery() as nursery:
        nursery.start_soon(db.write, hold)
        await until(lambda: runs(db, SLEEP))
        with pytest.raises(PoolExhausted):
            await db.write(wait)
        assert tries == 2


async def test_a_deadlock_is_tried_again(url: str) -> None:
    """Each holds what the other wants; Postgres ends one of them, which then waits and succeeds.

    It begins its second try with what the other holds: with its own first, it may have that again before the
    other has woken, and they are where they were.
    """
    tries: list[str] = []

    async def crosswise(tx: Tx, first: str, second: str) -> None:
        again = first in tries
        tries.append(first)
        if again:
            first, second = second, first
        await count(tx, first)
        await tx.one(SLEEP, 0.3)
        await count(tx, second)

    async with opened(url) as db:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(db.write, crosswise, "a", "b")
            nursery.start_soon(db.write, crosswise, "b", "a")
        assert await counters(db) == [2, 2]
        assert len(tries) == 3


async def test_a_changed_table_is_looked_at_again(url: str, postgres_server: PostgresServer) -> None:
    """Another node migrates while this one has its statements prepared."""
    async with opened(url, connections=2) as db:
        assert len((await db.read(rows, "SELECT * FROM counters WHERE value < $1", 9))[0]) == 2
        await db.write(rows, "ALTER TABLE counters ADD COLUMN more bigint")
        assert len((await db.read(rows, "SELECT * FROM counters WHERE value < $1", 9))[0]) == 3


# errors


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("53100", DiskFull),
        ("57014", DeadlineExceeded),
        ("40001", PoolExhausted),
        ("40P01", PoolExhausted),
        ("55P03", PoolExhausted),
        ("57P01", Unavailable),
        ("53300", Unavailable),
        ("25006", Unavailable),
        ("XX000", Unavailable),
        ("23514", ConstraintViolation),
        ("22P02", ConstraintViolation),
        ("54000", ConstraintViolation),  # a value too long for an index: no reason to call the server away
        ("42501", RuntimeError),
    ],
)
async def test_what_the_servers_errors_mean(url: str, code: str, error: type[Exception]) -> None:
    async with opened(url) as db:
        with pytest.raises(error) as caught:
            await db.write(rows, f"DO $$ BEGIN RAISE 'no' USING ERRCODE = '{code}'; END $$")
        assert type(caught.value) is error
        await db.write(count, "a")


@pytest.mark.parametrize(
    ("sql", "args"),
    [
        ("INSERT INTO counters VALUES ($1, NULL)", ["precious"]),
        ("INSERT INTO counters VALUES ('c', $1)", ["precious"]),
        ("INSERT INTO counters VALUES ('c', CAST($1 AS bigint))", ["precious"]),
        ("SELECT CAST(CAST($1 AS text) AS uuid)", ["precious"]),
        ("SELECT CAST($1 AS uuid)", ["precious"]),
        ("INSERT INTO counters VALUES ($1, 1)", ["precious\0"]),
    ],
)
async def test_no_value_gets_into_the_log(url: str, sql: str, args: list[str]) -> None:
    async with opened(url) as db:
        with pytest.raises(ConstraintViolation) as caught:
            await db.write(rows, sql, *args)
    assert "precious" not in "".join(str(exc) for exc in causes(caught.value))
    told = traceback.format_exception_only(caught.value)
    assert "precious" not in "".join(told)


def causes(exc: BaseException | None) -> list[BaseException]:
    found = []
    while exc is not None:
        found.append(exc)
        exc = exc.__cause__ or (None if exc.__suppress_context__ else exc.__context__)
    return found


async def test_the_wrong_number_of_arguments_is_our_bug(url: str) -> None:
    async with opened(url) as db:
        with pytest.raises(RuntimeError):
            await db.write(rows, "SELECT CAST($1 AS text)")
        with pytest.raises(RuntimeError):
            await db.write(rows, "SELECT CAST($1 AS text)", "a", "b")


async def test_a_swallowed_error_is_raised_at_the_end(url: str) -> None:
    """Postgres goes on with nothing in such a transaction, and would answer COMMIT with ROLLBACK."""

    async def swallow(tx: Tx, go_on: bool) -> None:
        await count(tx, "b")
        with pytest.raises(UniqueViolation):
            await tx.run("INSERT INTO counters VALUES ('a', 1)")
        if go_on:
            await count(tx, "b")

    async with opened(url) as db:
        for go_on in (True, False):
            with pytest.raises(UniqueViolation, match="counters_pkey"):
                await db.write(swallow, go_on)
        assert await counters(db) == [0, 0]


async def test_a_unit_may_not_await_the_other_loop_either(url: str) -> None:
    async def sleeps(tx: Tx) -> None:
        await count(tx, "a")
        await asyncio.sleep(0)

    async with opened(url) as db:
        with pytest.raises(RuntimeError, match="other than its tx"):
            await db.write(sleeps)
        assert await counters(db) == [0, 0]


async def test_sums_are_numbers(url: str) -> None:
    sql = "SELECT SUM(value), AVG(value + 0.5), CAST(7 AS numeric) FROM counters"
    async with opened(url) as db:
        assert await db.read(rows, sql) == [(0, 0.5, 7)]


async def test_a_database_that_takes_no_writes(url: str, postgres_server: PostgresServer) -> None:
    name = url.rpartition("/")[2]
    postgres_server.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    async with opened(url) as db:
        assert await counters(db) == [0, 0]
        with pytest.raises(Unavailable):
            await db.write(count, "a")
        with pytest.raises(Unavailable):
            await db.probe()  # or the breaker would close again and again


@pytest.mark.parametrize("wrong", ["mysql://127.0.0.1/x", "127.0.0.1", "postgres://"])
async def test_an_address_that_is_none(wrong: str) -> None:
    async with open_bridge() as bridge:
        with pytest.raises(BadSetting, match=r"postgres\.url"):
            async with Postgres.open(PostgresConfig(url=wrong), bridge):
                pass


async def test_a_database_that_is_not_there(postgres_server: PostgresServer) -> None:
    async with opened(postgres_server.url("nowhere")) as db:
        with capture_logs() as logged:
            for _ in range(2):
                with pytest.raises(Unavailable):
                    await db.write(count, "a")
                with pytest.raises(Unavailable):
                    await db.probe()
        assert [line["event"] for line in logged] == ["database_refuses_us"]


async def test_when_it_is_closed(url: str) -> None:
    async with opened(url) as db:
        await db.write(count, "a")
    for method in (db.read, db.write, db.relieve):
        with pytest.raises(Unavailable):
            await method(count, "a")


# the clock


async def test_the_probe_sets_the_clock(url: str) -> None:
    async with opened(url) as db:
        assert abs(db.now_us() - clock.now_us()) < clock.SECOND_US
        for _ in range(3):
            await db.probe()
            ((told_us,),) = await db.read(rows, "SELECT clock_timestamp()")
            # as exact as half the way there and back
            assert abs(db.now_us() - told_us) < clock.SECOND_US
