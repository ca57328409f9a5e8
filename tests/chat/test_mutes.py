"""Mutes: each one's own, told to their devices alone."""

from __future__ import annotations

import pytest
import trio

from kit.wait import until
from secureconnect.chat import Chat
from secureconnect.chat.shapes import summary_shape
from secureconnect.chat.store import FOREVER_US
from secureconnect.clock import HOUR_US, SECOND_US, to_iso
from secureconnect.deps.contracts import Database
from secureconnect.deps.memory import MemoryBus
from secureconnect.errors import Invalid, NotFound
from secureconnect.identity import ConversationId, UserId

from .rig import back, dialled, make_group, running, say


async def seen(room: Chat, user: UserId, where: ConversationId) -> tuple[object, object]:
    shape = summary_shape(await room.conversations.summary(user, where))
    return shape.is_muted, shape.muted_until


async def test_it_is_told_to_ones_own_devices_on_every_node(
    db: Database, bus: MemoryBus, nursery: trio.Nursery, people: list[UserId]
) -> None:
    ann, bob, *_ = people
    async with running(db, bus) as here, running(db, bus) as there:
        where = await make_group(here, ann, bob)
        mine, other, bobs = [
            await dialled(nursery, room, user) for room, user in ((here, ann), (there, ann), (there, bob))
        ]
        until_us = db.now_us() + HOUR_US
        await here.mutes.set(ann, where, until_us)
        await here.mutes.set(ann, where, until_us)  # nothing new
        for socket in (mine, other):
            told = await socket.wait_for("muted")
            assert (told["conversation_id"], told["is_muted"], told["muted_until"]) == (
                where,
                True,
                to_iso(until_us),
            )
        assert await seen(there, ann, where) == (True, to_iso(until_us))
        assert await seen(there, bob, where) == (False, None)
        later = await back(nursery, there, ann, {where: 1})
        line = later.of("resumed")[0]["conversations"][where]
        assert (line["is_muted"], line["muted_until"]) == (True, to_iso(until_us))
        await there.mutes.set(ann, where, FOREVER_US)
        assert await seen(here, ann, where) == (True, None)
        await here.mutes.set(ann, where, None)
        assert not (await other.wait_for("muted", 3))["is_muted"]
        assert await seen(here, ann, where) == (False, None)
        await say(here, ann, where, "after")
        await bobs.wait_for("chat")
        assert bobs.of("muted") == []
        assert len(mine.of("muted")) == 3


async def test_it_ends_by_itself_and_with_the_membership(
    room: Chat, db: Database, people: list[UserId]
) -> None:
    ann, bob, cid, _ = people
    where = await make_group(room, ann, bob)
    ends_us = db.now_us() + SECOND_US // 2
    await room.mutes.set(ann, where, ends_us)
    assert (await seen(room, ann, where))[0]
    await until(lambda: db.now_us() > ends_us)
    assert await seen(room, ann, where) == (False, None)
    await room.mutes.set(bob, where, FOREVER_US)
    await room.conversations.remove(bob, where, bob)
    await room.conversations.add(ann, where, bob, "member")
    assert await seen(room, bob, where) == (False, None)
    with pytest.raises(Invalid):
        await room.mutes.set(ann, where, db.now_us())
    with pytest.raises(NotFound):
        await room.mutes.set(cid, where, FOREVER_US)
