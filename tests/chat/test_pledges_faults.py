"""What accepted messages must outlive beside a database that is away: one that is not fit, news that came too
late, a long queue, and being sent twice."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio

from kit.outage import Interrupted
from kit.wait import until
from secureconnect.chat.append import Draft, Stored, append
from secureconnect.chat.connection import Connection
from secureconnect.chat.hub import About, Behind, Hub
from secureconnect.chat.live import PROVISIONAL, Live
from secureconnect.chat.pledges import TOPIC, Accepted, Answer
from secureconnect.chat.writer import PAGES
from secureconnect.clock import MINUTE_US
from secureconnect.config import ChatConfig, JournalConfig
from secureconnect.deps.contracts import Database, Tx
from secureconnect.deps.journal import FileJournal
from secureconnect.deps.memory import MemoryBus
from secureconnect.deps.sqlite import Sqlite
from secureconnect.edge import Frame
from secureconnect.identity import ConversationId, UserId, new_id

from .rig import MemorySocket, dialled, history, make_group, make_people, principal_of, running, say
from .test_nodes import SLOW, LossyBus, two
from .test_pledges import Scene, scene


@pytest.fixture
async def here(db: Sqlite, bus: MemoryBus, data_dir: Path, nursery: trio.Nursery) -> AsyncIterator[Scene]:
    async with scene(db, bus, data_dir, nursery) as here:
        yield here


async def rename(db: Database, table: str, name: str) -> None:
    async def unit(tx: Tx) -> None:
        await tx.run(f"ALTER TABLE {table} RENAME TO {name}")

    await db.write(unit)


async def test_a_database_without_its_tables_returns_nothing(here: Scene) -> None:
    """It answers again while somebody is still putting its content back."""
    here.db.go_away()
    for text in ("one", "two", "three"):
        await here.accept(text)
    await rename(here.db.inner, "messages", "not_yet")
    with structlog.testing.capture_logs() as logged:
        here.db.come_back()
        await until(lambda: any(line["log_level"] == "error" for line in logged))
        await here.accept("four")
        await rename(here.db.inner, "not_yet", "messages")
        await here.settled()
    assert {line["event"] for line in logged if line["log_level"] == "error"} == {"database_unfit"}
    assert here.anns.of("rejected") == []
    assert await here.told() == ["before", "one", "two", "three", "four"]


async def test_what_is_sent_again_is_not_shown_beside_what_was_stored(here: Scene) -> None:
    """Its sender never got the answer, and the node that takes it now cannot know."""
    stored = await here.send("one", "id-1")
    assert isinstance(stored, Stored)
    await here.bobs.wait_for("chat", 3)
    await here.is_known()
    here.db.go_away()
    again = await here.accept("one", "id-1")
    assert again.message_id != stored.message.message_id
    await here.bobs.wait_for("chat", 4)
    here.db.come_back()
    told = await here.anns.wait_for("stored")
    assert told["message_id"] == stored.message.message_id
    for socket in (here.anns, here.bobs):
        assert (await socket.wait_for("message_withdrawn"))["message_id"] == again.message_id
    assert await here.told() == ["before", "one"]


class Prompted(Interrupted):
    """prompt: called before each append, once there is one."""

    prompt: Callable[[], None] | None = None

    async def write(self, unit: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self.prompt is not None and unit is append and self.problem is None:
            self.prompt()
        return await super().write(unit, *args, **kwargs)

    relieve = write


async def test_whoever_sends_meanwhile_does_not_wait_for_all_of_it(
    db: Database, bus: MemoryBus, data_dir: Path
) -> None:
    away = Prompted(db)
    ann, bob = await make_people(db, "ann", "bob")
    config, settings = JournalConfig(retry_s=0.05), ChatConfig(catch_up_ms=100, append_batch=2)
    pages = 3 * PAGES
    async with (
        FileJournal.open(data_dir / "journal", config) as journal,
        running(away, bus, settings, journal, config) as room,
    ):
        where = await make_group(room, ann, bob)
        await say(room, ann, where, "before")

        def draft(text: str) -> Draft:
            return room.messages.draft(ann, where, text, client_message_id=text)

        await until(lambda: room.hub.trusted(where, ann, 60) is not None)
        away.go_away()
        for number in range(2 * pages):
            assert isinstance(await room.messages.send(draft(str(number))), Accepted)
        answers: list[Answer] = []

        def prompt() -> None:
            away.prompt = None
            room.writer.send(draft("new"), answers.append)

        away.prompt = prompt
        away.come_back()
        await until(lambda: bool(answers))
        assert isinstance(answers[0], Accepted), "it waited until all was stored"

        async def is_settled() -> bool:
            return not await journal.read(TOPIC, 0, 1)

        await until(is_settled)
        told = [message.content for message in await history(room, bob, where)]
        assert told == ["before", *map(str, range(2 * pages)), "new"]


# what the hub knows


class Known:
    """A hub that knows a group of two, one of whom is connected."""

    def __init__(self) -> None:
        self.hub = Hub(16)
        self.where = ConversationId(new_id())
        self.ann, self.bob = UserId(new_id()), UserId(new_id())
        self.socket = MemorySocket(principal_of(self.bob))
        self.hub.attach(Connection(self.socket, None, 10))
        viewers = {self.ann: 1, self.bob: 1}
        about = About(is_direct=False, is_e2ee=False, is_clear=True)
        self.hub.fill(self.where, 3, viewers, [], Behind(None, None), about)
        self.hub.confirm(trio.current_time())

    def is_trusted(self) -> bool:
        return self.hub.trusted(self.where, self.ann, 60) is not None

    def show(self) -> bool:
        """Whether an accepted message is shown now."""
        seen = len(self.socket.seen)
        self.hub.deliver(Live(PROVISIONAL, self.where, 0, None, None, None, Frame(b'{"type":"chat"}')))
        return len(self.socket.seen) > seen


async def test_what_is_being_read_is_not_known() -> None:
    """Somebody may have left: nothing is accepted by what was known before, and nothing shown."""
    known = Known()
    assert known.is_trusted()
    assert known.show()
    known.hub.fall_behind(known.where, 5)
    assert not known.is_trusted()
    assert not known.show()
    taken = known.hub.take_behind()
    assert taken is not None
    with known.hub.reading(*taken):
        assert not known.is_trusted(), "it is taken, and not read yet"
        assert not known.show()
        with known.hub.reading(*taken):
            pass
        assert not known.is_trusted(), "somebody else reads it still"
        for change in (4, 5):
            known.hub.deliver(
                Live("chat", known.where, change, change, None, None, Frame(b'{"type":"chat"}'))
            )
        assert known.is_trusted(), "what was heard of has come"
        assert known.show()
    assert known.is_trusted()


async def test_old_news_do_not_bring_back_the_past(
    db: Database, bus: MemoryBus, nursery: trio.Nursery
) -> None:
    """A message that is sent again, or a node that hung, may name a change long told."""
    ann, bob = await make_people(db, "ann", "bob")
    later = Interrupted(db)
    later.ahead_us = 20 * MINUTE_US
    async with running(db, bus, SLOW) as room:
        where = await make_group(room, ann, bob)
        for number in range(5):
            await say(room, ann, where, str(number))
    async with running(later, bus, SLOW) as far:
        socket = await dialled(nursery, far, bob)
        assert far.hub.change_of(where) is None
        far.hub.deliver(Live("chat", where, 2, 1, None, None, Frame(b'{"type":"chat","change":2}')))
        await until(lambda: far.hub.change_of(where) == 6)
        await until(lambda: far.hub.can_see(where, bob) is True)
        assert socket.of("chat") == []


async def test_what_was_missed_is_looked_up_once_it_is_whole_again(
    db: Database, bus: MemoryBus, nursery: trio.Nursery
) -> None:
    ann, bob = await make_people(db, "ann", "bob")
    lossy = LossyBus(bus, random.Random(1), loss=0, spare="chat.nodes")
    async with two(db, lossy, SLOW) as (here, there):
        where = await make_group(here, ann, bob)
        socket = await dialled(nursery, there, bob)
        lossy.loss = 1
        await say(here, ann, where, "lost")
        there.tell_health()
        await socket.wait_changes(where, 2)
