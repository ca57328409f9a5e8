"""The list of conversations, and what a first sync brings beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from secureconnect.chat import Chat
from secureconnect.chat.routes import LATEST_US
from secureconnect.chat.store import LAST_ID
from secureconnect.config import ChatConfig
from secureconnect.deps.contracts import Database, Row, Tx, Value
from secureconnect.deps.memory import MemoryBus
from secureconnect.identity import ConversationId, UserId

from .rig import block, make_group, make_people, running, say
from .test_routes import ask

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
    lines = await room.listing.page(ann, LATEST_US, ConversationId(LAST_ID), 20)
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
        found = await room.listing._page(counting, ann, LATEST_US, ConversationId(LAST_ID), 100, 20)
        assert len(found) == 8
        return counting.asked

    assert await db.read(unit) == 3
