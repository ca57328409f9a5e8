"""Postgres killed, frozen, cut off and away: what callers are told, and what works again by itself."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager

import pytest
import trio
from structlog.testing import capture_logs

from kit.postgres import PostgresServer
from kit.toll import Toll, toll_before
from kit.wait import until
from secureconnect.config import PostgresConfig
from secureconnect.deps.asyncio_bridge import open_bridge
from secureconnect.deps.contracts import Row, Tx, Value
from secureconnect.deps.postgres import CLOSE_S, GRACE_S, RELEASE_S, Postgres
from secureconnect.errors import DeadlineExceeded, OutcomeUnknown, Unavailable

SLEEP = "SELECT CAST(pg_sleep($1) AS text)"
PROBE_S = 0.4
SLACK_S = 1.5  # for a busy machine
# a COMMIT that takes half a second, since the check of the row is put off until then
SLOW_COMMIT = """
CREATE TABLE things (name text PRIMARY KEY);
CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN PERFORM pg_sleep(0.5); RETURN NULL; END $$;
CREATE TABLE slow (name text PRIMARY KEY);
CREATE CONSTRAINT TRIGGER slowly AFTER INSERT ON slow DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION wait();
"""


@pytest.fixture(scope="module")
def brittle() -> Iterator[PostgresServer]:
    """A server of this file's own, to be killed."""
    server = PostgresServer()
    try:
        server.start()
        server.sql(SLOW_COMMIT)
        yield server
    finally:
        server.close()


@pytest.fixture
def server(brittle: PostgresServer) -> Iterator[PostgresServer]:
    """It runs, with empty tables."""
    brittle.sql("TRUNCATE things, slow")
    yield brittle
    if not brittle.runs:
        brittle.start()


@asynccontextmanager
async def opened(url: str, **settings: float) -> AsyncIterator[Postgres]:
    limits = {"statement_s": 1.0, "connect_s": 1.0} | settings
    config = PostgresConfig(url=url, **limits)  # type: ignore[arg-type]
    async with open_bridge() as bridge, Postgres.open(config, bridge) as db:
        yield db


@asynccontextmanager
async def behind_toll(server: PostgresServer, **settings: float) -> AsyncIterator[tuple[Postgres, Toll]]:
    async with toll_before(f"http://127.0.0.1:{server.port}") as toll:
        port = int(toll.url.rpartition(":")[2])
        async with opened(server.url(port=port), **settings) as db:
            yield db, toll


async def rows(tx: Tx, sql: str, *args: Value) -> list[Row]:
    return await tx.all(sql, *args)


async def add(tx: Tx, name: str, table: str = "things") -> str:
    await tx.run(f"INSERT INTO {table} VALUES ($1)", name)
    return name


async def names(db: Postgres, table: str = "things") -> list[str]:
    return [row[0] for row in await db.read(rows, f"SELECT name FROM {table} ORDER BY name")]


async def works(db: Postgres) -> bool:
    try:
        await db.read(rows, "SELECT 1")
    except Unavailable:
        return False
    return True


# away


async def test_a_server_that_comes_later(server: PostgresServer) -> None:
    server.stop()
    async with opened(server.url()) as db:
        with trio.fail_after(SLACK_S):
            for attempt in (db.write(add, "a"), db.read(rows, "SELECT 1"), db.probe()):
                with pytest.raises(Unavailable):
                    await attempt
        await trio.to_thread.run_sync(server.start)
        await db.probe()
        assert await db.write(add, "a") == "a"


async def test_a_restart_is_noticed_by_the_first_caller(server: PostgresServer) -> None:
    """The connections in the pool are dead, and nobody is told."""
    async with opened(server.url(), connections=3) as db:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(db.read, rows, SLEEP, 0.1)
        await trio.to_thread.run_sync(server.stop, signal.SIGINT)
        await trio.to_thread.run_sync(server.start)
        assert await db.write(add, "a") == "a"
        assert await names(db) == ["a"]


# killed


