"""The audit chain: what is recorded, sealed, erased, and every way of tampering with it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import trio

from kit.databases import on_sqlite
from kit.scrape import value
from kit.wait import until
from secureconnect import metrics
from secureconnect.audit import SEAL_ROWS, Audit, Verdict, forget, read_head, record, verify
from secureconnect.config import AuditConfig
from secureconnect.deps.contracts import Database, Row, Tx
from secureconnect.identity import UserId, new_id

KEY, KEY_ID = bytes(range(32)), "k1"
ANN, BOB = UserId(new_id()), UserId(new_id())


def sealer(db: Database, data_dir: Path, key: bytes = KEY, key_id: str = KEY_ID) -> Audit:
    return Audit(AuditConfig(), db, key, key_id, data_dir / "audit.head")


async def check(db: Database, data_dir: Path) -> Verdict:
    return await verify(db, {KEY_ID: KEY}, data_dir / "audit.head")


async def note(db: Database, count: int, actor: UserId = ANN) -> None:
    """`count` deeds, each with personal fields, in one transaction."""

    async def unit(tx: Tx) -> None:
        for number in range(count):
            await record(
                tx,
                action="auth:session:opened",
                actor=actor,
                subject=f"session-{number}",
                address="192.0.2.7",
                facts={"number": number, "user_agent": "Firefox"},
                now_us=db.now_us(),
            )

    await db.write(unit)


async def rows(db: Database, sql: str = "SELECT * FROM audit") -> list[Row]:
    async def unit(tx: Tx) -> list[Row]:
        return await tx.all(sql)

    return await db.read(unit)


async def tamper(db: Database, *statements: str) -> None:
    """What somebody with a shell on the database and no key does."""

    async def unit(tx: Tx) -> None:
        for statement in statements:
            assert await tx.run(statement) != 0, "the statement must hit something"

    await db.write(unit)


async def test_a_record_is_part_of_the_change_it_is_about(db: Database) -> None:
    async def undone(tx: Tx) -> None:
        await record(tx, action="auth:session:opened", actor=ANN, now_us=1)
        raise LookupError

    with pytest.raises(LookupError):
        await db.write(undone)
    assert await rows(db) == []


async def test_what_stands_in_a_row(db: Database) -> None:
    await note(db, 1)
    ((facts, personal, salt, commitment, position),) = await rows(
        db, "SELECT facts, personal, salt, commitment, position FROM audit"
    )
    assert json.loads(facts) == {"number": 0}
    assert json.loads(personal) == {"address": "192.0.2.7", "user_agent": "Firefox"}
    assert (len(salt), len(commitment), position) == (16, 32, None)


async def test_an_unknown_action_is_a_bug(db: Database) -> None:
    async def unit(tx: Tx) -> None:
        await record(tx, action="auth:session:opend", actor=None, now_us=1)

    with pytest.raises(ValueError, match="opend"):
        await db.write(unit)


async def test_a_whole_chain(db: Database, data_dir: Path) -> None:
    audit = sealer(db, data_dir)
    assert await audit.seal_once() == 0
    await note(db, 3)
    assert await audit.seal_once() == 3
    await note(db, 2, BOB)
    assert await audit.seal_once() == 2
    await note(db, 4)
    verdict = await check(db, data_dir)
    assert verdict.whole
    assert (verdict.sealed, verdict.unsealed, verdict.erased, verdict.findings) == (5, 4, 0, [])
    assert verdict.file is not None
    assert verdict.file.count == 5
    assert verdict.oldest_unsealed_us is not None


async def test_an_empty_log_is_whole(db: Database, data_dir: Path) -> None:
    verdict = await check(db, data_dir)
    assert (verdict.whole, verdict.sealed, verdict.file) == (True, 0, None)
    await sealer(db, data_dir).seal_once()
    assert (await check(db, data_dir)).whole


async def test_more_rows_than_one_transaction_seals(db: Database, data_dir: Path) -> None:
    await note(db, SEAL_ROWS * 2 + 1)
    assert await sealer(db, data_dir).seal_once() == SEAL_ROWS * 2 + 1
    verdict = await check(db, data_dir)
    assert (verdict.whole, verdict.sealed) == (True, SEAL_ROWS * 2 + 1)


async def test_racing_sealers_make_one_chain(db: Database, data_dir: Path) -> None:
    await note(db, 1500)
    async with trio.open_nursery() as nursery:
        for number in range(4):
            other = Audit(AuditConfig(), db, KEY, KEY_ID, data_dir / f"head-{number}")
            nursery.start_soon(other.seal_once)
    verdict = await check(db, data_dir)
    assert (verdict.whole, verdict.sealed, verdict.unsealed) == (True, 1500, 0)
    heads = [read_head(data_dir / f"head-{number}") for number in range(4)]
    assert max(head.count for head in heads if head) == 1500


async def test_a_rotated_key_starts_a_new_segment(db: Database, data_dir: Path) -> None:
    await note(db, 2)
    await sealer(db, data_dir).seal_once()
    await note(db, 2)
    await sealer(db, data_dir, bytes(32), "k2").seal_once()
    head_file = data_dir / "audit.head"
    assert (await verify(db, {KEY_ID: KEY, "k2": bytes(32)}, head_file)).whole
    verdict = await verify(db, {"k2": bytes(32)}, head_file)
    assert verdict.findings == [f"row {n} is sealed with key k1, which is not at hand" for n in (1, 2)]


async def test_erasing_a_person_leaves_the_chain_whole(db: Database, data_dir: Path) -> None:
    audit = sealer(db, data_dir)
    await note(db, 2)
    await note(db, 2, BOB)
    await audit.seal_once()
    await note(db, 1)
    assert await db.write(forget, ANN) == 3
    await audit.seal_once()
    verdict = await check(db, data_dir)
    assert (verdict.whole, verdict.sealed, verdict.erased) == (True, 5, 3)
    left = await rows(db, "SELECT actor_id FROM audit WHERE personal IS NOT NULL OR salt IS NOT NULL")
    assert left == [(BOB,), (BOB,)]


SEALED = "UPDATE audit SET "
COPY = (
    f"INSERT INTO audit SELECT '{new_id()}', recorded_at, action, actor_id, subject, facts, personal, salt,"
    " commitment, {position}, key_id, seal FROM audit WHERE position = 1"
)
TAMPERING = {
    "action": f"{SEALED} action = 'auth:session:ended' WHERE position = 4",
    "actor": f"{SEALED} actor_id = '{BOB}' WHERE position = 4",
    "nobody": f"{SEALED} actor_id = NULL WHERE position = 4",
    "subject": f"{SEALED} subject = 'another' WHERE position = 4",
    "time": f"{SEALED} recorded_at = (SELECT MAX(applied_at) FROM schema_migrations) WHERE position = 4",
    "facts": f"{SEALED} facts = '{{}}' WHERE position = 4",
    "id": f"{SEALED} audit_id = '{new_id()}' WHERE position = 4",
    "personal": f'{SEALED} personal = \'{{"address":"192.0.2.8"}}\' WHERE position = 4',
    "salt": f"{SEALED} salt = NULL WHERE position = 4",
    "commitment": f"{SEALED} commitment = NULL, personal = NULL, salt = NULL WHERE position = 4",
    "key": f"{SEALED} key_id = 'k2' WHERE position = 4",
    "seal": f"{SEALED} seal = (SELECT seal FROM audit WHERE position = 5) WHERE position = 4",
    "no seal": f"{SEALED} seal = NULL WHERE position = 4",
    "no last seal": f"{SEALED} seal = NULL WHERE position = 8",
    "first": f"{SEALED} subject = 'another' WHERE position = 1",
    "last": f"{SEALED} subject = 'another' WHERE position = 8",
    "removed": "DELETE FROM audit WHERE position = 4",
    "first removed": "DELETE FROM audit WHERE position = 1",
    "cut": "DELETE FROM audit WHERE position > 6",
    "all cut": "DELETE FROM audit",
    "unsealed again": f"{SEALED} position = NULL, key_id = NULL, seal = NULL WHERE position = 8",
    "inserted before": COPY.format(position=0),
    "inserted after": COPY.format(position=9),
}


@pytest.mark.parametrize("statement", TAMPERING.values(), ids=TAMPERING)
async def test_tampering_is_found(db: Database, data_dir: Path, statement: str) -> None:
    await note(db, 8)
    await sealer(db, data_dir).seal_once()
    assert (await check(db, data_dir)).whole
    await tamper(db, statement)
    verdict = await check(db, data_dir)
    assert not verdict.whole
    assert verdict.findings


async def test_the_finding_names_the_row(db: Database, data_dir: Path) -> None:
    await note(db, 8)
    await sealer(db, data_dir).seal_once()
    await tamper(db, TAMPERING["subject"])
    ((audit_id,),) = await rows(db, "SELECT audit_id FROM audit WHERE position = 4")
    assert (await check(db, data_dir)).findings == [f"row 4 ({audit_id}) was changed, inserted or moved"]


async def test_swapped_rows_are_found(db: Database, data_dir: Path) -> None:
    await note(db, 8)
    await sealer(db, data_dir).seal_once()
    swap = [f"{SEALED} position = {new} WHERE position = {old}" for old, new in ((4, 0), (5, 4), (0, 5))]
    await tamper(db, *swap)
    assert not (await check(db, data_dir)).whole


async def test_many_findings_are_counted_and_a_few_said(db: Database, data_dir: Path) -> None:
    await note(db, 100)
    await sealer(db, data_dir).seal_once()
    await tamper(db, f"{SEALED} subject = 'x'")
    verdict = await check(db, data_dir)
    assert verdict.faults == 100
    assert len(verdict.findings) == 20


REWIND = (
    "DELETE FROM audit WHERE position > 5",
    "UPDATE audit_head SET count = 5, seal = (SELECT seal FROM audit WHERE position = 5)",
)


async def test_a_cut_end_with_a_rewound_head_is_found_by_the_head_file(db: Database, data_dir: Path) -> None:
    await note(db, 8)
    await sealer(db, data_dir).seal_once()
    await tamper(db, *REWIND)
    verdict = await check(db, data_dir)
    assert verdict.findings == ["the head file names row 8, which is not in the chain as it was"]
    (data_dir / "audit.head").unlink()
    verdict = await check(db, data_dir)
    assert verdict.whole, "nothing but the file can tell"
    assert verdict.file is None, "and this says that there was none"


@pytest.mark.parametrize("restarted", [False, True])
async def test_the_sealer_does_not_cover_up_a_cut(db: Database, data_dir: Path, restarted: bool) -> None:
    """Rows written after the cut make the chain long again; the head file still names what is gone."""
    audit = sealer(db, data_dir)
    await note(db, 8)
    await audit.seal_once()
    evidence = (data_dir / "audit.head").read_bytes()
    await tamper(db, *REWIND)
    await note(db, 10)
    if restarted:
        async with trio.open_nursery() as nursery:
            await nursery.start(sealer(db, data_dir).run)
            nursery.cancel_scope.cancel()
    else:
        assert await audit.seal_once() == 10
    assert value("secureconnect_audit_chain_whole") == 0
    verdict = await check(db, data_dir)
    assert verdict.sealed == 15
    assert verdict.findings == ["the head file names row 8, which is not in the chain as it was"]
    assert (data_dir / "audit.head").read_bytes() == evidence


@on_sqlite
async def test_the_sealer_does_not_seal_again_what_changes_before_its_lock(
    db: Database, data_dir: Path
) -> None:
    """Somebody holds the database's lock while it looks, takes back the last seal and changes the row."""
    audit = sealer(db, data_dir)
    await note(db, 8)
    await audit.seal_once()
    await note(db, 1)
    evidence = (data_dir / "audit.head").read_bytes()
    with closing(sqlite3.connect(data_dir / "secureconnect.db", isolation_level=None)) as file:
        file.execute("BEGIN IMMEDIATE")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(audit.seal_once)
            await until(writing, within_s=5)
            for statement in (
                f"{SEALED} position = NULL, seal = NULL, key_id = NULL, actor_id = NULL WHERE position = 8",
                "UPDATE audit_head SET count = 7, seal = (SELECT seal FROM audit WHERE position = 7)",
                "COMMIT",
            ):
                file.execute(statement)
    assert (data_dir / "audit.head").read_bytes() == evidence
    assert not (await check(db, data_dir)).whole


