"""Keeping order on running servers: from the command line, over HTTP, and when half of it is away."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
import trio

from kit.cluster import Cluster, cluster
from kit.command import beside
from kit.doors import ENDED_S, end_of, socket, two_doors
from kit.fixtures import StartServer
from kit.people import PASSWORD, direct, next_event, people, unique
from kit.postgres import PostgresServer
from kit.server import Server
from kit.store import ObjectStore
from kit.wait import until
from secureconnect.client import ApiError, Client, Stream, StreamEnded
from secureconnect.client.wire import Lost, Wire
from secureconnect.edge import Close
from secureconnect.identity import new_id

TALK_S = 30.0


async def admin_of(server: Server, client: Client) -> None:
    name = unique("root")
    made = ("user", "create", name, "--email", f"{name}@example.org", "--admin", "--password-stdin")
    await beside(server, *made, typed=f"{PASSWORD}\n")
    await client.login(name, PASSWORD)


async def is_thrown_out(stream: Stream) -> None:
    with trio.fail_after(ENDED_S), pytest.raises(StreamEnded) as ended:
        async for _ in stream:
            pass
    assert ended.value.code == Close.UNAUTHENTICATED


async def say(wire: Wire, room: str) -> None:
    name = new_id()
    chat = {"ref": name, "conversation_id": room, "client_message_id": name, "content": name}
    await wire.send(json.dumps({"type": "chat"} | chat))


async def is_known(wire: Wire, room: str) -> None:
    """The node has stored something there: it takes what is said while the database is away."""
    await say(wire, room)
    with trio.fail_after(TALK_S):
        while json.loads(await wire.receive())["type"] != "ack":
            pass


async def talk(wire: Wire, room: str, acked: set[str]) -> None:
    """Five messages in flight, until the server closes the socket. acked: whose, by client_message_id."""
    try:
        with trio.fail_after(TALK_S):
            for _ in range(5):
                await say(wire, room)
            while True:
                heard = json.loads(await wire.receive())
                if heard["type"] == "ack":
                    acked.add(heard["client_message_id"])
                    await say(wire, room)
    except Lost as lost:
        code = lost.code
    assert code == Close.UNAUTHENTICATED


def has_many(acked: set[str]) -> bool:
    return len(acked) > 10


async def is_kept(reader: Client, room: str, acked: set[str]) -> bool:
    """Whether what was acked is in the history, whose numbers have no gap."""
    history = await reader.history(room, 10_000)
    assert [each["seq"] for each in history] == list(range(1, len(history) + 1))
    return acked <= {each["client_message_id"] for each in history}


async def is_kept_out(url: str, username: str) -> None:
    async with Client(url) as again:
        with pytest.raises(ApiError) as refusal:
            await again.login(username, PASSWORD)
    assert (refusal.value.status, refusal.value.code) == (403, "ACCOUNT_BANNED")


async def test_an_administrator_keeps_order(start_server: StartServer) -> None:
    server = start_server()
    async with people(server.url, "ann", "bob") as (ann, bob), Client(server.url) as admin:
        await admin_of(server, admin)
        with pytest.raises(ApiError) as refusal:  # before anything of the request is judged
            await ann.call("POST", "/v1/admin/announcements", {"text": 1})
        assert (refusal.value.status, refusal.value.code) == (403, "FORBIDDEN")
        room = await direct(ann, bob)
        async with ann.stream() as at_ann, bob.stream() as at_bob:
            await next_event(at_bob, "online")
            said = {"text": "maintenance at noon"}
            made = await admin.call("POST", "/v1/admin/announcements", said)
            for stream in (at_ann, at_bob):
                heard = await next_event(stream, "announcement")
                assert {key: heard[key] for key in made} == made
            sent = await at_bob.send(room, "buy this")
            about = {"message_id": sent["message_id"], "reason": "spam"}
            await ann.call("POST", "/v1/reports", about)
            (report,) = (await admin.call("GET", "/v1/admin/reports"))["reports"]
            assert (report["content"], report["user_id"]) == ("buy this", bob.me.user_id)
            with pytest.raises(ApiError) as refusal:  # not a message of theirs
                await admin.call("POST", "/v1/reports", about)
            assert refusal.value.status == 404
            await admin.call("POST", f"/v1/admin/users/{bob.me.user_id}/ban", {"reason": "spam"})
            await is_thrown_out(at_bob)
        await is_kept_out(server.url, bob.me.username)
        name = bob.me.username
        assert await ann.search_users(name) == []
        both = (await ann.conversation(room))["participants"]
        assert name in [each["username"] for each in both]
        await ann.send_message(room, "read this when you are back", "later")
        await admin.call("POST", f"/v1/admin/users/{bob.me.user_id}/unban")
        await bob.login(name, PASSWORD)
        told = [each["content"] for each in await bob.history(room, 10)]
        assert told == ["buy this", "read this when you are back"]
        assert [each["username"] for each in await ann.search_users(name)] == [name]
        async with bob.stream() as at_bob:
            await next_event(at_bob, "online")
            await beside(server, "user", "ban", name, "--hours", "1")
            await is_thrown_out(at_bob)
        await is_kept_out(server.url, name)
        stats = await admin.call("GET", "/v1/admin/stats")
        assert (stats["banned"], stats["messages"], stats["open_reports"]) == (1, 2, 1)
        health = await admin.call("GET", "/v1/admin/health")
        assert {each["name"] for each in health["dependencies"]} >= {"postgres", "redis", "minio"}
        places = [each["place"] for each in health["dependencies"]]
        assert all(places)
        assert not [place for place in places if "@" in place or "secret" in place]
        assert [each["status"] for each in health["dependencies"]] == ["up"] * len(places)
        assert health["modules"]["chat"] == "running"
        assert len(health["nodes"]) == 1
        lines = (await admin.call("GET", "/v1/admin/audit?action=admin:user:banned"))["entries"]
        assert [each["actor_id"] for each in lines] == [None, admin.me.user_id]

        async def is_noted() -> bool:
            denials = await admin.call("GET", "/v1/admin/audit", query={"action": "denied:admin"})
            subjects = {(each["actor_id"], each["subject"]) for each in denials["entries"]}
            return subjects == {(ann.me.user_id, "/v1/admin/announcements")}

        await until(is_noted)


async def test_a_ban_in_mid_conversation(start_server: StartServer) -> None:
    here, there = two_doors(start_server)
    async with people(here.url, "ann", "bob") as (ann, bob), Client(here.url) as admin:
        await admin_of(here, admin)
        name, room = bob.me.username, await direct(ann, bob)
        path = f"/v1/admin/users/{bob.me.user_id}"
        acked: set[str] = set()
        async with socket(here, bob) as one, socket(there, bob) as other, trio.open_nursery() as nursery:
            nursery.start_soon(talk, one, room, acked)
            nursery.start_soon(talk, other, room, acked)
            await until(partial(has_many, acked), TALK_S)
            await admin.call("POST", f"{path}/ban", {"reason": "spam"})
            nursery.cancel_scope.deadline = trio.current_time() + ENDED_S
        assert not nursery.cancel_scope.cancelled_caught
        assert await is_kept(ann, room, acked)
        for server in (here, there):
            await is_kept_out(server.url, name)
        await admin.call("POST", f"{path}/unban")
        await bob.login(name, PASSWORD)
        async with socket(there, bob) as wire:
            until_s = time.time() + 1.5
            await admin.call("POST", f"{path}/ban", {"until": iso(until_s)})
            assert await end_of(wire) == Close.UNAUTHENTICATED
        await is_kept_out(there.url, name)
        await until(partial(may_come, there.url, name))
        assert time.time() >= until_s
        with pytest.raises(ApiError, match="TOKEN_REVOKED"):
            await bob.profile()


async def may_come(url: str, username: str) -> bool:
    async with Client(url) as client:
        try:
            await client.login(username, PASSWORD)
        except ApiError:
            return False
    return True


def iso(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat()


async def test_two_nodes_with_and_without_what_they_stand_on(
    tmp_path: Path, own_postgres: PostgresServer, shared_store: ObjectStore
) -> None:
    """The socket is asked itself: a client that is thrown out would try for a fresh token as long as that
    may be had later."""
    await trio.to_thread.run_sync(own_postgres.start)
    async with cluster(tmp_path, own_postgres, shared_store, balancer=None) as nodes:
        a, b = nodes.nodes
        async with people(b.url, "ann", "bob", "cid") as others, Client(a.url) as admin:
            await admin_of(a.server, admin)
            for away, other in zip((None, "redis", "postgres"), others, strict=True):
                room, acked = await direct(admin, other), set[str]()
                async with socket(b.server, other) as wire, trio.open_nursery() as nursery:
                    await is_known(wire, room)
                    if away is not None:
                        await nodes.kill(away)
                        await nodes.all_see(away, "down")
                    if away != "postgres":
                        await admin.call("POST", "/v1/admin/announcements", {"text": f"without {away}"})
                        while heard(await wire.receive()) != f"without {away}":
                            pass
                    nursery.start_soon(talk, wire, room, acked)
                    await until(partial(has_many, acked), TALK_S)
                    path = f"/v1/admin/users/{other.me.user_id}/ban"
                    assert (await admin.call("POST", path, {}))["status"] == "banned"
                    nursery.cancel_scope.deadline = trio.current_time() + ENDED_S
                assert not nursery.cancel_scope.cancelled_caught
                if away is not None:
                    await nodes.restart(away)
                    await nodes.is_whole()
                await until(partial(is_stored, nodes, other), ENDED_S)
                await until(partial(is_kept, admin, room, acked))
                await is_kept_out(b.url, other.me.username)


def heard(data: str | bytes) -> object:
    """The text of an announcement."""
    return json.loads(data).get("text")


async def is_stored(nodes: Cluster, other: Client) -> bool:
    query = f"SELECT COUNT(*) FROM bans WHERE user_id = '{other.me.user_id}'"
    return int(await nodes.ask(query)) == 1
