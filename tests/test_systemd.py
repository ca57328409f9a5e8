"""What systemd hears of a server: from a real one, on a socket like systemd's."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from kit.fixtures import StartServer
from kit.http import plain
from kit.ports import free_port
from kit.server import Server
from kit.wait import until
from secureconnect.identity import new_id
from secureconnect.systemd import SILENT_S, Standing, keep_told

LIMIT_S = 10.0


class Listener:
    """systemd's end.  heard: every line, in order."""

    def __init__(self, bound: socket.socket) -> None:
        self.heard: list[str] = []
        self._socket = bound

    def listen(self) -> list[str]:
        """What has come since; at once."""
        fresh: list[str] = []
        while True:
            try:
                fresh += self._socket.recv(65_536).decode().split("\n")
            except BlockingIOError:
                self.heard += fresh
                return fresh

    async def hears(self, line: str) -> None:
        def heard() -> bool:
            self.listen()
            return line in self.heard

        await until(heard, LIMIT_S)


@contextmanager
def listener(address: str) -> Iterator[Listener]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        bound.setblocking(False)
        yield Listener(bound)


@pytest.fixture(params=["in a folder", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "notify") if request.param == "in a folder" else f"@secureconnect-{new_id()}"


async def test_a_server_tells_when_it_is_ready_that_it_runs_and_that_it_ends(
    address: str, start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    with listener(address) as systemd:
        server = await trio.to_thread.run_sync(start_server)
        await systemd.hears("READY=1")
        async with plain() as http:
            assert (await http.get(f"{server.url}/readyz")).status_code == 200
        await until(lambda: systemd.listen().count("WATCHDOG=1") >= 1, LIMIT_S)
        await until(lambda: systemd.listen().count("WATCHDOG=1") >= 1, LIMIT_S)
        assert "STATUS=ready" in systemd.heard
        assert await trio.to_thread.run_sync(server.terminate) == 0
        systemd.listen()
        assert systemd.heard.count("READY=1") == systemd.heard.count("STOPPING=1") == 1
        assert systemd.heard.index("STATUS=draining") > systemd.heard.index("READY=1")


async def test_a_start_that_waits_for_its_database_asks_for_time_and_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    server = Server(tmp_path / "data", POSTGRES__URL=f"postgres://nobody@127.0.0.1:{free_port()}/none")
    with listener(address) as systemd:
        try:
            await trio.to_thread.run_sync(server.start)
            await systemd.hears("STATUS=waiting for postgres")
            systemd.listen()
            more = f"EXTEND_TIMEOUT_USEC={SILENT_S * 1_000_000}"
            await until(lambda: more in systemd.listen(), LIMIT_S)
            assert await trio.to_thread.run_sync(server.terminate) == 0
            systemd.listen()
            assert "READY=1" not in systemd.heard
            assert "STOPPING=1" in systemd.heard
        finally:
            server.close()


def standing(*, is_ready: bool = True, is_alive: bool = True) -> Standing:
    return Standing(is_ready, is_ending=False, is_alive=is_alive, status="as it stands")


async def told(address: str, looks: list[Standing], **env: str) -> None:
    """As many looks as these; then it ends."""
    left = iter(looks)

    def look() -> Standing:
        found = next(left, None)
        if found is None:
            scope.cancel()
        return found or looks[-1]

    with trio.CancelScope() as scope:
        await keep_told(look, {"NOTIFY_SOCKET": address, **env})


async def test_the_watchdog_hears_nothing_of_what_lost_its_supervisor(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    address = str(tmp_path / "notify")
    with listener(address) as systemd:
        for is_alive in (True, False):
            await told(address, [standing(is_alive=is_alive)] * 5, WATCHDOG_USEC="1000000")
            assert ("WATCHDOG=1" in systemd.listen()) is is_alive


async def test_it_runs_at_half_of_the_time_it_has(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    address = str(tmp_path / "notify")
    with listener(address) as systemd:
        began = trio.current_time()
        await told(address, [standing()] * 12, WATCHDOG_USEC="4000000")
        assert trio.current_time() - began == pytest.approx(6)  # a look each half second
        assert systemd.listen().count("WATCHDOG=1") == 4


@pytest.mark.parametrize(
    "env",
    [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "9", "WATCHDOG_PID": "1"}],
    ids=str,
)
async def test_no_watchdog_of_ours(
    env: dict[str, str], tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    address = str(tmp_path / "notify")
    with listener(address) as systemd:
        await told(address, [standing()] * 3, **env)
        assert systemd.listen() == ["READY=1", "STATUS=as it stands"]


async def test_our_own_process_is_named(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    address = str(tmp_path / "notify")
    with listener(address) as systemd:
        await told(address, [standing()], WATCHDOG_USEC="1000000", WATCHDOG_PID=str(os.getpid()))
        assert "WATCHDOG=1" in systemd.listen()


async def test_what_could_not_be_told_is_told_later(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    address = str(tmp_path / "notify")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_told, standing, {"NOTIFY_SOCKET": address})
        await trio.sleep(2)  # nobody listens
        with listener(address) as systemd:
            await trio.sleep(1)
            assert systemd.listen() == ["READY=1", "STATUS=as it stands"]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("address", ["", "vsock:2:1", "relative"])
async def test_without_a_socket_it_ends_at_once(address: str) -> None:
    with trio.fail_after(1):
        await keep_told(standing, {"NOTIFY_SOCKET": address})
