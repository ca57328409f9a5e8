"""Two nodes on one database and nothing between them: Redis is away, or was never there."""

from __future__ import annotations

from pathlib import Path

import trio

from journeys.log import Log
from journeys.test_nodes import REVOKED_S, SEEN_S, online
from kit.cluster import Cluster, cluster
from kit.http import plain
from kit.people import direct, group, next_event, people
from kit.postgres import PostgresServer
from kit.store import ObjectStore
from kit.wait import until


async def test_without_redis_the_tables_tell_it(
    tmp_path: Path, postgres_server: PostgresServer, shared_store: ObjectStore
) -> None:
    async with cluster(tmp_path, postgres_server, shared_store, balancer=None) as nodes:
        a, b = nodes.nodes
        async with people(a.url, "ann") as [ann], people(b.url, "bob") as [bob]:
            room = await group(ann, bob)
            start = (await ann.conversation(room))["change"]
            async with online(ann) as [at_ann], bob.stream() as at_bob, trio.open_nursery() as nursery:
                await next_event(at_bob, "online")
                log = Log(at_bob, room)
                nursery.start_soon(log.follow)
                sent = 0
                for is_away in (False, True, False):
                    await (nodes.kill("redis") if is_away else _is_back(nodes))
                    await nodes.all_see("redis", "down" if is_away else "up")
                    assert (await b.health())["between_nodes"] == ("catch_up" if is_away else "bus")
                    for _ in range(5):
                        await at_ann.send(room, f"number {sent}")
                        sent += 1
                        with trio.fail_after(SEEN_S):
                            await log.reaches(start + sent)
                    await bob.mark_read(room, sent)  # of which no table tells other nodes what is new
                    await next_event(at_ann, "read", within_s=SEEN_S, seq=sent, user_id=bob.me.user_id)
                nursery.cancel_scope.cancel()
            assert log.changes == list(range(start + 1, start + 1 + sent)), "no gap, no double"
            assert log.offline == []


async def _is_back(nodes: Cluster) -> None:
    if nodes.redis is not None and not nodes.redis.is_running:
        await nodes.restart("redis")


async def test_postgres_without_redis_is_enough(
    tmp_path: Path, postgres_server: PostgresServer, shared_store: ObjectStore
) -> None:
    async with cluster(tmp_path, postgres_server, shared_store, balancer=None, with_redis=False) as nodes:
        a, b = nodes.nodes
        health = await a.health()
        assert health["status"] == "healthy"
        assert health["dependencies"]["redis"]["kind"] == "memory"
        assert health["between_nodes"] == "catch_up"
        async with people(a.url, "ann") as [ann], people(b.url, "bob") as [bob]:
            room = await direct(ann, bob)
            async with online(ann, bob) as [at_ann, at_bob]:
                for number in range(3):
                    ack = await at_ann.send(room, str(number))
                    await next_event(at_bob, "chat", within_s=SEEN_S, message_id=ack["message_id"])
                    await bob.mark_read(room, ack["seq"])
                    await next_event(at_ann, "read", within_s=SEEN_S, seq=ack["seq"])
            token = ann.me.access_token
            await ann.logout()

            async def is_refused() -> bool:
                async with plain(base_url=b.url) as http:
                    said = await http.get("/v1/auth/profile", headers={"Authorization": f"Bearer {token}"})
                return said.status_code == 401

            await until(is_refused, REVOKED_S)
