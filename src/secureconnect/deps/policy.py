"""What stands behind each protocol, opened in order and closed in reverse."""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import trio

from .. import clock
from ..config import BadSetting, Config
from . import migrate
from .contracts import DependencyStatus, Deps
from .files import FolderObjects, sync_folder
from .memory import MemoryBus, MemoryCache
from .sqlite import Sqlite

DATABASE = "secureconnect.db"
OBJECTS = "objects"
LOCK = "lock"
MIGRATION_S = 3600.0  # a unit of work that changes the schema of a large database


class DataFolderBusy(Exception):
    """Another server holds the data folder: one line for the person who starts this one."""


class NotReady(Exception):
    """The database is missing or its schema is behind: one line for the person at the terminal."""


@asynccontextmanager
async def open_deps(config: Config) -> AsyncIterator[Deps]:
    """Everything outside, for the one server of the data folder; the schema is brought up to date first.

    Raises DataFolderBusy, migrate.MigrationError, Unavailable or BadSetting (the folder cannot be used).
    """
    folder = Path(config.data_dir)
    with _naming(folder):
        lock = await trio.to_thread.run_sync(_lock, folder)
    try:
        await _migrate(config)
        with _naming(folder):
            objects = await trio.to_thread.run_sync(FolderObjects, folder / OBJECTS)
        async with Sqlite.open(folder / DATABASE, config.sqlite) as db:
            since_us = clock.now_us()
            status = [
                DependencyStatus("postgres", "sqlite", "up", since_us),
                DependencyStatus("redis", "memory", "up", since_us),
                DependencyStatus("minio", "files", "up", since_us),
            ]
            yield Deps(
                db=db,
                cache=MemoryCache(config.memory),
                bus=MemoryBus(config.memory),
                objects=objects,
                status=lambda: status,
            )
    finally:
        os.close(lock)


@asynccontextmanager
async def open_database(config: Config, *, bring_up_to_date: bool = False) -> AsyncIterator[Sqlite]:
    """The database alone, for the command line; a server may be running on it.

    bring_up_to_date: make what is missing. Otherwise raises NotReady if the database is missing or its schema
    is behind.
    """
    path = Path(config.data_dir) / DATABASE
    if bring_up_to_date:
        with _naming(path.parent):
            await trio.to_thread.run_sync(_make, path.parent)
        await _migrate(config)
    elif not await trio.to_thread.run_sync(path.exists):
        raise NotReady(
            f"there is no database in {config.data_dir}: start the server once, or give --data-dir"
        )
    async with Sqlite.open(path, config.sqlite) as db:
        if pending := await migrate.pending(db):
            raise NotReady(f"the database lacks {', '.join(pending)}: run `secureconnect migrate` first")
        yield db


async def _migrate(config: Config) -> None:
    path = Path(config.data_dir) / DATABASE
    async with Sqlite.open(path, replace(config.sqlite, statement_s=MIGRATION_S, readers=1)) as db:
        await migrate.apply(db)


@contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """The system's refusals name the setting."""
    try:
        yield
    except OSError as exc:
        why = str(exc.strerror).lower()
        raise BadSetting(f"data_dir = {str(folder)!r} cannot be used: {why} ({exc.filename})") from exc


def _make(folder: Path) -> None:
    """The folder and those above it, durably: what is synced in a folder that a crash takes is lost too."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for each in missing:
        sync_folder(each.parent)


def _lock(folder: Path) -> int:
    """Descriptor of the lock file; the lock ends with it, and with the process however that dies."""
    _make(folder)
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(lock, 20).decode(errors="replace").strip()
        os.close(lock)
        raise DataFolderBusy(
            f"the data folder {folder} is in use by another server (process {holder or 'unknown'})"
        ) from None
    with suppress(OSError):  # a full disk: the number only stands in the refusal above
        os.ftruncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
    return lock
