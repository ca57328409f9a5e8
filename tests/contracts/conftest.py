"""The worlds every suite here runs in: one line for each implementation of a protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from secureconnect.config import MemoryConfig, SqliteConfig
from secureconnect.deps import migrate
from secureconnect.deps.contracts import Bus, Cache, Database, Objects
from secureconnect.deps.files import FolderObjects
from secureconnect.deps.memory import MemoryBus, MemoryCache
from secureconnect.deps.sqlite import Sqlite

BACKLOG = 10  # deliveries a subscriber of the worlds' buses can have waiting

SCHEMA = """
CREATE TABLE counters (name text PRIMARY KEY, value bigint NOT NULL CHECK (value >= 0));
CREATE TABLE things (
    seq bigint PRIMARY KEY, id uuid UNIQUE, counter text REFERENCES counters (name),
    ok boolean, at timestamptz, data jsonb, raw bytea, share double precision
);
INSERT INTO counters (name, value) VALUES ('seq', 0);
"""


@asynccontextmanager
async def sqlite(folder: Path) -> AsyncIterator[Database]:
    async with Sqlite.open(folder / "contract.db", SqliteConfig()) as db:
        yield db


@asynccontextmanager
async def memory_cache(_: Path) -> AsyncIterator[Cache]:
    yield MemoryCache(MemoryConfig())


@asynccontextmanager
async def memory_bus(_: Path) -> AsyncIterator[Bus]:
    yield MemoryBus(MemoryConfig(bus_backlog=BACKLOG))


@asynccontextmanager
async def folder_objects(folder: Path) -> AsyncIterator[Objects]:
    yield FolderObjects(folder / "objects")


DATABASES: Mapping[str, Callable[[Path], AbstractAsyncContextManager[Database]]] = {"sqlite": sqlite}
CACHES: Mapping[str, Callable[[Path], AbstractAsyncContextManager[Cache]]] = {"memory": memory_cache}
BUSES: Mapping[str, Callable[[Path], AbstractAsyncContextManager[Bus]]] = {"memory": memory_bus}
OBJECTS: Mapping[str, Callable[[Path], AbstractAsyncContextManager[Objects]]] = {"files": folder_objects}


@pytest.fixture(params=DATABASES)
async def db(request: pytest.FixtureRequest, data_dir: Path, tmp_path: Path) -> AsyncIterator[Database]:
    """A database with the tables of SCHEMA."""
    steps = tmp_path / "migrations"
    steps.mkdir()
    (steps / "0001_contract.sql").write_text(SCHEMA)
    async with DATABASES[request.param](data_dir) as db:
        await migrate.apply(db, steps)
        yield db


@pytest.fixture(params=CACHES)
async def cache(request: pytest.FixtureRequest, data_dir: Path) -> AsyncIterator[Cache]:
    async with CACHES[request.param](data_dir) as cache:
        yield cache


@pytest.fixture(params=BUSES)
async def bus(request: pytest.FixtureRequest, data_dir: Path) -> AsyncIterator[Bus]:
    async with BUSES[request.param](data_dir) as bus:
        yield bus


@pytest.fixture(params=OBJECTS)
async def objects(request: pytest.FixtureRequest, data_dir: Path) -> AsyncIterator[Objects]:
    async with OBJECTS[request.param](data_dir) as objects:
        yield objects
