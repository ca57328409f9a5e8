"""Whether a backup can be restored: by doing it, into a place that nobody else sees."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ..config import SqliteConfig
from ..deps.sqlite import Sqlite
from .load import load, require_known
from .make import Tell
from .reading import Opened, read_all
from .threads import in_thread

UNIT_S = 600.0  # a batch, or a step of the schema


async def check(backup: Opened, tell: Tell) -> int:
    """Read every byte, and fill a SQLite file with it, wherever the backup comes from. Returns how many rows.

    Raises Refused, Damaged, OSError.
    """
    require_known(backup.manifest, "sqlite")
    await read_all(backup, tell)
    scratch = await in_thread(_scratch)
    try:
        config = SqliteConfig(statement_s=UNIT_S, readers=1, disk_reserve_mb=0)
        async with Sqlite.open(Path(scratch.name) / "scratch.db", config) as db:
            return await load(backup, db, tell)
    finally:
        scratch.cleanup()


def _scratch() -> tempfile.TemporaryDirectory[str]:
    """In the folder for temporary files, which TMPDIR names."""
    return tempfile.TemporaryDirectory(prefix="secureconnect-backup-")
