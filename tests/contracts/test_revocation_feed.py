"""Both feeds of revocations, and what Redis's does when Redis is not well."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial

import pytest
import trio

from kit.redis import RedisServer
from kit.toll import Toll, toll_before
from secureconnect.clock import SECOND_US, now_us
from secureconnect.config import RedisConfig
from secureconnect.deps.asyncio_bridge import open_bridge
from secureconnect.deps.contracts import RevocationFeed, Revoked
from secureconnect.deps.memory import MemoryFeed
from secureconnect.deps.redis_feed import KEY, PAGE, RedisFeed, open_feed
from secureconnect.errors import Unavailable
from secureconnect.identity import new_id

KEPT_S = 100.0
CALL_S = 0.3


@asynccontextmanager
async def redis_feed(url: str) -> AsyncIterator[RedisFeed]:
    config = RedisConfig(url=url, connect_s=CALL_S, call_s=CALL_S)
    async with open_bridge() as bridge, open_feed(bridge, config, kept_s=KEPT_S) as feed:
        yield feed


@asynccontextmanager
async def in_redis(request: pytest.FixtureRequest) -> AsyncIterator[RevocationFeed]:
    server: RedisServer = request.getfixturevalue("redis_server")
    async with redis_feed(server.url) as feed:
        yield feed


@asynccontextmanager
async def in_memory(_: pytest.FixtureRequest) -> AsyncIterator[RevocationFeed]:
    yield MemoryFeed(KEPT_S)


FEEDS: Mapping[str, Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[RevocationFeed]]] = {
    "memory": in_memory,
    "redis": in_redis,
}


@pytest.fixture(params=FEEDS)
async def feed(request: pytest.FixtureRequest) -> AsyncIterator[RevocationFeed]:
    async with FEEDS[request.param](request) as feed:
        yield feed


def revoked(at_us: int = 5) -> Revoked:
    return Revoked("session", new_id(), at_us, at_us + 10)


async def test_what_is_told_is_found_from_its_time_on(feed: RevocationFeed) -> None:
    start_us = now_us()
    session, person = revoked(), Revoked("user", new_id(), 7, 70)
    await feed.add([session], start_us)
    await feed.add([person], start_us + 1)
    assert set(await feed.since(0)) == {session, person}
    assert await feed.since(start_us + 1) == [person]
    assert await feed.since(start_us + 2) == []


async def test_told_twice_is_told_once(feed: RevocationFeed) -> None:
    start_us, one = now_us(), revoked()
    await feed.add([one, one], start_us)
    await feed.add([one], start_us + 50)
    assert await feed.since(0) == [one]
    assert await feed.since(start_us + 1) == []


async def test_what_is_too_old_is_dropped(feed: RevocationFeed) -> None:
    start_us, old, young = now_us(), revoked(), revoked()
    await feed.add([old], start_us)
    await feed.add([young], start_us + int(KEPT_S * SECOND_US))
    assert await feed.since(0) == [young]


async def test_nothing_to_tell_is_nothing(feed: RevocationFeed) -> None:
    await feed.add([], now_us())
    assert await feed.since(0) == []


async def test_more_than_one_page(feed: RevocationFeed) -> None:
    many = [revoked(number) for number in range(PAGE + 3)]
    await feed.add(many, now_us())
    assert set(await feed.since(0)) == set(many)


# Redis alone


@asynccontextmanager
async def behind_toll(server: RedisServer) -> AsyncIterator[tuple[RedisFeed, Toll]]:
    async with (
        toll_before(f"http://127.0.0.1:{server.port}") as toll,
        redis_feed(toll.url.replace("http", "redis", 1)) as feed,
    ):
        yield feed, toll
        toll.flow()


async def fails_in_time(feed: RevocationFeed) -> None:
    for call in (lambda: feed.add([revoked()], now_us()), lambda: feed.since(0)):
        began_s = trio.current_time()
        with pytest.raises(Unavailable):
            await call()
        assert trio.current_time() - began_s < CALL_S + 2


async def test_it_expires_with_its_last_entry(redis_server: RedisServer) -> None:
    async with redis_feed(redis_server.url) as feed:
        await feed.add([revoked()], now_us())
    with redis_server.client() as client:
        assert 0 < client.pttl(KEY) <= KEPT_S * 1000


async def test_what_others_put_there_is_passed_over(redis_server: RedisServer) -> None:
    one, when_us = revoked(), now_us()
    with redis_server.client() as client:
        client.flushall()
        client.zadd(KEY, {b"no json": when_us, b'{"kind":"planet"}': when_us})
    async with redis_feed(redis_server.url) as feed:
        await feed.add([one], when_us)
        assert await feed.since(0) == [one]


async def test_a_stalled_or_cut_way_is_refused_in_time(redis_server: RedisServer) -> None:
    async with behind_toll(redis_server) as (feed, toll):
        one = revoked()
        await feed.add([one], now_us())
        toll.stall()
        await fails_in_time(feed)
        toll.refuses = True
        toll.cut()
        await fails_in_time(feed)
        toll.refuses = False
        toll.flow()
        assert one in await feed.since(0)


async def test_a_frozen_server_is_refused_in_time(redis_server: RedisServer) -> None:
    async with redis_feed(redis_server.url) as feed:
        one = revoked()
        await feed.add([one], now_us())
        redis_server.freeze()
        try:
            await fails_in_time(feed)
        finally:
            redis_server.thaw()
        assert one in await feed.since(0)


async def test_a_server_that_comes_back_empty_is_told_again(redis_server: RedisServer) -> None:
    async with redis_feed(redis_server.url) as feed:
        one = revoked()
        await feed.add([one], now_us())
        redis_server.kill()
        await fails_in_time(feed)
        await trio.to_thread.run_sync(redis_server.start)
        assert await feed.since(0) == []
        await feed.add([one], now_us())
        assert await feed.since(0) == [one]


@pytest.mark.parametrize("answer", [b"+OK\r\n", b":1\r\n", b"*-1\r\n", b"*1\r\n*1\r\n:1\r\n", b"\0\xff\r\n"])
async def test_a_server_that_talks_nonsense_is_away(answer: bytes) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            async for _ in stream:
                await stream.send_all(answer * 6)

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        async with redis_feed(f"redis://127.0.0.1:{listener.socket.getsockname()[1]}/0") as feed:
            with pytest.raises(Unavailable):
                await feed.since(0)
            with pytest.raises(Unavailable):
                await feed.add([revoked()], now_us())
        nursery.cancel_scope.cancel()
