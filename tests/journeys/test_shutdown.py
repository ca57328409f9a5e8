"""The end of a server: orderly, and in time, whatever a client does."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from kit.fixtures import StartServer
from kit.people import direct, next_event, people
from kit.toll import toll_before
from secureconnect.client import Client

BIG = "x" * 9_000


@asynccontextmanager
async def one_who_never_reads(reader: Client, writer: Client) -> AsyncIterator[None]:
    """`reader` has a socket open whose every buffer on the way is full."""
    room = await direct(writer, reader)
    async with (
        toll_before(reader.server) as toll,
        Client(toll.url, reader.credentials) as stuck,
        stuck.stream() as stream,
        writer.stream(events=0) as at_writer,
    ):
        await next_event(stream, "online")
        toll.stall()
        for _ in range(300):
            await at_writer.send(room, BIG)
        yield


async def test_the_drain_ends_in_time_with_a_client_that_never_reads(start_server: StartServer) -> None:
    server = start_server(GATEWAY__DRAIN_S="1")
    async with people(server.url, "ann", "bob") as (ann, bob), one_who_never_reads(bob, ann):
        with trio.fail_after(1 + 5):
            assert await trio.to_thread.run_sync(server.terminate) == 0


async def test_open_sockets_are_told_and_come_back(start_server: StartServer) -> None:
    server = start_server()
    async with people(server.url, "ann") as (ann,), ann.stream() as stream:
        await next_event(stream, "online")
        await trio.to_thread.run_sync(server.restart)
        assert "1012" in (await next_event(stream, "offline"))["reason"]
        await next_event(stream, "online", within_s=15)


async def test_a_second_signal_ends_it_at_once(start_server: StartServer) -> None:
    server = start_server(GATEWAY__DRAIN_S="60", GATEWAY__DRAIN_NOTICE_S="60")
    server.signal(signal.SIGTERM)
    server.wait_for_line('"msg":"stopping"', 5)
    server.signal(signal.SIGTERM)
    assert await trio.to_thread.run_sync(server.wait, 2) == 1
