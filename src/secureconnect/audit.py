"""The audit log: who did what, in rows that cannot be changed unseen (DATA.md, section 8).

`record` inserts a row in the transaction of the change itself. Once a second the sealer chains the committed
rows: each seal is an HMAC over the row and the seal before it, with a key derived from the master key. The
end of the chain goes to the log and to `audit.head` in the data folder, so that a cut end shows as well.
Refusals are merged in memory and written beside the seals, so that a flood of them costs next to nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import structlog
import trio

from . import metrics
from .clock import MINUTE_US, now_us
from .config import AuditConfig
from .deps.contracts import Database, Row, Tx
from .edge import Call
from .errors import Problem
from .identity import UserId, new_id

log = structlog.get_logger(module="audit")

ACTIONS = frozenset(
    {
        "auth:email:change_requested",
        "auth:email:changed",
        "auth:email:verified",
        "auth:key:rotated",
        "auth:password:reset",
        "auth:password:reset_requested",
        "auth:session:ended",
        "auth:session:opened",
        "auth:session:refused",
        "auth:session:stolen",
        "auth:user:registered",
        "chat:conversation:created",
        "chat:member:added",
        "chat:member:left",
        "chat:member:removed",
        "chat:message:deleted",
        "chat:message:edited",
        "denied:conversation",
        "denied:file",
        "denied:forbidden",
        "storage:file:deleted",
        "storage:file:downloaded",
        "storage:file:uploaded",
    }
)
# facts that say something about a person: kept so that they can be erased, like the address
PERSONAL = frozenset({"username", "email", "display_name", "device_name", "user_agent"})

SEALED = metrics.counter("secureconnect_audit_sealed_total", "Audit rows chained.")
DENIALS = metrics.counter("secureconnect_audit_denials_total", "Refusals noted.", ["result"])
_KEPT, _LOST = DENIALS.labels("kept"), DENIALS.labels("lost")
WHOLE = metrics.gauge(
    "secureconnect_audit_chain_whole", "1 while the audit chain goes on from the last known head, else 0."
)

SALT_BYTES = 16
SEAL_ROWS = 500  # rows sealed in one transaction: the writer is not held longer than a few milliseconds
LAST_PASS_S = 2.0
HEAD = "head"
FINDINGS = 20  # said one by one by `verify`; the others are counted
PAGE_ROWS = 1_000

Facts = Mapping[str, str | int | bool | None]

_RECORD = (
    "INSERT INTO audit (audit_id, recorded_at, action, actor_id, subject, facts, personal, salt, commitment)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
)
_LOCK_HEAD = (
    "INSERT INTO audit_head (name, count, seal) VALUES ($1, 0, $2)"
    " ON CONFLICT (name) DO UPDATE SET count = audit_head.count"
)
_MOVE_HEAD = "UPDATE audit_head SET count = $2, seal = $3 WHERE name = $1"
_GET_HEAD = "SELECT count, seal FROM audit_head WHERE name = $1"
_LAST = "SELECT position, seal FROM audit WHERE position IS NOT NULL ORDER BY position DESC LIMIT 1"
_WAITING = "SELECT audit_id FROM audit WHERE position IS NULL LIMIT 1"
_SEAL_AT = "SELECT seal FROM audit WHERE position = $1"
_ROW = "audit_id, recorded_at, action, actor_id, subject, facts, commitment"
_UNSEALED = f"SELECT {_ROW} FROM audit WHERE position IS NULL ORDER BY audit_id LIMIT {SEAL_ROWS}"  # noqa: S608
_SEAL = "UPDATE audit SET position = $2, key_id = $3, seal = $4 WHERE audit_id = $1"
_PAGE = (
    f"SELECT {_ROW}, position, key_id, seal, salt, personal FROM audit"  # noqa: S608
    f" WHERE position > $1 ORDER BY position LIMIT {PAGE_ROWS}"
)
_COUNT_SEALED = "SELECT COUNT(*) FROM audit WHERE position IS NOT NULL"
_COUNT_UNSEALED = "SELECT COUNT(*), MIN(recorded_at) FROM audit WHERE position IS NULL"
_FORGET = "UPDATE audit SET personal = NULL, salt = NULL WHERE actor_id = $1 OR subject = $2"


async def record(
    tx: Tx,
    *,
    action: str,
    actor: UserId | None,
    subject: str | None = None,
    address: str | None = None,
    facts: Facts | None = None,
    now_us: int,
) -> None:
    """Note one deed in the transaction that does it.

    action: one of ACTIONS.  actor: None when nobody is signed in.  subject: the id of what it was done to,
    never personal text.  facts: small; those named in PERSONAL and the address can be erased later.
    """
    if action not in ACTIONS:
        raise ValueError(f"{action} is not an audit action")
    given = facts or {}
    plain = {key: value for key, value in given.items() if key not in PERSONAL}
    private = {key: value for key, value in given.items() if key in PERSONAL}
    if address:
        private["address"] = address
    personal = salt = commitment = None
    if private:
        personal, salt = _json(private), os.urandom(SALT_BYTES)
        commitment = _commit(salt, personal)
    await tx.run(_RECORD, new_id(), now_us, action, actor, subject, _json(plain), personal, salt, commitment)


async def forget(tx: Tx, user: UserId) -> int:
    """Erase the personal fields of every row about a user; the chain stays whole. Returns how many rows."""
    return await tx.run(_FORGET, user, user)


@dataclass(frozen=True, slots=True)
class Head:
    """The end of the chain: how many rows are sealed, and the seal of the last one."""

    count: int
    seal: bytes

    def __str__(self) -> str:
        return f"{self.count} {self.seal.hex()}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """The inverse of str(). Raises ValueError."""
        count, seal = text.split()
        head = cls(int(count), bytes.fromhex(seal))
        if not 0 <= head.count < 2**63:
            raise ValueError("not a number of rows")
        return head


START = Head(0, bytes(32))


@dataclass(slots=True)
class _Denial:
    """Refusals of one kind, of one caller, about one thing, within one minute.

    times: not written yet.  first_us: of those.
    """

    action: str
    actor: UserId | None
    subject: str | None
    address: str
    minute: int
    code: str
    first_us: int
    times: int = 0
    written: bool = False


class Audit:
    """The sealer and the writer of refusals.

    key: derived from the master key, label `audit`.  key_id: the master key's.  head_file: rewritten with
    each new head; a head found there at the start is what the chain has to go on from.
    """

    def __init__(self, config: AuditConfig, db: Database, key: bytes, key_id: str, head_file: Path) -> None:
        self._config = config
        self._db = db
        self._key = key
        self._key_id = key_id
        self._head_file = head_file
        self._known: Head | None = None  # the chain was seen to reach this far
        self._whole = True
        self._denials: dict[tuple[str, str, str | None, int], _Denial] = {}
        self._lost = 0
        self._waits = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write refusals and seal, every `seal_ms`, until cancelled; then once more."""
        WHOLE.set(self._whole)
        try:
            self._known = await trio.to_thread.run_sync(read_head, self._head_file)
        except (ValueError, OSError):
            self._judge("the head file is unreadable")
        task_status.started()
        try:
            while True:
                await trio.sleep(self._config.seal_ms / 1000)
                await self._try_pass()
        finally:
            with trio.move_on_after(LAST_PASS_S, shield=True):
                await self._try_pass(last=True)

    def deny(self, problem: Problem, call: Call) -> None:
        """Note a refused permission; never waits. Past `denials_waiting` kinds of them it is only counted."""
        if problem.denial is None:
            return
        action = problem.denial
        if action not in ACTIONS:
            log.error("unknown_denial", action=action)
            action = "denied:forbidden"
        actor = call.principal.user_id if call.principal else None
        at_us = now_us()
        minute = at_us // MINUTE_US
        key = (action, actor or call.address, problem.subject, minute)
        denial = self._denials.get(key)
        if denial is None:
            if len(self._denials) >= self._config.denials_waiting:
                self._lost += 1
                _LOST.inc()
                return
            denial = self._denials[key] = _Denial(
                action, actor, problem.subject, call.address, minute, problem.code, at_us
            )
        elif denial.times == 0:
            denial.first_us = at_us
        denial.times += 1
        _KEPT.inc()

    async def seal_once(self) -> int:
        """Chain every committed row that is not yet chained. Returns how many.

        A chain that no longer reaches the known head is reported and goes on, but the head file keeps what
        it says: it is the evidence.
        """
        known, sealed = self._known, 0
        seen = await self._db.read(_look, known)
        self._judge(seen.fault)
        while seen.waiting:
            seen = await self._db.write(self._seal, known)
            self._judge(seen.fault)
            known, sealed = seen.head, sealed + seen.sealed
        SEALED.inc(sealed)
        head = seen.head
        if self._whole and head != self._known:
            self._known = head
            log.info("audit_sealed", count=head.count, seal=head.seal.hex(), key_id=self._key_id)
            try:
                await trio.to_thread.run_sync(write_head, self._head_file, head)
            except OSError as exc:
                log.error("audit_head_not_written", path=str(self._head_file), reason=str(exc))
        return sealed

    async def flush_denials(self, *, last: bool = False) -> int:
        """Write the refusals noted: those of a kind at once, repetitions when their minute is over. Returns
        how many rows were written.  last: write everything."""
        minute = now_us() // MINUTE_US
        if self._lost:
            log.warning("denials_lost", count=self._lost)
            self._lost = 0
        due = [
            (denial, denial.times)
            for denial in self._denials.values()
            if denial.times and (last or not denial.written or denial.minute != minute)
        ]
        for start in range(0, len(due), SEAL_ROWS):
            await self._db.write(_record_denials, due[start : start + SEAL_ROWS])
            for denial, times in due[start : start + SEAL_ROWS]:
                denial.times -= times
                denial.written = True
        over = [key for key, denial in self._denials.items() if denial.minute != minute and not denial.times]
        for key in over:
            del self._denials[key]
        return len(due)

    async def _try_pass(self, *, last: bool = False) -> None:
        try:
            await self.flush_denials(last=last)
            await self.seal_once()
        except Problem as problem:  # the rows wait in the table, the refusals here
            if not self._waits:
                log.warning("audit_waits", code=problem.code)
            self._waits = True
        else:
            self._waits = False

    async def _seal(self, tx: Tx, known: Head | None) -> _Seen:
        """Seal what waits, SEAL_ROWS at most. The chain is looked at again under the lock: whoever held that
        before could have taken seals back and changed the rows, which would be sealed here."""
        await tx.run(_LOCK_HEAD, HEAD, START.seal)
        seen, last = await _look(tx, known), await _last(tx)
        # if the two differ someone has cut rows: their numbers are not given again
        position, seal = max(seen.head.count, last.count), last.seal
        sealed = []
        for fields in await tx.all(_UNSEALED):
            position += 1
            seal = seal_of(self._key, self._key_id, position, seal, fields)
            sealed.append((fields[0], position, self._key_id, seal))
        await tx.many(_SEAL, sealed)
        await tx.run(_MOVE_HEAD, HEAD, position, seal)
        return _Seen(Head(position, seal), seen.fault, len(sealed) == SEAL_ROWS, len(sealed))

    def _judge(self, fault: str | None) -> None:
        if fault is None:
            return
        if self._whole:
            log.error("audit_chain_broken", reason=fault)
        self._whole = False
        WHOLE.set(0)