async def test_killed_in_the_middle_of_a_unit_nothing_was_written(server: PostgresServer) -> None:
    pids: list[int] = []

    async def unit(tx: Tx) -> None:
        await add(tx, "a")
        row = await tx.one("SELECT pg_backend_pid()")
        assert row is not None
        pids.append(row[0])
        await tx.one(SLEEP, 0.9)

    async def kill() -> None:
        await until(lambda: bool(pids))
        os.kill(pids[0], signal.SIGKILL)

    async with opened(server.url()) as db:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill)
            with pytest.raises(Unavailable) as caught:
                await db.write(unit)
        assert not isinstance(caught.value, OutcomeUnknown)
        await until(lambda: works(db))  # the server starts itself anew
        assert await names(db) == []
        assert len(pids) == 1, "what fails like this is not tried again"


async def test_what_was_acknowledged_survives_a_crash() -> None:
    """Crashed among the writes, with the settings that a server has by itself."""
    safe = PostgresServer(fsync="on", synchronous_commit="on", full_page_writes="on")
    try:
        safe.start()
        safe.sql(SLOW_COMMIT)
        told: set[str] = set()

        async def write(db: Postgres, number: int) -> None:
            try:
                for step in range(100):
                    told.add(await db.write(add, f"{number}-{step}"))
            except Unavailable:
                pass

        async with opened(safe.url()) as db:
            async with trio.open_nursery() as nursery:
                for number in range(5):
                    nursery.start_soon(write, db, number)
                await until(lambda: len(told) >= 50)
                await trio.to_thread.run_sync(safe.stop)
            await trio.to_thread.run_sync(safe.start)
            assert told <= set(await names(db))
    finally:
        safe.close()


# a connection that breaks in the COMMIT


async def test_cut_in_the_commit_the_outcome_is_unknown(server: PostgresServer) -> None:
    async with behind_toll(server) as (db, toll), opened(server.url()) as direct:

        async def cut() -> None:
            await until(lambda: committing(direct))
            toll.cut()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cut)
            with pytest.raises(OutcomeUnknown):
                await db.write(add, "a", "slow")
        await until(lambda: has(direct, "a", "slow"))
        assert await db.write(add, "b") == "b"


async def test_stalled_in_the_commit_the_outcome_is_unknown(server: PostgresServer) -> None:
    async with behind_toll(server) as (db, toll), opened(server.url()) as direct:

        async def stall() -> None:
            await until(lambda: committing(direct))
            toll.stall()

        for name, cancelled in (("told", False), ("cancelled", True)):
            began = trio.current_time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stall)
                with trio.CancelScope() as scope:
                    if cancelled:
                        scope.deadline = began + 0.2
                        await db.write(add, name, "slow")
                    else:
                        with pytest.raises(OutcomeUnknown):
                            await db.write(add, name, "slow")
                assert scope.cancelled_caught is cancelled
            assert trio.current_time() - began < 1.0 + GRACE_S + RELEASE_S + SLACK_S
            await until(lambda: has(direct, name, "slow"))  # noqa: B023
            toll.flow()
        assert await db.write(add, "after") == "after"


async def committing(db: Postgres) -> bool:
    sql = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = 'COMMIT'"
    return bool((await db.read(rows, sql))[0][0])


async def has(db: Postgres, name: str, table: str = "things") -> bool:
    return name in await names(db, table)


# frozen


async def test_a_frozen_server_looks_dead_within_the_limits(server: PostgresServer) -> None:
    async with opened(server.url(), connections=2) as db:
        assert await db.write(add, "before") == "before"
        await db.probe()
        with server.frozen():
            began = trio.current_time()
            with pytest.raises(DeadlineExceeded):
                await db.write(add, "used connection")
            assert trio.current_time() - began < 1.0 + GRACE_S + RELEASE_S + SLACK_S

            began = trio.current_time()
            with pytest.raises(Unavailable):
                await db.write(add, "new connection")
            assert trio.current_time() - began < 1.0 + GRACE_S + SLACK_S

            for _ in range(3):
                began = trio.current_time()
                with trio.move_on_after(PROBE_S) as scope:
                    await db.probe()
                assert scope.cancelled_caught
                assert trio.current_time() - began < PROBE_S + SLACK_S
        await until(lambda: works(db))
        await db.probe()
        assert await db.write(add, "after") == "after"
        assert {"before", "after"} <= set(await names(db))


