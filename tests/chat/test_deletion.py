"""Deleting a group: out of it at once, on every node and for who was away; its rows go afterwards."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable

import pytest
import trio

from kit.wait import until
from secureconnect.chat import Chat, archive
from secureconnect.chat import store as conversations
from secureconnect.chat.deletion import deletion as rules
from secureconnect.chat.polls.polls import Question
from secureconnect.chat.store import TOP
from secureconnect.clock import HOUR_US
from secureconnect.config import ChatConfig
from secureconnect.deps.contracts import Database, Tx
from secureconnect.deps.memory import MemoryBus
from secureconnect.edge import Close
from secureconnect.errors import Conflict, NotFound, Unavailable
from secureconnect.identity import ConversationId, UserId

from .rig import back, dialled, make_group, read_page, running, say
from .test_nodes import LossyBus

QUICK = ChatConfig(catch_up_ms=100)
TABLES = (
    *(
        "conversations",
        "members",
        "messages",
        "changes",
        "reactions",
        "pins",
        "polls",
        "deleted_conversations",
    ),
    *("deleted_members", "file_shares", "mentions", "message_tallies", "message_versions"),
)


async def counts(db: Database, tables: Iterable[str] = TABLES) -> dict[str, int]:
    """Rows of each table that is not empty."""

    async def unit(tx: Tx) -> dict[str, int]:
        found = {}
        for table in tables:
            row = await tx.one(f"SELECT COUNT(*) FROM {table}")
            if row is not None and row[0]:
                found[table] = int(row[0])
        return found

    return await db.read(unit)


async def test_everybody_is_out_at_once(
    db: Database, bus: MemoryBus, nursery: trio.Nursery, people: list[UserId]
) -> None:
    ann, bob, cid, _ = people
    async with running(db, bus) as here, running(db, bus) as there:
        where, other = await make_group(here, ann, bob, cid), await make_group(here, ann, bob)
        said = (await say(here, bob, where, "hello")).message.message_id
        sockets = [
            await dialled(nursery, room, user) for room, user in ((here, ann), (here, bob), (there, cid))
        ]
        narrow = await dialled(nursery, there, bob, only=where)
        await there.deletion.delete(ann, where)
        for socket in (*sockets, narrow):
            told = await socket.wait_for("conversation_deleted")
            assert (told["conversation_id"], told["change"]) == (where, 3)
        assert await narrow.wait_closed() is Close.NOT_FOUND
        for room in (here, there):
            for user in (ann, bob):
                for act in (
                    lambda room=room, user=user: room.conversations.get(user, where),
                    lambda room=room, user=user: room.messages.get(user, said),
                    lambda room=room, user=user: read_page(room, user, where, 10),
                    lambda room=room, user=user: say(room, user, where, "still here?"),
                    lambda room=room, user=user: room.conversations.add(user, where, cid, "member"),
                ):
                    with pytest.raises(NotFound):
                        await act()
                with pytest.raises(Unavailable):
                    room.recall.page(Unavailable(), user, where, 10)
            assert room._recent.past(where) is None, "nor is it in memory"
        listed = await here.listing.page(bob, TOP, 10)
        assert [each.summary.seat.conversation.conversation_id for each in listed] == [other]
        later = await back(nursery, there, bob, {where: 1, other: 1})
        assert set(later.of("resumed")[0]["conversations"]) == {other}
        await here.deletion.delete(ann, where)
        with pytest.raises(NotFound):
            await here.deletion.delete(bob, where)


async def test_nothing_is_told_after_it(db: Database, room: Chat, people: list[UserId]) -> None:
    """By passes that had found something to do just before."""
    ann, *_ = people
    where = await make_group(room, ann)
    await room.conversations.configure(ann, where, {"disappear_after_s": 60})
    said = (await say(room, ann, where, "hello")).message
    await room.deletion.delete(ann, where)
    head = await db.read(conversations.get, where)
    assert not await room.retention.drop(where, 0, db.now_us())
    assert await db.read(archive.get_ended, said.message_id, said.sent_us + HOUR_US) is None
    assert await db.read(conversations.get, where) == head


async def test_its_neighbours_learn_who_was_in_it(room: Chat, people: list[UserId]) -> None:
    """In its unit, and after its commit at what time that was."""
    ann, bob, *_ = people
    noted: list[tuple[object, ...]] = []

    async def members_left(_: Tx, *what: object) -> None:
        noted.append(what)

    room.connect(
        authenticate=room.authenticate,
        members_left=members_left,
        tell_dissolved=lambda *what: noted.append(what),
    )
    where = await make_group(room, ann, bob)
    await room.deletion.delete(ann, where)
    [left, told] = noted
    assert (left[0], sorted(left[1])) == (where, sorted([ann, bob]))  # type: ignore[call-overload]
    assert told == (where, left[2])


async def test_a_node_that_heard_nothing_finds_it(
    db: Database, bus: MemoryBus, nursery: trio.Nursery, people: list[UserId]
) -> None:
    """By the table, both where it knew who is in it and where it did not; also when the rows are gone."""
    ann, bob, *_ = people
    deaf = LossyBus(bus, random.Random(1), loss=1.0)
    async with running(db, deaf, QUICK) as here:
        known, unknown = await make_group(here, ann, bob), await make_group(here, ann, bob)
        async with running(db, deaf, QUICK) as there:
            socket = await dialled(nursery, there, bob)
            await say(here, ann, known, "hello")
            await socket.wait_for("chat")
            assert (there.hub.can_see(known, bob), there.hub.can_see(unknown, bob)) == (True, None)
            for where in (known, unknown):
                await here.deletion.delete(ann, where)
            assert await here.deletion.pass_once() > 0
            await socket.wait_for("conversation_deleted", 2)
            assert {told["conversation_id"] for told in socket.of("conversation_deleted")} == {known, unknown}


async def named_in(db: Database, conversation: ConversationId) -> set[str]:
    """The tables that have rows of it."""

    async def unit(tx: Tx) -> set[str]:
        if tx.dialect == "sqlite":
            sql = (
                "SELECT m.name FROM sqlite_master m JOIN pragma_table_info(m.name) c"
                " WHERE m.type = 'table' AND c.name = 'conversation_id'"
            )
        else:
            sql = (
                "SELECT table_name::text FROM information_schema.columns"
                " WHERE column_name = 'conversation_id' AND table_schema = current_schema()"
            )
        tables = {row[0] for row in await tx.all(sql)}
        assert tables >= {"messages", "conversations"}
        found = set()
        for table in tables:
            if await tx.one(f"SELECT 1 FROM {table} WHERE conversation_id = $1 LIMIT 1", conversation):
                found.add(table)
        return found

    return await db.read(unit)


async def is_found(db: Database, conversation: ConversationId, count: int) -> bool:
    """Whether search has so many entries of it."""
    sql = "SELECT COUNT(*) FROM search_entries WHERE conversation_id = $1"
    row = await db.read(lambda tx: tx.one(sql, conversation))
    assert row is not None
    return int(row[0]) == count


async def test_its_rows_go_in_batches_that_may_begin_anywhere(
    db: Database, bus: MemoryBus, people: list[UserId], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "BATCH", 3)
    ann, bob, *_ = people
    async with running(db, bus) as here, running(db, bus) as there:
        gone, kept = await make_group(here, ann, bob), await make_group(here, ann, bob)
        for where in (gone, kept):
            for number in range(4):
                message = (await say(here, ann, where, str(number))).message.message_id
                await here.messages.edit(ann, message, f"{number}, edited")
                await here.reactions.set(bob, message, "+", on=True)
                await here.pins.set(ann, where, message, on=True)
                await here.polls.create(ann, where, Question("?", ["yes", "no"], "single", True, None))
        before = await counts(db)
        await until(lambda: is_found(db, gone, 4))
        await here.deletion.delete(ann, gone)
        for _ in range(2):  # then the node is gone, and another goes on
            await here.writer.relieve(here.deletion._take_away, gone)
        await here.deletion.pass_once()
        await until(lambda: is_found(db, gone, 0))
        head = {"conversations": 2, "members": 2, "deleted_conversations": 1, "deleted_members": 2}
        half = {name: number // 2 for name, number in before.items() if name not in head}
        assert await counts(db) == half | head | {"changes": half["changes"] + 1}
        monkeypatch.setattr(rules, "KEPT_US", -HOUR_US)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(here.deletion.pass_once)
            nursery.start_soon(there.deletion.pass_once)
        assert await counts(db) == half | {"conversations": 1, "members": 2}
        assert await named_in(db, gone) == set()
        assert (await say(there, bob, kept, "we go on")).fresh


async def test_what_the_last_member_leaves_is_deleted(
    db: Database, room: Chat, people: list[UserId], monkeypatch: pytest.MonkeyPatch
) -> None:
    bob = people[1]
    ways: list[Callable[[ConversationId], Awaitable[None]]] = [
        lambda where: room.conversations.remove(bob, where, bob),
        lambda _: room.forget(bob),
    ]
    for leave in ways:
        where = await make_group(room, bob)
        await say(room, bob, where, "to myself")
        await leave(where)
    monkeypatch.setattr(rules, "KEPT_US", -HOUR_US)
    await room.deletion.pass_once()
    assert await counts(db) == {}


async def test_a_direct_one_goes_when_both_are_erased(
    db: Database, bus: MemoryBus, people: list[UserId], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On two nodes at the same time."""
    ann, bob, cid, _ = people
    async with running(db, bus) as here, running(db, bus) as there:
        gone, kept = [
            (await here.conversations.create(one, "direct", None, [bob], False))[0] for one in (ann, cid)
        ]
        for where in (gone, kept):
            await say(here, bob, where, "hello")
        for user in (ann, bob):
            await db.write(lambda tx, who: tx.run(_ERASE, who), user)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(here.forget, ann)
            nursery.start_soon(there.forget, bob)
        monkeypatch.setattr(rules, "KEPT_US", -HOUR_US)
        await there.deletion.pass_once()
        assert await named_in(db, gone) <= {"search_positions"}
        assert [each.content for each in (await read_page(here, cid, kept, 10)).messages] == ["hello"]


