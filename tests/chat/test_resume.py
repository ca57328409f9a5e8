"""Coming back: what was missed, then what happens, every change once and in order."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from kit.wait import until
from secureconnect.chat import Chat
from secureconnect.chat.polls.polls import Question
from secureconnect.chat.resume import CHUNK, ROUND_BYTES, Resume
from secureconnect.clock import DAY_US
from secureconnect.config import ChatConfig
from secureconnect.deps.contracts import Database, Tx
from secureconnect.deps.memory import MemoryBus
from secureconnect.edge import Close
from secureconnect.identity import ConversationId, MessageId, UserId, new_id

from .rig import (
    back,
    dial,
    dialled,
    history,
    make_group,
    make_people,
    resume_from,
    running,
    say,
    seqs,
    store,
)

_QUESTION = Question("well?", ["yes", "no"], "single", True, None)


async def test_what_was_missed_comes_first(nursery: trio.Nursery, room: Chat, people: list[UserId]) -> None:
    ann, bob, cid, _ = people
    where = await make_group(room, ann, bob)
    first = (await say(room, ann, where, "one")).message
    await room.messages.edit(ann, first.message_id, "one, edited")
    second = (await say(room, ann, where, "two")).message
    await room.messages.delete(ann, second.message_id)
    await room.conversations.add(ann, where, cid, "member")
    await room.conversations.set_role(ann, where, cid, "admin")
    await room.conversations.remove(cid, where, cid)
    await room.conversations.describe(ann, where, {"title": "new"})
    await room.conversations.mark_read(bob, where, 1)
    await say(room, ann, where, "three")
    socket = await back(nursery, room, bob, {where: 1})
    told = [(frame["type"], frame.get("change")) for frame in socket.seen]
    assert told == [
        ("hello", None),
        ("chat", 2),
        ("message_edited", 3),
        ("chat", 4),
        ("message_deleted", 5),
        ("user_joined", 6),
        ("chat", 7),
        ("member_updated", 8),
        ("user_left", 9),
        ("chat", 10),
        ("conversation_updated", 11),
        ("chat", 12),
        ("chat", 13),
        ("resumed", None),
    ]
    gone = socket.seen[3]
    assert gone["content"] == "", "a deleted message has no text, in replay neither"
    assert gone["deleted_at"] is not None
    assert socket.seen[7]["role"] == "admin"
    assert socket.of("resumed")[0]["conversations"] == {
        where: {"seq": 6, "change": 13, "first_seq": 1, "last_read_seq": 1, "unread_count": 1}
    }
    await say(room, ann, where, "live")
    assert await socket.wait_changes(where, 14) == list(range(2, 15))


@pytest.mark.parametrize("history_visible", [False, True])
async def test_what_happened_before_one_joined_is_told_only_where_the_past_is_open(
    nursery: trio.Nursery, room: Chat, people: list[UserId], history_visible: bool
) -> None:
    """Whatever position the client names."""
    ann, bob, cid, dee = people
    where = await make_group(room, ann, bob, cid)
    await say(room, ann, where, "hello")
    await room.conversations.configure(ann, where, {"history_visible": history_visible})
    before = await back(nursery, room, cid, {where: 1})
    held = before.of("resumed")[0]["conversations"][where]["change"]
    await room.conversations.remove(ann, where, cid)
    await room.conversations.set_role(ann, where, bob, "admin")
    await room.conversations.add(bob, where, cid, "member")
    joined = (await room.conversations.summary(cid, where)).seat.conversation.last_change - 1
    await room.conversations.add(ann, where, dee, "member")
    last = (await room.conversations.summary(dee, where)).seat.conversation.last_change
    left = held + 1
    for user, position, own, first in (
        (cid, held, [left], joined),
        (cid, 0, [left], joined),
        (dee, 0, [], last - 1),
    ):
        seen = range(position + 1, last + 1) if history_visible else [*own, *range(first, last + 1)]
        socket = await back(nursery, room, user, {where: position})
        assert socket.changes(where) == list(seen)


async def test_mentions_made_elsewhere_show(nursery: trio.Nursery, room: Chat, people: list[UserId]) -> None:
    ann, bob, *_ = people
    where = await make_group(room, ann, bob)
    named = msgspec.Raw(msgspec.json.encode({"mentions": [bob]}))
    for _ in range(2):
        await store(room, room.messages.draft(ann, where, "look", metadata=named))
    await room.conversations.mark_read(bob, where, 1)
    for user, unread in ((bob, 1), (ann, None)):
        socket = await back(nursery, room, user, {where: 3})
        assert socket.of("resumed")[0]["conversations"][where].get("unread_mentions") == unread


async def test_replay_tells_what_live_told(nursery: trio.Nursery, room: Chat, people: list[UserId]) -> None:
    """Unless something was changed since, a replayed event is the live one, byte for byte."""
    ann, bob, cid, _ = people
    where = await make_group(room, ann, bob)
    await until(lambda: room.hub.change_of(where) == 1)  # or live is told of that, too
    live = await dialled(nursery, room, bob)
    first, second, third = [
        (await say(room, ann, where, text)).message.message_id for text in ("1", "2", "3")
    ]
    await room.conversations.add(ann, where, cid, "member")
    await room.conversations.set_role(ann, where, cid, "admin")
    await room.conversations.remove(ann, where, cid)
    await room.messages.edit(ann, second, "edited")
    await room.messages.delete(ann, first)
    await room.conversations.describe(ann, where, {"title": "new"})
    for on in (True, False):
        await room.reactions.set(ann, third, "+1", on=on)
        await room.pins.set(ann, where, third, on=on)
    kept, gone = [await room.polls.create(ann, where, _QUESTION) for _ in range(2)]
    [yes, _] = (await room.polls.get(ann, kept)).poll.options
    await room.polls.vote(ann, kept, [yes.option_id])
    await room.polls.close(ann, kept)
    await room.polls.delete(ann, gone)
    await live.wait_for("poll_deleted")
    replayed = await back(nursery, room, bob, {where: 1})
    told, again = (
        {frame["change"]: frame for frame in socket.seen if "change" in frame} for socket in (live, replayed)
    )
    assert list(told) == list(again) == list(range(2, 23))
    otherwise = [(told[each]["type"], again[each]["type"]) for each in told if told[each] != again[each]]
    assert otherwise == [
        ("chat", "chat"),  # deleted since
        ("chat", "chat"),  # edited since
        ("conversation_updated", "conversation_updated"),  # `change` is the conversation's own
        ("poll_created", "poll_created"),
        ("poll_created", "poll_deleted"),
        ("poll_voted", "poll_voted"),
    ]


async def test_large_messages_are_replayed_in_small_rounds(
    nursery: trio.Nursery, room: Chat, people: list[UserId], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that reads slowly keeps one round in memory."""
    ann, bob, *_ = people
    where = await make_group(room, ann, bob)
    metadata = msgspec.Raw(msgspec.json.encode({"k": "x" * 6_992}))
    for _ in range(100):
        await store(room, room.messages.draft(ann, where, "x" * 3_000, metadata=metadata))
    rounds: list[int] = []
    read = Resume._read

    async def counted(self: Resume, *args: Any) -> Any:
        found = await read(self, *args)
        said = [event.message for event in found.events if event.message is not None]
        rounds.append(sum(len(each.content) + len(each.metadata or "") for each in said))
        return found

    monkeypatch.setattr(Resume, "_read", counted)
    socket = await back(nursery, room, bob, {where: 1})
    assert socket.changes(where) == list(range(2, 102))
    assert sum(rounds) >= 1_000_000
    assert max(rounds) <= ROUND_BYTES + CHUNK * 10_001


