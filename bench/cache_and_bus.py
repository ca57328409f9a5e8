"""Redis through our adapter: calls a second, and what they and a message heard cost of this process's CPU.

    PYTHONPATH=src python bench/cache_and_bus.py redis://127.0.0.1:6379/0

Read ratios between rows of one run; `floor` is redis-py alone on asyncio, one call after the other.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial

import trio
from redis.asyncio import Redis as Client

from secureconnect.config import RedisConfig
from secureconnect.deps.asyncio_bridge import open_bridge
from secureconnect.deps.contracts import Backlog
from secureconnect.deps.redis import PREFIX, open_redis

SECONDS = 2.0
PAYLOAD = b"x" * 200
HEARD = 20_000
CALLERS = (1, 4, 16, 64, 256)

Call = Callable[[], Awaitable[object]]


async def rate(name: str, call: Call, callers: int) -> None:
    """So many tasks, each with one call under way."""
    done = 0
    waits: list[float] = []

    async def work() -> None:
        nonlocal done
        while True:
            began = time.perf_counter()
            await call()
            waits.append(time.perf_counter() - began)
            done += 1

    began, burnt = time.perf_counter(), time.process_time()
    with trio.move_on_after(SECONDS):
        async with trio.open_nursery() as nursery:
            for _ in range(callers):
                nursery.start_soon(work)
    took, burnt = time.perf_counter() - began, time.process_time() - burnt
    waits.sort()
    half, most = (waits[int(len(waits) * share)] * 1000 for share in (0.5, 0.99))
    print(
        f"{name:<8} {callers:>3} callers {done / took:>8.0f}/s  CPU {burnt / done * 1e6:>5.0f} us"
        f"  p50 {half:.2f} p99 {most:.2f} ms"
    )


async def hear(backlog: Backlog) -> None:
    """Messages that another process publishes."""
    publisher = (
        "import redis,sys\n"
        "p = redis.Redis.from_url(sys.argv[1]).pipeline(transaction=False)\n"
        "for _ in range(int(sys.argv[3])):\n"
        f"    p.publish(sys.argv[2], b'x' * {len(PAYLOAD)})\n"
        "p.execute()\n"
    )
    command = [sys.executable, "-c", publisher, sys.argv[1], f"{PREFIX}0:heard", str(HEARD)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.run_process, command))
        got, began, burnt = 0, 0.0, 0.0
        async for _ in backlog:
            if not got:
                began, burnt = time.perf_counter(), time.process_time()
            got += 1
            if got + backlog.lost >= HEARD:
                break
    took, burnt = time.perf_counter() - began, time.process_time() - burnt
    print(f"heard    {got} of {HEARD}  {got / took:>8.0f}/s  CPU {burnt / got * 1e6:>5.1f} us")


async def measure(url: str) -> None:
    config = RedisConfig(url=url, call_s=5, backlog=HEARD)
    async with open_bridge() as bridge, open_redis(config, bridge) as redis:
        calls: dict[str, Call] = {
            "take": lambda: redis.cache.take("bench", 1_000_000, 1),
            "get": lambda: redis.cache.get("nothing"),
            "publish": lambda: redis.bus.publish("unheard", PAYLOAD),
        }
        for name, call in calls.items():
            await call()
            for callers in CALLERS:
                await rate(name, call, callers)
        async with redis.bus.subscribe(["heard"]) as backlog:
            await hear(backlog)


async def floor(url: str) -> None:
    async with Client.from_url(url) as client:
        await client.get("nothing")
        done, began, burnt = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - began < SECONDS:
            await client.get("nothing")
            done += 1
        took, burnt = time.perf_counter() - began, time.process_time() - burnt
    print(f"floor      1 caller  {done / took:>8.0f}/s  CPU {burnt / done * 1e6:>5.0f} us")


def main() -> None:
    asyncio.run(floor(sys.argv[1]))
    trio.run(measure, sys.argv[1])


if __name__ == "__main__":
    main()
