"""The fixtures of the kit; `tests/conftest.py` registers them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pytest

from kit.server import PROGRAM, Server


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
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Starts servers of the test's own, each on a fresh folder: `start_server(GATEWAY__DRAIN_S="1")`."""
    started: list[Server] = []

    def start(program: Sequence[str] = PROGRAM, **settings: str) -> Server:
        server = Server(tmp_path / f"data-{len(started)}", program, **settings)
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