async def test_resume_names_every_conversation_of_the_caller(
    nursery: trio.Nursery, room: Chat, people: list[UserId]
) -> None:
    ann, bob, *_ = people
    kept, lost = await make_group(room, ann, bob), await make_group(room, ann, bob)
    await room.conversations.remove(ann, lost, bob)
    joined = await make_group(room, ann, bob)
    await say(room, ann, joined, "welcome")
    socket = await back(nursery, room, bob, {kept: 1, lost: 1, ConversationId(new_id()): 5})
    named = socket.of("resumed")[0]["conversations"]
    assert set(named) == {kept, joined}
    assert (named[joined]["change"], named[joined]["unread_count"]) == (2, 1)
    assert socket.of("chat", "gap") == []
    await say(room, ann, joined, "and more")
    assert await socket.wait_changes(joined, 3) == [3]


async def test_many_conversations_come_in_several_frames(
    nursery: trio.Nursery, room: Chat, people: list[UserId]
) -> None:
    ann, *_ = people
    places: list[ConversationId] = []

    async def make() -> None:
        places.append(await make_group(room, ann))

    async with trio.open_nursery() as makers:  # together, or it takes long
        for _ in range(501):
            makers.start_soon(make)
    socket = dial(nursery, room, ann, resume=True)
    half = dict.fromkeys(places[:300], 1)
    socket.tell("resume", history_id="history-1", conversations=half, more=True)
    socket.tell("resume", ref="r", history_id="history-1", conversations={places[400]: 0})
    await socket.wait_for("ack")
    one, two = socket.of("resumed")
    assert (len(one["conversations"]), one["more"]) == (500, True)
    assert (len(two["conversations"]), "more" in two) == (1, False)
    assert [frame["type"] for frame in socket.seen if frame.get("change")] == ["conversation_updated"]


