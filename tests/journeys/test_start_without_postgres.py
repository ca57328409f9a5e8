"""A node that has run before starts without Postgres: what it can do then, and that it is whole by itself."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from kit.cluster import Cluster, Member, cluster
from kit.http import plain
from kit.people import direct, people
from kit.postgres import PostgresServer
from kit.store import ObjectStore
from kit.wait import until
from secureconnect.auth.kept import SNAPSHOT
from secureconnect.client import ApiError, Client
from secureconnect.client.wire import Wire, connect

WITHIN_S = 20.0


async def ask(node: Member, method: str, path: str, token: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with plain(base_url=node.url, timeout=WITHIN_S) as http:
        return await http.request(method, path, headers=headers)


async def profile(node: Member, token: str) -> tuple[int, str]:
    """How it is refused."""
    answer = await ask(node, "GET", "/v1/auth/profile", token)
    return answer.status_code, answer.json()["error"]["code"]


async def is_kept(node: Member, session: str) -> None:
    path = trio.Path(node.server.data_dir / SNAPSHOT)

    async def is_there() -> bool:
        return await path.exists() and session in await path.read_text()

    await until(is_there)


def said(node: Member, event: str, since: int) -> list[dict[str, Any]]:
    return [line for line in node.server.logs(since) if line["msg"] == event]


@asynccontextmanager
async def socket(node: Member, token: str) -> AsyncIterator[Wire]:
    """One that does not resume: it is live at once."""
    url = f"ws{node.url.removeprefix('http')}/v1/ws/chat"
    async with connect(url, [(b"authorization", f"Bearer {token}".encode())]) as wire:
        await hear(wire, "hello")
        yield wire


async def hear(wire: Wire, kind: str) -> dict[str, Any]:
    """The next frame of this type; others are passed over."""
    with trio.fail_after(WITHIN_S):
        while True:
            frame: dict[str, Any] = json.loads(await wire.receive())
            if frame["type"] == kind:
                return frame


async def write(wire: Wire, room: str, text: str) -> None:
    frame = {"type": "chat", "conversation_id": room, "content": text, "client_message_id": text, "ref": text}
    await wire.send(json.dumps(frame))


async def test_it_serves_what_it_can_and_is_whole_by_itself(
    tmp_path: Path, shared_store: ObjectStore, own_postgres: PostgresServer
) -> None:
    await trio.to_thread.run_sync(own_postgres.start)
    async with (
        cluster(tmp_path, own_postgres, shared_store, nodes=1, balancer=None) as nodes,
        people(nodes.nodes[0].url, "ann", "bob", "cleo", "dan", "eve") as folk,
    ):
        ann, bob, cleo, dan, eve = folk
        node, room = nodes.nodes[0], await direct(ann, bob)
        anns, cleos, dans = (client.me for client in (ann, cleo, dan))
        await dan.logout()
        await is_kept(node, dans.session_id)
        async with socket(node, anns.access_token) as at_ann:
            await write(at_ann, room, "before")  # from here on the node knows the conversation
            await hear(at_ann, "ack")
            await nodes.kill("postgres")
            await nodes.all_see("postgres", "down")
            await write(at_ann, room, "accepted")
            assert (await hear(at_ann, "ack"))["status"] == "accepted"
            await node.kill()
        since = len(node.server.output)
        await node.start()

        assert (await ask(node, "GET", "/readyz", "")).status_code == 200
        health = await node.health()
        assert (health["status"], health["modules"]["chat"]) == ("degraded", "healthy")
        await until(lambda: [line["whole"] for line in said(node, "started", since)] == [False])
        assert await profile(node, dans.access_token) == (401, "TOKEN_REVOKED")
        assert await profile(node, f"{anns.access_token[:-9]}forged-it") == (401, "INVALID_TOKEN")
        assert await profile(node, anns.access_token) == (503, "UNAVAILABLE")
        async with socket(node, anns.access_token) as at_ann:
            assert "postgres" in (await hear(at_ann, "degraded"))["dependencies"]
            await write(at_ann, room, "unknown")
            assert (await hear(at_ann, "error"))["code"] == "UNAVAILABLE", "it does not know who may read it"
            ended = await ask(node, "POST", "/v1/auth/logout", cleos.access_token)
            assert ended.status_code == 200, "told through Redis, and kept"
            assert await profile(node, cleos.access_token) == (401, "TOKEN_REVOKED")

            await nodes.restart("postgres")
            stored = await hear(at_ann, "stored")
            assert (stored["client_message_id"], stored["seq"]) == ("accepted", 2)
            await is_whole(nodes, since)
            await write(at_ann, room, "after")
            assert (await hear(at_ann, "ack"))["status"] == "stored"
        with pytest.raises(ApiError) as gone:
            await cleo.refresh()
        assert gone.value.code == "TOKEN_REVOKED"
        assert [each["content"] for each in await bob.history(room, 9)] == ["before", "accepted", "after"]
        live = f"SELECT count(*) FROM nodes WHERE node_id = '{node.node_id}' AND lease_ends_at > now()"
        assert await nodes.ask(live) == 1

        await is_kept(node, cleos.session_id)
        since = len(node.server.output)
        await node.kill()
        nodes.freeze("postgres")
        await node.start()
        async with socket(node, anns.access_token) as at_ann:
            assert await profile(node, cleos.access_token) == (401, "TOKEN_REVOKED")
            nodes.thaw("postgres")
            await hear(at_ann, "recovered")
            await is_whole(nodes, since)
            await nothing_is_refused_before_it_is_noticed(nodes, since, at_ann, room, bob, eve)


async def nothing_is_refused_before_it_is_noticed(
    nodes: Cluster, since: int, at_ann: Wire, room: str, bob: Client, eve: Client
) -> None:
    """The breaker takes a second; what asks the database meanwhile ends as what asks it later does."""
    node = nodes.nodes[0]
    await until(lambda: bool(said(node, "caught_up", since)), WITHIN_S)  # what it knows can be relied on
    await write(at_ann, room, "whole-again")
    while (await hear(at_ann, "chat"))["content"] != "whole-again":
        pass  # from here on the node knows the conversation
    tokens = [client.me.access_token for client in (bob, eve)]  # neither was seen since the start
    nodes.freeze("postgres")

    async def bob_connects() -> None:
        async with socket(node, tokens[0]):
            pass

    async def eve_leaves() -> None:
        ended = await ask(node, "POST", "/v1/auth/logout", tokens[1])
        assert (ended.status_code, ended.json()["data"]) == (200, {"status": "ended"})

    async with trio.open_nursery() as nursery:
        nursery.start_soon(bob_connects)
        nursery.start_soon(eve_leaves)
        await write(at_ann, room, "into-the-freeze")
        assert (await hear(at_ann, "ack"))["status"] == "accepted"
    assert await profile(node, tokens[1]) == (401, "TOKEN_REVOKED")
    nodes.thaw("postgres")
    await hear(at_ann, "stored")
    await nodes.is_whole()
    with pytest.raises(ApiError) as gone:
        await eve.refresh()
    assert gone.value.code == "TOKEN_REVOKED"


async def is_whole(nodes: Cluster, since: int) -> None:
    """By itself, and one line says so."""
    await until(lambda: len(said(nodes.nodes[0], "whole", since)) == 1, WITHIN_S)
    await nodes.is_whole()
