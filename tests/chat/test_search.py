"""Search: the same answers from both databases, and never what the caller may not see."""

from __future__ import annotations

import unicodedata
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from kit.wait import until
from secureconnect.chat import Chat
from secureconnect.chat.deletion import deletion
from secureconnect.chat.search import index, store
from secureconnect.chat.search import search as rules
from secureconnect.chat.search.question import find, parse, snippet
from secureconnect.chat.search.search import Asked, Hit, Position, read_position, write_position
from secureconnect.chat.search.store import Entry
from secureconnect.chat.search.words import LONGEST, MOST, SAME, words
from secureconnect.chat.store import NO_ID, Reacted
from secureconnect.clock import DAY_US
from secureconnect.config import ChatConfig, SqliteConfig
from secureconnect.deps import migrate
from secureconnect.deps.contracts import Database, Tx
from secureconnect.deps.memory import MemoryBus
from secureconnect.deps.sqlite import Sqlite
from secureconnect.errors import DeadlineExceeded, Invalid, NotFound, Overloaded
from secureconnect.identity import ConversationId, MessageId, UserId, new_id_at
from secureconnect.metrics import REGISTRY

from .rig import make_group, make_people, running, say
from .rig import store as store_draft

BY_HAND = ChatConfig(search_pass_s=3_600, search_purge_s=0)


@pytest.fixture
async def room(db: Database, bus: MemoryBus) -> AsyncIterator[Chat]:
    """Its index follows when it is told to."""
    async with running(db, bus, BY_HAND) as room:
        yield room


async def follow(room: Chat) -> None:
    for _ in range(200):
        if await room.index.pass_once():
            return
    raise AssertionError("it never ends")


async def ask(
    room: Chat,
    caller: UserId,
    q: str,
    conversation: ConversationId | None = None,
    *,
    sender: UserId | None = None,
    after_us: int | None = None,
    before_us: int | None = None,
) -> list[Hit]:
    asked = Asked(parse(q), conversation, sender, after_us, before_us, 50)
    results = await room.search.find(caller, asked, None)
    assert results.next is None
    return list(results.hits)


async def found(room: Chat, caller: UserId, q: str, conversation: ConversationId | None = None) -> list[str]:
    return [hit.message.content for hit in await ask(room, caller, q, conversation)]


SAID = (
    "Hẹn gặp ở Đà Nẵng",
    "We meet at noon in the café",
    "meeting minutes: nothing",
    "東京都で会いましょう",
    "don't panic",
    "the noon train, not the train at noon",
    "e\N{COMBINING ACUTE ACCENT}cole",
    "\N{THUMBS UP SIGN}\N{EMOJI MODIFIER FITZPATRICK TYPE-4} for the plan",
    "ＦＵＬＬ width",
    "a'b & (c | d) <-> !e:* \\ \" NEAR(",
    "สวัสดีครับ",
    "   ...   ",
    "To be or not to be: is it that?",
    "Tôi ở nhà với mẹ",
    "서울에서 만나요",
    "ｶﾀｶﾅ: ひらがな",
    "Die Straße, ΟΔΟΣ, мой дом",
    "مُحَمَّد",
)
ASKED: dict[str, Sequence[int]] = {
    "da nang": [0],
    "ĐÀ": [0],
    "cafe": [1],
    "meet": [1, 2],
    "meet noon": [1],
    "noon meet": [1],
    '"meet noon"': [],
    '"at noon"': [5, 1],
    '"noon train"': [5],
    "meetings": [],
    "東京": [3],
    "京東": [],
    "会いま": [3],
    "don't": [4],
    "dont": [],
    "ecole": [6],
    "École": [6],
    "\N{THUMBS UP SIGN}": [7],
    "full": [8],
    "a'b": [9],
    "c d": [9],
    "near": [9],
    "สวัสดี": [10],
    "pan": [4],
    '"pan"': [],
    '"pan': [],
    "p": [],
    "the t": [],
    "the tr": [5],
    "to be or not to be": [12],
    '"that is it"': [],
    "toi o nha": [13],
    unicodedata.normalize("NFD", '"với mẹ"'): [13],
    "서울": [14],
    "서울에서 만나요": [14],
    "울에서": [],
    "カタカナ": [15],
    "ひらがな": [15],
    "らが": [15],
    "STRASSE": [16],
    "οδος дом": [16],
    "محمد": [17],
    "noon OR café": [],
    "NOT noon": [5],
    "words : noon": [],
    "nothing* -meeting": [2],
    '"noon" AND "train': [],
    "^the": [7, 5, 1],
    "place:" + "0" * 32: [],
    "'; DROP TABLE messages --": [],
}


