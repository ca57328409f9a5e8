"""Opening everything: the lock of the data folder, the schema, the command line beside a server."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from kit.postgres import PostgresServer
from secureconnect.config import Config, MinioConfig, PostgresConfig
from secureconnect.deps import migrate, policy
from secureconnect.deps.asyncio_bridge import open_bridge
from secureconnect.deps.contracts import Row, Tx
from secureconnect.deps.policy import DataFolderBusy, NotReady, open_database, open_deps
from secureconnect.deps.postgres import Postgres
from secureconnect.settings import BadSetting

FIRST = "SELECT name FROM schema_migrations WHERE number = 1"


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(data_dir=str(tmp_path / "made" / "data"))


async def rows(tx: Tx, sql: str) -> list[Row]:
    return await tx.all(sql)


async def test_a_fresh_folder_is_made_private_and_ready(config: Config) -> None:
    async with open_deps(config) as deps:
        assert (await trio.Path(config.data_dir).stat()).st_mode & 0o777 == 0o700
        assert await deps.db.read(rows, FIRST) == [("0001_node",)]
        assert [(each.name, each.kind, each.status) for each in deps.status()] == [
            ("postgres", "sqlite", "up"),
            ("redis", "memory", "up"),
            ("minio", "files", "up"),
            ("smtp", "files", "up"),
            ("push", "push", "up"),
        ]
        await deps.cache.put("a", b"b", 60)
        assert [key async for key in deps.objects.list("")] == []


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files and folders that are synced, in order."""
    names: list[str] = []
    fsync = os.fsync

    def noting(descriptor: int) -> None:
        names.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    return names


async def test_every_folder_that_is_made_is_synced_in_its_parent(
    config: Config, tmp_path: Path, synced: list[str]
) -> None:
    async with open_deps(config) as deps:
        assert {str(tmp_path), str(tmp_path / "made"), config.data_dir} <= set(synced)
        for name in ("one", "two"):  # the second finds the folders there, perhaps not yet durable
            synced.clear()
            await deps.objects.put(f"a/b/{name}", chunks(b"x"), limit_bytes=9)
            top = f"{config.data_dir}/{policy.OBJECTS}"
            assert synced[-3:] == [f"{top}/a/b", f"{top}/a", top]


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_a_second_server_is_refused_until_the_first_has_ended(config: Config) -> None:
    async with open_deps(config):
        with pytest.raises(DataFolderBusy, match=config.data_dir):
            async with open_deps(config):
                pass
    async with open_deps(config):
        pass


async def test_a_start_that_fails_leaves_the_folder_free(config: Config) -> None:
    in_the_way = trio.Path(config.data_dir, policy.OBJECTS)
    await in_the_way.parent.mkdir(parents=True)
    await in_the_way.touch()
    with pytest.raises(BadSetting, match=r"data_dir .* exists"):
        async with open_deps(config):
            pass
    await in_the_way.unlink()
    async with open_deps(config):
        pass


async def test_uploads_are_not_swept_while_they_may_be_completed(config: Config) -> None:
    minio = MinioConfig(endpoint="127.0.0.1:1", access_key="a", secret_key="b" * 8, unfinished_h=23)
    with pytest.raises(BadSetting, match=r"storage\.upload_parts_s is longer than minio\.unfinished_h"):
        async with open_deps(replace(config, minio=minio)):
            pass


async def test_files_that_wait_for_a_store_are_not_forgotten_with_its_setting(config: Config) -> None:
    away = replace(config, minio=MinioConfig(endpoint="127.0.0.1:1", access_key="a", secret_key="b" * 8))
    async with open_deps(away) as deps:
        await deps.objects.put("files/a", chunks(b"kept"), limit_bytes=9)
    with pytest.raises(BadSetting, match=r"spool holds files .* set minio\.endpoint"):
        async with open_deps(config):
            pass
    async with open_deps(away) as deps:
        await deps.objects.delete("files/a")
    async with open_deps(config):
        pass


async def test_the_command_line_works_beside_a_server(config: Config) -> None:
    async with open_deps(config) as deps, open_database(config) as db:
        assert await db.write(rows, FIRST) == await deps.db.write(rows, FIRST)


async def test_the_command_line_wants_a_database_that_is_up_to_date(config: Config) -> None:
    with pytest.raises(NotReady, match="no database"):
        async with open_database(config):
            pass
    assert not await trio.Path(config.data_dir).exists()
    async with open_database(config, bring_up_to_date=True) as db:
        await db.write(rows, "DELETE FROM schema_migrations WHERE number > 1 RETURNING name")
    with pytest.raises(NotReady, match="0002_identity"):
        async with open_database(config):
            pass


async def test_the_command_line_leaves_a_strange_database_as_it_is(
    config: Config, postgres_server: PostgresServer, postgres_url: str
) -> None:
    with pytest.raises(NotReady, match="0001_node"):
        async with open_database(replace(config, postgres=PostgresConfig(url=postgres_url))):
            pass
    tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
    assert postgres_server.sql(tables, postgres_url.rpartition("/")[2]) == "0"


async def test_the_command_line_has_patience_with_the_schema_on_postgres(
    config: Config, postgres_url: str
) -> None:
    """Another process may be at it, or a step take long: the limits of everyday units do not hold."""
    begun = trio.Event()

    async def at_it(tx: Tx) -> None:
        await tx.one("SELECT pg_advisory_xact_lock($1)", migrate._LOCK_KEY)
        begun.set()
        await tx.one("SELECT CAST(pg_sleep(0.5) AS text)")

    hasty = replace(config, postgres=PostgresConfig(url=postgres_url, statement_s=0.1, lock_s=0.05))
    async with (
        open_bridge() as bridge,
        Postgres.open(PostgresConfig(url=postgres_url), bridge) as other,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(other.write, at_it)
        await begun.wait()
        async with open_database(hasty, bring_up_to_date=True) as db:
            assert await db.read(rows, FIRST) == [("0001_node",)]
