"""Whether the audit log is as it was written."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import trio

from ..deps.contracts import Database, Tx
from .chain import (
    PAGE_ROWS,
    START,
    Anchor,
    Head,
    anchor_of,
    commitment_of,
    head_of,
    last_of,
    page,
    read_head,
    seal_of,
)

ATTEMPTS = 3
FINDINGS = 20  # said one by one by `verify`; the others are counted

_COUNT_SEALED = "SELECT COUNT(*) FROM audit WHERE position IS NOT NULL"
_COUNT_UNSEALED = "SELECT COUNT(*), MIN(recorded_at) FROM audit WHERE position IS NULL"


@dataclass(slots=True)
class Verdict:
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
    findings: list[str] = field(default_factory=list)

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


async def verify(db: Database, keys: Mapping[str, bytes], head_file: Path) -> Verdict:
    """Check every sealed row, their order and number, where they begin and end, and the head file.

    keys: audit keys by key id.  Works beside a running server: should that remove rows meanwhile, it is begun
    anew.
    """
    for _ in range(ATTEMPTS):
        # the file first: it is written after the rows it speaks of
        file, trouble = await _file(head_file)
        survey = await db.read(_survey)
        verdict = Verdict(file=file, unsealed=survey.unsealed, oldest_unsealed_us=survey.oldest_us)
        if trouble is not None:
            verdict.find(trouble)
        await _check(db, keys, survey, verdict)
        if await db.read(anchor_of) == survey.anchor:
            break
    return verdict


async def _file(path: Path) -> tuple[Head | None, str | None]:
    try:
        return await trio.to_thread.run_sync(read_head, path), None
    except ValueError:
        return None, f"the head file {path} is unreadable: it is no row and its seal"
    except OSError as exc:
        return None, f"the head file {path} is unreadable: {exc.strerror}"


async def _check(db: Database, keys: Mapping[str, bytes], survey: _Survey, verdict: Verdict) -> None:
    last, begin = survey.last, START
    if survey.head != last:
        verdict.find(f"the chain ends at row {last.count}, its head says row {survey.head.count}")
    if survey.anchor is not None:
        begin = survey.anchor.head
        verdict.removed, verdict.cut_us = begin.count, survey.anchor.cut_us
        _check_anchor(survey.anchor, keys, verdict)
    before, at = begin.seal, begin.count
    file_holds = verdict.file in (None, START, begin) or verdict.is_file_older
    while at < last.count:
        rows = await db.read(page, at)
        for row in rows:
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
            elif salt is None or commitment_of(salt, personal) != fields[6]:
                verdict.find(f"the personal fields of row {position} ({fields[0]}) were changed")
            verdict.sealed += 1
            file_holds = file_holds or Head(position, seal) == verdict.file
            before, at = seal, position
        if len(rows) < PAGE_ROWS:
            break
    if verdict.sealed != survey.sealed:
        verdict.find(f"{survey.sealed} rows are marked as sealed, {verdict.sealed} are in the chain")
    if verdict.file is not None and not file_holds:
        verdict.find(f"the head file names row {verdict.file.count}, which is not in the chain as it was")


def _check_anchor(anchor: Anchor, keys: Mapping[str, bytes], verdict: Verdict) -> None:
    if anchor.key_id not in keys:
        verdict.find(f"the beginning is sealed with key {anchor.key_id}, which is not at hand")
    elif not anchor.is_proved(keys[anchor.key_id]):
        verdict.find(f"that the chain begins after row {anchor.head.count} was not said by this server")


@dataclass(frozen=True, slots=True)
class _Survey:
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