@pytest.mark.parametrize("held", ["behind", "ahead", "at the head"])
async def test_another_history_is_all_gaps(
    nursery: trio.Nursery, room: Chat, people: list[UserId], held: str
) -> None:
    ann, *_ = people
    where, unnamed = await make_group(room, ann), await make_group(room, ann)
    for number in range(3):
        await say(room, ann, where, str(number))
    position = {"behind": 2, "ahead": 99, "at the head": 4}[held]
    socket = await back(nursery, room, ann, {where: position}, "another history")
    assert socket.of("gap") == [
        {"type": "gap", "conversation_id": where, "from_seq": 1, "to_seq": 3, "change": 4}
    ]
    assert unnamed in socket.of("resumed")[0]["conversations"]
    await say(room, ann, where, "live")
    assert await socket.wait_changes(where, 5) == [5]


async def test_a_position_ahead_of_the_table_is_a_gap(
    nursery: trio.Nursery, room: Chat, people: list[UserId]
) -> None:
    ann, *_ = people
    where = await make_group(room, ann)
    socket = await back(nursery, room, ann, {where: 2})
    assert [gap["change"] for gap in socket.of("gap")] == [1]


async def test_too_much_is_a_gap(db: Database, bus: MemoryBus, nursery: trio.Nursery) -> None:
    ann, *_ = await make_people(db, "ann")
    async with running(db, bus, ChatConfig(resume_changes=10, resume_total=25)) as room:
        places = [await make_group(room, ann) for _ in range(5)]
        for where, count in zip(places, (10, 11, 10, 5, 1), strict=True):
            for number in range(count):
                await say(room, ann, where, str(number))
        socket = await back(nursery, room, ann, dict.fromkeys(places, 1))
        gaps = {gap["conversation_id"] for gap in socket.of("gap")}
        assert places[1] in gaps, "more than 10 in one conversation"
        replayed = {where: len(socket.changes(where)) for where in places if where not in gaps}
        assert sum(replayed.values()) <= 25
        for where in places:
            head = socket.of("resumed")[0]["conversations"][where]["change"]
            assert socket.changes(where) == ([] if where in gaps else list(range(2, head + 1)))
            await say(room, ann, where, "live")
            assert (await socket.wait_changes(where, head + 1))[-1] == head + 1


async def test_what_is_too_old_is_a_gap(
    db: Database, room: Chat, nursery: trio.Nursery, people: list[UserId]
) -> None:
    ann, *_ = people
    where = await make_group(room, ann)
    old = (await say(room, ann, where, "old")).message
    await say(room, ann, where, "new")
    await _age(db, old.message_id, days=31)
    socket = await back(nursery, room, ann, {where: 1})
    assert [gap["change"] for gap in socket.of("gap")] == [3]
    later = await back(nursery, room, ann, {where: 2})
    assert later.of("gap") == []
    assert later.changes(where) == [3]


