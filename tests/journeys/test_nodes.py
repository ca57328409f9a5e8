"""Two nodes: what happens on one is seen on the other, and what is counted is counted once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from kit.cluster import Member, cluster
from kit.http import plain
from kit.people import direct, next_event, people
from kit.postgres import PostgresServer
from kit.store import ObjectStore
from kit.wait import until
from secureconnect.client import ApiError, Client, Stream, StreamEnded
from secureconnect.edge import Close

SEEN_S = 2.0  # from the commit on one node to a socket of the other, with or without Redis
SILENT_S = 2  # of `chat.node_silent_s`, 10 by default
GONE_S = 5.0  # what is promised beyond that, 15 in all
REVOKED_S = 5.0  # five times what is promised


@asynccontextmanager
async def online(*clients: Client) -> AsyncIterator[list[Stream]]:
    """A socket of each, that has resumed."""
    async with trio.open_nursery() as nursery:
        streams: list[Stream] = []

        async def hold(client: Client, *, task_status: trio.TaskStatus[Stream]) -> None:
            async with client.stream() as stream:
                await next_event(stream, "online")
                task_status.started(stream)
                await trio.sleep_forever()

        for client in clients:
            streams.append(await nursery.start(hold, client))
        yield streams
        nursery.cancel_scope.cancel()


async def test_what_happens_on_one_node_is_seen_on_the_other(
    tmp_path: Path, postgres_server: PostgresServer, shared_store: ObjectStore
) -> None:
    async with cluster(
        tmp_path, postgres_server, shared_store, balancer=None, CHAT__NODE_SILENT_S=str(SILENT_S)
    ) as nodes:
        a, b = nodes.nodes
        assert (await a.health())["between_nodes"] == "bus"
        async with people(a.url, "ann") as [ann], people(b.url, "bob") as [bob]:
            room = await direct(ann, bob)
            async with online(ann) as [at_ann], online(bob) as [at_bob]:
                await next_event(at_ann, "presence", user_id=bob.me.user_id, status="online")
                await at_bob.tell("typing", conversation_id=room, is_typing=True)
                await next_event(at_ann, "typing", user_id=bob.me.user_id, is_typing=True)
                ack = await at_ann.send(room, "hello")
                heard = await next_event(at_bob, "chat", within_s=SEEN_S, message_id=ack["message_id"])
                assert (heard["content"], heard["seq"]) == ("hello", ack["seq"])
                await at_ann.edit(ack["message_id"], "hello there")
                await next_event(at_bob, "message_edited", within_s=SEEN_S, content="hello there")
                await both_vote(ann, bob, room)
                for stream in (at_ann, at_bob):
                    while (await next_event(stream, "poll_voted"))["poll"]["voter_count"] != 2:
                        pass
                assert (await b.server.metric("secureconnect_chat_healed_total")) == 0, "the bus told it"
                await bob.call("POST", "/v1/presence", {"status": "busy"})
                await next_event(at_ann, "presence", user_id=bob.me.user_id, status="busy")
                await b.kill()
                told = await next_event(
                    at_ann, "presence", within_s=SILENT_S + GONE_S, user_id=bob.me.user_id, status="offline"
                )
                assert told["last_seen"] is not None


async def both_vote(one: Client, other: Client, room: str) -> None:
    """At the same moment, each on their own node."""
    question = {"conversation_id": room, "question": "When?", "options": ["now", "later"]}
    poll = await one.call("POST", "/v1/polls", question)
    body = {"option_ids": [poll["options"][0]["option_id"]]}
    async with trio.open_nursery() as nursery:
        for client in (one, other):
            nursery.start_soon(client.call, "POST", f"/v1/polls/{poll['poll_id']}/vote", body)
    counted = await other.call("GET", f"/v1/polls/{poll['poll_id']}")
    assert [option["vote_count"] for option in counted["options"]] == [2, 0]


async def test_a_sign_out_closes_the_sockets_on_the_other_node(
    tmp_path: Path, postgres_server: PostgresServer, shared_store: ObjectStore
) -> None:
    async with cluster(tmp_path, postgres_server, shared_store, balancer=None) as nodes:
        a, b = nodes.nodes
        for redis_is_there in (True, False):
            if not redis_is_there:
                await nodes.kill("redis")
                await nodes.all_see("redis", "down")
            async with people(a.url, "ann") as [ann], Client(b.url, ann.me) as elsewhere:
                async with elsewhere.stream() as stream:
                    await next_event(stream, "online")
                    token = ann.me.access_token
                    await ann.logout()
                    with trio.fail_after(REVOKED_S), pytest.raises(StreamEnded) as ended:
                        async for _ in stream:
                            pass
                    assert ended.value.code == Close.UNAUTHENTICATED
                for node in (a, b):
                    async with plain(base_url=node.url) as http:
                        said = await http.get(
                            "/v1/auth/profile", headers={"Authorization": f"Bearer {token}"}
                        )
                    assert said.status_code == 401


async def test_a_rate_limit_counts_over_both_nodes(
    tmp_path: Path, postgres_server: PostgresServer, shared_store: ObjectStore
) -> None:
    limit = 20
    async with cluster(
        tmp_path,
        postgres_server,
        shared_store,
        balancer=None,
        RATE_LIMITS__ENABLED="true",
        RATE_LIMITS__SEARCH=str(limit),
    ) as nodes:
        a, b = nodes.nodes
        async with people(a.url, "ann") as [ann], Client(b.url, ann.me) as elsewhere:
            began = trio.current_time()
            passed = await count_searches(ann, elsewhere)
            given_back = (trio.current_time() - began) * limit / 60
            assert limit <= passed <= limit + 1 + given_back
        for node in (a, b):
            await until(partial(counts_both, node))
        await nodes.kill("redis")
        await nodes.all_see("redis", "down")

        async def is_shared_out() -> bool:
            async with people(a.url, "bob") as [bob], Client(b.url, bob.me) as elsewhere:
                return await count_searches(bob, elsewhere) <= limit + 3

        # each alone allows its share, once it has heard in the database of the other
        await until(is_shared_out)


async def counts_both(node: Member) -> bool:
    return await node.server.metric("secureconnect_nodes") == 2


async def count_searches(*clients: Client) -> int:
    """How many pass, asked of each in turn, until all refuse."""
    passed, refused = 0, 0
    while refused < len(clients):
        refused = 0
        for client in clients:
            try:
                await client.search_users("zoe")
            except ApiError as refusal:
                if refusal.code != "RATE_LIMITED":
                    raise
                refused += 1
            else:
                passed += 1
    return passed
