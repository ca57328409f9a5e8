"""What is peculiar to Redis: it is elsewhere, and may be dead, frozen, full or somebody else."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import trustme
from structlog.testing import capture_logs

from kit.ports import free_port
from kit.redis import RedisServer
from kit.toll import toll_before
from kit.wait import until
from secureconnect.config import MemoryConfig, RedisConfig
from secureconnect.deps.asyncio_bridge import Bridge, open_bridge
from secureconnect.deps.contracts import Delivery
from secureconnect.deps.memory import MemoryCache
from secureconnect.deps.redis import PREFIX, Redis, open_redis
from secureconnect.errors import Overloaded, Unavailable
from secureconnect.settings import BadSetting

from .redis_harness import CALL_S, next_of, opened

SPARE_S = 1.0  # for a machine that is busy with other things


def calls(redis: Redis) -> list[Callable[[], Awaitable[object]]]:
    """Everything that can be asked of it."""
    return [
        redis.probe,
        lambda: redis.cache.get("k"),
        lambda: redis.cache.put("k", b"v", 60),
        lambda: redis.cache.delete("k"),
        lambda: redis.cache.take("t", 10, 60),
        lambda: redis.bus.publish("c", b"p"),
    ]


async def answers(redis: Redis) -> bool:
    try:
        for call in calls(redis):
            await call()
    except Unavailable:
        return False
    return True


# away, frozen, back again


async def test_it_opens_without_a_server_and_works_once_there_is_one(redis_server: RedisServer) -> None:
    redis_server.kill()
    async with opened(redis_server.url) as redis:
        for call in calls(redis):
            with trio.fail_after(CALL_S + SPARE_S), pytest.raises(Unavailable) as caught:
                await call()
            assert caught.value.details == {"dependency": "redis"}
        began = trio.current_time()
        async with redis.bus.subscribe(["news"]) as backlog:
            assert trio.current_time() - began < CALL_S + SPARE_S
            redis_server.start()
            assert await answers(redis)
            await until(lambda: backlog.lost == 1)
            await redis.bus.publish("news", b"heard")
            assert await next_of(backlog) == Delivery("news", b"heard")


async def test_a_frozen_server_is_like_a_dead_one(redis_server: RedisServer) -> None:
    async with opened(redis_server.url) as redis:
        assert await answers(redis)
        redis_server.freeze()
        for _ in range(2):  # on connections that were open, then on new ones
            began = trio.current_time()
            async with trio.open_nursery() as nursery:
                for call in calls(redis) * 10:
                    nursery.start_soon(refused, call)
            assert trio.current_time() - began < CALL_S + SPARE_S
        redis_server.thaw()
        await until(lambda: answers(redis), within_s=1)


async def refused(call: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(Unavailable):
        await call()


async def test_after_a_restart_the_first_call_works(redis_server: RedisServer) -> None:
    async with opened(redis_server.url) as redis:
        for _ in range(3):
            assert await answers(redis)
            redis_server.kill()
            redis_server.start()
            assert await answers(redis)


async def test_a_call_under_way_when_the_server_dies_fails_at_once(redis_server: RedisServer) -> None:
    async with opened(redis_server.url, call_s=30) as redis:
        assert await answers(redis)
        redis_server.freeze()
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                for call in calls(redis):
                    nursery.start_soon(refused, call)
                await trio.testing.wait_all_tasks_blocked()
                redis_server.kill()


async def test_a_subscription_comes_back_and_says_that_it_may_have_missed_something(
    redis_server: RedisServer,
) -> None:
    async with opened(redis_server.url) as redis, redis.bus.subscribe(["a", "b"]) as backlog:
        await redis.bus.publish("a", b"1")
        assert await next_of(backlog) == Delivery("a", b"1")
        for times in range(1, 4):
            redis_server.kill()
            redis_server.start()
            await until(lambda times=times: backlog.lost == times)  # type: ignore[misc]
            for channel in ("a", "b"):
                await redis.bus.publish(channel, b"2")
            assert [await next_of(backlog), await next_of(backlog)] == [
                Delivery("a", b"2"),
                Delivery("b", b"2"),
            ]


async def test_a_silent_connection_is_noticed_and_replaced(redis_server: RedisServer) -> None:
    async with opened(redis_server.url) as redis, redis.bus.subscribe(["a"]) as backlog:
        with capture_logs() as logged:
            redis_server.freeze()
            await until(lambda: bool(logged), within_s=2)
            redis_server.thaw()
            await until(lambda: backlog.lost == 1)
        assert [(line["event"], line["role"], line.get("reason")) for line in logged] == [
            ("redis_away", "subscribe", "TimeoutError"),
            ("redis_back", "subscribe", None),
        ]
        await redis.bus.publish("a", b"1")
        assert await next_of(backlog) == Delivery("a", b"1")


async def test_a_silent_connection_is_noticed_though_channels_come_and_go(redis_server: RedisServer) -> None:
    async with opened(redis_server.url, ping_s=0.4, call_s=0.2) as redis, redis.bus.subscribe(["a"]):
        with capture_logs() as logged:
            redis_server.freeze()
            with trio.move_on_after(2):
                while not logged:
                    async with redis.bus.subscribe(["b"]):  # waits for call_s: less than ping_s
                        pass
        assert [line["event"] for line in logged] == ["redis_away"]


async def test_a_cut_and_a_stall_on_the_way(redis_server: RedisServer) -> None:
    async with toll_before(redis_server.url) as toll:
        url = toll.url.replace("http", "redis")
        async with opened(url) as redis, redis.bus.subscribe(["a"]) as backlog:
            assert await answers(redis)
            toll.cut()
            await until(lambda: backlog.lost == 1)
            await until(lambda: answers(redis))
            toll.stall()
            with pytest.raises(Unavailable):
                await redis.cache.get("k")
            toll.flow()
            await until(lambda: answers(redis))
            toll.refuses = True
            toll.cut()
            await until(lambda: refuses(redis))
            toll.refuses = False
            await until(lambda: answers(redis))
            before = backlog.lost
            toll.cut()
            await until(lambda: backlog.lost > before)


async def refuses(redis: Redis) -> bool:
    return not await answers(redis)


async def test_a_quiet_subscription_is_no_lost_one(redis_server: RedisServer) -> None:
    """It is pinged, and so it is where nobody is subscribed any more."""
    async with opened(redis_server.url, ping_s=0.05) as redis:
        with capture_logs() as logged:
            for channels in (["a"], []):
                async with redis.bus.subscribe(channels) as backlog:
                    await until(lambda: pings(redis_server) >= 3)
                    assert backlog.lost == 0
                with redis_server.client() as client:
                    client.config_resetstat()
        assert logged == []


def pings(server: RedisServer) -> int:
    with server.client() as client:
        found: dict[str, Any] = client.info("commandstats")
    return int(found.get("cmdstat_ping", {"calls": 0})["calls"])


# somebody else, or not as it should be


async def test_a_server_that_is_full_is_away(redis_server: RedisServer) -> None:
    async with opened(redis_server.url) as redis:
        await redis.cache.put("k", b"v", 60)
        with redis_server.client() as client:
            client.config_set("maxmemory", 1)
        for call in (redis.probe, lambda: redis.cache.put("k", b"v", 60)):
            with pytest.raises(Unavailable):
                await call()
        assert await redis.cache.get("k") == b"v"


async def test_a_wrong_password_is_logged_by_its_kind_alone(redis_server: RedisServer) -> None:
    url = redis_server.url.replace("redis://", "redis://:hunter2@")
    with capture_logs() as logged:
        async with opened(url) as redis:
            for call in calls(redis):
                with pytest.raises(Unavailable):
                    await call()
    assert [(line["event"], line["reason"]) for line in logged] == [
        ("redis_away", "AuthenticationError")
    ] * 3  # probe, cache, publish
    assert "hunter2" not in str(logged)


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"+OK\r\n" * 9, b"*-7\r\n", b"\0\xff", b"$999999999\r\n"]
)
async def test_a_server_that_is_no_redis(answer: bytes) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        try:
            async for _ in stream:
                await stream.send_all(answer)
        except trio.BrokenResourceError:
            pass

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        async with opened(f"redis://127.0.0.1:{port}") as redis, redis.bus.subscribe(["a"]) as backlog:
            with trio.fail_after(3 * (CALL_S + SPARE_S)), pytest.raises(Unavailable):
                await redis.cache.take("k", 1, 60)
            assert backlog.lost == 0
        nursery.cancel_scope.cancel()


async def test_tls_and_a_unix_socket(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    port, door = free_port(), tmp_path / "socket"
    server = RedisServer(
        tmp_path,
        *(
            "--tls-port",
            str(port),
            "--tls-auth-clients",
            "no",
            "--tls-ca-cert-file",
            str(tmp_path / "ca.pem"),
        ),
        *("--tls-cert-file", str(tmp_path / "server.pem"), "--tls-key-file", str(tmp_path / "server.pem")),
        *("--unixsocket", str(door)),
    )
    try:
        server.start()
        for url in (f"rediss://127.0.0.1:{port}/1?ssl_ca_certs={tmp_path / 'ca.pem'}", f"unix://{door}?db=1"):
            async with opened(url, call_s=5) as redis, redis.bus.subscribe(["a"]) as backlog:
                assert await answers(redis)
                await redis.bus.publish("a", b"1")
                assert await next_of(backlog) == Delivery("a", b"1")
        async with opened(f"rediss://127.0.0.1:{port}/1") as redis:  # signed by nobody it knows
            assert await refuses(redis)
    finally:
        server.kill()


@pytest.mark.parametrize("url", ["redis://h:1?socket_timeout=x", "redis://h?max_connections=-1"])
async def test_a_url_that_makes_no_sense(url: str) -> None:
    with pytest.raises(BadSetting, match=r"redis\.url"):
        async with opened(url):
            pass


# calls together


class Counted(Bridge):
    def __init__(self, inner: Bridge) -> None:
        self._inner = inner
        self.crossings = 0

    async def run(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        self.crossings += 1
        return await self._inner.run(function, *args, **kwargs)


async def test_what_is_called_together_goes_together(redis_server: RedisServer) -> None:
    async with open_bridge() as inner:
        bridge = Counted(inner)
        async with open_redis(RedisConfig(url=redis_server.url, call_s=5), bridge) as redis:
            assert await answers(redis)
            bridge.crossings = 0
            async with trio.open_nursery() as nursery:
                for number in range(200):
                    nursery.start_soon(redis.cache.take, f"k{number}", 10, 60)
                    nursery.start_soon(redis.bus.publish, "c", b"%d" % number)
            assert bridge.crossings <= 4


async def test_too_many_calls_are_refused_at_once(redis_server: RedisServer) -> None:
    async with opened(redis_server.url, waiting=3, connections=1, batch=1) as redis:
        assert await answers(redis)
        redis_server.freeze()
        async with trio.open_nursery() as nursery:
            for _ in range(4):  # one under way, three waiting
                nursery.start_soon(refused, lambda: redis.cache.get("k"))
                await trio.testing.wait_all_tasks_blocked()
            began = trio.current_time()
            with pytest.raises(Overloaded):
                await redis.cache.get("k")
            assert trio.current_time() - began < CALL_S / 2
            await redis_is_free_for(redis)
        redis_server.thaw()
        await until(lambda: answers(redis))


async def redis_is_free_for(redis: Redis) -> None:
    """Who waits for the cache holds up neither the bus nor the probe: those fail by themselves."""
    for call in (redis.probe, lambda: redis.bus.publish("c", b"p")):
        with pytest.raises(Unavailable) as caught:
            await call()
        assert not isinstance(caught.value, Overloaded)


async def test_cancelled_calls_leave_no_reply_to_others(redis_server: RedisServer) -> None:
    chance = random.Random(3)
    async with opened(redis_server.url, call_s=5) as redis:
        for number in range(50):
            await redis.cache.put(f"k{number}", b"%d" % number, 60)
        checked = 0

        async def look(number: int, patience_s: float) -> None:
            nonlocal checked
            with trio.move_on_after(patience_s):
                assert await redis.cache.get(f"k{number}") == b"%d" % number
                checked += 1

        for _ in range(20):
            async with trio.open_nursery() as nursery:
                for number in range(50):
                    nursery.start_soon(look, number, chance.choice([0, 0.0001, 0.001, 5]))
        assert checked >= 200
        assert await answers(redis)


async def test_cancelled_in_a_frozen_server_it_ends_at_once(redis_server: RedisServer) -> None:
    async with opened(redis_server.url, call_s=30, connect_s=30) as redis:
        assert await answers(redis)
        redis_server.freeze()
        began = trio.current_time()
        with trio.move_on_after(0.05) as scope:
            async with trio.open_nursery() as nursery:
                for call in calls(redis):
                    nursery.start_soon(call)
        assert scope.cancelled_caught
    assert trio.current_time() - began < 2  # the connections that still waited are closed, too
    redis_server.thaw()


async def test_its_connections_are_few_and_end_with_it(redis_server: RedisServer) -> None:
    # so many calls over two connections take their time on a busy machine
    async with opened(redis_server.url, connections=2, call_s=10) as redis, redis.bus.subscribe(["a"]):
        for _ in range(5):
            async with trio.open_nursery() as nursery:
                for call in calls(redis) * 20:
                    nursery.start_soon(call)
            redis_server.kill()
            redis_server.start()
            await until(lambda: answers(redis))
        assert connections(redis_server) <= 2 + 1 + 1 + 1  # cache, publishing, probe, subscriptions
    await until(lambda: connections(redis_server) == 0)


async def test_what_a_silent_server_did_not_take_is_dropped(redis_server: RedisServer) -> None:
    async with opened(redis_server.url) as redis:
        assert await answers(redis)
        before = sockets()
        redis_server.freeze()
        async with trio.open_nursery() as nursery:
            for _ in range(100):  # more than the system takes
                nursery.start_soon(refused, lambda: redis.bus.publish("c", b"x" * 100_000))
        await until(lambda: sockets() == before - 1, within_s=2)
        redis_server.thaw()
        await until(lambda: answers(redis))


def sockets() -> int:
    held = [path.readlink().name for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return sum(name.startswith("socket:") for name in held)


def connections(server: RedisServer) -> int:
    with server.client() as client:
        return len(client.client_list()) - 1


async def test_an_error_of_the_block_comes_out_as_it_is(redis_server: RedisServer) -> None:
    with pytest.raises(KeyError):
        async with opened(redis_server.url):
            raise KeyError


# the cache


async def test_the_answers_are_those_of_the_twin(redis_server: RedisServer) -> None:
    chance = random.Random(7)
    twin = MemoryCache(MemoryConfig())
    async with opened(redis_server.url, call_s=5) as redis:
        for round_ in range(40):
            limit = chance.choice([1, 2, 3, 7, 10, 60, 1_000])
            window_s = chance.choice([3_600, 86_400, 100_000])
            if window_s / limit < 60:  # or the time between both would count for something
                continue
            for _ in range(limit + 3 if limit < 100 else 20):
                here = await twin.take(f"k{round_}", limit, window_s)
                there = await redis.cache.take(f"k{round_}", limit, window_s)
                assert (there.allowed, there.remaining) == (here.allowed, here.remaining)
                assert there.retry_after_s == pytest.approx(here.retry_after_s, abs=SPARE_S)
                assert there.reset_s == pytest.approx(here.reset_s, abs=SPARE_S)


async def test_a_clock_that_was_set_back_locks_nobody_out(redis_server: RedisServer) -> None:
    async with opened(redis_server.url) as redis:
        await redis.cache.take("k", 4, 60)
        with redis_server.client() as client:
            seconds, _ = client.time()
            client.hset(f"{PREFIX}k", "arrival", (seconds + 86_400) * 1_000_000)
        answer = await redis.cache.take("k", 4, 60)
        assert not answer.allowed
        assert 14 < answer.retry_after_s <= 15


async def test_keys_have_our_prefix_and_end_by_themselves(redis_server: RedisServer) -> None:
    async with opened(redis_server.url) as redis:
        await redis.cache.put("value", b"v", 60)
        await redis.cache.put("gone", b"v", 0)
        await redis.cache.take("rate", 10, 60)
        await redis.cache.put("\ud800", b"odd", 60)
        assert await redis.cache.get("\ud800") == b"odd"
        await redis.probe()
        with redis_server.client() as client:
            keys: list[bytes] = client.keys()
            assert {f"{PREFIX}value".encode(), f"{PREFIX}rate".encode()} <= set(keys)
            assert all(key.startswith(PREFIX.encode()) for key in keys)
            left: list[int] = [client.pttl(key) for key in keys]
        assert all(0 < each <= 60_000 for each in left)
        assert 5_000 < left[keys.index(f"{PREFIX}rate".encode())] <= 6_000


async def test_a_forgotten_script_is_given_again(redis_server: RedisServer) -> None:
    async with opened(redis_server.url) as redis:
        await redis.cache.put("v", b"1", 60)
        for remaining in (9, 6, 3):
            with redis_server.client() as client:
                client.script_flush()
            got: list[int] = []

            async def take(got: list[int] = got) -> None:
                got.append((await redis.cache.take("k", 10, 3_600)).remaining)

            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(take)
                nursery.start_soon(redis.cache.get, "v")
            assert sorted(got) == [remaining - 2, remaining - 1, remaining]
