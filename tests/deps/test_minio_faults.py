"""MinIO's adapter before a store that dies, freezes, stalls, babbles or refuses."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from miniopy_async.error import S3Error, ServerError
from structlog.testing import capture_logs

from kit.objects import LIMIT, MB, PART_MB, keys, left_behind, opened, put, whole
from kit.store import ObjectStore
from kit.toll import Toll, toll_before
from kit.wait import until
from secureconnect.config import MinioConfig
from secureconnect.deps.asyncio_bridge import open_bridge
from secureconnect.deps.minio import MinioObjects
from secureconnect.deps.minio_calls import problem_of
from secureconnect.errors import DiskFull, NotFound, Problem, Unavailable
from secureconnect.settings import BadSetting

LARGE = hashlib.sha256(b"seed").digest() * (12 * MB // 32) + b"and a bit"  # three parts
SMALL = b"small"


async def within(limit_s: float, call: Callable[[], Coroutine[Any, Any, object]]) -> type[Problem] | None:
    """What it raised, once it has ended, in time."""
    began = time.monotonic()
    try:
        with trio.fail_after(limit_s + 5):
            await call()
    except Problem as exc:
        assert time.monotonic() - began < limit_s
        return type(exc)
    return None


async def works(call: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Again, by itself: nothing is done but to try."""

    async def done() -> bool:
        return await within(10, call) is None

    await until(done, within_s=20)


async def test_a_store_that_is_away_refuses_at_once_and_works_when_it_is_back(
    store: ObjectStore, minio_config: MinioConfig
) -> None:
    store.kill()
    async with opened(minio_config) as objects:
        for call in (
            objects.probe,
            lambda: put(objects, "a", SMALL),
            lambda: put(objects, "a", LARGE),
            lambda: objects.stat("a"),
            lambda: whole(objects, "a"),
            lambda: objects.copy("a", "b"),
            lambda: objects.delete("a"),
            lambda: keys(objects),
        ):
            assert await within(2, call) is Unavailable
        store.start()
        await works(lambda: put(objects, "a", SMALL))
        store.kill()
        assert await within(2, lambda: objects.stat("a")) is Unavailable
        store.start()
        await works(lambda: objects.stat("a"))
        assert await whole(objects, "a") == SMALL


async def test_a_frozen_store_is_given_up_in_time(store: ObjectStore, minio_config: MinioConfig) -> None:
    async with opened(minio_config, call_s=0.5) as objects:
        await put(objects, "a", SMALL)
        store.freeze()
        assert await within(1.5, lambda: objects.probe(0.4)) is Unavailable
        for call in (
            lambda: put(objects, "a", LARGE[: 5 * MB]),  # more than fits into the sockets
            lambda: objects.stat("a"),
            lambda: whole(objects, "a"),
            lambda: objects.delete("b"),
        ):
            assert await within(3, call) is Unavailable
        store.thaw()
        await works(objects.probe)
        await works(lambda: objects.stat("a"))
        assert await whole(objects, "a") in (SMALL, LARGE[: 5 * MB])  # a late request may have arrived


@asynccontextmanager
async def behind_a_toll(config: MinioConfig, **settings: Any) -> AsyncIterator[tuple[MinioObjects, Toll]]:
    async with toll_before(f"http://{config.endpoint}") as toll:
        settings = {"call_s": 1.0} | settings
        async with opened(config, endpoint=toll.url.removeprefix("http://"), **settings) as objects:
            await objects.probe()
            yield objects, toll


async def test_a_put_that_stalls_half_way_shows_nothing(minio_config: MinioConfig) -> None:
    async with opened(minio_config) as direct, behind_a_toll(minio_config) as (objects, toll):
        await put(direct, "a", SMALL)
        toll.stall_after(2 * MB)
        assert await within(2, lambda: put(objects, "a", LARGE[: 4 * MB])) is Unavailable
        assert await whole(direct, "a") == SMALL
        toll.cut()
        toll.flow()
        await works(lambda: put(objects, "a", LARGE[: 4 * MB]))
        assert await whole(direct, "a") == LARGE[: 4 * MB]


