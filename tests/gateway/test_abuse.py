"""Clients that mean ill, many at a time: they are cut, cost little, and nobody else notices."""

from __future__ import annotations

import math
import resource
import select
import socket
import struct
from pathlib import Path

import pytest
import trio
import trio.testing

from kit.fixtures import StartServer
from kit.wait import until

from .house import House, Raw, open_house

IDLE = 5_000
SPARE_DESCRIPTORS = 500
KB_EACH = 5 * 8  # five times what an idle connection takes


async def test_heads_in_drops() -> None:
    """Slowloris: hundreds of clients that send a head a byte at a time."""
    async with open_house(header_timeout_s=1.0, close_timeout_s=0.2) as house:
        ended: list[int] = []
        all_are_in = trio.Event()  # what is sent before would come in one piece

        async def drip() -> None:
            raw = await house.connect()
            async with raw.stream:
                await all_are_in.wait()
                await raw.send(b"GET /v1/open HTTP/1.1\r\nhost: x\r\n")
                try:
                    while not raw.stream.socket.is_readable():
                        await raw.send(b"a: b\r\n")
                        await trio.sleep(0.1)
                except trio.BrokenResourceError:
                    pass
                ended.append((await raw.response()).status)

        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(drip)
            await until(lambda: house.open_connections == 200)
            all_are_in.set()
            with trio.fail_after(1):
                assert (await house.ask("GET", "/v1/open")).status == 200
        assert ended == [408] * 200
        await until(lambda: house.open_connections == 0)


class LookAsItComes(trio.abc.Instrument):
    """Looks at a connection after its bytes were found, and before the task that takes them has its turn."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._found = False
        self.looked = 0

    def after_io_wait(self, timeout: float) -> None:
        [connection] = self._house.gateway._listener._open
        self._found = bool(select.select([connection._sock], [], [], 0)[0])

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._found:
            self._found = False
            self.looked += 1
            [connection] = self._house.gateway._listener._open
            connection.look(math.inf)
            trio.lowlevel.remove_instrument(self)


async def test_a_head_whose_drop_comes_as_its_time_is_over() -> None:
    """Nobody waits for what is to be interrupted then; it must end all the same."""
    async with open_house(header_timeout_s=600.0, close_timeout_s=0.2) as house:
        raw = await house.connect()
        async with raw.stream:
            await raw.send(b"GET /v1/open HTTP/1.1\r\nhost: x\r\n")
            await until(lambda: house.open_connections == 1)
            await trio.testing.wait_all_tasks_blocked()
            look = LookAsItComes(house)
            trio.lowlevel.add_instrument(look)
            await raw.send(b"a: b\r\n")
            with trio.fail_after(5):
                assert (await raw.response()).status == 408
            assert look.looked == 1


async def test_bodies_in_drops() -> None:
    async with open_house(body_timeout_s=0.5, close_timeout_s=0.2) as house:

        async def drip() -> None:
            raw = await house.connect()
            async with raw.stream:
                await raw.request(
                    "POST", "/v1/notes", {"content-type": "application/json", "content-length": "1000"}
                )
                while not raw.stream.socket.is_readable():
                    await raw.send(b" ")
                    await trio.sleep(0.05)
                assert (await raw.response()).status == 408

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(drip)
        await until(lambda: house.open_connections == 0)


async def test_storms_of_connections(start_server: StartServer) -> None:
    server = start_server(LOG__LEVEL="warning")

    async def one(number: int) -> None:
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        if number % 3:
            await stream.send_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"[: number % 40])
        if number % 2:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await trio.aclose_forcefully(stream)

    for _ in range(20):
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(one, number)

    async def is_empty() -> bool:
        return await server.metric("secureconnect_gateway_connections_open") == 1  # the one that asks

    await until(is_empty)


async def test_a_server_without_descriptors_recovers(start_server: StartServer) -> None:
    """It accepts no more for a while, says so now and then, and serves again when some have left."""
    server = start_server()
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (60, 60))
    held = [await trio.open_tcp_stream("127.0.0.1", server.port) for _ in range(80)]
    await until(lambda: any(line["msg"] == "accept_failed" for line in server.logs()))
    for stream in held:
        await trio.aclose_forcefully(stream)
    raw = Raw(await trio.open_tcp_stream("127.0.0.1", server.port))
    async with raw.stream:
        await raw.request("GET", "/livez")
        assert (await raw.response()).status == 200
    refusals = sum(line["msg"] == "accept_failed" for line in server.logs())
    assert refusals < 100, "one in a tenth of a second, not one in each turn of the loop"


async def test_thousands_who_do_nothing(start_server: StartServer) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < IDLE + SPARE_DESCRIPTORS:
        pytest.skip(f"a process may have {hard} descriptors here, and this test needs {IDLE}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    server = start_server(LOG__LEVEL="warning")
    before_kb = resident_kb(server.pid)
    idle: list[trio.SocketStream] = []

    async def connect() -> None:
        while len(idle) < IDLE:
            stream = await trio.open_tcp_stream("127.0.0.1", server.port)
            idle.append(stream)
            raw = Raw(stream)
            await raw.request("GET", "/livez")
            assert (await raw.response()).status == 200

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(connect)
    assert await server.metric("secureconnect_gateway_connections_open") > IDLE
    assert resident_kb(server.pid) - before_kb < IDLE * KB_EACH
    last = Raw(idle[0])
    with trio.fail_after(1):
        await last.request("GET", "/livez")
        assert (await last.response()).status == 200
    for stream in idle:
        stream.socket.close()


def resident_kb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])