async def _age(db: Database, message: MessageId, *, days: int) -> None:
    async def age(tx: Tx) -> None:
        (sent_us,) = await tx.one("SELECT sent_at FROM messages WHERE message_id = $1", message) or (0,)
        earlier_us = sent_us - days * DAY_US
        await tx.run("UPDATE messages SET sent_at = $2 WHERE message_id = $1", message, earlier_us)

    await db.write(age)


async def test_retention_takes_a_prefix(
    db: Database, room: Chat, nursery: trio.Nursery, people: list[UserId]
) -> None:
    ann, bob, *_ = people
    where, other = await make_group(room, ann, bob), await make_group(room, ann, bob)
    for place in (where, other):
        for number in range(6):
            message = (await say(room, ann, place, str(number), f"{place}.{number}")).message
            if number < 4:
                await _age(db, message.message_id, days=3)
    third = (await history(room, ann, where))[2]
    await room.messages.edit(ann, third.message_id, "edited, and yet gone")
    listener = await dialled(nursery, room, bob)
    await room.conversations.configure(ann, where, {"message_retention_days": 2})
    assert await room.retention.pass_once() == 1
    assert await room.retention.pass_once() == 0, "safe to repeat"
    assert seqs(await history(room, ann, where)) == [5, 6]
    assert seqs(await history(room, ann, other)) == [1, 2, 3, 4, 5, 6]
    summary, _ = await room.conversations.get(bob, where)
    head = summary.seat.conversation
    assert (head.first_seq, head.min_change, head.last_seq, summary.unread_count) == (5, 5, 6, 2)
    updated = await listener.wait_for("conversation_updated", 2)
    assert updated["conversation"]["first_seq"] == 5
    # created 1, sent 2–7, edited 8, configured 9, shrunk 10
    below = await back(nursery, room, bob, {where: 4})
    assert [(gap["from_seq"], gap["to_seq"], gap["change"]) for gap in below.of("gap")] == [(5, 6, 10)]
    above = await back(nursery, room, bob, {where: 5})
    told = [(frame["type"], frame["change"]) for frame in above.seen if frame.get("change")]
    assert told == [
        ("chat", 6),
        ("chat", 7),
        ("message_deleted", 8),  # its message is gone
        ("conversation_updated", 9),
        ("conversation_updated", 10),
    ]
    assert await say(room, ann, where, "goes on") is not None


async def test_retention_of_the_server_and_of_the_conversation(db: Database, bus: MemoryBus) -> None:
    """The shorter of both counts, and more than one batch is taken batch by batch."""
    ann, *_ = await make_people(db, "ann")
    async with running(db, bus, ChatConfig(retention_days=5)) as room:
        long_, short = await make_group(room, ann), await make_group(room, ann)
        await room.conversations.configure(ann, long_, {"message_retention_days": 30})
        await room.conversations.configure(ann, short, {"message_retention_days": 2})
        with trio.fail_after(30):
            async with trio.open_nursery() as senders:
                for where in (long_, short):
                    for number in range(520):
                        senders.start_soon(say, room, ann, where, str(number))

        async def age(tx: Tx) -> None:
            await tx.run("UPDATE messages SET sent_at = $1", db.now_us() - 3 * DAY_US)

        await db.write(age)
        assert await room.retention.pass_once() == 2
        assert len(await history(room, ann, long_)) == 520
        assert await history(room, ann, short) == []
        assert (await say(room, ann, short, "next")).message.seq == 521


async def test_retention_stops_when_its_term_is_lifted(db: Database, bus: MemoryBus) -> None:
    """What was still there when somebody thought better of it stays."""
    ann, *_ = await make_people(db, "ann")
    async with running(db, bus) as room:
        where = await make_group(room, ann)
        await room.conversations.configure(ann, where, {"message_retention_days": 2})
        message = (await say(room, ann, where, "old")).message
        await _age(db, message.message_id, days=3)
        await room.conversations.configure(ann, where, {"message_retention_days": 0})
        before_us = db.now_us() - 2 * DAY_US
        assert await room.retention.drop(where, 2, before_us) is False
        assert seqs(await history(room, ann, where)) == [1]


