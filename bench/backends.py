"""What a server stands on for a figure: nothing beside itself, or Postgres, Redis and an S3 server of this
machine, started as the tests start theirs, on the load's core."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from secureconnect.bench.rounds import Meters
from server import cpu_s

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from kit.postgres import PostgresServer
from kit.redis import RedisServer
from kit.store import ACCESS_KEY, REGION, SECRET_KEY, ObjectStore

DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "shared_buffers": "128MB"}


@dataclass(frozen=True, slots=True)
class Stand:
    """settings: of the server.  meters: who else works for it."""

    name: str
    settings: Mapping[str, str] = field(default_factory=dict)
    meters: Meters = field(default_factory=dict)


EMBEDDED = Stand("SQLite")


@contextmanager
def postgres(url: str | None) -> Iterator[Stand]:
    """url: of an empty database, or None for a server of the bench's own, as durable as by default."""
    if url is not None:
        yield Stand("Postgres", {"POSTGRES__URL": url})
        return
    started = PostgresServer(**DURABLE)
    try:
        started.start()
        settings = {"POSTGRES__URL": started.url(started.create())}
        yield Stand("Postgres", settings, {"database": partial(_cpu_s, started)})
    finally:
        started.close()


def _cpu_s(started: PostgresServer) -> float:
    return sum(map(cpu_s, [started.pid, *started.children()]))


@contextmanager
def everything(store: str | None, cache: str | None) -> Iterator[Stand]:
    """Postgres, Redis and S3.  store, cache: the URLs of the first two, or None to start them."""
    with postgres(store) as database, tempfile.TemporaryDirectory() as folder, _redis(cache) as redis:
        objects = ObjectStore(Path(folder))
        objects.start()
        try:
            s3 = {
                "MINIO__ENDPOINT": objects.endpoint,
                "MINIO__ACCESS_KEY": ACCESS_KEY,
                "MINIO__SECRET_KEY": SECRET_KEY,
                "MINIO__REGION": REGION,
            }
            yield Stand(
                "Postgres, Redis and S3", {**database.settings, **s3, "REDIS__URL": redis}, database.meters
            )
        finally:
            objects.close()


@contextmanager
def _redis(url: str | None) -> Iterator[str]:
    if url is not None:
        yield url
        return
    with tempfile.TemporaryDirectory() as folder:
        started = RedisServer(Path(folder))
        started.start()
        try:
            yield started.url
        finally:
            started.kill()
