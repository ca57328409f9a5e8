"""Pins: kept at hand for those who may see the message, told live and again, gone with it."""

from __future__ import annotations

import pytest
import trio

from secureconnect.chat import Chat
from secureconnect.config import ChatConfig
from secureconnect.deps.contracts import Database
from secureconnect.deps.memory import MemoryBus
from secureconnect.errors import Conflict, Forbidden, MessageDeleted, NotFound
from secureconnect.identity import ConversationId, MessageId, UserId, new_id

from .rig import back, block, dialled, history, make_group, running, say


async def pinned(room: Chat, viewer: UserId, where: ConversationId) -> list[MessageId]:
    return [each.message.message_id for each in await room.pins.list_of(viewer, where)]


async def test_they_are_listed_told_and_told_again(
    nursery: trio.Nursery, room: Chat, people: list[UserId]
) -> None:
    ann, bob, *_ = people
    where = await make_group(room, ann, bob)
    one, two = [(await say(room, bob, where, text)).message.message_id for text in ("one", "two")]
    live = await dialled(nursery, room, bob)
    await room.pins.set(ann, where, one, on=True)
    await room.pins.set(ann, where, two, on=True)
    await room.pins.set(ann, where, two, on=True)
    assert await pinned(room, bob, where) == [two, one]
    await room.pins.set(ann, where, one, on=False)
    await room.pins.set(ann, where, one, on=False)
    told = await live.wait_for("message_unpinned")
    assert (told["message_id"], told["user_id"], told["change"]) == (one, ann, 6)
    assert await pinned(room, bob, where) == [two]
    later = await back(nursery, room, bob, {where: 3})
    kinds = ("message_pinned", "message_unpinned")
    assert later.of(*kinds) == live.of(*kinds)
    await room.messages.delete(bob, two)
    assert await pinned(room, bob, where) == []
    last = await back(nursery, room, bob, {where: 3})
    assert [told["change"] for told in last.of("message_pinned")] == [4], (
        "of one that is gone nothing is left"
    )
    with pytest.raises(MessageDeleted):
        await room.pins.set(ann, where, two, on=True)


async def test_they_go_with_what_retention_takes(room: Chat, people: list[UserId]) -> None:
    ann, *_ = people
    where = await make_group(room, ann)
    old, new = [(await say(room, ann, where, text)).message for text in ("old", "new")]
    for message in (old, new):
        await room.pins.set(ann, where, message.message_id, on=True)
    await room.retention.drop(where, 0, new.sent_us)
    assert await pinned(room, ann, where) == [new.message_id]


async def test_who_may_not(room: Chat, db: Database, people: list[UserId]) -> None:
    ann, bob, cid, dee = people
    where, other = await make_group(room, ann, bob), await make_group(room, ann)
    said = (await say(room, bob, where, "said before")).message.message_id
    await room.pins.set(ann, where, said, on=True)
    await room.conversations.add(ann, where, cid, "admin")
    assert await pinned(room, cid, where) == [], "what was before them is not theirs"
    [notice] = await history(room, cid, where)
    for who, place, what in (
        (dee, where, said),
        (cid, where, said),
        (ann, other, said),
        (ann, where, MessageId(new_id())),
    ):
        with pytest.raises(NotFound):
            await room.pins.set(who, place, what, on=True)
    with pytest.raises(NotFound):
        await room.pins.list_of(dee, where)
    with pytest.raises(Forbidden):
        await room.pins.set(ann, where, notice.message_id, on=True)
    direct, _ = await room.conversations.create(ann, "direct", None, [bob], False)
    said = (await say(room, bob, direct, "hi")).message.message_id
    await room.pins.set(bob, direct, said, on=True)
    await block(db, bob, ann)
    with pytest.raises(Forbidden):
        await room.pins.set(ann, direct, said, on=False)


async def test_so_many_whoever_comes_together(db: Database, bus: MemoryBus, people: list[UserId]) -> None:
    ann, *_ = people
    async with (
        running(db, bus, ChatConfig(max_pins=3)) as here,
        running(db, bus, ChatConfig(max_pins=3)) as there,
    ):
        where = await make_group(here, ann)
        said = [(await say(here, ann, where, str(number))).message.message_id for number in range(8)]
        refused = 0

        async def pin(room: Chat, message: MessageId) -> None:
            nonlocal refused
            try:
                await room.pins.set(ann, where, message, on=True)
            except Conflict:
                refused += 1

        async with trio.open_nursery() as nursery:
            for number, message in enumerate(said):
                nursery.start_soon(pin, (here, there)[number % 2], message)
        assert (len(await pinned(here, ann, where)), refused) == (3, 5)