async def test_what_is_not_visible_is_not_replayed(
    nursery: trio.Nursery, room: Chat, people: list[UserId]
) -> None:
    ann, bob, cid, _ = people
    where = await make_group(room, ann, bob)
    early = (await say(room, ann, where, "early")).message
    await room.conversations.add(ann, where, cid, "member")
    await room.messages.edit(ann, early.message_id, "early, edited")
    await say(room, ann, where, "late")
    await room.messages.delete(ann, early.message_id)
    socket = await back(nursery, room, cid, {where: 2})
    told = [(frame["type"], frame["change"]) for frame in socket.seen if frame.get("change")]
    assert told == [("user_joined", 3), ("chat", 4), ("chat", 6)]
    assert socket.of("resumed")[0]["conversations"][where]["first_seq"] == 2


async def test_a_socket_that_must_resume_first(db: Database, bus: MemoryBus, nursery: trio.Nursery) -> None:
    ann, *_ = await make_people(db, "ann")
    async with running(db, bus, ChatConfig(resume_wait_s=0.1)) as room:
        where = await make_group(room, ann)
        silent = dial(nursery, room, ann, resume=True)
        await say(room, ann, where, "not yet")
        assert await silent.wait_closed() == Close.SILENT
        assert [frame["type"] for frame in silent.seen] == ["hello"]
        hasty = dial(nursery, room, ann, resume=True)
        hasty.tell("ping")
        assert await hasty.wait_closed() == Close.BAD_FRAME


async def test_a_socket_of_one_conversation_resumes_that(
    nursery: trio.Nursery, room: Chat, people: list[UserId]
) -> None:
    ann, *_ = people
    here, there = await make_group(room, ann), await make_group(room, ann)
    for where in (here, there):
        await say(room, ann, where, "x")
    socket = dial(nursery, room, ann, only=here, resume=True)
    resume_from(socket, {here: 1, there: 1})
    resumed = await socket.wait_for("resumed")
    assert set(resumed["conversations"]) == {here}
    assert [frame["conversation_id"] for frame in socket.of("chat")] == [here]


async def test_a_conversation_lost_before_its_socket_resumed(
    nursery: trio.Nursery, room: Chat, people: list[UserId]
) -> None:
    ann, bob, *_ = people
    where = await make_group(room, ann, bob)
    socket = await dialled(nursery, room, bob, only=where, resume=True)
    await room.conversations.remove(ann, where, bob)
    resume_from(socket, {where: 1})
    assert await socket.wait_closed() == Close.NOT_FOUND
    assert socket.of("resumed") == []


async def test_a_client_that_stops_reading_while_it_resumes_holds_up_nobody(
    nursery: trio.Nursery, room: Chat, people: list[UserId]
) -> None:
    ann, bob, *_ = people
    where = await make_group(room, ann, bob)
    for number in range(20):
        await say(room, ann, where, str(number))
    await until(lambda: room.hub.change_of(where) == 21)  # or the room tells swift what it reads of them
    stuck = dial(nursery, room, bob, resume=True)
    stuck.gate = trio.Event()
    resume_from(stuck, {where: 1})
    swift = await dialled(nursery, room, ann)
    for number in range(20):
        await say(room, ann, where, str(number))
    assert len(await swift.wait_changes(where, 41)) == 20
    stuck.gate.set()
    assert await stuck.wait_changes(where, 41) == list(range(2, 42))


@pytest.mark.parametrize("is_removed", [True, False])
async def test_what_could_not_be_held_is_in_the_standings(
    db: Database, bus: MemoryBus, nursery: trio.Nursery, is_removed: bool
) -> None:
    """More happens during the replay than is held: `resumed` tells how things stand after all of that."""
    ann, bob = await make_people(db, "ann", "bob")
    async with running(db, bus, ChatConfig(resume_held=1)) as room:
        where = await make_group(room, ann, bob)
        await say(room, ann, where, "missed")
        stuck = dial(nursery, room, bob, resume=True)
        stuck.gate = trio.Event()
        resume_from(stuck, {where: 1})
        with trio.fail_after(5):
            while not room.hub.is_connected(bob):
                await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked(0.01)
        await say(room, ann, where, "held")
        if is_removed:
            await room.conversations.remove(ann, where, bob)
        else:
            await room.conversations.mark_read(bob, where, 2)
        await say(room, ann, where, "last")
        stuck.gate.set()
        await stuck.wait_for("resumed")
        await trio.testing.wait_all_tasks_blocked(0.01)
        (resumed,) = stuck.of("resumed")
        if is_removed:
            assert resumed["conversations"] == {}
            assert stuck.changes(where) == [2]
        else:
            line = resumed["conversations"][where]
            assert (line["last_read_seq"], line["unread_count"], line["change"]) == (2, 1, 4)
            assert stuck.changes(where) == [2, 3, 4]


