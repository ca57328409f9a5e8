"""Storing, editing and deleting messages, and what a client_message_id promises."""

from __future__ import annotations

import random
import tracemalloc
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec
import pytest
import structlog
import trio

from kit.wait import until
from secureconnect.chat import Chat
from secureconnect.chat.append import Stored
from secureconnect.chat.live import Live
from secureconnect.chat.pledges import Answer
from secureconnect.config import ChatConfig
from secureconnect.deps.contracts import ConstraintViolation, Database, P, T, Tx, UniqueViolation, Unit
from secureconnect.deps.memory import MemoryBus
from secureconnect.errors import (
    ClientMessageIdReused,
    Forbidden,
    Internal,
    Invalid,
    MessageDeleted,
    NotFound,
    OutcomeUnknown,
    Problem,
    Unavailable,
)
from secureconnect.identity import ConversationId, UserId, new_id
from secureconnect.supervise import Handle

from .rig import (
    HISTORY,
    dialled,
    history,
    make_group,
    make_people,
    read_page,
    running,
    say,
    seqs,
    signals_beside,
    store,
)


def as_sent(metadata: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(metadata))


class Faulty:
    """The database, with a word before and after each write.

    before, after: called with the unit's arguments; what they raise is raised.
    """

    def __init__(self, inner: Database) -> None:
        self._inner = inner
        self.before: Callable[[tuple[Any, ...]], Awaitable[None]] | None = None
        self.after: Callable[[tuple[Any, ...]], Awaitable[None]] | None = None

    async def write(self, unit: Unit[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self.before is not None:
            await self.before(args)
        result = await self._inner.write(unit, *args, **kwargs)
        if self.after is not None:
            await self.after(args)
        return result

    async def relieve(self, unit: Unit[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._inner.relieve(unit, *args, **kwargs)

    async def read(self, unit: Unit[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._inner.read(unit, *args, **kwargs)

    def now_us(self) -> int:
        return self._inner.now_us()


async def test_the_same_id_again_is_the_first_message(room: Chat, people: list[UserId]) -> None:
    ann, bob, *_ = people
    where, elsewhere = await make_group(room, ann, bob), await make_group(room, ann, bob)
    first = await say(room, ann, where, "one", "id-1")
    again = await say(room, ann, where, "something else", "id-1")
    assert (first.fresh, again.fresh) == (True, False)
    assert again.message == first.message
    with pytest.raises(ClientMessageIdReused):
        await say(room, ann, elsewhere, "one", "id-1")
    assert (await say(room, bob, where, "of another sender", "id-1")).fresh
    assert seqs(await history(room, ann, where)) == [1, 2]


async def test_resends_within_one_batch(room: Chat, people: list[UserId]) -> None:
    ann, bob, *_ = people
    where, elsewhere = await make_group(room, ann), await make_group(room, ann, bob)
    nowhere = await make_group(room, bob)
    outcomes: list[Answer] = []
    plan = [(nowhere, "a"), (where, "a"), (where, "a"), (elsewhere, "a"), (elsewhere, "b")]
    for place, key in plan:  # no await: one batch
        draft = room.messages.draft(ann, place, "x", client_message_id=key)
        room.writer.send(draft, outcomes.append)
    await until(lambda: len(outcomes) == len(plan))
    refused, first, again, reused, other = outcomes
    assert isinstance(refused, NotFound)
    assert isinstance(first, Stored)
    assert isinstance(again, Stored)
    assert isinstance(other, Stored)
    assert (first.fresh, again.fresh, other.fresh) == (True, False, True)
    assert again.message == first.message
    assert isinstance(reused, ClientMessageIdReused)
    assert seqs(await history(room, ann, elsewhere)) == [1]


async def test_numbers_stay_dense_whoever_gives_up(db: Database, room: Chat, people: list[UserId]) -> None:
    """64 senders in 3 conversations, a third of their requests cancelled at some moment."""
    chance = random.Random(7)
    places = [await make_group(room, *people) for _ in range(3)]
    acknowledged: list[tuple[ConversationId, int]] = []

    async def send_many(number: int) -> None:
        for count in range(20):
            where = chance.choice(places)
            with trio.CancelScope() as scope:
                if chance.random() < 0.3:
                    scope.deadline = trio.current_time() + chance.random() * 0.01
                stored = await say(room, people[number % 4], where, f"{number}/{count}", f"{number}.{count}")
                acknowledged.append((where, stored.message.seq))

    async with trio.open_nursery() as nursery:
        for number in range(64):
            nursery.start_soon(send_many, number)

    everything: Counter[str] = Counter()
    for where in places:
        stored = await history(room, people[0], where)
        assert seqs(stored) == list(range(1, len(stored) + 1))
        assert [message.change for message in stored] == list(range(2, len(stored) + 2))
        everything.update(message.client_message_id for message in stored)
        assert {seq for place, seq in acknowledged if place == where} <= set(seqs(stored))
    assert max(everything.values()) == 1
    assert sum(everything.values()) >= len(acknowledged)


async def test_one_poisoned_message_harms_nobody_else(db: Database, bus: MemoryBus) -> None:
    ann, *_ = await make_people(db, "ann")
    faulty = Faulty(db)

    async def refuse(args: tuple[Any, ...]) -> None:
        if args and isinstance(args[0], list) and any(draft.content == "poison" for draft in args[0]):
            raise ConstraintViolation("messages.content")

    async with running(faulty, bus) as room:
        where = await make_group(room, ann)
        faulty.before = refuse
        outcomes: dict[int, Answer] = {}
        for number in range(50):
            draft = room.messages.draft(ann, where, "poison" if number == 17 else "fine")
            room.writer.send(draft, partial(outcomes.__setitem__, number))
        with structlog.testing.capture_logs() as lines:
            await until(lambda: len(outcomes) == 50)
        assert isinstance(outcomes.pop(17), Internal)
        assert [line["event"] for line in lines if line["log_level"] == "error"] == ["message_not_storable"]
        stored = [outcome.message.seq for outcome in outcomes.values() if isinstance(outcome, Stored)]
        assert stored == list(range(1, 50))


async def test_a_message_another_node_stored_meanwhile_is_found(db: Database, bus: MemoryBus) -> None:
    """The unique key refuses the batch once; what refused it can be seen when it is tried again."""
    ann, *_ = await make_people(db, "ann")
    faulty = Faulty(db)
    async with running(faulty, bus) as room, running(db, bus) as neighbour:
        where = await make_group(room, ann)

        async def race(args: tuple[Any, ...]) -> None:
            if args and isinstance(args[0], list):
                faulty.before = None
                await say(neighbour, ann, where, "first", "id-1")
                raise UniqueViolation("messages.sender_id, messages.client_message_id")

        faulty.before = race
        stored = await say(room, ann, where, "second", "id-1")
        assert not stored.fresh
        assert stored.message.content == "first"


async def test_an_unknown_outcome_is_never_called_a_failure(db: Database, bus: MemoryBus) -> None:
    ann, *_ = await make_people(db, "ann")
    faulty = Faulty(db)

    async def lose_the_answer(args: tuple[Any, ...]) -> None:
        faulty.after = None
        raise OutcomeUnknown

    async with running(faulty, bus, ChatConfig(catch_up_ms=100)) as room, trio.open_nursery() as nursery:
        where = await make_group(room, ann)
        socket = await dialled(nursery, room, ann)
        faulty.after = lose_the_answer
        with pytest.raises(OutcomeUnknown):
            await say(room, ann, where, "x", "id-1")
        again = await say(room, ann, where, "x", "id-1")
        assert (again.fresh, again.message.seq) == (False, 1)
        assert (await socket.wait_for("chat"))["seq"] == 1, "catch-up tells what the writer could not"
        nursery.cancel_scope.cancel()


async def test_a_crash_between_commit_and_answer(db: Database, bus: MemoryBus) -> None:
    """The room crashes when the message is stored and nobody knows yet. Its waiters are told that the outcome
    is unknown, the room comes back, and the message, sent again, is there once."""
    ann, *_ = await make_people(db, "ann")
    rooms: list[Chat] = []

    def build() -> Chat:
        rooms.append(Chat(ChatConfig(), db, bus, signals_beside(bus), HISTORY, "node"))  # type: ignore[arg-type]
        return rooms[-1]

    handle = Handle("chat", build)
    async with trio.open_nursery() as nursery:
        await nursery.start(handle.run)
        where = await make_group(rooms[0], ann)
        stored: list[Answer] = []

        def crash(live: Live) -> None:
            raise RuntimeError("after the commit")

        rooms[0].hub.deliver = crash  # type: ignore[method-assign]
        draft = rooms[0].messages.draft(ann, where, "x", client_message_id="id-1")
        with structlog.testing.capture_logs():
            rooms[0].writer.send(draft, stored.append)
            await until(lambda: bool(stored) and len(rooms) == 2)
            with pytest.raises(Unavailable):
                await say(rooms[0], ann, where, "y")
            await until(lambda: handle.state == "running")
        assert len(stored) == 1, "answered once"
        again = await say(handle.require(), ann, where, "x", "id-1")
        assert not again.fresh
        assert seqs(await history(handle.require(), ann, where)) == [1]
        nursery.cancel_scope.cancel()


async def test_a_full_queue_refuses_at_once(db: Database, bus: MemoryBus) -> None:
    ann, *_ = await make_people(db, "ann")
    async with running(db, bus, ChatConfig(append_queue=8)) as room:
        where = await make_group(room, ann)
        outcomes: list[Answer] = []
        drafts = [room.messages.draft(ann, where, "x") for _ in range(20)]

        def send_all() -> int:
            for taken, draft in enumerate(drafts):
                try:
                    room.writer.send(draft, outcomes.append)
                except Unavailable:
                    return taken
            return len(drafts)

        taken = send_all()
        assert taken in (8, 9), "eight wait, and one may be with the writer already"
        await until(lambda: len(outcomes) == taken)
        assert all(isinstance(outcome, Stored) for outcome in outcomes)


async def test_whoever_waits_when_the_room_ends_is_told(db: Database, bus: MemoryBus) -> None:
    ann, *_ = await make_people(db, "ann")
    outcomes: list[Answer] = []
    async with running(db, bus, ChatConfig(append_batch=1)) as room:
        where = await make_group(room, ann)
        for _ in range(200):
            room.writer.send(room.messages.draft(ann, where, "x"), outcomes.append)
    assert len(outcomes) == 200
    assert any(isinstance(outcome, Unavailable) for outcome in outcomes)


@pytest.mark.parametrize(
    ("content", "options", "field"),
    [
        ("", {}, "content"),
        ("x" * 10_001, {}, "content"),
        ("x" * 65_537, {"is_encrypted": True}, "content"),
        ("€" * 22_000, {"is_encrypted": True}, "content"),
        ("nul \0", {}, "content"),
        ("x", {"metadata": as_sent({"k": "v" * 20_000})}, "metadata"),
        ("x", {"metadata": as_sent({"k": ["\0"]})}, "metadata"),
        ("x", {"metadata": as_sent({"\0": 1})}, "metadata"),
        ("x", {"metadata": msgspec.Raw(b'{"k": 1%s}' % (b"0" * 40))}, "metadata"),
        ("x", {"metadata": as_sent({"k": [1e300] * 2_000})}, "metadata"),
        ("x", {"metadata": as_sent({"k": [-1e-300]})}, "metadata"),
        ("x", {"metadata": as_sent({"k": [[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]})}, "metadata"),
        ("x", {"metadata": as_sent(["no object"])}, "metadata"),
        ("x", {"metadata": msgspec.Raw(b'{"k": "\\ud800"}')}, "metadata"),
        ("x", {"metadata": msgspec.Raw(b'{"k": %s}' % (b"[" * 8000 + b"]" * 8000))}, "metadata"),
        ("x", {"file_ids": ["0190A2B4-0000-7000-8000-000000000000"]}, "file_ids"),
        ("x", {"file_ids": ["0190a2b4-0000-7000-8000-000000000000"] * 21}, "file_ids"),
    ],
)
def test_what_is_no_message(content: str, options: dict[str, Any], field: str) -> None:
    room = Chat(ChatConfig(), None, None, None, HISTORY, "node")  # type: ignore[arg-type]
    with pytest.raises(Invalid) as refused:
        room.messages.draft(UserId("ann"), "there", content, **options)
    assert refused.value.details == {"field": field}


async def test_metadata_stays_what_it_was(room: Chat, people: list[UserId]) -> None:
    ann, *_ = people
    given = {
        "whole": [0, -(2**63), 2**63 - 1],
        "b": {"": None},
        "a": [0.0, -1e-18, 2.5e-7, 9.2e18, True],
        "ü": "\\",
    }
    where = await make_group(room, ann)
    sent = await store(room, room.messages.draft(ann, where, "x", metadata=as_sent(given)))
    kept = await room.messages.get(ann, sent.message.message_id)
    for told in (sent.message, kept):
        assert msgspec.json.decode(told.metadata or "") == given


async def test_replies_stay_within_their_conversation(room: Chat, people: list[UserId]) -> None:
    ann, *_ = people
    here, there = await make_group(room, ann), await make_group(room, ann)
    mine, other = (await say(room, ann, here, "x")).message, (await say(room, ann, there, "x")).message
    answer = await store(room, room.messages.draft(ann, here, "re", reply_to=mine.message_id))
    assert answer.message.reply_to == mine.message_id
    for missing in (other.message_id, here):
        with pytest.raises(Invalid):
            await room.messages.send(room.messages.draft(ann, here, "re", reply_to=missing))


async def test_a_message_that_is_deleted_stays_quoted(room: Chat, people: list[UserId]) -> None:
    ann, bob, *_ = people
    where = await make_group(room, ann, bob)
    quoted = (await say(room, ann, where, "a secret")).message
    before = (await store(room, room.messages.draft(bob, where, "re", reply_to=quoted.message_id))).message
    await room.messages.delete(ann, quoted.message_id)
    after = (await store(room, room.messages.draft(bob, where, "re", reply_to=quoted.message_id))).message
    for each in (before, after):
        found = await room.messages.get(bob, each.message_id)
        assert (found.reply_to, found.content) == (quoted.message_id, "re")
    found = await room.messages.get(bob, quoted.message_id)
    assert (found.content, found.deleted_us is not None) == ("", True)
    await room.retention.drop(where, 0, before.sent_us)
    with pytest.raises(NotFound):
        await room.messages.get(bob, quoted.message_id)
    assert (await room.messages.get(bob, after.message_id)).reply_to == quoted.message_id


async def test_a_deleted_message_leaves_no_text(db: Database, room: Chat, people: list[UserId]) -> None:
    ann, bob, *_ = people
    where = await make_group(room, ann, bob)
    draft = room.messages.draft(bob, where, "a secret", metadata=as_sent({"note": "a secret"}))
    message = (await store(room, draft)).message
    edited = await room.messages.edit(bob, message.message_id, "another secret")
    assert edited.edited_us is not None
    with pytest.raises(Forbidden):
        await room.messages.edit(ann, message.message_id, "not mine")
    gone = await room.messages.delete(ann, message.message_id)
    assert (gone.content, gone.metadata) == ("", None)
    assert await room.messages.delete(ann, message.message_id) == gone
    with pytest.raises(MessageDeleted):
        await room.messages.edit(bob, message.message_id, "back")
    for table in ("messages", "message_versions", "changes", "conversations", "audit"):
        rows = await db.read(lambda tx, sql: tx.all(sql), f"SELECT * FROM {table}")
        assert "secret" not in repr(rows)
    held = room._recent.past(where)
    assert held is not None
    assert "secret" not in repr([live.frame.data for live in held.lives]), "memory keeps it"
    assert await room.messages.get(bob, message.message_id) == gone
    summary, _ = await room.conversations.get(bob, where)
    assert summary.seat.conversation.last_change == 4, "created, sent, edited, deleted once"


async def test_history_pages_both_ways(room: Chat, people: list[UserId]) -> None:
    ann, *_ = people
    where = await make_group(room, ann)
    for number in range(12):
        await say(room, ann, where, str(number))
    assert seqs((await read_page(room, ann, where, 5)).messages) == [8, 9, 10, 11, 12]
    assert seqs((await read_page(room, ann, where, 5, before_seq=8)).messages) == [3, 4, 5, 6, 7]
    assert seqs((await read_page(room, ann, where, 5, before_seq=3)).messages) == [1, 2]
    assert seqs((await read_page(room, ann, where, 5, after_seq=9)).messages) == [10, 11, 12]
    assert seqs((await read_page(room, ann, where, 5, after_seq=12)).messages) == []
    assert (await read_page(room, ann, where, 5, after_seq=2**63 - 1)).messages == []
    assert seqs((await read_page(room, ann, where, 1, before_seq=2**63 - 1)).messages) == [12]


async def test_unread_counts_against_a_model(room: Chat, people: list[UserId]) -> None:
    """Random sends, deletes and read marks of three people; after each, everybody's count is exact."""
    chance = random.Random(11)
    trio_of_them = people[:3]
    where = await make_group(room, *trio_of_them)
    sent: list[tuple[UserId, str]] = []
    deleted: set[int] = set()
    read = dict.fromkeys(trio_of_them, 0)
    for _ in range(100):
        who = chance.choice(trio_of_them)
        match chance.choice(["send", "send", "read", "delete"]):
            case "send":
                message = (await say(room, who, where, "x")).message
                sent.append((who, message.message_id))
            case "read":
                seq = chance.randint(0, len(sent) + 2)
                await room.conversations.mark_read(who, where, seq)
                read[who] = max(read[who], min(seq, len(sent)))
                summary = await room.conversations.summary(who, where)
                assert summary.seat.member.last_read_seq == read[who]
            case "delete" if sent:
                position = chance.randrange(len(sent))
                await room.messages.delete(people[0], sent[position][1])  # type: ignore[arg-type]
                deleted.add(position)
        for each in trio_of_them:
            expected = sum(
                position not in deleted and sender != each and position + 1 > read[each]
                for position, (sender, _) in enumerate(sent)
            )
            assert (await room.conversations.summary(each, where)).unread_count == expected


async def test_a_change_outlives_its_request(room: Chat, people: list[UserId]) -> None:
    """Whoever asked is gone before the commit: it is stored, and told."""
    ann, bob, *_ = people
    where = await make_group(room, ann, bob)
    message = (await say(room, ann, where, "x")).message
    async with trio.open_nursery() as nursery:
        socket = await dialled(nursery, room, bob)
        with trio.CancelScope() as request:
            request.cancel()
            await room.messages.edit(ann, message.message_id, "y")
        assert request.cancelled_caught
        assert (await socket.wait_for("message_edited"))["content"] == "y"
        nursery.cancel_scope.cancel()


async def test_an_export_holds_all_that_is_theirs(room: Chat, people: list[UserId]) -> None:
    ann, bob, *_ = people
    where = await make_group(room, ann, bob)
    mine = {(await say(room, ann, where, str(number))).message.message_id for number in range(5)}
    await say(room, bob, where, "not Ann's")
    records = [record async for record in room.export_of(ann)]
    assert {record["message_id"] for record in records if record["kind"] == "message"} == mine
    assert [record["conversation_id"] for record in records if record["kind"] == "conversation"] == [where]


async def test_an_export_takes_no_more_memory_for_a_long_life(
    db: Database, room: Chat, people: list[UserId]
) -> None:
    ann, *_ = people
    where = await make_group(room, ann)

    async def say_much(tx: Tx, seqs: range) -> None:
        insert = (
            "INSERT INTO messages (message_id, conversation_id, seq, change, sender_id, client_message_id,"
            " message_type, content, is_encrypted, file_ids, sent_at)"
            " VALUES ($1, $2, $3, $4, $5, $6, 'text', $7, false, '[]', $8)"
        )
        rows = [(new_id(), where, seq, seq + 1, ann, str(seq), "x" * 500, seq) for seq in seqs]
        await tx.many(insert, rows)

    async def peak_of(messages: int) -> int:
        kinds: Counter[str] = Counter()
        tracemalloc.start()
        try:
            async for record in room.export_of(ann):
                kinds[record["kind"]] += 1
            assert (kinds["conversation"], kinds["message"]) == (1, messages)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    await db.write(say_much, range(1, 401))
    short = await peak_of(400)
    await db.write(say_much, range(401, 10_001))
    assert await peak_of(10_000) < short + 2_000_000, (
        "their texts alone are 5 MB; passes of the room take some"
    )


async def test_refusals_reach_everyone_who_waits(db: Database, bus: MemoryBus) -> None:
    ann, *_ = await make_people(db, "ann")
    faulty = Faulty(db)
    async with running(faulty, bus) as room:
        where = await make_group(room, ann)

        async def away(args: tuple[Any, ...]) -> None:
            raise Unavailable

        faulty.before = away
        refused: list[Problem] = []

        async def send() -> None:
            try:
                await say(room, ann, where, "x")
            except Problem as problem:
                refused.append(problem)

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(send)
        assert [type(problem) for problem in refused] == [Unavailable] * 10
        faulty.before = None
        assert (await say(room, ann, where, "x")).message.seq == 1


async def test_where_nobody_keeps_files_there_are_none(room: Chat, people: list[UserId]) -> None:
    ann, *_ = people
    where = await make_group(room, ann)
    with pytest.raises(Invalid) as refused:
        await store(room, room.messages.draft(ann, where, "x", file_ids=[new_id()]))
    assert refused.value.details == {"field": "file_ids"}
    assert await history(room, ann, where) == []
