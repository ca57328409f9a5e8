"""What is told from memory while the database is away: never anything that is not so, never with a hole."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import trio

from kit.databases import on_sqlite
from kit.outage import Interrupted
from kit.wait import until
from secureconnect.chat import Chat
from secureconnect.chat.append import append
from secureconnect.chat.routes import History, get_message, list_messages
from secureconnect.clock import now_us
from secureconnect.config import ChatConfig, JournalConfig
from secureconnect.deps.memory import MemoryBus
from secureconnect.deps.sqlite import Sqlite
from secureconnect.edge import Call, Reply
from secureconnect.errors import PoolExhausted, Unavailable
from secureconnect.identity import ConversationId, MessageId, UserId

from .rig import make_group, make_people, principal_of, read_page, running, say, seqs

FAST = ChatConfig(catch_up_ms=100, recent_changes=40)


class Scene:
    """Ann and Bob have a group with `one`, `two`, `three` in it, as changes 2, 3, 4."""

    def __init__(
        self, room: Chat, db: Interrupted, people: list[UserId], group: ConversationId, ids: list[MessageId]
    ) -> None:
        self.room = room
        self.db = db
        self.ann, self.bob, self.cid = people
        self.group = group
        self.ids = ids

    async def read(self, caller: UserId | None = None, where: str | None = None, **bounds: Any) -> Reply:
        query = History(where or self.group, bounds.pop("limit", 100), **bounds)
        call = Call("r", "127.0.0.1", float("inf"), principal_of(caller or self.bob), query=query)
        return await list_messages(self.room, call)

    async def texts(self, caller: UserId | None = None, **bounds: Any) -> list[str]:
        """As they are told from memory."""
        reply = await self.read(caller, **bounds)
        assert reply.as_of_us is not None
        return [each["content"] for each in msgspec.json.decode(reply.data)["messages"]]

    async def get(self, message: MessageId, caller: UserId | None = None) -> Reply:
        path = {"message_id": message}
        call = Call("r", "127.0.0.1", float("inf"), principal_of(caller or self.bob), path=path)
        return await get_message(self.room, call)


@pytest.fixture
async def here(db: Sqlite, bus: MemoryBus) -> AsyncIterator[Scene]:
    away = Interrupted(db)
    people = await make_people(db, "ann", "bob", "cid")
    async with running(away, bus, FAST) as room:
        group = await make_group(room, *people[:2])
        await until(lambda: room.hub.can_see(group, people[0]) is not None)
        ids = [
            (await say(room, people[0], group, text)).message.message_id for text in ("one", "two", "three")
        ]
        yield Scene(room, away, people, group, ids)


async def test_history_is_as_the_table_has_it(here: Scene) -> None:
    await here.room.messages.edit(here.ann, here.ids[0], "one, edited")
    await here.room.messages.delete(here.ann, here.ids[1])
    bounds: list[dict[str, Any]] = [
        {},
        {"limit": 2},
        {"before_seq": 3},
        {"before_seq": 1},
        {"after_seq": 1},
        {"after_seq": 9},
        {"after_seq": 0, "limit": 2},
    ]
    stored = [await here.read(**each) for each in bounds]
    single = [await here.get(each) for each in here.ids]
    assert all(reply.as_of_us is None for reply in stored + single)
    here.db.go_away()
    told = [await here.read(**each) for each in bounds]
    assert [reply.data for reply in told] == [reply.data for reply in stored]
    assert [reply.data for reply in [await here.get(each) for each in here.ids]] == [
        reply.data for reply in single
    ]
    assert all(reply.as_of_us is not None and reply.as_of_us <= now_us() for reply in told)
    here.db.come_back()
    assert (await here.read()).as_of_us is None


@on_sqlite
async def test_strangers_and_those_who_left_are_told_nothing(here: Scene) -> None:
    await here.room.conversations.add(here.ann, here.group, here.cid, "member")
    late = (await say(here.room, here.ann, here.group, "four")).message.message_id
    await here.room.conversations.remove(here.ann, here.group, here.bob)
    here.db.go_away()
    seen = ["Somebody was added.", "four", "Somebody was removed."]
    assert await here.texts(here.cid) == seen, "from where he may see it"
    assert await here.texts(here.cid, before_seq=4) == []
    assert (await here.get(late, here.cid)).data.content == "four"
    for refused in (here.read(here.bob), here.get(here.ids[0], here.bob), here.get(here.ids[0], here.cid)):
        with pytest.raises(Unavailable):
            await refused


@on_sqlite
async def test_a_hole_is_no_answer(here: Scene) -> None:
    for number in range(FAST.recent_changes):
        await say(here.room, here.ann, here.group, str(number))
    here.db.go_away()
    last = FAST.recent_changes + 3
    assert await here.texts(limit=FAST.recent_changes) == [str(n) for n in range(FAST.recent_changes)]
    assert await here.texts(after_seq=last - 2) == [str(n) for n in (38, 39)]
    wanted: list[dict[str, Any]] = [
        {"limit": 41},
        {"before_seq": 10},
        {"after_seq": 2},
        {"after_seq": 0, "limit": 1},
    ]
    for bounds in wanted:
        with pytest.raises(Unavailable):
            await here.read(**bounds)
    with pytest.raises(Unavailable):
        await here.get(here.ids[0])
    with pytest.raises(Unavailable):
        await here.read(where=here.cid)


@on_sqlite
async def test_a_change_heard_of_and_not_read_yet_silences_all(here: Scene, bus: MemoryBus) -> None:
    """Another node's deletion came over the bus, and what lies before it did not."""
    async with running(here.db.inner, bus, FAST) as far:
        here.db.go_away()
        draft = here.room.messages.draft(here.ann, here.group, "unheard")
        await here.db.inner.write(append, [draft], here.db.now_us)
        await far.messages.delete(here.ann, here.ids[0])

        async def is_silent() -> bool:
            try:
                await here.read()
            except Unavailable:
                return True
            return False

        await until(is_silent)
        with pytest.raises(Unavailable):
            await here.get(here.ids[0])


