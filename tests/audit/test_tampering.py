"""Whatever somebody without the key does to a sealed log, of whatever history, is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from secureconnect.audit import ACTIONS, Audit, Verdict, forget, record, verify
from secureconnect.clock import DAY_US
from secureconnect.config import AuditConfig
from secureconnect.deps.contracts import Database, Tx
from secureconnect.identity import UserId, new_id

KEY, KEY_ID = bytes(range(32)), "k1"
PEOPLE = [UserId(new_id()) for _ in range(3)]
KEEP_DAYS = 30
ROUNDS = {"sqlite": 10, "postgres": 3}

DEEDS = sorted(ACTIONS - {"audit:log:restored"})  # which names what stands before it: tests/backup/


class Log:
    """A sealed log of a random history: rows of several days, sealed in turn; some cut, people forgotten."""

    def __init__(self, db: Database, folder: Path, chance: Random) -> None:
        self.db, self.chance, self._head_file = db, chance, folder / "audit.head"
        self._audit = Audit(AuditConfig(keep_days=KEEP_DAYS), db, KEY, KEY_ID, self._head_file)

    async def live(self) -> None:
        await self.db.write(self._empty)
        self._head_file.unlink(missing_ok=True)
        self._audit = Audit(AuditConfig(keep_days=KEEP_DAYS), self.db, KEY, KEY_ID, self._head_file)
        ages = sorted(self.chance.uniform(0, 2 * KEEP_DAYS) for _ in range(self.chance.randint(4, 12)))
        for days in reversed(ages):
            await self.db.write(self._note, int(days * DAY_US))
            if self.chance.random() < 0.5:
                await self._audit.seal_once()
        await self._audit.seal_once()
        if self.chance.random() < 0.6:
            await self._audit.cut_once()
            await self._audit.seal_once()
        if self.chance.random() < 0.3:
            await self.db.write(forget, self.chance.choice(PEOPLE))

    async def verdict(self) -> Verdict:
        return await verify(self.db, {KEY_ID: KEY}, self._head_file)

    @staticmethod
    async def _empty(tx: Tx) -> None:
        for table in ("audit", "audit_head", "audit_anchor"):
            await tx.run(f"DELETE FROM {table}")

    async def _note(self, tx: Tx, age_us: int) -> None:
        await record(
            tx,
            action=self.chance.choice(DEEDS),
            actor=self.chance.choice([*PEOPLE, None]),
            subject=self.chance.choice([new_id(), None]),
            address=self.chance.choice(["192.0.2.7", None]),
            facts={"number": self.chance.randint(0, 9)},
            now_us=self.db.now_us() - age_us,
        )


# what somebody does; each is given the positions there are


async def change(tx: Tx, chance: Random, at: list[int]) -> None:
    spoiled: list[tuple[str, str | int | bytes]] = [
        ("action", "auth:session:none"),
        ("actor_id", new_id()),
        ("subject", "another"),
        ("facts", '{"number":10}'),
        ("recorded_at", 1),
        ("audit_id", new_id()),
        ("personal", '{"address":"192.0.2.8"}'),
        ("commitment", bytes(32)),
        ("key_id", "k2"),
        ("seal", bytes(32)),
    ]
    column, value = chance.choice(spoiled)
    assert await tx.run(f"UPDATE audit SET {column} = $1 WHERE position = $2", value, chance.choice(at))


async def remove(tx: Tx, chance: Random, at: list[int]) -> None:
    assert await tx.run("DELETE FROM audit WHERE position = $1", chance.choice(at))


async def insert(tx: Tx, chance: Random, at: list[int]) -> None:
    """A copy of a row behind another; what comes after moves on."""
    place, source = chance.choice(at), chance.choice(at)
    await tx.run("UPDATE audit SET position = -position WHERE position > $1", place)
    await tx.run("UPDATE audit SET position = 1 - position WHERE position < 0")
    await tx.run(
        "INSERT INTO audit SELECT $1, recorded_at, action, actor_id, subject, facts, personal, salt,"
        " commitment, $2, key_id, seal FROM audit WHERE position = $3",
        new_id(),
        place + 1,
        source if source <= place else source + 1,
    )
    await tx.run("UPDATE audit_head SET count = count + 1")


async def swap(tx: Tx, chance: Random, at: list[int]) -> None:
    one, other = chance.sample(at, 2)
    for old, new in ((one, -1), (other, one), (-1, other)):
        assert await tx.run("UPDATE audit SET position = $1 WHERE position = $2", new, old)


async def cut_end(tx: Tx, chance: Random, at: list[int]) -> None:
    """The head follows, as if it had always been there."""
    left = chance.choice(at[:-1])
    await tx.run("DELETE FROM audit WHERE position > $1", left)
    await tx.run(
        "UPDATE audit_head SET count = $1, seal = (SELECT seal FROM audit WHERE position = $1)", left
    )


async def unseal(tx: Tx, chance: Random, at: list[int]) -> None:
    sql = "UPDATE audit SET position = NULL, key_id = NULL, seal = NULL WHERE position = $1"
    assert await tx.run(sql, chance.choice(at))


async def cut_beginning(tx: Tx, chance: Random, at: list[int]) -> None:
    """As retention does it, but for the proof: that of an earlier cut, or none."""
    gone = chance.choice(at[:-1])
    args: tuple[Any, ...] = ("head", gone, 1, KEY_ID, bytes(32))
    await tx.run(
        "INSERT INTO audit_anchor (name, position, seal, cut_at, key_id, proof)"
        " SELECT $1, position, seal, $3, $4, $5 FROM audit WHERE position = $2"
        " ON CONFLICT (name) DO UPDATE SET position = excluded.position, seal = excluded.seal",
        *args,
    )
    await tx.run("DELETE FROM audit WHERE position <= $1", gone)


async def drop_anchor(tx: Tx, chance: Random, at: list[int]) -> None:
    """Or a row, where nothing was cut."""
    if not await tx.run("DELETE FROM audit_anchor"):
        await remove(tx, chance, at)


TAMPERINGS: dict[str, Callable[[Tx, Random, list[int]], Any]] = {
    each.__name__: each
    for each in (change, remove, insert, swap, cut_end, unseal, cut_beginning, drop_anchor)
}


async def dialect_of(tx: Tx) -> str:
    return tx.dialect


async def positions(tx: Tx) -> list[int]:
    rows = await tx.all("SELECT position FROM audit WHERE position IS NOT NULL ORDER BY position")
    return [position for (position,) in rows]


@pytest.mark.parametrize("name", TAMPERINGS)
async def test_tampering_of_any_log_is_found(db: Database, data_dir: Path, name: str) -> None:
    missed = []
    for seed in range(ROUNDS[await db.read(dialect_of)]):
        chance = Random(f"{name} {seed}")
        log = Log(db, data_dir, chance)
        await log.live()
        verdict = await log.verdict()
        assert verdict.whole, (seed, verdict.findings)
        at = await db.read(positions)
        if len(at) < 2:
            continue
        await db.write(TAMPERINGS[name], chance, at)
        if (await log.verdict()).whole:
            missed.append(seed)
    assert not missed
