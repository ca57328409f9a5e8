"""What would take too long to be said: people, conversations and messages, put into a database as rows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from secureconnect.chat import store, tallies
from secureconnect.clock import HOUR_US, now_us
from secureconnect.config import PostgresConfig, SqliteConfig
from secureconnect.deps import migrate
from secureconnect.deps.asyncio_bridge import open_bridge
from secureconnect.deps.contracts import Database, Tx
from secureconnect.deps.postgres import Postgres
from secureconnect.deps.sqlite import Sqlite
from secureconnect.identity import ConversationId, UserId, new_id, new_id_at

FILE = "secureconnect.db"  # SQLite's, in a data folder
STATEMENT_S = 60.0
ROWS = 10_000  # inserted in one transaction

_USER = (
    "INSERT INTO users (user_id, username, username_key, email, email_key, display_name, role, password_hash,"
    " created_at, updated_at) VALUES ($1, $2, $2, $2, $2, $2, 'user', '', $3, $3)"
)
_MESSAGE = (
    "INSERT INTO messages (message_id, conversation_id, seq, change, sender_id, client_message_id,"
    " message_type, content, is_encrypted, file_ids, sent_at)"
    " VALUES ($1, $2, $3, $3, $4, $5, 'text', $6, $7, '[]', $8)"
)
_HEAD = (
    "UPDATE conversations SET last_seq = $2, last_change = $2, touched_at = $3, tallied_seq = $4"
    " WHERE conversation_id = $1"
)


class Said(NamedTuple):
    """A message. seq: its number in its conversation; nothing else has happened there."""

    where: ConversationId
    seq: int
    sender: UserId
    text: str
    sent_us: int


@asynccontextmanager
async def opened(url: str | None, folder: Path) -> AsyncIterator[Database]:
    """A database with its schema.  url: of Postgres; None for SQLite in this folder."""
    if url is None:
        async with Sqlite.open(folder / FILE, SqliteConfig()) as sqlite:
            await migrate.apply(sqlite)
            yield sqlite
        return
    config = PostgresConfig(url=url, statement_s=STATEMENT_S)
    async with open_bridge() as bridge, Postgres.open(config, bridge) as postgres:
        await migrate.apply(postgres)
        yield postgres


async def people(tx: Tx, count: int) -> list[UserId]:
    """Who cannot sign in, and need not."""
    users = [UserId(new_id()) for _ in range(count)]
    await tx.many(_USER, [(user, user, now_us()) for user in users])
    return users


async def begin(
    tx: Tx, kind: store.ConversationType, members: Sequence[UserId], at_us: int
) -> ConversationId:
    where = ConversationId(new_id())
    new = store.Conversation(
        where, kind, None, None, members[0], at_us, at_us, 0, 0, at_us, 1, 0, False, False, 0, False
    )
    await store.create(tx, new, ":".join(sorted(members)) if kind == "direct" else None)
    await store.join(tx, where, [store.Member(member, "member", at_us, 1, 0) for member in members])
    return where


async def put(tx: Tx, lines: Iterable[Said]) -> None:
    """The messages alone: `advance` belongs to them."""
    rows = (
        (new_id_at(sent_us), where, seq, sender, new_id(), text, False, sent_us)
        for where, seq, sender, text, sent_us in lines
    )
    await tx.many(_MESSAGE, list(rows))


async def advance(tx: Tx, where: ConversationId, last_seq: int, sent_us: int) -> None:
    """Count and number what was put there, up to `last_seq`, the last of it sent then."""
    conversation = await store.get(tx, where)
    assert conversation is not None
    tallied = conversation.last_seq // store.BLOCK * store.BLOCK
    while (until := await tallies.take(tx, where, tallied, last_seq)) > tallied:
        tallied = until
    await tx.run(_HEAD, where, last_seq, sent_us, tallied)
    await store.activate(tx, [(where, sent_us // HOUR_US)])


async def analyse(tx: Tx) -> None:
    """Let the planner look, as it does by itself in a database that grows slowly."""
    await tx.run("ANALYZE")
