"""Every metric that operators are promised exists on a running server, and moves when the thing happens."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing

import pytest
import trio

from kit.fixtures import StartServer
from kit.http import plain
from kit.people import PASSWORD, group, next_event, people, unique
from kit.server import Server
from kit.wait import until
from secureconnect.client import ApiError, Client

LINE = re.compile(r"(?P<name>\w+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")

Samples = dict[str, float]


async def scrape(server: Server) -> Samples:
    """Sums over all labels by name, and each sample by name and labels as they stand in the text."""
    found: Samples = {}
    async with plain() as http:
        answer = await http.get(f"{server.url}/metrics")
    answer.raise_for_status()
    for line in answer.text.splitlines():
        if match := LINE.fullmatch(line):
            value = float(match["value"])
            found[match["name"]] = found.get(match["name"], 0.0) + value
            if match["labels"]:
                found[f"{match['name']}{{{match['labels']}}}"] = value
    return found


async def shows(server: Server, state: Callable[[Samples], bool]) -> None:
    async def shown() -> bool:
        return state(await scrape(server))

    await until(shown)


async def refused(call: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(ApiError):
        await call()


async def test_each_promised_metric_moves(start_server: StartServer) -> None:
    server = start_server()
    before = await scrape(server)

    async with people(server.url, "ann") as (ann,):
        room = await group(ann)
        async with ann.stream() as stream, Client(server.url) as stranger:
            await shows(server, lambda now: now["websocket_connections_active"] == 1)
            await stream.send(room, "hello")
            await next_event(stream, "chat")
            await stranger.register(name := unique("bob"), PASSWORD, f"{name}@example.org", "Bob")
            await stranger.login(name, PASSWORD)
            await refused(lambda: stranger.login(name, "wrong " + PASSWORD))
    await shows(server, lambda now: now["websocket_connections_active"] == 0)
    await shows(server, lambda now: now["secureconnect_loop_lag_seconds_count"] > 0)  # four times a second

    after = await scrape(server)
    for name in (
        "http_requests_total",
        "http_request_duration_seconds_count",
        "http_request_duration_seconds_sum",
        "websocket_messages_total",
        "messages_total",
        "db_query_duration_seconds_count",
        "db_query_duration_seconds_sum",
        "auth_attempts_total",
        "auth_success_total",
        "auth_failures_total",
    ):
        assert after[name] > before.get(name, 0.0), name
    for sample in (
        'http_requests_total{method="POST",route="/v1/auth/login",service="auth-service",status="200"}',
        'http_requests_total{method="POST",route="/v1/auth/login",service="auth-service",status="401"}',
        'websocket_messages_total{direction="in"}',
        'websocket_messages_total{direction="out"}',
        'db_query_duration_seconds_count{kind="read"}',
        'db_query_duration_seconds_count{kind="write"}',
    ):
        assert after[sample] > 0, sample


async def test_what_is_under_way_shows_while_it_lasts(start_server: StartServer) -> None:
    """A request that waits for the database, which somebody else has locked."""
    server = start_server()
    writer = 'db_connections_active{role="writer"}'
    async with people(server.url, "ann") as (ann,):
        await shows(server, lambda now: (now["http_requests_in_flight"], now[writer]) == (1, 0))
        with closing(sqlite3.connect(server.data_dir / "secureconnect.db", isolation_level=None)) as file:
            file.execute("BEGIN IMMEDIATE")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(group, ann)
                # the scrape itself is the other one
                await shows(server, lambda now: (now["http_requests_in_flight"], now[writer]) == (2, 1))
                file.execute("ROLLBACK")
        await shows(server, lambda now: (now["http_requests_in_flight"], now[writer]) == (1, 0))
