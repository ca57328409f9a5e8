"""The protocols of `contracts` with a span for each call; put in place only where tracing is on."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import lru_cache
from time import monotonic
from typing import Any, Literal, ParamSpec, TypeVar

from .. import tracing
from ..tracing import Kind, Span
from .contracts import Allowance, Backlog, Bus, Cache, Database, Row, Tx, Unit, Value

P = ParamSpec("P")
T = TypeVar("T")

SYSTEMS = {"sqlite": "sqlite", "postgres": "postgresql"}  # by dialect, as OpenTelemetry calls them

_VERB = re.compile(r"\s*(\w+)")
_TABLE = re.compile(r"\b(?:FROM|INTO|UPDATE|JOIN)\s+(\w+)\b(?!\()")  # and no function


@lru_cache(maxsize=2048)
def summary_of(sql: str) -> str:
    """What a statement does, to the first table it names: `INSERT messages`."""
    verb, table = _VERB.match(sql), _TABLE.search(sql)
    words = [verb[1].upper() if verb else "SQL", *([table[1]] if table else [])]
    return " ".join(words)


def name_of(unit: object) -> str:
    """The function's own; of one that is made in another, the other's."""
    name: str = getattr(unit, "__qualname__", "unit")
    return name.partition(".<locals>")[0].rpartition(".")[2]


class TracedDatabase:
    """A span for each unit of work, and under it one for each statement and for the commit."""

    def __init__(self, inner: Database) -> None:
        self._inner = inner

    async def write(self, unit: Unit[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        result: T = await self._follow("write", self._inner.write, unit, args, kwargs)
        return result

    async def relieve(self, unit: Unit[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        result: T = await self._follow("write", self._inner.relieve, unit, args, kwargs)
        return result

    async def read(self, unit: Unit[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        result: T = await self._follow("read", self._inner.read, unit, args, kwargs)
        return result

    def now_us(self) -> int:
        return self._inner.now_us()

    async def _follow(
        self,
        way: str,
        run: Callable[..., Awaitable[Any]],
        unit: Callable[..., Awaitable[Any]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        with tracing.span(f"{way} {name_of(unit)}") as span:
            if not span:
                return await run(unit, *args, **kwargs)
            asked = monotonic()
            commit = tracing.NOTHING

            async def watched(tx: Tx, *args: Any, **kwargs: Any) -> Any:
                """Where the database runs it: in a thread, or on the asyncio side; again, if need be."""
                nonlocal commit
                span.note("secureconnect.db.wait_ms", round((monotonic() - asked) * 1000, 3))
                result = await unit(_TracedTx(tx, span), *args, **kwargs)
                commit = span.child("COMMIT", Kind.CLIENT)
                commit.note("db.system.name", SYSTEMS[tx.dialect])
                return result

            result = await run(watched, *args, **kwargs)
            if way == "write":
                commit.end()
            return result


class _TracedTx:
    """contracts.Tx."""

    __slots__ = ("_inner", "_unit")

    def __init__(self, inner: Tx, unit: Span) -> None:
        self._inner = inner
        self._unit = unit

    @property
    def dialect(self) -> Literal["sqlite", "postgres"]:
        return self._inner.dialect

    async def one(self, sql: str, *args: Value) -> Row | None:
        return await self._timed(sql, self._inner.one(sql, *args), lambda row: int(row is not None))

    async def all(self, sql: str, *args: Value) -> list[Row]:
        return await self._timed(sql, self._inner.all(sql, *args), len)

    async def run(self, sql: str, *args: Value) -> int:
        return await self._timed(sql, self._inner.run(sql, *args), int)

    async def many(self, sql: str, rows: Sequence[Sequence[Value]]) -> None:
        await self._timed(sql, self._inner.many(sql, rows), lambda _: len(rows))

    async def _timed(self, sql: str, statement: Awaitable[T], rows: Callable[[T], int]) -> T:
        """Not as a block: a unit is driven by hand, and may end in another context than it began in."""
        summary = summary_of(sql)
        span = self._unit.child(summary, Kind.CLIENT)
        span.note("db.system.name", SYSTEMS[self.dialect])
        span.note("db.query.summary", summary)
        try:
            result = await statement
        except BaseException as error:
            span.failed_by(error)
            raise
        else:
            span.note("secureconnect.db.rows", rows(result))
            return result
        finally:
            span.end()


def _redis(operation: str) -> Span:
    span = tracing.span(f"redis {operation}", Kind.CLIENT)
    span.note("db.system.name", "redis")
    return span


class TracedCache:
    """Of Redis."""

    def __init__(self, inner: Cache) -> None:
        self._inner = inner

    async def get(self, key: str) -> bytes | None:
        with _redis("get"):
            return await self._inner.get(key)

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        with _redis("put"):
            await self._inner.put(key, value, ttl_s)

    async def delete(self, key: str) -> None:
        with _redis("delete"):
            await self._inner.delete(key)

    async def take(self, key: str, limit: int, window_s: float) -> Allowance:
        with _redis("take"):
            return await self._inner.take(key, limit, window_s)

    async def take_each(self, keys: Sequence[str], limit: int, window_s: float) -> list[Allowance]:
        with _redis("take"):
            return await self._inner.take_each(keys, limit, window_s)


class TracedBus:
    """Of Redis."""

    def __init__(self, inner: Bus) -> None:
        self._inner = inner

    async def publish(self, channel: str, payload: bytes) -> None:
        with _redis("publish"):
            await self._inner.publish(channel, payload)

    @property
    def is_alone(self) -> bool:
        return self._inner.is_alone

    def subscribe(self, channels: Sequence[str]) -> AbstractAsyncContextManager[Backlog]:
        return self._inner.subscribe(channels)
