"""The protocols behind a guard: what stands in while the real thing is away, what happens at its return."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from kit.wait import until
from secureconnect.config import BreakerConfig, MemoryConfig
from secureconnect.deps.contracts import (
    Allowance,
    Backlog,
    Bus,
    Cache,
    Database,
    Delivery,
    Objects,
    P,
    T,
    Tx,
    UniqueViolation,
    Unit,
)
from secureconnect.deps.files import FolderObjects
from secureconnect.deps.guard import Guard
from secureconnect.deps.guarded import FallbackBus, FallbackCache, GuardedDatabase, GuardedObjects
from secureconnect.deps.memory import MemoryBacklog, MemoryBus, MemoryCache
from secureconnect.deps.sqlite import Sqlite
from secureconnect.errors import Conflict, NotFound, OutcomeUnknown, PoolExhausted, Unavailable

CONFIG = BreakerConfig(failures=3)


class Server:
    """What the flaky twins below live on.  is_away: it refuses everything."""

    def __init__(self) -> None:
        self.is_away = False
        self.calls = 0

    def require(self) -> None:
        self.calls += 1
        if self.is_away:
            raise Unavailable


def lose(guard: Guard) -> None:
    guard.breaker.probe_failed("unreachable", decides=True)


def find(guard: Guard) -> None:
    """By probes alone."""
    guard.breaker.probe_succeeded()
    for _ in range(CONFIG.probes):
        guard.breaker.probe_succeeded()


# the database


async def count(tx: Tx, error: Exception | None = None) -> int:
    await tx.run("INSERT INTO meta (key, value) VALUES ('k', 'v') ON CONFLICT (key) DO NOTHING")
    if error is not None:
        raise error
    row = await tx.one("SELECT count(*) FROM meta WHERE key = 'k'")
    return int(row[0]) if row else 0


async def read_count(tx: Tx) -> int:
    row = await tx.one("SELECT count(*) FROM meta WHERE key = 'k'")
    return int(row[0]) if row else 0


async def test_the_database_passes_while_closed_and_is_not_touched_while_open(db: Sqlite) -> None:
    guard = Guard("postgres", CONFIG)
    guarded: Database = GuardedDatabase(db, guard)
    assert await guarded.write(count) == 1
    assert await guarded.relieve(count) == 1
    assert await guarded.read(read_count) == 1
    lose(guard)
    for call in (guarded.write, guarded.relieve, guarded.read):
        with pytest.raises(Unavailable) as refused:
            await call(read_count)
        assert refused.value.details == {"dependency": "postgres"}
    assert abs(guarded.now_us() - db.now_us()) < 1_000_000
    find(guard)
    assert await guarded.write(count) == 1


@pytest.mark.parametrize("error", [Conflict(), NotFound(), UniqueViolation("k"), PoolExhausted()])
async def test_what_a_unit_raises_comes_through_and_opens_nothing(db: Sqlite, error: Exception) -> None:
    guard = Guard("postgres", CONFIG)
    guarded = GuardedDatabase(db, guard)
    for _ in range(10):
        with pytest.raises(type(error)) as raised:
            await guarded.write(count, error)
        assert raised.value is error
    assert guard.is_up
    assert await guarded.read(read_count) == 0, "rolled back each time"


async def test_a_database_that_fails_is_named(db: Sqlite) -> None:
    guard = Guard("postgres", CONFIG)
    guarded = GuardedDatabase(db, guard)
    for _ in range(CONFIG.failures):
        with pytest.raises(Unavailable) as failed:
            await guarded.write(count, Unavailable())
        assert failed.value.details == {"dependency": "postgres"}
    assert guard.breaker.state == "open"


class FrozenDatabase:
    """contracts.Database that never answers; what it is to abandon ends."""

    def __init__(self, inner: Sqlite) -> None:
        self.under_way = 0
        self._inner = inner
        self._abandoned = trio.Event()

    def abandon(self) -> None:
        self._abandoned.set()
        self._abandoned = trio.Event()

    async def write(self, unit: Unit[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self.under_way += 1
        try:
            await self._abandoned.wait()
            raise OutcomeUnknown
        finally:
            self.under_way -= 1

    relieve = read = write

    def now_us(self) -> int:
        return self._inner.now_us()


async def test_nobody_waits_for_a_database_that_is_known_to_be_frozen(db: Sqlite) -> None:
    frozen = FrozenDatabase(db)
    guard = Guard("postgres", CONFIG, abandon=frozen.abandon)
    guarded = GuardedDatabase(frozen, guard)
    ends: list[tuple[str, str | None]] = []

    async def call(work: Callable[..., Any]) -> None:
        try:
            await work(read_count)
        except Unavailable as problem:
            ends.append((problem.code, (problem.details or {}).get("dependency")))

    async with trio.open_nursery() as nursery:
        for work in (guarded.write, guarded.relieve, guarded.read):
            nursery.start_soon(call, work)
        await until(lambda: frozen.under_way == 3)
        lose(guard)
        nursery.cancel_scope.deadline = trio.current_time() + 5
    assert ends == [("OUTCOME_UNKNOWN", "postgres")] * 3
    find(guard)
    with trio.move_on_after(0.1) as scope:  # whoever is cancelled by somebody else stays cancelled
        await guarded.write(read_count)
    assert scope.cancelled_caught
    assert guard.is_up


# the cache


class FlakyCache:
    """contracts.Cache on a server that may be away."""

    def __init__(self, server: Server) -> None:
        self.inner = MemoryCache(MemoryConfig())
        self._server = server

    async def get(self, key: str) -> bytes | None:
        self._server.require()
        return await self.inner.get(key)

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        self._server.require()
        await self.inner.put(key, value, ttl_s)

    async def delete(self, key: str) -> None:
        self._server.require()
        await self.inner.delete(key)

    async def take(self, key: str, limit: int, window_s: float) -> Allowance:
        self._server.require()
        return await self.inner.take(key, limit, window_s)

    async def take_each(self, keys: Sequence[str], limit: int, window_s: float) -> list[Allowance]:
        self._server.require()
        return await self.inner.take_each(keys, limit, window_s)


class Caches:
    def __init__(self, nodes: int = 1) -> None:
        self.server = Server()
        self.guard = Guard("redis", CONFIG)
        self.nodes = nodes
        self.real: Cache = FlakyCache(self.server)
        self.cache: Cache = FallbackCache(
            self.real, lambda: MemoryCache(MemoryConfig()), self.guard, lambda: self.nodes
        )


async def test_no_call_fails_because_the_cache_died(autojump_clock: MockClock) -> None:
    at = Caches()
    await at.cache.put("a", b"1", 60)
    at.server.is_away = True
    assert await at.cache.get("a") is None, "the call that fails falls back itself"
    await at.cache.put("a", b"2", 60)
    assert await at.cache.get("a") == b"2"
    assert at.guard.breaker.state == "open"
    asked = at.server.calls
    await at.cache.put("b", b"3", 60)
    await at.cache.delete("a")
    assert await at.cache.get("a") is None
    assert await at.cache.get("b") == b"3"
    assert (await at.cache.take("t", 5, 60)).allowed
    assert at.server.calls == asked, "an open breaker asks nobody"


@pytest.mark.parametrize(
    ("limit", "nodes", "allowed"), [(10, 1, 10), (10, 2, 5), (10, 3, 3), (10, 50, 1), (10, 0, 10)]
)
async def test_limits_are_stricter_where_each_node_counts_for_itself(
    autojump_clock: MockClock, limit: int, nodes: int, allowed: int
) -> None:
    at = Caches(nodes)
    assert [(await at.cache.take("k", limit, 60)).allowed for _ in range(limit + 2)].count(True) == limit
    lose(at.guard)
    taken = [await at.cache.take("k", limit, 60) for _ in range(limit + 2)]
    assert [each.allowed for each in taken].count(True) == allowed
    assert taken[-1].retry_after_s == pytest.approx(60 / allowed)
    spent, fresh = await at.cache.take_each(["k", "fresh"], limit, 60)
    assert (spent.allowed, fresh.remaining) == (False, allowed - 1)


@pytest.mark.parametrize("way", ["probes", "a call"])
async def test_memory_is_dropped_at_the_return_and_not_merged(autojump_clock: MockClock, way: str) -> None:
    at = Caches()
    await at.cache.put("kept", b"redis", 60)
    lose(at.guard)
    await at.cache.put("kept", b"memory", 60)
    await at.cache.put("new", b"memory", 60)
    if way == "probes":
        find(at.guard)
    else:
        at.guard.breaker.probe_succeeded()
        await at.cache.get("other")
    assert at.guard.is_up
    assert await at.cache.get("kept") == b"redis"
    assert await at.cache.get("new") is None
    lose(at.guard)
    assert await at.cache.get("kept") is None
    assert await at.cache.get("new") is None


async def test_a_hiccup_leaves_nothing_in_memory_either(autojump_clock: MockClock) -> None:
    at = Caches()
    at.server.is_away = True
    await at.cache.put("a", b"memory", 60)
    at.server.is_away = False
    assert at.guard.is_up, "one failure opens nothing"
    assert await at.cache.get("a") is None
    lose(at.guard)
    assert await at.cache.get("a") is None


async def test_a_wrong_use_of_a_key_is_still_an_error(autojump_clock: MockClock) -> None:
    at = Caches()
    await at.cache.put("a", b"1", 60)
    with pytest.raises(TypeError):
        await at.cache.take("a", 1, 60)


# the bus


class FlakyBus:
    """contracts.Bus on a server that may be away. `cut` ends the subscriptions, as a lost connection does."""

    is_alone = False

    def __init__(self, server: Server) -> None:
        self.inner = MemoryBus(MemoryConfig())
        self._server = server
        self._open: set[MemoryBacklog] = set()

    @property
    def subscriptions(self) -> int:
        return len(self._open)

    async def publish(self, channel: str, payload: bytes) -> None:
        self._server.require()
        await self.inner.publish(channel, payload)

    @asynccontextmanager
    async def subscribe(self, channels: Sequence[str]) -> AsyncIterator[Backlog]:
        self._server.require()
        async with self.inner.subscribe(channels) as backlog:
            self._open.add(backlog)
            yield backlog
            self._open.discard(backlog)

    def cut(self) -> None:
        for backlog in self._open:
            backlog.close()


class Buses:
    def __init__(self, backlog: int = 100) -> None:
        self.server = Server()
        self.guard = Guard("redis", CONFIG)
        self.real = FlakyBus(self.server)
        real: Bus = self.real
        self.bus: Bus = FallbackBus(real, self.guard, backlog)


async def following(backlog: Backlog) -> Delivery:
    with trio.fail_after(5):
        return await anext(aiter(backlog))


async def test_the_bus_hands_on_in_order_and_says_what_it_lost(autojump_clock: MockClock) -> None:
    at = Buses(backlog=3)
    async with at.bus.subscribe(["a", "b"]) as backlog:
        await at.bus.publish("a", b"1")
        await at.bus.publish("b", b"2")
        assert await following(backlog) == Delivery("a", b"1")
        assert await following(backlog) == Delivery("b", b"2")
        for number in range(5):
            await at.real.publish("a", b"%d" % number)
        await trio.testing.wait_all_tasks_blocked()
        assert backlog.lost == 2
        assert [(await following(backlog)).payload for _ in range(3)] == [b"0", b"1", b"2"]


async def test_while_the_bus_is_away_this_process_hears_itself(autojump_clock: MockClock) -> None:
    at = Buses()
    async with at.bus.subscribe(["a"]) as backlog:
        at.server.is_away = True
        at.real.cut()
        for number in range(20):
            await at.bus.publish("a", b"%d" % number)
        heard = [await following(backlog) for _ in range(20)]
        assert heard == [Delivery("a", b"%d" % number, only_here=True) for number in range(20)]
        assert at.guard.breaker.state == "open"
        asked = at.server.calls
        await trio.sleep(30)
        assert at.server.calls == asked, "no storm"
        await at.bus.publish("b", b"nobody is there")


async def test_after_its_return_subscribers_are_told_to_look_up_what_they_missed(
    autojump_clock: MockClock,
) -> None:
    at = Buses()
    async with at.bus.subscribe(["a"]) as backlog:
        at.server.is_away = True
        at.real.cut()
        lose(at.guard)
        await trio.sleep(5)
        assert backlog.lost == 0
        at.server.is_away = False
        find(at.guard)
        lost = backlog.lost
        assert lost
        await until(lambda: at.real.subscriptions == 1)
        assert backlog.lost > lost, "what was said before the new subscription is missing, too"
        await at.bus.publish("a", b"again")
        assert await following(backlog) == Delivery("a", b"again")


async def test_a_subscription_that_ends_is_taken_up_again_without_an_outage(
    autojump_clock: MockClock,
) -> None:
    at = Buses()
    async with at.bus.subscribe(["a"]) as backlog:
        for round_ in range(1, 4):
            at.real.cut()
            await trio.sleep(1.5)
            assert at.real.subscriptions == 1
            assert backlog.lost == round_


async def test_a_subscription_made_while_the_bus_is_away(autojump_clock: MockClock) -> None:
    at = Buses()
    at.server.is_away = True
    lose(at.guard)
    with trio.fail_after(0.1):
        async with at.bus.subscribe(["a"]) as backlog:
            await at.bus.publish("a", b"1")
            assert await following(backlog) == Delivery("a", b"1", only_here=True)
    async with at.bus.subscribe(["a"]) as backlog:
        at.server.is_away = False
        find(at.guard)
        await until(lambda: at.real.subscriptions == 1)
        await at.real.publish("a", b"2")
        assert await following(backlog) == Delivery("a", b"2")


async def test_a_bus_that_refuses_subscriptions_is_not_asked_without_a_pause(
    autojump_clock: MockClock,
) -> None:
    at = Buses()
    at.server.is_away = True  # and the probe says that it is there
    async with at.bus.subscribe(["a"]):
        await trio.sleep(30)
    assert at.server.calls <= 31


async def test_what_a_subscriber_raises_comes_out_as_it_is(autojump_clock: MockClock) -> None:
    at = Buses()
    with pytest.raises(Conflict):
        async with at.bus.subscribe(["a"]):
            raise Conflict
    await at.bus.publish("a", b"to nobody")


# the files


class FlakyObjects(FolderObjects):
    """MinIO's twin on a server that may be away, also in the middle of an answer."""

    server: Server

    async def stat(self, key: str) -> Any:
        self.server.require()
        return await super().stat(key)

    async def get(self, key: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes, None]:
        self.server.require()
        inner = cast("AsyncGenerator[bytes, None]", super().get(key, start, end))
        async with aclosing(inner) as chunks:
            async for chunk in chunks:
                yield chunk
                self.server.require()


