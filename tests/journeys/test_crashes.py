"""The process dies, or a room of it: what was acknowledged is there, and nobody sees a gap or a duplicate."""

from __future__ import annotations

import signal
from pathlib import Path

import trio

from journeys.log import Log, Tally
from kit.fixtures import StartServer
from kit.people import direct, group, next_event, people
from kit.server import PROGRAM, Server
from secureconnect.client import Client
from secureconnect.identity import new_id

LAUNCHERS = Path(__file__).parent.parent / "kit" / "launchers"


async def send_on(client: Client, room: str, acknowledged: list[str], tally: Tally) -> None:
    """Send for ever."""
    async with client.stream(events=0) as stream:
        while True:
            acknowledged.append((await stream.send(room, "x" * 200))["client_message_id"])
            tally.add()


async def test_kill_in_the_middle_of_sending(start_server: StartServer) -> None:
    server = start_server()
    acknowledged: list[str] = []
    tally = Tally()
    async with people(server.url, "ann", "bob", "cid", "dan") as (reader, *senders):
        room = await group(reader, *senders)
        start = (await reader.conversation(room))["change"]
        async with reader.stream() as at_reader, trio.open_nursery() as reading:
            await next_event(at_reader, "online")
            log = Log(at_reader, room)
            reading.start_soon(log.follow)
            with trio.fail_after(40):
                async with trio.open_nursery() as sending:
                    for sender in senders:
                        sending.start_soon(send_on, sender, room, acknowledged, tally)
                    for _ in range(2):
                        await tally.reaches(tally.count + 150)
                        await trio.to_thread.run_sync(server.kill)
                        await trio.to_thread.run_sync(server.start)
                    await tally.reaches(tally.count + 150)
                    sending.cancel_scope.cancel()
                head = await settled_head(reader, room)
                await log.reaches(head)
            reading.cancel_scope.cancel()
        told = await reader.history(room, 10_000)
    keys = [one["client_message_id"] for one in told]
    assert len(keys) == len(set(keys))
    assert set(acknowledged) <= set(keys)
    assert [one["seq"] for one in told] == list(range(1, len(told) + 1))
    assert log.changes == list(range(start + 1, start + 1 + len(told)))
    assert log.keys == keys


async def settled_head(client: Client, room: str) -> int:
    """The head of the conversation, after a message of our own: what was sent before it is in."""
    await client.send_message(room, "the last one", new_id())
    return int((await client.conversation(room))["change"])


async def test_death_after_commit_and_before_the_ack(start_server: StartServer) -> None:
    server = start_server(program=(str(LAUNCHERS / "crash_after_commit.py"), "3"))
    async with people(server.url, "ann", "bob") as (ann, bob):
        room = await direct(ann, bob)
        async with ann.stream() as at_ann, bob.stream() as at_bob, trio.open_nursery() as nursery:
            await next_event(at_bob, "online")  # what was said before would be history
            log = Log(at_bob, room)
            nursery.start_soon(log.follow)
            await next_event(at_ann, "online")
            for text in ("one", "two"):
                await at_ann.send(room, text)
            entry = at_ann.post(room, "three")
            assert await trio.to_thread.run_sync(server.wait) == 70
            assert entry.answer is None
            await trio.to_thread.run_sync(server.restart, PROGRAM)
            with trio.fail_after(20):
                stored = await at_ann.stored(entry)
                assert stored["seq"] == 3
                await at_ann.send(room, "four")
                await log.reaches((await ann.conversation(room))["change"])
            nursery.cancel_scope.cancel()
        assert [one["content"] for one in await ann.history(room, 10)] == ["one", "two", "three", "four"]
        assert log.keys.count(entry.client_message_id) == 1
        assert len(log.keys) == 4


async def test_a_crashed_room_comes_back_alone(start_server: StartServer) -> None:
    server = start_server(program=(str(LAUNCHERS / "crash_room.py"),))
    server.expect_error("room_crashed")
    async with people(server.url, "ann", "bob") as (ann, bob):
        room = await direct(ann, bob)
        async with ann.stream() as at_ann, bob.stream() as at_bob:
            await next_event(at_ann, "online")
            await next_event(at_bob, "online")
            await at_ann.send(room, "before")
            server.signal(signal.SIGUSR1)
            for stream in (at_ann, at_bob):
                assert "1012" in (await next_event(stream, "offline"))["reason"]
            assert (await ann.profile())["user_id"] == ann.me.user_id
            entry = at_ann.post(room, "after")
            with trio.fail_after(15):
                assert (await at_ann.stored(entry))["seq"] == 2
            assert (await next_event(at_bob, "chat", within_s=15))["content"] == "after"
    assert restarts(server) == 1


def restarts(server: Server) -> int:
    return sum(line["msg"] == "room_crashed" and line["room"] == "chat" for line in server.logs())
