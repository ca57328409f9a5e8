"""An embedded installation with a past, and ways to look at both sides."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
import trio

from kit.people import PASSWORD, direct, group, people
from kit.server import Server
from secureconnect.client import Client
from secureconnect.config import PostgresConfig
from secureconnect.deps.asyncio_bridge import open_bridge
from secureconnect.deps.postgres import Postgres
from secureconnect.identity import new_id

MESSAGES = 1_300  # several batches
METADATA = '{"z":1.50,"a":[1e3,-0.0,12345678901234567890123]}'
TEXT = "Grüße, 世界 👋 \\ \" '"


@pytest.fixture(scope="session")
def past(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a server that was stopped: people, conversations, messages, edits, deletions."""
    server = Server(tmp_path_factory.mktemp("past") / "data")
    try:
        server.start()
        trio.run(_live, server.url)
        assert server.terminate() == 0
    finally:
        server.close()
    _say_more(server.data_dir / "secureconnect.db")
    return server.data_dir


async def _live(url: str) -> None:
    async with people(url, "ann", "bob", "cem") as (ann, bob, cem):
        room, pair = await group(ann, bob, cem), await direct(ann, bob)
        said = [await ann.send_message(room, f"{TEXT} {number}", new_id()) for number in range(6)]
        await bob.send_message(pair, "hello", new_id())
        await ann.edit_message(said[1]["message_id"], "edited")
        await ann.delete_message(said[2]["message_id"])
        await bob.mark_read(room, 3)
        await cem.logout()
        async with Client(url) as again:
            await again.login(ann.me.username, PASSWORD)


def _say_more(path: Path) -> None:
    """Rows a client could have sent, without waiting for it."""
    with closing(sqlite3.connect(path)) as file, file:
        conversation, sender, seq, change = file.execute(
            "SELECT conversation_id, sender_id, MAX(seq), MAX(change) FROM messages"
            " WHERE conversation_id = (SELECT conversation_id FROM conversations WHERE type = 'group')"
        ).fetchone()
        (change,) = file.execute(
            "SELECT last_change FROM conversations WHERE conversation_id = ?", (conversation,)
        ).fetchone()
        now_us = 1_700_000_000_000_000
        file.executemany(
            "INSERT INTO messages (message_id, conversation_id, seq, change, sender_id, client_message_id,"
            " message_type, content, is_encrypted, file_ids, metadata, sent_at)"
            " VALUES (?, ?, ?, ?, ?, ?, 'text', ?, ?, ?, ?, ?)",
            [
                (
                    new_id(), conversation, seq + at, change + at, sender, new_id(), f"{TEXT} {at}", at % 2,
                    "[]", METADATA if at % 3 else None, now_us + at,
                )
                for at in range(1, MESSAGES + 1)
            ],
        )  # fmt: skip
        file.execute(
            "UPDATE conversations SET last_seq = ?, last_change = ? WHERE conversation_id = ?",
            (seq + MESSAGES, change + MESSAGES, conversation),
        )


@pytest.fixture
def folder(past: Path, tmp_path: Path) -> Path:
    """A copy of `past` of the test's own."""
    return Path(shutil.copytree(past, tmp_path / "data"))


@pytest.fixture
async def target(postgres_url: str) -> AsyncIterator[Postgres]:
    async with open_bridge() as bridge, Postgres.open(PostgresConfig(url=postgres_url), bridge) as db:
        yield db
