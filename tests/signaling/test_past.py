"""What becomes of calls that are over."""

from __future__ import annotations

import msgspec
import trio

from chat.rig import read_page, running, say
from kit.wait import until
from secureconnect.chat import Chat
from secureconnect.chat.store import Message
from secureconnect.deps.contracts import Database, Tx
from secureconnect.deps.memory import MemoryBus, MemorySignals
from secureconnect.errors import NotFound
from secureconnect.identity import ConversationId, Principal
from secureconnect.signaling.past import facts_of
from secureconnect.signaling.store import LAST_ID

from .rig import Node


async def told(room: Chat, who: Principal, where: ConversationId) -> list[Message]:
    """The notices of a conversation."""
    page = await read_page(room, who.user_id, where, 20)
    return [each for each in page.messages if each.message_type == "system"]


async def test_a_call_that_is_over_is_a_line_of_its_conversation_once(
    db: Database,
    bus: MemoryBus,
    between: MemorySignals,
    node: Node,
    nursery: trio.Nursery,
    pair: ConversationId,
    people: list[Principal],
) -> None:
    ann, bob, *_ = people
    call = await node.call(ann, pair)
    async with running(db, bus) as room:
        nodes = [node, await Node.start(nursery, db, between)]
        for each in nodes:
            each.room.past.write_down = room.conversations.note_call
        # a client that names a message of its own like that hides nothing
        await say(room, ann.user_id, pair, "hello", f"call:{call.call_id}")
        await node.room.calls.leave(bob.user_id, call.call_id)  # he is not in it: nothing happens
        await node.room.calls.leave(ann.user_id, call.call_id)

        async def is_written() -> bool:
            return bool(await told(room, bob, pair))

        await until(is_written)
        over = await node.room.calls.get(ann.user_id, call.call_id)
        await node.room.past.write_down(
            pair, ann.user_id, facts_of(over)
        )  # as a node that died before it took note would
        [line] = await told(room, bob, pair)
        assert (line.message_type, line.sender_id) == ("system", ann.user_id)
        assert msgspec.json.decode(line.metadata or "") == {
            "event": "call",
            "call_id": call.call_id,
            "call_type": "video",
            "status": "missed",
            "end_reason": "cancelled",
            "duration_s": 0,
        }


async def test_calls_go_with_their_conversation(
    db: Database, node: Node, pair: ConversationId, group: ConversationId, people: list[Principal]
) -> None:
    ann, bob, *_ = people
    gone, kept = await node.call(ann, pair), await node.call(bob, group, people[2])
    await node.room.calls.leave(ann.user_id, gone.call_id)
    await node.room.calls.leave(bob.user_id, kept.call_id)

    async def take_away(tx: Tx) -> None:
        await tx.run("DELETE FROM members WHERE conversation_id = $1", pair)
        await tx.run("DELETE FROM conversations WHERE conversation_id = $1", pair)

    await db.write(take_away)
    assert await node.room.past.sweep_once() == 1
    assert await node.room.past.sweep_once() == 0
    assert await node.room.calls.ever(ann.user_id, LAST_ID, 9) == []
    assert (await node.room.calls.get(bob.user_id, kept.call_id)).call_id == kept.call_id
    try:
        await node.room.calls.get(ann.user_id, gone.call_id)
    except NotFound:
        return
    raise AssertionError