class Files:
    def __init__(self, root: Path, **limits: Any) -> None:
        self.server = Server()
        self.guard = Guard("minio", BreakerConfig(failures=3, retry_ms=1), **limits)
        real = FlakyObjects(root)
        real.server = self.server
        self.objects: Objects = GuardedObjects(real, self.guard)


@pytest.fixture
async def files(data_dir: Path) -> Files:
    return Files(data_dir / "objects", calls=2, waiting=0, limit_s=5)


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def read(objects: Objects, key: str) -> bytes:
    return b"".join([chunk async for chunk in objects.get(key)])


async def test_files_pass_while_closed_and_are_refused_while_open(files: Files) -> None:
    objects = files.objects
    stored = await objects.put("a/b", chunks(b"x" * 300_000, b"y"), limit_bytes=400_000)
    assert (await objects.copy("a/b", "c")).size_bytes == 300_001
    assert (await objects.stat("c")).sha256 == stored.sha256
    assert await read(objects, "c") == b"x" * 300_000 + b"y"
    assert sorted([key async for key in objects.list("")]) == ["a/b", "c"]
    await objects.delete("c")
    with pytest.raises(NotFound):
        await objects.stat("c")
    lose(files.guard)
    calls: list[Callable[[], Any]] = [
        lambda: objects.put("d", chunks(b""), limit_bytes=1),
        lambda: objects.stat("a/b"),
        lambda: objects.copy("a/b", "c"),
        lambda: objects.delete("a/b"),
        lambda: read(objects, "a/b"),
    ]
    for call in calls:
        with pytest.raises(Unavailable) as refused:
            await call()
        assert refused.value.details == {"dependency": "minio"}
    find(files.guard)
    assert [key async for key in objects.list("")] == ["a/b"]


