"""Who is typing: told to those it concerns, and only when it changes."""

from __future__ import annotations

import trio
import trio.testing

from secureconnect.chat.frames import typing_mark
from secureconnect.chat.live import Live
from secureconnect.chat.presence.typing_marks import Typing
from secureconnect.config import ChatConfig
from secureconnect.deps.contracts import Database
from secureconnect.deps.memory import MemoryBus
from secureconnect.identity import ConversationId, UserId

from .rig import dialled, make_group, make_people, running

QUICK = ChatConfig(offline_grace_s=0)


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
