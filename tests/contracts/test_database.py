"""What contracts.Database promises, whoever stands behind it."""

from __future__ import annotations

import random

import pytest
import trio

from secureconnect import clock
from secureconnect.deps.contracts import (
    ConstraintViolation,
    Database,
    Row,
    Tx,
    UniqueViolation,
    Value,
)
from secureconnect.identity import new_id

NUMBER = "UPDATE counters SET value = value + 1 WHERE name = 'seq' RETURNING value"
INSERT = "INSERT INTO things (seq, id) VALUES ($1, $2)"


async def number(tx: Tx, thing: str) -> int:
    """Insert a thing under the next number."""
    row = await tx.one(NUMBER)
    assert row is not None
    await tx.run(INSERT, row[0], thing)
    return int(row[0])


async def rows(tx: Tx, sql: str, *args: Value) -> list[Row]:
    return await tx.all(sql, *args)


async def run(tx: Tx, sql: str, *args: Value) -> int:
    return await tx.run(sql, *args)


async def seqs(db: Database) -> list[int]:
    return [row[0] for row in await db.read(rows, "SELECT seq FROM things ORDER BY seq")]


async def test_a_write_returns_its_result_and_a_read_sees_it(db: Database) -> None:
    for expected in range(1, 20):
        assert await db.write(number, thing=new_id()) == expected
        assert len(await seqs(db)) == expected


async def test_every_kind_of_value_comes_back(db: Database) -> None:
    thing, at_us = new_id(), clock.now_us()
    given: tuple[Value, ...] = (2**62, thing, "seq", True, at_us, '{"a": ["é", null]}', b"\0\xff", 0.1)
    sql = "INSERT INTO things (seq, id, counter, ok, at, data, raw, share) VALUES ($1,$2,$3,$4,$5,$6,$7,$8)"
    assert await db.write(run, sql, *given) == 1
    assert await db.read(rows, "SELECT * FROM things WHERE id = $1", thing) == [given]
    assert await db.write(run, "UPDATE things SET counter = NULL, data = $1 WHERE seq = $2", None, 2**62) == 1
    found = await db.read(rows, "SELECT counter, data, ok FROM things")
    assert found == [(None, None, True)]


async def test_parameters_go_by_their_number(db: Database) -> None:
    sql = "SELECT " + ", ".join(f"CAST(${n} AS bigint)" for n in (2, 1, 12, 11, 10, 3, 4, 5, 6, 7, 8, 9, 1))
    assert await db.read(rows, sql, *range(1, 13)) == [(2, 1, 12, 11, 10, 3, 4, 5, 6, 7, 8, 9, 1)]


async def test_one_all_run_and_many(db: Database) -> None:
    async def unit(tx: Tx) -> None:
        assert await tx.one("SELECT seq FROM things") is None
        assert await tx.all("SELECT seq FROM things") == []
        await tx.many(INSERT, [(n, None) for n in range(5)])
        await tx.many(INSERT, [])
        assert await tx.one("SELECT seq FROM things ORDER BY seq DESC") == (4,)
        assert await tx.one("DELETE FROM things WHERE seq < 2 RETURNING CAST(9 AS bigint)") == (9,)
        assert await tx.run("UPDATE things SET ok = $1 WHERE seq > $2", False, 2) == 2
        assert await tx.run("UPDATE things SET ok = $1 WHERE seq > $2 RETURNING seq", True, 2) == 2
        assert await tx.run("DELETE FROM things WHERE seq > $1", 100) == 0
        assert (
            await tx.run(
                "WITH n AS (SELECT max(seq) AS top FROM things) INSERT INTO things SELECT top + 1, NULL, "
                "NULL, NULL, NULL, NULL, NULL, NULL FROM n"
            )
            == 1
        )
        assert await tx.run("INSERT INTO things (seq) VALUES (3) ON CONFLICT DO NOTHING") == 0

    await db.write(unit)
    assert await seqs(db) == [2, 3, 4, 5]


