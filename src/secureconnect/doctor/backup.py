"""The backups that the server makes by itself: whether there is one, and how old it is."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import trio

from ..backup.folder import Folder, Refused, read_passphrase
from ..backup.streams import Damaged
from ..config import BackupConfig, Config
from .findings import Report, count, size

LATE = 2  # times what lies between two: from here on one has failed


async def check(config: Config, report: Report) -> None:
    at = config.backup
    if not at.folder:
        report.ok("backup", "the server makes none by itself; `secureconnect backup` makes one")
        return
    try:
        await trio.to_thread.run_sync(_look, at, report, abandon_on_cancel=True)
    except (Refused, Damaged, OSError) as exc:
        report.fail("backup", report.said(exc), "see docs/backup.md, and `secureconnect backup --help`")


def _look(at: BackupConfig, report: Report) -> None:
    root = Path(at.folder)
    passphrase = read_passphrase(Path(at.passphrase_file)) if at.passphrase_file else None
    if not root.exists():
        report.warn("backup", f"{root} does not exist yet", "start the server: it makes the first one")
        return
    found = Folder.open(root, passphrase).backups()
    if not found:
        report.warn("backup", f"there is no whole one in {root} yet", "start the server, and look at its log")
        return
    made = datetime.strptime(found[-1].name, "%Y-%m-%dT%H%M%S.%fZ").replace(tzinfo=UTC)
    age_s = (datetime.now(UTC) - made).total_seconds()
    disk = os.statvfs(root)
    told = (
        f"{count(len(found), 'backup')} in {root}, the newest of {made:%Y-%m-%d %H:%M} UTC, {_age(age_s)} old"
    )
    if age_s > LATE * at.every_s:
        report.warn("backup", told, "look for backup_failed in the log, and for room on that disk")
    else:
        report.ok("backup", f"{told}; {size(disk.f_bavail * disk.f_frsize)} free there")


def _age(age_s: float) -> str:
    return count(round(age_s / 3_600), "hour") if age_s < 172_800 else count(round(age_s / 86_400), "day")
