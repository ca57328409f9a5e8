"""A database that goes back to an earlier state: nobody may go on as if what was told were still there."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from kit.wait import until
from secureconnect.chat import Chat
from secureconnect.chat.catchup import RolledBack
from secureconnect.config import ChatConfig
from secureconnect.deps.contracts import Database, Tx
from secureconnect.deps.memory import MemoryBus
from secureconnect.identity import ConversationId
from secureconnect.node import Node
from secureconnect.supervise import Handle

from .rig import dial, history, make_group, make_people, resume_from, running, say, signals_beside


async def _go_back(db: Database, conversation: ConversationId) -> None:
    """To when there was one message."""

    async def unit(tx: Tx) -> None:
        await tx.run("DELETE FROM messages WHERE conversation_id = $1 AND seq > 1", conversation)
        await tx.run(
            "UPDATE conversations SET last_seq = 1, last_change = 2 WHERE conversation_id = $1", conversation
        )

    await db.write(unit)


async def test_a_head_that_went_back_is_noticed(db: Database, bus: MemoryBus) -> None:
    ann, bob = await make_people(db, "ann", "bob")
    async with running(db, bus) as room:
        where = await make_group(room, ann, bob)
        for text in ("one", "two", "three"):
            await say(room, ann, where, text)
        await room.catch_up.pass_once()
        await _go_back(db, where)
        with pytest.raises(RolledBack):
            await room.catch_up.pass_once()


async def test_after_a_rollback_everybody_reads_again_under_a_new_history(
    db: Database, bus: MemoryBus, data_dir: Path
) -> None:
    ann, bob = await make_people(db, "ann", "bob")
    node = await Node.open(db, data_dir, "", "test.local")
    before = node.history_id

    def build() -> Chat:
        room = Chat(ChatConfig(catch_up_ms=100), db, bus, signals_beside(bus), node.history_id, node.id)
        room.connect(authenticate=room.authenticate, begin_history=node.begin_history)
        return room

    handle = Handle("chat", build)
    async with trio.open_nursery() as nursery:
        await nursery.start(handle.run)
        room = handle.require()
        where = await make_group(room, ann, bob)
        for text in ("one", "two", "three"):
            await say(room, ann, where, text)
        await _go_back(db, where)
        await until(lambda: handle.state == "running" and handle.require() is not room)
        room = handle.require()
        assert room.history_id == node.history_id != before
        assert (await Node.open(db, data_dir, "", "test.local")).history_id == node.history_id

        socket = dial(nursery, room, bob, resume=True)
        resume_from(socket, {where: 4}, before)
        await socket.wait_for("resumed")
        assert [(gap["to_seq"], gap["change"]) for gap in socket.of("gap")] == [(1, 2)]
        assert [message.content for message in await history(room, bob, where)] == ["one"]
        assert (await say(room, ann, where, "four")).message.seq == 2
        assert (await socket.wait_for("chat"))["content"] == "four"
        nursery.cancel_scope.cancel()