def writing() -> bool:
    return metrics.REGISTRY.get_sample_value("db_connections_active", {"role": "writer"}) == 1


async def test_a_chain_without_its_last_seal_goes_on(db: Database, data_dir: Path) -> None:
    audit = sealer(db, data_dir)
    await note(db, 8)
    await audit.seal_once()
    await tamper(db, TAMPERING["no last seal"])
    await note(db, 2)
    assert await audit.seal_once() == 2
    assert not (await check(db, data_dir)).whole


BAD_HEADS = [
    b"",
    b"what",
    b"1",
    b"1 zz",
    b"x 00",
    b"\xff",
    b"-1 " + b"00" * 32,
    b"9" * 30 + b" " + b"00" * 32,
]


@pytest.mark.parametrize("content", BAD_HEADS)
async def test_an_unreadable_head_file_is_found_and_kept(
    db: Database, data_dir: Path, content: bytes
) -> None:
    path = data_dir / "audit.head"
    await note(db, 1)
    path.write_bytes(content)
    async with trio.open_nursery() as nursery:
        await nursery.start(sealer(db, data_dir).run)
        nursery.cancel_scope.cancel()
    verdict = await check(db, data_dir)
    assert verdict.sealed == 1
    assert len(verdict.findings) == 1
    assert verdict.findings[0] == f"the head file {path} is unreadable: it is no row and its seal"
    assert path.read_bytes() == content


