"""Coming back while the database is away: what memory holds at once, the rest when it is there again.

Over both, every change comes once and in order."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from kit.databases import on_sqlite
from kit.outage import Interrupted
from kit.wait import until
from secureconnect.chat import Chat
from secureconnect.chat.pledges import Accepted
from secureconnect.config import ChatConfig, JournalConfig, MemoryConfig
from secureconnect.deps.journal import FileJournal
from secureconnect.deps.memory import MemoryBus
from secureconnect.deps.sqlite import Sqlite
from secureconnect.edge import Close
from secureconnect.errors import OutcomeUnknown
from secureconnect.identity import ConversationId, UserId

from .rig import (
    HISTORY,
    MemorySocket,
    dial,
    make_group,
    make_people,
    read_page,
    resume_from,
    running,
    say,
)

FAST = ChatConfig(catch_up_ms=100)
JOURNAL = JournalConfig(retry_s=0.05)


class Scene:
    """Ann and Bob have two groups: of `busy` this node has heard all from change 1 on, up to 4; of `quiet`,
    which is at 3, nothing."""

    def __init__(
        self,
        room: Chat,
        db: Interrupted,
        ann: UserId,
        bob: UserId,
        busy: ConversationId,
        quiet: ConversationId,
    ) -> None:
        self.room = room
        self.db = db
        self.ann = ann
        self.bob = bob
        self.busy = busy
        self.quiet = quiet

    async def back(
        self, nursery: trio.Nursery, positions: dict[str, int], history_id: str = HISTORY
    ) -> MemorySocket:
        """Bob's socket, which has come back while the database is away."""
        socket = dial(nursery, self.room, self.bob, resume=True)
        resume_from(socket, positions, history_id)
        await socket.wait_for("resuming")
        return socket


@asynccontextmanager
async def scene(db: Sqlite, bus: MemoryBus, folder: Path, config: ChatConfig = FAST) -> AsyncIterator[Scene]:
    away = Interrupted(db)
    ann, bob = await make_people(db, "ann", "bob")
    async with running(db, MemoryBus(MemoryConfig())) as before:
        quiet = await make_group(before, ann, bob)
        for text in ("old", "older"):
            await say(before, ann, quiet, text)
    async with (
        FileJournal.open(folder / "journal", JOURNAL) as journal,
        running(away, bus, config, journal, JOURNAL) as room,
    ):
        busy = await make_group(room, ann, bob)
        await until(lambda: room.hub.can_see(busy, ann) is not None)
        for text in ("one", "two", "three"):
            await say(room, ann, busy, text)
        yield Scene(room, away, ann, bob, busy, quiet)


@pytest.fixture
async def here(db: Sqlite, bus: MemoryBus, data_dir: Path) -> AsyncIterator[Scene]:
    async with scene(db, bus, data_dir) as here:
        yield here


def kinds(socket: MemorySocket) -> list[tuple[str, int | None]]:
    return [(frame["type"], frame.get("change")) for frame in socket.seen]


async def test_what_is_held_at_once_and_the_rest_later(here: Scene, nursery: trio.Nursery) -> None:
    here.db.go_away()
    socket = await here.back(nursery, {here.busy: 2, here.quiet: 2})
    assert kinds(socket) == [("hello", None), ("chat", 3), ("chat", 4), ("resuming", None)]
    assert socket.of("resuming")[0]["conversations"] == {here.busy: 4}
    socket.tell("chat", ref=1, conversation_id=here.busy, content="four", client_message_id="id-4")
    assert (await socket.wait_for("ack"))["status"] == "accepted"
    assert (await socket.wait_for("chat", 3))["provisional"] is True

    here.db.come_back()
    resumed = await socket.wait_for("resumed")
    assert set(resumed["conversations"]) == {here.busy, here.quiet}
    assert (await socket.wait_for("stored"))["client_message_id"] == "id-4"
    await say(here.room, here.ann, here.quiet, "live again")
    assert await socket.wait_changes(here.quiet, 4) == [3, 4]
    await socket.wait_changes(here.busy, 5)
    assert [each for each in socket.changes(here.busy) if each] == [3, 4, 5]
    assert len(socket.of("resumed")) == 1


