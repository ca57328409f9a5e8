"""Real backends go away and come back under a real server: what it says, what clients are told."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from journeys.test_terminal import terminal
from kit.command import fails
from kit.fixtures import StartServer
from kit.http import plain
from kit.people import PASSWORD, direct, next_event, people, unique
from kit.server import Server
from kit.wait import until
from kit.worlds import embedded_alone

WITHIN_S = 10.0  # five times what is promised
AFFECTED = {"redis": ["presence", "typing", "delivery_between_nodes"]}

servers = pytest.importorskip("kit.redis", reason="no adapter for Redis")
databases = pytest.importorskip("kit.postgres", reason="no adapter for Postgres")


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Any]:
    """A Redis of the test's own, not started."""
    folder = tmp_path / "redis"
    folder.mkdir()
    server = servers.RedisServer(folder)
    yield server
    server.thaw()
    server.kill()


@pytest.fixture
def postgres() -> Iterator[Any]:
    """A Postgres of the test's own, not started."""
    server = databases.PostgresServer()
    yield server
    server.close()


async def health(server: Server) -> dict[str, Any]:
    async with plain() as http:
        said: dict[str, Any] = (await http.get(f"{server.url}/health")).json()
    return said


async def is_ready(server: Server) -> bool:
    async with plain() as http:
        return (await http.get(f"{server.url}/readyz")).status_code == 200


def states(server: Server, name: str) -> list[str]:
    """What was logged of a dependency's state, in order."""
    return [
        line["msg"]
        for line in server.logs()
        if line["msg"] in ("dependency_away", "dependency_back") and line["dependency"] == name
    ]


async def test_redis_goes_and_comes_back_and_everybody_is_told(
    start_server: StartServer, redis: Any, tmp_path: Path
) -> None:
    await trio.to_thread.run_sync(redis.start)
    server = start_server(REDIS__URL=redis.url, RATE_LIMITS__ENABLED="true")
    (tmp_path / "home").mkdir()
    name = unique("cleo")
    async with (
        people(server.url, "ann", "bob") as (ann, bob),
        terminal(server, tmp_path / "home", "--no-remember") as shown,
        ann.stream() as at_ann,
    ):
        await shown.shows("Log in or register")
        await shown.type("r", name, f"{name}@example.org", PASSWORD)
        await shown.shows("No conversations yet")
        await next_event(at_ann, "online")
        room = await direct(ann, bob)

        await trio.to_thread.run_sync(redis.kill)
        told = await next_event(at_ann, "degraded", within_s=WITHIN_S)
        assert told["dependencies"] == AFFECTED
        await shown.shows(r"Degraded: redis is away \(presence, typing, delivery between nodes\)\.")
        said = await health(server)
        assert said["status"] == "degraded"
        assert said["dependencies"]["redis"]["status"] == "down"
        assert said["dependencies"]["redis"]["breaker"] in ("open", "half_open")
        assert said["dependencies"]["redis"]["last_error"] in ("unreachable", "timeout")
        assert await server.metric("circuit_breaker_state") >= 1
        async with bob.stream() as late:
            assert (await next_event(late, "degraded"))["dependencies"] == AFFECTED
            await next_event(late, "online")
            for number in range(20):  # limits are counted here meanwhile, and no request fails
                await at_ann.send(room, f"message {number}")
                await ann.profile()
                await next_event(late, "chat", content=f"message {number}")

            await trio.to_thread.run_sync(redis.start)
            await next_event(at_ann, "recovered", within_s=WITHIN_S)
            await next_event(late, "recovered", within_s=WITHIN_S)
        await shown.shows("whole again")
        assert (await health(server))["status"] == "healthy"
    assert states(server, "redis") == ["dependency_away", "dependency_back"]
    assert await trio.to_thread.run_sync(server.terminate) == 0


async def test_a_frozen_redis_is_one_that_is_away(start_server: StartServer, redis: Any) -> None:
    await trio.to_thread.run_sync(redis.start)
    server = start_server(REDIS__URL=redis.url, RATE_LIMITS__ENABLED="true")
    async with people(server.url, "ann") as (ann,), ann.stream() as at_ann:
        await next_event(at_ann, "online")
        redis.freeze()
        with trio.fail_after(WITHIN_S):
            await ann.profile()
        await next_event(at_ann, "degraded", within_s=WITHIN_S)
        redis.thaw()
        await next_event(at_ann, "recovered", within_s=WITHIN_S)


async def test_a_start_without_redis_is_degraded_and_whole_by_itself_later(
    start_server: StartServer, redis: Any
) -> None:
    server = start_server(REDIS__URL=redis.url)
    assert await is_ready(server)
    assert (await health(server))["status"] == "degraded"
    await trio.to_thread.run_sync(redis.start)

    async def is_whole() -> bool:
        return bool((await health(server))["status"] == "healthy")

    await until(is_whole, WITHIN_S)
    assert states(server, "redis") == ["dependency_away", "dependency_back"]


async def test_a_start_without_postgres_waits_for_it(start_server: StartServer, postgres: Any) -> None:
    server = start_server(POSTGRES__URL=postgres.url())
    assert not await is_ready(server)
    async with plain() as http:
        assert (await http.get(f"{server.url}/livez")).status_code == 200
        refused = await http.get(f"{server.url}/v1/server")
    assert (refused.status_code, refused.json()["error"]["details"]) == (503, {"dependency": "postgres"})
    assert refused.headers["retry-after"]
    assert await trio.to_thread.run_sync(server.terminate) == 0, "told to stop while it waits"

    await trio.to_thread.run_sync(server.start)
    await trio.to_thread.run_sync(postgres.start)
    await until(lambda: is_ready(server), WITHIN_S)
    async with people(server.url, "ann", "bob") as (ann, bob), ann.stream() as at_ann:
        await at_ann.send(await direct(ann, bob), "hello")

        def freeze_until_noticed() -> None:
            with postgres.frozen():
                server.wait_for_line(r'"dependency_away".*"timeout"', WITHIN_S)

        await trio.to_thread.run_sync(freeze_until_noticed)
        assert (await next_event(at_ann, "degraded", within_s=WITHIN_S))["dependencies"]["postgres"]
        await next_event(at_ann, "recovered", within_s=WITHIN_S)
        await at_ann.send(await direct(ann, bob), "hello again")


@embedded_alone  # as far as files go: with a store they have them in common
async def test_two_nodes_with_files_of_their_own_are_refused(
    start_server: StartServer, postgres: Any, tmp_path: Path
) -> None:
    await trio.to_thread.run_sync(postgres.start)
    first = start_server(POSTGRES__URL=postgres.url())
    await until(lambda: is_ready(first), WITHIN_S)

    def second() -> str:
        key = (first.data_dir / "master.key").read_text().strip()
        settings = {"POSTGRES__URL": postgres.url(), "AUTH__MASTER_KEY": key}
        return fails(2, "serve", "--port", "0", "--data-dir", tmp_path / "second", cwd=tmp_path, **settings)

    line = await trio.to_thread.run_sync(second)
    assert re.match(r"minio\.endpoint is empty, .* another server uses this database", line)
    assert await is_ready(first)
