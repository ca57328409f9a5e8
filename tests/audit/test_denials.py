"""Refusals: noted without waiting, merged, bounded, written in the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio

from secureconnect.audit import Audit, verify
from secureconnect.audit import log as audit_log
from secureconnect.audit.log import DENIALS, SUBJECTS
from secureconnect.clock import MINUTE_US
from secureconnect.config import AuditConfig
from secureconnect.deps.contracts import Database, Tx
from secureconnect.edge import Call
from secureconnect.errors import Forbidden, NotFound, Problem
from secureconnect.identity import DeviceId, Principal, SessionId, UserId, new_id

ANN, BOB = UserId(new_id()), UserId(new_id())


class Clock:
    """Stands where the module looks for the time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.us = 1_000 * MINUTE_US
        monkeypatch.setattr(audit_log, "now_us", lambda: self.us)

    def pass_minute(self) -> None:
        self.us += MINUTE_US


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def call(user: UserId | None, address: str = "192.0.2.1") -> Call:
    principal = user and Principal(user, SessionId(new_id()), DeviceId(new_id()), "user", 0)
    return Call(request_id="r", address=address, deadline=0, principal=principal or None)


def refusal(subject: str = "c1") -> Problem:
    return Forbidden(denial="denied:forbidden", subject=subject)


def noter(db: Database, data_dir: Path, waiting: int = 10_000) -> Audit:
    config = AuditConfig(denials_waiting=waiting)
    return Audit(config, db, bytes(32), "k1", data_dir / "audit.head")


async def written(db: Database) -> list[tuple[Any, ...]]:
    """(actor, subject, times) of each row, in order."""

    async def unit(tx: Tx) -> list[tuple[Any, ...]]:
        return await tx.all("SELECT actor_id, subject, facts FROM audit ORDER BY audit_id")

    return [(actor, subject, json.loads(facts)["times"]) for actor, subject, facts in await db.read(unit)]


async def test_a_refusal_is_written_soon_and_its_repetitions_once(
    db: Database, data_dir: Path, clock: Clock
) -> None:
    audit = noter(db, data_dir)
    audit.deny(refusal(), call(ANN))
    audit.deny(refusal(), call(ANN))
    assert await audit.flush_denials() == 1
    assert await written(db) == [(ANN, "c1", 2)]
    for _ in range(50):
        audit.deny(refusal(), call(ANN))
    assert await audit.flush_denials() == 0
    clock.pass_minute()
    assert await audit.flush_denials() == 1
    assert await written(db) == [(ANN, "c1", 2), (ANN, "c1", 50)]
    assert await audit.flush_denials() == 0


async def test_a_clock_that_is_set_back_keeps_nothing_waiting(
    db: Database, data_dir: Path, clock: Clock
) -> None:
    audit = noter(db, data_dir)
    for _ in range(3):
        audit.deny(refusal(), call(ANN))
        await audit.flush_denials()
    clock.us -= 60 * MINUTE_US
    assert await audit.flush_denials() == 1
    assert await written(db) == [(ANN, "c1", 1), (ANN, "c1", 2)]


async def test_merged_per_actor_tag_subject_and_minute(db: Database, data_dir: Path, clock: Clock) -> None:
    audit = noter(db, data_dir)
    for _ in range(3):
        audit.deny(refusal(), call(ANN))
        audit.deny(refusal(), call(BOB))
        audit.deny(refusal("c2"), call(ANN))
        audit.deny(refusal(), call(None, "192.0.2.1"))
        audit.deny(refusal(), call(None, "192.0.2.2"))
    clock.pass_minute()
    audit.deny(refusal(), call(ANN))
    await audit.flush_denials()
    assert await written(db) == [
        (ANN, "c1", 3),
        (BOB, "c1", 3),
        (ANN, "c2", 3),
        (None, "c1", 3),
        (None, "c1", 3),
        (ANN, "c1", 1),
    ]


async def test_a_problem_that_is_no_denial_is_not_noted(db: Database, data_dir: Path) -> None:
    audit = noter(db, data_dir)
    audit.deny(NotFound(), call(ANN))
    assert await audit.flush_denials(last=True) == 0


async def test_a_flood_is_bounded_and_counted(db: Database, data_dir: Path) -> None:
    lost = DENIALS.labels("lost")
    before = lost._value.get()
    audit = noter(db, data_dir, waiting=10)
    for number in range(1_000):
        audit.deny(refusal(f"c{number}"), call(ANN))
    assert lost._value.get() - before == 990
    assert await audit.flush_denials() == 10


async def test_whoever_tries_everything_leaves_a_few_rows(db: Database, data_dir: Path, clock: Clock) -> None:
    audit = noter(db, data_dir)
    for _ in range(2):
        for number in range(100):
            audit.deny(refusal(f"c{number}"), call(ANN))
        audit.deny(refusal(), call(BOB))
        await audit.flush_denials()
        clock.pass_minute()
    await audit.flush_denials()
    rows = await written(db)
    assert len(rows) == 2 * (SUBJECTS + 2)
    assert sum(times for who, _, times in rows if who == ANN) == 200
    assert [times for who, subject, times in rows if subject is None] == [100 - SUBJECTS] * 2
    assert [row for row in rows if row[0] == BOB] == [(BOB, "c1", 1)] * 2
    assert audit._subjects == {}, "and it is forgotten"


async def test_nothing_is_lost_while_the_table_is_written(db: Database, data_dir: Path, clock: Clock) -> None:
    audit = noter(db, data_dir)
    audit.deny(refusal(), call(ANN))

    async def flush() -> None:
        await audit.flush_denials()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flush)
        await trio.lowlevel.checkpoint()
        audit.deny(refusal(), call(ANN))
    await audit.flush_denials(last=True)
    assert sum(times for *_, times in await written(db)) == 2


async def test_what_waits_is_written_and_sealed_at_the_end(
    db: Database, data_dir: Path, clock: Clock
) -> None:
    audit = noter(db, data_dir)
    async with trio.open_nursery() as nursery:
        await nursery.start(audit.run)
        audit.deny(refusal(), call(ANN))
        await audit.flush_denials()
        audit.deny(refusal(), call(ANN))
        nursery.cancel_scope.cancel()
    assert await written(db) == [(ANN, "c1", 1), (ANN, "c1", 1)]
    verdict = await verify(db, {"k1": bytes(32)}, data_dir / "audit.head")
    assert (verdict.whole, verdict.sealed) == (True, 2)
