"""The worlds every suite here runs in: one line for each implementation of a protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from functools import partial
from pathlib import Path

import pytest

from kit.redis import RedisServer
from kit.smtp import SmtpServer
from secureconnect.config import (
    JournalConfig,
    MemoryConfig,
    MinioConfig,
    PostgresConfig,
    RedisConfig,
    SmtpConfig,
    SqliteConfig,
)
from secureconnect.deps import migrate
from secureconnect.deps.asyncio_bridge import open_bridge
from secureconnect.deps.contracts import Bus, Cache, Database, Journal, Mailer, Objects, StoredObject
from secureconnect.deps.files import FolderObjects
from secureconnect.deps.journal import FileJournal
from secureconnect.deps.mail import FolderMailer
from secureconnect.deps.memory import MemoryBus, MemoryCache
from secureconnect.deps.minio import MinioObjects
from secureconnect.deps.postgres import Postgres
from secureconnect.deps.redis import open_redis
from secureconnect.deps.smtp import SmtpMailer
from secureconnect.deps.spool import SpooledObjects
from secureconnect.deps.sqlite import Sqlite
from secureconnect.errors import Unavailable

SENDER = "no-reply@chat.example.org"
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
async def sqlite(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    folder: Path = request.getfixturevalue("data_dir")
    async with Sqlite.open(folder / "contract.db", SqliteConfig()) as db:
        yield db


@asynccontextmanager
async def postgres(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    config = PostgresConfig(url=request.getfixturevalue("postgres_url"), wait_s=30)
    async with open_bridge() as bridge, Postgres.open(config, bridge) as db:
        yield db


@asynccontextmanager
async def memory_cache(_: pytest.FixtureRequest) -> AsyncIterator[Cache]:
    yield MemoryCache(MemoryConfig())


@asynccontextmanager
async def redis_cache(request: pytest.FixtureRequest) -> AsyncIterator[Cache]:
    server: RedisServer = request.getfixturevalue("redis_server")
    async with open_bridge() as bridge, open_redis(RedisConfig(url=server.url, call_s=5), bridge) as redis:
        yield redis.cache


@asynccontextmanager
async def memory_bus(_: pytest.FixtureRequest) -> AsyncIterator[Bus]:
    yield MemoryBus(MemoryConfig(bus_backlog=BACKLOG))


@asynccontextmanager
async def redis_bus(request: pytest.FixtureRequest) -> AsyncIterator[Bus]:
    server: RedisServer = request.getfixturevalue("redis_server")
    config = RedisConfig(url=server.url, backlog=BACKLOG, call_s=5)
    async with open_bridge() as bridge, open_redis(config, bridge) as redis:
        yield redis.bus


@asynccontextmanager
async def folder_objects(request: pytest.FixtureRequest) -> AsyncIterator[Objects]:
    yield FolderObjects(request.getfixturevalue("data_dir") / "objects")


@asynccontextmanager
async def minio_objects(request: pytest.FixtureRequest) -> AsyncIterator[Objects]:
    config: MinioConfig = request.getfixturevalue("minio_config")
    async with open_bridge() as bridge, MinioObjects.open(config, bridge) as objects:
        yield objects


@asynccontextmanager
async def file_journal(folder: Path) -> AsyncIterator[Journal]:
    async with FileJournal.open(folder / "journal", JournalConfig(limit_mb=1)) as journal:
        yield journal


@asynccontextmanager
async def spool(request: pytest.FixtureRequest) -> AsyncIterator[Objects]:
    folder: Path = request.getfixturevalue("data_dir")
    store = FolderObjects(folder / "objects")
    yield await SpooledObjects.open(store, folder / "spool", lambda: False, MinioConfig())


@asynccontextmanager
async def filling_spool(request: pytest.FixtureRequest) -> AsyncIterator[Objects]:
    """Before a store that takes nothing: everything is kept here."""
    folder: Path = request.getfixturevalue("data_dir")
    store = TakesNothing(folder / "objects")
    yield await SpooledObjects.open(store, folder / "spool", lambda: False, MinioConfig())


Arrived = Callable[[], list[EmailMessage]]


@asynccontextmanager
async def folder_mailer(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Mailer, Arrived]]:
    folder: Path = request.getfixturevalue("data_dir")

    def arrived() -> list[EmailMessage]:
        return [
            message_from_bytes(each.read_bytes(), policy=default)
            for each in sorted((folder / "mail").glob("*.eml"))
        ]

    yield FolderMailer(folder / "mail", SENDER, 3), arrived


@asynccontextmanager
async def smtp_mailer(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Mailer, Arrived]]:
    server: SmtpServer = request.getfixturevalue("smtp_server")
    async with open_bridge() as bridge:
        mailer = SmtpMailer(SmtpConfig(url=server.url), SENDER, "chat.example.org", bridge)
        yield mailer, lambda: [each.message for each in server.mails()]


class TakesNothing(FolderObjects):
    async def put(self, key: str, chunks: AsyncIterator[bytes], *, limit_bytes: int) -> StoredObject:
        await anext(chunks, None)
        raise Unavailable()


DATABASES: Mapping[str, Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[Database]]] = {
    "sqlite": sqlite,
    "postgres": postgres,
}
CACHES: Mapping[str, Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[Cache]]] = {
    "memory": memory_cache,
    "redis": redis_cache,
}
BUSES: Mapping[str, Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[Bus]]] = {
    "memory": memory_bus,
    "redis": redis_bus,
}
OBJECTS: Mapping[str, Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[Objects]]] = {
    "files": folder_objects,
    "minio": minio_objects,
    "spool": spool,
    "filling_spool": filling_spool,
}

MAILERS = {"files": folder_mailer, "smtp": smtp_mailer}
JOURNALS: Mapping[str, Callable[[Path], AbstractAsyncContextManager[Journal]]] = {"file": file_journal}


@pytest.fixture(params=DATABASES)
async def db(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    """A database with the tables of SCHEMA."""
    steps = tmp_path / "migrations"
    steps.mkdir()
    (steps / "0001_contract.sql").write_text(SCHEMA)
    async with DATABASES[request.param](request) as db:
        await migrate.apply(db, steps)
        yield db


@pytest.fixture(params=CACHES)
async def cache(request: pytest.FixtureRequest) -> AsyncIterator[Cache]:
    async with CACHES[request.param](request) as cache:
        yield cache


@pytest.fixture(params=BUSES)
async def bus(request: pytest.FixtureRequest) -> AsyncIterator[Bus]:
    async with BUSES[request.param](request) as bus:
        yield bus


@pytest.fixture(params=OBJECTS)
async def objects(request: pytest.FixtureRequest) -> AsyncIterator[Objects]:
    async with OBJECTS[request.param](request) as objects:
        yield objects


@pytest.fixture(params=MAILERS)
async def mailer(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Mailer, Arrived]]:
    """A mailer, and what has arrived through it."""
    async with MAILERS[request.param](request) as both:
        yield both


@pytest.fixture(params=JOURNALS)
def open_journal(
    request: pytest.FixtureRequest, data_dir: Path
) -> Callable[[], AbstractAsyncContextManager[Journal]]:
    """Opens the journal of the data folder, bounded to one megabyte; again, after it was closed."""
    return partial(JOURNALS[request.param], data_dir)