async def test_what_is_said_is_found_by_its_words(room: Chat, people: list[UserId]) -> None:
    ann, bob, *_ = people
    group = await make_group(room, ann, bob)
    for text in SAID:
        await say(room, ann, group, text)
    await follow(room)
    for where in (group, None):
        told = {q: await found(room, bob, q, where) for q in ASKED}
        assert told == {q: [SAID[number] for number in numbers] for q, numbers in ASKED.items()}


async def test_only_who_may_look_finds(room: Chat, people: list[UserId]) -> None:
    ann, bob, cid, dee = people
    group, other = await make_group(room, ann, bob), await make_group(room, ann, dee)
    await say(room, ann, group, "a secret before")
    await room.conversations.add(ann, group, cid, "member")
    await say(room, ann, group, "a secret after")
    await say(room, dee, other, "a secret elsewhere")
    await follow(room)
    assert await found(room, bob, "secret") == ["a secret after", "a secret before"]
    assert await found(room, cid, "secret") == ["a secret after"]
    assert await found(room, ann, "secret", other) == ["a secret elsewhere"]
    assert await found(room, dee, "secret") == ["a secret elsewhere"]
    with pytest.raises(NotFound):
        await ask(room, dee, "secret", group)
    await room.conversations.remove(ann, group, bob)
    assert await found(room, bob, "secret") == []


async def test_edits_and_deletions_are_followed_and_never_told_late(
    room: Chat, people: list[UserId], db: Database
) -> None:
    ann, bob, *_ = people
    group = await make_group(room, ann, bob)
    one, two = await say(room, ann, group, "old words"), await say(room, ann, group, "old news")
    await follow(room)
    await room.messages.edit(ann, one.message.message_id, "new words")
    await room.messages.delete(ann, two.message.message_id)
    assert await found(room, bob, "old") == [], "the index knows them still"
    await follow(room)
    assert await found(room, bob, "new") == ["new words"]
    assert await found(room, bob, "words") == ["new words"]
    assert await rows_of(db) == 1


async def test_encryption_empties_the_index(room: Chat, people: list[UserId], db: Database) -> None:
    ann, bob, *_ = people
    group = await make_group(room, ann, bob)
    for number in range(5):
        await say(room, ann, group, f"plain {number}")
    await follow(room)
    assert await rows_of(db) == 5
    await room.conversations.configure(ann, group, {"is_e2ee_enabled": True})
    assert await found(room, bob, "plain") == await found(room, bob, "plain", group) == []
    await follow(room)
    assert await rows_of(db) == 0


async def test_what_retention_drops_is_dropped(room: Chat, people: list[UserId], db: Database) -> None:
    ann, bob, *_ = people
    group = await make_group(room, ann, bob)
    for number in range(5):
        await say(room, ann, group, f"plain {number}")
    await follow(room)
    assert await room.retention.drop(group, 0, db.now_us() + DAY_US)
    await say(room, ann, group, "plain later")
    await follow(room)
    assert await found(room, bob, "plain") == ["plain later"]
    assert await rows_of(db) == 1


