"""Old rows leave the log, and what is left can still be checked; so can what is left of a person."""

from __future__ import annotations

import json
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import trio

from kit.wait import until
from secureconnect.audit import Audit, Verdict, export, forget, record, verify
from secureconnect.audit.chain import PAGE_ROWS, page, read_head, write_head
from secureconnect.clock import DAY_US
from secureconnect.config import AuditConfig
from secureconnect.deps.contracts import Database, Tx
from secureconnect.identity import UserId, new_id

KEY, KEY_ID = bytes(range(32)), "k1"
ANN = UserId(new_id())


def keeper(db: Database, data_dir: Path, keep_days: int = 30, head: str = "audit.head") -> Audit:
    return Audit(AuditConfig(keep_days=keep_days), db, KEY, KEY_ID, data_dir / head)


async def check(db: Database, data_dir: Path) -> Verdict:
    return await verify(db, {KEY_ID: KEY}, data_dir / "audit.head")


async def note(db: Database, *ages_days: float) -> None:
    async def unit(tx: Tx) -> None:
        for days in ages_days:
            await record(
                tx,
                action="auth:session:opened",
                actor=ANN,
                address="192.0.2.7",
                now_us=db.now_us() - int(days * DAY_US),
            )

    await db.write(unit)


async def told(db: Database, after: int = 0) -> list[dict[str, object]]:
    async with aclosing(export(db, after)) as lines:
        return [json.loads(line) async for line in lines]


async def test_what_is_past_its_term_goes_and_the_rest_is_whole(db: Database, data_dir: Path) -> None:
    audit = keeper(db, data_dir)
    await note(db, 50, 40, 31, 29, 10)
    assert await audit.cut_once() == 0, "only what is sealed"
    await audit.seal_once()
    assert await audit.cut_once() == 3
    assert await audit.seal_once() == 1
    verdict = await check(db, data_dir)
    assert (verdict.whole, verdict.sealed, verdict.removed) == (True, 3, 3), verdict.findings
    assert verdict.cut_us is not None
    lines = await told(db)
    assert [line["position"] for line in lines] == [4, 5, 6]
    assert (lines[-1]["action"], lines[-1]["facts"]) == ("audit:log:cut", {"rows": 3, "up_to": 3})
    assert await audit.cut_once() == 0
    await note(db, 0)
    await audit.seal_once()
    assert (await check(db, data_dir)).whole


async def test_nothing_goes_unless_it_is_asked_for(db: Database, data_dir: Path) -> None:
    audit = keeper(db, data_dir, keep_days=0)
    await note(db, 50_000, 1)
    await audit.seal_once()
    assert await audit.cut_once() == 0
    assert AuditConfig().keep_days == 0


async def test_an_older_row_behind_a_younger_one_waits(db: Database, data_dir: Path) -> None:
    """Only a beginning can be removed."""
    audit = keeper(db, data_dir)
    await note(db, 50, 10)
    await audit.seal_once()
    await note(db, 40, 0)
    await audit.seal_once()
    assert await audit.cut_once() == 1


async def test_the_last_row_stays(db: Database, data_dir: Path) -> None:
    audit = keeper(db, data_dir)
    await note(db, 50, 40)
    await audit.seal_once()
    assert await audit.cut_once() == 1
    await audit.seal_once()
    assert (await check(db, data_dir)).whole


async def test_more_than_one_transaction_removes(db: Database, data_dir: Path) -> None:
    audit = keeper(db, data_dir)
    await note(db, *[50] * (PAGE_ROWS + 2))
    await audit.seal_once()
    assert await audit.cut_once() == PAGE_ROWS + 1
    await audit.seal_once()
    verdict = await check(db, data_dir)
    assert (verdict.whole, verdict.removed) == (True, PAGE_ROWS + 1)


async def test_evidence_of_tampering_is_not_removed(db: Database, data_dir: Path) -> None:
    audit = keeper(db, data_dir)
    await note(db, 50, 40, 35, 1)
    await audit.seal_once()

    async def change(tx: Tx) -> None:
        assert await tx.run("UPDATE audit SET subject = 'another' WHERE position = 2")

    await db.write(change)
    assert await audit.cut_once() == 0
    verdict = await check(db, data_dir)
    assert (verdict.sealed, verdict.faults) == (4, 1)


