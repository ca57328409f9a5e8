"""Notices: what happened to a conversation, among its messages, and out of everybody's hands."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
import pytest
import trio

from secureconnect.chat import Chat
from secureconnect.errors import Forbidden, Invalid
from secureconnect.identity import ConversationId, UserId

from .rig import back, dialled, history, make_group, say, seqs


async def given(room: Chat, viewer: UserId, where: ConversationId) -> list[tuple[str, dict[str, object]]]:
    """Who did it and what, of each."""
    return [
        (each.sender_id, msgspec.json.decode(each.metadata or "{}"))
        for each in await history(room, viewer, where)
        if each.message_type == "system"
    ]


async def test_what_all_should_know_stands_among_the_messages(
    nursery: trio.Nursery, room: Chat, people: list[UserId]
) -> None:
    ann, bob, cid, _ = people
    where = await make_group(room, ann, bob)
    at_bob = await dialled(nursery, room, bob)
    await room.conversations.add(ann, where, cid, "member")
    await room.conversations.describe(ann, where, {"title": "new", "avatar_url": "/a.png"})
    await room.conversations.describe(ann, where, {"avatar_url": None})
    await room.conversations.configure(ann, where, {"is_e2ee_enabled": True, "disappear_after_s": 60})
    await room.conversations.configure(ann, where, {"recording_enabled": True})
    await room.conversations.remove(cid, where, cid)
    await room.conversations.add(ann, where, cid, "member")
    await room.conversations.remove(ann, where, cid)
    expected = [
        (ann, {"event": "member_added", "user_id": cid}),
        (ann, {"event": "title_changed"}),
        (ann, {"event": "encryption_enabled"}),
        (ann, {"event": "disappearing_changed", "disappear_after_s": 60}),
        (cid, {"event": "member_left", "user_id": cid}),
        (ann, {"event": "member_added", "user_id": cid}),
        (ann, {"event": "member_removed", "user_id": cid}),
    ]
    assert await given(room, bob, where) == expected
    await at_bob.wait_for("chat", len(expected))
    told = [(each["sender_id"], each["metadata"]) for each in at_bob.of("chat")]
    assert told == expected
    changes = at_bob.changes(where)
    assert changes == list(range(2, len(changes) + 2)), "beside the changes they are told of"
    assert (await back(nursery, room, bob, {where: 1})).of("chat") == at_bob.of("chat")


async def test_they_name_nobody_and_nobody_has_to_read_them(room: Chat, people: list[UserId]) -> None:
    ann, bob, cid, _ = people
    where = await make_group(room, ann, bob)
    await room.conversations.add(ann, where, cid, "member")
    await say(room, ann, where, "hello")
    await room.conversations.describe(ann, where, {"title": "new"})
    for user in (bob, cid):
        summary = await room.conversations.summary(user, where)
        assert summary.unread_count == 1
        assert summary.last_message is not None
        assert summary.last_message.content == "The title was changed."
    assert seqs(await history(room, cid, where)) == [1, 2, 3], "they see their own coming"


async def test_they_stay_as_they_are(room: Chat, people: list[UserId]) -> None:
    ann, bob, cid, _ = people
    where = await make_group(room, ann, bob)
    await room.conversations.add(ann, where, cid, "member")
    [notice] = await history(room, ann, where)
    refused: list[Callable[[], Awaitable[object]]] = [
        lambda: room.messages.edit(ann, notice.message_id, "Nobody came."),
        lambda: room.messages.delete(ann, notice.message_id),
        lambda: room.reactions.set(bob, notice.message_id, "+", on=True),
        lambda: room.pins.set(ann, where, notice.message_id, on=True),
    ]
    for act in refused:
        with pytest.raises(Forbidden):
            await act()
    draft = room.messages.draft(bob, where, "what?", reply_to=notice.message_id)
    with pytest.raises(Invalid):
        await room.messages.send(draft)
    assert await history(room, ann, where) == [notice]
