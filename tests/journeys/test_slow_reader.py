"""A client that cannot keep up is sent away, comes back, and has missed nothing."""

from __future__ import annotations

import trio

from journeys.log import Log
from kit.fixtures import StartServer
from kit.people import direct, next_event, people
from kit.toll import toll_before
from secureconnect.client import Client

BIG = "x" * 9_000


async def test_a_slow_reader_comes_back_without_loss(start_server: StartServer) -> None:
    server = start_server(
        GATEWAY__WS_OUTBOX_BYTES="131072", CHAT__RESUME_CHANGES="100000", CHAT__RESUME_TOTAL="1000000"
    )
    async with (
        people(server.url, "ann", "bob") as (ann, bob),
        toll_before(server.url) as toll,
        Client(toll.url, bob.credentials) as slow,
        slow.stream() as stream,
        ann.stream(events=0) as at_ann,
    ):
        room = await direct(ann, bob)
        start = (await ann.conversation(room))["change"]
        await next_event(stream, "online")
        log = Log(stream, room)
        toll.stall()
        with trio.fail_after(30):
            while await server.metric("secureconnect_chat_sockets_dropped_total") == 0:
                for entry in [at_ann.post(room, BIG) for _ in range(100)]:
                    await at_ann.stored(entry)
        toll.flow()
        head = (await ann.conversation(room))["change"]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.follow)
            with trio.fail_after(20):
                await log.reaches(head)
            nursery.cancel_scope.cancel()
    assert log.offline
    assert log.reread == 0
    assert [change for change in log.changes if change > start] == list(range(start + 1, head + 1))


async def test_who_missed_too_much_reads_the_conversation_again(start_server: StartServer) -> None:
    server = start_server(CHAT__RESUME_CHANGES="20")
    async with (
        people(server.url, "ann", "bob") as (ann, bob),
        toll_before(server.url) as toll,
        Client(toll.url, bob.credentials) as away,
        away.stream() as stream,
        ann.stream(events=0) as at_ann,
    ):
        room = await direct(ann, bob)
        await next_event(stream, "online")  # what was said before would be history
        await at_ann.send(room, "seen")
        await next_event(stream, "chat")
        toll.refuses = True
        toll.cut()
        await next_event(stream, "offline")
        for number in range(30):
            await at_ann.send(room, str(number))
        toll.refuses = False
        again = await next_event(stream, "reread", within_s=20)
        assert [one["content"] for one in again["messages"]] == ["seen", *map(str, range(30))]
        await next_event(stream, "online")
        await at_ann.send(room, "live")
        assert (await next_event(stream, "chat"))["content"] == "live"