async def test_of_a_broken_chain_nothing_is_removed(db: Database, data_dir: Path) -> None:
    audit = keeper(db, data_dir)
    await note(db, 50, 40, 1, 0)
    await audit.seal_once()

    async def cut_end(tx: Tx) -> None:
        assert await tx.run("DELETE FROM audit WHERE position = 4")

    await db.write(cut_end)
    await audit.seal_once()
    assert await audit.cut_once() == 0


@pytest.mark.parametrize(("at", "whole", "older"), [(2, True, True), (3, True, False), (4, True, False)])
async def test_a_head_kept_elsewhere(db: Database, data_dir: Path, at: int, whole: bool, older: bool) -> None:
    """One that names a removed row proves nothing, and is no fault; a node that was off for long has one."""
    audit = keeper(db, data_dir)
    for number, days in enumerate([50, 40, 35, 1], start=1):
        await note(db, days)
        await audit.seal_once()
        if number == at:
            head = read_head(data_dir / "audit.head")
            assert head is not None
            write_head(data_dir / "kept.head", head)
    await audit.cut_once()
    await audit.seal_once()
    verdict = await verify(db, {KEY_ID: KEY}, data_dir / "kept.head")
    assert (verdict.whole, verdict.removed, verdict.is_file_older) == (whole, 3, older)
    late = keeper(db, data_dir, head="kept.head")
    late._known = read_head(data_dir / "kept.head")  # as `run` reads it
    await note(db, 0)
    await late.seal_once()
    newest = read_head(data_dir / "kept.head")
    assert newest is not None
    assert newest.count == 6, "it goes on from there, and found no fault"


async def test_erasing_a_person_and_removing_what_is_old_go_together(db: Database, data_dir: Path) -> None:
    audit = keeper(db, data_dir)
    await note(db, 50, 40, 1, 0)
    await audit.seal_once()
    assert await db.write(forget, ANN) == 4
    assert await audit.cut_once() == 2, "what is erased is still as it was sealed"
    await audit.seal_once()
    verdict = await check(db, data_dir)
    assert (verdict.whole, verdict.erased) == (True, 2)
    assert all(line["personal"] is None and line["salt"] is None for line in await told(db))


async def test_export_tells_every_sealed_row_in_order(db: Database, data_dir: Path) -> None:
    await note(db, *[0] * (PAGE_ROWS + 3))
    await keeper(db, data_dir).seal_once()
    await note(db, 0)
    lines = await told(db)
    assert [line["position"] for line in lines] == list(range(1, PAGE_ROWS + 4))
    assert lines[0]["actor_id"] == ANN
    assert lines[0]["personal"] == {"address": "192.0.2.7"}
    assert [line["position"] for line in await told(db, after=PAGE_ROWS)] == [
        PAGE_ROWS + 1,
        PAGE_ROWS + 2,
        PAGE_ROWS + 3,
    ]


async def test_it_is_done_by_itself(db: Database, data_dir: Path) -> None:
    async def is_done() -> bool:
        return (await check(db, data_dir)).removed == 2

    config = AuditConfig(keep_days=30, seal_ms=10, cut_pass_s=0.1)
    await note(db, 50, 40, 1)
    async with trio.open_nursery() as nursery:
        await nursery.start(Audit(config, db, KEY, KEY_ID, data_dir / "audit.head").run)
        await until(is_done, within_s=10)
        nursery.cancel_scope.cancel()
    assert (await check(db, data_dir)).whole


class Cutting:
    """A database in which old rows are removed as soon as somebody has begun to read them."""

    def __init__(self, db: Database, audit: Audit) -> None:
        self._db, self._audit, self._waits = db, audit, True

    async def read(self, unit: Any, *args: Any) -> Any:
        if unit is page and self._waits:
            self._waits = False
            assert await self._audit.cut_once() == 2
        return await self._db.read(unit, *args)


async def test_rows_that_go_while_they_are_checked_are_no_fault(db: Database, data_dir: Path) -> None:
    audit = keeper(db, data_dir)
    await note(db, 50, 40, 1)
    await audit.seal_once()
    cutting: Any = Cutting(db, audit)
    verdict = await verify(cutting, {KEY_ID: KEY}, data_dir / "audit.head")
    assert (verdict.whole, verdict.removed, verdict.findings) == (True, 2, [])
