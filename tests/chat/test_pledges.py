"""The database goes away and comes back: what was accepted is stored, once and in order, or returned."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import structlog
import trio

from kit.outage import Interrupted
from kit.wait import until
from secureconnect.chat import Chat, catchup
from secureconnect.chat.append import Stored, append
from secureconnect.chat.pledges import TOPIC, Accepted
from secureconnect.chat.routes import AcceptedShape, NewMessage, send_message
from secureconnect.clock import MINUTE_US
from secureconnect.config import ChatConfig, JournalConfig
from secureconnect.deps.contracts import Database, Tx
from secureconnect.deps.journal import FileJournal
from secureconnect.deps.memory import MemoryBus
from secureconnect.deps.sqlite import Sqlite
from secureconnect.edge import Call
from secureconnect.errors import (
    ClientMessageIdReused,
    DiskFull,
    E2eeRequired,
    NotFound,
    OutcomeUnknown,
    PoolExhausted,
    Problem,
    Unavailable,
)
from secureconnect.identity import ConversationId, UserId

from .rig import (
    Json,
    MemorySocket,
    block,
    dial,
    dialled,
    history,
    make_group,
    make_people,
    principal_of,
    resume_from,
    running,
    say,
    seqs,
)

FAST = ChatConfig(catch_up_ms=100)
MINUTE_S = 60.0


class Scene(NamedTuple):
    """Ann and Bob have a group and a conversation of their own, with a message in each; both have sockets."""

    room: Chat
    db: Interrupted
    journal: FileJournal
    ann: UserId
    bob: UserId
    group: ConversationId
    direct: ConversationId
    anns: MemorySocket
    bobs: MemorySocket

    async def accept(self, text: str, key: str | None = None, where: str | None = None) -> Accepted:
        answer = await self.send(text, key, where)
        assert isinstance(answer, Accepted)
        return answer

    async def send(
        self, text: str, key: str | None = None, where: str | None = None, sender: UserId | None = None
    ) -> Stored | Accepted:
        draft = self.room.messages.draft(
            sender or self.ann, where or self.group, text, client_message_id=key or text
        )
        return await self.room.messages.send(draft)

    async def is_known(self) -> None:
        """Until the node would accept messages without asking: it may still be reading what came late."""
        both = (self.group, self.direct)
        await until(lambda: all(self.room.hub.trusted(each, self.ann, MINUTE_S) for each in both))

    async def told(self) -> list[str]:
        return [message.content for message in await history(self.room, self.bob, self.group)]

    async def records(self) -> int:
        return len(await self.journal.read(TOPIC, 0, 10_000))

    async def settled(self) -> None:
        """Until the journal is empty."""
        await until(self._is_settled)

    async def _is_settled(self) -> bool:
        return await self.records() == 0


@asynccontextmanager
async def scene(
    db: Sqlite,
    bus: MemoryBus,
    folder: Path,
    nursery: trio.Nursery,
    config: JournalConfig | None = None,
) -> AsyncIterator[Scene]:
    config = config or JournalConfig(retry_s=0.05)
    away = Interrupted(db)
    ann, bob = await make_people(db, "ann", "bob")
    async with (
        FileJournal.open(folder / "journal", config) as journal,
        running(away, bus, FAST, journal, config) as room,
    ):
        group = await make_group(room, ann, bob)
        direct, _ = await room.conversations.create(ann, "direct", None, [bob], False)
        anns, bobs = await dialled(nursery, room, ann), await dialled(nursery, room, bob)
        for where in (group, direct):
            await say(room, ann, where, "before")
        await bobs.wait_for("chat", 2)
        here = Scene(room, away, journal, ann, bob, group, direct, anns, bobs)
        await here.is_known()
        yield here


@pytest.fixture
async def here(db: Sqlite, bus: MemoryBus, data_dir: Path, nursery: trio.Nursery) -> AsyncIterator[Scene]:
    async with scene(db, bus, data_dir, nursery) as here:
        yield here


def shown(socket: MemorySocket) -> list[tuple[str, int | None]]:
    """Contents and numbers of the messages after the first two."""
    return [(frame["content"], frame["seq"]) for frame in socket.of("chat")][2:]


async def test_accepted_shown_stored(here: Scene) -> None:
    here.db.go_away()
    here.anns.tell("chat", ref=7, conversation_id=here.group, content="one", client_message_id="id-1")
    ack = await here.anns.wait_for("ack")
    assert (ack["ref"], ack["status"], ack["seq"], ack["client_message_id"]) == (7, "accepted", None, "id-1")
    provisional = await here.bobs.wait_for("chat", 3)
    assert provisional["provisional"] is True
    assert provisional["message_id"] == ack["message_id"]
    assert provisional["sent_at"] == ack["sent_at"]
    assert (provisional["seq"], provisional["change"], provisional["content"]) == (None, None, "one")
    assert await here.records() == 1, "on the disk before it was said"

    here.db.come_back()
    stored = await here.anns.wait_for("stored")
    chat = await here.bobs.wait_for("chat", 4)
    assert set(chat) | {"provisional"} == set(provisional)
    assert (chat["message_id"], chat["seq"], chat["change"]) == (ack["message_id"], 2, 3)
    assert {key: value for key, value in stored.items() if key != "type"} == {
        "client_message_id": "id-1",
        "conversation_id": here.group,
        "status": "stored",
        "message_id": ack["message_id"],
        "seq": 2,
        "sent_at": chat["sent_at"],
    }
    assert here.bobs.of("stored") == [], "said to its sender alone"
    await here.settled()
    assert await here.told() == ["before", "one"]


async def test_order_over_an_outage(here: Scene) -> None:
    """Before, during, while it ends, and after: each is stored once, in the order it was sent."""
    answers: list[Stored | Accepted | Problem] = []
    sent = 0

    async def send(count: int) -> None:
        nonlocal sent
        for _ in range(count):
            sent += 1
            text = str(sent)
            draft = here.room.messages.draft(here.ann, here.group, text, client_message_id=text)
            here.room.writer.send(draft, answers.append)
            await trio.lowlevel.checkpoint()
        await until(lambda: len(answers) == sent)

    await send(20)
    here.db.go_away()
    await send(300)
    assert all(isinstance(answer, Accepted) for answer in answers[20:])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, 300)
        here.db.come_back()
    await here.settled()
    await send(20)
    assert all(isinstance(answer, Stored) for answer in answers[-20:])
    assert await here.told() == ["before", *map(str, range(1, sent + 1))]
    for socket in (here.anns, here.bobs):
        changes = await socket.wait_changes(here.group, sent + 2)
        numbered = [change for change in changes if change is not None]
        assert numbered == sorted(set(numbered))
        assert len([frame for frame in socket.of("chat") if frame["seq"]]) == sent + 2


async def test_a_flapping_database_keeps_the_order(here: Scene) -> None:
    async def flap() -> None:
        for problem in (Unavailable, OutcomeUnknown, Unavailable) * 5:
            here.db.go_away(problem)
            await trio.sleep(0.02)
            here.db.come_back()
            await trio.sleep(0.02)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flap)
        for number in range(200):
            answer = await here.send(str(number))
            assert not isinstance(answer, Problem)
    await here.settled()
    assert await here.told() == ["before", *map(str, range(200))]


async def test_sent_again_during_and_after(here: Scene) -> None:
    here.db.go_away()
    first = await here.accept("one", "id-1")
    again = await here.accept("another text", "id-1")
    assert again == first
    with pytest.raises(ClientMessageIdReused):
        await here.accept("one", "id-1", here.direct)
    assert await here.records() == 1
    here.db.come_back()
    await here.settled()
    later = await here.send("one", "id-1")
    assert isinstance(later, Stored)
    assert (later.message.message_id, later.message.content, later.fresh) == (first.message_id, "one", False)
    assert await here.told() == ["before", "one"]
    await here.bobs.wait_for("chat", 4)
    assert shown(here.bobs) == [("one", None), ("one", 2)]


async def test_an_attempt_whose_outcome_is_unknown_is_stored_once(here: Scene) -> None:
    here.db.loses_answers = True  # it commits, and then the connection breaks
    answer = await here.accept("one", "id-1")
    here.db.come_back()
    stored = await here.anns.wait_for("stored")
    assert stored["message_id"] == answer.message_id
    await here.settled()
    assert await here.told() == ["before", "one"]
    await until(lambda: ("one", 2) in shown(here.bobs))
    assert len([each for each in shown(here.bobs) if each[1]]) == 1


async def test_an_attempt_that_was_not_made_is_stored_once(here: Scene) -> None:
    here.db.go_away(OutcomeUnknown)
    await here.accept("one")
    here.db.come_back()
    await here.settled()
    assert await here.told() == ["before", "one"]


async def test_a_sender_removed_meanwhile_gets_the_reason_and_others_see_it_go(here: Scene) -> None:
    here.db.go_away()
    accepted = await here.send("from Bob", "id-1", sender=here.bob)
    assert isinstance(accepted, Accepted)
    await here.accept("from Ann")
    await here.anns.wait_for("chat", 4)
    await leave(here.db.inner, here.group, here.bob)  # on another node, whose database came back earlier
    here.db.come_back()
    rejected = await here.bobs.wait_for("rejected")
    assert rejected == {
        "type": "rejected",
        "client_message_id": "id-1",
        "conversation_id": here.group,
        "code": "NOT_FOUND",
        "message": NotFound.text,
    }
    for socket in (here.anns, here.bobs):
        withdrawn = await socket.wait_for("message_withdrawn")
        assert withdrawn == {
            "type": "message_withdrawn",
            "conversation_id": here.group,
            "message_id": accepted.message_id,
        }
    await here.settled()
    found = await history(here.room, here.ann, here.group)
    assert [message.content for message in found] == ["before", "from Ann"]
    assert here.anns.of("rejected") == []
    with pytest.raises(NotFound):
        await here.send("from Bob", "id-1", sender=here.bob)


async def leave(db: Database, where: ConversationId, user: UserId) -> None:
    async def remove(tx: Tx) -> None:
        await tx.run("DELETE FROM members WHERE conversation_id = $1 AND user_id = $2", where, user)

    await db.write(remove)


async def erase(db: Database, user: UserId) -> None:
    async def unit(tx: Tx) -> None:
        await tx.run("UPDATE users SET erased_at = created_at WHERE user_id = $1", user)

    await db.write(unit)


async def test_a_block_set_meanwhile_holds(here: Scene) -> None:
    here.db.go_away()
    await here.accept("one", where=here.direct)
    await block(here.db.inner, here.bob, here.ann)
    here.db.come_back()
    assert (await here.anns.wait_for("rejected"))["code"] == "FORBIDDEN"
    assert await here.bobs.wait_for("message_withdrawn")
    await here.settled()


async def test_what_cannot_be_stored_is_returned_and_holds_up_nobody(here: Scene) -> None:
    here.db.go_away()
    for text in ("one", "poison", "two"):
        await here.accept(text)
    here.db.poison = "poison"
    with structlog.testing.capture_logs() as logged:
        here.db.come_back()
        assert (await here.anns.wait_for("rejected"))["code"] == "INTERNAL"
        await here.settled()
    assert [line["event"] for line in logged if line["log_level"] == "error"] == ["message_not_storable"]
    assert await here.told() == ["before", "one", "two"]


@pytest.mark.parametrize("problem", [PoolExhausted, DiskFull])
async def test_a_busy_or_full_database_is_not_away(here: Scene, problem: type[Problem]) -> None:
    here.db.go_away(problem)
    with pytest.raises(problem):
        await here.send("one")
    here.anns.tell("chat", ref=1, conversation_id=here.group, content="one")
    assert (await here.anns.wait_for("error"))["code"] == problem.code
    assert await here.records() == 0


@pytest.mark.parametrize("problem", [PoolExhausted, DiskFull])
async def test_nothing_is_returned_because_the_database_is_busy_or_full(
    here: Scene, problem: type[Problem]
) -> None:
    here.db.go_away()
    await here.accept("one")
    here.db.go_away(problem)
    refused = here.db.refused
    await until(lambda: here.db.refused > refused + 2)
    await here.accept("two")
    here.db.come_back()
    await here.settled()
    assert here.anns.of("rejected") == []
    assert await here.told() == ["before", "one", "two"]


async def test_only_what_this_node_knows_is_accepted(here: Scene, nursery: trio.Nursery) -> None:
    [cid] = await make_people(here.db.inner, "cid")
    sealed = await make_group(here.room, here.ann, here.bob)
    await say(here.room, here.ann, sealed, "before")
    await here.room.conversations.configure(here.ann, sealed, {"is_e2ee_enabled": True})
    await here.bobs.wait_for("conversation_updated", 2)
    here.db.go_away()
    with pytest.raises(Unavailable):
        await here.send("to strangers", sender=cid)
    with pytest.raises(Unavailable):
        await here.send("to nowhere", where=cid)
    with pytest.raises(E2eeRequired):
        await here.send("in clear", where=sealed)
    draft = here.room.messages.draft(here.ann, sealed, "c2VhbGVk", is_encrypted=True)
    assert isinstance(await here.room.messages.send(draft), Accepted)
    assert await here.records() == 1


def is_shut(here: Scene) -> bool:
    """Whether the room knows that the two cannot write to each other."""
    return here.room.hub.trusted(here.direct, here.ann, JournalConfig().trust_s) is None


async def test_blocks_are_looked_at_each_minute(here: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catchup, "BLOCKS_S", 0.0)
    await block(here.db.inner, here.bob, here.ann)
    here.db.ahead_us = 2 * MINUTE_US
    await until(lambda: is_shut(here))  # whichever pass looks
    here.db.go_away()
    with pytest.raises(Unavailable):
        await here.send("one", where=here.direct)
    await here.accept("one", where=here.group)


async def test_nothing_is_accepted_for_who_is_erased(here: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catchup, "BLOCKS_S", 0.0)
    await erase(here.db.inner, here.bob)
    here.db.ahead_us = 2 * MINUTE_US
    await until(lambda: is_shut(here))  # whichever pass looks
    here.db.go_away()
    with pytest.raises(Unavailable):
        await here.send("one", where=here.direct)


async def test_an_erasure_meanwhile_is_told(here: Scene) -> None:
    here.db.go_away()
    await here.accept("one", where=here.direct)
    await erase(here.db.inner, here.bob)
    here.db.come_back()
    assert (await here.anns.wait_for("rejected"))["code"] == "ACCOUNT_DELETED"
    await here.settled()


async def test_a_block_of_just_now_holds_without_the_database(here: Scene) -> None:
    """Nobody is shown a message, or somebody who types, only to have it taken back."""
    await block(here.db.inner, here.bob, here.ann)
    here.room.part(here.bob, here.ann)
    here.db.go_away()
    with pytest.raises(Unavailable):
        await here.send("one", where=here.direct)
    for where in (here.direct, here.group):
        here.anns.tell("typing", ref=where, conversation_id=where, is_typing=True)
    assert (await here.bobs.wait_for("typing"))["conversation_id"] == here.group


async def test_typing_is_seen_without_the_database(here: Scene) -> None:
    here.db.go_away()
    here.anns.tell("typing", conversation_id=here.direct, is_typing=True)
    assert (await here.bobs.wait_for("typing"))["conversation_id"] == here.direct


async def test_over_http(here: Scene) -> None:
    def call(text: str, key: str) -> Call:
        body = NewMessage(here.group, text, client_message_id=key)
        return Call("request", "127.0.0.1", float("inf"), principal_of(here.bob), body=body)

    here.db.go_away()
    first, other = await send_message(here.room, call("one", "id-1")), call("two", "id-2")
    assert first.status == 202
    assert isinstance(first.data, AcceptedShape)
    assert (first.data.status, first.data.client_message_id, first.data.seq) == ("accepted", "id-1", None)
    again = await send_message(here.room, call("one", "id-1"))
    assert (again.status, again.data) == (202, first.data)
    here.db.come_back()
    await here.settled()
    stored = await send_message(here.room, call("one", "id-1"))
    assert (stored.status, stored.data.message_id, stored.data.seq) == (200, first.data.message_id, 2)

    here.db.go_away()
    assert (await send_message(here.room, other)).status == 202
    await leave(here.db.inner, here.group, here.bob)
    here.db.come_back()
    await here.settled()
    with pytest.raises(NotFound):
        await send_message(here.room, other)


async def test_a_full_journal_refuses(
    db: Sqlite, bus: MemoryBus, data_dir: Path, nursery: trio.Nursery
) -> None:
    config = JournalConfig(limit_mb=1, retry_s=0.05)
    async with scene(db, bus, data_dir, nursery, config) as here:
        here.db.go_away()
        accepted = 0
        with pytest.raises(Unavailable):  # noqa: PT012
            while True:
                await here.accept("x" * 10_000, str(accepted))
                accepted += 1
        assert 90 < accepted < 110
        here.db.come_back()
        await here.settled()
        assert len(await here.told()) == accepted + 1
        assert isinstance(await here.send("there is room again"), Stored)


async def test_it_is_said_in_the_log(here: Scene) -> None:
    with structlog.testing.capture_logs() as logged:
        here.db.go_away()
        for text in ("one", "two"):
            await here.accept(text)
        here.db.come_back()
        await here.settled()
        await until(lambda: any(line["event"] == "journal_replayed" for line in logged))
    lines = {line["event"]: line for line in logged if line["event"].startswith("journal")}
    assert set(lines) == {"journal_began", "journal_replayed"}
    assert lines["journal_began"]["reason"] == "UNAVAILABLE"
    assert (lines["journal_replayed"]["stored"], lines["journal_replayed"]["rejected"]) == (2, 0)


# sockets


async def test_provisional_messages_are_never_replayed(here: Scene, nursery: trio.Nursery) -> None:
    here.db.go_away()
    await here.accept("one")
    late = dial(nursery, here.room, here.bob)
    await late.wait_for("hello")
    here.db.come_back()
    resuming = dial(nursery, here.room, here.bob, resume=True)
    resume_from(resuming, {here.group: 2, here.direct: 2})
    await here.settled()
    await resuming.wait_for("resumed")
    for socket in (late, resuming):
        await until(lambda: ("one", 2) in contents(socket.of("chat")))  # noqa: B023
        assert contents(socket.of("chat")) == [("one", 2)]


def contents(frames: list[Json]) -> list[tuple[str, int | None]]:
    return [(frame["content"], frame["seq"]) for frame in frames]


async def test_sockets_of_one_conversation(here: Scene, nursery: trio.Nursery) -> None:
    same = await dialled(nursery, here.room, here.ann, only=here.group)
    other = await dialled(nursery, here.room, here.ann, only=here.direct)
    here.db.go_away()
    await here.accept("one")
    await same.wait_for("chat")
    here.db.come_back()
    await same.wait_for("stored")
    await here.settled()
    assert [frame["type"] for frame in other.seen] == ["hello"]


async def test_other_nodes_see_it_too(here: Scene, bus: MemoryBus, nursery: trio.Nursery) -> None:
    away = Interrupted(here.db.inner)
    async with running(away, bus, FAST) as far:
        listener = await dialled(nursery, far, here.bob)
        await say(here.room, here.ann, here.group, "both know it")
        await listener.wait_for("chat")
        for db in (here.db, away):
            db.go_away()
        first = await here.accept("one")
        second = await here.send("two", sender=here.bob)
        assert isinstance(second, Accepted)
        assert (await listener.wait_for("chat", 3))["provisional"] is True
        await leave(here.db.inner, here.group, here.bob)
        for db in (here.db, away):
            db.come_back()
        withdrawn = await listener.wait_for("message_withdrawn")
        assert withdrawn["message_id"] == second.message_id
        chat = await listener.wait_for("chat", 4)
        assert (chat["message_id"], chat["seq"]) == (first.message_id, 3)
        assert listener.of("rejected", "stored") == []


# over restarts


async def test_what_an_earlier_run_accepted_comes_first(
    here: Scene, bus: MemoryBus, nursery: trio.Nursery
) -> None:
    """The room ends in the middle of the outage. The next one stores what the first had accepted, before
    anything that is sent to it, however early that is."""
    here.db.go_away()
    for number in range(100):
        await here.accept(str(number))
    async with running(here.db.inner, bus, FAST, here.journal) as next_:
        listener = await dialled(nursery, next_, here.bob)
        await say(next_, here.ann, here.group, "new")
        found = await history(next_, here.bob, here.group)
        assert [message.content for message in found] == ["before", *map(str, range(100)), "new"]
        assert seqs(found) == list(range(1, 103))
        await until(lambda: len(listener.of("chat")) == 101)
        assert await here.records() == 0


async def test_after_a_crash_between_commit_and_note_nothing_is_stored_twice(
    here: Scene, bus: MemoryBus
) -> None:
    here.db.go_away()
    for text in ("one", "two"):
        await here.accept(text)
    [record, _] = await here.journal.read(TOPIC, 0, 10)
    draft = here.room.messages.draft(here.ann, here.group, "one", client_message_id="one")
    await here.db.inner.write(append, [draft], here.db.now_us)
    assert record.number in [each.number for each in await here.journal.read(TOPIC, 0, 10)]
    async with running(here.db.inner, bus, FAST, here.journal) as next_:
        await here.settled()
        found = await history(next_, here.bob, here.group)
        assert [message.content for message in found] == ["before", "one", "two"]


async def test_a_record_of_a_later_version_is_left_alone(here: Scene, bus: MemoryBus) -> None:
    here.db.go_away()
    await here.journal.append(TOPIC, [b"from the future"])
    await here.accept("one")
    with structlog.testing.capture_logs() as logged:
        async with running(here.db.inner, bus, FAST, here.journal) as next_:
            stored = await say(next_, here.ann, here.group, "two")
            assert stored.message.seq == 3
        said = [line["event"] for line in logged if line["log_level"] == "error"]
        unreadable, lost = said.count("journal_record_unreadable"), said.count("journal_lost_records")
        assert unreadable in (1, 2), "once by each room"
        assert lost in (0, 1), "the first room still looks for what the next one has stored"
        assert len(said) == unreadable + lost
    [record] = await here.journal.read(TOPIC, 0, 10)
    assert record.payload == b"from the future"
