"""Guessing passwords on every node at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trio

from kit.cluster import cluster
from kit.fixtures import StartServer
from kit.http import plain
from kit.people import PASSWORD, people
from kit.postgres import PostgresServer
from kit.store import ObjectStore
from kit.worlds import embedded_alone
from secureconnect.client import ApiError, Client

GUESSES = 50
LIMIT = 5


@embedded_alone  # there is one process; the other world is below
async def test_no_more_guesses_than_allowed_get_a_verdict(start_server: StartServer) -> None:
    await guess([start_server().url])


async def test_nor_on_two_nodes_together(
    tmp_path: Path, postgres_server: PostgresServer, shared_store: ObjectStore
) -> None:
    async with cluster(tmp_path, postgres_server, shared_store, balancer=None) as nodes:
        await guess([node.url for node in nodes.nodes])


async def guess(urls: Sequence[str]) -> None:
    """Of all at once, on all nodes, as many as allowed are wrong, and the rest is not looked at. The owner
    comes in by a device that is known, and nobody else does; those whose name nobody has fare alike."""
    async with people(urls[0], "ann") as [ann], doors(urls) as clients:
        for username in (ann.me.username, "nobody_of_that_name"):
            said: Counter[tuple[int, str]] = Counter()

            async def one(http: httpx.AsyncClient, username: str, said: Counter[tuple[int, str]]) -> None:
                body = {"username": username, "password": "wrong password"}
                answer = await http.post("/v1/auth/login", json=body)
                said[answer.status_code, answer.json()["error"]["code"]] += 1

            async with trio.open_nursery() as nursery:
                for number in range(GUESSES):
                    nursery.start_soon(one, clients[number % len(clients)], username, said)
            assert said == {(401, "INVALID_CREDENTIALS"): LIMIT, (423, "ACCOUNT_LOCKED"): GUESSES - LIMIT}
        for url in urls:
            async with Client(url) as stranger:
                with pytest.raises(ApiError, match="ACCOUNT_LOCKED"):
                    await stranger.login(ann.me.username, PASSWORD)
                await stranger.login(
                    ann.me.username,
                    PASSWORD,
                    device_id=ann.me.device_id,
                    device_secret=ann.me.device_secret,
                )


@asynccontextmanager
async def doors(urls: Sequence[str]) -> AsyncIterator[list[httpx.AsyncClient]]:
    limits = httpx.Limits(max_connections=GUESSES)
    clients = [plain(base_url=url, limits=limits, timeout=30) for url in urls]
    try:
        yield clients
    finally:
        for client in clients:
            await client.aclose()
