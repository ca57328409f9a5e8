"""Redis, opened with limits short enough for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio

from secureconnect.config import RedisConfig
from secureconnect.deps.asyncio_bridge import open_bridge
from secureconnect.deps.contracts import Backlog, Delivery
from secureconnect.deps.redis import Redis, open_redis

CALL_S = 0.5


@asynccontextmanager
async def opened(url: str, **settings: Any) -> AsyncIterator[Redis]:
    config = RedisConfig(url=url, **{"call_s": CALL_S, "ping_s": 0.2, "reopen_s": 0.05, **settings})
    async with open_bridge() as bridge, open_redis(config, bridge) as redis:
        yield redis


async def next_of(backlog: Backlog) -> Delivery:
    with trio.fail_after(5):
        async for delivery in backlog:
            return delivery
    raise AssertionError("the subscription ended")