async def test_a_put_that_stalls_after_some_parts_shows_nothing(minio_config: MinioConfig) -> None:
    taken = 0

    async def counted() -> AsyncGenerator[bytes, None]:
        nonlocal taken
        for _ in range(50):
            taken += MB
            yield LARGE[:MB]

    async def put_counted() -> None:
        async with aclosing(counted()) as chunks:
            await objects.put("a", chunks, limit_bytes=LIMIT)

    async with opened(minio_config) as direct, behind_a_toll(minio_config) as (objects, toll):
        await put(direct, "a", SMALL)
        toll.stall_after(7 * MB)
        assert await within(1 + 2 + 1.5, put_counted) is Unavailable
        assert taken <= (2 * PART_MB + 1) * MB  # the part that is sent, and one byte more
        assert await whole(direct, "a") == SMALL
        assert await keys(direct) == ["a"]
        toll.cut()  # nor does the server hear what was said meanwhile
        toll.flow()
        await works(lambda: objects.stat("a"))
        direct._unfinished_us = -10_000_000
        assert await direct.sweep_once() == 1  # nobody could be told to drop the parts
        assert await left_behind(direct) == ([], [])


async def test_a_get_that_stalls_half_way_ends(minio_config: MinioConfig) -> None:
    async with opened(minio_config) as direct, behind_a_toll(minio_config) as (objects, toll):
        await put(direct, "a", LARGE)
        toll.stall_after(2 * MB + MB // 2)
        assert await within(2, lambda: whole(objects, "a")) is Unavailable
        toll.flow()
        await works(lambda: whole(objects, "a"))


async def test_slow_is_not_away(minio_config: MinioConfig) -> None:
    """A call may take longer than `call_s` while bytes move."""
    content = LARGE * 3  # much more than fits into the sockets, where nobody sees it move
    async with behind_a_toll(minio_config, part_mb=64, call_s=1.5) as (objects, toll):
        toll.delay_s = 0.005
        began = time.monotonic()
        await put(objects, "a", content)
        assert time.monotonic() - began > 1.5
        assert (await objects.stat("a")).sha256 == hashlib.sha256(content).hexdigest()


async def test_connections_that_are_cut_are_errors_of_ours(minio_config: MinioConfig) -> None:
    async with behind_a_toll(minio_config, call_s=30.0) as (objects, toll):
        toll.stall_after(MB)
        async with trio.open_nursery() as nursery:

            async def cut_off() -> None:
                assert await within(10, lambda: put(objects, "a", LARGE[: 4 * MB])) is Unavailable

            nursery.start_soon(cut_off)
            await until(lambda: toll.stalls)
            toll.refuses = True  # or the driver would send it again
            assert toll.cut() > 0
        toll.refuses = False
        toll.flow()
        await put(objects, "a", SMALL)
        assert await whole(objects, "a") == SMALL


async def test_garbage_is_not_taken_for_an_answer() -> None:
    async def babble(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n<listen")
            await stream.receive_some()
            await stream.send_all(b"220 mail.example.org ESMTP\r\n")

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, babble, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        config = MinioConfig(endpoint=f"127.0.0.1:{port}", access_key="k", secret_key="s", call_s=1.0)
        async with opened(config) as objects:
            assert await within(2, lambda: keys(objects)) is Unavailable
            assert await within(2, lambda: objects.stat("a")) is Unavailable
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("head", ["200 OK\r\nContent-Length: 0", "206 Some\r\nContent-Length: 0", "204 None"])
async def test_a_server_that_says_yes_to_everything_stores_nothing(head: str) -> None:
    """A proxy's page for what it does not know, say."""

    async def agree(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            async for _ in stream:
                await stream.send_all(f"HTTP/1.1 {head}\r\n\r\n".encode())

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, agree, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        config = MinioConfig(endpoint=f"127.0.0.1:{port}", access_key="k", secret_key="s", call_s=1.0)
        async with opened(config) as objects:
            for call in (
                lambda: put(objects, "a", SMALL),
                lambda: objects.stat("a"),
                lambda: whole(objects, "a"),
                lambda: objects.copy("a", "b"),
            ):
                assert await within(2, call) is Unavailable
        nursery.cancel_scope.cancel()


async def test_calls_beyond_the_bounds_are_refused(store: ObjectStore, minio_config: MinioConfig) -> None:
    async with opened(minio_config, connections=1, waiting=1, wait_s=0.3, call_s=1.0) as objects:
        await objects.probe()
        store.freeze()
        refused: list[float] = []
        began = trio.current_time()

        async def ask() -> None:
            with pytest.raises(Unavailable):
                await objects.stat("a")
            refused.append(trio.current_time() - began)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
        at_once, waited, asked = refused
        assert at_once < 0.2
        assert 0.3 <= waited < 0.9
        assert 1.0 <= asked < 2.5
        store.thaw()
        with pytest.raises(NotFound):
            await objects.stat("a")


async def test_a_cancelled_call_leaves_its_place(store: ObjectStore, minio_config: MinioConfig) -> None:
    async with opened(minio_config, connections=1, waiting=1) as objects:
        await put(objects, "a", SMALL)
        store.freeze()
        for _ in range(20):
            with trio.move_on_after(0.01) as scope:
                await objects.stat("a")
            assert scope.cancelled_caught
        store.thaw()
        assert (await objects.stat("a")).size_bytes == len(SMALL)


async def test_calls_cancelled_anywhere_leave_nothing_behind(minio_config: MinioConfig) -> None:
    chance = random.Random(4)
    async with opened(minio_config) as objects:
        await put(objects, "kept", LARGE)

        async def one(number: int) -> None:
            calls: list[Callable[[], Coroutine[Any, Any, object]]] = [
                lambda: put(objects, f"a{number}", LARGE[: 6 * MB]),
                lambda: put(objects, f"a{number}", SMALL),
                lambda: whole(objects, "kept"),
                lambda: objects.copy("kept", f"a{number}"),
                lambda: objects.delete(f"a{number}"),
                lambda: keys(objects),
            ]
            with trio.move_on_after(chance.random() * 0.4):
                await calls[number % len(calls)]()

        for _ in range(4):
            async with trio.open_nursery() as nursery:
                for number in range(12):
                    nursery.start_soon(one, number)
        session: Any = objects._there._client._session
        await until(lambda: not session.connector._acquired)
        assert await whole(objects, "kept") == LARGE
        for key in await keys(objects):
            assert (await objects.stat(key)).size_bytes in (len(SMALL), 6 * MB, len(LARGE))
            assert len(await whole(objects, key)) == (await objects.stat(key)).size_bytes
        objects._unfinished_us = -10_000_000  # a clean-up of two seconds may have been too short here
        await objects.sweep_once()
        assert await left_behind(objects) == ([], [])


async def test_a_bucket_that_is_gone_is_made_again(minio_config: MinioConfig) -> None:
    async with opened(minio_config) as objects:
        await objects.probe()
        await objects._calls.run(lambda _: objects._there._client.remove_bucket(minio_config.bucket))
        await works(lambda: put(objects, "a", SMALL))
        assert await whole(objects, "a") == SMALL


@pytest.mark.parametrize(
    ("code", "status", "problem"),
    [
        ("NoSuchKey", 404, NotFound),
        ("NoSuchBucket", 404, Unavailable),
        ("AccessDenied", 403, Unavailable),
        ("SlowDown", 503, Unavailable),
        ("XMinioStorageFull", 507, DiskFull),
        ("XMinioAdminBucketQuotaExceeded", 400, DiskFull),
        ("SomethingNew", 507, DiskFull),
    ],
)
def test_what_the_store_says(code: str, status: int, problem: type[Problem]) -> None:
    answer: Any = SimpleNamespace(status=status)
    assert problem_of(S3Error(code, None, None, None, None, answer)) is problem
    assert problem_of(ServerError("", 507)) is DiskFull


async def test_an_endpoint_that_is_none_stops_the_start(minio_config: MinioConfig) -> None:
    async with open_bridge() as bridge:
        with pytest.raises(BadSetting, match=r"minio\.endpoint"):
            async with MinioObjects.open(replace(minio_config, endpoint="host/path"), bridge):
                pass


async def test_a_wrong_key_is_refused_and_said(minio_config: MinioConfig) -> None:
    async with opened(minio_config, secret_key="another") as objects:
        with capture_logs() as logged:
            assert await within(5, objects.probe) is Unavailable
    assert [(line["event"], line["log_level"]) for line in logged] == [("store_refused", "warning")]
    assert "another" not in str(logged)
