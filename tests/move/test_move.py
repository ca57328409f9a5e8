"""An embedded installation carried into Postgres by the command, as an operator does it."""

from __future__ import annotations

import hashlib
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
import trio

from kit import command
from kit.people import PASSWORD
from kit.postgres import PostgresServer
from kit.server import Server
from kit.toll import toll_before
from kit.wait import until
from secureconnect import node
from secureconnect.client import Client
from secureconnect.config import JournalConfig, MinioConfig, PostgresConfig, SqliteConfig
from secureconnect.deps.asyncio_bridge import open_bridge
from secureconnect.deps.contracts import Tx
from secureconnect.deps.files import FolderObjects
from secureconnect.deps.journal import FileJournal
from secureconnect.deps.minio import MinioObjects
from secureconnect.deps.postgres import Postgres
from secureconnect.deps.sqlite import Sqlite
from secureconnect.move import move as carry
from secureconnect.move.tables import LEFT, read_tables
from secureconnect.settings import BadSetting

from .conftest import MESSAGES

ROOT = Path(__file__).parents[2]
CREATED = re.compile(r"^\s*CREATE TABLE (?:IF NOT EXISTS )?(\w+)", re.MULTILINE)
CARRIED = (
    *("users", "devices", "sessions", "refresh_tokens", "conversations", "members", "messages", "changes"),
    *("secrets", "audit", "audit_head", "meta"),
)


def content(folder: Path) -> str:
    """A digest of everything in the folder's database."""
    with closing(sqlite3.connect(folder / "secureconnect.db")) as file:
        return hashlib.sha256("\n".join(file.iterdump()).encode()).hexdigest()


def count(folder: Path, table: str) -> int:
    with closing(sqlite3.connect(folder / "secureconnect.db")) as file:
        (rows,) = file.execute(f"SELECT COUNT(*) FROM {table}").fetchone()
    return int(rows)


