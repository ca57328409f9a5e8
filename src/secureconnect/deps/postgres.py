"""PostgreSQL: the database that several nodes share.

A unit of work is one coroutine on the asyncio side, from BEGIN to COMMIT, and so one crossing of the bridge.
Whose turn it is, how long it may take and what becomes of a connection that does not answer is decided on
Trio's side, which can always give up: the driver cannot, when a server accepts and never answers.

The pool is ours: asyncpg's spends another round trip on every release, and leaks when a release is cancelled.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from time import monotonic_ns
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import asyncpg
import structlog
import trio

from .. import clock
from ..config import PostgresConfig
from ..errors import DeadlineExceeded, OutcomeUnknown, PoolExhausted, Problem, Unavailable
from ..settings import BadSetting
from .asyncio_bridge import Bridge
from .contracts import P, T, Unit
from .meters import READ_S, READING, WRITE_S, WRITING
from .postgres_unit import (
    CODECS,
    PostgresTx,
    drive,
    is_refusal,
    is_worth_another_attempt,
    meaning,
    without_values,
)

if TYPE_CHECKING:
    from .postgres_unit import Connection

log = structlog.get_logger(module="postgres")

GRACE_S = 1.0  # how much longer than the server we wait: its own refusal says for certain what happened
RELEASE_S = 1.0  # how long a rollback after a cancellation may take before the connection is given up
GONE_S = 1.0  # how often the server looks whether the client of a long statement is still there
CLOSE_S = 2.0
IDLE_S = 60.0  # a connection unused for longer may have been forgotten by something on the way
WARN_EVERY_S = 10.0
NEARLY_FULL = 0.8
NEARLY_FULL_S = (
    1.0  # so long it is, when that is told: work that comes at the same moment fills it for a blink
)
STATEMENTS = 512  # prepared statements kept per connection

_BEGIN: dict[bool, str] = {
    True: "BEGIN",  # READ COMMITTED, the default of every connection of ours
    False: "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
}
_LOCK = "SELECT pg_advisory_lock($1)"  # until its connection ends
# a standby takes no writes, nor does a primary that was told so, as managed ones are when their disk is full
_TIME = "SELECT clock_timestamp(), current_setting('transaction_read_only') = 'on'"


class _Seldom:
    """Lets a log line pass once in a while."""

    def __init__(self) -> None:
        self._next = -math.inf

    def now(self) -> bool:
        if (now := trio.current_time()) < self._next:
            return False
        self._next = now + WARN_EVERY_S
        return True


class _Work:
    """One unit on its way.

    scope: what ends it when it takes too long.  connection: while it holds one.  committing: from the moment
    COMMIT may be on its way.  finished: it is known to be committed, with this result.  abandoned: the server
    is known not to answer.
    """

    __slots__ = (
        "abandoned",
        "args",
        "committing",
        "connection",
        "finished",
        "kwargs",
        "result",
        "scope",
        "unit",
        "writes",
    )

    def __init__(
        self,
        unit: Callable[..., Awaitable[Any]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        scope: trio.CancelScope,
        *,
        writes: bool,
    ) -> None:
        self.unit = unit
        self.args = args
        self.kwargs = kwargs
        self.scope = scope
        self.writes = writes
        self.connection: Connection | None = None
        self.committing = False
        self.finished = False
        self.abandoned = False
        self.result: Any = None

    def unfinished(self) -> Unavailable:
        """What a caller is told when it has been waited for long enough."""
        if self.committing:
            return OutcomeUnknown()
        return Unavailable() if self.abandoned else DeadlineExceeded()


class Postgres:
    """contracts.Database over a PostgreSQL server; see `open`."""

    def __init__(self, config: PostgresConfig, bridge: Bridge) -> None:
        self._config = config
        self._bridge = bridge
        self._closed = False
        self._turns = trio.CapacityLimiter(config.connections)
        self._under_way: set[_Work] = set()
        self._abandoned = 0  # how often: whoever waited for a turn meanwhile does not take it
        self._idle: list[tuple[Connection, float]] = []  # since when; the last used at the end
        self._prober: Connection | None = None
        self._limit_s = config.statement_s + GRACE_S
        self._offset_us: int | None = None
        self._full_since: float | None = None
        self._told_full = False
        self._warning = _Seldom()
        self._refusal = _Seldom()
        self._rollback_failed = _Seldom()

    @classmethod
    @asynccontextmanager
    async def open(cls, config: PostgresConfig, bridge: Bridge) -> AsyncIterator[Postgres]:
        """Connects when it is used, so the server may be away. `bridge` must outlast the block.

        Raises BadSetting if the address is none.
        """
        at = urlsplit(config.url)
        if at.scheme not in ("postgres", "postgresql") or not at.netloc:
            raise BadSetting("postgres.url: not like postgres://user:password@host:port/database")
        db = cls(config, bridge)
        try:
            yield db
        finally:
            db._closed = True
            with trio.move_on_after(CLOSE_S, shield=True):
                for _ in range(config.connections):
                    await db._turns.acquire_on_behalf_of(object())
                await bridge.run(db._say_goodbye)
            with trio.move_on_after(CLOSE_S, shield=True):
                await bridge.run(db._hang_up)

    async def write(self, unit: Unit[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """contracts.Database.write. A cancelled caller gets `Cancelled` in every case, even if the outcome
        did not become known in time; others then get OutcomeUnknown."""
        result: T = await self._submit(unit, args, kwargs, writes=True)
        return result

    relieve = write  # the disk is the server's own matter

    async def read(self, unit: Unit[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """contracts.Database.read. Cancelled, it returns within RELEASE_S and the statement is cancelled."""
        result: T = await self._submit(unit, args, kwargs, writes=False)
        return result

    def now_us(self) -> int:
        """By this machine's clock until the first `probe`."""
        return clock.now_us() if self._offset_us is None else _monotonic_us() + self._offset_us

    def waiting(self) -> int:
        """Units that wait for their turn. For metrics, whose thread asks."""
        return self._turns.statistics().tasks_waiting

    @asynccontextmanager
    async def alone(self, key: int) -> AsyncIterator[None]:
        """One process at a time, on a connection of its own; the others wait, `lock_s` at most. Who loses
        that connection meanwhile is not told. Raises Unavailable."""
        connection: Connection = await self._bridge.run(self.connect)
        try:
            await self._bridge.run(self._lock, connection, key)
            yield
        finally:
            connection.terminate()

    async def probe(self) -> None:
        """Ask the server for its time, on a connection of its own, and set `now_us` by the answer.

        Raises Unavailable, also when the server takes no writes. The time limit is the caller's; one at a
        time.
        """
        connection, self._prober = self._prober, None
        held = [connection] if connection is not None else []
        try:
            await self._bridge.run(self._ask_time, held)
            self._prober = held.pop()
        except Problem:
            raise
        except Exception as exc:
            raise Unavailable() from exc
        finally:
            for each in held:
                each.terminate()

    def abandon(self) -> None:
        """Wait no longer for what is asked so far: for whoever has found that the server does not answer.

        A unit whose COMMIT may have arrived ends as OutcomeUnknown, every other as Unavailable: nothing of it
        is written.
        """
        self._abandoned += 1
        self._drop_idle(0)
        for work in self._under_way:
            work.abandoned = True
            work.scope.cancel()

    # Trio's side

    async def _submit(
        self,
        unit: Callable[..., Awaitable[Any]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        writes: bool,
    ) -> Any:
        await self._take_turn()
        limit = trio.CancelScope(deadline=trio.current_time() + self._limit_s)
        work = _Work(unit, args, kwargs, limit, writes=writes)
        error: Exception | None = None
        with self._at_work(work):
            try:
                with work.scope:
                    try:
                        await self._bridge.run(self._transact, work)
                    except Exception as exc:
                        error = exc
            finally:
                if work.connection is not None:
                    await self._recover(work)
        await trio.lowlevel.checkpoint_if_cancelled()
        if work.finished:
            return work.result
        try:
            raise error or work.unfinished()
        finally:
            del error, work  # the traceback holds this frame

    async def _take_turn(self) -> None:
        """Wait for one of the connections, or for the right to open one."""
        self._require_open()
        if self._turns.statistics().tasks_waiting >= self._config.waiting:
            raise PoolExhausted()
        abandoned = self._abandoned
        with trio.move_on_after(self._config.wait_s) as waiting:
            await self._turns.acquire()
        if waiting.cancelled_caught:
            raise PoolExhausted()
        try:
            self._require_open()
            if abandoned != self._abandoned:
                raise Unavailable()
        except Unavailable:
            self._turns.release()
            raise
        self._look_at_load()

    @contextmanager
    def _at_work(self, work: _Work) -> Iterator[None]:
        """Count it, and pass its turn on at the end."""
        active, duration = (WRITING, WRITE_S) if work.writes else (READING, READ_S)
        began = trio.current_time()
        active.inc()
        self._under_way.add(work)
        try:
            yield
        finally:
            self._under_way.discard(work)
            self._turns.release()
            active.dec()
            duration.observe(trio.current_time() - began)
            if self._full_since is not None:
                self._look_at_load()

    def _require_open(self) -> None:
        if self._closed:
            raise Unavailable()

    def _look_at_load(self) -> None:
        """Warn once when the pool stays nearly full, and say when it is half empty again."""
        busy, limit = self._turns.borrowed_tokens, self._config.connections
        if busy <= limit // 2:
            if self._told_full:
                log.info("database_pool_relaxed", busy=busy, connections=limit)
            self._full_since, self._told_full = None, False
        elif busy >= NEARLY_FULL * limit and not self._told_full:
            now = trio.current_time()
            if self._full_since is None:
                self._full_since = now
            elif now - self._full_since >= NEARLY_FULL_S and self._warning.now():
                self._told_full = True
                log.warning("database_pool_nearly_full", busy=busy, connections=limit)

    async def _recover(self, work: _Work) -> None:
        """After a cancellation: end the transaction, or the connection if that does not answer."""
        try:
            if not work.committing and not work.abandoned:
                with trio.move_on_after(RELEASE_S, shield=True) as limit:
                    await self._bridge.run(self._roll_back, work)
                if limit.cancelled_caught:
                    self._note_given_up("no answer")
        finally:
            self._give_up(work)

    def _drop_idle(self, max_idle_s: float) -> None:
        now = trio.current_time()
        while self._idle and now - self._idle[0][1] >= max_idle_s:
            self._idle.pop(0)[0].terminate()

    def _set_clock(self, asked_us: int, answered_us: int, told_us: int) -> None:
        """The answer was made between the question and now. What we had stays as long as it agrees with that,
        so that time does not run back and forth with every answer."""
        earliest, latest = told_us - answered_us, told_us - asked_us
        if self._offset_us is None:
            self._offset_us = (earliest + latest) // 2
        self._offset_us = min(max(self._offset_us, earliest), latest)

    # The asyncio side. A cancelled coroutine leaves its connection in `work`, for `_recover`.

    async def _transact(self, work: _Work) -> None:
        if not await self._attempt(work, last=False):
            await self._attempt(work, last=True)

    async def _attempt(self, work: _Work, *, last: bool) -> bool:
        """False if it failed and another attempt may do better."""
        connection = await self._begin(work)
        work.scope.shield = work.writes  # begun: from here on the outcome is awaited
        tx = PostgresTx(connection, reads=not work.writes)
        try:
            result = await drive(work.unit, tx, work.args, work.kwargs)
        except Exception:
            await self._roll_back(work)
            if last or not is_worth_another_attempt(tx.failure):
                raise
            return False
        work.committing = work.writes
        try:
            await connection.execute("COMMIT")
        except Exception as exc:
            if work.writes and not is_refusal(exc):
                self._give_up(work)
                raise OutcomeUnknown() from exc
            work.committing = False
            await self._roll_back(work)
            if last or not is_worth_another_attempt(exc):
                raise meaning(exc) from without_values(exc)
            return False
        work.result, work.finished = result, True
        self._put_back(work)
        return True

    async def _begin(self, work: _Work) -> Connection:
        """A connection with an open transaction."""
        while True:
            self._drop_idle(IDLE_S)
            used = self._idle.pop()[0] if self._idle else None
            if used is not None and used.is_closed():
                continue
            work.connection = connection = used or await self.connect()
            try:
                await connection.execute(_BEGIN[work.writes], timeout=self._config.connect_s)
            except Exception as exc:
                self._give_up(work)
                if isinstance(exc, TimeoutError):
                    self._drop_idle(0)  # what has made this one silent has met the others too
                if used is None:
                    raise meaning(exc) from without_values(exc)
                # it had died in the pool: nothing has begun
            else:
                return connection

    async def connect(self) -> Connection:
        """A new one, which whoever asked for it ends: on the asyncio side. Raises Unavailable."""
        config = self._config
        try:
            connection: Connection = await asyncpg.connect(
                config.url,
                timeout=config.connect_s,
                command_timeout=self._limit_s + GRACE_S,  # bounds the driver's own requests to cancel, too
                statement_cache_size=STATEMENTS,
                server_settings={
                    "application_name": "secureconnect",
                    "statement_timeout": _milliseconds(config.statement_s),
                    "lock_timeout": _milliseconds(config.lock_s),
                    "idle_in_transaction_session_timeout": _milliseconds(config.idle_in_transaction_s),
                    # a statement whose client is gone must not keep its locks until its time is up
                    "client_connection_check_interval": _milliseconds(GONE_S),
                    "default_transaction_isolation": "read committed",
                    "jit": "off",  # statements here are short, and compiling them is not
                    "timezone": "UTC",
                },
            )
            for name, encode, decode, format_ in CODECS:
                await connection.set_type_codec(
                    name, schema="pg_catalog", encoder=encode, decoder=decode, format=format_
                )
        except Exception as exc:
            misconfigured = isinstance(
                exc,
                asyncpg.InvalidAuthorizationSpecificationError
                | asyncpg.InvalidCatalogNameError
                | asyncpg.ProtocolViolationError  # of a pooler, which takes none of these settings
                | asyncpg.InterfaceError,
            )
            if misconfigured and self._refusal.now():
                log.warning("database_refuses_us", error=type(exc).__name__)
            raise Unavailable() from exc
        return connection

    async def _lock(self, connection: Connection, key: int) -> None:
        try:
            await connection.execute(_LOCK, key)
        except Exception as exc:
            raise meaning(exc) from without_values(exc)

    async def _roll_back(self, work: _Work) -> None:
        """End the transaction, if there is one: after a cancellation the driver does not know."""
        if work.connection is None:
            return
        try:
            await work.connection.execute("ROLLBACK")
        except Exception as exc:
            if not work.connection.is_closed():  # or it had gone with the server, which others say
                self._note_given_up(type(exc).__name__)
            self._give_up(work)
        else:
            self._put_back(work)

    def _put_back(self, work: _Work) -> None:
        connection = work.connection
        if connection is None or self._closed or connection.is_closed() or connection.is_in_transaction():
            self._give_up(work)
        else:
            work.connection = None
            self._idle.append((connection, trio.current_time()))

    def _note_given_up(self, reason: str) -> None:
        """Once in a while: in an outage every transaction under way ends so."""
        if self._rollback_failed.now():
            log.warning("connection_given_up", during="rollback", reason=reason)

    def _give_up(self, work: _Work) -> None:
        connection, work.connection = work.connection, None
        if connection is not None:
            connection.terminate()

    async def _ask_time(self, held: list[Connection]) -> None:
        if held and held[0].is_closed():
            held.clear()
        if not held:
            held.append(await self.connect())
        asked_us = _monotonic_us()
        row = await held[0].fetchrow(_TIME)
        assert row is not None
        told_us, takes_no_writes = row
        if takes_no_writes:
            raise Unavailable()
        self._set_clock(asked_us, _monotonic_us(), told_us)

    async def _say_goodbye(self) -> None:
        for connection in self._at_rest():
            await connection.close()

    async def _hang_up(self) -> None:
        """For those that did not answer; the loop must turn once more after it."""
        for connection in self._at_rest():
            connection.terminate()

    def _at_rest(self) -> list[Connection]:
        """The connections that nobody uses."""
        probing = [] if self._prober is None else [self._prober]
        return probing + [connection for connection, _ in self._idle]


def _monotonic_us() -> int:
    return monotonic_ns() // 1000


def _milliseconds(seconds: float) -> str:
    return str(math.ceil(seconds * 1000))
