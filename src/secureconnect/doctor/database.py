"""The database, whichever it is: what both are asked, and SQLite."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import trio

from ..config import Config
from ..deps import migrate
from ..deps.contracts import Database, Tx
from ..deps.policy import DATABASE
from ..deps.sqlite import Sqlite
from ..errors import DeadlineExceeded, Problem
from ..node import Secrets, has_secrets, is_unfinished, read_move
from ..settings import BadSetting
from . import postgres
from .findings import Report, size

QUICK_CHECK_S = 20.0
_QUICK_CHECK = "PRAGMA quick_check(3)"
_SYNCHRONOUS = {0: "OFF", 1: "NORMAL", 2: "FULL", 3: "EXTRA"}


async def check(config: Config, report: Report) -> None:
    if config.postgres.url:
        async with postgres.opened(config, report) as db:
            if db is not None:
                await _check_content(db, "postgres", config, report)
    else:
        await _check_sqlite(config, report)


async def _check_sqlite(config: Config, report: Report) -> None:
    path = Path(config.data_dir) / DATABASE
    try:
        found = await trio.to_thread.run_sync(path.stat)
    except OSError:
        report.warn("sqlite", f"there is no {path}", "start the server once, or give --data-dir")
        return
    config = replace(config, sqlite=replace(config.sqlite, statement_s=QUICK_CHECK_S, readers=1))
    try:
        async with Sqlite.open(path, config.sqlite) as db:
            (version,) = await db.read(_value, "SELECT sqlite_version()")
            report.ok("sqlite", f"{path}, {size(found.st_size)}, SQLite {version}")
            report.ok("clock", "the database's clock is that of this machine")
            await _check_durability(db, report)
            await _check_integrity(db, report)
            await _check_content(db, "sqlite", config, report)
    except Problem as problem:
        report.fail(
            "sqlite",
            report.said(problem),
            f"let the server's user own {path}; if it is damaged, restore the folder from a backup",
        )


async def _check_durability(db: Sqlite, report: Report) -> None:
    (journal,) = await db.read(_value, "PRAGMA journal_mode")
    (synchronous,) = await db.read(_value, "PRAGMA synchronous")
    told = f"journal_mode {journal}, synchronous {_SYNCHRONOUS.get(int(synchronous), synchronous)}"
    if journal == "wal" and int(synchronous) >= 2:
        report.ok("sqlite.durability", told)
    else:
        report.fail(
            "sqlite.durability",
            told,
            "put the data folder on a local disk: a network folder cannot hold this database safely",
        )


async def _check_integrity(db: Sqlite, report: Report) -> None:
    name = "sqlite.integrity"
    try:
        told = await db.read(_values, _QUICK_CHECK)
    except DeadlineExceeded:
        report.warn(
            name,
            f"not done within {QUICK_CHECK_S:g} s, and nothing wrong so far",
            "check a copy at leisure: sqlite3 COPY 'PRAGMA quick_check'",
        )
        return
    if told == ["ok"]:
        report.ok(name, "whole")
    else:
        report.fail(
            name,
            report.said("; ".join(told)),
            "stop the server, keep a copy of the folder, and restore it from a backup; then check the disk",
        )


async def _check_content(db: Database, kind: str, config: Config, report: Report) -> None:
    """Schema and sealed secrets."""
    name = f"{kind}.migrations"
    try:
        lacking = await migrate.missing(db)
    except migrate.MigrationError as exc:
        report.fail(name, report.said(exc), "start the program that belongs to this database")
        return
    if lacking:
        report.warn(
            name,
            f"pending: {', '.join(lacking)}",
            "start the server, or run `secureconnect migrate`: both apply them",
        )
        return
    report.ok(name, "none pending")
    if is_unfinished(await db.read(read_move)):
        report.fail(
            f"{kind}.move",
            "an installation is being moved into this database, and no server starts on it",
            "run `secureconnect move` again, from the folder that is being moved",
        )
    folder = Path(config.data_dir)
    if not config.auth.master_key and not await trio.to_thread.run_sync((folder / "master.key").exists):
        if await db.read(has_secrets):  # and if not, to open them would make a key
            report.fail(
                f"{kind}.secrets",
                f"there are some, {folder / 'master.key'} is missing, and no server starts without it",
                "restore the file, copy it from another node, or set auth.master_key to what was in it",
            )
        return
    try:
        secrets = await Secrets.open(db, folder, config.auth.master_key)
    except BadSetting as exc:
        report.fail(
            f"{kind}.secrets",
            report.said(exc),
            "give this server the master key that the database's secrets were sealed with",
        )
    else:
        report.ok(f"{kind}.secrets", f"master key {secrets.key_id} opens all that are stored")


async def _value(tx: Tx, sql: str) -> tuple[str]:
    row = await tx.one(sql)
    assert row is not None
    return (str(row[0]),)


async def _values(tx: Tx, sql: str) -> list[str]:
    return [str(value) for (value,) in await tx.all(sql)]
