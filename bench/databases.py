"""Postgres and Redis of Debian's and an S3 store, started for a figure, as careful as they are by default."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from kit.postgres import PostgresServer
from kit.redis import RedisServer
from kit.store import ACCESS_KEY, REGION, SECRET_KEY, ObjectStore
from server import TICKS_PER_S

CAREFUL = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "shared_buffers": "256MB"}


@contextmanager
def postgres() -> Iterator[PostgresServer]:
    """Running; gone with its data at the end."""
    server = PostgresServer(**CAREFUL)
    try:
        server.start()
        yield server
    finally:
        server.close()


def postgres_cpu_s(server: PostgresServer) -> float:
    """Processor time of all its processes, those that have ended too."""
    ticks = 0
    for pid in (*server.children(), server.pid):
        with suppress(
            FileNotFoundError
        ):  # it has ended meanwhile, and counts as what the first one waited for
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11 : 15 if pid == server.pid else 13]))
    return ticks / TICKS_PER_S


@dataclass(frozen=True, slots=True)
class Redis:
    url: str
    pid: int

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) / TICKS_PER_S


@contextmanager
def redis(folder: Path) -> Iterator[Redis]:
    server = RedisServer(folder)
    try:
        server.start()
        with server.client() as client:
            pid = int(client.info("server")["process_id"])
        yield Redis(server.url, pid)
    finally:
        server.kill()


@contextmanager
def objects(folder: Path) -> Iterator[dict[str, str]]:
    """The settings of who uses it."""
    (folder / "store").mkdir()
    store = ObjectStore(folder / "store")
    try:
        store.start()
        yield {
            "MINIO__ENDPOINT": store.endpoint,
            "MINIO__ACCESS_KEY": ACCESS_KEY,
            "MINIO__SECRET_KEY": SECRET_KEY,
            "MINIO__REGION": REGION,
            "MINIO__BUCKET": "bench",
        }
    finally:
        store.close()
