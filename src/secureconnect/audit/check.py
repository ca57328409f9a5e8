"""Whether the audit log is as it was written."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import trio

from ..deps.contracts import Database, Row, Tx
from .chain import (
    RESTORED,
    START,
    Anchor,
    Head,
    anchor_of,
    commitment_of,
    follows,
    head_of,
    last_of,
    page_and_anchor,
    read_head,
    seal_of,
)

Progress = Callable[[int, int], None]

FINDINGS = 20  # said one by one by `verify`; the others are counted

_COUNT_SEALED = "SELECT COUNT(*) FROM audit WHERE position IS NOT NULL"
_COUNT_UNSEALED = "SELECT COUNT(*), MIN(recorded_at) FROM audit WHERE position IS NULL"


class Verdict(msgspec.Struct):
    """What `verify` found.

    erased: rows whose personal fields were erased.  unsealed: rows not chained yet, the oldest of them
    `oldest_unsealed_us`: those prove nothing.  file: the head the head file names, None without one.
    removed: rows before the beginning, which retention has removed, the last time at `cut_us`.
    findings: one line each, at most FINDINGS of them; `faults` counts all.
    """

    sealed: int = 0
    erased: int = 0
    unsealed: int = 0
    oldest_unsealed_us: int | None = None
    file: Head | None = None
    removed: int = 0
    cut_us: int | None = None
    faults: int = 0
    findings: list[str] = msgspec.field(default_factory=list)

    @property
    def whole(self) -> bool:
        return self.faults == 0

    @property
    def is_file_older(self) -> bool:
        """Whether the head file names a row that has been removed: then it proves nothing."""
        return self.file is not None and self.file.count < self.removed

    def find(self, finding: str) -> None:
        self.faults += 1
        if self.faults <= FINDINGS:
            self.findings.append(finding)


def _to_nobody(_: int, __: int) -> None:
    """Whoever does not ask is not told."""


async def verify(
    db: Database, keys: Mapping[str, bytes], head_file: Path, told: Progress = _to_nobody
) -> Verdict:
    """Check every sealed row, their order and number, where they begin and end, and the head file.

    keys: audit keys by key id.  told: how far it is, after each page: a position, and the last one.
    A page of rows is held at a time. Works beside a running server: rows that it seals meanwhile are left
    out, and those that it removes were checked by that.
    """
    file, trouble = await _file(head_file)  # first: it is written after the rows it speaks of
    survey = await db.read(_survey)
    verdict = Verdict(file=file, unsealed=survey.unsealed, oldest_unsealed_us=survey.oldest_us)
    if trouble is not None:
        verdict.find(trouble)
    if survey.head != survey.last:
        verdict.find(f"the chain ends at row {survey.last.count}, its head says row {survey.head.count}")
    walk = _Walk(keys, verdict)
    walk.begin(survey.anchor)
    spare = survey.sealed - (survey.last.count - walk.at.count)
    if spare > 0:
        verdict.find(f"{spare} rows are marked as sealed and have no place in the chain")
    while walk.at.count < survey.last.count:
        rows, anchor = await db.read(page_and_anchor, walk.at.count)
        if anchor is not None and anchor.head.count > walk.at.count:
            walk.begin(anchor)
        for row in rows:
            if row[7] <= survey.last.count:
                walk.step(row)
        if not rows or rows[-1][7] >= survey.last.count:
            walk.end(survey.last.count)
        told(walk.at.count, survey.last.count)
    if file is not None and not walk.has_met_file and not verdict.is_file_older:
        verdict.find(f"the head file names row {file.count}, which is not in the chain as it was")
    return verdict


async def _file(path: Path) -> tuple[Head | None, str | None]:
    try:
        return await trio.to_thread.run_sync(read_head, path), None
    except ValueError:
        return None, f"the head file {path} is unreadable: it is no row and its seal"
    except OSError as exc:
        return None, f"the head file {path} is unreadable: {exc.strerror}"


class _Walk:
    """From row to row.  at: the last one seen.  has_met_file: the head that the head file names was seen."""

    def __init__(self, keys: Mapping[str, bytes], verdict: Verdict) -> None:
        self._keys = keys
        self._verdict = verdict
        self.at = START
        self.has_met_file = verdict.file == START

    def begin(self, anchor: Anchor | None) -> None:
        """After what was removed, if anything was."""
        if anchor is None:
            return
        verdict = self._verdict
        if anchor.key_id not in self._keys:
            verdict.find(f"the beginning is sealed with key {anchor.key_id}, which is not at hand")
        elif not anchor.is_proved(self._keys[anchor.key_id]):
            verdict.find(f"that the chain begins after row {anchor.head.count} was not said by this server")
        verdict.removed, verdict.cut_us = anchor.head.count, anchor.cut_us
        self._reach(anchor.head)

    def step(self, row: Row) -> None:
        verdict, fields, (position, key_id, seal, salt, personal) = self._verdict, row[:7], row[7:]
        self.end(position - 1)
        seal = seal or b""  # it can be taken away
        if key_id not in self._keys:
            verdict.find(f"row {position} is sealed with key {key_id}, which is not at hand")
        elif not hmac.compare_digest(
            seal, seal_of(self._keys[key_id], key_id, position, self.at.seal, fields)
        ):
            verdict.find(f"row {position} ({fields[0]}) was changed, inserted or moved")
        elif fields[2] == RESTORED and not follows(fields[5], self.at):
            verdict.find(f"row {position} says that another log was restored than stands before it")
        elif personal is None:
            verdict.erased += fields[6] is not None
        elif salt is None or commitment_of(salt, personal) != fields[6]:
            verdict.find(f"the personal fields of row {position} ({fields[0]}) were changed")
        verdict.sealed += 1
        self._reach(Head(position, seal))

    def end(self, position: int) -> None:
        """All up to there must have been seen."""
        if self.at.count < position:
            self._verdict.find(f"rows {self.at.count + 1} to {position} are missing")
            self.at = Head(position, self.at.seal)

    def _reach(self, head: Head) -> None:
        self.at = head
        self.has_met_file |= head == self._verdict.file


class _Survey(msgspec.Struct, frozen=True):
    head: Head
    last: Head
    anchor: Anchor | None
    sealed: int
    unsealed: int
    oldest_us: int | None


async def _survey(tx: Tx) -> _Survey:
    sealed = await tx.one(_COUNT_SEALED)
    unsealed = await tx.one(_COUNT_UNSEALED)
    if sealed is None or unsealed is None:
        raise RuntimeError("COUNT gave no row")
    return _Survey(await head_of(tx), await last_of(tx), await anchor_of(tx), sealed[0], *unsealed)
