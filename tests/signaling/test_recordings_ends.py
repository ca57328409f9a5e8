"""How recordings end, and what comes at that very moment: on both databases, with files in a folder."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

import pytest

from chat.rig import principal_of
from kit.objects import keys
from secureconnect.clock import HOUR_US
from secureconnect.config import StorageConfig
from secureconnect.deps.memory import MemorySignals
from secureconnect.edge import Call
from secureconnect.errors import ConsentMissing, Forbidden, NotFound, RecordingOver
from secureconnect.identity import ConversationId, Principal, UserId, new_id
from secureconnect.signaling.recordings.routes import PartQuery, put_part
from secureconnect.storage import Growing

from .rig import CONFIG, Node
from .studio import PIECES, Act, Studio, change, refused, rows


@pytest.mark.parametrize("how", ["stop", "leave", "end", "complete"])
async def test_what_ends_before_a_latecomer_has_answered_takes_no_more(
    studio: Studio, group: ConversationId, people: list[Principal], how: str
) -> None:
    ann, bob, cid, *_ = people
    call = await studio.call(group, ann, bob)
    name = await studio.recorded(call, ann, bob)
    await studio.send(ann, call, name, 1, PIECES[0])
    await studio.node.room.calls.join(cid, call)
    await refused(ConsentMissing, lambda: studio.send(ann, call, name, 2, PIECES[1]))
    if how == "stop":
        await studio.rules.stop(ann.user_id, call, name)
    elif how == "leave":
        await studio.node.room.calls.leave(ann.user_id, call)
    elif how == "end":
        await studio.node.room.calls.end(ann, call)
    else:
        await studio.rules.complete(ann.user_id, call, name, 1)
    await studio.watch()
    await refused(RecordingOver, lambda: studio.send(ann, call, name, 2, PIECES[1]))
    await studio.finish()
    assert (await studio.get(call, name, ann)).state == ("completed" if how == "complete" else "partial")


async def test_who_comes_after_its_recorder_has_left_is_not_waited_for(
    studio: Studio, group: ConversationId, people: list[Principal]
) -> None:
    ann, bob, cid, dee, _ = people
    call = await studio.call(group, ann, bob, dee)
    name = await studio.recorded(call, ann, bob, dee)
    await studio.node.room.calls.leave(ann.user_id, call)
    await studio.node.room.calls.join(cid, call)
    await studio.watch()
    await studio.send(ann, call, name, 1, PIECES[0])


async def test_who_came_late_takes_back_what_they_agreed_to_after_they_have_left(
    studio: Studio, group: ConversationId, people: list[Principal]
) -> None:
    ann, bob, cid, *_ = people
    call = await studio.call(group, ann, bob)
    name = await studio.recorded(call, ann, bob)
    came = "UPDATE members SET joined_at = $1, visible_from_seq = 9 WHERE user_id = $2"
    await change(studio.db, came, studio.db.now_us(), cid.user_id)
    await change(studio.db, "UPDATE conversations SET history_visible = false")
    await studio.node.room.calls.join(cid, call)
    await studio.rules.consent(cid, call, name, agrees=True)
    await studio.node.room.calls.leave(cid.user_id, call)
    assert (await studio.rules.consent(cid, call, name, agrees=False)).end_reason == "withdrawn"


@pytest.mark.parametrize("now", ["recording_enabled = false", "is_e2ee_enabled = true"])
async def test_a_conversation_that_changes_its_mind_stops_it(
    studio: Studio, group: ConversationId, people: list[Principal], now: str
) -> None:
    ann, bob, *_ = people
    call = await studio.call(group, ann, bob)
    name = await studio.recorded(call, ann, bob)
    await change(studio.db, f"UPDATE conversations SET {now}")
    await studio.watch()
    seen = await studio.get(call, name, bob)
    assert (seen.state, seen.end_reason) == ("stopped", "stopped")


async def test_a_recording_goes_with_a_call_that_is_gone_before_it_has_ended(
    studio: Studio, group: ConversationId, people: list[Principal]
) -> None:
    ann, bob, *_ = people
    call = await studio.call(group, ann, bob)
    name = await studio.recorded(call, ann, bob)
    await studio.send(ann, call, name, 1, PIECES[0])
    for table in ("members", "conversations"):
        await change(studio.db, f"DELETE FROM {table}")
    await studio.node.room.recovery.pass_once()
    assert await studio.node.room.past.sweep_once() == 1
    await studio.watch()
    await studio.finish()
    await studio.storage.sweeper.pass_once()
    assert await rows(studio.db, "recordings") == 0
    assert await keys(studio.objects) == []
    assert await studio.used(ann) == (0, 0)


class Overtaken(Growing):
    """Somebody does something else before a part is where it is kept."""

    before: Act

    async def put_part(self, place: str, number: int, content: bytes) -> None:
        await self.before()
        await super().put_part(place, number, content)


async def test_a_part_that_comes_too_late_leaves_nothing(
    studio: Studio, group: ConversationId, people: list[Principal]
) -> None:
    ann, bob, *_ = people
    call = await studio.call(group, ann, bob)
    name = await studio.recorded(call, ann, bob)

    async def withdraw() -> None:
        await studio.rules.consent(bob, call, name, agrees=False)
        await studio.finish()

    storage = studio.storage
    slow = Overtaken(storage.config, studio.db, studio.objects, storage.files, lambda: False)
    slow.before = withdraw
    studio.rules.shelf = lambda: slow
    await refused(RecordingOver, lambda: studio.send(ann, call, name, 1, PIECES[0]))
    assert (await studio.get(call, name, ann)).state == "dropped"
    assert await keys(studio.objects) == []
    assert await studio.used(ann) == (0, 0)


async def test_a_part_that_comes_twice_at_once_stays(
    studio: Studio, group: ConversationId, people: list[Principal]
) -> None:
    ann, bob, *_ = people
    call = await studio.call(group, ann, bob)
    name = await studio.recorded(call, ann, bob)
    storage = studio.storage
    slow = Overtaken(storage.config, studio.db, studio.objects, storage.files, lambda: False)

    async def come_again() -> None:
        studio.rules.shelf = lambda: storage.growing
        await studio.send(ann, call, name, 1, PIECES[0])
        await studio.rules.complete(ann.user_id, call, name, 1)

    slow.before = come_again
    studio.rules.shelf = lambda: slow
    await studio.send(ann, call, name, 1, PIECES[0])
    await studio.finish()
    assert (await studio.get(call, name, ann)).state == "completed"
    assert [key.partition("/")[0] for key in await keys(studio.objects)] == ["files"]


class Outrun(Growing):
    """Somebody does something else before a file that is made of its parts is noted down."""

    before: Act

    async def _joined(self, place: str, numbers: Sequence[int]) -> AsyncGenerator[bytes, None]:
        async for chunk in super()._joined(place, numbers):
            yield chunk
        await self.before()


@pytest.mark.parametrize("what", ["finished", "deleted"])
async def test_another_node_is_faster(
    studio: Studio, group: ConversationId, people: list[Principal], between: MemorySignals, what: str
) -> None:
    ann, bob, *_ = people
    call = await studio.call(group, ann, bob)
    name = await studio.recorded(call, ann, bob)
    await studio.send(ann, call, name, 1, PIECES[0])
    done = await studio.rules.complete(ann.user_id, call, name, 1)
    storage = studio.storage
    other = Node(studio.db, between, CONFIG)
    other.room.recordings.shelf = lambda: storage.growing

    async def overtake() -> None:
        if what == "finished":
            assert await storage.growing.finish(done.file_id, [1])
        else:
            await other.room.recordings.delete(ann.user_id, call, name)
            await other.room.finisher.finish_once()

    slow = Outrun(storage.config, studio.db, studio.objects, storage.files, lambda: False)
    slow.before = overtake
    studio.rules.shelf = lambda: slow
    await studio.finish()
    if what == "deleted":
        assert await rows(studio.db, "recordings") == 0
        assert await keys(studio.objects) == []
        return
    assert (await studio.get(call, name, ann)).state == "completed"
    url, _ = await studio.rules.address(bob.user_id, call, name, "")
    assert await studio.content(url) == PIECES[0]


async def test_parts_that_belong_to_no_file_are_found(
    studio: Studio, group: ConversationId, people: list[Principal]
) -> None:
    """Of a process that died before it took note of them, or of a database put back to an earlier day."""
    ann, bob, *_ = people
    call = await studio.call(group, ann, bob)
    name = await studio.recorded(call, ann, bob)
    await studio.send(ann, call, name, 1, PIECES[0])
    place = (await studio.get(call, name, ann)).place
    await studio.storage.growing.put_part("0" * 32, 7, PIECES[1])
    await studio.storage.orphans.pass_once()
    assert len(await keys(studio.objects)) == 2, "it may be on its way"
    studio.db.ahead_us += StorageConfig().orphans_h * HOUR_US
    await studio.storage.orphans.pass_once()
    assert await keys(studio.objects) == [f"recordings/{place}/1"]


async def test_nothing_is_read_of_a_part_that_is_not_its_recorders(
    studio: Studio, group: ConversationId, people: list[Principal]
) -> None:
    ann, bob, *_ = people
    call = await studio.call(group, ann, bob)
    name = await studio.recorded(call, ann, bob)

    async def never() -> bytes:
        raise AssertionError("it takes the place of a part in memory")

    def sending(who: Principal) -> Call:
        path = {"call_id": call, "recording_id": name, "number": "1"}
        return Call("request", "", float("inf"), who, path=path, query=PartQuery("0" * 64), read=never)

    await refused(Forbidden, lambda: put_part(studio.node.room, sending(bob)))
    await refused(NotFound, lambda: put_part(studio.node.room, sending(principal_of(UserId(new_id())))))
