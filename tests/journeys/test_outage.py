"""The database of a real server goes away: people write on, even the process is killed, and all is kept."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import trio

from kit.fixtures import StartServer
from kit.people import group, next_event, people
from kit.server import PROGRAM
from kit.wait import until
from secureconnect.chat.append import Draft
from secureconnect.chat.pledges import TOPIC, Pledge, encode
from secureconnect.client import Client, Event, Stream
from secureconnect.clock import now_us
from secureconnect.config import JournalConfig
from secureconnect.deps.journal import FileJournal
from secureconnect.deps.policy import JOURNAL
from secureconnect.identity import ConversationId, MessageId, UserId, new_id

Metric = Callable[[str], Awaitable[float]]

AWAY = str(Path(__file__).parent.parent / "kit" / "launchers" / "database_away.py")


async def take(stream: Stream, into: list[Event]) -> None:
    async for event in stream:
        into.append(event)


async def contents(client: Client, room: str) -> list[str]:
    return [each["content"] for each in await client.history(room, 10_000)]


def count(events: list[Event], kind: str, is_provisional: bool = False) -> int:
    return sum(event["type"] == kind and bool(event.get("provisional")) == is_provisional for event in events)


async def holds(metric: Metric, records: int) -> bool:
    return await metric("secureconnect_journal_records") == records


async def test_people_write_on_and_a_killed_server_forgets_nothing(start_server: StartServer) -> None:
    server = start_server([AWAY])
    async with people(server.url, "ann", "bob") as (ann, bob):
        room = await group(ann, bob)
        async with ann.stream() as anns, bob.stream() as bobs, trio.open_nursery() as nursery:
            at_ann: list[Event] = []
            at_bob: list[Event] = []
            for stream, events in ((anns, at_ann), (bobs, at_bob)):
                await next_event(stream, "online")
                nursery.start_soon(take, stream, events)
            await anns.send(room, "before")
            await until(lambda: count(at_bob, "chat") == 1)

            server.signal(signal.SIGUSR1)
            sent = [anns.post(room, str(number)) for number in range(200)]
            await until(lambda: count(at_bob, "chat", True) > 0)
            assert all(entry.answer is None for entry in sent[-100:])
            body = {"conversation_id": room, "content": "over HTTP", "client_message_id": "over-http"}
            await until(lambda: count(at_bob, "chat", True) + count(at_bob, "chat") == 201)
            assert (await bob.reply("POST", "/v1/messages", body)).status_code == 202

            await trio.to_thread.run_sync(server.kill)
            shown = count(at_bob, "chat", True)
            await trio.to_thread.run_sync(server.restart, PROGRAM)
            for entry in sent:
                assert (await anns.stored(entry))["seq"]
            await anns.send(room, "after")
            await until(lambda: count(at_bob, "chat") == 203)
            assert count(at_bob, "message_withdrawn") >= shown - 1, "others' went at the reconnect"
            nursery.cancel_scope.cancel()
        expected = ["before", *map(str, range(200)), "over HTTP", "after"]
        assert await contents(bob, room) == expected
        assert [event["content"] for event in at_bob if event["type"] == "chat" and event["seq"]] == expected
        again = await bob.reply("POST", "/v1/messages", body)
        assert (again.status_code, again.json()["data"]["seq"]) == (200, 202)


async def test_it_comes_back_by_itself(start_server: StartServer) -> None:
    server = start_server([AWAY])
    async with people(server.url, "ann", "bob") as (ann, bob):
        room = await group(ann, bob)
        async with ann.stream(events=0) as anns:
            for outage in range(3):
                await anns.send(room, f"before {outage}")
                server.signal(signal.SIGUSR1)
                assert await server.metric("secureconnect_journal_records") == 0
                waiting = [anns.post(room, f"{outage} {number}") for number in range(20)]
                await until(partial(holds, server.metric, 20))
                server.signal(signal.SIGUSR2)
                for entry in waiting:
                    assert (await anns.stored(entry))["type"] == "stored"
                await until(partial(holds, server.metric, 0))
        expected = [
            text
            for outage in range(3)
            for text in (f"before {outage}", *(f"{outage} {number}" for number in range(20)))
        ]
        assert await contents(bob, room) == expected
    said = [line["msg"] for line in server.logs() if line["msg"].startswith("journal_")]
    assert said == ["journal_began", "journal_replayed"] * 3


async def test_a_journal_found_at_the_start_is_delivered(start_server: StartServer) -> None:
    server = start_server()
    async with people(server.url, "ann", "bob") as (ann, bob):
        room = await group(ann, bob)
        async with bob.stream() as bobs:
            await next_event(bobs, "online")
            await trio.to_thread.run_sync(server.terminate)
            pledges = [Pledge(draft(ann.me.user_id, room, str(number)), now_us()) for number in range(100)]
            async with FileJournal.open(server.data_dir / JOURNAL, JournalConfig()) as journal:
                await journal.append(TOPIC, [encode(pledge) for pledge in pledges])
            await trio.to_thread.run_sync(server.start)
            for pledge in pledges:
                key = pledge.draft.client_message_id
                event = await next_event(bobs, "chat", within_s=20, client_message_id=key)
                assert event["message_id"] == pledge.draft.message_id
        assert await contents(bob, room) == list(map(str, range(100)))


def draft(sender: str, room: str, text: str) -> Draft:
    ids = MessageId(new_id()), ConversationId(room), UserId(sender), new_id()
    return Draft(*ids, "text", text, False, None, "[]", None)
