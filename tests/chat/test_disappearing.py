"""Messages that disappear: from their end on nobody is shown them, and then they are gone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
import trio

from kit.databases import on_sqlite
from kit.outage import Interrupted
from kit.wait import until
from secureconnect.chat import Chat, disappearing
from secureconnect.chat.disappearing import CARRIERS
from secureconnect.chat.mentions import store as mentions
from secureconnect.chat.polls.polls import Question
from secureconnect.chat.store import LAST_ID, Message
from secureconnect.clock import SECOND_US
from secureconnect.config import ChatConfig
from secureconnect.deps.contracts import Database, Tx
from secureconnect.deps.memory import MemoryBus
from secureconnect.errors import MessageDeleted, NotFound, Unavailable
from secureconnect.identity import ConversationId, MessageId, PollId, UserId

from .rig import back, dialled, make_group, make_people, read_page, running, say, store

NEVER = ChatConfig(disappear_pass_s=3_600, poll_pass_s=3_600, catch_up_ms=100)
AFTER_S = 60
UP = "\N{THUMBS UP SIGN}"


@dataclass
class Scene:
    """A group whose messages disappear, with one; nothing deletes it but `pass_once`."""

    db: Interrupted
    room: Chat
    ann: UserId
    bob: UserId
    group: ConversationId
    message: Message

    def end(self) -> None:
        """Let its time pass."""
        self.db.ahead_us += (AFTER_S + 1) * SECOND_US

    async def head(self) -> int:
        summary = await self.room.conversations.summary(self.ann, self.group)
        return summary.seat.conversation.last_change


@pytest.fixture
async def here(db: Database, bus: MemoryBus) -> AsyncIterator[Scene]:
    shifted = Interrupted(db)
    ann, bob = await make_people(db, "ann", "bob")
    async with running(shifted, bus, NEVER) as room:
        group = await make_group(room, ann, bob)
        await room.conversations.configure(ann, group, {"disappear_after_s": AFTER_S})
        metadata = msgspec.Raw(msgspec.json.encode({"mentions": [bob], "k": "secret"}))
        sent = await store(room, room.messages.draft(ann, group, "a secret", metadata=metadata))
        yield Scene(shifted, room, ann, bob, group, sent.message)


async def test_a_message_gets_its_end_when_it_is_stored(here: Scene) -> None:
    assert here.message.expires_us == here.message.sent_us + AFTER_S * SECOND_US
    assert (await here.room.messages.get(here.bob, here.message.message_id)).content == "a secret"
    await here.room.conversations.configure(here.ann, here.group, {"disappear_after_s": 0})
    assert (await say(here.room, here.ann, here.group, "stays")).message.expires_us is None
    here.end()
    assert await here.room.disappearing.pass_once() == 1
    page = await read_page(here.room, here.bob, here.group, 10)
    said = [each.content for each in page.messages if each.message_type != "system"]
    assert said == ["", "stays"], "and what is said of the conversation itself stays, too"


async def test_from_its_end_on_nobody_is_shown_it(nursery: trio.Nursery, here: Scene) -> None:
    message, room = here.message.message_id, here.room
    before = await here.head()
    await room.messages.edit(here.ann, message, "another secret")
    await room.reactions.set(here.bob, message, UP, on=True)
    here.end()
    shown = await room.messages.get(here.ann, message)
    assert (shown.content, shown.metadata, shown.reactions) == ("", None, ())
    assert shown.deleted_us == here.message.expires_us
    assert (await read_page(room, here.bob, here.group, 10)).messages[-1] == shown
    summary = await room.conversations.summary(here.bob, here.group)
    assert summary.last_message == shown._replace(reactions=())
    again = room.messages.draft(here.ann, here.group, "x", client_message_id=here.message.client_message_id)
    assert (await store(room, again)).message == shown
    later = await back(nursery, room, here.bob, {here.group: before - 1})
    assert "secret" not in repr(later.seen)
    assert [each["change"] for each in later.of("message_deleted")] == [before + 1, before + 2]
    for refused in (
        room.messages.edit(here.ann, message, "x"),
        room.reactions.set(here.bob, message, UP, on=True),
        room.versions.page(here.bob, message, 0, 10),
        room.forwards.send(here.bob, message, [here.group], "id"),
    ):
        with pytest.raises(MessageDeleted):
            await refused
    assert "secret" not in repr(
        [each async for each in room.export_of(here.ann) if each["kind"] == "message"]
    )


async def test_its_deletion_is_told_and_leaves_nothing(nursery: trio.Nursery, here: Scene) -> None:
    message = here.message
    await here.room.messages.edit(here.ann, message.message_id, "another secret")
    await here.room.reactions.set(here.bob, message.message_id, UP, on=True)
    before = await here.head()
    live = await dialled(nursery, here.room, here.bob)
    assert await here.room.disappearing.pass_once() == 0, "not yet"
    here.end()
    shown = await here.room.messages.get(here.bob, message.message_id)
    assert await here.room.disappearing.pass_once() == 1
    assert await here.room.disappearing.pass_once() == 0
    told = await live.wait_for("message_deleted")
    assert (told["message_id"], told["change"]) == (message.message_id, before + 1)
    assert await here.room.messages.get(here.bob, message.message_id) == shown
    assert (await here.room.conversations.summary(here.bob, here.group)).unread_count == 0
    for table in ("messages", "message_versions", "mentions", "reactions", "changes", "audit"):
        rows = await here.db.inner.read(lambda tx, sql: tx.all(sql), f"SELECT * FROM {table}")
        assert "secret" not in repr(rows)
    assert await here.db.inner.read(mentions.of_message, here.group, message.seq) == []
    later = await back(nursery, here.room, here.bob, {here.group: before})
    assert later.of("message_deleted") == [told]


async def test_polls_disappear_with_them(nursery: trio.Nursery, here: Scene) -> None:
    room, ann, bob = here.room, here.ann, here.bob
    question = Question("a secret?", ["yes", "no"], "single", True, None)
    asked = await room.polls.create(ann, here.group, question)
    seen = await room.polls.get(bob, asked)
    assert seen.poll.disappears_us == seen.poll.created_us + AFTER_S * SECOND_US
    option = seen.poll.options[0].option_id
    await room.polls.vote(bob, asked, [option])
    await room.conversations.configure(ann, here.group, {"disappear_after_s": 0})
    stays = await room.polls.create(ann, here.group, question._replace(question="stays"))
    before = await here.head()
    assert await room.polls.pass_once() == 0, "not yet"
    live = await dialled(nursery, room, bob)
    here.end()
    for refused in (room.polls.get(bob, asked), room.polls.vote(bob, asked, [option])):
        with pytest.raises(NotFound):
            await refused
    shown = await room.polls.page(bob, here.group, PollId(LAST_ID), 10, only_active=False)
    assert [each.poll.poll_id for each in shown] == [stays]
    later = await back(nursery, room, bob, {here.group: 0})
    assert "a secret?" not in repr(later.seen)
    assert "a secret?" not in repr([each async for each in room.export_of(ann)])
    assert await room.polls.pass_once() == 1
    assert await room.polls.pass_once() == 0
    told = await live.wait_for("poll_deleted")
    assert (told["poll_id"], told["change"]) == (asked, before + 1)
    for table in ("polls", "poll_options", "poll_votes"):
        rows = await here.db.inner.read(lambda tx, sql: tx.all(sql), f"SELECT poll_id FROM {table}")
        assert {row[0] for row in rows} <= {stays}


async def test_two_nodes_delete_each_once(here: Scene, bus: MemoryBus) -> None:
    other_group = await make_group(here.room, here.ann, here.bob)
    await here.room.conversations.configure(here.ann, other_group, {"disappear_after_s": AFTER_S})
    for number in range(20):
        await say(here.room, here.ann, (here.group, other_group)[number % 2], str(number))
    before = await here.head()
    here.end()
    async with running(here.db, bus, NEVER) as other:
        deleted = []

        async def sweep(room: Chat) -> None:
            deleted.append(await room.disappearing.pass_once())

        async with trio.open_nursery() as nursery:
            for room in (here.room, other):
                nursery.start_soon(sweep, room)
        assert sum(deleted) == 21
        assert await here.head() == before + 11


async def test_of_a_conversation_that_is_gone_nothing_is_waited_for(here: Scene) -> None:
    async def drop(tx: Tx) -> None:
        await tx.run("DELETE FROM messages")
        await tx.run("DELETE FROM conversations")

    here.end()
    await here.db.inner.write(drop)
    with trio.fail_after(5):
        assert await here.room.disappearing.pass_once() == 0


@on_sqlite
async def test_memory_does_not_show_it_either(nursery: trio.Nursery, here: Scene) -> None:
    """While the database is away nothing deletes it."""
    room = here.room
    await say(room, here.bob, here.group, "a second secret")
    await room.messages.edit(here.ann, here.message.message_id, "an edited secret")
    await room.reactions.set(here.bob, here.message.message_id, UP, on=True)
    await until(lambda: room.hub.can_see(here.group, here.bob) is not None)
    head = await here.head()
    here.db.go_away()
    away = Unavailable()
    assert "secret" in repr(room.recall.page(away, here.bob, here.group, 2))
    here.end()
    told: list[Any] = [
        room.recall.page(away, here.bob, here.group, 2),
        room.recall.message(away, here.bob, here.message.message_id),
    ]
    missed = room.recall.missed(here.bob, here.group, head - 4, 100)
    assert missed is not None
    assert "secret" not in repr([*told, *(frame.data for frame in missed.frames)])


def test_those_that_bring_much_along_go_a_few_at_a_time() -> None:
    text = ("text", "x", False, None, "[]", None, 0, None, None)
    plain = Message(MessageId("m"), ConversationId("c"), 1, 1, UserId("ann"), "key", *text)
    for much in ({"edited_us": 1}, {"reaction_count": 1}, {"file_ids": '["a"]'}):
        assert len(disappearing._together([plain, *[plain._replace(**much)] * 50, plain])) == 1 + CARRIERS
    assert len(disappearing._together([plain] * 50)) == 50
