"""A unit of work on one connection of Postgres: its `Tx`, its values and its errors."""

from __future__ import annotations

import types
from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import asyncpg

from ..errors import DeadlineExceeded, DiskFull, PoolExhausted, Problem, Unavailable
from .contracts import ConstraintViolation, Row, T, UniqueViolation, Value

if TYPE_CHECKING:
    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record]  # only its stubs are generic


EPOCH_US = 946_684_800_000_000  # Postgres counts from 2000-01-01

# What another attempt may well bring to a better end.
_AGAIN = {
    "40001",  # serialization failure
    "40P01",  # deadlock
    "55P03",  # lock_timeout
}


class PostgresTx:
    """contracts.Tx.  waits: while the driver works for it.  failure, lost: the driver's error that ended the
    whole transaction, and ours for it, should the unit swallow it."""

    __slots__ = ("_connection", "_reads", "failure", "lost", "waits")

    dialect: Literal["postgres"] = "postgres"

    def __init__(self, connection: Connection, *, reads: bool) -> None:
        self._connection: Any = connection
        self._reads = reads
        self.waits = False
        self.failure: Exception | None = None
        self.lost: Exception | None = None

    async def one(self, sql: str, *args: Value) -> Row | None:
        row = await self._ask("fetchrow", sql, *args)
        return None if row is None else tuple(row)

    async def all(self, sql: str, *args: Value) -> list[Row]:
        return [tuple(row) for row in await self._ask("fetch", sql, *args)]

    async def run(self, sql: str, *args: Value) -> int:
        verb, *numbers = (await self._ask("execute", sql, *args)).split()  # "INSERT 0 1", "CREATE TABLE"
        return int(numbers[-1]) if verb in ("INSERT", "UPDATE", "DELETE") else 0

    async def many(self, sql: str, rows: Sequence[Sequence[Value]]) -> None:
        if rows:
            await self._ask("executemany", sql, rows)

    def end(self) -> None:
        self._connection = None

    async def _ask(self, method: str, *args: Any) -> Any:
        if self._connection is None:
            raise RuntimeError("this transaction is over")
        if self.lost is not None:
            raise self.lost
        self.waits = True
        try:
            return await getattr(self._connection, method)(*args)
        except Exception as exc:
            self.failure, self.lost = exc, meaning(exc, reads=self._reads)
            raise self.lost from without_values(exc)
        finally:
            self.waits = False


def meaning(exc: Exception, *, reads: bool = False) -> Exception:
    """Our error for the driver's: the one table."""
    if isinstance(exc, Problem):
        return exc
    code: str = getattr(exc, "sqlstate", None) or ""
    match code:
        case "23505":
            return UniqueViolation(getattr(exc, "constraint_name", None) or "")
        case "53100":
            return DiskFull()
        case "57014":  # statement_timeout
            return DeadlineExceeded("The database took too long.")
        case "25P03":  # idle_in_transaction_session_timeout: we stood still
            return Unavailable()
        case "25006":  # a standby, unless it is a read of ours that writes
            return RuntimeError("a read cannot write") if reads else Unavailable()
    if code in _AGAIN:
        return PoolExhausted()  # busy, and nothing is broken: no matter for a breaker
    match code[:2]:
        case "22" | "23" | "54":  # data, integrity, too long or too deep
            return ConstraintViolation(f"{type(exc).__name__} {getattr(exc, 'constraint_name', None) or ''}")
        case "0A" | "21" | "25" | "42":  # ours: bad SQL
            return RuntimeError(f"a statement is wrong: {exc.args[0]}")
    if isinstance(exc, asyncpg.InterfaceError) and "argument" in str(exc):
        return RuntimeError(f"a statement is wrong: {exc}")
    return Unavailable()  # connection, shutdown, resources, authentication, internal …


def without_values(exc: Exception) -> Exception | None:
    """The cause as it may be logged: the values of the row stand in DETAIL, and in the text of class 22."""
    if getattr(exc, "sqlstate", None) is None:
        return exc
    if str(exc.sqlstate).startswith("22"):  # type: ignore[attr-defined]
        return None
    exc.detail = None  # type: ignore[attr-defined]
    return exc


def is_refusal(exc: Exception) -> bool:
    """Whether the server said no, and lives on. A server that stops in a COMMIT may have done it."""
    return isinstance(exc, asyncpg.PostgresError) and getattr(exc, "severity_en", None) == "ERROR"


def is_worth_another_attempt(exc: Exception | None) -> bool:
    return getattr(exc, "sqlstate", None) in _AGAIN or isinstance(
        exc, asyncpg.InvalidCachedStatementError | asyncpg.OutdatedSchemaCacheError
    )


@types.coroutine
def drive(
    unit: Callable[..., Awaitable[T]], tx: PostgresTx, args: Any, kwargs: Any
) -> Generator[Any, None, T]:
    """Run a unit to its end, handing on what its `tx` waits for and nothing else."""
    coroutine: Any = unit(tx, *args, **kwargs)
    error: BaseException | None = None
    try:
        while True:
            awaited = coroutine.send(None) if error is None else coroutine.throw(error)
            if not tx.waits:
                raise RuntimeError("a unit of work awaited something other than its tx")
            error = None
            try:
                yield awaited
            except BaseException as exc:
                error = exc  # thrown into the unit: a cancellation passes through it
    except StopIteration as done:
        if tx.lost is not None:
            raise tx.lost from None
        result: T = done.value
        return result
    finally:
        coroutine.close()
        tx.end()


def _encode_time(us: int) -> tuple[int]:
    return (us - EPOCH_US,)


def _decode_time(told: tuple[int]) -> int:
    return told[0] + EPOCH_US


def _decode_numeric(text: str) -> int | float:
    """What SUM makes of bigint."""
    return int(text) if text.lstrip("-").isdigit() else float(text)


# So that Python sees what SQLite gives it.
CODECS: tuple[tuple[str, Callable[[Any], Any], Callable[[Any], Any], Literal["text", "tuple"]], ...] = (
    ("uuid", str, str, "text"),
    ("timestamptz", _encode_time, _decode_time, "tuple"),
    ("numeric", str, _decode_numeric, "text"),
)
