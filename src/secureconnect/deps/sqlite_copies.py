"""Copies of SQLite's file from before its schema was changed: the way back to the program before."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

from ..durable import sync_folder
from .migrate import NotCopied, Tell

PAGES = 4_096  # copied at a time


def keep_copy(path: Path, folder: Path, keep: int, tell: Tell) -> Path:
    """One more, under the number of the last migration in it, and no more than `keep` of them. Blocking.
    Raises NotCopied."""
    draft = folder / "new"

    def step(_: int, left: int, total: int) -> None:
        tell("pages", total - left, total)

    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        sync_folder(folder.parent)
        draft.unlink(missing_ok=True)
        os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(draft)) as copy:
            source.backup(copy, pages=PAGES, progress=step)
            (number,) = copy.execute("SELECT MAX(number) FROM schema_migrations").fetchone()
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        kept = draft.replace(folder / f"{number:04}.db")
        sync_folder(folder)
        for old in sorted(folder.glob("[0-9]*.db"), key=_written)[:-keep]:
            old.unlink()
    except (OSError, sqlite3.Error) as exc:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise NotCopied(str(exc)) from exc
    return kept


def _written(path: Path) -> int:
    """When: not by its number, which an older file that was put back begins with again."""
    return path.stat().st_mtime_ns
