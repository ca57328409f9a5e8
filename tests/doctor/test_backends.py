"""What the doctor says of real Postgres, Redis and S3 servers, healthy and broken."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest
import trio

from kit.ports import free_port
from kit.postgres import PostgresServer
from kit.redis import RedisServer
from kit.store import SECRET_KEY, ObjectStore
from kit.tls import tls_before
from kit.toll import toll_before
from secureconnect.clock import SECOND_US, now_us
from secureconnect.config import Config, MinioConfig, PostgresConfig, RedisConfig
from secureconnect.deps import migrate
from secureconnect.deps.asyncio_bridge import open_bridge
from secureconnect.deps.minio import MinioObjects
from secureconnect.deps.postgres import Postgres
from secureconnect.doctor import minio as minio_checks
from secureconnect.doctor import postgres as postgres_checks
from secureconnect.doctor import redis as redis_checks
from secureconnect.doctor.findings import Report

from .conftest import PASSWORD, QUOTED, look, url

FROZEN_S = 45  # for all checks together, one of them frozen
CALL_S = 0.5


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks give up sooner than they would an operator's backends."""
    for checks in (postgres_checks, redis_checks, minio_checks):
        monkeypatch.setattr(checks, "CALL_S", CALL_S)


# Postgres


@pytest.fixture
async def migrated(on_postgres: Config) -> Config:
    async with open_bridge() as bridge, Postgres.open(on_postgres.postgres, bridge) as db:
        await migrate.apply(db)
    return on_postgres


async def test_postgres_is_well(migrated: Config) -> None:
    found = await look(migrated)
    assert found.failed == {}
    assert found.warned == set()
    for name in ("version", "latency", "durability", "isolation", "connections", "rights", "migrations"):
        assert found.of(f"postgres.{name}").status == "ok", name
    assert "ms" in found.of("clock").found


async def test_postgres_lacks_migrations_and_gets_none(
    on_postgres: Config, postgres: PostgresServer, name: str
) -> None:
    found = await look(on_postgres)
    assert found.failed == {}
    assert "0001_node, 0002_identity" in found.of("postgres.migrations").found
    assert postgres.sql("SELECT COUNT(*) FROM pg_tables WHERE schemaname = 'public'", name) == "0"


async def test_an_unfinished_move_is_told(migrated: Config, postgres: PostgresServer, name: str) -> None:
    postgres.sql("INSERT INTO meta VALUES ('move', '{\"source\": \"x\"}')", name)
    assert "being moved into" in (await look(migrated)).failed["postgres.move"]


BEHIND_S = 2


async def test_the_clock_of_postgres_is_wrong(config: Config, skewed: PostgresServer) -> None:
    at = PostgresConfig(url=skewed.url())
    clock = (await look(replace(config, postgres=at))).of("clock")
    assert clock.status == "warning"
    found = re.match(r"Postgres's is (\d+) ms behind this machine's", clock.found)
    assert found is not None
    assert abs(int(found[1]) - BEHIND_S * 1_000) < 300
    async with open_bridge() as bridge, Postgres.open(at, bridge) as db:
        await db.probe()
        behind_us = now_us() - db.now_us()
    assert abs(behind_us - BEHIND_S * SECOND_US) < 300_000, "a server goes by it"


