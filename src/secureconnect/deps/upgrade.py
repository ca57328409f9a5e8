"""Bringing the schema up to date, and the copy of the database from before that: the way back to the program
before.

Of SQLite the file is copied; of Postgres the tables are, by whoever knows what a backup is.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import structlog
import trio

from ..config import Config
from . import migrate
from .contracts import Database, Snapshot
from .sqlite import Sqlite
from .sqlite_copies import keep_copy

if TYPE_CHECKING:
    from .asyncio_bridge import Bridge

log = structlog.get_logger(module="deps")

COPIES = "before-migration"  # a folder in the data folder
TABLES = "postgres"  # a folder in that one
UNIT_S = 3600.0  # a unit of work that changes the schema of a large database
CONNECTIONS = 2
SAY_EVERY_S = 10.0
ONE_AT_A_TIME = 0x5343_434F_5059  # "SCCOPY", for whoever looks into pg_locks

CopyTables: TypeAlias = Callable[[Snapshot, Path, int, migrate.Tell], Awaitable[Path | None]]
"""One more copy into that folder, and no more than so many of them. Returns it; None of a database that no
server has had yet. Raises migrate.NotCopied, or what the snapshot raises."""


async def upgrade_sqlite(config: Config, path: Path) -> None:
    """The file in `path`, made if it is missing. Raises MigrationError, Unavailable."""
    async with Sqlite.open(path, replace(config.sqlite, statement_s=UNIT_S, readers=1)) as db:
        keep = config.sqlite.copies
        if keep and (before := await _first_missing(db)):

            async def copy(tell: migrate.Tell) -> Path:
                return await trio.to_thread.run_sync(keep_copy, path, path.parent / COPIES, keep, tell)

            await _copied(copy, before, "sqlite.copies")
        await migrate.apply(db)


async def upgrade_postgres(config: Config, bridge: Bridge, copy_tables: CopyTables | None) -> None:
    """One process at a time: who has waited for another finds nothing left to do.

    copy_tables: None where the schema may be changed without a copy.  Raises MigrationError, Unavailable.
    """
    from .postgres import Postgres
    from .postgres_snapshot import PostgresSnapshot

    patient = replace(config.postgres, statement_s=UNIT_S, lock_s=UNIT_S, connections=CONNECTIONS)
    async with Postgres.open(patient, bridge) as db, db.alone(ONE_AT_A_TIME):
        keep = config.postgres.copies
        if keep and copy_tables is not None and (before := await _first_missing(db)):
            folder = Path(config.data_dir) / COPIES / TABLES
            # the transaction has ended when the schema changes: it would keep the tables as they are
            async with PostgresSnapshot.open(db, bridge) as snapshot:
                copy = partial(copy_tables, snapshot, folder, keep)
                await _copied(copy, before, "postgres.copies")
        await migrate.apply(db)


async def _first_missing(db: Database) -> str | None:
    """Of what is to be migrated; None where nothing is, or there is nothing yet."""
    names = await migrate.missing(db)
    there = await db.read(migrate.applied)
    return names[0] if names and there else None


async def _copied(copy: Callable[[migrate.Tell], Awaitable[Path | None]], before: str, setting: str) -> None:
    """before: the first migration to be made.  setting: how many are kept."""
    log.info("database_copying", before=before)
    try:
        made = await copy(_Progress())
    except migrate.NotCopied as exc:
        raise migrate.MigrationError(
            f"no copy of the database could be made before its schema is changed: {exc}; make room for it,"
            f" or set {setting} = 0 and make a backup first"
        ) from exc
    if made is not None:
        log.info("database_copied", before=before, copy=str(made))


class _Progress:
    """migrate.Tell, for the log: now and then, of what takes long."""

    def __init__(self) -> None:
        self._next = time.monotonic() + SAY_EVERY_S

    def __call__(self, part: str, done: int, total: int) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + SAY_EVERY_S
            log.info("database_copying", part=part, done=done, of=total)
