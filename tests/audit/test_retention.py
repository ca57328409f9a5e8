"""Old rows leave the log, and what is left can still be checked; so can what is left of a person."""

from __future__ import annotations

import json
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import trio

from kit.wait import until
from secureconnect.audit import Audit, Verdict, chain, export, forget, log, record, verify
from secureconnect.audit.chain import PAGE_ROWS, page_and_anchor, read_head, write_head
from secureconnect.clock import DAY_US
from secureconnect.config import AuditConfig
from secureconnect.deps.contracts import Database, Tx
from secureconnect.edge import Call
from secureconnect.errors import DiskFull, Forbidden
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


class Lent:
    """A database, a part of which a test replaces."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def read(self, unit: Any, *args: Any) -> Any:
        return await self._db.read(unit, *args)

    async def write(self, unit: Any, *args: Any) -> Any:
        return await self._db.write(unit, *args)

    async def relieve(self, unit: Any, *args: Any) -> Any:
        return await self._db.relieve(unit, *args)

    def now_us(self) -> int:
        return self._db.now_us()


class Cutting(Lent):
    """Before each page that is read, which has one row, rows are written and sealed, and those older than so
    many days go."""

    def __init__(self, db: Database, folder: Path, *keep_days: int) -> None:
        super().__init__(db)
        self._audits = [keeper(db, folder, days) for days in keep_days]

    async def read(self, unit: Any, *args: Any) -> Any:
        if unit is not page_and_anchor:
            return await super().read(unit, *args)
        if self._audits:
            audit = self._audits.pop(0)
            await note(self._db, 30.5, 0)
            await audit.seal_once()
            assert await audit.cut_once() > 0
        rows, anchor = await super().read(unit, *args)
        return rows[:1], anchor


# none is left of those that are checked, or only the last ones; again and again
@pytest.mark.parametrize("keep_days", [(45,), (45, 35), (30,), (45, 42, 38, 35, 32)])
async def test_rows_that_go_while_they_are_checked_are_no_fault(
    db: Database, data_dir: Path, keep_days: tuple[int, ...]
) -> None:
    audit = keeper(db, data_dir)
    await note(db, 50, 44, 41, 37, 34, 31)
    await audit.seal_once()
    cutting: Any = Cutting(db, data_dir, *keep_days)
    verdict = await verify(cutting, {KEY_ID: KEY}, data_dir / "audit.head")
    assert (verdict.whole, verdict.findings) == (True, [])
    assert verdict.removed > 0


async def test_a_check_tells_how_far_it_is(
    db: Database, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chain, "_PAGE", chain._PAGE.replace(f"LIMIT {PAGE_ROWS}", "LIMIT 2"))
    await note(db, 1, 1, 1, 1, 1)
    await keeper(db, data_dir).seal_once()
    told: list[tuple[int, int]] = []
    verdict = await verify(db, {KEY_ID: KEY}, data_dir / "audit.head", lambda *far: told.append(far))
    assert (verdict.sealed, told) == (5, [(2, 5), (4, 5), (5, 5)])


class Full(Lent):
    """Its disk is nearly full."""

    async def write(self, unit: Any, *args: Any) -> Any:
        raise DiskFull


async def test_on_a_full_disk_rows_are_sealed_and_old_ones_go(db: Database, data_dir: Path) -> None:
    """What goes on then is in the log as well, and each row that is removed is room."""
    await note(db, 50, 40, 1)
    full: Any = Full(db)
    config = AuditConfig(keep_days=30, seal_ms=10, cut_pass_s=0.1)
    audit = Audit(config, full, KEY, KEY_ID, data_dir / "audit.head")
    call = Call(request_id="r", address="192.0.2.1", deadline=0)
    audit.deny(Forbidden(denial="denied:forbidden"), call)

    async def is_done() -> bool:
        verdict = await check(db, data_dir)
        return (verdict.removed, verdict.sealed) == (2, 2)

    async with trio.open_nursery() as nursery:
        await nursery.start(audit.run)
        await until(is_done)
        nursery.cancel_scope.cancel()
    assert (await check(db, data_dir)).whole


class Ahead(Lent):
    """Its clock is years ahead."""

    def now_us(self) -> int:
        return super().now_us() + 1_000 * DAY_US


async def test_whatever_is_broken_off_leaves_a_whole_log(db: Database, data_dir: Path) -> None:
    """Sealing, retention and erasure, each ended in the middle by a shutdown."""
    audit = keeper(db, data_dir)
    for steps in range(6):
        await note(db, 50, 45, 40)
        for work in (audit.seal_once, audit.cut_once, lambda: db.write(forget, ANN)):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(work)
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            verdict = await check(db, data_dir)
            assert verdict.whole, (steps, verdict.findings)
    await audit.seal_once()
    await audit.cut_once()
    await audit.seal_once()
    verdict = await check(db, data_dir)
    assert (verdict.whole, verdict.unsealed) == (True, 0)


async def test_a_clock_that_is_wrong_removes_nothing(
    db: Database, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await note(db, 20, 10, 1)
    ahead: Any = Ahead(db)
    audit = Audit(AuditConfig(keep_days=30), ahead, KEY, KEY_ID, data_dir / "audit.head")
    await audit.seal_once()
    assert await audit.cut_once() == 0
    monkeypatch.setattr(log, "now_us", ahead.now_us)
    assert await keeper(db, data_dir).cut_once() == 0
    assert await audit.cut_once() == 2, "both say so"


async def test_a_chain_that_lost_its_end_is_not_cut_at_the_start(db: Database, data_dir: Path) -> None:
    """Retention looks for itself, whatever the sealer has seen by then."""
    await note(db, 50, 40, 1, 0)
    await keeper(db, data_dir).seal_once()

    async def rewind(tx: Tx) -> None:
        await tx.run("DELETE FROM audit WHERE position > 3")
        await tx.run("UPDATE audit_head SET count = 3, seal = (SELECT seal FROM audit WHERE position = 3)")

    await db.write(rewind)
    late = keeper(db, data_dir)
    late._known = read_head(data_dir / "audit.head")  # as `run` reads it
    assert await late.cut_once() == 0
    assert len(await told(db)) == 3


@pytest.mark.parametrize("facts", ["none", "[]", '{"a":\n1}', '{}\n{"position":7}'])
async def test_what_somebody_made_unreadable_stays_on_its_line(
    db: Database, data_dir: Path, facts: str
) -> None:
    """No line of an export is one that nobody sealed."""
    await note(db, 2, 1)
    await keeper(db, data_dir).seal_once()

    async def spoil(tx: Tx) -> None:
        assert await tx.run("UPDATE audit SET facts = $1, recorded_at = $2 WHERE position = 1", facts, 2**60)

    await db.write(spoil)
    first, second = await told(db)
    assert (first["position"], second["position"]) == (1, 2)
    assert first["facts"] == {"unreadable": facts}
    assert first["recorded_at"] == "9999-12-31T23:59:59.000000Z"