@on_sqlite
async def test_what_other_nodes_store_meanwhile_comes_once(
    here: Scene, bus: MemoryBus, nursery: trio.Nursery
) -> None:
    async with running(here.db.inner, bus, FAST) as far:
        await say(far, here.ann, here.busy, "four")
        await until(lambda: here.room.hub.change_of(here.busy) == 5)
        here.db.go_away()
        socket = await here.back(nursery, {here.busy: 5, here.quiet: 3})
        await say(far, here.ann, here.busy, "five")
        await say(far, here.ann, here.quiet, "of the other")
        assert await socket.wait_changes(here.busy, 6) == [6], "live"
        assert socket.changes(here.quiet) == []
        here.db.come_back()
        await say(far, here.ann, here.busy, "six")
        await socket.wait_for("resumed")
        assert await socket.wait_changes(here.busy, 7) == [6, 7]
        assert await socket.wait_changes(here.quiet, 4) == [4]


@on_sqlite
async def test_a_hole_in_what_is_heard_is_filled_in_order(
    here: Scene, bus: MemoryBus, nursery: trio.Nursery
) -> None:
    """A change that only the table has, then one that the bus tells: neither is told before its time."""
    here.db.go_away()
    socket = await here.back(nursery, {here.busy: 4})
    async with running(here.db.inner, MemoryBus(MemoryConfig())) as deaf:
        await say(deaf, here.ann, here.busy, "four")
    async with running(here.db.inner, bus, FAST) as far:
        await say(far, here.ann, here.busy, "five")
        await until(lambda: here.room.hub.known(here.busy, here.bob, 600) is None)
        assert socket.changes(here.busy) == []
        again = await here.back(nursery, {here.busy: 4})
        assert again.of("resuming")[0]["conversations"] == {}, "nor does it say it were live"
    here.db.come_back()
    for each in (socket, again):
        await each.wait_for("resumed")
        assert await each.wait_changes(here.busy, 6) == [5, 6]


async def test_nothing_is_retold_that_was_taken_back(here: Scene, nursery: trio.Nursery) -> None:
    first, second = (await read_page(here.room, here.bob, here.busy, 3)).messages[:2]
    await here.room.messages.edit(here.ann, first.message_id, "edited")
    await here.room.messages.edit(here.ann, second.message_id, "edited, then deleted")
    await here.room.messages.delete(here.ann, second.message_id)
    await here.room.messages.edit(here.ann, first.message_id, "edited twice")
    stored = dial(nursery, here.room, here.bob, resume=True)
    resume_from(stored, {here.busy: 1})
    await stored.wait_for("resumed")
    here.db.go_away()
    socket = await here.back(nursery, {here.busy: 1})
    assert socket.seen[1:-1] == stored.seen[1:-1], "as from the table"
    assert "deleted" not in {frame.get("content") for frame in socket.seen}
    assert [frame["content"] for frame in socket.of("message_edited")] == ["edited twice"] * 2


@on_sqlite
async def test_of_another_history_nothing_is_told_before_its_gap(here: Scene, nursery: trio.Nursery) -> None:
    here.db.go_away()
    socket = await here.back(nursery, {here.busy: 2}, "of another life")
    assert kinds(socket) == [("hello", None), ("resuming", None)]
    assert socket.of("resuming")[0]["conversations"] == {}
    here.db.come_back()
    await socket.wait_for("resumed")
    assert kinds(socket)[2:] == [("gap", 4), ("resumed", None)]


@on_sqlite
async def test_one_who_was_removed_is_told_nothing(here: Scene, nursery: trio.Nursery) -> None:
    await here.room.conversations.remove(here.ann, here.busy, here.bob)
    here.db.go_away()
    socket = await here.back(nursery, {here.busy: 2})
    assert kinds(socket) == [("hello", None), ("resuming", None)]
    here.db.come_back()
    assert here.busy not in (await socket.wait_for("resumed"))["conversations"]


