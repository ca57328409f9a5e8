"""What each outside system promises, whoever stands behind the protocol.

One suite in tests/contracts runs on every implementation. Every wait here has a bound; what fails raises a
`Problem` (`Unavailable`, `PoolExhausted`, `DiskFull`, `OutcomeUnknown`) or one of the errors below, never a
driver's own exception.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar

T = TypeVar("T")
P = ParamSpec("P")

Value = str | int | float | bytes | None
Row = tuple[Any, ...]


class UniqueViolation(Exception):
    """A row like this exists.  name: the violated constraint as far as the database tells it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class ConstraintViolation(Exception):
    """A CHECK, NOT NULL or foreign key refused the row: our bug, unless a rule expects it."""


class Tx(Protocol):
    """One transaction, lent to a unit of work. SQL is one text for both databases (DATA §2): `$1` parameters;
    ids are str, times integer microseconds, JSON is str; booleans may come back as 0 and 1."""

    @property
    def dialect(self) -> Literal["sqlite", "postgres"]: ...

    async def one(self, sql: str, *args: Value) -> Row | None:
        """The first row, or None."""
        ...

    async def all(self, sql: str, *args: Value) -> list[Row]: ...

    async def run(self, sql: str, *args: Value) -> int:
        """Number of rows changed."""
        ...

    async def many(self, sql: str, rows: Sequence[Sequence[Value]]) -> None:
        """The same statement for each row, in order; nothing is returned."""
        ...


Unit = Callable[Concatenate[Tx, P], Awaitable[T]]


class Database(Protocol):
    """A unit of work awaits nothing but its `tx`, may be run twice (a deadlock, a group rolled back), changes
    nothing but through `tx`, and builds its result anew each time. Awaiting anything else is a RuntimeError.

    An exception from the unit rolls it back and is raised here. Cancelled before the unit began: nothing is
    written. Cancelled later: the outcome is awaited, shielded and bounded, then `Cancelled` is raised; past
    that bound the outcome is unknown (OutcomeUnknown), never "failed".
    """

    async def write(self, unit: Unit[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `unit` in a transaction of its own; returns after the commit is durable."""
        ...

    async def relieve(self, unit: Unit[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`write` for what must go on when the disk is nearly full: work that frees space, ends sessions or
        renews leases. Everything else raises DiskFull then."""
        ...

    async def read(self, unit: Unit[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `unit` on one snapshot, which includes every write returned before. It cannot write."""
        ...

    def now_us(self) -> int:
        """The database's time, shared by all nodes: for leases and expiry."""
        ...


@dataclass(frozen=True, slots=True)
class Allowance:
    """Answer of a rate limit.  retry_after_s: 0 when allowed.  remaining: further calls allowed right now."""

    allowed: bool
    remaining: int
    retry_after_s: float
    reset_s: float


class Cache(Protocol):
    """Small values that may be lost at any time; never the only place of anything. Bounded: the entries
    nearest their end are dropped first. Keys are text, values bytes; a key is for values or for `take`, never
    for both."""

    async def get(self, key: str) -> bytes | None: ...

    async def put(self, key: str, value: bytes, ttl_s: float) -> None: ...

    async def delete(self, key: str) -> None: ...

    async def take(self, key: str, limit: int, window_s: float) -> Allowance:
        """Take one of `limit` calls per `window_s` (GCRA: an even rate with a burst of `limit`). Atomic."""
        ...


@dataclass(frozen=True, slots=True)
class Delivery:
    channel: str
    payload: bytes


class Bus(Protocol):
    """A hint to every node, this one too: at most once, in order per publisher and channel, lossy. The table
    is the truth (DATA §4). A subscriber whose backlog is full loses what comes meanwhile and is told so by
    `Backlog.lost`."""

    async def publish(self, channel: str, payload: bytes) -> None: ...

    def subscribe(self, channels: Sequence[str]) -> AbstractAsyncContextManager[Backlog]: ...


class Backlog(Protocol):
    """What arrived for one subscription, in order."""

    @property
    def lost(self) -> int:
        """How many deliveries were dropped so far because the backlog was full."""
        ...

    def __aiter__(self) -> AsyncIterator[Delivery]: ...


@dataclass(frozen=True, slots=True)
class StoredObject:
    key: str
    size_bytes: int
    sha256: str
    modified_us: int


class Objects(Protocol):
    """Files by key (`[a-z0-9/_.-]`, no `..`). `put` is atomic and durable: a reader sees the whole object or
    none, and after it returned a crash loses nothing. Missing keys raise NotFound, impossible ones
    ValueError."""

    async def put(self, key: str, chunks: AsyncIterator[bytes], *, limit_bytes: int) -> StoredObject:
        """Store; raises TooLarge past `limit_bytes` and leaves nothing behind."""
        ...

    def get(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Bytes [start, end) in chunks of bounded size."""
        ...

    async def stat(self, key: str) -> StoredObject: ...

    async def copy(self, source: str, target: str) -> StoredObject: ...

    async def delete(self, key: str) -> None:
        """Idempotent: a missing key is no error."""
        ...

    def list(self, prefix: str) -> AsyncIterator[str]: ...


Health = Literal["up", "down"]
Breaker = Literal["closed", "half_open", "open"]


@dataclass(frozen=True, slots=True)
class DependencyStatus:
    """For /health.  kind: what stands behind the protocol.  last_error: a closed code, never a host.
    breaker: None for what is part of this process."""

    name: Literal["postgres", "redis", "minio"]
    kind: Literal["sqlite", "memory", "files", "postgres", "redis", "minio"]
    status: Health
    since_us: int
    last_error: str | None = None
    breaker: Breaker | None = None


@dataclass(frozen=True, slots=True)
class Deps:
    """Everything outside, opened."""

    db: Database
    cache: Cache
    bus: Bus
    objects: Objects
    status: Callable[[], list[DependencyStatus]]