async def test_a_head_file_that_cannot_be_read_stops_nothing(db: Database, data_dir: Path) -> None:
    (data_dir / "audit.head").mkdir()
    await note(db, 1)
    async with trio.open_nursery() as nursery:
        await nursery.start(sealer(db, data_dir).run)
        nursery.cancel_scope.cancel()
    verdict = await check(db, data_dir)
    assert (verdict.sealed, verdict.faults) == (1, 1)


async def test_what_is_not_sealed_yet_is_sealed_at_the_end(db: Database, data_dir: Path) -> None:
    audit = Audit(AuditConfig(seal_ms=2_000), db, KEY, KEY_ID, data_dir / "audit.head")
    async with trio.open_nursery() as nursery:
        await nursery.start(audit.run)
        await note(db, 3)
        nursery.cancel_scope.cancel()
    verdict = await check(db, data_dir)
    assert (verdict.whole, verdict.sealed, verdict.unsealed) == (True, 3, 0)


async def test_it_seals_by_itself_and_goes_on_after_a_restart(db: Database, data_dir: Path) -> None:
    async def sealed(count: int) -> None:
        async def are() -> bool:
            return (await check(db, data_dir)).sealed == count

        await until(are, within_s=10)

    for round_ in (1, 2):
        audit = Audit(AuditConfig(seal_ms=10), db, KEY, KEY_ID, data_dir / "audit.head")
        async with trio.open_nursery() as nursery:
            await nursery.start(audit.run)
            await note(db, 5)
            await sealed(5 * round_)
            assert value("secureconnect_audit_chain_whole") == 1
            nursery.cancel_scope.cancel()
    assert (await check(db, data_dir)).whole


async def test_verifying_beside_a_busy_sealer(db: Database, data_dir: Path) -> None:
    audit = sealer(db, data_dir)

    async def write_on() -> None:
        while True:
            await note(db, 7)
            await audit.seal_once()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write_on)
        for _ in range(20):
            verdict = await check(db, data_dir)
            assert verdict.findings == []
        nursery.cancel_scope.cancel()


@on_sqlite
async def test_an_idle_sealer_writes_nothing(db: Database, data_dir: Path) -> None:
    audit = sealer(db, data_dir)
    await note(db, 1)
    await audit.seal_once()

    def state() -> tuple[int, int]:
        return (data_dir / "audit.head").stat().st_mtime_ns, (
            data_dir / "secureconnect.db-wal"
        ).stat().st_size

    before = state()
    for _ in range(5):
        assert await audit.seal_once() == 0
    assert state() == before