async def test_a_read_of_a_frozen_server_is_cancelled_in_time(server: PostgresServer) -> None:
    """And the log says, once, what became of the connections."""
    async with opened(server.url()) as db:
        assert await works(db)
        with server.frozen(), capture_logs() as lines:
            began = trio.current_time()
            with trio.move_on_after(0.1) as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(names, db)
                    nursery.start_soon(names, db)
            assert scope.cancelled_caught
            assert trio.current_time() - began < RELEASE_S + SLACK_S
        told = [(line["event"], line["reason"]) for line in lines if line["event"] == "connection_given_up"]
        assert told == [("connection_given_up", "no answer")]
        await until(lambda: works(db))


async def test_whoever_knows_that_it_is_frozen_need_not_wait(server: PostgresServer) -> None:
    """Neither for what is under way, nor for a turn."""
    limits = {"statement_s": 60.0, "connections": 2, "wait_s": 30.0}
    async with opened(server.url(), **limits) as db, opened(server.url()) as direct:
        told: list[type[Exception]] = []

        async def write(table: str) -> None:
            with pytest.raises(Unavailable) as caught:
                await db.write(sleepy, "frozen", table)
            told.append(type(caught.value))

        async def sleepy(tx: Tx, name: str, table: str) -> None:
            await add(tx, name, table)
            if table == "things":
                await tx.one(SLEEP, 30.0)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, "things")
            nursery.start_soon(write, "slow")
            await until(lambda: committing(direct))
            nursery.start_soon(write, "things")
            with server.frozen():
                began = trio.current_time()
                db.abandon()
                await until(lambda: len(told) == 3)
                assert trio.current_time() - began < SLACK_S
        assert Counter(told) == {Unavailable: 2, OutcomeUnknown: 1}
        assert await db.write(add, "after") == "after"
        assert await names(db) == ["after"]
        await until(lambda: free(direct))


async def free(db: Postgres) -> bool:
    """Whether the table is not locked: what was given up goes on in the server until that notices."""
    held = "SELECT count(*) FROM pg_locks WHERE relation = CAST('things' AS regclass)"
    return await db.read(rows, held) == [(0,)]


async def test_closing_does_not_wait_for_a_frozen_server(server: PostgresServer) -> None:
    with ExitStack() as frozen:
        async with opened(server.url()) as db:
            await db.probe()
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(db.read, rows, SLEEP, 0.05)
            frozen.enter_context(server.frozen())
            began = trio.current_time()
        assert trio.current_time() - began < CLOSE_S + SLACK_S


async def test_a_node_that_stops_in_a_transaction_loses_its_lock(server: PostgresServer) -> None:
    """Its connection stays open and says nothing: Postgres ends the transaction, and the others go on."""
    async with (
        behind_toll(server, idle_in_transaction_s=1.0) as (frozen, toll),
        opened(server.url(), lock_s=5.0, statement_s=10.0) as other,
    ):
        await other.write(add, "row")

        async def stop(tx: Tx) -> None:
            await tx.run("UPDATE things SET name = 'mine' WHERE name = 'row'")
            toll.stall()
            await tx.one("SELECT 1")

        async def stopped() -> None:
            with pytest.raises(Unavailable) as caught:
                await frozen.write(stop)
            assert not isinstance(caught.value, OutcomeUnknown)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stopped)
            await until(lambda: idle_in_transaction(other))
            await other.write(rows, "UPDATE things SET name = 'theirs' WHERE name = 'row'")
        assert await names(other) == ["theirs"]


async def idle_in_transaction(db: Postgres) -> bool:
    sql = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'"
    return bool((await db.read(rows, sql))[0][0])
