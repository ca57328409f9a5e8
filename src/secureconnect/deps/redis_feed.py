"""contracts.RevocationFeed in Redis: one sorted set.

Its scores are the times of telling, its members the entries as JSON. What is past its time is trimmed with
each telling, and the whole key expires with the last.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, ParamSpec, TypeVar

import msgspec
import structlog
import trio
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from ..clock import SECOND_US
from ..config import RedisConfig
from ..errors import Unavailable
from .asyncio_bridge import Bridge
from .contracts import Revoked

log = structlog.get_logger(module="redis")

KEY = "secureconnect:revocations"
PAGE = 5_000  # members read in one call
CONNECTIONS = 2
CLOSE_S = 2.0

# a server that answers, but not what was asked, makes the driver or us stumble over a type
FAILURES = (RedisError, OSError, trio.TooSlowError, TypeError, ValueError)

P = ParamSpec("P")
T = TypeVar("T")

_entry = msgspec.json.Decoder(Revoked)


class RedisFeed:
    """kept_s: how long an entry is kept after it was told.  call_s: what one call may take."""

    def __init__(self, bridge: Bridge, client: Redis, *, kept_s: float, call_s: float) -> None:
        self._bridge = bridge
        self._client = client
        self._kept_us = int(kept_s * SECOND_US)
        self._call_s = call_s

    async def add(self, revoked: Sequence[Revoked], now_us: int) -> None:
        if revoked:
            await self._call(self._add, [msgspec.json.encode(each) for each in revoked], now_us)

    async def since(self, us: int) -> list[Revoked]:
        found: list[Revoked] = []
        while True:
            page = await self._call(self._page, us, len(found))
            found += page
            if len(page) < PAGE:
                return [each for each in found if each is not _UNREADABLE]

    async def _add(self, members: list[bytes], now_us: int) -> None:
        async with self._client.pipeline(transaction=True) as commands:
            # told again, an entry keeps its first time: whoever has read since then has it
            commands.zadd(KEY, dict.fromkeys(members, now_us), nx=True)
            commands.zremrangebyscore(KEY, "-inf", now_us - self._kept_us)
            commands.pexpire(KEY, self._kept_us // 1000)
            await commands.execute()

    async def _page(self, us: int, start: int) -> list[Revoked]:
        members: Any = await self._client.zrangebyscore(KEY, us, "+inf", start=start, num=PAGE)
        return [_read(member) for member in members]

    async def _call(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            with trio.fail_after(self._call_s):
                return await self._bridge.run(function, *args, **kwargs)
        except FAILURES as exc:
            raise Unavailable from exc


@asynccontextmanager
async def open_feed(bridge: Bridge, config: RedisConfig, *, kept_s: float) -> AsyncIterator[RedisFeed]:
    """A feed on connections of its own, made when they are needed: nothing else that Redis does holds it up.
    Opens without Redis."""

    async def make() -> Redis:
        pool = BlockingConnectionPool.from_url(
            config.url,
            max_connections=CONNECTIONS,
            timeout=config.call_s,
            socket_connect_timeout=config.connect_s,
            socket_timeout=config.call_s,
            retry=Retry(NoBackoff(), 1),  # once: a connection that Redis has closed meanwhile
        )
        return Redis(connection_pool=pool)

    client = await bridge.run(make)
    try:
        yield RedisFeed(bridge, client, kept_s=kept_s, call_s=config.call_s)
    finally:
        with trio.move_on_after(CLOSE_S, shield=True):
            await bridge.run(client.aclose, True)


# stands for a member that is none of ours, so that pages keep their length
_UNREADABLE = Revoked("session", "", 0, 0)


def _read(member: bytes) -> Revoked:
    try:
        return _entry.decode(member)
    except msgspec.DecodeError:
        log.warning("revocation_unreadable", size_bytes=len(member))
        return _UNREADABLE