async def test_a_file_that_breaks_off_counts(files: Files) -> None:
    await files.objects.put("a", chunks(b"x" * 900_000), limit_bytes=1_000_000)
    stream = files.objects.get("a")
    await anext(stream)
    files.server.is_away = True
    with pytest.raises(Unavailable):
        await anext(stream)
    before = files.server.calls
    with pytest.raises(Unavailable):
        await files.objects.stat("a")
    assert files.guard.breaker.state == "open"
    assert files.server.calls - before == CONFIG.failures - 1


async def test_a_source_that_breaks_says_nothing_of_the_store(files: Files) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise Unavailable()  # this node's own disk, from which a spooled file is read

    for _ in range(CONFIG.failures + 1):
        with pytest.raises(Unavailable):
            await files.objects.put("a", broken(), limit_bytes=9)
    assert files.guard.is_up


async def test_a_reader_takes_a_place_for_each_step(files: Files) -> None:
    """Those who read slowly keep nobody from the store."""
    await files.objects.put("a", chunks(b"x" * 900_000), limit_bytes=1_000_000)
    readers = [files.objects.get("a") for _ in range(5)]
    for reader in readers:
        await anext(reader)
    assert (await files.objects.stat("a")).size_bytes == 900_000
    async with files.guard.slot(), files.guard.slot():
        with pytest.raises(Unavailable, match="busy"):
            await anext(readers[0])
    for reader in readers[1:]:
        assert isinstance(reader, AsyncGenerator)
        await anext(reader)
        await reader.aclose()
    assert files.guard.is_up
