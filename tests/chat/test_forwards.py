"""Forwarding: all or nothing, once, and not a word of where it was said."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trio

from secureconnect.chat import Chat
from secureconnect.chat.store import Message
from secureconnect.deps.contracts import Database
from secureconnect.deps.memory import MemoryBus
from secureconnect.errors import E2eeRequired, Forbidden, MessageDeleted, NotFound, Problem
from secureconnect.identity import ConversationId, MessageId, UserId, new_id

from .rig import block, dialled, history, make_group, running, say, store


async def said(
    room: Chat, sender: UserId, where: ConversationId, metadata: Any = None, **options: Any
) -> Message:
    given = msgspec.Raw(msgspec.json.encode(metadata))
    return (await store(room, room.messages.draft(sender, where, "news", metadata=given, **options))).message


async def test_it_is_said_anew_by_who_forwards(
    nursery: trio.Nursery, room: Chat, people: list[UserId]
) -> None:
    ann, bob, cid, dee = people
    source = await make_group(room, ann, bob)
    first = await say(room, bob, source, "first")
    message = await said(
        room,
        ann,
        source,
        {"mentions": [bob], "k": [1]},
        reply_to=first.message.message_id,
        message_type="image",
    )
    targets = [await make_group(room, bob, cid), await make_group(room, bob, dee)]
    socket = await dialled(nursery, room, cid)
    sent = await room.forwards.send(bob, message.message_id, targets, "id")
    assert [each.message.conversation_id for each in sent] == targets
    for each in sent:
        new = each.message
        assert (new.sender_id, new.content, new.message_type) == (bob, "news", "image")
        assert msgspec.json.decode(new.metadata or "") == {"k": [1], "forwarded": True}
        assert new.reply_to is None
    told = await socket.wait_for("chat")
    for hidden in (source, message.message_id, ann, first.message.message_id):
        assert hidden not in repr(told)
    again = await room.forwards.send(cid, sent[0].message.message_id, [await make_group(room, cid)], "id")
    assert again[0].message.metadata == sent[0].message.metadata


async def test_the_same_again_sends_what_is_missing_and_nothing_twice(
    db: Database, bus: MemoryBus, people: list[UserId]
) -> None:
    ann, bob, *_ = people
    async with running(db, bus) as room, running(db, bus) as other:
        message = (await said(room, ann, await make_group(room, ann))).message_id
        targets = [await make_group(room, ann, bob) for _ in range(4)]
        await room.forwards.send(ann, message, targets[:2], "id")
        async with trio.open_nursery() as nursery:
            for at in (room, other) * 3:
                nursery.start_soon(at.forwards.send, ann, message, targets, "id")
        for target in targets:
            assert [each.content for each in await history(room, bob, target)] == ["news"]
        once_more = await room.forwards.send(ann, message, targets, "id")
        assert not any(each.fresh for each in once_more)
        await room.forwards.send(ann, message, targets[:1], "another id")
        assert len(await history(room, bob, targets[0])) == 2


async def test_where_one_refuses_nothing_is_sent(db: Database, room: Chat, people: list[UserId]) -> None:
    ann, bob, cid, dee = people
    group, other = await make_group(room, ann, bob), await make_group(room, ann)
    message = await said(room, ann, group)
    system = await said(room, ann, group)

    async def mark(tx: Any) -> None:
        await tx.run("UPDATE messages SET message_type = 'system' WHERE message_id = $1", system.message_id)

    await db.write(mark)
    foreign = await make_group(room, cid)
    sealed, _ = await room.conversations.create(ann, "group", None, [], True)
    parted, _ = await room.conversations.create(ann, "direct", None, [dee], False)
    await block(db, dee, ann)
    secret = await said(room, ann, sealed, is_encrypted=True)
    marked = await said(room, ann, group, is_encrypted=True)
    gone = await said(room, ann, group)
    await room.messages.delete(ann, gone.message_id)
    refusals: list[tuple[UserId, MessageId, ConversationId, type[Problem]]] = [
        (ann, message.message_id, foreign, NotFound),
        (ann, message.message_id, ConversationId(new_id()), NotFound),
        (ann, message.message_id, sealed, E2eeRequired),
        (ann, message.message_id, parted, Forbidden),
        (ann, secret.message_id, other, E2eeRequired),
        (ann, marked.message_id, other, E2eeRequired),
        (ann, gone.message_id, other, MessageDeleted),
        (ann, system.message_id, other, Forbidden),
        (ann, MessageId(new_id()), other, NotFound),
        (cid, message.message_id, foreign, NotFound),
    ]
    for caller, what, where, refusal in refusals:
        mine = await make_group(room, caller)
        with pytest.raises(refusal):
            await room.forwards.send(caller, what, [mine, where], "id")
        assert await history(room, caller, mine) == []
    assert await history(room, ann, other) == []