@pytest.fixture
def skewed() -> Iterator[PostgresServer]:
    """Its clock is BEHIND_S behind ours."""
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if library is None:
        pytest.skip("no faketime")
    server = PostgresServer()
    server.environment = {
        "LD_PRELOAD": str(library),
        "FAKETIME": f"-{BEHIND_S}",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.mark.parametrize(
    ("where", "word"),
    [
        ({"password": "wrong-word"}, "refuses the user or the password"),
        ({"database": "nowhere"}, 'database "nowhere" does not exist'),
        ({"port": 0}, "cannot be reached"),
    ],
)
async def test_postgres_cannot_be_used(
    config: Config, postgres: PostgresServer, name: str, where: dict[str, object], word: str
) -> None:
    port = free_port() if "port" in where else postgres.port
    bad = url(port, str(where.get("database", name)), str(where.get("password", QUOTED)))
    found = await look(replace(config, postgres=PostgresConfig(url=bad)), ["wrong-word"])
    assert word in found.failed["postgres"]
    assert list(found.failed) == ["postgres"]


@pytest.mark.parametrize("query", ["sslmode=verify-full", "sslmode=verify-full&sslrootcert=/no/ca.pem"])
async def test_postgres_by_an_authority_that_is_not_there(
    config: Config, postgres: PostgresServer, name: str, query: str
) -> None:
    bad = f"{url(postgres.port, name)}?{query}"
    found = (await look(replace(config, postgres=PostgresConfig(url=bad)))).of("postgres")
    assert "cannot be reached" not in found.found
    assert "sslrootcert" in str(found.mend)


async def test_a_password_that_is_not_encoded(config: Config) -> None:
    bad = f"postgres://strict:{PASSWORD}#?@127.0.0.1:x/d"
    found = await look(replace(config, postgres=PostgresConfig(url=bad)))
    assert "settings" in found.failed
    assert "postgres" in found.failed


@pytest.mark.parametrize("scheme", ["postgres", "redis"])
async def test_a_password_with_a_slash_is_taken_for_no_port(config: Config, scheme: str) -> None:
    bad = f"{scheme}://strict:23456/hush-half@127.0.0.1:1/0"
    section = (
        {"postgres": PostgresConfig(url=bad)} if scheme == "postgres" else {"redis": RedisConfig(url=bad)}
    )
    found = await look(replace(config, **section), ["23456", "hush-half"])
    assert "percent-encoded" in str(found.of("settings").mend)


async def test_postgres_is_frozen(
    config: Config, postgres: PostgresServer, name: str, impatient: None
) -> None:
    with postgres.frozen(), trio.fail_after(FROZEN_S):
        found = await look(replace(config, postgres=PostgresConfig(url=url(postgres.port, name))))
    assert f"no answer within {CALL_S} s" in found.failed["postgres"]
    assert found.of("minio"), "the checks after it were made"


async def test_postgres_falls_silent_half_way(
    config: Config, postgres: PostgresServer, name: str, impatient: None
) -> None:
    async with toll_before(f"http://127.0.0.1:{postgres.port}") as toll:
        toll.stall()
        port = int(toll.url.rpartition(":")[2])
        with trio.fail_after(FROZEN_S):
            found = await look(replace(config, postgres=PostgresConfig(url=url(port, name))))
    assert f"no answer within {CALL_S} s" in found.failed["postgres"]


async def test_postgres_that_may_lose_what_it_was_told(
    migrated: Config, postgres: PostgresServer, name: str
) -> None:
    postgres.sql(f"ALTER DATABASE {name} SET synchronous_commit = off")
    postgres.sql(f"ALTER DATABASE {name} SET default_transaction_isolation = serializable")
    found = await look(migrated)
    assert "synchronous_commit off" in found.failed["postgres.durability"]
    assert found.of("postgres.isolation").status == "warning"
    postgres.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    assert "read only" in (await look(migrated)).failed["postgres.writable"]


async def test_postgres_has_too_few_connections(
    migrated: Config, postgres: PostgresServer, name: str
) -> None:
    postgres.sql(f"ALTER DATABASE {name} CONNECTION LIMIT 5")
    found = await look(migrated)
    assert "need 11; 5 are to be had" in found.failed["postgres.connections"]
    nodes = (
        "INSERT INTO nodes SELECT gen_random_uuid(), '', now(), now(), now() + '1 h'"
        " FROM generate_series(1, 20)"
    )
    postgres.sql(f"ALTER DATABASE {name} CONNECTION LIMIT -1; {nodes}", name)
    found = await look(migrated)
    assert "20 nodes with 11 need 220" in found.failed["postgres.connections"]
    assert found.warned == {"redis", "minio"}, "which several nodes need"


async def test_connections_of_others_count_though_we_may_not_look_at_them(
    migrated: Config, postgres: PostgresServer, name: str
) -> None:
    async with open_bridge() as bridge:
        others = [await bridge.run(asyncpg.connect, postgres.url(name)) for _ in range(3)]
        found = await look(migrated)
        for each in others:
            await bridge.run(each.close)
    assert "3 used by others" in found.of("postgres.connections").found


async def test_postgres_is_too_old(migrated: Config) -> None:
    """What it cannot do is asked of each connection, so none opens."""
    async with open_bridge() as bridge:
        seen = await bridge.run(postgres_checks._ask, migrated.postgres.url)
    old = replace(seen, facts={**seen.facts, "number": 130_014, "version": "13.14"})
    report = Report(migrated, lambda _: None)
    postgres_checks._judge(old, migrated, report)
    assert [each.name for each in report.findings if each.status == "failed"] == ["postgres.version"]


async def test_postgres_gives_too_few_rights(migrated: Config, postgres: PostgresServer, name: str) -> None:
    postgres.sql(f"ALTER DATABASE {name} OWNER TO sc")
    found = await look(migrated)
    assert "may not create tables in schema public" in found.failed["postgres.rights"]
    postgres.sql("GRANT CREATE ON SCHEMA public TO strict; ALTER TABLE users OWNER TO sc", name)
    assert "of another role: users" in (await look(migrated)).failed["postgres.rights"]


# Redis


def with_redis(config: Config, url: str) -> Config:
    return replace(config, redis=RedisConfig(url=url))


async def test_redis_is_well(config: Config, redis_server: RedisServer) -> None:
    found = await look(with_redis(config, redis_server.url))
    assert found.failed == {}
    for name in ("version", "latency", "value", "message", "memory", "persistence"):
        assert found.of(f"redis.{name}").status == "ok", name
    with redis_server.client() as client:
        assert client.dbsize() == 0, "it left something behind"


async def test_redis_that_is_full_refuses(config: Config, redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.config_set("maxmemory", 100_000_000)
        client.config_set("maxmemory-policy", "noeviction")
    found = await look(with_redis(config, redis_server.url))
    assert (found.of("redis.memory").status, "noeviction" in found.of("redis.memory").found) == (
        "warning",
        True,
    )


async def test_redis_refuses_us(config: Config, redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.execute_command("ACL", "SETUSER", "doc", "on", f">{PASSWORD}", "~*", "&*", "+@all", "-publish")
        try:
            wrong = f"redis://doc:wrong-word@127.0.0.1:{redis_server.port}/0"
            found = await look(with_redis(config, wrong), ["wrong-word"])
            assert "refuses the password" in found.failed["redis"]
            right = f"redis://doc:{QUOTED}@127.0.0.1:{redis_server.port}/0"
            found = await look(with_redis(config, right))
            assert "publish" in found.failed["redis"]
        finally:
            client.execute_command("ACL", "DELUSER", "doc")


async def test_redis_is_not_there(config: Config) -> None:
    found = await look(with_redis(config, f"redis://:{QUOTED}@127.0.0.1:{free_port()}/0"))
    assert "cannot be reached" in found.failed["redis"]


async def test_redis_is_frozen(config: Config, redis_server: RedisServer, impatient: None) -> None:
    redis_server.freeze()
    with trio.fail_after(FROZEN_S):
        found = await look(with_redis(config, redis_server.url))
    assert f"no answer within {CALL_S} s" in found.failed["redis"]


# MinIO


def with_store(config: Config, store: MinioConfig) -> Config:
    return replace(config, minio=store)


async def buckets(config: MinioConfig) -> set[str]:
    """Names of all there are."""
    from miniopy_async.api import Minio

    async def ask() -> set[str]:
        client = Minio(
            config.endpoint, config.access_key, config.secret_key, secure=False, region=config.region
        )
        try:
            return {each.name for each in await client.list_buckets()}
        finally:
            await client.close_session()  # type: ignore[no-untyped-call]

    async with open_bridge() as bridge:
        return await bridge.run(ask)


async def test_a_bucket_that_is_not_there_may_be_made_and_is_not(
    config: Config, minio_config: MinioConfig
) -> None:
    before = await buckets(minio_config)
    found = await look(with_store(config, minio_config), [SECRET_KEY])
    assert found.failed == {}
    assert "does not exist; the server may and will make it" in found.of("minio.bucket").found
    for name in ("clock", "rights", "latency", "signed_urls"):
        assert found.of(f"minio.{name}").status == "ok", name
    assert await buckets(minio_config) == before, "it left a bucket behind"


async def test_a_bucket_that_is_there_stays_as_it_is(config: Config, minio_config: MinioConfig) -> None:
    async with open_bridge() as bridge, MinioObjects.open(minio_config, bridge) as objects:
        await objects.probe()
        found = await look(with_store(config, minio_config))
        assert found.failed == {}
        assert "exists" in found.of("minio.bucket").found
        assert [key async for key in objects.list("")] == []


@pytest.mark.parametrize(
    ("changed", "check", "word"),
    [
        ({"secret_key": "wrong-word"}, "minio", "minio.secret_key is wrong"),
        ({"access_key": "nobody"}, "minio", "does not know minio.access_key"),
        ({"endpoint": "127.0.0.1:1"}, "minio", "cannot be reached"),
        ({"public_endpoint": "127.0.0.1:1"}, "minio.signed_urls", "cannot be reached from here"),
        ({"public_endpoint": "http://127.0.0.1:1"}, "minio.signed_urls", "cannot be reached from here"),
        ({"public_endpoint": "127.0.0.1:9/path"}, "minio", "is not valid"),
    ],
)
async def test_the_store_refuses_us(
    config: Config, minio_config: MinioConfig, changed: dict[str, str], check: str, word: str
) -> None:
    store = replace(minio_config, **changed)  # type: ignore[arg-type]
    found = await look(with_store(config, store), ["wrong-word", SECRET_KEY])
    assert word in found.failed[check]


async def test_a_store_that_takes_more_than_was_signed_for(
    config: Config, minio_config: MinioConfig, store: ObjectStore
) -> None:
    """One that looks at no signature at all."""
    unguarded = replace(minio_config, public_endpoint=f"127.0.0.1:{store.filer_port}")
    found = await look(with_store(config, unguarded))
    assert found.of("minio.signed_urls").status == "warning"
    assert "takes more" in found.of("minio.signed_urls").found


async def test_whether_browsers_may_put_files_there(
    config: Config, minio_config: MinioConfig, nursery: trio.Nursery
) -> None:
    assert "minio.browsers" not in str(await look(with_store(config, minio_config))), "of no page is known"
    at_home = replace(config, gateway=replace(config.gateway, public_url="https://chat.example.org"))
    assert (await look(with_store(at_home, minio_config))).of("minio.browsers").status == "ok"

    async def forbids(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some(65_536)
            await stream.send_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, forbids, [listener])
    closed = replace(minio_config, public_endpoint=f"127.0.0.1:{listener.socket.getsockname()[1]}")
    assert "https://chat.example.org" in (await look(with_store(at_home, closed))).failed["minio.browsers"]


async def test_the_store_is_frozen(
    config: Config, minio_config: MinioConfig, store: ObjectStore, impatient: None
) -> None:
    store.freeze()
    with trio.fail_after(FROZEN_S):
        found = await look(with_store(config, minio_config))
    assert f"no answer within {CALL_S} s" in found.failed["minio"]


async def test_files_of_a_folder_are_well(config: Config, folder: Path) -> None:
    assert str(folder / "objects") in (await look(config)).of("minio").found


async def test_the_store_speaks_tls_by_an_authority_of_this_machine(
    config: Config, minio_config: MinioConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server trusts those of the system, and so does the doctor."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    async with tls_before(minio_config.endpoint, tmp_path / "ca.pem") as endpoint:
        found = await look(with_store(config, replace(minio_config, endpoint=endpoint, secure=True)))
        assert found.failed == {}
        monkeypatch.delenv("SSL_CERT_FILE")
        found = await look(with_store(config, replace(minio_config, endpoint=endpoint, secure=True)))
        assert "certificate" in found.failed["minio"]
