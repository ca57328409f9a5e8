"""Who is here and who is typing: told to those it concerns, and only when it changes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
import trio.testing

from secureconnect.chat import Chat
from secureconnect.chat.frames import typing_mark
from secureconnect.chat.hub import Live
from secureconnect.chat.presence import Typing
from secureconnect.config import ChatConfig
from secureconnect.deps.contracts import Database
from secureconnect.deps.memory import MemoryBus
from secureconnect.identity import ConversationId, UserId

from .rig import dialled, make_group, make_people, running

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
    room.presence.choose(ann, "online")
    assert room.status_of(ann) == "online"
    assert await room.presence.look_up(bob, [ann, cid, bob]) == {ann: True, bob: True}
    assert await room.presence.look_up(cid, [ann]) == {}


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


async def test_typing_reaches_members_on_both_nodes(
    db: Database, bus: MemoryBus, nursery: trio.Nursery
) -> None:
    ann, bob, cid = await make_people(db, "ann", "bob", "cid")
    async with running(db, bus, QUICK) as here, running(db, bus, QUICK) as there:
        where = await make_group(here, ann, bob)
        sockets = [await dialled(nursery, node, bob) for node in (here, there)]
        stranger = await dialled(nursery, here, cid)
        socket = await dialled(nursery, here, ann)
        for _ in range(50):
            socket.tell("typing", conversation_id=where, is_typing=True)
        for each in sockets:
            assert await each.wait_for("typing") == {
                "type": "typing",
                "conversation_id": where,
                "user_id": ann,
                "is_typing": True,
            }
        socket.tell("ping")
        await socket.wait_for("pong")
        assert len(sockets[0].of("typing")) == 1, "said fifty times, told once"
        assert stranger.of("typing") == []


async def test_typing_ends_by_itself(autojump_clock: trio.testing.MockClock) -> None:
    told: list[Live] = []
    typing = Typing(ChatConfig(typing_ttl_s=6), told.append)
    where, ann = ConversationId("there"), UserId("ann")
    start, stop = typing_mark(where, ann, True), typing_mark(where, ann, False)

    def words() -> list[bool]:
        return [live.frame.data == start.frame.data for live in told]

    typing.mark(where, ann, False)
    assert words() == []
    typing.mark(where, ann, True)
    for _ in range(4):  # renewed each second: not told again before half its life
        await trio.sleep(1)
        typing.mark(where, ann, True)
        typing.beat_once()
    assert words() == [True, True]
    for _ in range(7):
        await trio.sleep(1)
        typing.beat_once()
    assert words() == [True, True, False]
    assert told[-1].frame.data == stop.frame.data
    typing.beat_once()
    for _ in range(20):  # on and off within a second: at most a word a second
        typing.mark(where, ann, True)
        typing.mark(where, ann, False)
    assert len(told) == 4
    await trio.sleep(1)
    typing.beat_once()
    assert words()[-1] is False


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
