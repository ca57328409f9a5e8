"""Search over many messages: how fast they are indexed, how long questions take, how large the index is.

    PYTHONPATH=src python bench/search.py [postgres://user@127.0.0.1:5432/empty] [messages]

Without an address: SQLite in a folder that is removed afterwards. The database must be empty. Words are drawn
as in a language: few are in most messages, most in few.
"""

from __future__ import annotations

import itertools
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from secureconnect.chat.search.index import Index
from secureconnect.chat.search.question import parse
from secureconnect.chat.search.search import Asked, Search
from secureconnect.clock import SECOND_US, now_us
from secureconnect.config import ChatConfig, PostgresConfig, SqliteConfig
from secureconnect.deps import migrate
from secureconnect.deps.asyncio_bridge import open_bridge
from secureconnect.deps.contracts import Database, Tx, Value
from secureconnect.deps.postgres import Postgres
from secureconnect.deps.sqlite import Sqlite
from secureconnect.identity import ConversationId, UserId, new_id, new_id_at

CONVERSATIONS = 1_000
PEOPLE_CONVERSATIONS = (1, 20, 1_000)  # how many each of those who ask is in
VOCABULARY = 30_000
WORDS = 12  # of a message
ROWS = 5_000  # inserted in one transaction
QUESTIONS = 200  # of each kind

dice = random.Random(1)
SYLLABLES = [a + b for a in "bdfgklmnprstvw" for b in ("a", "e", "i", "o", "u", "an", "er", "in", "ou")]


def vocabulary() -> list[str]:
    """The most frequent first, the frequent ones short."""
    sizes = itertools.chain(itertools.repeat(2, 200), itertools.repeat(3, 3_000), itertools.repeat(4))
    made: dict[str, None] = {}
    while len(made) < VOCABULARY:
        made["".join(dice.choices(SYLLABLES, k=next(sizes)))] = None
    return list(made)


WORDS_OF = vocabulary()
WEIGHTS = list(itertools.accumulate(1 / (rank + 3) for rank in range(VOCABULARY)))


def text() -> str:
    return " ".join(dice.choices(WORDS_OF, cum_weights=WEIGHTS, k=WORDS))


def rank(low: int, high: int) -> str:
    """A word that is neither more nor less frequent than those."""
    return WORDS_OF[dice.randrange(low, high)]


KINDS: dict[str, Callable[[], str]] = {
    "in every third": lambda: f'"{rank(0, 3)}"',
    "usual": lambda: f'"{rank(50, 500)}"',
    "rare": lambda: f'"{rank(10_000, 30_000)}"',
    "two usual": lambda: f"{rank(50, 500)} {rank(50, 500)}",
    "in a row": lambda: f'"{rank(0, 50)} {rank(0, 50)}"',
    "begun, 2 letters": lambda: rank(50, 500)[:2],
    "begun, 4 letters": lambda: rank(500, 30_000)[:4],
    "nowhere": lambda: "zzz",
}


@asynccontextmanager
async def opened(url: str | None) -> AsyncIterator[tuple[Database, Callable[[], float]]]:
    """A database with its schema, and how many megabytes it has."""
    if url is None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "bench.db"
            async with Sqlite.open(path, SqliteConfig()) as db:
                await migrate.apply(db)
                yield db, lambda: (path.stat().st_size + Path(f"{path}-wal").stat().st_size) / 1e6
    else:
        async with (
            open_bridge() as bridge,
            Postgres.open(PostgresConfig(url=url, statement_s=60), bridge) as db,
        ):
            await migrate.apply(db)
            yield db, lambda: 0.0