@pytest.mark.parametrize("history_id", ["history-1", "another history"])
async def test_one_left_and_joined_again_during_the_replay(
    db: Database, bus: MemoryBus, nursery: trio.Nursery, history_id: str
) -> None:
    """A round that does not find the conversation leaves its position for the next that does."""
    ann, bob = await make_people(db, "ann", "bob")
    async with running(db, bus, ChatConfig(resume_held=1)) as room:
        other, where = await make_group(room, ann, bob), await make_group(room, ann, bob)
        await say(room, ann, other, "missed")
        await say(room, ann, where, "missed")
        await room.conversations.remove(ann, where, bob)
        stuck = dial(nursery, room, bob, resume=True)
        stuck.gate = trio.Event()
        resume_from(stuck, {other: 1, where: 1}, history_id)
        with trio.fail_after(5):
            while not room.hub.is_connected(bob):
                await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked(0.01)
        await say(room, ann, other, "held")
        await room.conversations.add(ann, where, bob, "member")
        await say(room, ann, where, "last")
        stuck.gate.set()
        await stuck.wait_for("resumed")
        if history_id == "history-1":
            assert stuck.changes(where) == [3, 5, 6, 7], "left, joined, and what was said then"
        else:
            assert [gap["change"] for gap in stuck.of("gap") if gap["conversation_id"] == where] == [7]


@pytest.mark.parametrize("held_back", [1, 1_000])
async def test_joining_the_stream_while_everybody_writes(
    db: Database, bus: MemoryBus, held_back: int
) -> None:
    """Clients come, go and come back at random while messages, edits and deletes go on in four conversations.

    Each puts together what its sockets told it, and in the end holds every change once, in order. With a
    small hold the stream outruns the replay, and further rounds must read what could not be held.
    """
    chance = random.Random(23)
    people = await make_people(db, *(f"user{number}" for number in range(6)))
    config = ChatConfig(resume_changes=10_000, resume_total=100_000, resume_held=held_back)
    async with running(db, bus, config) as room:
        places = [await make_group(room, *people) for _ in range(4)]
        held: list[dict[str, list[int]]] = [{where: [1] for where in places} for _ in people]
        writing = True

        async def write(me: UserId) -> None:
            nonlocal writing
            mine: list[MessageId] = []
            for number in range(40):
                stored = await say(room, me, chance.choice(places), str(number))
                mine.append(stored.message.message_id)
                if chance.random() < 0.2:
                    await room.messages.edit(me, mine[-1], "edited")
                if chance.random() < 0.1:
                    await room.messages.delete(me, mine.pop())

        async def follow(number: int) -> None:
            """Come back until nobody writes and nothing is missing."""
            mine = held[number]
            while True:
                last = not writing
                async with trio.open_nursery() as nursery:
                    socket = dial(nursery, room, people[number], resume=True)
                    resume_from(socket, {where: changes[-1] for where, changes in mine.items()})
                    resumed = await socket.wait_for("resumed")
                    if not last:
                        for _ in range(chance.randrange(100)):
                            await trio.lowlevel.checkpoint()
                    nursery.cancel_scope.cancel()
                for where, changes in mine.items():
                    changes += socket.changes(where)
                if last:
                    heads = {where: line["change"] for where, line in resumed["conversations"].items()}
                    assert {where: changes[-1] for where, changes in mine.items()} == heads
                    return

        with trio.fail_after(60):  # some 10 s on a busy machine
            async with trio.open_nursery() as followers:
                for number in range(6):
                    followers.start_soon(follow, number)
                async with trio.open_nursery() as writers:
                    for person in people:
                        writers.start_soon(write, person)
                writing = False
        for where in places:
            head = held[0][where][-1]
            for mine in held:
                assert mine[where] == list(range(1, head + 1))
