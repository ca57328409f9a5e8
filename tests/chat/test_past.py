"""The past of who joined later: hidden in every way, or open in every way; and anew for who comes back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio

from secureconnect.chat import Chat
from secureconnect.chat.polls.polls import Question
from secureconnect.chat.store import LAST_ID
from secureconnect.errors import Invalid, NotFound
from secureconnect.identity import ConversationId, MessageId, PollId, UserId

from .rig import back, dialled, history, make_group, say, seqs

QUESTION = Question("Well?", ["yes", "no"], "single", True, None)


class Past:
    """A group in which something was said, asked and pinned before Cid came."""

    def __init__(self, room: Chat, people: list[UserId]) -> None:
        self.room = room
        self.ann, self.bob, self.cid, _ = people
        self.where = ConversationId("")
        self.said = MessageId("")
        self.asked: list[PollId] = []  # before anything was said, and just before Cid came

    async def begin(self, *, history_visible: bool) -> None:
        room, ann = self.room, self.ann
        self.where = await make_group(room, ann, self.bob)
        await room.conversations.configure(ann, self.where, {"history_visible": history_visible})
        self.asked.append(await room.polls.create(ann, self.where, QUESTION))
        self.said = (await say(room, ann, self.where, "said before")).message.message_id
        await room.pins.set(ann, self.where, self.said, on=True)
        self.asked.append(await room.polls.create(ann, self.where, QUESTION))
        await room.conversations.add(ann, self.where, self.cid, "member")

    async def change(self) -> None:
        """Everything that can happen to what was there before."""
        await self.room.reactions.set(self.bob, self.said, "+", on=True)
        await self.room.messages.edit(self.ann, self.said, "said otherwise")
        await self.room.pins.set(self.ann, self.where, self.said, on=False)
        for asked in self.asked:
            await self.room.polls.vote(self.bob, asked, [])
            await self.room.polls.close(self.ann, asked)
        await self.room.messages.delete(self.ann, self.said)


@pytest.fixture
async def past(room: Chat, people: list[UserId]) -> Past:
    return Past(room, people)


async def test_what_is_hidden_is_hidden_in_every_way(past: Past, nursery: trio.Nursery) -> None:
    await past.begin(history_visible=False)
    room, cid, where = past.room, past.cid, past.where
    live = await dialled(nursery, room, cid)
    before = (await room.conversations.summary(cid, where)).seat.conversation.last_change
    assert seqs(await history(room, cid, where)) == [2], "their own joining"
    assert await room.pins.list_of(cid, where) == []
    assert await room.polls.page(cid, where, PollId(LAST_ID), 10, only_active=False) == []
    refusals: list[Callable[[], Awaitable[object]]] = [
        lambda: room.messages.get(cid, past.said),
        lambda: room.versions.page(cid, past.said, 0, 10),
        lambda: room.reactions.set(cid, past.said, "+", on=True),
        *(partial(room.polls.get, cid, asked) for asked in past.asked),
        *(partial(room.polls.vote, cid, asked, []) for asked in past.asked),
    ]
    for refused in refusals:
        with pytest.raises(NotFound):
            await refused()
    with pytest.raises(Invalid):
        await room.messages.send(room.messages.draft(cid, where, "re", reply_to=past.said))
    await past.change()
    await say(room, past.ann, where, "said since")
    await live.wait_for("chat")
    assert [told["content"] for told in live.of("chat")] == ["said since"]
    assert [told["type"] for told in live.seen if "change" in told] == ["chat"]
    later = await back(nursery, room, cid, {where: before})
    assert later.changes(where) == live.changes(where)
    summary = await room.conversations.summary(cid, where)
    assert summary.unread_count == 1
    # opened now, it is for those who come from now on
    await room.conversations.configure(past.ann, where, {"history_visible": True})
    assert seqs(await history(room, cid, where)) == [2, 3]


async def test_what_was_asked_before_anything_was_said_is_the_past_too(
    past: Past, nursery: trio.Nursery
) -> None:
    room, ann, bob, cid = past.room, past.ann, past.bob, past.cid
    where = await make_group(room, ann, bob)
    asked = await room.polls.create(ann, where, QUESTION)
    assert (await room.polls.get(bob, asked)).poll.poll_id == asked
    at_bob, at_cid = await dialled(nursery, room, bob), await dialled(nursery, room, cid)
    await room.conversations.add(ann, where, cid, "member")
    with pytest.raises(NotFound):
        await room.polls.get(cid, asked)
    since = await room.polls.create(ann, where, QUESTION)
    await room.polls.close(ann, asked)
    await room.polls.close(ann, since)
    await at_bob.wait_for("poll_closed", 2)
    told = [each["poll"]["poll_id"] for each in at_cid.of("poll_created", "poll_voted", "poll_closed")]
    assert told == [since, since]


async def test_what_is_open_is_open_in_every_way(past: Past, nursery: trio.Nursery) -> None:
    await past.begin(history_visible=True)
    room, cid, where = past.room, past.cid, past.where
    live = await dialled(nursery, room, cid)
    assert seqs(await history(room, cid, where)) == [1, 2]
    assert [each.message.message_id for each in await room.pins.list_of(cid, where)] == [past.said]
    listed = await room.polls.page(cid, where, PollId(LAST_ID), 10, only_active=False)
    assert [each.poll.poll_id for each in listed] == past.asked[::-1]
    assert [(await room.polls.get(cid, asked)).poll.poll_id for asked in past.asked] == past.asked
    assert (await say(room, cid, where, "hello")).fresh
    await past.change()
    await live.wait_for("message_deleted")
    kinds = {told["type"] for told in live.seen if "change" in told}
    assert kinds == {
        *("chat", "reaction", "message_edited", "message_unpinned", "poll_closed", "message_deleted"),
    }
    assert (await room.conversations.summary(cid, where)).unread_count == 0, "what was before is not new"


async def test_who_comes_back_starts_anew(past: Past) -> None:
    await past.begin(history_visible=False)
    room, cid, where = past.room, past.cid, past.where
    await say(room, past.ann, where, "while they are in")
    assert (await room.conversations.summary(cid, where)).unread_count == 1
    await room.conversations.remove(cid, where, cid)
    await say(room, past.ann, where, "while they are out")
    await room.conversations.add(past.ann, where, cid, "member")
    [notice] = await history(room, cid, where)
    assert (notice.message_type, notice.seq) == ("system", 6)
    assert (await room.conversations.summary(cid, where)).unread_count == 0
    await say(room, past.ann, where, "again")
    assert (await room.conversations.summary(cid, where)).unread_count == 1
