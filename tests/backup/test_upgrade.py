"""The copy of Postgres's tables from before its schema is changed, and that it is the way back."""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

import secureconnect
from kit import command
from kit.disk import small_files
from kit.fixtures import StartServer
from kit.postgres import PostgresServer
from kit.worlds import embedded_alone
from secureconnect.auth.keys import rotate
from secureconnect.backup import Opened, check
from secureconnect.backup.upgrade import copy_tables
from secureconnect.config import AuthConfig, Config, PostgresConfig
from secureconnect.deps import migrate, upgrade
from secureconnect.deps.asyncio_bridge import open_bridge
from secureconnect.deps.contracts import Database
from secureconnect.deps.files import FolderObjects
from secureconnect.deps.policy import open_database
from secureconnect.deps.postgres import Postgres
from secureconnect.deps.upgrade import COPIES, TABLES
from secureconnect.move.tables import read_tables
from secureconnect.node import Node

from .rig import ANOTHER, Place, private, sums, to_nobody

*EARLIER, LATEST = migrate.load(migrate.folder(), "postgres")


@asynccontextmanager
async def postgres(url: str) -> AsyncIterator[Database]:
    async with open_bridge() as bridge, Postgres.open(PostgresConfig(url=url), bridge) as db:
        yield db


async def fill(url: str, data: Path) -> dict[str, object]:
    """As the program before has left it. Returns what stands in its tables."""
    async with postgres(url) as db:
        await migrate.apply(db, up_to=EARLIER[-1].number)
        node = await Node.open(db, private(data), "", "chat.example.org")
        await rotate(db, node.secrets, AuthConfig(), db.now_us())
        await Place(data, data, db, FolderObjects(data / "objects"), node.secrets).fill()
        return await sums(db, await db.read(read_tables))


def copies(data: Path) -> list[Path]:
    return list((data / COPIES / TABLES).glob("*/manifest.json"))


def program_before(folder: Path) -> Path:
    """This one without the last migration: what is to be on Python's path."""
    source = folder / "src"
    source.mkdir(parents=True)
    (source / "secureconnect").symlink_to(Path(secureconnect.__file__).parent)
    (folder / "migrations").mkdir()
    for path in migrate.folder().glob("*.sql"):
        if not path.name.startswith(LATEST.name):
            shutil.copy(path, folder / "migrations")
    return source


@embedded_alone  # but for its database
async def test_a_start_copies_the_tables_and_the_program_before_brings_them_back(
    start_server: StartServer,
    postgres_url: str,
    postgres_server: PostgresServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = await fill(postgres_url, tmp_path / "data-0")
    server = start_server(POSTGRES__URL=postgres_url)
    (copied,) = [each for each in server.logs() if each["msg"] == "database_copied"]
    assert copied["before"] == LATEST.name
    assert server.terminate() == 0

    folder = server.data_dir / COPIES / TABLES
    opened = Opened.find(folder, None)
    assert (opened.path, len(opened.folder.backups())) == (Path(copied["copy"]), 1)
    assert await check(opened, to_nobody) == opened.manifest.rows

    monkeypatch.setenv("PYTHONPATH", str(program_before(tmp_path / "before")))
    name = postgres_server.create()
    url = postgres_server.url(name)
    restore = ("restore", folder, "--data-dir", server.data_dir)
    done = await trio.to_thread.run_sync(partial(command.run, *restore, cwd=tmp_path, POSTGRES__URL=url))
    assert done.returncode == 0, done.stderr
    assert "and no files: they stay where they are" in done.stdout
    async with postgres(url) as db:
        assert (await db.read(migrate.applied))[-1] == (EARLIER[-1].number, EARLIER[-1].name)
        back = await sums(db, await db.read(read_tables))
    assert {each for each in there if back[each] != there[each]} == ANOTHER
    postgres_server.drop(name)


async def test_of_nodes_that_start_together_one_makes_it_and_tells_how_far_it_is(
    postgres_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(upgrade, "SAY_EVERY_S", 0)
    await fill(postgres_url, tmp_path / "first")
    configs = [
        Config(data_dir=str(tmp_path / name), postgres=PostgresConfig(url=postgres_url))
        for name in ("first", "second")
    ]

    async def start(config: Config) -> None:
        async with open_database(config, bring_up_to_date=True, copy_tables=copy_tables) as db:
            assert await migrate.missing(db) == []

    async with trio.open_nursery() as nursery:
        for each in configs:
            nursery.start_soon(start, each)
    assert len([each for config in configs for each in copies(Path(config.data_dir))]) == 1
    assert re.search(r"database_copying .*\bdone=1000 .*of=1200 part=messages", capsys.readouterr().out)


async def test_without_a_copy_the_schema_stays_as_it_is_unless_none_is_wanted(
    postgres_url: str,
    postgres_server: PostgresServer,
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    await fill(postgres_url, data)

    async def start(url: str = postgres_url, copies: int = 1) -> None:
        settings = PostgresConfig(url=url, copies=copies)
        config = Config(data_dir=str(data), postgres=settings)
        async with open_database(config, bring_up_to_date=True, copy_tables=copy_tables):
            pass

    refused = "no copy of the database could be made before its schema is changed: .*"
    with (
        small_files(8_000),
        pytest.raises(migrate.MigrationError, match=f"{refused}File too large.* postgres.copies = 0"),
    ):
        await start()
    left = {each.name for each in (data / COPIES / TABLES).iterdir()}
    assert left == {"secureconnect-backup.json", "lock"}, "a full disk gets its room back"

    name = postgres_url.rpartition("/")[2]
    postgres_server.sql(
        "CREATE ROLE weak LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO weak;"
        " REVOKE SELECT ON users FROM weak",
        name,
    )
    try:
        with pytest.raises(migrate.MigrationError, match=f"{refused}permission denied for table users"):
            await start(postgres_url.replace("//sc@", "//weak@"))
    finally:
        postgres_server.sql("DROP OWNED BY weak; DROP ROLE weak", name)
    async with postgres(postgres_url) as db:
        assert await migrate.missing(db) == [LATEST.name]

    await start(copies=0)
    assert copies(data) == []
    async with postgres(postgres_url) as db:
        assert await migrate.missing(db) == []
