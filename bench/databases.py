"""Postgres of Debian's, started for a figure, and as careful with what it is given as it is by default."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kit.postgres import PostgresServer
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
    spent = 0.0
    for pid in (server.pid, *server.children()):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        spent += sum(map(int, fields[11 : 15 if pid == server.pid else 13])) / TICKS_PER_S
    return spent
