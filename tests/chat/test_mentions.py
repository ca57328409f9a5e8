"""Mentions: of members alone, counted while they are unread, gone with their message."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from secureconnect.chat import Chat
from secureconnect.chat.mentions import store as mentions
from secureconnect.chat.mentions.mentions import MOST
from secureconnect.chat.pledges import Pledge, encode
from secureconnect.chat.pledges import _decoder as pledges
from secureconnect.chat.store import TOP, Message
from secureconnect.deps.contracts import Database
from secureconnect.errors import Invalid
from secureconnect.identity import ConversationId, UserId, new_id

from .rig import make_group, say, store


async def mention(room: Chat, sender: UserId, conversation: ConversationId, *users: str) -> Message:
    return (await store(room, draft(room, sender, conversation, list(users)))).message


def draft(room: Chat, sender: UserId, conversation: str, mentioned: Any) -> Any:
    metadata = msgspec.Raw(msgspec.json.encode({"mentions": mentioned, "k": 1}))
    return room.messages.draft(sender, ConversationId(conversation), "look", metadata=metadata)


async def unread(room: Chat, user: UserId, conversation: ConversationId) -> int:
    return (await room.conversations.summary(user, conversation)).unread_mentions


async def test_members_are_mentioned_and_nobody_else(db: Database, room: Chat, people: list[UserId]) -> None:
    ann, bob, cid, dee = people
    group = await make_group(room, ann, bob, cid)
    sent = await mention(room, ann, group, bob, ann, cid, bob)
    assert msgspec.json.decode(sent.metadata or "") == {"mentions": [bob, ann, cid, bob], "k": 1}
    assert await db.read(mentions.of_message, group, sent.seq) == sorted([bob, cid])
    for stranger in (dee, new_id()):
        with pytest.raises(Invalid) as refused:
            await mention(room, ann, group, bob, stranger)
        assert refused.value.details == {"field": "metadata.mentions"}
    await room.conversations.remove(ann, group, cid)
    with pytest.raises(Invalid):
        await mention(room, ann, group, cid)


async def test_one_that_is_refused_harms_no_other_of_its_batch(room: Chat, people: list[UserId]) -> None:
    ann, bob, _, dee = people
    group = await make_group(room, ann, bob)
    answers: list[Any] = []
    for each in (draft(room, ann, group, [bob]), draft(room, ann, group, [dee])):
        room.writer.send(each, answers.append)
    after = (await say(room, bob, group, "x")).message
    assert (answers[0].message.seq, type(answers[1]), after.seq) == (1, Invalid, 2)


@pytest.mark.parametrize(
    "mentioned", ["x", 1, {}, ["x"], [1], [None], [[]], ["A" * 36], [new_id() for _ in range(MOST + 1)]]
)
async def test_what_is_no_mention(room: Chat, people: list[UserId], mentioned: object) -> None:
    with pytest.raises(Invalid) as refused:
        draft(room, people[0], new_id(), mentioned)
    assert refused.value.details == {"field": "metadata.mentions"}


async def test_they_count_until_they_are_read_or_gone(room: Chat, people: list[UserId]) -> None:
    ann, bob, cid, _ = people
    group = await make_group(room, ann, bob, cid)
    first = await mention(room, ann, group, bob)
    second = await mention(room, ann, group, bob, cid)
    third = await mention(room, cid, group, bob)
    assert [await unread(room, user, group) for user in (ann, bob, cid)] == [0, 3, 1]
    await room.conversations.mark_read(bob, group, first.seq)
    assert await unread(room, bob, group) == 2
    await room.messages.delete(ann, second.message_id)
    assert [await unread(room, user, group) for user in (bob, cid)] == [1, 0]
    await room.messages.edit(cid, third.message_id, "never mind")
    assert await unread(room, bob, group) == 1, "an edit that says nothing of it changes nobody it concerns"
    [line] = await room.listing.page(bob, TOP, 10)
    assert line.summary.unread_mentions == 1


def naming(*users: str) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode({"mentions": users}))


async def test_an_edit_may_name_others(db: Database, room: Chat, people: list[UserId]) -> None:
    ann, bob, cid, dee = people
    group = await make_group(room, ann, bob, cid)
    sent = await mention(room, ann, group, bob)
    edited = await room.messages.edit(ann, sent.message_id, "and you", metadata=naming(ann, bob, cid))
    assert msgspec.json.decode(edited.metadata or "") == {"mentions": [ann, bob, cid]}
    assert await db.read(mentions.of_message, group, sent.seq) == sorted([bob, cid])
    again = await room.messages.edit(ann, sent.message_id, "and you", metadata=naming(ann, bob, cid))
    assert again.edited_us == edited.edited_us, "it said so already"
    with pytest.raises(Invalid) as refused:
        await room.messages.edit(ann, sent.message_id, "and you", metadata=naming(bob, dee))
    assert refused.value.details == {"field": "metadata.mentions"}
    assert await db.read(mentions.of_message, group, sent.seq) == sorted([bob, cid])
    assert (await room.messages.get(bob, sent.message_id)).edited_us == edited.edited_us, "nothing happened"
    await room.conversations.remove(bob, group, bob)
    await room.messages.edit(ann, sent.message_id, "who has left stays named", metadata=naming(bob))
    assert await db.read(mentions.of_message, group, sent.seq) == [bob]
    with pytest.raises(Invalid):
        await room.messages.edit(ann, sent.message_id, "x", metadata=msgspec.Raw(b"[]"))
    edited = await room.messages.edit(ann, sent.message_id, "nobody", metadata=msgspec.Raw(b"null"))
    assert (edited.metadata, await db.read(mentions.of_message, group, sent.seq)) == (None, [])


async def test_retention_and_an_erasure_take_them(db: Database, room: Chat, people: list[UserId]) -> None:
    ann, bob, cid, _ = people
    group = await make_group(room, ann, bob, cid)
    first, second = [await mention(room, ann, group, bob, cid) for _ in range(2)]
    await room.retention.drop(group, 0, second.sent_us)
    assert await db.read(mentions.of_message, group, first.seq) == []
    await room.forget(bob)
    assert await db.read(mentions.of_message, group, second.seq) == [cid]


def test_what_an_older_program_left_in_the_journal_is_read() -> None:
    """It knew of no mentions."""
    fields = (new_id(), new_id(), new_id(), "c", "text", "x", False, None, "[]", None)
    old = msgspec.msgpack.encode((fields, 1))
    pledge = pledges.decode(old)
    assert isinstance(pledge, Pledge)
    assert pledge.draft.mentions == ()
    kept = pledge.draft._replace(mentions=(UserId(new_id()),))
    assert pledges.decode(encode(Pledge(kept, 1))).draft == kept
