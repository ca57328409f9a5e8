"""What is deleted is gone from the disk, and where messages have a term the disk stops filling."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from kit.databases import on_sqlite
from kit.postgres import PostgresServer
from kit.wait import until
from secureconnect.chat import Chat, archive
from secureconnect.chat.reactions import store as reactions
from secureconnect.chat.versions import store as versions
from secureconnect.clock import DAY_US
from secureconnect.config import ChatConfig, PostgresConfig, SqliteConfig
from secureconnect.deps import migrate
from secureconnect.deps.asyncio_bridge import open_bridge
from secureconnect.deps.contracts import Database, Tx
from secureconnect.deps.memory import MemoryBus
from secureconnect.deps.postgres import Postgres
from secureconnect.deps.sqlite import Sqlite
from secureconnect.identity import ConversationId, UserId, new_id

from .rig import history, make_group, make_people, running, say, store

QUIET = ChatConfig(search_pass_s=3_600, retention_pass_s=3_600)
TEXT = "what is said here is soon forgotten " * 30
MARK = "this-was-said-in-confidence"
CYCLES = 4


async def fill(db: Database, room: Chat, sender: UserId, group: ConversationId, messages: int) -> None:
    """Messages of two days ago, as an append would have stored them."""
    head = (await room.conversations.summary(sender, group)).seat.conversation
    long_ago = db.now_us() - 2 * DAY_US

    async def insert(tx: Tx) -> None:
        await tx.many(
            "INSERT INTO messages (message_id, conversation_id, seq, change, sender_id, client_message_id,"
            " message_type, content, is_encrypted, file_ids, sent_at)"
            " VALUES ($1, $2, $3, $4, $5, $6, 'text', $7, false, '[]', $8)",
            [
                (new_id(), group, head.last_seq + n, head.last_change + n, sender, new_id(), TEXT, long_ago)
                for n in range(1, messages + 1)
            ],
        )
        await tx.run(
            "UPDATE conversations SET last_seq = last_seq + $2, last_change = last_change + $2"
            " WHERE conversation_id = $1",
            group,
            messages,
        )

    await db.write(insert)


@on_sqlite
async def test_the_file_gets_smaller(db: Database, bus: MemoryBus, data_dir: Path) -> None:
    """Its free pages are given back beside other work, a few at a time."""
    [ann] = await make_people(db, "ann")
    file = data_dir / "secureconnect.db"
    async with running(db, bus, QUIET) as room:
        group = await make_group(room, ann)
        await fill(db, room, ann, group, 12_000)
        await until(lambda: file.stat().st_size > 12_000_000)
        await room.conversations.configure(ann, group, {"message_retention_days": 1})
        await room.retention.pass_once()
        await until(lambda: file.stat().st_size < 6_000_000, within_s=20)


@pytest.fixture
def vacuumed_postgres() -> Iterator[PostgresServer]:
    """As it comes, but looking each second where it is to clean."""
    server = PostgresServer(autovacuum_naptime="1s")
    server.start()
    yield server
    server.close()


async def test_postgres_stops_growing(vacuumed_postgres: PostgresServer, bus: MemoryBus) -> None:
    server = vacuumed_postgres
    name = server.create()
    config = PostgresConfig(url=server.url(name))
    async with open_bridge() as bridge, Postgres.open(config, bridge) as db:
        await migrate.apply(db)
        [ann] = await make_people(db, "ann")
        async with running(db, bus, QUIET) as room:
            group = await make_group(room, ann)
            await room.conversations.configure(ann, group, {"message_retention_days": 1})
            sizes = []  # the first is before anything was used again
            for cycle in range(1, CYCLES + 1):
                await fill(db, room, ann, group, 3_000)
                await room.retention.pass_once()
                assert await db.read(_count) == 0
                await until(lambda: _cleaned(server, name) >= cycle, within_s=20)  # noqa: B023
                sizes.append(int(server.sql("SELECT pg_total_relation_size('messages')", name)))
            # vacuum may also cut off the end of the file, in any cycle, which then grows to what it was
            assert sizes[-1] < 1.2 * max(sizes[1:-1]), sizes


def _cleaned(server: PostgresServer, name: str) -> int:
    sql = "SELECT autovacuum_count FROM pg_stat_user_tables WHERE relname = 'messages'"
    return int(server.sql(sql, name))


async def _count(tx: Tx) -> int:
    row = await tx.one("SELECT COUNT(*) FROM messages WHERE message_type <> 'system'")
    assert row is not None
    return int(row[0])


async def test_a_deleted_message_is_gone_from_the_files(data_dir: Path, bus: MemoryBus) -> None:
    def holds(mark: str) -> bool:
        return any(mark.encode() in path.read_bytes() for path in data_dir.iterdir())

    path, config = data_dir / "secureconnect.db", SqliteConfig(log_cut_s=1)
    async with Sqlite.open(path, config) as db:
        await migrate.apply(db)
        ann, bob = await make_people(db, "ann", "bob")
        async with running(db, bus, QUIET) as room:
            group = await make_group(room, ann, bob)
            for way in ("deleted", "disappeared"):
                mark = f"{MARK}-{way}"
                if way == "disappeared":
                    await room.conversations.configure(ann, group, {"disappear_after_s": 1})
                metadata = msgspec.Raw(msgspec.json.encode({"k": mark}))
                draft = room.messages.draft(ann, group, mark, metadata=metadata)
                message = (await store(room, draft)).message.message_id
                if way == "deleted":
                    await room.messages.edit(ann, message, f"{mark} edited")
                    assert holds(mark)
                    await room.messages.delete(ann, message)
                await until(lambda: not holds(mark), within_s=20)  # noqa: B023
                assert (await room.messages.get(bob, message)).deleted_us is not None


async def test_what_hangs_on_messages_goes_a_bounded_number_at_a_time(
    db: Database, bus: MemoryBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the many edits of one person would stop it, and everybody for as long as it tries."""
    for module, name in ((reactions, "DROPPED"), (versions, "DROPPED"), (archive, "CHANGES")):
        monkeypatch.setattr(module, name, 10)
    [ann] = await make_people(db, "ann")
    async with running(db, bus, QUIET) as room:
        group = await make_group(room, ann)
        liked, edited = [(await say(room, ann, group, "x")).message.message_id for _ in range(2)]
        for number in range(12):
            await room.reactions.set(ann, liked, f"+{number}", on=True)
            await room.messages.edit(ann, edited, str(number))
        last = (await say(room, ann, group, "x")).message
        left = [await db.read(_hanging)]
        while await room.retention.drop(group, 0, last.sent_us + 1):
            left.append(await db.read(_hanging))
            head = (await room.conversations.summary(ann, group)).seat.conversation
            assert len(await history(room, ann, group)) == (3 if head.first_seq == 1 else 0)
            assert head.min_change + 1 >= await db.read(_first_change), "what is gone is a gap"
    assert (left[0], left[-1]) == ((12, 12, 25), (0, 0, 1))
    assert all(before - after <= 10 for pair in pairwise(left) for before, after in zip(*pair, strict=True))
    assert (head.first_seq, head.min_change) == (4, last.change)


async def _hanging(tx: Tx) -> tuple[int, ...]:
    """How much there is."""
    tables = ("reactions", "message_versions", "changes")
    rows = [await tx.one(f"SELECT COUNT(*) FROM {table}") for table in tables]
    return tuple(int(row[0]) for row in rows if row is not None)


async def _first_change(tx: Tx) -> int:
    row = await tx.one("SELECT MIN(change) FROM changes")
    assert row is not None
    return int(row[0])
