"""The worlds a server can stand in: its embedded twins, or Postgres, Redis and an S3 server."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kit.databases import MigratedDatabases
from kit.redis import RedisServer
from kit.store import ACCESS_KEY, REGION, SECRET_KEY, ObjectStore
from secureconnect.identity import new_id

World = Callable[[], dict[str, str]]
"""Settings of a fresh server: where its backends are, each of them empty."""

embedded_alone = pytest.mark.parametrize("world", ["embedded"], indirect=True)
"""For a journey that makes no sense in the other one; why is said beside it."""


def in_both(metafunc: pytest.Metafunc) -> None:
    """For `pytest_generate_tests`: tests that start a server do so in either, unless they say which."""
    chosen = any(mark.args[0] == "world" for mark in metafunc.definition.iter_markers("parametrize"))
    if "world" in metafunc.fixturenames and not chosen:
        metafunc.parametrize("world", WORLDS, indirect=True)


def embedded(_: pytest.FixtureRequest) -> World:
    return dict


def real(request: pytest.FixtureRequest) -> World:
    """The test's own database and bucket; its servers share the Redis."""
    databases: MigratedDatabases = request.getfixturevalue("migrated_databases")
    redis: RedisServer = request.getfixturevalue("redis_server")
    store: ObjectStore = request.getfixturevalue("store")

    def settings() -> dict[str, str]:
        name = databases.take()
        request.addfinalizer(lambda: databases.give_back(name))
        return {
            "POSTGRES__URL": databases.url(name),
            "REDIS__URL": redis.url,
            "MINIO__ENDPOINT": store.endpoint,
            "MINIO__ACCESS_KEY": ACCESS_KEY,
            "MINIO__SECRET_KEY": SECRET_KEY,
            "MINIO__REGION": REGION,
            "MINIO__BUCKET": f"journey-{new_id()}",
        }

    return settings


WORLDS: dict[str, Callable[[pytest.FixtureRequest], World]] = {"embedded": embedded, "real": real}
