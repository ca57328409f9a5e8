"""Who is here: told to those it concerns, and only when it changes; and when they were last here."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import replace
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from kit.databases import on_sqlite
from kit.outage import Interrupted
from kit.wait import until
from secureconnect.chat import Chat
from secureconnect.chat.carrier import NODES, Carrier, Said, Seen, _Beat
from secureconnect.chat.presence import store as stored
from secureconnect.chat.shapes import Status
from secureconnect.clock import MINUTE_US
from secureconnect.config import ChatConfig, MemoryConfig
from secureconnect.deps.contracts import Database
from secureconnect.deps.memory import MemoryBus
from secureconnect.errors import PoolExhausted
from secureconnect.identity import DeviceId, NodeId, Principal, UserId, new_id

from .rig import MemorySocket, dialled, make_group, make_people, principal_of, running, signals_beside
from .test_routes import ask

QUICK = ChatConfig(offline_grace_s=0)


async def test_presence_follows_the_sockets(db: Database, bus: MemoryBus, nursery: trio.Nursery) -> None:
    ann, bob, cid = await make_people(db, "ann", "bob", "cid")
    async with running(db, bus, QUICK) as room:
        await make_group(room, ann, bob)
        friend, stranger = await dialled(nursery, room, bob), await dialled(nursery, room, cid)
        assert room.status_of(ann) == "offline"
        async with trio.open_nursery() as hers:
            await dialled(hers, room, ann)
            assert room.status_of(ann) == "online"
            await room.presence.beat_once()
            await dialled(hers, room, ann)
            await room.presence.beat_once()
            hers.cancel_scope.cancel()
        assert room.status_of(ann) == "offline"
        await room.presence.beat_once()
        told = friend.of("presence")
        assert [(frame["user_id"], frame["status"]) for frame in told] == [(ann, "online"), (ann, "offline")]
        assert [frame["last_seen"] is None for frame in told] == [True, False]
        assert stranger.of("presence") == []


async def test_a_short_absence_is_not_told(room: Chat, people: list[UserId], nursery: trio.Nursery) -> None:
    ann, bob, *_ = people
    await make_group(room, ann, bob)
    friend = await dialled(nursery, room, bob)
    for _ in range(3):
        async with trio.open_nursery() as hers:
            await dialled(hers, room, ann)
            hers.cancel_scope.cancel()
        await room.presence.beat_once()
    assert [frame["status"] for frame in friend.of("presence")] == ["online"]
    assert room.status_of(ann) == "online"


@pytest.mark.parametrize("status", ["away", "busy", "offline"])
async def test_people_choose_how_they_are_seen(
    db: Database, bus: MemoryBus, nursery: trio.Nursery, status: str
) -> None:
    ann, bob = await make_people(db, "ann", "bob")
    async with running(db, bus, QUICK) as room:
        await make_group(room, ann, bob)
        friend, socket = await dialled(nursery, room, bob), await dialled(nursery, room, ann)
        await room.presence.beat_once()
        socket.tell("presence", ref="1", status=status)
        await socket.wait_for("ack")
        await room.presence.beat_once()
        assert [frame["status"] for frame in friend.of("presence")] == ["online", status]
        assert room.status_of(ann) == status


async def test_without_a_socket_one_may_say_so(room: Chat, people: list[UserId]) -> None:
    ann, bob, cid, _ = people
    await make_group(room, ann, bob)
    room.presence.choose(ann, DeviceId(new_id()), "online")
    assert room.status_of(ann) == "online"
    assert [each.user_id for each in await room.presence.look_up(bob, [ann, cid, bob])] == [ann, bob]
    assert await room.presence.look_up(cid, [ann]) == []


async def test_presence_on_two_nodes(db: Database, bus: MemoryBus, nursery: trio.Nursery) -> None:
    ann, bob = await make_people(db, "ann", "bob")
    async with running(db, bus, QUICK) as here:
        await make_group(here, ann, bob)
        async with trio.open_nursery() as hers:
            await dialled(hers, here, ann)
            await here.presence.beat_once()
            async with running(db, bus, QUICK) as there:  # comes later, and is told who is here
                friend = await dialled(nursery, there, bob)
                with trio.fail_after(5):
                    while there.status_of(ann) != "online":
                        await trio.lowlevel.checkpoint()
                    await friend.wait_for("presence")
                    hers.cancel_scope.cancel()
                    while _status(there, ann) != "offline":
                        await trio.lowlevel.checkpoint()
                    await friend.wait_for("presence", 2)
                assert [frame["status"] for frame in friend.of("presence")] == ["online", "offline"]


def _status(room: Chat, user: UserId) -> str:
    return room.status_of(user)


async def test_a_crowd_is_told_of_itself_little_by_little(
    db: Database, bus: MemoryBus, nursery: trio.Nursery
) -> None:
    crowd = await make_people(db, *(f"p{number}" for number in range(12)))
    async with running(db, bus, replace(QUICK, presence_per_s=30)) as room:
        await make_group(room, *crowd)
        sockets = [await dialled(nursery, room, user) for user in crowd]
        beats = 0
        while sum(len(socket.of("presence")) for socket in sockets) < 12 * 11:
            before = sum(len(socket.of("presence")) for socket in sockets)
            await room.presence.beat_once()
            told = sum(len(socket.of("presence")) for socket in sockets) - before
            beats += 1
            assert told <= 2 * (30 + 11), "the room's own beat may fall into ours"
            assert beats < 12 * 11, "nothing moves"
        assert beats >= 2
        for socket in sockets:
            assert {frame["status"] for frame in socket.of("presence")} == {"online"}


def on_device(user: UserId, device: DeviceId) -> Principal:
    return msgspec.structs.replace(principal_of(user), device_id=device)


async def acked(socket: MemorySocket, status: str) -> None:
    """Said, and taken."""
    count = len(socket.of("ack")) + 1
    socket.tell("presence", ref=count, status=status)
    await socket.wait_for("ack", count)


async def test_each_socket_says_its_own(room: Chat, people: list[UserId], nursery: trio.Nursery) -> None:
    ann, *_ = people
    phone, desk = await dialled(nursery, room, ann), await dialled(nursery, room, ann)
    for of_phone, of_desk, together in (
        ("away", "online", "online"),
        ("away", "away", "away"),
        ("busy", "online", "busy"),
        ("offline", "away", "away"),
        ("offline", "offline", "offline"),
    ):
        await acked(phone, of_phone)
        await acked(desk, of_desk)
        assert room.status_of(ann) == together


async def test_what_a_device_says_over_rest_holds_for_all_it_has(
    db: Database, bus: MemoryBus, nursery: trio.Nursery
) -> None:
    ann, bob = await make_people(db, "ann", "bob")
    phone, desk = DeviceId(new_id()), DeviceId(new_id())
    async with running(db, bus, QUICK) as here, running(db, bus, QUICK) as there:
        await make_group(here, ann, bob)
        await dialled(nursery, here, on_device(ann, phone))
        await dialled(nursery, there, on_device(ann, phone))
        there.presence.choose(ann, phone, "away")
        await until(lambda: here.status_of(ann) == there.status_of(ann) == "away")
        await dialled(nursery, here, on_device(ann, desk))
        here.presence.choose(ann, phone, "busy")
        await until(lambda: there.status_of(ann) == "busy")
        here.presence.choose(ann, phone, "offline")
        await until(lambda: there.status_of(ann) == "online")  # the other device is not unseen


async def test_a_socket_that_comes_back_says_what_it_said(
    room: Chat, people: list[UserId], nursery: trio.Nursery
) -> None:
    ann, *_ = people
    phone = DeviceId(new_id())
    async with trio.open_nursery() as hers:
        await acked(await dialled(hers, room, on_device(ann, phone)), "busy")
        hers.cancel_scope.cancel()
    assert room.status_of(ann) == "busy", "for a grace"
    await dialled(nursery, room, on_device(ann, phone))
    assert room.status_of(ann) == "busy"


async def test_who_goes_unseen_is_not_seen_to_go(db: Database, bus: MemoryBus, nursery: trio.Nursery) -> None:
    ann, bob = await make_people(db, "ann", "bob")
    async with running(db, bus, QUICK) as room:
        await make_group(room, ann, bob)
        async with trio.open_nursery() as hers:
            socket = await dialled(hers, room, ann)
            await acked(socket, "offline")
            [unseen] = await room.presence.look_up(bob, [ann])
            assert unseen.status == "offline"
            hers.cancel_scope.cancel()
        assert await room.presence.look_up(bob, [ann]) == [unseen]
        room.presence.choose(ann, DeviceId(new_id()), "offline")  # as another device of theirs says, too
        assert await room.presence.look_up(bob, [ann]) == [unseen]


async def test_who_is_here_is_listed(room: Chat, people: list[UserId], nursery: trio.Nursery) -> None:
    ann, bob, cid, dee = people
    await make_group(room, ann, bob, cid)
    for user in (ann, bob, cid, dee):
        await dialled(nursery, room, user)
    found: list[str] = []
    cursor = None
    while True:
        query = {"limit": 1} | ({"cursor": cursor} if cursor else {})
        _, page = await ask(room, ann, "GET /v1/presence", query=query)
        found += [each["user_id"] for each in page["presence"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == sorted([bob, cid])


async def test_last_seen_outlives_a_restart(db: Database, bus: MemoryBus) -> None:
    ann, bob, cid = await make_people(db, "ann", "bob", "cid")
    async with running(db, bus, QUICK) as room:
        await make_group(room, ann, bob, cid)
        async with trio.open_nursery() as hers:
            for user in (ann, bob):
                await dialled(hers, room, user)
            await room.presence.beat_once()
            assert await room.presence.save_once() == 2, "also of those who are still here"
            assert await room.presence.save_once() == 0, "and not again at once"
            hers.cancel_scope.cancel()
        assert await room.presence.save_once() == 2
        [exact] = await room.presence.look_up(cid, [ann])
    async with running(db, bus, QUICK) as room:
        [seen] = await room.presence.look_up(cid, [ann])
        assert exact.seen_us is not None
        assert seen.seen_us == exact.seen_us - exact.seen_us % MINUTE_US
        assert "last_seen" in [each["kind"] async for each in room.export_of(ann)]
        await room.forget(ann)
        assert await db.read(stored.last_seen, ann) is None
        [seen] = await room.presence.look_up(cid, [bob])
        assert seen.seen_us is not None


async def test_what_is_heard_late_does_not_put_it_back(db: Database, bus: MemoryBus) -> None:
    [ann] = await make_people(db, "ann")
    async with running(db, bus, QUICK) as room:
        room.presence.choose(ann, DeviceId(new_id()), "online")
        before_us = db.now_us() - 2 * MINUTE_US
        room.presence.sightings.see(ann, before_us)  # on a node that ended
        await room.presence.save_once()
        assert (await db.read(stored.last_seen, ann) or 0) > before_us


async def test_what_is_written_of_it_has_a_bound(db: Database, bus: MemoryBus) -> None:
    crowd = await make_people(db, *(f"p{number}" for number in range(5)))
    async with running(db, bus, replace(QUICK, last_seen_rows=2)) as room:
        for user in crowd:
            room.presence.choose(user, DeviceId(new_id()), "online")
        assert [await room.presence.save_once() for _ in range(4)] == [2, 2, 1, 0]
        assert all([await db.read(stored.last_seen, user) for user in crowd])


class Deaf(MemoryBus):
    """A bus that loses what nodes say of presence while it is told to."""

    is_deaf = False

    async def publish(self, channel: str, payload: bytes) -> None:
        if channel != NODES or not self.is_deaf:
            await super().publish(channel, payload)


async def test_a_word_that_was_lost_is_asked_for(db: Database, nursery: trio.Nursery) -> None:
    ann, bob = await make_people(db, "ann", "bob")
    bus = Deaf(MemoryConfig())
    async with running(db, bus, QUICK) as here, running(db, bus, QUICK) as there:
        await make_group(here, ann, bob)
        friend = await dialled(nursery, there, bob)
        async with trio.open_nursery() as hers:
            await dialled(hers, here, ann)
            await until(lambda: there.status_of(ann) == "online")
            bus.is_deaf = True
            hers.cancel_scope.cancel()
        await here.presence.beat_once()
        bus.is_deaf = False
        await until(lambda: there.status_of(ann) == "offline")
        assert (await friend.wait_for("presence", 2))["status"] == "offline"


async def test_nobody_is_on_a_node_that_began_again(db: Database, nursery: trio.Nursery) -> None:
    """Sooner than the others would miss it."""
    ann, bob = await make_people(db, "ann", "bob")
    node, bus = NodeId(new_id()), Deaf(MemoryConfig())
    async with running(db, bus, QUICK) as there:
        await dialled(nursery, there, bob)
        async with running(db, bus, QUICK, node=node) as here:
            await make_group(here, ann, bob)
            async with trio.open_nursery() as hers:
                await dialled(hers, here, ann)
                await until(lambda: there.status_of(ann) == "online")
                bus.is_deaf = True
                hers.cancel_scope.cancel()
        bus.is_deaf = False
        async with running(db, bus, QUICK, node=node):
            await until(lambda: there.status_of(ann) == "offline", within_s=QUICK.node_silent_s / 2)


async def says(bus: MemoryBus, number: int, *seen: UserId, **fields: Any) -> None:
    """What the node `far` tells of these, who are online."""
    beat = _Beat("far", [Seen(user, "online", None) for user in seen], life="one", number=number, **fields)
    await bus.publish(NODES, msgspec.msgpack.encode(beat))


async def test_who_is_there_is_believed_when_all_of_it_has_come(bus: MemoryBus, db: Database) -> None:
    """Half of it is neither remembered nor taken for the whole."""
    ann, bob, cid = (UserId(new_id()) for _ in range(3))
    async with running(db, bus, QUICK) as room, bus.subscribe([NODES]) as backlog:

        async def asks() -> None:
            async for delivery in backlog:
                if "far" in msgspec.msgpack.decode(delivery.payload, type=_Beat).asked:
                    return

        await says(bus, 1, ann)
        await until(lambda: room.status_of(ann) == "online")
        await says(bus, 1, bob, all="last", of=2)  # the first part was lost
        with trio.fail_after(5):
            await asks()
        assert room.status_of(ann) == "online"
        await says(bus, 1, ann, all="some")  # and now the last
        await says(bus, 1)
        await says(bus, 1, bob, all="some")
        await says(bus, 1, cid, all="last", of=2)
        await until(lambda: room.status_of(ann) == "offline")
        assert room.status_of(bob) == room.status_of(cid) == "online"


def everywhere(users: Sequence[UserId], status: Status) -> list[Seen]:
    return [Seen(user, status, None) for user in users]


@on_sqlite
async def test_the_end_of_a_node_with_many_on_it_is_told_at_once(
    db: Database, bus: MemoryBus, nursery: trio.Nursery
) -> None:
    ann, *crowd = await make_people(db, *(f"p{number}" for number in range(301)))
    node = NodeId(new_id())
    async with running(db, bus, QUICK) as room:
        await make_group(room, ann, *crowd)
        friend = await dialled(nursery, room, ann)
        for seen in everywhere(crowd, "online"):
            room.presence.heard(node, seen)
        await room.presence.beat_once()
        room.presence.gone(node, QUICK.node_silent_s)
        await room.presence.beat_once()
        await until(lambda: len(friend.of("presence")) >= 600)  # the room beats, too, and may have taken some
        told = [frame["status"] for frame in friend.of("presence")]
        assert told == ["online"] * 300 + ["offline"] * 300


@on_sqlite
async def test_those_who_have_not_moved_keep_nobody_waiting(
    db: Database, bus: MemoryBus, nursery: trio.Nursery
) -> None:
    """A node that says who all are there says little that is new."""
    ann, bob = await make_people(db, "ann", "bob")
    crowd = [UserId(new_id()) for _ in range(210)]
    node = NodeId(new_id())
    async with running(db, bus, replace(QUICK, presence_per_s=10)) as room:
        await make_group(room, ann, bob)
        friend = await dialled(nursery, room, bob)
        for seen in everywhere(crowd, "online"):
            room.presence.heard(node, seen)
        for _ in range(len(crowd) // 10 + 1):
            await room.presence.beat_once()
        for seen in everywhere([*crowd, ann], "online"):
            room.presence.heard(node, seen)
        await room.presence.beat_once()
        assert [frame["user_id"] for frame in friend.of("presence")] == [ann]


class Ears:
    """What a carrier tells of presence.  lost: nodes that are gone."""

    def __init__(self) -> None:
        self.lost: list[NodeId] = []

    def heard(self, node: NodeId, seen: Seen) -> None: ...

    def heard_all(self, node: NodeId, named: Set[UserId]) -> None: ...

    def heard_said(self, said: Said) -> None: ...

    def gone(self, node: NodeId, silent_s: float) -> None:
        self.lost.append(node)

    def greet(self) -> None: ...


async def test_a_silent_node_is_gone_unless_the_bus_is(autojump_clock: trio.testing.MockClock) -> None:
    bus, ears = Deaf(MemoryConfig()), Ears()

    def nothing(*_: object) -> None: ...

    def carrier(node: NodeId) -> Carrier:
        return Carrier(
            bus, signals_beside(bus), node, 64, 10.0,
            deliver=nothing, presence=ears, parted=nothing, lost=nothing, proclaim=nothing,
        )  # fmt: skip

    here, there = NodeId("here"), NodeId("there")
    async with trio.open_nursery() as nursery:
        crashes, ends = trio.CancelScope(), trio.CancelScope()

        async def run(node: NodeId, scope: trio.CancelScope) -> None:
            with scope:
                async with trio.open_nursery() as own:
                    each = carrier(node)
                    for task in (each.publish_forever, each.listen_forever, each.beat_forever):
                        own.start_soon(task)

        nursery.start_soon(run, here, trio.CancelScope())
        nursery.start_soon(run, there, crashes)
        await trio.sleep(5)
        crashes.cancel()
        assert ears.lost == []
        nursery.start_soon(run, there, ends)
        await trio.sleep(3)
        assert ears.lost == [there], "who begins again has ended"
        ears.lost.clear()
        bus.is_deaf = True
        await trio.sleep(60)
        assert ears.lost == [], "as last known"
        bus.is_deaf = False
        await trio.sleep(5)
        ends.cancel()
        await trio.sleep(9)
        assert ears.lost == []
        await trio.sleep(3)
        assert ears.lost == [there]
        nursery.cancel_scope.cancel()


async def test_a_busy_database_is_not_asked_for_it(
    db: Database, bus: MemoryBus, nursery: trio.Nursery
) -> None:
    ann, bob, cid = await make_people(db, "ann", "bob", "cid")
    busy = Interrupted(db)
    async with running(busy, bus, QUICK) as room:
        await make_group(room, ann, bob, cid)
        friend = await dialled(nursery, room, bob)
        await room.presence.beat_once()
        busy.go_away(PoolExhausted)
        async with trio.open_nursery() as theirs:
            await dialled(theirs, room, cid)
            await dialled(nursery, room, ann)
            await room.presence.beat_once()
            theirs.cancel_scope.cancel()
        await room.presence.beat_once()
        assert friend.of("presence") == []
        busy.come_back()
        await room.presence.beat_once()
        await friend.wait_for("presence")
        assert [each["user_id"] for each in friend.of("presence")] == [ann], "as it is by now"
