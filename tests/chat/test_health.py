"""What clients are told when the server does without something: `degraded` and `recovered`."""

from __future__ import annotations

import trio

from secureconnect.config import BreakerConfig, ChatConfig, MemoryConfig
from secureconnect.deps.guard import Guard
from secureconnect.deps.guarded import FallbackBus
from secureconnect.deps.memory import MemoryBus
from secureconnect.deps.sqlite import Sqlite

from .rig import dial, dialled, make_group, make_person, resume_from, running, say

Away = dict[str, tuple[str, ...]]
REDIS: Away = {"redis": ("presence", "typing")}
MINIO: Away = {"minio": ("uploads",)}


class Outside:
    """What is away."""

    def __init__(self) -> None:
        self.away: Away = {}


async def test_every_socket_is_told_what_is_away_and_when_all_is_well(db: Sqlite, bus: MemoryBus) -> None:
    ann, bob = await make_person(db, "ann"), await make_person(db, "bob")
    outside = Outside()
    async with running(db, bus) as room, trio.open_nursery() as nursery:
        room.connect(authenticate=room.authenticate, away=lambda: outside.away)
        group = await make_group(room, ann, bob)
        at_ann = await dialled(nursery, room, ann)
        at_bob = await dialled(nursery, room, bob, only=group)
        waiting = await dialled(nursery, room, bob, resume=True)
        sockets = (at_ann, at_bob, waiting)
        outside.away = REDIS
        room.tell_health()
        outside.away = REDIS | MINIO
        room.tell_health()
        outside.away = MINIO
        room.tell_health()
        outside.away = {}
        room.tell_health()
        for socket in sockets:
            await socket.wait_for("recovered")
            assert [frame.get("dependencies") for frame in socket.of("degraded", "recovered")] == [
                {"redis": ["presence", "typing"]},
                {"redis": ["presence", "typing"], "minio": ["uploads"]},
                {"minio": ["uploads"]},
                None,
            ]
        nursery.cancel_scope.cancel()


async def test_who_connects_meanwhile_is_told_right_after_hello(db: Sqlite, bus: MemoryBus) -> None:
    ann = await make_person(db, "ann")
    outside = Outside()
    async with running(db, bus) as room, trio.open_nursery() as nursery:
        room.connect(authenticate=room.authenticate, away=lambda: outside.away)
        whole = await dialled(nursery, room, ann)
        outside.away = REDIS
        late = dial(nursery, room, ann)
        await late.wait_for("degraded")
        assert [frame["type"] for frame in late.seen[:2]] == ["hello", "degraded"]
        resuming = dial(nursery, room, ann, resume=True)
        await resuming.wait_for("degraded")
        resume_from(resuming, {})
        await resuming.wait_for("resumed")
        assert [frame["type"] for frame in resuming.seen] == ["hello", "degraded", "resumed"]
        assert not whole.of("degraded", "recovered")
        nursery.cancel_scope.cancel()


async def test_a_socket_that_cannot_take_it_holds_up_nobody(db: Sqlite, bus: MemoryBus) -> None:
    ann, bob = await make_person(db, "ann"), await make_person(db, "bob")
    outside = Outside()
    async with running(db, bus, ChatConfig()) as room, trio.open_nursery() as nursery:
        room.connect(authenticate=room.authenticate, away=lambda: outside.away)
        group = await make_group(room, ann, bob)
        full = await dialled(nursery, room, ann, outbox=1)
        at_bob = await dialled(nursery, room, bob)
        outside.away = REDIS
        room.tell_health()
        await at_bob.wait_for("degraded")
        await full.wait_closed()
        room.tell_health()
        await at_bob.wait_for("degraded", 2)
        await say(room, ann, group, "still here")
        await at_bob.wait_for("chat")
        nursery.cancel_scope.cancel()


async def test_without_a_bus_nodes_hear_of_each_other_by_fast_catch_up(db: Sqlite) -> None:
    """A node that hears itself only must not take the bus for whole, and wait for its slow pass."""
    ann, bob = await make_person(db, "ann"), await make_person(db, "bob")
    guards = [Guard("redis", BreakerConfig()) for _ in range(2)]
    for guard in guards:
        guard.breaker.probe_failed("unreachable", decides=True)
    away, other = (FallbackBus(MemoryBus(MemoryConfig()), guard, 100) for guard in guards)
    config = ChatConfig(catch_up_ms=60_000)
    async with (
        running(db, away, config) as here,
        running(db, other, config) as there,
        trio.open_nursery() as nursery,
    ):
        group = await make_group(here, ann, bob)
        at_bob = await dialled(nursery, there, bob)
        for number in range(1, 4):
            await say(here, ann, group, f"message {number}")
            assert (await at_bob.wait_for("chat", number))["content"] == f"message {number}"
        nursery.cancel_scope.cancel()
