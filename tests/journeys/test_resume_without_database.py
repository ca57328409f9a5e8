"""A node dies while Postgres is away: its clients go on at the other, with what that holds in memory."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import trio

from kit.cluster import Cluster, Member, cluster
from kit.http import plain
from kit.people import group, next_event, people
from kit.postgres import PostgresServer
from kit.store import ObjectStore
from kit.wait import until
from secureconnect.client import ApiError, Client, Event, Stream

WITHIN_S = 15.0


async def take(stream: Stream, into: list[Event]) -> None:
    async for event in stream:
        into.append(event)


def count(events: list[Event], kind: str) -> int:
    return sum(each["type"] == kind for each in events)


def shown(events: list[Event], text: str) -> bool:
    """Whether it came, and not stored yet."""
    return any(event.get("content") == text and event.get("provisional") for event in events)


async def away(nodes: Cluster, way: str) -> None:
    if way == "freeze":
        nodes.freeze("postgres")
    else:
        await nodes.kill("postgres")
    await nodes.all_see("postgres", "down")


async def back(nodes: Cluster, way: str) -> None:
    if way == "freeze":
        nodes.thaw("postgres")
    else:
        await nodes.restart("postgres")


async def remembered(node: Member) -> float:
    """Bytes."""
    return await node.server.metric("secureconnect_chat_recent_bytes")


async def sockets(node: Member) -> int:
    return int(await node.server.metric("websocket_connections_active"))


async def remembers_more(node: Member, size: float) -> bool:
    return await remembered(node) > size


async def history(client: Client, room: str) -> tuple[list[str], str | None]:
    """Contents, and since when they may be out of date."""
    said = (await client.reply("GET", f"/v1/messages?conversation_id={room}&limit=100")).json()
    return [each["content"] for each in said["data"]["messages"]], said["meta"].get("as_of")


async def read_at(node: Member, client: Client, room: str) -> None:
    """Its history, at this node."""
    headers = {"Authorization": f"Bearer {client.me.access_token}"}
    async with plain(base_url=node.server.url, headers=headers) as http:
        answer = await http.get("/v1/messages", params={"conversation_id": room, "limit": 100})
    assert answer.is_success


async def test_clients_of_a_dead_node_go_on_at_the_other(
    tmp_path: Path, own_postgres: PostgresServer, shared_store: ObjectStore
) -> None:
    """Once with a Postgres that is frozen, once with one that is killed."""
    await trio.to_thread.run_sync(own_postgres.start)
    async with (
        cluster(tmp_path, own_postgres, shared_store) as nodes,
        people(nodes.url, "ann", "bob") as (ann, bob),
    ):
        room = await group(ann, bob)
        start = (await bob.conversation(room))["change"]
        async with ann.stream() as anns, bob.stream() as bobs, trio.open_nursery() as nursery:
            at_ann: list[Event] = []
            at_bob: list[Event] = []
            for stream, events in ((anns, at_ann), (bobs, at_bob)):
                await next_event(stream, "online")
                nursery.start_soon(take, stream, events)
            texts: list[str] = []
            for way in ("freeze", "kill"):
                texts.append(f"before {way}")
                held = [(node, await remembered(node)) for node in nodes.nodes]
                await anns.send(room, texts[-1])
                for node, size in held:
                    await until(partial(remembers_more, node, size), WITHIN_S)
                for (
                    node
                ) in nodes.nodes:  # one that was started meanwhile knows the latest alone, until it is asked
                    await read_at(node, bob, room)
                a, b = nodes.nodes
                dead = a if await sockets(a) else b
                resumed = count(at_ann + at_bob, "resuming") + await sockets(dead)
                await away(nodes, way)
                await dead.kill()
                # what is said before bob is there he is shown once it is stored
                await until(lambda wanted=resumed: count(at_ann + at_bob, "resuming") >= wanted, WITHIN_S)  # type: ignore[misc]
                texts.append(f"during {way}")
                entry = anns.post(room, texts[-1])
                await until(lambda: shown(at_bob, texts[-1]), WITHIN_S)
                with pytest.raises(ApiError):
                    await ann.conversations()
                told, as_of = await history(bob, room)
                assert told == texts[:-1]
                assert as_of is not None
                await back(nodes, way)
                await dead.start()
                await nodes.is_whole()
                with trio.fail_after(WITHIN_S):
                    await anns.stored(entry)
                assert await history(bob, room) == (texts, None)
            head = (await bob.conversation(room))["change"]
            await until(lambda: bobs.positions.changes.get(room) == head, WITHIN_S)
            await until(lambda: any(each.get("change") == head for each in at_bob), WITHIN_S)
            changes = [
                each["change"]
                for each in at_bob
                if each.get("conversation_id") == room and each.get("change")
            ]
            assert changes == list(range(start + 1, head + 1))
            assert not [each for each in at_bob if each["type"] in ("reread", "left")]
            nursery.cancel_scope.cancel()
