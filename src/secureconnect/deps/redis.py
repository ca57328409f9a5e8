"""Redis: the cache and the bus that all nodes share, by redis-py on the asyncio side.

Commands take a lane: what is called at the same moment goes over together, for a crossing costs more than
many commands (0.14 ms with one, 0.44 ms with a hundred). Nothing is tried again: a call whose connection
breaks has failed, and the next one finds a new connection. What arrives on the bus is handed from the asyncio
side to its subscribers by plain calls, without a crossing; see `RedisBus`.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from math import ceil
from typing import Any, Protocol

import msgspec
import structlog
import trio
from redis.asyncio.connection import Connection as TcpConnection
from redis.asyncio.connection import ConnectionPool, parse_url
from redis.exceptions import InvalidResponse, NoScriptError, RedisError, ResponseError

from .. import metrics
from ..config import RedisConfig
from ..errors import Overloaded, Unavailable
from ..settings import BadSetting
from .asyncio_bridge import Bridge, breathe
from .contracts import Allowance, Delivery
from .memory import MemoryBacklog

log = structlog.get_logger(module="redis")

# role: cache, publish, probe (and, in the log, subscribe)
BATCH = metrics.histogram(
    "secureconnect_redis_batch_commands",
    "Commands that went to Redis together.",
    ["role"],
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
)
# result: answered, failed (also by an answer that is a refusal)
COMMANDS = metrics.counter("redis_commands_total", "Commands for Redis.", ["role", "result"])
DURATION = metrics.histogram(
    "redis_command_duration_seconds",
    "Time from call to answer, the wait for a connection included.",
    ["role"],
)
REOPENED = metrics.counter(
    "secureconnect_redis_reopened_total", "Times the bus was heard again after a loss."
)

SUBSCRIBE = "subscribe"

PREFIX = "secureconnect:"
STRIDE = 64  # messages taken from the network without letting other tasks run
CLEAN_UP_S = 1.0
PROBE_MS = 1_000

# What a broken connection, a silent server or one that must not serve raises; a TimeoutError is an OSError.
# Anything else is a surprise; it ends a connection all the same, not the process, and is logged as an error.
FAILURES = (RedisError, OSError, EOFError)

# GCRA as in memory.py, on the server's clock, so that all nodes agree. Integers of microseconds: a number of
# Lua holds them exactly. The state is a hash, so that Redis itself tells it from a value. A clock that was
# set back locks nobody out: no arrival is further away than a whole window.
_TAKE = b"""
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local limit, window = tonumber(ARGV[1]), tonumber(ARGV[2])
local step = math.max(1, math.floor(window / limit))
local answers = {}
for place, key in ipairs(KEYS) do
    local arrival = tonumber(redis.call('HGET', key, 'arrival') or now)
    arrival = math.min(math.max(arrival, now), now + window)
    local wait = arrival + step - window - now
    if wait > 0 then
        answers[place] = {0, 0, wait, arrival - now}
    else
        arrival = arrival + step
        redis.call('HSET', key, 'arrival', string.format('%.0f', arrival))
        redis.call('PEXPIREAT', key, string.format('%.0f', math.ceil(arrival / 1000)))
        local remaining = math.min(limit - 1, math.floor((window - (arrival - now)) / step))
        answers[place] = {1, remaining, 0, arrival - now}
    end
end
return answers
"""
_TAKE_SHA = hashlib.sha1(_TAKE, usedforsecurity=False).hexdigest().encode()

Argument = bytes | int


class Connection(Protocol):
    """What we use of redis-py's, whose types are lax. All but `is_connected` belongs to the asyncio side."""

    @property
    def is_connected(self) -> bool: ...

    async def connect(self) -> None: ...

    async def disconnect(self, nowait: bool = False) -> None: ...

    async def can_read(self) -> bool:
        """Whether something is there that no command asked for; the end of the stream counts."""
        ...

    def pack_commands(self, commands: Iterable[Sequence[Argument]]) -> list[bytes]: ...

    async def send_packed_command(self, command: Iterable[bytes]) -> None: ...

    async def send_command(self, *args: Argument | str) -> None: ...

    async def read_response(self) -> Any: ...


