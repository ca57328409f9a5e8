"""Running a suite on both databases, and databases that need not be made for each test."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

import pytest
import trio

from kit.postgres import Console, PostgresServer
from secureconnect.config import PostgresConfig, SqliteConfig
from secureconnect.deps import migrate
from secureconnect.deps.asyncio_bridge import open_bridge
from secureconnect.deps.postgres import Postgres
from secureconnect.deps.sqlite import Sqlite

DATABASES = ("sqlite", "postgres")

on_sqlite = pytest.mark.parametrize("db", ["sqlite"], indirect=True)
"""For a test that looks into the file."""

# TRUNCATE makes new files and takes five times as long
_EMPTY = """
DO $$ DECLARE each text; BEGIN
    PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid();
    FOR each IN SELECT quote_ident(relname) FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname <> 'schema_migrations'
    LOOP EXECUTE 'DELETE FROM ' || each; END LOOP;
END $$;
"""
_SHAPE = """
SELECT string_agg(concat_ws(' ', oid, relnatts, relchecks, relhastriggers), ',' ORDER BY oid)
    FROM pg_class WHERE relnamespace = 'public'::regnamespace
UNION ALL SELECT string_agg(proname, ',') FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL SELECT string_agg(concat_ws(' ', number, checksum), ',' ORDER BY number) FROM schema_migrations
"""


def on_both(metafunc: pytest.Metafunc) -> None:
    """For `pytest_generate_tests`: tests that have to do with `db` run on either, unless they say which."""
    chosen = any(mark.args[0] == "db" for mark in metafunc.definition.iter_markers("parametrize"))
    if "db" in metafunc.fixturenames and not chosen:
        metafunc.parametrize("db", DATABASES, indirect=True)


class MigratedDatabases:
    """Databases with the whole schema and no row: to copy one takes a fraction of making it, and to empty it
    a fraction of that.

    One whose tables, columns, checks, triggers or functions a test has changed is not used again.
    """

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._consoles: dict[str, Console] = {}
        self._shapes: dict[str, str] = {}
        self._template = ""
        self._free: list[str] = []

    def url(self, name: str) -> str:
        return self._server.url(name)

    def take(self) -> str:
        """The name of one that nobody uses."""
        if self._free:
            return self._free.pop()
        name = self._server.create(self._template or self._make_template())
        self._consoles[name] = self._server.console(name)
        self._shapes[name] = self._consoles[name].sql(_SHAPE)
        return name

    def give_back(self, name: str) -> None:
        """Whoever still uses it is thrown out."""
        if self._consoles[name].sql(_EMPTY + _SHAPE) == self._shapes[name]:
            self._free.append(name)
        else:
            self._consoles.pop(name).close()
            self._server.drop(name)

    def _make_template(self) -> str:
        self._template = self._server.create()
        with ThreadPoolExecutor(1) as thread:  # Trio may run in this one
            thread.submit(trio.run, _bring_up_to_date, self.url(self._template)).result()
        return self._template

    def close(self) -> None:
        for console in self._consoles.values():
            console.close()


async def _bring_up_to_date(url: str) -> None:
    async with open_bridge() as bridge, Postgres.open(PostgresConfig(url=url), bridge) as db:
        await migrate.apply(db)


@asynccontextmanager
async def open_sqlite(folder: Path) -> AsyncIterator[Sqlite]:
    """A file with the whole schema and no row: to copy one takes a fraction of making it."""
    path = folder / "secureconnect.db"
    path.touch(0o600)
    path.write_bytes(_migrated_file())
    async with Sqlite.open(path, SqliteConfig()) as db:
        yield db


@cache
def _migrated_file() -> bytes:
    async def make(path: Path) -> None:
        async with Sqlite.open(path, SqliteConfig()) as db:
            await migrate.apply(db)

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as thread:
        path = Path(folder) / "secureconnect.db"
        thread.submit(trio.run, make, path).result()
        return path.read_bytes()
