"""What people do not want to be seen, people who have blocked each other, and people who are gone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import trio

from kit.wait import LOOK_S
from secureconnect.chat import Chat, store
from secureconnect.config import ChatConfig
from secureconnect.deps.contracts import Database, Tx
from secureconnect.deps.memory import MemoryBus
from secureconnect.errors import AccountDeleted, NotFound
from secureconnect.identity import ConversationId, UserId

from .rig import WAIT_S, MemorySocket, block, dialled, history, make_group, make_people, running, say

QUICK = ChatConfig(offline_grace_s=0)


async def heard(socket: MemorySocket, kind: str, **fields: Any) -> dict[str, Any]:
    """A frame of this type with these fields, once it is there."""
    with trio.fail_after(WAIT_S):
        while True:
            for frame in socket.of(kind):
                if fields.items() <= frame.items():
                    return frame
            await socket.wait_moved()


async def set_user(db: Database, user: UserId, what: str) -> None:
    async def unit(tx: Tx) -> None:
        await tx.run(f"UPDATE users SET {what} WHERE user_id = $1", user)

    await db.write(unit)


async def beat_often(*rooms: Chat) -> None:
    while True:
        for room in rooms:
            await room.presence.beat_once()
        await trio.sleep(LOOK_S)


async def test_the_blocked_see_no_presence(db: Database, bus: MemoryBus, nursery: trio.Nursery) -> None:
    ann, bob, cid = await make_people(db, "ann", "bob", "cid")
    async with running(db, bus, QUICK) as room, running(db, bus, QUICK) as other:
        await make_group(room, ann, bob, cid)
        nursery.start_soon(beat_often, room, other)
        at_bob, at_cid = await dialled(nursery, other, bob), await dialled(nursery, other, cid)
        async with trio.open_nursery() as hers:
            at_ann = await dialled(hers, room, ann)
            await heard(at_bob, "presence", user_id=ann, status="online")
            await heard(at_ann, "presence", user_id=bob, status="online")
            await block(db, bob, ann)
            room.part(bob, ann)
            await heard(at_bob, "presence", user_id=ann, status="offline", last_seen=None)
            await heard(at_ann, "presence", user_id=bob, status="offline", last_seen=None)
            for one, two in ((ann, bob), (bob, ann)):
                assert [sight.user_id for sight in await room.presence.look_up(one, [two, cid])] == [cid]
            at_ann.tell("presence", ref="1", status="busy")
            await at_ann.wait_for("ack")
            await heard(at_cid, "presence", user_id=ann, status="busy")
            hers.cancel_scope.cancel()
        assert "busy" not in [frame["status"] for frame in at_bob.of("presence")]


async def test_a_block_is_no_news_for_a_stranger(db: Database, bus: MemoryBus, nursery: trio.Nursery) -> None:
    """Nor for whom the other was not shown as here to."""
    ann, bob, cid = await make_people(db, "ann", "bob", "cid")
    async with running(db, bus, QUICK) as room:
        await make_group(room, ann, cid)
        at_bob, at_cid = await dialled(nursery, room, bob), await dialled(nursery, room, cid)
        async with trio.open_nursery() as hers:
            at_ann = await dialled(hers, room, ann)
            await room.presence.beat_once()
            await heard(at_cid, "presence", user_id=ann, status="online")
            await block(db, ann, bob)
            room.part(ann, bob)
            await room.presence.beat_once()
            assert {frame["user_id"] for frame in at_ann.of("presence")} <= {cid}
            hers.cancel_scope.cancel()
        await room.presence.beat_once()
        await heard(at_cid, "presence", user_id=ann, status="offline")
        await block(db, ann, cid)
        room.part(ann, cid)
        await room.presence.beat_once()
        assert len(at_cid.of("presence")) == 2
        assert at_bob.of("presence") == []


async def test_a_list_of_members_hides_who_is_apart(db: Database, room: Chat, people: list[UserId]) -> None:
    ann, bob, cid, _ = people
    group = await make_group(room, ann, bob, cid)
    await block(db, bob, ann)
    for viewer, hidden in ((ann, {bob}), (bob, {ann}), (cid, set())):
        listed = await room.conversations.participants(viewer, group, store.NO_ID, 10)
        assert {each.person.user_id for each in listed if each.is_apart} == hidden


async def test_last_seen_may_be_kept(db: Database, bus: MemoryBus, nursery: trio.Nursery) -> None:
    ann, bob = await make_people(db, "ann", "bob")
    await set_user(db, ann, "shows_last_seen = false")
    async with running(db, bus, QUICK) as room:
        await make_group(room, ann, bob)
        at_bob = await dialled(nursery, room, bob)
        async with trio.open_nursery() as hers:
            await dialled(hers, room, ann)
            await room.presence.beat_once()
            hers.cancel_scope.cancel()
        await room.presence.beat_once()
        await heard(at_bob, "presence", user_id=ann, status="offline", last_seen=None)
        [seen], [own] = [await room.presence.look_up(each, [ann]) for each in (bob, ann)]
        assert (seen.user_id, seen.seen_us, own.user_id) == (ann, None, ann)
        assert own.seen_us is not None


async def gathered(
    nursery: trio.Nursery, room: Chat, conversation: ConversationId, *users: UserId
) -> dict[UserId, MemorySocket]:
    """Sockets of these people, who have all heard the first one speak."""
    sockets = {user: await dialled(nursery, room, user) for user in users}
    await say(room, users[0], conversation, "hello")
    for socket in sockets.values():
        await socket.wait_for("chat")
    return sockets


async def told_of(
    room: Chat, reader: UserId, conversation: ConversationId, sockets: dict[UserId, MemorySocket]
) -> set[UserId]:
    """Who hears that somebody has read what was said."""
    await room.conversations.mark_read(reader, conversation, 1)
    return {
        user for user, socket in sockets.items() if any(f["user_id"] == reader for f in socket.of("read"))
    }


async def test_read_marks_may_be_kept(
    db: Database, room: Chat, people: list[UserId], nursery: trio.Nursery
) -> None:
    ann, bob, cid, _ = people
    group = await make_group(room, ann, bob, cid)
    await set_user(db, bob, "sends_read_receipts = false")
    sockets = await gathered(nursery, room, group, ann, bob, cid)
    assert await told_of(room, bob, group, sockets) == {bob}
    assert await told_of(room, cid, group, sockets) == {ann, bob, cid}
    marks = {}
    for viewer in (ann, bob):
        listed = await room.conversations.participants(viewer, group, store.NO_ID, 10)
        marks[viewer] = {each.person.user_id: each.member.last_read_seq for each in listed}
    assert (marks[ann][bob], marks[ann][cid]) == (0, 1)
    assert marks[bob][bob] == 1


async def test_a_kept_read_mark_reaches_ones_own_screens_everywhere(
    db: Database, bus: MemoryBus, nursery: trio.Nursery
) -> None:
    ann, bob = await make_people(db, "ann", "bob")
    await set_user(db, bob, "sends_read_receipts = false")
    async with running(db, bus) as room, running(db, bus) as other:
        group = await make_group(room, ann, bob)
        sockets = await gathered(nursery, other, group, ann, bob)
        await room.conversations.mark_read(bob, group, 1)
        await heard(sockets[bob], "read", user_id=bob, seq=1)
        assert sockets[ann].of("read") == []


async def test_the_blocked_are_not_told_what_was_read(
    db: Database, room: Chat, people: list[UserId], nursery: trio.Nursery
) -> None:
    ann, bob, *_ = people
    pair, _ = await room.conversations.create(ann, "direct", None, [bob], False)
    sockets = await gathered(nursery, room, pair, ann, bob)
    assert await told_of(room, ann, pair, sockets) == {ann, bob}
    await block(db, bob, ann)
    assert await told_of(room, bob, pair, sockets) == {bob}
    for viewer, other in ((ann, bob), (bob, ann)):
        listed = await room.conversations.participants(viewer, pair, store.NO_ID, 10)
        marks = {each.person.user_id: each.member.last_read_seq for each in listed}
        assert marks == {viewer: 1, other: 0}


async def test_the_blocked_do_not_see_each_other_type(
    db: Database, room: Chat, people: list[UserId], nursery: trio.Nursery
) -> None:
    """In their own conversation; in a group they do."""
    ann, bob, *_ = people
    pair, _ = await room.conversations.create(ann, "direct", None, [bob], False)
    group = await make_group(room, ann, bob)
    await say(room, ann, pair, "hello")
    at_ann, at_bob = [await dialled(nursery, room, user) for user in (ann, bob)]
    await block(db, bob, ann)
    for socket, other, user in ((at_ann, at_bob, ann), (at_bob, at_ann, bob)):
        for where in (pair, group):
            socket.tell("typing", ref=where, conversation_id=where, is_typing=True)
            await heard(socket, "ack", ref=where)  # nobody is told of a block
        await heard(other, "typing", user_id=user, conversation_id=group)
    for socket in (at_ann, at_bob):
        assert {frame["conversation_id"] for frame in socket.of("typing")} == {group}


# gone


async def roles(room: Chat, viewer: UserId, group: ConversationId) -> dict[UserId, str]:
    listed = await room.conversations.participants(viewer, group, store.NO_ID, 10)
    return {each.person.user_id: each.member.role for each in listed}


async def test_groups_are_handed_on(db: Database, room: Chat, nursery: trio.Nursery) -> None:
    left_behind: list[tuple[str, str]] = []

    async def members_left(_: Tx, conversation: ConversationId, users: Sequence[UserId], __: int) -> None:
        left_behind.extend((conversation, user) for user in users)

    room.conversations.members_left = members_left
    ann, bob, cid, dan = await make_people(db, "ann", "bob", "cid", "dan")
    alone = await make_group(room, ann)
    to_first = await make_group(room, ann, bob, cid)
    to_admin = await make_group(room, ann, bob, cid)
    await room.conversations.set_role(ann, to_admin, cid, "admin")
    others = await make_group(room, dan, ann, bob)
    await room.conversations.set_role(dan, others, ann, "admin")
    said = await say(room, ann, to_first, "keep this")
    at_bob = await dialled(nursery, room, bob)
    await set_user(db, ann, "display_name = 'deleted user', username = 'deleted', erased_at = created_at")
    await room.forget(ann)
    await room.forget(ann)

    assert sorted(left_behind) == sorted((each, ann) for each in (alone, to_first, to_admin, others))
    assert sorted(roles_ := await roles(room, bob, to_first)) == sorted((bob, cid))
    assert roles_[min(bob, cid)] == "owner"  # both came at the same moment
    assert await roles(room, bob, to_admin) == {bob: "member", cid: "owner"}
    assert await roles(room, bob, others) == {bob: "member", dan: "owner"}
    with pytest.raises(NotFound):
        await roles(room, ann, alone)
    left = await heard(at_bob, "user_left", conversation_id=others)
    assert left["user"]["display_name"] == "deleted user"
    assert [frame["role"] for frame in at_bob.of("member_updated")] == ["owner", "owner"]
    kept, notice = await history(room, bob, to_first)
    assert (kept.message_id, notice.message_type) == (said.message.message_id, "system")


async def test_a_direct_conversation_stays_with_the_other(
    db: Database, room: Chat, people: list[UserId]
) -> None:
    ann, bob, cid, _ = people
    pair, _ = await room.conversations.create(ann, "direct", None, [bob], False)
    await say(room, ann, pair, "hello")
    mine = (await say(room, bob, pair, "good morning")).message
    group = await make_group(room, cid)
    await set_user(db, ann, "display_name = 'deleted user', erased_at = created_at")
    await room.forget(ann)
    _, both = await room.conversations.get(bob, pair)
    assert {each.person.display_name for each in both} == {"deleted user", "bob"}
    for act in (
        lambda: say(room, bob, pair, "are you there?"),
        lambda: room.messages.edit(bob, mine.message_id, "good night"),
    ):
        with pytest.raises(AccountDeleted):
            await act()
    assert [each.content for each in await history(room, bob, pair)] == ["hello", "good morning"]
    for open_ in (
        lambda: make_group(room, cid, ann),
        lambda: room.conversations.create(cid, "direct", None, [ann], False),
        lambda: room.conversations.add(cid, group, ann, "member"),
    ):
        with pytest.raises(NotFound):
            await open_()


async def test_a_socket_is_told_that_the_other_is_gone(
    db: Database, room: Chat, people: list[UserId], nursery: trio.Nursery
) -> None:
    ann, bob, *_ = people
    pair, _ = await room.conversations.create(ann, "direct", None, [bob], False)
    at_bob = await dialled(nursery, room, bob)
    await set_user(db, ann, "erased_at = created_at")
    at_bob.tell("chat", ref="1", conversation_id=pair, content="are you there?")
    assert (await heard(at_bob, "error", ref="1"))["code"] == "ACCOUNT_DELETED"
