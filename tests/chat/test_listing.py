"""The list of conversations, and what a first sync brings beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from kit.databases import on_sqlite
from secureconnect.chat import Chat
from secureconnect.chat.listing import store as listing
from secureconnect.chat.store import PAGE, TOP, Conversation, Member, create, join
from secureconnect.clock import HOUR_US, now_us
from secureconnect.config import ChatConfig
from secureconnect.deps.contracts import Database, Row, Tx, Value
from secureconnect.deps.memory import MemoryBus
from secureconnect.identity import ConversationId, UserId, new_id

from .rig import block, make_group, make_people, running, say
from .test_routes import ask
from .test_unread import steps_of_a_list

FIRST_SYNC = replace(ChatConfig(), first_sync_conversations=2, first_sync_messages=3)


class Counting:
    """A transaction that counts what it is asked."""

    def __init__(self, tx: Tx) -> None:
        self._tx = tx
        self.dialect = tx.dialect
        self.asked = 0

    async def one(self, sql: str, *args: Value) -> Row | None:
        self.asked += 1
        return await self._tx.one(sql, *args)

    async def all(self, sql: str, *args: Value) -> list[Row]:
        self.asked += 1
        return await self._tx.all(sql, *args)

    async def run(self, sql: str, *args: Value) -> int:
        raise AssertionError("this only reads")

    async def many(self, sql: str, rows: Sequence[Sequence[Value]]) -> None:
        raise AssertionError("this only reads")


async def test_a_first_sync_brings_the_newest_messages_of_the_top_ones(db: Database, bus: MemoryBus) -> None:
    ann, bob, cid = await make_people(db, "ann", "bob", "cid")
    async with running(db, bus, FIRST_SYNC) as room:
        quiet, busy, joined = [await make_group(room, ann, bob) for _ in range(3)]
        for where in (busy, joined):
            for number in range(5):
                last = await say(room, ann, where, f"said {number}")
        await room.reactions.set(ann, last.message.message_id, "👍", on=True)
        await room.conversations.add(ann, joined, cid, "member")
        await say(room, ann, joined, "said since")
        _, told = await ask(room, bob, "GET /v1/conversations", query={"first_sync": True})
        lines = {line["conversation_id"]: line for line in told["conversations"]}
        assert list(lines) == [joined, busy, quiet]
        since = ["Somebody was added.", "said since"]
        assert [each["content"] for each in lines[joined]["messages"]] == ["said 4", *since]
        assert [each["seq"] for each in lines[busy]["messages"]] == [3, 4, 5]
        assert lines[joined]["messages"][0]["reactions"] == [{"emoji": "👍", "count": 1, "mine": False}]
        assert "messages" not in lines[quiet]
        _, told = await ask(room, cid, "GET /v1/conversations", query={"first_sync": True})
        assert [each["content"] for each in told["conversations"][0]["messages"]] == since
        _, told = await ask(room, bob, "GET /v1/conversations")
        assert not any("messages" in line for line in told["conversations"])


async def test_both_people_of_a_direct_one_are_shown(room: Chat, db: Database, people: list[UserId]) -> None:
    ann, bob, cid, _ = people
    for other in (bob, cid):
        where, _ = await room.conversations.create(ann, "direct", None, [other], False)
        await say(room, ann, where, "hello")
        await room.conversations.mark_read(other, where, 1)
    await block(db, cid, ann)
    lines = await room.listing.page(ann, TOP, 20)
    for line in lines:
        where = line.summary.seat.conversation.conversation_id
        _, alone = await room.conversations.get(ann, where)
        assert line.people == alone
        assert [each.is_apart for each in alone] == [each.person.user_id == cid for each in alone]
        assert {each.member.last_read_seq for each in alone} == {0, 0 if cid in _ids(alone) else 1}


def _ids(people: Sequence[object]) -> set[UserId]:
    return {each.person.user_id for each in people}  # type: ignore[attr-defined]


async def test_it_takes_three_statements_however_many_there_are(
    room: Chat, db: Database, people: list[UserId]
) -> None:
    ann, *others = people
    for other in others:
        where, _ = await room.conversations.create(ann, "direct", None, [other], False)
        await say(room, other, where, "hello")
    for _ in range(5):
        await say(room, ann, await make_group(room, ann), "hello")

    async def unit(tx: Tx) -> int:
        counting = Counting(tx)
        found = await room.listing._page(counting, ann, TOP, 100, 20)
        assert len(found) == 8
        return counting.asked

    assert await db.read(unit) == 3


async def test_it_is_in_order_from_hour_to_hour(room: Chat, db: Database, people: list[UserId]) -> None:
    ann, bob, cid, _ = people
    made = [await make_group(room, ann, bob) for _ in range(6)]
    await say(room, ann, made[4], "before there were hours")
    await db.write(_without_hours)
    await say(room, ann, made[1], "something")
    await room.conversations.add(ann, made[3], cid, "member")
    found: list[ConversationId] = []
    below = TOP
    while page := await room.listing.page(bob, below, 2):
        found += [line.summary.seat.conversation.conversation_id for line in page]
        below = page[-1].summary.place
    assert found == [made[each] for each in (3, 1, 4, 5, 2, 0)]
    latest = found[:2]
    hours = await db.read(_hours)
    assert all((hour > 0) is (where in latest) for where, (hour, *_) in hours.items())
    assert all(len(set(of)) == 1 for of in hours.values()), "members have what their conversation has"


async def _without_hours(tx: Tx) -> None:
    """As it is where nothing was said since there are any."""
    await tx.run("UPDATE conversations SET active_hour = 0")
    await tx.run("UPDATE members SET active_hour = 0")


async def _hours(tx: Tx) -> dict[ConversationId, list[int]]:
    """Of each conversation, and of its members."""
    rows = await tx.all("SELECT conversation_id, active_hour FROM conversations")
    hours = {ConversationId(where): [int(hour)] for where, hour in rows}
    for where, hour in await tx.all("SELECT conversation_id, active_hour FROM members"):
        hours[where].append(hour)
    return hours


@on_sqlite
async def test_a_page_costs_no_more_where_there_are_many(db: Database, people: list[UserId]) -> None:
    ann, *_ = people
    await db.write(_begin, ann, PAGE)
    little = steps_of_a_list(db, ann)
    await db.write(_begin, ann, 600)
    assert steps_of_a_list(db, ann) < 1.2 * little


async def _begin(tx: Tx, user: UserId, count: int) -> None:
    """Conversations made an hour apart, the last of them now."""
    for number in range(count):
        where, then = ConversationId(new_id()), now_us() - number * HOUR_US
        new = Conversation(
            where, "group", None, None, user, then, then, 0, 1, then, 1, 0, False, False, 0, False
        )
        await create(tx, new, None)
        await join(tx, where, [Member(user, "owner", then, 0, 0)])


@pytest.mark.parametrize("db", ["postgres"], indirect=True)
async def test_the_newest_are_found_without_reading_the_others(db: Database, people: list[UserId]) -> None:
    """Whoever prepares the statement does not know how many it asks for."""
    ann, *_ = people
    await db.write(_begin, ann, 1)

    async def plan(tx: Tx) -> str:
        await tx.run(
            "INSERT INTO messages (message_id, conversation_id, seq, change, sender_id, client_message_id,"
            " message_type, content, is_encrypted, file_ids, sent_at) SELECT gen_random_uuid(),"
            " conversation_id, i, i + 1, created_by, CAST(i AS text), 'text', 'x', false, '[]', created_at"
            " FROM conversations, generate_series(1, 5000) i"
        )
        await tx.run("ANALYZE messages")
        await tx.run("SET LOCAL plan_cache_mode = force_generic_plan")
        await tx.run(f"PREPARE newest AS {listing._NEWEST['postgres']}")
        nothing = ", ".join(["NULL"] * (2 + PAGE))
        steps = await tx.all(f"EXPLAIN EXECUTE newest({nothing})")
        await tx.run("DEALLOCATE newest")
        return "\n".join(row[0] for row in steps)

    found = await db.write(plan)
    assert "Index Scan Backward using messages_conversation_id_seq_key on messages" in found, found
