"""Reactions: counted right whoever looks, told live and again, gone with their message."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from secureconnect.chat import Chat
from secureconnect.chat.reactions import store as reactions
from secureconnect.chat.reactions.reactions import Reactions
from secureconnect.chat.store import Reacted
from secureconnect.config import ChatConfig
from secureconnect.deps.contracts import Database, Row, Tx
from secureconnect.deps.memory import MemoryBus
from secureconnect.errors import Conflict, Forbidden, Invalid, MessageDeleted, NotFound
from secureconnect.identity import ConversationId, MessageId, UserId, new_id

from .rig import back, block, dialled, make_group, read_page, running, say
from .test_routes import ask

UP, HEART = "\N{THUMBS UP SIGN}", "\N{HEAVY BLACK HEART}\N{VARIATION SELECTOR-16}"
NOWHERE = Reactions(ChatConfig(), None, None)  # type: ignore[arg-type]


class Counted:
    """A transaction that counts the rows it reads."""

    def __init__(self, tx: Tx) -> None:
        self._tx = tx
        self.rows = 0

    async def all(self, sql: str, *args: Any) -> list[Row]:
        rows = await self._tx.all(sql, *args)
        self.rows += len(rows)
        return rows


async def seen(room: Chat, viewer: UserId, message: MessageId) -> tuple[Reacted, ...]:
    return (await room.messages.get(viewer, message)).reactions


async def make_message(room: Chat, people: list[UserId]) -> tuple[ConversationId, MessageId]:
    group = await make_group(room, *people[:3])
    return group, (await say(room, people[0], group, "well?")).message.message_id


async def test_each_sees_how_many_react_and_whether_they_do(room: Chat, people: list[UserId]) -> None:
    ann, bob, cid, _ = people
    group, message = await make_message(room, people)
    for user, emoji in ((ann, HEART), (bob, UP), (cid, UP), (bob, UP)):  # the last one again
        await room.reactions.set(user, message, emoji, on=True)
    assert await seen(room, ann, message) == (Reacted(UP, 2, mine=False), Reacted(HEART, 1, mine=True))
    assert await seen(room, bob, message) == (Reacted(UP, 2, mine=True), Reacted(HEART, 1, mine=False))
    await room.reactions.set(bob, message, UP, on=False)
    await room.reactions.set(bob, message, UP, on=False)
    [told] = (await read_page(room, bob, group, 10)).messages
    assert told.reactions == (Reacted(HEART, 1, mine=False), Reacted(UP, 1, mine=False))
    assert told.reaction_count == 2


async def test_the_last_message_of_a_conversation_has_them(room: Chat, people: list[UserId]) -> None:
    ann, bob, *_ = people
    group, message = await make_message(room, people)
    await room.reactions.set(bob, message, UP, on=True)
    _, listed = await ask(room, ann, "GET /v1/conversations")
    _, single = await ask(room, bob, "GET /v1/conversations/{conversation_id}", conversation_id=group)
    for told, mine in ((listed["conversations"][0], False), (single, True)):
        assert told["last_message"]["reactions"] == [{"emoji": UP, "count": 1, "mine": mine}]


async def test_a_tombstone_between_two_messages_has_none(
    room: Chat, db: Database, people: list[UserId]
) -> None:
    """Also while its reactions are not deleted yet."""
    ann, bob, *_ = people
    group, _ = await make_message(room, people)
    for number in range(2):
        await say(room, ann, group, str(number))
    messages = (await read_page(room, ann, group, 10)).messages
    for message in messages:
        await room.reactions.set(bob, message.message_id, UP, on=True)
    first, second, third = (await read_page(room, ann, group, 10)).messages
    shown = await db.read(reactions.reacted_to, [first, second._replace(reaction_count=0), third])
    assert set(shown) == {first.message_id, third.message_id}


async def test_what_lies_between_messages_far_apart_is_not_read(
    room: Chat, db: Database, people: list[UserId]
) -> None:
    """Between pins, say, or an old message that was edited and the next that was said."""
    group, message = await make_message(room, people)
    await room.reactions.set(people[1], message, UP, on=True)
    first = await room.messages.get(people[0], message)
    far = first._replace(message_id=MessageId(new_id()), seq=first.seq + 1_000)

    async def look(tx: Tx) -> int:
        for seq in (first.seq + 300, first.seq + 600, far.seq):
            about = far.message_id if seq == far.seq else MessageId(new_id())
            await reactions.add(tx, about, HEART, people[2], group, seq, 0)
        counted = Counted(tx)
        found = await reactions.reacted_to(counted, [far, first])  # type: ignore[arg-type]
        assert found == {message: (Reacted(UP, 1),), far.message_id: (Reacted(HEART, 1),)}
        return counted.rows

    assert await db.write(look) == 2


async def test_a_message_sent_again_has_them(room: Chat, people: list[UserId]) -> None:
    ann, bob, *_ = people
    group = await make_group(room, ann, bob)
    message = (await say(room, ann, group, "well?", "id-1")).message
    for user in (ann, bob):
        await room.reactions.set(user, message.message_id, UP, on=True)
    again = await say(room, ann, group, "well?", "id-1")
    assert not again.fresh
    assert again.message == await room.messages.get(ann, message.message_id)


async def test_everybody_is_told_live_and_whoever_was_away_later(
    nursery: trio.Nursery, room: Chat, people: list[UserId]
) -> None:
    ann, bob, _, _ = people
    group, message = await make_message(room, people)
    before = (await room.conversations.summary(ann, group)).seat.conversation.last_change
    live = await dialled(nursery, room, ann)
    await room.reactions.set(bob, message, UP, on=True)
    told = await live.wait_for("reaction")
    assert (told["message_id"], told["emoji"], told["user_id"]) == (message, UP, bob)
    assert (told["on"], told["count"], told["change"]) == (True, 1, before + 1)
    later = await back(nursery, room, ann, {group: before})
    assert later.of("reaction") == [told]


async def test_an_edit_tells_them_without_whose_they_are(
    nursery: trio.Nursery, room: Chat, people: list[UserId]
) -> None:
    ann, bob, _, _ = people
    _, message = await make_message(room, people)
    await room.reactions.set(ann, message, UP, on=True)
    live = await dialled(nursery, room, bob)
    edited = await room.messages.edit(ann, message, "better")
    assert edited.reactions == (Reacted(UP, 1, mine=True),)
    assert (await live.wait_for("message_edited"))["reactions"] == [{"emoji": UP, "count": 1}]


async def test_those_of_a_deleted_message_are_gone(
    nursery: trio.Nursery, room: Chat, db: Database, people: list[UserId]
) -> None:
    ann, bob, _, _ = people
    group, message = await make_message(room, people)
    await room.reactions.set(bob, message, UP, on=True)
    message_row = await room.messages.get(ann, message)
    await room.messages.delete(ann, message)
    assert await seen(room, ann, message) == ()
    assert await db.read(reactions.reacted_to, [message_row]) == {}
    with pytest.raises(MessageDeleted):
        await room.reactions.set(bob, message, UP, on=True)
    later = await back(nursery, room, ann, {group: 2})  # the reaction has its place, and says no more
    assert [told["change"] for told in later.of("message_deleted")] == [3, 4]


async def test_who_may_not(room: Chat, db: Database, people: list[UserId]) -> None:
    ann, bob, _, dee = people
    _, message = await make_message(room, people)
    with pytest.raises(NotFound):
        await room.reactions.set(dee, message, UP, on=True)
    with pytest.raises(NotFound):
        await room.reactions.set(ann, MessageId(new_id()), UP, on=True)
    direct, _ = await room.conversations.create(ann, "direct", None, [bob], False)
    message = (await say(room, bob, direct, "hi")).message.message_id
    await block(db, bob, ann)
    with pytest.raises(Forbidden):
        await room.reactions.set(ann, message, UP, on=True)


@pytest.mark.parametrize(
    "emoji", ["", " ", "a b", "x" * 33, "\n", "\x07", "\ud800", "\u200d", "\u200b\ufe0f", "\u202e"]
)
async def test_what_is_no_emoji(emoji: str) -> None:
    with pytest.raises(Invalid):
        await NOWHERE.set(UserId("ann"), MessageId("message"), emoji, on=True)


@pytest.mark.parametrize(
    "emoji",
    [
        UP,
        HEART,
        "\U0001fa77",
        "\U0001fae8",
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "1\ufe0f\u20e3",
        ":+1:",
    ],
)
async def test_what_is_one_though_python_does_not_know_it_yet(emoji: str) -> None:
    """It gets as far as to who writes it down."""
    with pytest.raises(AttributeError, match="require_settled"):
        await NOWHERE.set(UserId("ann"), MessageId("message"), emoji, on=True)


async def test_so_many_different_ones_whoever_comes_together(
    db: Database, bus: MemoryBus, people: list[UserId]
) -> None:
    async with running(db, bus, ChatConfig(max_reactions=3)) as room:
        _, message = await make_message(room, people)
        refused = 0

        async def react(user: UserId, emoji: str) -> None:
            nonlocal refused
            try:
                await room.reactions.set(user, message, emoji, on=True)
            except Conflict:
                refused += 1

        async with trio.open_nursery() as nursery:
            for user in people[:3]:
                for emoji in "abcdef":
                    nursery.start_soon(react, user, emoji)
        assert [each.people for each in await seen(room, people[0], message)] == [3, 3, 3]
        assert refused == 9
