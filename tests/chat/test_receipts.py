"""Read receipts: one mark for each person, right on every device and node, told to whom they allow."""

from __future__ import annotations

import random

import pytest
import trio

from kit.wait import until
from secureconnect.chat import Chat
from secureconnect.chat.store import NO_ID
from secureconnect.deps.contracts import Database, Tx
from secureconnect.deps.memory import MemoryBus
from secureconnect.errors import NotFound
from secureconnect.identity import ConversationId, UserId

from .rig import MemorySocket, back, dialled, make_group, make_people, running, say

MESSAGES = 10


async def choose(db: Database, user: UserId, *, sends: bool) -> None:
    """As their privacy says."""

    async def change(tx: Tx) -> None:
        await tx.run("UPDATE users SET sends_read_receipts = $2 WHERE user_id = $1", user, sends)

    await db.write(change)


async def marks(room: Chat, viewer: UserId, group: ConversationId) -> dict[UserId, int]:
    listed = await room.conversations.participants(viewer, group, NO_ID, 100)
    return {each.person.user_id: each.member.last_read_seq for each in listed}


def heard(socket: MemorySocket, user: UserId) -> list[int]:
    return [frame["seq"] for frame in socket.of("read") if frame["user_id"] == user]


async def test_all_devices_of_a_group_on_both_nodes_hear_it(
    db: Database, bus: MemoryBus, nursery: trio.Nursery
) -> None:
    ann, bob, cid = everybody = await make_people(db, "ann", "bob", "cid")
    async with running(db, bus) as room, running(db, bus) as other:
        group = await make_group(room, *everybody)
        devices = [(user, await dialled(nursery, at, user)) for user in everybody for at in (room, other)]
        for number in range(MESSAGES):
            await say(room, ann, group, str(number))
        for _, socket in devices:
            await socket.wait_for("chat", MESSAGES)
        await room.conversations.mark_read(bob, group, 4)
        await other.conversations.mark_read(bob, group, 2)  # an older screen lags behind: nothing happens
        await other.conversations.mark_read(bob, group, 7)
        await room.conversations.mark_read(cid, group, 2**40)  # as far as there is something to read
        for _, socket in devices:
            await until(lambda: sorted(heard(socket, bob)) == [4, 7] and heard(socket, cid) == [MESSAGES])  # noqa: B023
        for viewer in everybody:
            assert await marks(other, viewer, group) == {ann: 0, bob: 7, cid: MESSAGES}
        assert await db.read(_member_rows, group) == 3, "what is read costs no rows"
        later = await back(nursery, other, bob, {group: MESSAGES})
        standing = (await later.wait_for("resumed"))["conversations"][group]
        assert (standing["last_read_seq"], standing["unread_count"]) == (7, MESSAGES - 7)


async def _member_rows(tx: Tx, group: ConversationId) -> int:
    row = await tx.one("SELECT COUNT(*) FROM members WHERE conversation_id = $1", group)
    assert row is not None
    return int(row[0])


async def test_marks_at_the_same_time_end_at_the_highest(
    db: Database, bus: MemoryBus, nursery: trio.Nursery
) -> None:
    ann, bob = await make_people(db, "ann", "bob")
    async with running(db, bus) as room, running(db, bus) as other:
        group = await make_group(room, ann, bob)
        for number in range(MESSAGES):
            await say(room, ann, group, str(number))
        socket = await dialled(nursery, room, ann)
        seqs = list(range(1, MESSAGES + 1)) * 2
        random.Random(5).shuffle(seqs)
        async with trio.open_nursery() as racers:
            for number, seq in enumerate(seqs):
                racers.start_soon((room, other)[number % 2].conversations.mark_read, bob, group, seq)
        assert (await marks(room, ann, group))[bob] == MESSAGES
        assert (await room.conversations.summary(bob, group)).unread_count == 0
        await until(lambda: MESSAGES in heard(socket, bob))


async def test_who_keeps_their_marks_may_show_them_again(
    db: Database, bus: MemoryBus, nursery: trio.Nursery
) -> None:
    ann, bob = await make_people(db, "ann", "bob")
    async with running(db, bus) as room, running(db, bus) as other:
        group = await make_group(room, ann, bob)
        at_ann, at_bob = await dialled(nursery, other, ann), await dialled(nursery, other, bob)
        for number in range(4):
            await say(room, ann, group, str(number))
        await at_ann.wait_for("chat", 4)
        await room.conversations.mark_read(bob, group, 1)
        await until(lambda: heard(at_ann, bob) == [1])
        await choose(db, bob, sends=False)
        assert await marks(room, ann, group) == {ann: 0, bob: 0}
        again, _ = await room.conversations.add(ann, group, bob, "member")
        changed = await room.conversations.set_role(ann, group, bob, "admin")
        assert (again.member.last_read_seq, changed.member.last_read_seq) == (0, 0)
        await room.conversations.mark_read(bob, group, 2)
        await until(lambda: heard(at_bob, bob) == [1, 2])
        assert await marks(room, bob, group) == {ann: 0, bob: 2}
        await choose(db, bob, sends=True)
        await room.conversations.mark_read(bob, group, 3)
        await until(lambda: heard(at_bob, bob) == [1, 2, 3])
        await until(lambda: heard(at_ann, bob) == [1, 3])
        assert await marks(room, ann, group) == {ann: 0, bob: 3}


async def test_of_a_group_one_has_left_one_hears_nothing(
    room: Chat, people: list[UserId], nursery: trio.Nursery
) -> None:
    ann, bob, cid, _ = people
    group = await make_group(room, ann, bob, cid)
    await say(room, ann, group, "x")
    at_cid, at_bob = await dialled(nursery, room, cid), await dialled(nursery, room, bob)
    await room.conversations.remove(cid, group, cid)
    await at_cid.wait_for("user_left")
    await room.conversations.mark_read(ann, group, 1)
    await at_bob.wait_for("read")
    assert at_cid.of("read") == []
    with pytest.raises(NotFound):
        await room.conversations.mark_read(cid, group, 1)