async def fill(db: Database, messages: int) -> tuple[list[ConversationId], list[UserId]]:
    conversations = [ConversationId(new_id()) for _ in range(CONVERSATIONS)]
    people = [UserId(new_id()) for _ in PEOPLE_CONVERSATIONS]
    await db.write(_converse, conversations, people, messages // CONVERSATIONS)
    began_us = now_us() - messages * SECOND_US
    for start in range(0, messages, ROWS):
        rows: list[Sequence[Value]] = []
        for number in range(start, min(start + ROWS, messages)):
            sent_us = began_us + number * SECOND_US
            seq = number // CONVERSATIONS + 1
            name = conversations[number % CONVERSATIONS]
            rows.append((new_id_at(sent_us), name, seq, seq + 1, people[-1], str(number), text(), sent_us))
        await db.write(_say, rows)
    return conversations, people


async def _converse(tx: Tx, conversations: list[ConversationId], people: list[UserId], each: int) -> None:
    now = now_us()
    await tx.many(
        "INSERT INTO conversations (conversation_id, type, created_by, created_at, updated_at, last_seq,"
        " last_change, touched_at, first_seq, min_change, is_e2ee_enabled, recording_enabled,"
        " message_retention_days, history_visible) VALUES ($1, 'group', $2, $3, $3, $4, $5, $3, 1, 0,"
        " $6, $6, 0, $6)",
        [(name, people[0], now, each, each + 1, False) for name in conversations],
    )
    await tx.many(
        "INSERT INTO members (conversation_id, user_id, role, joined_at, visible_from_seq, last_read_seq)"
        " VALUES ($1, $2, 'member', $3, 1, 0)",
        [
            (name, user, now)
            for user, count in zip(people, PEOPLE_CONVERSATIONS, strict=True)
            for name in conversations[:count]
        ],
    )


async def _say(tx: Tx, rows: Sequence[Sequence[Value]]) -> None:
    no = "0" if tx.dialect == "sqlite" else "false"
    await tx.many(
        "INSERT INTO messages (message_id, conversation_id, seq, change, sender_id, client_message_id,"
        " message_type, content, is_encrypted, file_ids, sent_at)"
        f" VALUES ($1, $2, $3, $4, $5, $6, 'text', $7, {no}, '[]', $8)",
        rows,
    )


async def sizes(tx: Tx) -> None:
    if tx.dialect == "sqlite":
        return
    for name in ("messages", "search_entries", "search_index", "search_positions"):
        row = await tx.one("SELECT pg_total_relation_size(CAST(CAST($1 AS text) AS regclass))", name)
        assert row is not None
        print(f"{name:<20} {row[0] / 1e6:>8.0f} MB")


async def analyse(tx: Tx) -> None:
    await tx.run("ANALYZE")


async def question(search: Search, caller: UserId, where: ConversationId | None, kind: str) -> None:
    took: list[float] = []
    hits = 0
    for _ in range(QUESTIONS):
        asked = Asked(parse(KINDS[kind]()), where, None, None, None, 20)
        began = time.perf_counter()
        hits += len((await search.find(caller, asked, None)).hits)
        took.append(time.perf_counter() - began)
    took.sort()
    half, most = (took[int(len(took) * share)] * 1000 for share in (0.5, 0.99))
    print(f"{kind:<18} {hits / QUESTIONS:>5.1f} hits  p50 {half:>7.1f} ms  p99 {most:>7.1f} ms", flush=True)


async def main(url: str | None, messages: int) -> None:
    config = ChatConfig()
    async with opened(url) as (db, megabytes):
        began = time.perf_counter()
        conversations, people = await fill(db, messages)
        print(f"{messages} messages put in: {messages / (time.perf_counter() - began):.0f}/s", flush=True)
        before, began = megabytes(), time.perf_counter()
        burnt = time.process_time()
        index = Index(config, db, lambda: 0)
        while not await index.pass_once():
            pass
        took, burnt = time.perf_counter() - began, time.process_time() - burnt
        print(f"indexed: {messages / took:.0f}/s, CPU of this process {burnt / messages * 1e6:.0f} us each")
        await db.write(analyse)
        print(f"without the index {before:.0f} MB, with it {megabytes():.0f} MB")
        await db.read(sizes)
        search = Search(config, db)
        for person, count in zip(people, PEOPLE_CONVERSATIONS, strict=True):
            print(f"\nin all of one's {count} conversations")
            for kind in KINDS:
                await question(search, person, None, kind)
        print("\nin one of them")
        for kind in KINDS:
            await question(search, people[-1], conversations[7], kind)


if __name__ == "__main__":
    address = next((each for each in sys.argv[1:] if "://" in each), None)
    count = next((int(each) for each in sys.argv[1:] if each.isdigit()), 1_000_000)
    trio.run(main, address, count)