_ERASE = "UPDATE users SET erased_at = created_at WHERE user_id = $1"


async def test_a_direct_one_stays(room: Chat, people: list[UserId]) -> None:
    ann, bob, cid, _ = people
    where, _ = await room.conversations.create(ann, "direct", None, [bob], False)
    with pytest.raises(Conflict):
        await room.deletion.delete(ann, where)
    with pytest.raises(NotFound):
        await room.deletion.delete(cid, where)


async def test_retention_and_polls_leave_it_alone(db: Database, bus: MemoryBus, people: list[UserId]) -> None:
    ann, bob, *_ = people
    async with running(db, bus, ChatConfig(retention_days=1, poll_pass_s=3_600)) as room:
        where = await make_group(room, ann, bob)
        await say(room, ann, where, "long ago")
        ends_us = db.now_us() + 200_000
        await room.polls.create(ann, where, Question("?", ["yes", "no"], "single", True, ends_us))
        await room.deletion.delete(ann, where)
        await db.write(_age)
        assert await room.retention.pass_once() == 0
        await until(lambda: db.now_us() > ends_us)
        assert await room.polls.pass_once() == 1
        await room.deletion.pass_once()
        assert (await counts(db, ("messages", "polls"))) == {}


async def _age(tx: Tx) -> None:
    await tx.run("UPDATE messages SET sent_at = $1", 0)
