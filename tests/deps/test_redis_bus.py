"""What is peculiar to Redis as a bus: order, and subscriptions that share one connection."""

from __future__ import annotations

import trio

from kit.redis import RedisServer
from kit.wait import until
from secureconnect.config import RedisConfig
from secureconnect.deps.asyncio_bridge import open_bridge
from secureconnect.deps.contracts import Delivery
from secureconnect.deps.redis import PREFIX, STRIDE, open_redis

from .redis_harness import next_of, opened


async def test_order_is_kept_per_publisher_and_channel(redis_server: RedisServer) -> None:
    async with opened(redis_server.url) as redis, redis.bus.subscribe(["a", "b"]) as backlog:

        async def publish(who: bytes) -> None:
            for number in range(50):
                for channel in ("a", "b"):
                    await redis.bus.publish(channel, who + b"%d" % number)

        async with trio.open_nursery() as nursery:
            for who in (b"x", b"y", b"z"):
                nursery.start_soon(publish, who)
        got = [await next_of(backlog) for _ in range(3 * 50 * 2)]
        for channel in ("a", "b"):
            for who in (b"x", b"y", b"z"):
                own = [each.payload for each in got if each.channel == channel and each.payload[:1] == who]
                assert own == [who + b"%d" % number for number in range(50)]


async def test_channels_are_asked_for_as_long_as_somebody_listens(redis_server: RedisServer) -> None:
    def asked() -> set[bytes]:
        with redis_server.client() as client:
            return set(client.pubsub_channels())

    async with opened(redis_server.url) as redis:
        for _ in range(3):
            async with redis.bus.subscribe(["a", "b"]) as outer:
                async with redis.bus.subscribe(["b", "c"]) as inner:
                    await redis.bus.publish("c", b"1")
                    assert await next_of(inner) == Delivery("c", b"1")
                await until(lambda: len(asked()) == 2)
                await redis.bus.publish("b", b"2")
                assert await next_of(outer) == Delivery("b", b"2")
                assert outer.lost == 0
            # at once again, before Redis has confirmed the end
        await until(lambda: asked() == set())


async def test_databases_keep_to_themselves(redis_server: RedisServer) -> None:
    other = redis_server.url.removesuffix("0") + "1"
    async with open_bridge() as bridge:
        here_config, there_config = RedisConfig(url=redis_server.url), RedisConfig(url=other)
        async with open_redis(here_config, bridge) as here, open_redis(there_config, bridge) as there:
            async with here.bus.subscribe(["a"]) as backlog:
                await there.bus.publish("a", b"there")
                await here.bus.publish("a", b"here")
                assert await next_of(backlog) == Delivery("a", b"here")
            await here.cache.put("k", b"v", 60)
            assert await there.cache.get("k") is None


async def test_a_flood_lets_others_run(redis_server: RedisServer) -> None:
    async with opened(redis_server.url, call_s=5) as redis, redis.bus.subscribe(["a"]) as backlog:
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                before = redis.bus._heard
                await trio.lowlevel.checkpoint()
                most = max(most, redis.bus._heard - before)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            with redis_server.client() as client, client.pipeline(transaction=False) as pipeline:
                for _ in range(5_000):
                    pipeline.publish(f"{PREFIX}0:a", b"x" * 200)
                pipeline.execute()
            for _ in range(5_000):
                await next_of(backlog)
            nursery.cancel_scope.cancel()
        assert 0 < most <= 2 * STRIDE


async def test_a_subscription_has_begun_when_it_says_so(redis_server: RedisServer) -> None:
    async with opened(redis_server.url) as redis:
        with redis_server.client() as client:
            for number in range(20):
                async with redis.bus.subscribe(["a", f"b{number % 2}"]):
                    assert client.publish(f"{PREFIX}0:a", b"x") == 1
                    assert client.publish(f"{PREFIX}0:b{number % 2}", b"x") == 1


async def test_a_channel_another_has_just_asked_for_is_waited_for_too(redis_server: RedisServer) -> None:
    async with opened(redis_server.url) as redis, redis.bus.subscribe(["other"]):
        with redis_server.client() as client:
            client.ping()
            receivers: list[object] = []

            async def subscribe(channel: str, after: int) -> None:
                for _ in range(after):
                    await trio.lowlevel.checkpoint()
                async with redis.bus.subscribe([channel]):
                    receivers.append(client.publish(f"{PREFIX}0:{channel}", b"x"))

            for number in range(5):
                async with trio.open_nursery() as nursery:
                    for after in range(20):
                        nursery.start_soon(subscribe, f"c{number}", after)
        assert receivers == [1] * 100
