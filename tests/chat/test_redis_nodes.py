"""Two rooms that have a database and a real Redis in common, which comes and goes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio

from kit.redis import RedisServer
from kit.wait import until
from secureconnect.chat import Chat
from secureconnect.config import ChatConfig, RedisConfig
from secureconnect.deps.asyncio_bridge import open_bridge
from secureconnect.deps.redis import open_redis
from secureconnect.deps.sqlite import Sqlite

from .rig import MemorySocket, dialled, make_group, make_people, running, say

SLOW = ChatConfig(catch_up_ms=60_000)  # the bus, or what it says of itself, must do it


@pytest.fixture
async def nodes(db: Sqlite, redis_server: RedisServer) -> AsyncIterator[tuple[Chat, Chat]]:
    """Each with connections of its own."""
    config = RedisConfig(url=redis_server.url)
    async with (
        open_bridge() as bridge,
        open_redis(config, bridge) as one,
        open_redis(config, bridge) as other,
        running(db, one.bus, SLOW) as here,
        running(db, other.bus, SLOW) as there,
    ):
        yield here, there


async def test_the_other_node_tells_it_too(
    db: Sqlite, nodes: tuple[Chat, Chat], nursery: trio.Nursery
) -> None:
    here, there = nodes
    ann, bob = await make_people(db, "ann", "bob")
    places = [await make_group(here, ann, bob) for _ in range(10)]
    socket = await dialled(nursery, there, bob)
    for _ in range(5):
        async with trio.open_nursery() as senders:
            for where in places:
                senders.start_soon(say, here, ann, where, "hello")
    for where in places:
        assert await messages(socket, where, 6) == [2, 3, 4, 5, 6]


async def messages(socket: MemorySocket, where: str, last: int) -> list[int]:
    """Changes after the first, which is the beginning of the conversation, up to `last`."""
    return [change for change in await socket.wait_changes(where, last) if change > 1]


async def test_what_was_said_without_redis_is_told_soon_after(
    db: Sqlite, nodes: tuple[Chat, Chat], redis_server: RedisServer, nursery: trio.Nursery
) -> None:
    here, there = nodes
    ann, bob = await make_people(db, "ann", "bob")
    where = await make_group(here, ann, bob)
    socket = await dialled(nursery, there, bob)
    for round_ in range(3):
        heard = 3 * round_ + 2
        await say(here, ann, where, "before")
        await socket.wait_changes(where, heard)
        redis_server.kill()
        with trio.fail_after(1):
            await say(here, ann, where, "meanwhile")
        redis_server.start()
        with trio.fail_after(3):
            await socket.wait_changes(where, heard + 1)
        await until(there._carrier.is_healthy)
        await say(here, ann, where, "after")
        assert await messages(socket, where, heard + 2) == list(range(2, heard + 3))


async def test_a_frozen_redis_holds_up_nobody(
    db: Sqlite, nodes: tuple[Chat, Chat], redis_server: RedisServer, nursery: trio.Nursery
) -> None:
    here, there = nodes
    ann, bob = await make_people(db, "ann", "bob")
    where = await make_group(here, ann, bob)
    near, far = await dialled(nursery, here, bob), await dialled(nursery, there, bob)
    redis_server.freeze()
    with trio.fail_after(1):
        await say(here, ann, where, "hello")
        await near.wait_changes(where, 2)
    assert await messages(far, where, 2) == [2]  # by catch-up: its own beat does not come back
    redis_server.thaw()
    await until(there._carrier.is_healthy)
    await say(here, ann, where, "hello again")
    assert await messages(far, where, 3) == [2, 3]
