"""A unit of work on one connection of SQLite: its `Tx`, its errors, and how it is driven in a thread."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Literal

from ..errors import DeadlineExceeded, DiskFull, Unavailable
from .contracts import ConstraintViolation, Row, T, UniqueViolation, Value

# SQLite takes `$1` only from a dict with the key "1"; a sequence would be bound in order of appearance.
_NAMES = tuple(str(number) for number in range(1, 1001))


class _Over:
    """Stands in for the connection of a transaction that has ended."""

    def execute(self, *_: object) -> Any:
        raise RuntimeError("this transaction is over")

    executemany = execute


_OVER = _Over()


class SqliteTx:
    """contracts.Tx.  lost: the error that rolled the whole transaction back, should the unit swallow it."""

    __slots__ = ("_connection", "lost")

    dialect: Literal["sqlite"] = "sqlite"

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection: Any = connection
        self.lost: Exception | None = None

    async def one(self, sql: str, *args: Value) -> Row | None:
        try:
            cursor = self._connection.execute(sql, dict(zip(_NAMES, args, strict=False)))
            row: Row | None = cursor.fetchone()
            cursor.close()  # rows left over would keep the statement, and so the commit, open
        except sqlite3.Error as exc:
            raise self._failed(exc) from exc
        return row

    async def all(self, sql: str, *args: Value) -> list[Row]:
        try:
            rows: list[Row] = self._connection.execute(sql, dict(zip(_NAMES, args, strict=False))).fetchall()
        except sqlite3.Error as exc:
            raise self._failed(exc) from exc
        return rows

    async def run(self, sql: str, *args: Value) -> int:
        try:
            cursor = self._connection.execute(sql, dict(zip(_NAMES, args, strict=False)))
            cursor.fetchall()  # what RETURNING gives: rowcount is known after it
            changed: int = cursor.rowcount
            if changed < 0 and sql.lstrip()[:4].upper() == "WITH":  # sqlite3 counts by the first word
                changed = self._connection.execute("SELECT changes()").fetchone()[0]
        except sqlite3.Error as exc:
            raise self._failed(exc) from exc
        return max(changed, 0)

    async def many(self, sql: str, rows: Sequence[Sequence[Value]]) -> None:
        try:
            self._connection.executemany(sql, [dict(zip(_NAMES, row, strict=False)) for row in rows])
        except sqlite3.Error as exc:
            raise self._failed(exc) from exc

    def end(self) -> None:
        self._connection = _OVER

    def _failed(self, exc: sqlite3.Error) -> Exception:
        error = meaning(exc)
        if not self._connection.in_transaction:
            # From here on a statement would commit by itself.
            self.lost = error
            self._connection = _OVER
        return error


def meaning(exc: sqlite3.Error) -> Exception:
    """Our error for SQLite's: the one table."""
    code = getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_MISUSE)
    if code in (
        sqlite3.SQLITE_CONSTRAINT_UNIQUE,
        sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY,
        sqlite3.SQLITE_CONSTRAINT_ROWID,
    ):
        return UniqueViolation(str(exc).partition(": ")[2])  # "users.email_key"
    match code & 0xFF:
        case sqlite3.SQLITE_CONSTRAINT | sqlite3.SQLITE_MISMATCH | sqlite3.SQLITE_TOOBIG:
            return ConstraintViolation(str(exc))
        case sqlite3.SQLITE_FULL:
            return DiskFull()
        case sqlite3.SQLITE_INTERRUPT:
            return DeadlineExceeded("The database took too long.")
        case sqlite3.SQLITE_ERROR | sqlite3.SQLITE_MISUSE | sqlite3.SQLITE_RANGE | sqlite3.SQLITE_READONLY:
            return RuntimeError(f"a statement is wrong: {exc}")  # ours: bad SQL, or a read that writes
        case _:  # busy, locked, input/output, corrupt, out of memory …
            return Unavailable()


def drive(unit: Callable[..., Awaitable[T]], tx: SqliteTx, args: Iterable[Any], kwargs: dict[str, Any]) -> T:
    """Run a unit to its end without an event loop: whatever `tx` does is done when it returns."""
    coroutine: Any = unit(tx, *args, **kwargs)
    try:
        coroutine.send(None)
    except StopIteration as done:
        if tx.lost is not None:
            raise tx.lost from None
        result: T = done.value
        return result
    else:
        coroutine.close()
        raise RuntimeError("a unit of work awaited something other than its tx")
    finally:
        tx.end()
