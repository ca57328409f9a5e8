"""Writing the audit log: deeds, refusals, and the seals that chain them.

`record` inserts a row in the transaction of the change itself. Once a second the sealer chains the committed
rows: each seal is an HMAC over the row and the seal before it, with a key derived from the master key. The
end of the chain goes to the log and to `audit.head` in the data folder, so that a cut end shows as well.
Refusals are merged in memory and written beside the seals, so that a flood of them costs next to nothing.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import structlog
import trio

from .. import metrics
from ..clock import DAY_US, MINUTE_US, now_us
from ..config import AuditConfig
from ..deps.contracts import Database, Tx
from ..edge import Call
from ..errors import Problem
from ..identity import UserId, new_id
from ..periodic import Trouble
from .chain import (
    HEAD,
    ROW,
    START,
    Head,
    anchor_of,
    commitment_of,
    head_of,
    last_of,
    read_head,
    seal_of,
    write_head,
)
from .retention import Cut, cut

log = structlog.get_logger(module="audit")

ACTIONS = frozenset(
    {
        "admin:announcement:made",
        "admin:audit:exported",
        "admin:audit:read",
        "admin:report:updated",
        "admin:role:changed",
        "admin:totp:removed",
        "admin:user:banned",
        "admin:user:created",
        "admin:user:deleted",
        "admin:user:unbanned",
        "admin:user:unlocked",
        "audit:log:cut",
        "audit:log:restored",
        "auth:account:locked",
        "auth:email:change_requested",
        "auth:email:changed",
        "auth:email:verified",
        "auth:invite:created",
        "auth:invite:deleted",
        "auth:key:rotated",
        "auth:password:changed",
        "auth:password:reset",
        "auth:password:reset_requested",
        "auth:session:ended",
        "auth:session:opened",
        "auth:session:refused",
        "auth:session:stolen",
        "auth:totp:codes_renewed",
        "auth:totp:disabled",
        "auth:totp:enabled",
        "auth:totp:recovered",
        "auth:report:made",
        "auth:user:erased",
        "auth:user:exported",
        "auth:user:leaving",
        "auth:signing_keys:published",
        "auth:user:registered",
        "auth:user:renamed",
        "auth:user:restored",
        "chat:conversation:configured",
        "chat:conversation:created",
        "chat:conversation:deleted",
        "chat:member:added",
        "chat:member:left",
        "chat:member:removed",
        "chat:member:role_changed",
        "chat:message:deleted",
        "chat:message:edited",
        "chat:poll:deleted",
        "denied:admin",
        "denied:call",
        "denied:conversation",
        "denied:file",
        "denied:forbidden",
        "denied:keys",
        "denied:session",
        "signaling:call:ended",
        "signaling:call:joined",
        "signaling:call:left",
        "signaling:call:missed",
        "signaling:call:started",
        "signaling:recording:agreed",
        "signaling:recording:deleted",
        "signaling:recording:downloaded",
        "signaling:recording:finished",
        "signaling:recording:refused",
        "signaling:recording:requested",
        "signaling:recording:started",
        "signaling:recording:stopped",
        "storage:file:announced",
        "storage:file:deleted",
        "storage:file:downloaded",
        "storage:file:expired",
        "storage:file:served",
        "storage:file:uploaded",
    }
)
# facts that say something about a person: kept so that they can be erased, like the address
PERSONAL = frozenset({"username", "email", "display_name", "device_name", "user_agent", "reason"})

SEALED = metrics.counter("secureconnect_audit_sealed_total", "Audit rows chained.")
DENIALS = metrics.counter("secureconnect_audit_denials_total", "Refusals noted.", ["result"])
_KEPT, _LOST = DENIALS.labels("kept"), DENIALS.labels("lost")
WHOLE = metrics.gauge(
    "secureconnect_audit_chain_whole", "1 while the audit chain goes on from the last known head, else 0."
)
WHOLE.set(1)  # also while a server still waits for its database

SALT_BYTES = 16
SUBJECTS = 20  # of one caller's refusals of a kind, told apart within a minute
SEAL_ROWS = 500  # rows sealed in one transaction: the writer is not held longer than a few milliseconds
LAST_PASS_S = 2.0
FORGET_ROWS = 1_000  # rows whose personal fields are erased in one transaction

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
_WAITING = "SELECT audit_id FROM audit WHERE position IS NULL LIMIT 1"
_SEAL_AT = "SELECT seal FROM audit WHERE position = $1"
_UNSEALED = f"SELECT {ROW} FROM audit WHERE position IS NULL ORDER BY audit_id LIMIT {SEAL_ROWS}"  # noqa: S608
_SEAL = "UPDATE audit SET position = $2, key_id = $3, seal = $4 WHERE audit_id = $1"
_FORGET = (
    # with OR, SQLite would use neither index
    "UPDATE audit SET personal = NULL, salt = NULL WHERE audit_id IN"  # noqa: S608
    " (SELECT audit_id FROM audit WHERE personal IS NOT NULL AND actor_id = $1"
    f" UNION SELECT audit_id FROM audit WHERE personal IS NOT NULL AND subject = $2 LIMIT {FORGET_ROWS})"
)


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
        commitment = commitment_of(salt, personal)
    await tx.run(_RECORD, new_id(), now_us, action, actor, subject, _json(plain), personal, salt, commitment)


async def forget(tx: Tx, user: UserId) -> int:
    """Erase the personal fields of rows about a user, FORGET_ROWS at most; the chain stays whole. Returns how
    many: none when all are erased."""
    return await tx.run(_FORGET, user, user)


class _Denial(msgspec.Struct):
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
        self._keys = {key_id: key}
        self._head_file = head_file
        self._known: Head | None = None  # the chain was seen to reach this far
        self._whole = True
        self._denials: dict[tuple[str, str, str | None, int], _Denial] = {}
        self._subjects: Counter[tuple[str, str, int]] = Counter()  # of a caller's refusals in that minute
        self._lost = 0

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write refusals and seal, every `seal_ms`, until cancelled; then once more. Remove what is past its
        term, now and then."""
        WHOLE.set(self._whole)
        try:
            self._known = await trio.to_thread.run_sync(read_head, self._head_file)
        except (ValueError, OSError):
            self._judge("the head file is unreadable")
        task_status.started()
        denials, seals = Trouble(log, "denials_not_written"), Trouble(log, "audit_not_sealed")

        async def attempt(*, last: bool = False) -> None:
            """The rows wait in the table, the refusals here; neither waits for the other."""
            with denials:
                await self.flush_denials(last=last)
            with seals:
                await self.seal_once()

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._cut_forever)
                while True:
                    await trio.sleep(self._config.seal_ms / 1000)
                    await attempt()
        finally:
            with trio.move_on_after(LAST_PASS_S, shield=True):
                await attempt(last=True)

    async def _cut_forever(self) -> None:
        trouble = Trouble(log, "audit_not_cut")
        while True:
            with trouble:
                await self.cut_once()
            await trio.sleep(self._config.cut_pass_s)

    def deny(self, problem: Problem, call: Call) -> None:
        """Note a refused permission; never waits. Past SUBJECTS of one caller in a minute the subject is left
        out, past `denials_waiting` kinds of them it is only counted."""
        if problem.denial is None:
            return
        action = problem.denial
        if action not in ACTIONS:
            log.error("unknown_denial", action=action)
            action = "denied:forbidden"
        actor = call.principal.user_id if call.principal else None
        at_us = now_us()
        minute = at_us // MINUTE_US
        caller = (action, actor or call.address, minute)
        key = (action, actor or call.address, problem.subject, minute)
        if key not in self._denials and self._subjects[caller] >= SUBJECTS:
            key = (action, actor or call.address, None, minute)
        denial = self._denials.get(key)
        if denial is None:
            if len(self._denials) >= self._config.denials_waiting:
                self._lost += 1
                _LOST.inc()
                return
            self._subjects[caller] += 1
            denial = self._denials[key] = _Denial(
                action, actor, key[2], call.address, minute, problem.code, at_us
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
        seen = await self._db.read(_look, known, self._keys)
        self._judge(seen.fault)
        while seen.waiting:
            seen = await self._db.relieve(self._seal, known)  # what a full disk does not stop is proved, too
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

    async def begin_anew(self, facts: Facts) -> Head:
        """After a restore, before anybody else writes: chain what was restored, then a row that names its end
        and begins a chain of its own.  facts: of the restore. Returns the end of what was restored."""
        await self.seal_once()
        head = await self._db.read(head_of)
        told = {**facts, "rows": head.count, "seal": head.seal.hex()}

        async def unit(tx: Tx) -> None:
            await record(tx, action="audit:log:restored", actor=None, facts=told, now_us=self._db.now_us())

        await self._db.relieve(unit)
        await self.seal_once()
        return head

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
        for caller in [caller for caller in self._subjects if caller[2] != minute]:
            del self._subjects[caller]
        return len(due)

    async def cut_once(self) -> int:
        """Remove what is older than `keep_days` by the database's clock and by this machine's, which 0 never
        is; nothing once the chain is broken. Returns how many rows."""
        if self._config.keep_days == 0 or not self._whole:
            return 0
        before_us = min(self._db.now_us(), now_us()) - self._config.keep_days * DAY_US
        removed = 0
        while True:
            done = await self._db.relieve(self._cut, before_us)
            self._judge(done.fault)
            removed += done.removed
            if not done.is_full:
                break
        if removed:
            log.info("audit_cut", rows=removed, up_to=done.head.count)
        return removed

    async def _cut(self, tx: Tx, before_us: int) -> Cut:
        await tx.run(_LOCK_HEAD, HEAD, START.seal)
        seen = await _look(tx, self._known, self._keys)
        if seen.fault is not None:
            return Cut(seen.head, fault=seen.fault)
        at_us = self._db.now_us()
        done = await cut(tx, self._key, self._key_id, before_us, at_us)
        if done.removed:
            facts = {"rows": done.removed, "up_to": done.head.count}
            await record(tx, action="audit:log:cut", actor=None, facts=facts, now_us=at_us)
        return done

    async def _seal(self, tx: Tx, known: Head | None) -> _Seen:
        """Seal what waits, SEAL_ROWS at most. The chain is looked at again under the lock: whoever held that
        before could have taken seals back and changed the rows, which would be sealed here."""
        await tx.run(_LOCK_HEAD, HEAD, START.seal)
        seen, last = await _look(tx, known, self._keys), await last_of(tx)
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


class _Seen(msgspec.Struct, frozen=True):
    """head: the end of the chain.  fault: why that cannot be.  waiting: whether there are rows to seal."""

    head: Head
    fault: str | None
    waiting: bool
    sealed: int = 0


async def _look(tx: Tx, known: Head | None, keys: Mapping[str, bytes]) -> _Seen:
    """Whether the chain reaches its head and the known one, and whether rows wait to be sealed.

    keys: those at hand, by their ids.
    """
    head, last = await head_of(tx), await last_of(tx)
    anchor = await anchor_of(tx)
    fault = None
    if head != last:
        fault = f"the chain ends at row {last.count}, its head says {head.count}"
    elif anchor is not None and anchor.key_id in keys and not anchor.is_proved(keys[anchor.key_id]):
        fault = f"that the chain begins after row {anchor.head.count} was not said by this server"
    elif known is not None and not await _holds(tx, known, START if anchor is None else anchor.head):
        fault = f"the known head, row {known.count}, is not in the chain"
    return _Seen(head, fault, await tx.one(_WAITING) is not None)


async def _holds(tx: Tx, head: Head, begin: Head) -> bool:
    """begin: the last row that retention has removed; what was before it cannot be looked at any more."""
    if head.count <= begin.count:
        return head.count < begin.count or head.seal == begin.seal or head.count == 0
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