async def test_a_deleted_group_leaves_nothing(
    room: Chat, people: list[UserId], db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the index follows first or the rows go first; nor does a batch that was read before."""
    ann, bob, *_ = people
    kept, followed_, unknown, read = [await make_group(room, ann, bob) for _ in range(4)]
    await say(room, ann, kept, "some words")
    await say(room, ann, followed_, "some words")
    await follow(room)
    for where in (unknown, read):
        for number in range(3):
            await say(room, ann, where, f"some words {number}")
    monkeypatch.setattr(deletion, "BATCH", 2)
    monkeypatch.setattr(deletion, "KEPT_US", -DAY_US)
    await room.deletion.delete(ann, followed_)
    await follow(room)
    assert await rows_of(db) == 7
    assert [hit.message.conversation_id for hit in await ask(room, ann, "1")] == [read, unknown]
    await say(room, ann, read, "one more")
    batch = await db.read(room.index._read, 0, NO_ID)
    for where in (unknown, read):
        await room.deletion.delete(ann, where)
    await room.deletion.pass_once()
    assert await db.read(followed) == [kept]
    assert await rows_of(db) == 1
    await room.index._take_in(batch)
    await follow(room)
    assert (await db.read(followed), await rows_of(db)) == ([kept], 1)


async def followed(tx: Tx) -> list[str]:
    return [row[0] for row in await tx.all("SELECT conversation_id FROM search_positions")]


async def test_in_more_conversations_than_the_index_is_asked_for(
    room: Chat, people: list[UserId], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rules, "PLACES", 2)
    ann, bob, *_ = people
    groups = [await make_group(room, ann, bob) for _ in range(4)]
    for number, group in enumerate(groups):
        await say(room, ann, group, f"word {number}")
    await say(room, ann, await make_group(room, ann), "word not for bob")
    await follow(room)
    await room.conversations.configure(ann, groups[-1], {"is_e2ee_enabled": True})
    assert await found(room, bob, "word") == ["word 2", "word 1", "word 0"]


async def test_a_backlog_is_taken_in_by_two_nodes(db: Database, bus: MemoryBus, people: list[UserId]) -> None:
    ann, bob, *_ = people
    small = ChatConfig(search_pass_s=3_600, search_batch=3, search_units=4)
    async with running(db, bus, small) as one, running(db, bus, small) as two:
        groups = [await make_group(one, ann, bob) for _ in range(3)]
        for number in range(30):
            await say(one, ann, groups[number % 3], f"number {number}")
        passes = 0
        while not (await one.index.pass_once() and await two.index.pass_once()):
            passes += 1
            assert passes < 100
        assert passes > 2, "a pass has a bound"
        assert await rows_of(db) == 30
        assert len(await ask(two, bob, "number")) == 30
        await say(one, ann, groups[0], "number last")
        assert await two.index.pass_once()
        assert len(await ask(one, bob, "last")) == 1


async def test_ranked_then_newest_page_by_page(room: Chat, people: list[UserId]) -> None:
    ann, bob, *_ = people
    group = await make_group(room, ann, bob)
    row: list[str] = []
    apart: list[str] = []
    for number in range(120):
        text = f"red blue {number}" if number % 10 == 0 else f"blue {number} red"
        (row if number % 10 == 0 else apart).append(text)
        await say(room, ann, group, text)
    await follow(room)
    asked, after = Asked(parse("red blue"), None, None, None, None, 50), None
    pages: list[list[str]] = []
    while True:
        results = await room.search.find(bob, asked, after)
        pages.append([hit.message.content for hit in results.hits])
        await say(room, ann, group, "red blue again")
        await follow(room)
        after = results.next
        if after is None:
            break
    told = [text for page in pages for text in page]
    newest = [text for text in row if int(text.split()[-1]) >= 20]
    assert told[:10] == newest[::-1], "in a row first"
    assert sorted(told) == sorted(row + apart), "each once, whatever is said meanwhile"
    assert [len(page) for page in pages] == [50, 50, 20]


async def test_what_has_disappeared_is_not_found(room: Chat, people: list[UserId], db: Database) -> None:
    ann, bob, *_ = people
    group = await make_group(room, ann, bob)
    sent = await say(room, ann, group, "for a moment")
    await follow(room)
    for end_us, hits in ((db.now_us() + DAY_US, 1), (db.now_us() - 1, 0)):
        await db.write(end, sent.message.message_id, end_us)
        assert len(await found(room, bob, "moment")) == hits


async def end(tx: Tx, message: MessageId, end_us: int) -> None:
    await tx.run("UPDATE messages SET expires_at = $2 WHERE message_id = $1", message, end_us)


async def test_by_sender_and_time(room: Chat, people: list[UserId]) -> None:
    ann, bob, *_ = people
    group = await make_group(room, ann, bob)
    one = await say(room, ann, group, "word of ann")
    await say(room, bob, group, "word of bob")
    await follow(room)
    assert [hit.message.content for hit in await ask(room, ann, "word", sender=bob)] == ["word of bob"]
    exact = one.message.sent_us
    assert [hit.message.content for hit in await ask(room, ann, "word", before_us=exact)] == []
    assert len(await ask(room, ann, "word", after_us=exact)) == 2
    assert [hit.message.content for hit in await ask(room, ann, "word", after_us=exact + 1)] == [
        "word of bob"
    ]
    late = one.message.sent_us + DAY_US
    assert await ask(room, ann, "word", after_us=late) == []
    assert len(await ask(room, ann, "word", before_us=late)) == 2
    assert await ask(room, ann, "word", before_us=one.message.sent_us - DAY_US) == []


async def test_what_was_accepted_long_before_stands_where_it_was_stored(
    room: Chat, people: list[UserId], db: Database
) -> None:
    """As it does while the database is away: its id is from then."""
    ann, *_ = people
    group = await make_group(room, ann)
    await say(room, ann, group, "word one")
    draft = room.messages.draft(ann, group, "word two")
    day_us = db.now_us() - DAY_US
    stored = await store_draft(room, draft._replace(message_id=MessageId(new_id_at(day_us))))
    assert stored.message.sent_us > day_us + DAY_US // 2
    await follow(room)
    assert await found(room, ann, "word") == ["word two", "word one"]
    assert len(await ask(room, ann, "word", after_us=day_us + DAY_US // 2)) == 2
    assert await ask(room, ann, "word", before_us=day_us + DAY_US // 2) == []


async def test_a_hit_is_told_with_its_reactions(room: Chat, people: list[UserId]) -> None:
    ann, bob, *_ = people
    group = await make_group(room, ann, bob)
    for number in range(3):
        sent = await say(room, ann, group, f"word {number}")
        await room.reactions.set(bob, sent.message.message_id, "+", on=number != 1)
    await follow(room)
    for who, mine in ((ann, False), (bob, True)):
        told = [hit.message.reactions for hit in await ask(room, who, "word")]
        assert told == [(Reacted("+", 1, mine),), (), (Reacted("+", 1, mine),)]


async def test_a_clock_that_is_set_back_leaves_nothing_out(
    room: Chat, people: list[UserId], db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = await make_group(room, people[0])
    now_us = db.now_us
    monkeypatch.setattr(db, "now_us", lambda: now_us() + DAY_US)
    await follow(room)
    monkeypatch.undo()
    await say(room, people[0], group, "word")
    await follow(room)
    assert await found(room, people[0], "word") == ["word"]


async def test_a_search_runs_out_of_its_time(db: Database, bus: MemoryBus, people: list[UserId]) -> None:
    """It says so in time, and leaves nothing behind that others would wait for."""
    quick = ChatConfig(search_pass_s=3_600, search_s=0.2, searches_at_once=1)
    async with running(db, bus, quick) as room:
        group = await make_group(room, people[0])
        await say(room, people[0], group, "a word")
        await follow(room)
        before = looked()
        async with stalled(db):
            began = trio.current_time()
            with pytest.raises(DeadlineExceeded, match="The search took too long"):
                await ask(room, people[0], "word")
            assert 0.2 <= trio.current_time() - began < 2
        assert looked() == before + 1, "those count, too"
        assert await found(room, people[0], "word") == ["a word"]


def looked() -> float:
    return REGISTRY.get_sample_value("secureconnect_chat_search_seconds_count") or 0


@asynccontextmanager
async def stalled(db: Database) -> AsyncIterator[None]:
    """Nobody can read what search reads."""

    async def lock(tx: Tx) -> None:
        await tx.run("LOCK TABLE search_entries")
        await tx.one("SELECT pg_sleep(60)")

    async def count(tx: Tx) -> None:
        await tx.one("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n")

    async def is_locked(tx: Tx) -> bool:
        sql = "SELECT 1 FROM pg_locks WHERE relation = to_regclass('search_entries') AND granted"
        return await tx.one(f"{sql} AND mode = 'AccessExclusiveLock'") is not None

    async with trio.open_nursery() as nursery:
        if isinstance(db, Sqlite):
            for _ in range(SqliteConfig().readers):
                nursery.start_soon(db.read, count)
            await until(
                lambda: (
                    REGISTRY.get_sample_value("db_connections_active", {"role": "reader"})
                    == SqliteConfig().readers
                )
            )
        else:
            nursery.start_soon(db.read, lock)
            await until(lambda: db.read(is_locked))
        yield
        nursery.cancel_scope.cancel()


async def test_the_index_is_made_anew_where_it_is_empty(
    db: Database, bus: MemoryBus, people: list[UserId]
) -> None:
    async def empty(tx: Tx) -> None:
        for table in ("search_positions", "search_entries", "search_index")[: 3 if is_sqlite else 2]:
            await tx.run(f"DELETE FROM {table}")

    is_sqlite = isinstance(db, Sqlite)
    async with running(db, bus, BY_HAND) as room:
        group = await make_group(room, people[0])
        for number in range(3):
            await say(room, people[0], group, f"word {number}")
        await follow(room)
    await db.write(empty)
    async with running(db, bus, BY_HAND) as room:
        assert await found(room, people[0], "word") == []
        await follow(room)
        assert await found(room, people[0], "word") == ["word 2", "word 1", "word 0"]


async def test_a_crowd_waits_in_a_queue_that_ends(db: Database, bus: MemoryBus, people: list[UserId]) -> None:
    refused = 0

    async def search(room: Chat) -> None:
        nonlocal refused
        try:
            await ask(room, people[0], "word")
        except Overloaded:
            refused += 1

    few = ChatConfig(search_pass_s=3_600, searches_at_once=1, searches_waiting=2)
    async with running(db, bus, few) as room:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(search, room)
        assert refused == 2
        assert await ask(room, people[0], "word") == []


async def rows_of(db: Database) -> int:
    async def count(tx: Tx) -> int:
        row = await tx.one("SELECT COUNT(*) FROM search_entries")
        if tx.dialect == "sqlite":
            assert row == await tx.one("SELECT COUNT(*) FROM search_index_content")
        assert row is not None
        return int(row[0])

    return await db.read(count)


async def test_two_messages_never_share_an_entry(room: Chat, people: list[UserId], db: Database) -> None:
    names = [await make_group(room, people[0]) for _ in range(5)]
    entries = [Entry(7, name, 1, ["word"]) for name in names]
    await db.write(store.put, entries[:3])
    await db.write(store.put, entries[3:])
    assert await rows_of(db) == 5


async def test_what_is_said_in_the_same_moment_is_found(
    room: Chat, people: list[UserId], db: Database
) -> None:
    group = await make_group(room, people[0])
    now_us = db.now_us()
    entries = [store.entry_of(group, seq, now_us) for seq in range(1_000)]
    assert len(set(entries)) == len(entries)
    assert all(store.entry_at(now_us) <= each < store.entry_at(now_us + 1) for each in entries)
    assert store.entry_at(now_us // 1000 * 1000 + 999) < store.entry_at(now_us // 1000 * 1000 + 1000)

    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(say, room, people[0], group, f"word {number}")
    assert await room.index.pass_once(), "one pass is enough"
    assert await rows_of(db) == 50


# The file


async def test_what_is_deleted_leaves_the_file(
    tmp_path: Path, bus: MemoryBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an index of more pages than one step merges."""
    monkeypatch.setattr(index, "PAGES", 2)
    path = tmp_path / "secureconnect.db"
    async with Sqlite.open(path, SqliteConfig()) as db:
        await migrate.apply(db)
        ann, bob = await make_people(db, "ann", "bob")
        async with running(db, bus, BY_HAND) as room:
            group = await make_group(room, ann, bob)
            await say(room, ann, group, "qwertzuiop stays")
            for number in range(100):
                await say(room, ann, group, " ".join(f"{number * each * 7919:x}" for each in range(1, 40)))
            gone = await say(room, ann, group, "xylophonissimo goes")
            await follow(room)
    assert [b"ylophonissimo" in path.read_bytes(), b"wertzuiop" in path.read_bytes()] == [True, True]
    async with Sqlite.open(path, SqliteConfig()) as db, running(db, bus, BY_HAND) as room:
        await room.messages.delete(ann, gone.message.message_id)
        await say(room, ann, group, "and something else")
        await follow(room)
        assert await found(room, bob, "stays") == ["qwertzuiop stays"]
    left = path.read_bytes()
    assert [b"ylophonissimo" in left, b"wertzuiop" in left] == [False, True]


# Words and questions


def test_a_text_gives_a_bounded_number_of_words() -> None:
    assert len(words("ha " * 1_000)) == SAME
    assert len(words(" ".join(map(str, range(20_000))))) <= MOST
    assert [len(each.text) for each in words("x" * 1_000)] == [LONGEST]
    assert words("") == words("... --- '") == []


@pytest.mark.parametrize("q", ["", " ", "...", '""', '"', "\0", "a " * 17])
def test_what_is_no_question(q: str) -> None:
    with pytest.raises(Invalid):
        parse(q)


def test_where_it_stands() -> None:
    text = "On the " + "way " * 60 + "to Đà Nẵng, and again to da nang."
    hit = find(parse("da nang"), text)
    assert hit is not None
    assert [text[each.start : each.end] for each in hit.ranges] == ["Đà", "Nẵng", "da", "nang"]
    shown = snippet(text, hit.ranges)
    assert shown.text in text
    assert [shown.text[each.start : each.end] for each in shown.ranges] == ["Đà", "Nẵng", "da", "nang"]


def test_a_cursor_is_read_again() -> None:
    assert read_position(write_position(Position(2**63 - 1, 3, 7))) == Position(2**63 - 1, 3, 7)
    for wrong in ("", "1.2", "1.2.x", "1.2.-3", f"1.2.{2**63}", "1.2.³", "1.2.3.4"):
        with pytest.raises(Invalid):
            read_position(wrong)
