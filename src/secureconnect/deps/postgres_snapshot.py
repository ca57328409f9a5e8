"""Postgres at one moment: a REPEATABLE READ transaction on a connection of its own, read through cursors."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from .asyncio_bridge import Bridge
from .contracts import P, Row, T, Unit
from .postgres import Postgres
from .postgres_unit import PostgresTx, drive, meaning, without_values

if TYPE_CHECKING:
    from .postgres_unit import Connection

_TIME = "SELECT clock_timestamp()"  # before the transaction, whose moment is that of its first statement
_BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
# its moment is that of the first of these; whoever reads it writes to a disk between two pages
_SETTINGS = (
    "SELECT set_config('idle_in_transaction_session_timeout', '600s', true),"
    " set_config('statement_timeout', '600s', true)"
)


class PostgresSnapshot:
    """contracts.Snapshot. The server ends it when nobody has asked for anything for ten minutes."""

    def __init__(self, bridge: Bridge, connection: Connection, at_us: int) -> None:
        self._bridge = bridge
        self._connection: Any = connection
        self.at_us = at_us

    @classmethod
    @asynccontextmanager
    async def open(cls, db: Postgres, bridge: Bridge) -> AsyncIterator[PostgresSnapshot]:
        """Raises Unavailable."""
        connection: Connection = await bridge.run(db.connect)
        try:
            at_us: int = await _told(bridge, connection.fetchval, _TIME)
            await _told(bridge, connection.execute, _BEGIN)
            await _told(bridge, connection.fetchrow, _SETTINGS)
            yield cls(bridge, connection, at_us)
        finally:
            connection.terminate()  # it has written nothing

    async def read(self, unit: Unit[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        async def once() -> T:
            return await drive(unit, PostgresTx(self._connection, reads=True), args, kwargs)

        return await self._bridge.run(once)

    async def pages(self, sql: str, rows: int) -> AsyncGenerator[list[Row], None]:
        cursor = await _told(self._bridge, self._cursor, sql)
        while page := await _told(self._bridge, cursor.fetch, rows):
            yield [tuple(row) for row in page]

    async def _cursor(self, sql: str) -> Any:
        return await self._connection.cursor(sql)


async def _told(bridge: Bridge, ask: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """With our errors for the driver's."""
    try:
        return await bridge.run(ask, *args)
    except Exception as exc:
        raise meaning(exc, reads=True) from without_values(exc)