async def test_an_exception_rolls_back_its_own_unit_alone(db: Database) -> None:
    class Refused(Exception):
        pass

    async def refused(tx: Tx) -> None:
        await number(tx, new_id())
        raise Refused

    async def expect_refusal() -> None:
        with pytest.raises(Refused):
            await db.write(refused)

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(expect_refusal)
            nursery.start_soon(db.write, number, new_id())
    assert await seqs(db) == list(range(1, 21))


async def test_violations_have_names(db: Database) -> None:
    thing = new_id()
    await db.write(number, thing)
    with pytest.raises(UniqueViolation) as caught:
        await db.write(number, thing)
    assert "things" in caught.value.name
    assert "id" in caught.value.name
    with pytest.raises(UniqueViolation):
        await db.write(run, INSERT, 1, None)
    for wrong in (
        "UPDATE counters SET value = -1",
        "INSERT INTO counters (name) VALUES ('no value')",
        "INSERT INTO things (seq, counter) VALUES (7, 'nowhere')",
    ):
        with pytest.raises(ConstraintViolation):
            await db.write(run, wrong)
    assert await seqs(db) == [1]


async def test_wrong_sql_is_our_bug_and_harms_nobody(db: Database) -> None:
    with pytest.raises(RuntimeError):
        await db.write(run, "INSERT INTO nowhere VALUES (1)")
    with pytest.raises(RuntimeError):
        await db.read(rows, "SELEKT 1")
    assert await db.write(number, new_id()) == 1


async def test_a_read_cannot_write(db: Database) -> None:
    with pytest.raises(RuntimeError):
        await db.read(number, new_id())
    assert await seqs(db) == []


async def test_a_unit_may_await_nothing_else(db: Database) -> None:
    async def sleeps(tx: Tx) -> None:
        await number(tx, new_id())
        await trio.lowlevel.checkpoint()

    for method in (db.write, db.read):
        with pytest.raises(RuntimeError):
            await method(sleeps)
    assert await db.write(number, new_id()) == 1


async def test_a_transaction_cannot_be_kept(db: Database) -> None:
    kept: list[Tx] = []

    async def keep(tx: Tx) -> None:
        kept.append(tx)

    await db.write(keep)
    await db.read(keep)
    for tx in kept:
        with pytest.raises(RuntimeError):
            await tx.run("DELETE FROM counters")
    assert await db.write(number, new_id()) == 1


async def test_cancelled_before_it_began_nothing_is_written(db: Database) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await db.write(number, new_id())
    assert scope.cancelled_caught
    assert await seqs(db) == []


async def test_numbers_stay_dense_whoever_is_cancelled(db: Database) -> None:
    """400 of 800 senders are cancelled at a random moment: each unit happened whole or not at all, and
    whoever was not cancelled was told its number."""
    chance = random.Random(4)
    told: dict[int, str] = {}
    scopes: list[trio.CancelScope] = []

    async def send(scope: trio.CancelScope) -> None:
        thing = new_id()
        with scope:
            told[await db.write(number, thing)] = thing

    async with trio.open_nursery() as nursery:
        for _ in range(800):
            scopes.append(trio.CancelScope())
            nursery.start_soon(send, scopes[-1])
            if chance.random() < 0.5:
                await trio.lowlevel.checkpoint()
            if len(scopes) % 2 == 0:
                chance.choice(scopes[-40:]).cancel()
    stored = dict(await db.read(rows, "SELECT seq, id FROM things"))
    assert sorted(stored) == list(range(1, len(stored) + 1))
    assert told.items() <= stored.items()
    assert 400 <= len(told) < 800


async def test_relieve_writes_too(db: Database) -> None:
    assert await db.relieve(number, new_id()) == 1
    assert await seqs(db) == [1]


async def test_the_databases_time_is_now(db: Database) -> None:
    assert abs(db.now_us() - clock.now_us()) < 2 * clock.SECOND_US