@on_sqlite
async def test_it_goes_away_again_and_again(here: Scene, nursery: trio.Nursery) -> None:
    """Sockets stay, what is accepted is told to its sender, and nothing comes twice."""
    here.db.go_away()
    socket = await here.back(nursery, {here.busy: 4, here.quiet: 2})
    for number in range(8):
        text = str(number)
        draft = here.room.messages.draft(here.bob, here.busy, text, client_message_id=text)
        await here.room.messages.send(draft)
        here.db.come_back()
        with trio.move_on_after(0.05 * number):
            await socket.wait_for("resumed")
        here.db.go_away(OutcomeUnknown)
    here.db.come_back()
    await socket.wait_for("resumed")
    changes = [each for each in await socket.wait_changes(here.busy, 12) if each]
    assert changes == list(range(5, 13))
    assert socket.changes(here.quiet) == [3]
    answered = {frame["client_message_id"] for frame in socket.of("stored")}
    await until(lambda: len(socket.of("stored")) == len(answered))
    assert socket.code is None


@on_sqlite
async def test_a_socket_of_one_conversation(here: Scene, nursery: trio.Nursery) -> None:
    here.db.go_away()
    socket = dial(nursery, here.room, here.bob, resume=True, only=here.busy)
    resume_from(socket, {here.busy: 3, here.quiet: 2})
    await socket.wait_for("resuming")
    assert kinds(socket) == [("hello", None), ("chat", 4), ("resuming", None)]
    here.db.come_back()
    await socket.wait_for("resumed")
    await say(here.room, here.ann, here.quiet, "of the other")
    await say(here.room, here.ann, here.busy, "five")
    assert await socket.wait_changes(here.busy, 5) == [4, 5]
    assert socket.changes(here.quiet) == []


@on_sqlite
async def test_the_resume_is_acknowledged_when_it_is_whole(here: Scene, nursery: trio.Nursery) -> None:
    here.db.go_away()
    socket = dial(nursery, here.room, here.bob, resume=True)
    socket.tell("resume", ref=7, history_id=HISTORY, conversations={})
    await socket.wait_for("resuming")
    socket.tell("ping", ref=8)
    await socket.wait_for("pong")
    assert socket.of("ack") == []
    here.db.come_back()
    assert (await socket.wait_for("ack"))["ref"] == 7
    assert len(socket.of("resumed")) == 1


@on_sqlite
async def test_a_client_that_leaves_meanwhile_leaves_nothing(here: Scene, nursery: trio.Nursery) -> None:
    here.db.go_away()
    socket = await here.back(nursery, {here.busy: 4})
    assert here.room.hub.is_connected(here.bob)
    socket.close(Close.NORMAL, "")
    await until(lambda: not here.room.hub.is_connected(here.bob))


@on_sqlite
async def test_more_than_is_replayed_waits_for_its_gap(
    db: Sqlite, bus: MemoryBus, data_dir: Path, nursery: trio.Nursery
) -> None:
    few = ChatConfig(catch_up_ms=100, resume_changes=2)
    async with scene(db, bus, data_dir, few) as here:
        here.db.go_away()
        socket = await here.back(nursery, {here.busy: 1})
        assert socket.of("resuming")[0]["conversations"] == {}
        here.db.come_back()
        await socket.wait_for("resumed")
        assert [frame["change"] for frame in socket.of("gap")] == [4]


@on_sqlite
async def test_more_than_is_kept_waits_for_the_table(
    db: Sqlite, bus: MemoryBus, data_dir: Path, nursery: trio.Nursery
) -> None:
    few = ChatConfig(catch_up_ms=100, recent_changes=2)
    async with scene(db, bus, data_dir, few) as here:
        here.db.go_away()
        far, near = await here.back(nursery, {here.busy: 1}), await here.back(nursery, {here.busy: 2})
        assert far.of("resuming")[0]["conversations"] == {}
        assert near.of("resuming")[0]["conversations"] == {here.busy: 4}
        here.db.come_back()
        for socket, since in ((far, 1), (near, 2)):
            await socket.wait_for("resumed")
            assert socket.changes(here.busy) == list(range(since + 1, 5))


@on_sqlite
async def test_accepted_here_though_the_socket_came_back_just_now(here: Scene, nursery: trio.Nursery) -> None:
    here.db.go_away()
    socket = await here.back(nursery, {here.busy: 4})
    draft = here.room.messages.draft(here.ann, here.busy, "from Ann", client_message_id="id")
    assert isinstance(await here.room.messages.send(draft), Accepted)
    shown = await socket.wait_for("chat")
    assert (shown["provisional"], shown["content"]) == (True, "from Ann")
    here.db.come_back()
    await socket.wait_for("chat", 2)
    assert [each["seq"] for each in socket.of("chat")] == [None, 4]
