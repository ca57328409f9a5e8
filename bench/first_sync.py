"""First sync: what a client that holds nothing asks first; 1 000 conversations, 1 000 000 messages.

    PYTHONPATH=src python bench/first_sync.py                          # SQLite, in a fresh folder
    PYTHONPATH=src python bench/first_sync.py postgres://user@host/db  # an empty database

In this process, without HTTP: from the call of the rule to the bytes of the answer. Whoever asks has read
nothing (`unread`), everything (`read`), or none of a million messages of one conversation (`one`). Beside it,
what a socket that resumes costs: how all conversations stand.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import trio

from secureconnect.chat import shapes, store, tallies
from secureconnect.chat.listing.listing import Listing
from secureconnect.clock import now_us
from secureconnect.config import ChatConfig, PostgresConfig, SqliteConfig
from secureconnect.deps import migrate
from secureconnect.deps.asyncio_bridge import open_bridge
from secureconnect.deps.contracts import Database, Tx
from secureconnect.deps.postgres import Postgres
from secureconnect.deps.sqlite import Sqlite
from secureconnect.identity import ConversationId, UserId, new_id

CONVERSATIONS = 1_000
MESSAGES = 1_000  # of each
ROUNDS = 50
LATEST_US = 2**62
LAST_ID = ConversationId("ffffffff-ffff-ffff-ffff-ffffffffffff")

_USER = (
    "INSERT INTO users (user_id, username, username_key, email, email_key, display_name, role, password_hash,"
    " created_at, updated_at) VALUES ($1, $2, $2, $2, $2, $2, 'user', '', $3, $3)"
)
_MESSAGE = (
    "INSERT INTO messages (message_id, conversation_id, seq, change, sender_id, client_message_id,"
    " message_type, content, is_encrypted, file_ids, sent_at)"
    " VALUES ($1, $2, $3, $3, $4, $8, 'text', $5, $6, '[]', $7)"
)
_HEAD = (
    "UPDATE conversations SET last_seq = $2, last_change = $2, tallied_seq = $3 WHERE conversation_id = $1"
)


@asynccontextmanager
async def opened(url: str | None) -> AsyncIterator[Database]:
    if url is not None:
        async with open_bridge() as bridge, Postgres.open(PostgresConfig(url=url), bridge) as postgres:
            yield postgres
        return
    with tempfile.TemporaryDirectory() as folder:
        async with Sqlite.open(Path(folder) / "secureconnect.db", SqliteConfig()) as sqlite:
            yield sqlite


async def people(tx: Tx, names: list[UserId]) -> None:
    await tx.many(_USER, [(name, name, now_us()) for name in names])


async def begin(tx: Tx, where: ConversationId, members: list[UserId]) -> None:
    kind: store.ConversationType = "direct" if len(members) == 2 else "group"
    new = store.Conversation(
        where, kind, None, None, members[0], now_us(), now_us(), 0, 0, now_us(), 1, 0, False, False, 0, False
    )
    await store.create(tx, new, ":".join(members) if kind == "direct" else None)
    await store.join(tx, where, [store.Member(member, "member", now_us(), 1, 0) for member in members])


async def say(tx: Tx, where: ConversationId, senders: list[UserId], first: int, count: int) -> None:
    text = "a message of a common length, such as people write them"
    said = range(first, first + count)
    await tx.many(
        _MESSAGE,
        [
            (new_id(), where, seq, senders[seq % len(senders)], text, False, now_us(), new_id())
            for seq in said
        ],
    )
    tallied = (first - 1) // store.BLOCK * store.BLOCK
    last = first + count - 1
    while (until := await tallies.take(tx, where, tallied, last)) > tallied:
        tallied = until
    await tx.run(_HEAD, where, last, tallied)


async def fill(db: Database) -> tuple[UserId, UserId, UserId]:
    """Who has read nothing, who everything, and who one conversation of as many messages."""
    idle, keen, lone, *others = (UserId(new_id()) for _ in range(503))
    await db.write(people, [idle, keen, lone, *others])
    for number in range(CONVERSATIONS):
        where = ConversationId(new_id())
        friend = others[number % len(others)]
        members = [idle, friend] if number % 2 and number < len(others) else [idle, keen, friend]
        await db.write(begin, where, members)
        await db.write(say, where, members[1:], 1, MESSAGES)
    where = ConversationId(new_id())
    await db.write(begin, where, [lone, others[0], others[1]])
    for start in range(0, CONVERSATIONS * MESSAGES, 10_000):
        await db.write(say, where, others[:2], start + 1, 10_000)
    await db.write(read_all, keen)
    return idle, keen, lone


async def read_all(tx: Tx, user: UserId) -> None:
    await tx.run("UPDATE members SET last_read_seq = $2 WHERE user_id = $1", user, MESSAGES)


async def analysed(tx: Tx) -> None:
    await tx.run("ANALYZE")


async def first_sync(listing: Listing, user: UserId) -> int:
    """Bytes of the answer."""
    lines = await listing.page(user, LATEST_US, LAST_ID, 100, first_sync=True)
    told = []
    for line in lines:
        shape = shapes.summary_shape(line.summary)
        shape.participants = [shapes.participant_shape(each, "offline") for each in line.people or ()]
        shape.messages = [shapes.message_shape(each) for each in line.newest or ()]
        told.append(shape)
    return len(msgspec.json.encode(told))


async def measure(name: str, act: Callable[[], Awaitable[int]]) -> None:
    took = []
    size = 0
    burnt = time.process_time()
    for _ in range(ROUNDS):
        began = time.perf_counter()
        size = await act()
        took.append((time.perf_counter() - began) * 1000)
    burnt = (time.process_time() - burnt) * 1000 / ROUNDS
    took.sort()
    half, least, most = took[ROUNDS // 2], took[0], took[-1]
    print(f"{name:<24} p50 {half:6.1f} ({least:.1f}–{most:.1f}) ms  CPU here {burnt:5.1f} ms  {size:>9,}")


async def main(url: str | None) -> None:
    async with opened(url) as db:
        await migrate.apply(db)
        idle, keen, lone = await fill(db)
        if url is not None:
            await db.write(analysed)
        listing = Listing(ChatConfig(), db)
        for name, user in (("unread", idle), ("read", keen), ("one", lone)):

            async def sync(user: UserId = user) -> int:
                return await first_sync(listing, user)

            async def stand(user: UserId = user) -> int:
                return sum(each.unread_count for each in await db.read(store.standings, user))

            await measure(f"{name}: first sync, bytes", sync)
            await measure(f"{name}: standings, unread", stand)


trio.run(main, sys.argv[1] if len(sys.argv) > 1 else None)
