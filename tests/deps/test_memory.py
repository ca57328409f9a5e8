"""What is peculiar to the twins in memory: their bounds."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from secureconnect.config import MemoryConfig
from secureconnect.deps.memory import MemoryBus, MemoryCache


async def test_a_full_cache_drops_what_ends_next(autojump_clock: MockClock) -> None:
    cache = MemoryCache(MemoryConfig(cache_entries=100))
    for n in range(100):
        await cache.put(f"k{n}", b"%d" % n, ttl_s=1000 - n)
    await cache.put("k99", b"renewed", ttl_s=5000)  # ended next; now it does last
    for n in range(10):
        await cache.put(f"new{n}", b"x", ttl_s=2000)
    assert [n for n in range(100) if await cache.get(f"k{n}") is None] == list(range(89, 99))
    assert await cache.get("k99") == b"renewed"


async def test_what_has_ended_makes_room_first(autojump_clock: MockClock) -> None:
    cache = MemoryCache(MemoryConfig(cache_entries=100))
    await cache.put("kept", b"x", ttl_s=20)
    for n in range(99):
        await cache.put(f"k{n}", b"x", ttl_s=10)
    await trio.sleep(11)
    for n in range(99):
        await cache.put(f"new{n}", b"x", ttl_s=1000)
    assert await cache.get("kept") == b"x"
    assert await cache.get("k0") is None
    await trio.sleep(10)
    assert await cache.get("kept") is None


async def test_its_memory_is_bounded_whatever_is_done(autojump_clock: MockClock) -> None:
    cache = MemoryCache(MemoryConfig(cache_entries=100))
    for n in range(5_000):
        await cache.put(f"k{n % 300}", b"x", ttl_s=10_000 - n)
        await cache.take(f"rate{n % 200}", 5, 60)
        await cache.delete(f"k{n % 7}")
        assert len(cache._entries) <= 100
        assert len(cache._ends) <= 300


async def test_an_even_rate_over_a_long_time(autojump_clock: MockClock) -> None:
    cache = MemoryCache(MemoryConfig())
    start = trio.current_time()
    taken = 0
    while trio.current_time() < start + 3600:
        answer = await cache.take("k", 10, 60)
        if answer.allowed:
            taken += 1
        else:
            assert 0 < answer.retry_after_s <= 6
            await trio.sleep(answer.retry_after_s)
    assert 600 <= taken <= 611  # ten a minute, and the burst of ten once
    await trio.sleep(60)
    assert (await cache.take("k", 10, 60)).remaining == 9


async def test_a_busy_subscriber_lets_others_run() -> None:
    bus = MemoryBus(MemoryConfig())
    others = 0

    async def other() -> None:
        nonlocal others
        while True:
            await trio.lowlevel.checkpoint()
            others += 1

    async with bus.subscribe(["a"]) as backlog, trio.open_nursery() as nursery:
        for _ in range(1000):
            await bus.publish("a", b"x")
        nursery.start_soon(other)
        got = 0
        async for _ in backlog:
            got += 1
            if got == 1000:
                break
        nursery.cancel_scope.cancel()
    assert others >= 20


async def test_nothing_is_left_of_ended_subscriptions() -> None:
    bus = MemoryBus(MemoryConfig())
    async with bus.subscribe(["a", "a", "b"]), bus.subscribe(["b"]):
        assert set(bus._subscribers._by_channel) == {"a", "b"}
    assert bus._subscribers._by_channel == {}