def seal_of(key: bytes, key_id: str, position: int, before: bytes, fields: Sequence[Any]) -> bytes:
    """The seal of one row: HMAC-SHA256 over the seal before it and the row.

    fields: audit_id, recorded_us, action, actor_id, subject, facts, commitment.
    """
    text = msgspec.json.encode([key_id, position, *fields])
    return hmac.digest(key, before + text, "sha256")


def read_head(path: Path) -> Head | None:
    """None without a file. Raises ValueError when it does not say a head."""
    try:
        return Head.parse(path.read_text("ascii"))
    except FileNotFoundError:
        return None


def write_head(path: Path, head: Head) -> None:
    """Replace the file, durably; a crash leaves the old one or the new one."""
    draft = path.with_name(f"{path.name}.new")
    with draft.open("w", encoding="ascii") as file:
        file.write(f"{head}\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@dataclass(frozen=True, slots=True)
class _Seen:
    """head: the end of the chain.  fault: why that cannot be.  waiting: whether there are rows to seal."""

    head: Head
    fault: str | None
    waiting: bool
    sealed: int = 0


async def _look(tx: Tx, known: Head | None) -> _Seen:
    """Whether the chain reaches its head and the known one, and whether rows wait to be sealed."""
    head, last = await _head(tx), await _last(tx)
    fault = None
    if head != last:
        fault = f"the chain ends at row {last.count}, its head says {head.count}"
    elif known is not None and not await _holds(tx, known):
        fault = f"the known head, row {known.count}, is not in the chain"
    return _Seen(head, fault, await tx.one(_WAITING) is not None)


async def _head(tx: Tx) -> Head:
    row = await tx.one(_GET_HEAD, HEAD)
    return Head(*row) if row else START


async def _last(tx: Tx) -> Head:
    row = await tx.one(_LAST)
    return Head(row[0], row[1] or b"") if row else START  # a seal can be taken away


async def _holds(tx: Tx, head: Head) -> bool:
    if head.count == 0:
        return True
    row = await tx.one(_SEAL_AT, head.count)
    return row is not None and row[0] == head.seal


async def _record_denials(tx: Tx, due: Sequence[tuple[_Denial, int]]) -> None:
    for denial, times in due:
        await record(
            tx,
            action=denial.action,
            actor=denial.actor,
            subject=denial.subject,
            address=denial.address,
            facts={"code": denial.code, "times": times},
            now_us=denial.first_us,
        )


def _json(facts: Facts) -> str:
    return msgspec.json.encode(facts, order="sorted").decode()


def _commit(salt: bytes, personal: str) -> bytes:
    return hashlib.sha256(salt + personal.encode()).digest()


@dataclass(slots=True)
class Verdict:
    """What `verify` found.

    erased: rows whose personal fields were erased.  unsealed: rows not chained yet, the oldest of them
    `oldest_unsealed_us`: those prove nothing.  file: the head the head file names, None without one.
    findings: one line each, at most FINDINGS of them; `faults` counts all.
    """

    sealed: int = 0
    erased: int = 0
    unsealed: int = 0
    oldest_unsealed_us: int | None = None
    file: Head | None = None
    faults: int = 0
    findings: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        return self.faults == 0

    def find(self, finding: str) -> None:
        self.faults += 1
        if self.faults <= FINDINGS:
            self.findings.append(finding)


async def verify(db: Database, keys: Mapping[str, bytes], head_file: Path) -> Verdict:
    """Check every sealed row, their order and number, the head, and the head file if there is one.

    keys: audit keys by key id.  Works beside a running server.
    """
    verdict = Verdict()
    # the file first: it is written after the rows it speaks of
    try:
        verdict.file = await trio.to_thread.run_sync(read_head, head_file)
    except (ValueError, OSError) as exc:
        verdict.find(f"the head file {head_file} is unreadable: {exc}")
    head, last, sealed, unsealed, oldest_us = await db.read(_survey)
    verdict.unsealed, verdict.oldest_unsealed_us = unsealed, oldest_us
    if head != last:
        verdict.find(f"the chain ends at row {last.count}, its head says row {head.count}")
    before, at = START.seal, 0
    file_holds = verdict.file is None or verdict.file == START
    while at < last.count:
        page = await db.read(_page, at)
        for row in page:
            fields, (position, key_id, seal, salt, personal) = row[:7], row[7:]
            seal = seal or b""
            if position > last.count:
                break
            if position != at + 1:
                verdict.find(f"rows {at + 1} to {position - 1} are missing")
            if key_id not in keys:
                verdict.find(f"row {position} is sealed with key {key_id}, which is not at hand")
            elif not hmac.compare_digest(seal, seal_of(keys[key_id], key_id, position, before, fields)):
                verdict.find(f"row {position} ({fields[0]}) was changed, inserted or moved")
            elif personal is None:
                verdict.erased += fields[6] is not None
            elif salt is None or _commit(salt, personal) != fields[6]:
                verdict.find(f"the personal fields of row {position} ({fields[0]}) were changed")
            verdict.sealed += 1
            file_holds = file_holds or Head(position, seal) == verdict.file
            before, at = seal, position
        if len(page) < PAGE_ROWS:
            break
    if verdict.sealed != sealed:
        verdict.find(f"{sealed} rows are marked as sealed, {verdict.sealed} are in the chain")
    if verdict.file is not None and not file_holds:
        verdict.find(f"the head file names row {verdict.file.count}, which is not in the chain as it was")
    return verdict


async def _survey(tx: Tx) -> tuple[Head, Head, int, int, int | None]:
    sealed = await tx.one(_COUNT_SEALED)
    unsealed = await tx.one(_COUNT_UNSEALED)
    if sealed is None or unsealed is None:
        raise RuntimeError("COUNT gave no row")
    return await _head(tx), await _last(tx), sealed[0], unsealed[0], unsealed[1]


async def _page(tx: Tx, after: int) -> list[Row]:
    return await tx.all(_PAGE, after)
