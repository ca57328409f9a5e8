"""Two rooms on one database: what one commits, the sockets of the other are told."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing

from auth.harness import Clocked
from kit.scrape import value
from kit.wait import until
from secureconnect.chat import Chat
from secureconnect.chat.carrier import NODES, channel_of
from secureconnect.config import ChatConfig, MemoryConfig
from secureconnect.deps.contracts import Backlog, Database
from secureconnect.deps.memory import MemoryBus
from secureconnect.identity import ConversationId, UserId

from .rig import MemorySocket, dialled, make_group, make_people, running, say

SLOW = ChatConfig(catch_up_ms=60_000)


class LossyBus:
    """A bus that loses publications.  keeps: decides for each channel."""

    is_alone = False

    def __init__(self, inner: MemoryBus, chance: random.Random, loss: float, spare: str = "") -> None:
        self._inner = inner
        self._chance = chance
        self._spare = spare
        self.loss = loss

    async def publish(self, channel: str, payload: bytes) -> None:
        if channel == self._spare or self._chance.random() >= self.loss:
            await self._inner.publish(channel, payload)

    def subscribe(self, channels: Sequence[str]) -> AbstractAsyncContextManager[Backlog]:
        return self._inner.subscribe(channels)


@asynccontextmanager
async def two(
    db: Database, bus: MemoryBus | LossyBus, config: ChatConfig
) -> AsyncIterator[tuple[Chat, Chat]]:
    async with running(db, bus, config) as one, running(db, bus, config) as other:
        yield one, other


async def test_the_other_node_tells_it_too(db: Database, bus: MemoryBus, nursery: trio.Nursery) -> None:
    ann, bob, cid = await make_people(db, "ann", "bob", "cid")
    async with two(db, bus, SLOW) as (here, there):
        where = await make_group(here, ann, bob)
        sockets = [await dialled(nursery, there, bob), await dialled(nursery, here, bob)]
        late = await dialled(nursery, there, cid)
        await say(here, ann, where, "hello")
        await here.conversations.add(ann, where, cid, "member")
        await say(there, bob, where, "hello")
        await here.conversations.remove(ann, where, cid)
        await say(here, ann, where, "bye")
        for socket in sockets:
            changes = await socket.wait_changes(where, 8)
            assert [change for change in changes if change > 1] == [2, 3, 4, 5, 6, 7, 8]
        assert [frame["type"] for frame in late.seen[1:]] == ["user_joined", "chat", "chat", "user_left"]


@pytest.mark.parametrize("is_alone", [False, True])
async def test_where_no_other_node_hears_no_event_is_carried(
    db: Database, bus: MemoryBus, nursery: trio.Nursery, is_alone: bool
) -> None:
    ann, bob = await make_people(db, "ann", "bob")
    bus.is_alone = is_alone
    async with running(db, bus, SLOW) as room:
        where = await make_group(room, ann, bob)
        socket = await dialled(nursery, room, bob)
        async with bus.subscribe([NODES, channel_of(where)]) as backlog:
            await say(room, ann, where, "hello")
            changes = await socket.wait_changes(where, 2)
            assert [change for change in changes if change > 1] == [2]
            for _ in range(3):  # each way has had its turn
                room._carrier.beat_once()
                await trio.testing.wait_all_tasks_blocked()
            await bus.publish(NODES, b"")
            heard: set[str] = set()
            async for delivery in backlog:
                heard.add(delivery.channel)
                if not delivery.payload:
                    break
    assert heard == ({NODES} if is_alone else {NODES, channel_of(where)})


async def test_a_node_that_looks_later_tells_who_joined_nothing_of_before(
    db: Database, bus: MemoryBus, nursery: trio.Nursery
) -> None:
    ann, bob, cid = await make_people(db, "ann", "bob", "cid")
    async with two(db, LossyBus(bus, random.Random(1), loss=1), SLOW) as (here, there):
        late = await dialled(nursery, there, cid)
        where = await make_group(here, ann, bob)
        await say(here, ann, where, "hello")
        await here.conversations.set_role(ann, where, bob, "admin")
        await here.conversations.add(ann, where, cid, "member")
        await there.catch_up.pass_once()
        assert await late.wait_changes(where, 5) == [4, 5]


async def test_a_bus_that_loses_everything(db: Database, bus: MemoryBus, nursery: trio.Nursery) -> None:
    ann, bob = await make_people(db, "ann", "bob")
    lossy = LossyBus(bus, random.Random(1), loss=1)
    async with two(db, lossy, SLOW) as (here, there):
        places = [await make_group(here, ann, bob) for _ in range(3)]
        await there.catch_up.pass_once()
        socket = await dialled(nursery, there, bob)
        for number in range(4):
            for where in places:
                await say(here, ann, where, str(number))
        # its own beat does not come back: it looks every half second by itself
        for where in places:
            assert await socket.wait_changes(where, 5) == [2, 3, 4, 5]


async def test_a_hole_is_read_before_what_follows(
    db: Database, bus: MemoryBus, nursery: trio.Nursery
) -> None:
    ann, bob = await make_people(db, "ann", "bob")
    lossy = LossyBus(bus, random.Random(1), loss=0, spare="chat.nodes")
    async with two(db, lossy, SLOW) as (here, there):
        where = await make_group(here, ann, bob)
        socket = await dialled(nursery, there, bob)
        await say(here, ann, where, "1")
        await socket.wait_changes(where, 2)
        lossy.loss = 1
        await say(here, ann, where, "2")
        await here.messages.edit(ann, (await say(here, ann, where, "3")).message.message_id, "three")
        lossy.loss = 0
        await say(here, ann, where, "4")
        changes = await socket.wait_changes(where, 6)
        assert [change for change in changes if change > 1] == [2, 3, 4, 5, 6]


def knows(node: Chat, where: ConversationId, member: UserId) -> bool:
    return node.hub.can_see(where, member) is True


async def test_a_loss_in_a_quiet_conversation_is_healed(
    db: Database, bus: MemoryBus, nursery: trio.Nursery
) -> None:
    """Nothing follows that would show the hole: the heads show it."""
    ann, bob = await make_people(db, "ann", "bob")
    lossy = LossyBus(bus, random.Random(1), loss=0, spare="chat.nodes")
    async with two(db, lossy, SLOW) as (here, there):
        where = await make_group(here, ann, bob)
        socket = await dialled(nursery, there, bob)
        for node in (here, there):  # a conversation that is new to them they read from the table
            await until(partial(knows, node, where, bob))
        lossy.loss = 1
        healed = value("secureconnect_chat_healed_total")
        await say(here, ann, where, "lost")
        await there.catch_up.pass_once()
        # the room's own task may have taken it from the pass, and still be at it
        assert (await socket.wait_changes(where, 2))[-1] == 2
        assert await there.catch_up.pass_once() == 0
        await until(lambda: value("secureconnect_chat_healed_total") == healed + 1)
        assert await here.catch_up.pass_once() == 0, "who told it has nothing to heal"


async def test_one_pass_heals_more_conversations_than_are_kept(
    db: Database, bus: MemoryBus, nursery: trio.Nursery
) -> None:
    ann, bob = await make_people(db, "ann", "bob")
    lossy = LossyBus(bus, random.Random(1), loss=0, spare="chat.nodes")
    few = ChatConfig(catch_up_ms=60_000, hub_conversations=16)
    async with two(db, lossy, few) as (here, there):
        places = [await make_group(here, ann, bob) for _ in range(40)]
        socket = await dialled(nursery, there, bob)
        lossy.loss = 1
        for where in places:
            await say(here, ann, where, "lost")
        await there.catch_up.pass_once()
        # the room's own task may have taken some of them from the pass, and still be at it
        await until(lambda: all(2 in socket.changes(where) for where in places))


@pytest.mark.parametrize("loss", [0.0, 0.3, 1.0])
async def test_every_socket_of_both_nodes_hears_everything_once(
    db: Database, bus: MemoryBus, nursery: trio.Nursery, loss: float
) -> None:
    chance = random.Random(5)
    people = await make_people(db, *(f"user{number}" for number in range(4)))
    lossy = LossyBus(bus, chance, loss, spare="chat.nodes")
    async with two(db, lossy, SLOW) as nodes:
        places = [await make_group(nodes[0], *people) for _ in range(3)]
        for node in nodes:
            await node.catch_up.pass_once()
        sockets: list[MemorySocket] = [
            await dialled(nursery, node, person) for node in nodes for person in people
        ]

        async def write(me: UserId) -> None:
            for number in range(40):
                node = chance.choice(nodes)
                stored = await say(node, me, chance.choice(places), str(number))
                if chance.random() < 0.3:
                    await chance.choice(nodes).messages.edit(me, stored.message.message_id, "edited")

        with trio.fail_after(20):
            async with trio.open_nursery() as writers:
                for person in people:
                    writers.start_soon(write, person)
        for node in nodes:
            await node.catch_up.pass_once()
        for where in places:
            summary, _ = await nodes[0].conversations.get(people[0], where)
            head = summary.seat.conversation.last_change
            for socket in sockets:
                assert await socket.wait_changes(where, head) == list(range(2, head + 1))


async def test_a_node_that_starts_later_has_nothing_to_tell(db: Database, bus: MemoryBus) -> None:
    ann, bob = await make_people(db, "ann", "bob")
    async with running(db, bus, SLOW) as here, trio.open_nursery() as nursery:
        where = await make_group(here, ann, bob)
        await say(here, ann, where, "before")
        async with running(db, bus, SLOW) as there:
            socket = await dialled(nursery, there, bob)
            assert await there.catch_up.pass_once() == 0
            await say(here, ann, where, "after")
            assert await socket.wait_changes(where, 3) == [3]
        nursery.cancel_scope.cancel()


async def test_a_parcel_nobody_can_read_does_no_harm(
    db: Database, bus: MemoryBus, nursery: trio.Nursery
) -> None:
    ann, *_ = await make_people(db, "ann")
    async with running(db, bus, SLOW) as room:
        where = await make_group(room, ann)
        socket = await dialled(nursery, room, ann)
        for channel in ("chat.nodes", "chat.0"):
            await bus.publish(channel, b"\xc1 nonsense")
        await say(room, ann, where, "x")
        assert await socket.wait_changes(where, 2)


async def test_a_node_that_starts_without_database_tells_what_came_since_and_nothing_older(
    db: Database, bus: MemoryBus
) -> None:
    ann, bob = await make_people(db, "ann", "bob")
    later, away = Clocked(db), Clocked(db)
    async with running(later, bus, SLOW) as here:
        old, moving = await make_group(here, ann, bob), await make_group(here, ann, bob)
        await say(here, ann, old, "long ago")
        await say(here, ann, moving, "long ago, too")
        for each in (later, away):
            each.forward(300)
        away.take_away()
        async with running(away, MemoryBus(MemoryConfig()), SLOW) as there, trio.open_nursery() as nursery:
            at_bob = await dialled(nursery, there, bob)
            await say(here, ann, moving, "meanwhile")
            away.bring_back()
            for each in (later, away):
                each.forward(61)  # a pass that reaches back over what was before
            await there.catch_up.pass_once()
            await say(here, ann, moving, "afterwards")
            await there.catch_up.pass_once()
            await at_bob.wait_for("chat", 2)
            assert [frame["content"] for frame in at_bob.of("chat")] == ["meanwhile", "afterwards"]
            nursery.cancel_scope.cancel()
