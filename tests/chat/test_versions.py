"""What a message said before: kept in order, shown to whoever sees the message, gone with it."""

from __future__ import annotations

from itertools import pairwise

import pytest
import trio

from secureconnect.chat import Chat
from secureconnect.chat.versions import store as versions
from secureconnect.config import ChatConfig
from secureconnect.deps.contracts import Database, Tx
from secureconnect.deps.memory import MemoryBus
from secureconnect.errors import MessageDeleted, NotFound
from secureconnect.identity import MessageId, UserId

from .rig import make_group, running, say


async def said(room: Chat, viewer: UserId, message: MessageId, after: int = 0, limit: int = 100) -> list[str]:
    return [each.content for each in await room.versions.page(viewer, message, after, limit)]


async def test_every_version_is_told_in_order(room: Chat, people: list[UserId]) -> None:
    ann, bob, _, dee = people
    message = (await say(room, ann, await make_group(room, ann, bob), "one")).message
    assert await said(room, bob, message.message_id) == ["one"]
    for text in ("two", "three"):
        edited = await room.messages.edit(ann, message.message_id, text)
        assert await room.messages.edit(ann, message.message_id, text) == edited, "twice is once"
    found = await room.versions.page(bob, message.message_id, 0, 100)
    assert [(each.version, each.content) for each in found] == [(1, "one"), (2, "two"), (3, "three")]
    times = [each.written_us for each in found]
    assert (times[0], times[-1]) == (message.sent_us, edited.edited_us)
    assert all(one < other for one, other in pairwise(times))
    assert await said(room, bob, message.message_id, 1, 1) == ["two"]
    assert await said(room, bob, message.message_id, 2, 1) == ["three"]
    assert await said(room, bob, message.message_id, 3) == []
    with pytest.raises(NotFound):
        await said(room, dee, message.message_id)


async def test_whoever_joined_later_sees_none_of_what_lies_before(room: Chat, people: list[UserId]) -> None:
    ann, bob, cid, _ = people
    group = await make_group(room, ann, bob)
    message = (await say(room, ann, group, "one")).message.message_id
    await room.messages.edit(ann, message, "two")
    await room.conversations.add(ann, group, cid, "member")
    with pytest.raises(NotFound):
        await said(room, cid, message)


async def test_edits_at_the_same_time_are_all_kept(
    db: Database, bus: MemoryBus, people: list[UserId]
) -> None:
    ann, *_ = people
    async with running(db, bus) as room, running(db, bus) as other:
        message = (await say(room, ann, await make_group(room, ann), "0")).message.message_id
        async with trio.open_nursery() as nursery:
            for number in range(1, 11):
                at = (room, other)[number % 2]
                nursery.start_soon(at.messages.edit, ann, message, str(number))
        found = await room.versions.page(ann, message, 0, 100)
        assert [each.version for each in found] == list(range(1, 12))
        assert sorted(int(each.content) for each in found) == list(range(11))
        assert found[-1].content == (await room.messages.get(ann, message)).content


async def test_the_oldest_go_first(db: Database, bus: MemoryBus, people: list[UserId]) -> None:
    ann, *_ = people
    async with running(db, bus, ChatConfig(versions_kept=2)) as room:
        message = (await say(room, ann, await make_group(room, ann), "0")).message.message_id
        for number in range(1, 6):
            await room.messages.edit(ann, message, str(number))
        found = await room.versions.page(ann, message, 0, 100)
        assert [(each.version, each.content) for each in found] == [(4, "3"), (5, "4"), (6, "5")]


async def test_they_go_with_their_message(db: Database, room: Chat, people: list[UserId]) -> None:
    ann, bob, *_ = people
    group = await make_group(room, ann, bob)
    messages = [(await say(room, ann, group, "one")).message for _ in range(2)]
    for message in messages:
        await room.messages.edit(ann, message.message_id, "two")
    await room.messages.delete(ann, messages[1].message_id)
    with pytest.raises(MessageDeleted):
        await said(room, ann, messages[1].message_id)
    assert await db.read(_kept_of, ann) == [messages[0].message_id]
    await room.retention.drop(group, 0, db.now_us())
    with pytest.raises(NotFound):
        await said(room, ann, messages[0].message_id)
    assert await db.read(_kept_of, ann) == []


async def _kept_of(tx: Tx, user: UserId) -> list[MessageId]:
    first = MessageId("00000000-0000-0000-0000-000000000000")
    return [each.message_id for each in await versions.written_by(tx, user, (first, 0), 100)]


async def test_an_export_has_them(room: Chat, people: list[UserId]) -> None:
    ann, bob, *_ = people
    group = await make_group(room, ann, bob)
    for user in (ann, bob):
        message = (await say(room, user, group, f"{user} one")).message.message_id
        for text in ("two", "three"):
            await room.messages.edit(user, message, f"{user} {text}")
    told = [each async for each in room.export_of(ann) if each["kind"] == "version"]
    assert [(each["version"], each["content"]) for each in told] == [(1, f"{ann} one"), (2, f"{ann} two")]