class _Prompt:
    """Goes before redis-py's connection classes, which close gently: a silent server can make that last for
    ever. Socket and megabytes not sent yet would be kept, and delivered long after the call has failed."""

    _writer: Any

    async def disconnect(self, *args: Any, **kwargs: Any) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
        await super().disconnect(*args, **kwargs)  # type: ignore[misc]


def _meaning(exc: Exception) -> Exception:
    """What a failure is to the callers of the contracts."""
    if isinstance(exc, ResponseError) and "WRONGTYPE" in str(exc):
        return TypeError("a key is for values or for take, not for both")
    return Unavailable(details={"dependency": "redis"})


class _Server:
    """Where Redis is. Makes connections, and logs when it goes away and comes back."""

    def __init__(self, config: RedisConfig, bridge: Bridge) -> None:
        self.config = config
        self.bridge = bridge
        self._away: set[str] = set()
        try:
            found: dict[str, Any] = {**parse_url(config.url)}
            self.database = int(found.get("db", 0))
            kind = found.get("connection_class", TcpConnection)
            # Limits are ours (Trio's); RESP2, for its replies on the bus have one shape in all versions.
            ours: dict[str, Any] = {
                "connection_class": type(kind.__name__, (_Prompt, kind), {}),
                "protocol": 2,
                "socket_timeout": None,
                "socket_connect_timeout": None,
                "decode_responses": False,
            }
            self._maker: Any = ConnectionPool(**(found | ours))
        except (ValueError, TypeError) as exc:
            raise BadSetting("redis.url is not a URL that the Redis library understands") from exc

    def connection(self) -> Connection:
        """A connection, not open yet."""
        made: Connection = self._maker.make_connection()
        return made

    async def open(self, connection: Connection) -> None:
        """Raises within `connect_s`."""
        await self.limited(self.config.connect_s, _or_close, connection, connection.connect)

    async def limited(self, limit_s: float, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Cross to the asyncio side for so long at most. Raises TimeoutError."""
        with trio.move_on_after(limit_s):
            return await self.bridge.run(function, *args)
        raise TimeoutError

    async def close(self, connection: Connection) -> None:
        with trio.move_on_after(CLEAN_UP_S, shield=True):
            await self.bridge.run(connection.disconnect, True)

    def answered(self, role: str) -> None:
        if role in self._away:
            self._away.remove(role)
            log.debug("redis_back", role=role)

    def failed(self, role: str, exc: Exception) -> None:
        if not isinstance(exc, FAILURES):
            log.error("redis_failed", role=role, exc_info=exc)
        if role not in self._away:
            self._away.add(role)
            # the breaker has the one word of warning; this is why, for each kind of connection
            log.info("redis_away", role=role, reason=type(exc).__name__)


async def _or_close(connection: Connection, function: Callable[..., Awaitable[None]], *args: Any) -> None:
    """On the asyncio side. What was interrupted leaves replies behind: the connection is of no more use."""
    try:
        await function(*args)
    except BaseException:
        await connection.disconnect(nowait=True)
        raise


# Commands


class _Command:
    """One on its way.  task: waits for it; None when nobody does.  answer: a reply or an error, once known;
    itself until then."""

    __slots__ = ("answer", "args", "task")

    def __init__(self, args: Sequence[Argument]) -> None:
        self.args = args
        self.task: trio.lowlevel.Task | None = None
        self.answer: Any = self

    def wake(self) -> None:
        if self.task is not None:
            trio.lowlevel.reschedule(self.task)
            self.task = None


async def _exchange(connection: Connection, commands: Sequence[_Command]) -> None:
    """On the asyncio side: send them all, then read all replies. Opens the connection if need be."""
    if connection.is_connected and await connection.can_read():
        await connection.disconnect(nowait=True)  # its end: the server was away meanwhile
    await connection.connect()
    await _speak(connection, commands)
    unknown = [command for command in commands if isinstance(command.answer, NoScriptError)]
    if unknown:
        await _speak(connection, [_Command((b"SCRIPT LOAD", _TAKE)), *unknown])


async def _speak(connection: Connection, commands: Sequence[_Command]) -> None:
    await connection.send_packed_command(connection.pack_commands(command.args for command in commands))
    for command in commands:
        try:
            command.answer = await connection.read_response()
        except ResponseError as refusal:
            command.answer = refusal


class _Lane:
    """Commands of one kind.  connections: how many batches may be on their way at once; with one, commands
    reach Redis in the order of the calls."""

    def __init__(self, server: _Server, role: str, connections: int) -> None:
        self._server = server
        self._config = server.config
        self._role = role
        self._connections = connections
        self._waiting: dict[_Command, None] = {}  # oldest first
        self._idle = trio.lowlevel.ParkingLot()
        self._batch = BATCH.labels(role)
        self._answered, self._failed = COMMANDS.labels(role, "answered"), COMMANDS.labels(role, "failed")
        self._duration = DURATION.labels(role)

    async def call(self, *args: Argument) -> Any:
        """Redis's reply.

        Raises Unavailable within `call_s`, waiting included, Overloaded at once when too many wait, TypeError
        when Redis says WRONGTYPE. After `Unavailable` the command may still have been carried out.
        """
        if len(self._waiting) >= self._config.waiting:
            raise Overloaded("The cache is busy.", details={"dependency": "redis"}, retry_after_s=1)
        began = trio.current_time()
        command = _Command(args)
        command.task = trio.lowlevel.current_task()
        self._waiting[command] = None
        self._idle.unpark()

        def leave(_: object) -> trio.lowlevel.Abort:
            command.task = None
            self._waiting.pop(command, None)
            return trio.lowlevel.Abort.SUCCEEDED

        with trio.move_on_after(self._config.call_s):
            await trio.lowlevel.wait_task_rescheduled(leave)
        self._duration.observe(trio.current_time() - began)
        answer = TimeoutError() if command.answer is command else command.answer
        if isinstance(answer, Exception):
            self._failed.inc()
            raise _meaning(answer) from answer
        self._answered.inc()
        return answer

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(self._connections):
                nursery.start_soon(self._serve)

    async def _serve(self) -> None:
        connection = self._server.connection()
        try:
            while True:
                while not self._waiting:
                    await self._idle.park()
                await self._carry(connection)
        finally:
            await self._server.close(connection)

    async def _carry(self, connection: Connection) -> None:
        """The next batch, there and back."""
        batch: list[_Command] = []
        try:
            if not connection.is_connected:
                await self._server.open(connection)
            batch = self._next()
            if not batch:  # those who called have left meanwhile
                return
            await self._server.limited(
                self._config.call_s, _or_close, connection, _exchange, connection, batch
            )
        except Exception as exc:
            self._server.failed(self._role, exc)
            for command in batch or self._next():
                if command.answer is command:
                    command.answer = exc
                command.wake()
        else:
            self._server.answered(self._role)
            self._batch.observe(len(batch))
            for command in batch:
                command.wake()

    def _next(self) -> list[_Command]:
        batch = list(islice(self._waiting, self._config.batch))
        for command in batch:
            del self._waiting[command]
        return batch


class RedisCache:
    """contracts.Cache. Keys end by themselves, on the server."""

    def __init__(self, lane: _Lane) -> None:
        self._lane = lane

    async def get(self, key: str) -> bytes | None:
        try:
            found = await self._lane.call(b"GET", _named(key))
        except TypeError:  # of `take`: there is no such value
            return None
        return found if isinstance(found, bytes) else None

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        await self._lane.call(b"SET", _named(key), value, b"PX", max(1, ceil(ttl_s * 1000)))

    async def delete(self, key: str) -> None:
        await self._lane.call(b"DEL", _named(key))

    async def take(self, key: str, limit: int, window_s: float) -> Allowance:
        return (await self.take_each([key], limit, window_s))[0]

    async def take_each(self, keys: Sequence[str], limit: int, window_s: float) -> list[Allowance]:
        if not keys:
            return []
        named, window_us = map(_named, keys), round(window_s * 1_000_000)
        answers = await self._lane.call(b"EVALSHA", _TAKE_SHA, len(keys), *named, limit, window_us)
        if not isinstance(answers, list) or len(answers) != len(keys):
            raise _meaning(InvalidResponse()) from TypeError(type(answers).__name__)
        return [_allowance(answer) for answer in answers]


def _allowance(answer: Any) -> Allowance:
    match answer:
        case [int(allowed), int(remaining), int(wait_us), int(reset_us)]:
            return Allowance(allowed == 1, remaining, wait_us / 1_000_000, reset_us / 1_000_000)
        case nonsense:
            raise _meaning(InvalidResponse()) from TypeError(type(nonsense).__name__)


def _named(key: str) -> bytes:
    return (PREFIX + key).encode("utf-8", "surrogatepass")  # a lone surrogate is a key like any other


# The bus


class _Backlog(MemoryBacklog):
    """channels: their names on the wire.  is_deaf: its channels have not been heard since it was handed out,
    or since the connection broke; it is told so as soon as they are heard again."""

    def __init__(self, limit: int, channels: frozenset[bytes]) -> None:
        super().__init__(limit)
        self.channels = channels
        self.is_deaf = False


class _Channel:
    __slots__ = ("backlogs", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.backlogs: set[_Backlog] = set()


class RedisBus:
    """contracts.Bus: one connection to publish, and one on which this process hears all its subscriptions.

    `_hear` keeps the second: a task on the asyncio side reads it for ever, another one on Trio's side tells
    Redis which channels are wanted, and notices by pings when nothing comes any more.
    """

    is_alone = False

    def __init__(self, server: _Server, lane: _Lane) -> None:
        self._server = server
        self._config = server.config
        self._lane = lane
        self._prefix = f"{PREFIX}{server.database}:"  # to Redis, a channel is in no database
        self._channels: dict[bytes, _Channel] = {}  # those wanted
        self._backlogs: set[_Backlog] = set()
        self._wanted = trio.Event()  # set when channels have come or gone
        self._asked: set[bytes] = set()  # those this connection has been asked for
        self._unconfirmed = 0
        self._heard = 0  # replies of all kinds
        self._moved = trio.lowlevel.ParkingLot()  # for a ping answered, or all channels confirmed

    async def publish(self, channel: str, payload: bytes) -> None:
        await self._lane.call(b"PUBLISH", self._on_wire(channel), payload)

    @asynccontextmanager
    async def subscribe(self, channels: Sequence[str]) -> AsyncIterator[MemoryBacklog]:
        names = {self._on_wire(channel): channel for channel in channels}
        backlog = _Backlog(self._config.backlog, frozenset(names))
        self._backlogs.add(backlog)
        for wire, name in names.items():
            self._channels.setdefault(wire, _Channel(name)).backlogs.add(backlog)
        self._wanted.set()
        try:
            with trio.move_on_after(self._config.call_s):
                while not self._hears(backlog):
                    await self._moved.park()
            backlog.is_deaf = not self._hears(backlog)
            yield backlog
        finally:
            self._backlogs.remove(backlog)
            for wire in names:
                self._channels[wire].backlogs.remove(backlog)
                if not self._channels[wire].backlogs:
                    del self._channels[wire]
            self._wanted.set()
            backlog.close()

    async def run(self) -> None:
        while True:
            while not self._channels:
                await self._wanted.wait()
                self._wanted = trio.Event()
            connection = self._server.connection()
            try:
                await self._server.open(connection)
                await self._hear(connection)
            except Exception as exc:
                self._server.failed(SUBSCRIBE, exc)
            finally:
                await self._server.close(connection)
                self._asked.clear()
                self._unconfirmed = 0
                for backlog in self._backlogs:
                    backlog.is_deaf = True
            await trio.sleep(self._config.reopen_s)

    async def _hear(self, connection: Connection) -> None:
        """Until the connection is lost, which is raised."""
        lost: Exception | None = None

        async def listen() -> None:
            nonlocal lost
            try:
                await self._server.bridge.run(self._receive, connection)
            except Exception as exc:
                lost = exc
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            try:
                await self._keep(connection)
            except Exception as exc:
                lost = exc
                nursery.cancel_scope.cancel()
        if lost is not None:
            raise lost

    async def _keep(self, connection: Connection) -> None:
        """Have Redis send what is wanted, and watch that it still does. Raises when it does not."""
        heard, due = self._heard, trio.current_time() + self._config.ping_s
        while True:
            self._wanted = trio.Event()
            await self._agree(connection)
            with trio.move_on_at(due):
                await self._wanted.wait()
                continue
            if self._heard == heard:
                await self._send(connection, b"PING")
                with trio.move_on_after(self._config.call_s):
                    while self._heard == heard:
                        await self._moved.park()
                if self._heard == heard:
                    raise TimeoutError
            heard, due = self._heard, trio.current_time() + self._config.ping_s

    async def _agree(self, connection: Connection) -> None:
        more = [wire for wire in self._channels if wire not in self._asked]
        less = [wire for wire in self._asked if wire not in self._channels]
        self._asked.update(more)
        self._asked.difference_update(less)
        self._unconfirmed += len(more) + len(less)
        if more:
            await self._send(connection, b"SUBSCRIBE", *more)
        if less:
            await self._send(connection, b"UNSUBSCRIBE", *less)

    async def _send(self, connection: Connection, *args: bytes) -> None:
        await self._server.limited(self._config.call_s, connection.send_command, *args)

    async def _receive(self, connection: Connection) -> None:
        """On the asyncio side, for ever."""
        while True:
            for _ in range(STRIDE):
                self._take(await connection.read_response())
            await breathe()

    def _take(self, reply: Any) -> None:
        self._heard += 1
        match reply:
            case [b"message", bytes(wire), bytes(payload)]:
                channel = self._channels.get(wire)
                if channel is not None:
                    delivery = Delivery(channel.name, payload)
                    for backlog in channel.backlogs:
                        backlog.offer(delivery)
            case [b"subscribe" | b"unsubscribe", *_]:
                self._unconfirmed -= 1
                if not self._unconfirmed:
                    self._confirmed()
            case [b"pong", _] | b"PONG":
                self._moved.unpark_all()
            case _:
                raise InvalidResponse

    def _confirmed(self) -> None:
        """Everything asked for is being heard."""
        self._server.answered(SUBSCRIBE)
        deaf = [backlog for backlog in self._backlogs if backlog.is_deaf and self._hears(backlog)]
        for backlog in deaf:
            backlog.is_deaf = False
            backlog.lost += 1
        if deaf:
            REOPENED.inc()
        self._moved.unpark_all()

    def _hears(self, backlog: _Backlog) -> bool:
        return not self._unconfirmed and backlog.channels <= self._asked

    def _on_wire(self, channel: str) -> bytes:
        return (self._prefix + channel).encode()


class Redis(msgspec.Struct, frozen=True):
    """probe: returns when Redis takes a write, on a connection of its own; raises Unavailable within `call_s`
    otherwise. It refuses them when it is full, and as a replica."""

    cache: RedisCache
    bus: RedisBus
    probe: Callable[[], Awaitable[None]]


@asynccontextmanager
async def open_redis(config: RedisConfig, bridge: Bridge) -> AsyncIterator[Redis]:
    """Redis at `config.url`, whether it is there or not: connections are opened when something is called, and
    those lost are opened again. Whoever uses it must have ended before the block does.

    Raises BadSetting if the URL makes no sense.
    """
    server = _Server(config, bridge)
    commands = _Lane(server, "cache", config.connections)
    publishing = _Lane(server, "publish", 1)
    probing = _Lane(server, "probe", 1)
    bus = RedisBus(server, publishing)

    async def probe() -> None:
        await probing.call(b"SET", _named("probe"), b"", b"PX", PROBE_MS)

    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        for task in (commands.run, publishing.run, probing.run, bus.run):
            nursery.start_soon(task)
        try:
            yield Redis(RedisCache(commands), bus, probe)
        except BaseException as exc:
            failure = exc  # raised below as it is: the nursery would wrap it in a group
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
