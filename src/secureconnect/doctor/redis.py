"""Redis: the cache and the bus."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from redis import exceptions
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from ..config import Config
from ..deps.asyncio_bridge import open_bridge
from ..settings import REDIS_URL
from .findings import Report, latency, size

CALL_S = 3.0
ROUND_TRIPS = 20
SLOW_S = 0.005
OLDEST = (6, 0)
TRIAL_S = 30  # a key this check could not remove is gone by then


@dataclass(frozen=True, slots=True)
class _Seen:
    """policy: None when it may not be asked (managed services)."""

    info: Mapping[str, Any]
    policy: str | None
    times_s: list[float]
    value_came_back: bool
    message_came_back: bool


async def check(config: Config, report: Report) -> None:
    url = config.redis.url
    if not url:
        told = "none: cache and bus are this process's memory"
        if report.nodes > 1:
            report.warn("redis", told, "set redis.url: each node learns of the others' changes late without")
        else:
            report.ok("redis", told)
        return
    async with open_bridge() as bridge:
        try:
            if not REDIS_URL.fits(url):
                raise ValueError
            seen = await bridge.run(_ask, url)
        except Exception as exc:
            found, mend = _reason(exc, _where(url), report)
            report.fail("redis", found, mend)
            return
    _judge(seen, _where(url), report)


async def _ask(url: str) -> _Seen:
    """On the asyncio side."""
    client = Redis.from_url(
        url, socket_timeout=CALL_S, socket_connect_timeout=CALL_S, retry=Retry(NoBackoff(), 0)
    )
    try:
        info = await client.info()
        times = []
        for _ in range(ROUND_TRIPS):
            began = time.perf_counter()
            await client.ping()
            times.append(time.perf_counter() - began)
        try:
            policy = (await client.config_get("maxmemory-policy")).get("maxmemory-policy")
        except exceptions.ResponseError:
            policy = None
        mark = secrets.token_hex(8)
        key = f"secureconnect:doctor:{mark}"
        await client.set(key, mark, ex=TRIAL_S)
        value = await client.get(key)
        await client.delete(key)
        return _Seen(info, policy, times, value == mark.encode(), await _hear(client, key, mark))
    finally:
        await client.aclose()


async def _hear(client: Redis, channel: str, mark: str) -> bool:
    """Whether a published message comes back."""
    pubsub = client.pubsub()
    try:
        await pubsub.subscribe(channel)
        await pubsub.get_message(timeout=CALL_S)  # the confirmation
        await client.publish(channel, mark)
        message = await pubsub.get_message(timeout=CALL_S)
        return message is not None and message["data"] == mark.encode()
    finally:
        await pubsub.aclose()  # type: ignore[no-untyped-call]


def _where(url: str) -> str:
    try:
        parts = urlsplit(url)
        return parts.path if parts.scheme == "unix" else f"{parts.hostname} port {parts.port or 6379}"
    except ValueError:
        return "what redis.url names"


def _reason(exc: Exception, where: str, report: Report) -> tuple[str, str]:
    """What happened and how to mend it: the one table."""
    said = report.said(exc)
    match exc:
        case exceptions.AuthenticationError() | exceptions.NoPermissionError():
            return (
                f"{where}: it refuses the password or the user: {said}",
                "set the password in redis.url (percent-encoded), and give the user +@all on ~* and &*",
            )
        case exceptions.BusyLoadingError():
            return f"{where}: {said}", "wait until it has loaded its data"
        case exceptions.TimeoutError() | TimeoutError():
            return (
                f"{where}: no answer within {CALL_S:g} s",
                "it is frozen or cut off: look at its log, and at the firewall between",
            )
        case exceptions.ConnectionError() | OSError():
            return f"{where}: cannot be reached: {said}", "start it, or correct host and port in redis.url"
        case exceptions.ResponseError():
            return f"{where}: {said}", "look at its settings and at the rights of its user"
        case ValueError():
            return "redis.url is not understood", "write it as redis://:password@host:port/0"
    return f"{where}: {type(exc).__name__}: {said}", "look at the log of Redis"


def _judge(seen: _Seen, where: str, report: Report) -> None:
    info = seen.info
    report.ok("redis", f"{where}: reached")
    version = str(info.get("redis_version", "unknown"))
    if _number(version) < OLDEST:
        report.fail("redis.version", f"version {version}", "upgrade it to version 6 or later")
    else:
        report.ok("redis.version", f"version {version}")
    told = f"{ROUND_TRIPS} round trips: {latency(seen.times_s)}"
    if sorted(seen.times_s)[ROUND_TRIPS // 2] > SLOW_S:
        report.warn("redis.latency", told, "bring it nearer: rate limits wait for it at each request")
    else:
        report.ok("redis.latency", told)
    if info.get("role", "master") != "master":
        report.fail("redis.role", "it is a replica", "name the primary in redis.url")
    for name, worked, what in (
        ("redis.value", seen.value_came_back, "a value"),
        ("redis.message", seen.message_came_back, "a published message"),
    ):
        if worked:
            report.ok(name, f"{what} came back")
        else:
            report.fail(
                name, f"{what} did not come back", "let the user of redis.url use all keys and channels"
            )
    _judge_memory(seen, report)
    if info.get("rdb_last_bgsave_status", "ok") != "ok":
        report.warn(
            "redis.persistence",
            "its last snapshot failed, and it may refuse to write because of that",
            'switch snapshots off (save ""): nothing in it needs to be kept',
        )
    else:
        kept = "on" if info.get("aof_enabled") else "off"
        report.ok("redis.persistence", f"append-only file {kept}; nothing in it needs to be kept")


def _judge_memory(seen: _Seen, report: Report) -> None:
    name, limit = "redis.memory", int(seen.info.get("maxmemory", 0))
    used = size(int(seen.info.get("used_memory", 0)))
    if seen.policy is None:
        report.ok(name, f"{used} used; its policy may not be asked")
    elif limit and seen.policy == "noeviction":
        report.warn(
            name,
            f"{used} used of {size(limit)}, policy noeviction: when it is full, it refuses",
            "set maxmemory-policy volatile-ttl: all we keep there may be lost",
        )
    else:
        of = f"of {size(limit)}" if limit else "without limit"
        report.ok(name, f"{used} used {of}, policy {seen.policy}")


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