def move(folder: Path, url: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return command.run("move", "--to", url, "--data-dir", folder, cwd=folder.parent, **settings)


def moved(folder: Path, url: str) -> None:
    """The same without the command around it."""

    async def main() -> None:
        async with (
            open_bridge() as bridge,
            Sqlite.open(folder / "secureconnect.db", SqliteConfig()) as source,
            Postgres.open(PostgresConfig(url=url), bridge) as target,
        ):
            assert (await carry(source, target, lambda _: None, nothing_else)).differences == []

    async def nothing_else() -> bool:
        return True

    trio.run(main)


def database(url: str) -> str:
    return url.rpartition("/")[2]


def test_everything_arrives_and_the_source_stays(
    folder: Path, postgres_url: str, postgres_server: PostgresServer
) -> None:
    before = content(folder)
    done = move(folder, postgres_url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert content(folder) == before
    for table in CARRIED:
        there = int(postgres_server.sql(f"SELECT COUNT(*) FROM {table}", database(postgres_url)))
        assert there == count(folder, table) + (table == "meta"), table
        assert re.search(rf"^{table} +\d+ rows, checksum [0-9a-f]{{16}}$", done.stdout, re.MULTILINE)
        assert f"copying {table}: " in done.stderr
    assert postgres_server.sql("SELECT COUNT(*) FROM nodes", database(postgres_url)) == "0"
    assert "master.key" in done.stdout
    assert "DIFFERS" not in done.stdout
    again = move(folder, postgres_url)
    assert (again.returncode, "was moved already" in again.stdout) == (0, True)


async def test_secrets_and_history_go_along(folder: Path, postgres_url: str, target: Postgres) -> None:
    assert move(folder, postgres_url).returncode == 0
    here = await node.Node.open(target, folder, "", "never taken")
    async with Sqlite.open(folder / "secureconnect.db", SqliteConfig()) as source:
        there = await node.Node.open(source, folder, "", "never taken")
    assert (here.history_id, here.server_name) == (there.history_id, there.server_name)
    assert await target.read(here.secrets.list, "jwt")


async def test_the_table_list_is_that_of_the_schema(past: Path) -> None:
    """A table added by a later migration is carried, or this fails."""
    created = {
        name
        for path in (ROOT / "migrations").glob("*.sql")
        if not path.name.endswith(".postgres.sql")
        for name in CREATED.findall(path.read_text("utf-8"))
    }
    async with Sqlite.open(past / "secureconnect.db", SqliteConfig()) as source:
        assert set(await source.read(read_tables)) == created - LEFT


async def test_killed_again_and_again_and_cut_off_it_goes_on(
    folder: Path, postgres_url: str, postgres_server: PostgresServer, target: Postgres
) -> None:
    """SIGKILL at ever later moments, over a slow line that breaks in the end; nothing comes twice, nothing is
    missing."""
    name = database(postgres_url)
    kills = 0
    async with toll_before(f"http://127.0.0.1:{postgres_server.port}") as toll:
        toll.delay_s = 0.003
        slow = postgres_server.url(name, int(toll.url.rpartition(":")[2]))
        seen: str | None = None

        def has_ended() -> bool:
            return process.poll() is not None

        async def moved_on() -> bool:
            return has_ended() or await state(target) != seen

        while kills < 5:
            process = subprocess.Popen(  # noqa: ASYNC220
                [sys.executable, "-m", "secureconnect", "move", "--to", slow, "--data-dir", str(folder)],
                cwd=folder.parent, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            try:
                await until(moved_on, 30)
                kills += 1
                if kills == 5:
                    toll.refuses = True
                    toll.cut()
                    await until(has_ended)
            finally:
                process.send_signal(signal.SIGKILL)
                _, said = process.communicate()
            seen = await state(target)
    assert (process.returncode, "The same command goes on where it was" in said) == (1, True), said
    assert node.is_unfinished(seen), "it was done before it could be killed"
    with pytest.raises(BadSetting, match="being moved into"):
        await node.Node.open(target, folder, "", "x")
    served = command.run("serve", "--port", "0", cwd=folder.parent, POSTGRES__URL=postgres_url)
    assert (served.returncode, "being moved into" in served.stderr) == (2, True), served.stdout
    done = move(folder, postgres_url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(postgres_server.sql("SELECT COUNT(*) FROM messages", name)) == count(folder, "messages")
    assert not node.is_unfinished(await state(target))


async def state(db: Postgres) -> str | None:
    """None as long as there is no table for it."""
    if await db.read(migrate_left):
        return None
    return await db.read(node.read_move)


async def migrate_left(tx: Tx) -> bool:
    return await tx.one("SELECT 1 WHERE to_regclass('meta') IS NOT NULL") is None


async def test_a_server_on_postgres_shows_what_the_embedded_one_showed(
    folder: Path, postgres_url: str
) -> None:
    """And goes on from there: people sign in with their passwords, sessions live, the audit log is whole."""
    servers = Server(folder), Server(folder, POSTGRES__URL=postgres_url)
    shown = []
    try:
        for server in servers:
            server.start()
            async with Client(server.url) as ann:
                await ann.login(one_of(folder, "ann"), PASSWORD)
                shown.append((await everything(ann), await found(ann)))
            assert server.terminate() == 0
            server.check()
            if len(shown) == 1:
                assert move(folder, postgres_url).returncode == 0
    finally:
        for server in servers:
            server.close()
    assert shown[0] == shown[1]
    assert (len(shown[0][0]), len(shown[0][1])) == (2, 50)
    line = command.succeeds("audit", "verify", cwd=folder.parent, POSTGRES__URL=postgres_url).splitlines()[-1]
    assert line == "the audit log is whole"


def one_of(folder: Path, name: str) -> str:
    with closing(sqlite3.connect(folder / "secureconnect.db")) as file:
        (username,) = file.execute(
            "SELECT username FROM users WHERE username LIKE ?", (f"{name}%",)
        ).fetchone()
    return str(username)


async def everything(client: Client) -> dict[str, object]:
    """By conversation: itself, its members, its messages."""
    return {
        each["conversation_id"]: (
            each,
            await client.participants(each["conversation_id"]),
            await client.history(each["conversation_id"], 2 * MESSAGES),
        )
        for each in await client.conversations()
    }


def test_a_target_that_sorts_otherwise(folder: Path, postgres_server: PostgresServer) -> None:
    """Where capital letters and signs stand elsewhere than in SQLite."""
    with closing(sqlite3.connect(folder / "secureconnect.db")) as file, file:
        keys = [
            (f"{sign}{number:03}", "") for sign in ("B", "a", "_", "Z", "é", "-") for number in range(150)
        ]
        file.executemany("INSERT INTO meta VALUES (?, ?)", keys)
    name = "sorts_otherwise"
    postgres_server.sql(
        f"CREATE DATABASE {name} TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US' LOCALE 'C.UTF-8'"
    )
    try:
        moved(folder, postgres_server.url(name))
    finally:
        postgres_server.drop(name)


async def found(client: Client) -> list[object]:
    """What a search finds first, once the index has what was said last."""

    async def hits(q: str) -> list[object]:
        path = "/v1/messages/search"
        answer: dict[str, list[object]] = await client.call("GET", path, query={"q": q, "limit": 50})
        return answer["hits"]

    async def is_indexed() -> bool:
        return bool(await hits(f"{MESSAGES}"))

    await until(is_indexed)
    return await hits("世界")


DAMAGES = (
    "UPDATE messages SET content = content || '!' WHERE seq = 700",
    "DELETE FROM messages WHERE seq = 701",
    "INSERT INTO blocks (user_id, blocked_id, created_at)"
    " SELECT user_id, user_id, created_at FROM users LIMIT 1",
)


def test_differences_are_found_and_named(
    folder: Path, postgres_url: str, postgres_server: PostgresServer
) -> None:
    name = database(postgres_url)
    moved(folder, postgres_url)
    # as if it had been killed before it compared
    unfinished = "jsonb_set(CAST(value AS jsonb), '{finished_us}', 'null')"
    postgres_server.sql(f"UPDATE meta SET value = {unfinished} WHERE key = 'move'", name)
    for damage in DAMAGES:
        postgres_server.sql(damage, name)
    done = move(folder, postgres_url)
    assert done.returncode == 1
    said = [line for line in done.stdout.splitlines() if line.startswith("DIFFERS: ")]
    words = [re.sub(r"[0-9a-f-]{16,}", "…", line) for line in said]
    rows, blocks = count(folder, "messages"), count(folder, "blocks")
    assert sorted(words) == sorted(
        [
            f"DIFFERS: messages: the source has {rows} rows, checksum …; the target {rows - 1}, checksum …",
            "DIFFERS: messages: changed …",
            "DIFFERS: messages: missing …",
            f"DIFFERS: blocks: the source has {blocks} rows, checksum …; the target {blocks + 1}, checksum …",
            "DIFFERS: blocks: too many …, …",
        ]
    )
    assert "is not equal to the source" in done.stderr


async def test_files_go_along_into_minio(folder: Path, postgres_url: str, minio_config: MinioConfig) -> None:
    here = FolderObjects(folder / "objects")
    contents = {"files/1": b"one", "files/1/thumb": b"", "files/2": bytes(300_000)}
    for key, content_ in contents.items():
        await here.put(key, one_chunk(content_), limit_bytes=len(content_))
    settings = {
        "MINIO__ENDPOINT": minio_config.endpoint,
        "MINIO__ACCESS_KEY": minio_config.access_key,
        "MINIO__SECRET_KEY": minio_config.secret_key,
        "MINIO__BUCKET": minio_config.bucket,
    }
    done = move(folder, postgres_url, **settings | {"MINIO__ACCESS_KEY": "nobody"})
    assert (done.returncode, "MinIO cannot be used" in done.stderr) == (1, True)
    for _ in range(2):
        done = move(folder, postgres_url, **settings)
        assert done.returncode == 0, done.stderr
        assert "3 files" in done.stdout
    async with open_bridge() as bridge, MinioObjects.open(minio_config, bridge) as there:
        for key, content_ in contents.items():
            assert b"".join([part async for part in there.get(key)]) == content_


async def one_chunk(content: bytes) -> AsyncIterator[bytes]:
    yield content


def test_a_source_that_went_on_is_said(folder: Path, postgres_url: str) -> None:
    moved(folder, postgres_url)
    with closing(sqlite3.connect(folder / "secureconnect.db")) as file, file:
        file.execute("DELETE FROM messages WHERE seq = 5")
    done = move(folder, postgres_url)
    assert done.returncode == 1
    assert "changed after it had been moved" in done.stderr


def test_a_target_with_data_is_refused(
    folder: Path, postgres_url: str, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    name = database(postgres_url)
    postgres_server.sql("CREATE TABLE users (x int)", name)
    assert "tables of something else: users" in move(folder, postgres_url).stderr
    postgres_server.sql("DROP TABLE users", name)
    moved(folder, postgres_url)
    postgres_server.sql("DELETE FROM meta WHERE key = 'move'", name)
    done = move(folder, postgres_url)
    assert (done.returncode, "the target has data" in done.stderr) == (1, True)


def test_another_installation_in_the_target_is_refused(
    folder: Path, postgres_url: str, tmp_path: Path
) -> None:
    moved(folder, postgres_url)
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    with closing(sqlite3.connect(other / "secureconnect.db")) as file, file:
        file.execute("UPDATE meta SET value = 'another' WHERE key = 'history_id'")
    done = move(other, postgres_url)
    assert (done.returncode, "another installation" in done.stderr) == (1, True)


def test_a_running_server_is_in_the_way(folder: Path, postgres_url: str) -> None:
    server = Server(folder)
    try:
        server.start()
        done = move(folder, postgres_url)
        assert done.returncode == 1
        assert f"in use by another server (process {server.pid})" in done.stderr
    finally:
        server.close()


async def test_accepted_messages_are_stored_first(folder: Path, postgres_url: str) -> None:
    """They lie in no table, and the folder may stay behind."""
    async with FileJournal.open(folder / "journal", JournalConfig()) as journal:
        await journal.append("chat", [b"one", b"two"])
    line = command.fails(1, "move", "--to", postgres_url, "--data-dir", folder, cwd=folder.parent)
    assert "2 accepted messages wait" in line


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("--data-dir", "nowhere", "--to", "postgres://h/d"), 1, "there is no database in nowhere"),
        ((), 2, "where to?"),
        (("--to", "mysql://u:hush@h/d"), 2, "--to takes postgres://"),
        (("--to", "postgres://u:hush@127.0.0.1:1/d"), 1, "Postgres cannot be used"),
    ],
)
def test_what_cannot_be_moved(folder: Path, args: tuple[str, ...], code: int, said: str) -> None:
    line = command.fails(code, "move", *args, cwd=folder.parent)
    assert said in line
    assert "hush" not in line
