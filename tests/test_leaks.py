"""Clients that leave in the middle of things leave nothing behind: no task, no descriptor, no memory."""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from kit.fixtures import StartServer
from kit.people import direct, people
from kit.server import Server
from kit.wait import until
from secureconnect.client import Client
from secureconnect.client.wire import connect
from secureconnect.identity import new_id

REQUESTS = 5_000
SOCKETS = 500
WARM_UP_SHARE = 5  # the first fifth fills caches and pools, the rest must cost nothing
AT_ONCE = 20
BATCH = 250  # left to the server to clear away at a time; how far it falls behind is its speed, not a leak
SEED = 7
GROWTH_BYTES = 12 * 1024 * 1024
SPARE_TASKS = 5
SETTLE_S = 15


class Footprint:
    """What the process holds."""

    def __init__(self, descriptors: int, tasks: int, resident_bytes: int) -> None:
        self.descriptors = descriptors
        self.tasks = tasks
        self.resident_bytes = resident_bytes

    @classmethod
    async def of(cls, server: Server) -> Footprint:
        process = Path("/proc") / str(server.pid)
        pages = int((process / "statm").read_text().split()[1])
        tasks = int(await server.metric("secureconnect_tasks"))
        return cls(len(list((process / "fd").iterdir())), tasks, pages * 4096)


async def settled(server: Server, idle: Footprint) -> Footprint:
    """Once tasks and descriptors are back to what they were."""

    async def is_back() -> bool:
        now = await Footprint.of(server)
        return now.tasks <= idle.tasks + SPARE_TASKS and now.descriptors <= idle.descriptors

    await until(is_back, SETTLE_S)
    return await Footprint.of(server)


async def counted_anew(server: Server) -> None:
    """Until the server has counted its tasks: four times a second, the first one too early."""
    looks = await server.metric("secureconnect_loop_lag_seconds_count")

    async def has_looked_twice() -> bool:
        return await server.metric("secureconnect_loop_lag_seconds_count") >= looks + 2

    await until(has_looked_twice, SETTLE_S)


async def leaves_no_trace(server: Server, act: Callable[[int], Awaitable[None]], times: int) -> None:
    """`act` many times, some at once; what the process holds is compared after a warm-up and at the end."""
    await counted_anew(server)
    idle = await Footprint.of(server)
    warmed_up = times // WARM_UP_SHARE
    before = await repeat(server, idle, act, range(warmed_up))
    after = await repeat(server, idle, act, range(warmed_up, times))
    assert after.resident_bytes <= before.resident_bytes + GROWTH_BYTES


async def repeat(
    server: Server, idle: Footprint, act: Callable[[int], Awaitable[None]], numbers: range
) -> Footprint:
    """Returns what the process holds after the last of them."""
    settled_to = idle
    for start in range(0, len(numbers), BATCH):
        await at_once(act, numbers[start : start + BATCH])
        settled_to = await settled(server, idle)
    return settled_to


async def at_once(act: Callable[[int], Awaitable[None]], batch: range) -> None:
    numbers = iter(batch)

    async def worker() -> None:
        for number in numbers:
            await act(number)

    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(worker)


def request(method: str, path: str, token: str, body: object = None) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


async def test_cancelled_requests(start_server: StartServer) -> None:
    server = start_server(LOG__LEVEL="warning")
    chance = random.Random(SEED)
    async with people(server.url, "ann", "bob") as (ann, bob):
        room = await direct(ann, bob)
        token = ann.me.access_token

        async def leave_early(number: int) -> None:
            message = {"conversation_id": room, "content": "x" * 100, "client_message_id": new_id()}
            wanted = (
                request("GET", "/v1/conversations", token),
                request("POST", "/v1/messages", token, message),
                request("POST", "/v1/auth/login", token, {"username": ann.me.username, "password": "wrong"}),
                request("GET", "/v1/auth/profile", token),
            )[number % 4]
            part = wanted if chance.random() < 0.7 else wanted[: chance.randrange(1, len(wanted))]
            stream = await trio.open_tcp_stream("127.0.0.1", server.port)
            await stream.send_all(part)
            with trio.move_on_after(chance.uniform(0, 0.004)):
                await stream.receive_some()
            await trio.aclose_forcefully(stream)

        with trio.fail_after(60):
            await leaves_no_trace(server, leave_early, REQUESTS)
        assert (await ann.profile())["user_id"] == ann.me.user_id


async def test_dropped_sockets(start_server: StartServer) -> None:
    server = start_server(LOG__LEVEL="warning")
    async with people(server.url, "ann", "bob") as (ann, bob):
        await direct(ann, bob)

        async def drop(number: int) -> None:
            await drop_socket(ann, resumes=number % 2 == 0)

        with trio.fail_after(60):
            await leaves_no_trace(server, drop, SOCKETS)
        assert await server.metric("websocket_connections_active") == 0


async def drop_socket(client: Client, *, resumes: bool) -> None:
    """Open a socket, hear the hello, and be gone without a word."""
    url = f"ws{client.server.removeprefix('http')}/v1/ws/chat?resume={int(resumes)}"
    headers = [(b"authorization", f"Bearer {client.me.access_token}".encode())]
    async with connect(url, headers) as wire:
        await wire.receive()
        await wire.cut()
