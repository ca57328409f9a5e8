"""SQLite's file at one moment: a read transaction on a connection of its own, beside whoever serves it."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from .. import clock
from ..errors import Unavailable
from .contracts import P, Row, T, Unit
from .sqlite_unit import SqliteTx, drive, meaning

CLOSE_S = 5.0
LOCK_WAIT_S = 10.0


class SqliteSnapshot:
    """contracts.Snapshot. While it is held the commit log only grows."""

    def __init__(self, connection: sqlite3.Connection, at_us: int) -> None:
        self._connection = connection
        self._thread = trio.CapacityLimiter(1)
        self.at_us = at_us

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator[SqliteSnapshot]:
        """Of the database in `path`, which must be there. Raises Unavailable."""
        at_us = clock.now_us()
        connection = await trio.to_thread.run_sync(_begin, path)
        snapshot = cls(connection, at_us)
        try:
            yield snapshot
        finally:
            with trio.move_on_after(CLOSE_S, shield=True):
                await trio.to_thread.run_sync(connection.close, limiter=snapshot._thread)

    async def read(self, unit: Unit[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._run(lambda: drive(unit, SqliteTx(self._connection), args, kwargs))

    async def pages(self, sql: str, rows: int) -> AsyncGenerator[list[Row], None]:
        cursor = await self._run(lambda: self._connection.execute(sql))
        try:
            while page := await self._run(lambda: cursor.fetchmany(rows)):
                yield page
        finally:
            cursor.close()

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await trio.to_thread.run_sync(work, limiter=self._thread)
        except sqlite3.Error as exc:
            raise meaning(exc) from exc


def _begin(path: Path) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=LOCK_WAIT_S,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.execute("PRAGMA query_only = ON")
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # from here on it is that moment
    except sqlite3.Error as exc:
        raise Unavailable(f"The database {path} cannot be read: {exc}.") from exc
    return connection