@on_sqlite
async def test_what_another_node_told_is_kept_too(here: Scene, bus: MemoryBus) -> None:
    far_db = Interrupted(here.db.inner)
    async with running(far_db, bus, FAST) as far:
        await say(here.room, here.ann, here.group, "both know it")
        await until(lambda: far.hub.can_see(here.group, here.bob) is not None)
        for text in ("edit me", "delete me"):
            stored = await say(here.room, here.ann, here.group, text)
            if text == "edit me":
                await here.room.messages.edit(here.ann, stored.message.message_id, "edited")
            else:
                await here.room.messages.delete(here.ann, stored.message.message_id)
        truth = await read_page(here.room, here.bob, here.group, 2)
        await until(lambda: far.hub.change_of(here.group) == 9)
        for db in (here.db, far_db):
            db.go_away()
        assert far.recall.page(Unavailable(), here.bob, here.group, 2) == truth


@on_sqlite
async def test_what_was_read_is_kept_below(db: Sqlite, bus: MemoryBus) -> None:
    """A node that has just started knows of a conversation what happens from then on, and what was read."""
    ann, bob = await make_people(db, "ann", "bob")
    away = Interrupted(db)
    async with running(db, bus, FAST) as first:
        group = await make_group(first, ann, bob)
        ids = [(await say(first, ann, group, str(n))).message.message_id for n in range(30)]
    async with running(away, bus, FAST) as room:
        assert [each.seq for each in (await read_page(room, bob, group, 5)).messages] == [
            26,
            27,
            28,
            29,
            30,
        ]
        await say(room, ann, group, "new")
        await until(lambda: room.hub.can_see(group, bob) is not None)
        await say(room, ann, group, "newer")
        for before in (12, 31, 26, 22):  # the first leaves a hole, and is of no use
            await read_page(room, bob, group, 5, before_seq=before)
        await room.messages.edit(ann, ids[20], "changed since")
        truth = await read_page(room, bob, group, 12)
        away.go_away()
        assert room.recall.page(Unavailable(), bob, group, 12) == truth
        assert seqs(room.recall.page(Unavailable(), bob, group, 16).messages) == list(range(17, 33))
        with pytest.raises(Unavailable):
            room.recall.page(Unavailable(), bob, group, 17)
        away.come_back()
        for number in range(FAST.recent_changes):  # as many as are kept: what was read lies below a hole
            await say(room, ann, group, str(number))
        away.go_away()
        assert (
            len(room.recall.page(Unavailable(), bob, group, FAST.recent_changes).messages)
            == FAST.recent_changes
        )
        with pytest.raises(Unavailable):
            room.recall.page(Unavailable(), bob, group, FAST.recent_changes + 1)


@on_sqlite
async def test_members_known_too_long_ago_are_not_trusted(db: Sqlite, bus: MemoryBus) -> None:
    ann, bob = await make_people(db, "ann", "bob")
    away, trust = Interrupted(db), JournalConfig(trust_s=1)
    async with running(away, bus, ChatConfig(catch_up_ms=60_000), None, trust) as room:
        group = await make_group(room, ann, bob)
        await say(room, ann, group, "one")
        await until(lambda: room.hub.can_see(group, bob) is not None)
        room.hub.confirm(trio.current_time() - 2)
        away.go_away()
        with pytest.raises(Unavailable):
            room.recall.page(Unavailable(), bob, group, 1)
        room.hub.confirm(trio.current_time())
        assert len(room.recall.page(Unavailable(), bob, group, 1).messages) == 1


@on_sqlite
async def test_a_busy_database_is_not_away(here: Scene) -> None:
    here.db.go_away(PoolExhausted)
    with pytest.raises(PoolExhausted):
        await here.read()
    with pytest.raises(PoolExhausted):
        await here.get(here.ids[0])
