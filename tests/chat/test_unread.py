"""Unread counts: right after whatever happened, in whatever order, and as cheap for much as for little."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.databases import on_sqlite, open_sqlite
from secureconnect.chat import Chat, archive, store
from secureconnect.chat.append import append
from secureconnect.chat.store import BLOCK, TOP
from secureconnect.config import MemoryConfig
from secureconnect.deps.contracts import Database, Tx
from secureconnect.deps.memory import MemoryBus
from secureconnect.errors import Problem
from secureconnect.identity import ConversationId, UserId

from .rig import make_group, make_people, running

_ONE_BY_ONE = (
    "SELECT m.user_id, (SELECT COUNT(*) FROM messages n WHERE n.conversation_id = m.conversation_id"
    " AND n.seq > m.last_read_seq AND n.seq >= m.visible_from_seq AND n.sender_id <> m.user_id"
    " AND n.message_type <> 'system' AND n.deleted_at IS NULL) FROM members m WHERE m.conversation_id = $1"
)


async def pour(
    room: Chat, db: Database, where: ConversationId, sender: UserId, count: int, kind: str = "text"
) -> None:
    """So many messages in one append."""
    drafts = [room.messages.draft(sender, where, "x")._replace(message_type=kind) for _ in range(count)]
    await db.write(append, drafts, db.now_us)


async def counted(db: Database, where: ConversationId) -> dict[UserId, int]:
    """From scratch."""

    async def unit(tx: Tx) -> dict[UserId, int]:
        return {row[0]: row[1] for row in await tx.all(_ONE_BY_ONE, where)}

    return await db.read(unit)


async def is_right(room: Chat, db: Database, where: ConversationId) -> None:
    """Wherever it is told."""
    for user, unread in (await counted(db, where)).items():
        summary = await room.conversations.summary(user, where)
        [line] = await room.listing.page(user, TOP, 1)
        [standing] = await db.read(store.standings, user)
        assert (summary.unread_count, line.summary.unread_count, standing.unread_count) == (unread,) * 3


Step = tuple[str, int, int]
steps = st.lists(
    st.tuples(
        st.sampled_from(["say", "say", "system", "delete", "read", "join", "leave", "drop"]),
        st.integers(0, 2),
        st.integers(0, BLOCK + 20),
    ),
    min_size=3,
    max_size=14,
)


@settings(max_examples=10, deadline=None)
@given(steps)
def test_they_are_right_whatever_happened(taken: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trio.run(_compare, Path(folder), taken)


async def _compare(folder: Path, taken: list[Step]) -> None:
    bus = MemoryBus(MemoryConfig())
    async with open_sqlite(folder) as db, running(db, bus) as room:
        people = await make_people(db, "ann", "bob", "cid")
        where = await make_group(room, *people[:2])
        for kind, who, number in taken:
            await _take(room, db, where, people, kind, who, number)
        await is_right(room, db, where)


async def _take(
    room: Chat,
    db: Database,
    where: ConversationId,
    people: Sequence[UserId],
    kind: str,
    who: int,
    number: int,
) -> None:
    """One step; what the rules refuse does not happen."""
    ann, _, cid = people
    held = await db.read(archive.oldest_after, where, 0, 10_000, db.now_us())
    target = held[number % len(held)] if held else None
    with suppress(Problem):
        match kind:
            case "say" | "system":
                await pour(room, db, where, people[who], number, "text" if kind == "say" else kind)
            case "delete" if target:
                for each in held[number % len(held) :: 7]:
                    await room.messages.delete(each.sender_id, each.message_id)
            case "read" if target:
                await room.conversations.mark_read(people[who], where, target.seq)
            case "join":
                await room.conversations.configure(ann, where, {"history_visible": number % 2 == 0})
                await room.conversations.add(ann, where, cid, "member")
            case "leave":
                await room.conversations.remove(cid, where, cid)
            case "drop" if target:
                await room.retention.drop(where, 0, target.sent_us)


async def test_they_are_right_beyond_a_block(room: Chat, db: Database, people: list[UserId]) -> None:
    ann, bob, cid, dee = people
    where = await make_group(room, ann, bob, cid)
    for sender, count in ((ann, BLOCK + 5), (bob, 3), (ann, 2 * BLOCK), (cid, BLOCK // 2)):
        await pour(room, db, where, sender, count)
    await room.conversations.add(ann, where, dee, "member")
    await pour(room, db, where, bob, BLOCK)
    await is_right(room, db, where)
    for each in (await db.read(archive.oldest_after, where, 0, 1_000, db.now_us()))[::50]:
        await room.messages.delete(ann, each.message_id)
    for user, seq in ((bob, 1), (ann, BLOCK), (cid, 2 * BLOCK + 1), (dee, 10_000)):
        await room.conversations.mark_read(user, where, seq)
        await is_right(room, db, where)


async def test_what_an_older_program_left_is_counted_too(
    room: Chat, db: Database, people: list[UserId]
) -> None:
    ann, bob, *_ = people
    where = await make_group(room, ann, bob)

    async def forget_tallies(tx: Tx) -> None:
        await tx.run("DELETE FROM message_tallies")
        await tx.run("UPDATE conversations SET tallied_seq = 0")

    await pour(room, db, where, ann, 3 * BLOCK)
    await db.write(forget_tallies)
    await is_right(room, db, where)
    await pour(room, db, where, bob, 1)
    await is_right(room, db, where)
    assert await db.read(_tallied, where) == (3 * BLOCK, 3 * 2)


async def test_what_retention_took_leaves_no_tally(room: Chat, db: Database, people: list[UserId]) -> None:
    ann, bob, *_ = people
    where = await make_group(room, ann, bob)
    await pour(room, db, where, ann, 2 * BLOCK)
    await pour(room, db, where, ann, BLOCK)
    newest = (await db.read(archive.oldest_after, where, 2 * BLOCK + 9, 1, db.now_us()))[0]
    while await room.retention.drop(where, 0, newest.sent_us):
        await is_right(room, db, where)
    assert await db.read(_tallied, where) == (3 * BLOCK, 2)


async def _tallied(tx: Tx, where: ConversationId) -> tuple[int, int]:
    """Up to where, and in how many rows."""
    row = await tx.one("SELECT tallied_seq FROM conversations WHERE conversation_id = $1", where)
    rows = await tx.one("SELECT COUNT(*) FROM message_tallies WHERE conversation_id = $1", where)
    assert row is not None
    assert rows is not None
    return row[0], rows[0]


@on_sqlite
async def test_much_costs_little_more_than_little(
    room: Chat, db: Database, people: list[UserId], tmp_path: Path
) -> None:
    """In steps of SQLite's machine, which do not depend on how busy this one is."""
    ann, bob, *_ = people
    where = await make_group(room, ann, bob)
    await pour(room, db, where, ann, 2 * BLOCK - 1)
    little = steps_of_a_list(db, bob)
    for _ in range(30):
        await pour(room, db, where, ann, BLOCK)
    assert (await counted(db, where))[bob] == 32 * BLOCK - 1
    assert steps_of_a_list(db, bob) < 2 * little


def steps_of_a_list(db: Database, user: UserId) -> int:
    taken = 0

    def step() -> int:
        nonlocal taken
        taken += 1
        return 0

    path = db._path  # type: ignore[attr-defined]
    with sqlite3.connect(path) as connection:
        connection.set_progress_handler(step, 1)
        bound = {str(number): value for number, value in enumerate((user, *TOP, 20), 1)}
        assert connection.execute(store._LIST, bound).fetchall()
    return taken
