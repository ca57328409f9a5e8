"""Nodes that end, in order or not, and start again behind a balancer: clients of the protocol see nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from journeys.log import Log, Tally
from kit.balancer import Balancer, Haproxy, Nginx
from kit.cluster import Cluster, Member, cluster
from kit.http import plain
from kit.people import direct, group, next_event, people
from kit.postgres import PostgresServer
from kit.store import ObjectStore
from kit.wait import until
from secureconnect.client import Stream
from secureconnect.node import LEASE_S

WITHIN_S = 30.0
PAUSE_S = 0.005  # between messages: who sends without any takes the processor from the nodes that start

# a step of a later program: it adds, and takes nothing away
NEWER = (
    "ALTER TABLE messages ADD COLUMN mood text",
    "ALTER TABLE conversations ADD COLUMN colour text NOT NULL DEFAULT 'blue'",
    "ALTER TABLE users ADD COLUMN shoe_size bigint",
    "ALTER TABLE sessions ADD COLUMN place text NOT NULL DEFAULT ''",
    "CREATE TABLE moods (mood text PRIMARY KEY)",
    "CREATE INDEX messages_by_mood ON messages (mood)",
    "INSERT INTO schema_migrations (number, name, checksum, applied_at, min_program)"
    " SELECT max(number) + 1, '9999_moods', 'of a later program', now(), '0.1.0' FROM schema_migrations",
)


class Talk:
    """One who sends for ever and one who follows, both through the balancer."""

    def __init__(self, nodes: Cluster, room: str, start: int, sender: Stream, log: Log) -> None:
        self.nodes = nodes
        self.room = room
        self.sender = sender
        self.log = log
        self.sent: list[str] = []
        self.stored = Tally()
        self._start = start

    async def send_on(self) -> None:
        while True:
            ack = await self.sender.send(self.room, f"number {len(self.sent)}")
            self.sent.append(ack["client_message_id"])
            self.stored.add()
            await trio.sleep(PAUSE_S)

    async def goes_on(self, messages: int = 20) -> None:
        with trio.fail_after(WITHIN_S):
            await self.stored.reaches(self.stored.count + messages)

    async def is_whole(self) -> None:
        """The follower has everything once, in order; whatever was being sent meanwhile included."""
        with trio.fail_after(WITHIN_S):
            await self.sender.drained()
            head = await self.nodes.ask(
                f"SELECT last_change FROM conversations WHERE conversation_id = '{self.room}'"
            )
            await self.log.reaches(head)
        assert self.log.changes == list(range(self._start + 1, head + 1))
        assert self.log.keys[: len(self.sent)] == self.sent


@asynccontextmanager
async def talking(nodes: Cluster) -> AsyncIterator[Talk]:
    async with people(nodes.url, "ann", "bob") as (ann, bob):
        room = await direct(ann, bob)
        start = (await ann.conversation(room))["change"]
        async with ann.stream(events=0) as at_ann, bob.stream() as at_bob, trio.open_nursery() as nursery:
            await next_event(at_bob, "online")
            log = Log(at_bob, room)
            nursery.start_soon(log.follow)
            talk = Talk(nodes, room, start, at_ann, log)
            async with trio.open_nursery() as sending:
                sending.start_soon(talk.send_on)
                await talk.goes_on()
                yield talk
                await talk.goes_on()
                sending.cancel_scope.cancel()
            await talk.is_whole()
            nursery.cancel_scope.cancel()


async def rests(url: str, asked: Tally) -> None:
    """Asks by REST for ever; an error ends it."""
    async with plain(base_url=url, timeout=10) as http:
        while True:
            said = await http.get("/v1/server")
            assert said.status_code == 200, said.text
            asked.add()
            await trio.sleep(0.01)


async def is_used(node: Member) -> bool:
    """Whether the balancer sends it requests again: only then may the next node go."""
    async with plain(base_url=node.url) as http:
        lines = (await http.get("/metrics")).text.splitlines()
    counts = [line for line in lines if line.startswith("http_requests_total") and "/v1/server" in line]
    return any(float(line.rpartition(" ")[2]) > 0 for line in counts)


@pytest.mark.parametrize("kind", [Haproxy, Nginx], ids=["haproxy", "nginx"])
async def test_both_nodes_are_restarted_and_nobody_notices(
    tmp_path: Path, postgres_server: PostgresServer, shared_store: ObjectStore, kind: type[Balancer]
) -> None:
    """HAProxy asks /readyz and needs the notice; nginx goes on when a connection is refused."""
    notice = "2" if kind is Haproxy else "0"
    async with cluster(
        tmp_path, postgres_server, shared_store, balancer=kind, GATEWAY__DRAIN_NOTICE_S=notice
    ) as nodes:
        asked = Tally()
        async with talking(nodes) as talk, trio.open_nursery() as nursery:
            nursery.start_soon(rests, nodes.url, asked)
            for node in nodes.nodes:
                await node.drain()
                await node.start()
                await until(lambda node=node: is_used(node), WITHIN_S)  # type: ignore[misc]
                await talk.goes_on()
            nursery.cancel_scope.cancel()
        assert all("1012" in reason for reason in talk.log.offline), talk.log.offline


@pytest.mark.parametrize("kind", [Haproxy, Nginx], ids=["haproxy", "nginx"])
async def test_a_node_dies_and_its_clients_resume_on_the_other(
    tmp_path: Path, postgres_server: PostgresServer, shared_store: ObjectStore, kind: type[Balancer]
) -> None:
    async with cluster(tmp_path, postgres_server, shared_store, balancer=kind) as nodes:
        async with talking(nodes) as talk:
            for node in nodes.nodes:
                await node.kill()
                await talk.goes_on()
                await node.start()
                await nodes.is_whole()
        assert talk.log.offline, "the follower was on one of them"
        assert talk.log.reread == 0


async def test_an_older_program_works_with_a_newer_schema(
    tmp_path: Path, postgres_server: PostgresServer, shared_store: ObjectStore
) -> None:
    """As in the middle of a rolling update: the new node has migrated, the old one still runs, and starts."""
    async with cluster(tmp_path, postgres_server, shared_store) as nodes, talking(nodes) as talk:
        for statement in NEWER:
            await nodes.sql(statement)
        await talk.goes_on()
        async with people(nodes.url, "cid", "dan") as (cid, dan):
            ack = await cid.send_message(await group(cid, dan), "hello", "first")
            await cid.edit_message(ack["message_id"], "hello there")
            await cid.delete_message(ack["message_id"])
            await cid.logout()
        await nodes.nodes[0].drain()
        await nodes.nodes[0].start()
        await nodes.is_whole()


async def lease(nodes: Cluster, node: Member) -> tuple[float, float]:
    """Seconds since it was renewed, and until it ends; by the database's clock."""
    since, left = await nodes.ask(
        "SELECT json_build_array(extract(epoch FROM now() - renewed_at),"
        f" extract(epoch FROM lease_ends_at - now())) FROM nodes WHERE node_id = '{node.node_id}'"
    )
    return since, left


def said_of_lease(node: Member, since: int) -> list[str]:
    """since: the first line of its output that counts."""
    return [line["msg"] for line in node.server.logs(since) if line["msg"].startswith("lease_")]


async def test_a_lease_ends_and_is_renewed(
    tmp_path: Path, postgres_server: PostgresServer, shared_store: ObjectStore
) -> None:
    async with cluster(tmp_path, postgres_server, shared_store, balancer=None) as nodes:
        a, b = nodes.nodes

        async def is_fresh(node: Member) -> bool:
            since, left = await lease(nodes, node)
            return since < 2 and LEASE_S - 2 < left <= LEASE_S

        for node in (a, b):
            await until(lambda node=node: is_fresh(node), WITHIN_S)  # type: ignore[misc]
        await a.drain()
        assert (await lease(nodes, a))[1] <= 0, "given back"
        await b.kill()

        async def is_stale() -> bool:
            return (await lease(nodes, b))[0] > 3

        await until(is_stale, WITHIN_S)
        assert (await lease(nodes, b))[1] > LEASE_S - 10, "a node that died keeps its lease to the end"
        known = a.node_id
        for node in (a, b):
            await node.start()
            await until(lambda node=node: is_fresh(node), WITHIN_S)  # type: ignore[misc]
        assert a.node_id == known
        assert await nodes.ask("SELECT count(*) FROM nodes") == 2
        await nodes.all_see("postgres", "up")
        before = [len(node.server.output) for node in (a, b)]
        for toll in nodes.tolls("postgres"):
            toll.refuses = True
            toll.cut()
        await nodes.all_see("postgres", "down")
        await until(is_stale, WITHIN_S)
        for toll in nodes.tolls("postgres"):
            toll.refuses = False
        for node, since in zip((a, b), before, strict=True):
            await until(lambda node=node: is_fresh(node), WITHIN_S)  # type: ignore[misc]
            await until(lambda node=node, since=since: "lease_renewed" in said_of_lease(node, since))  # type: ignore[misc]
            assert said_of_lease(node, since) == ["lease_not_renewed", "lease_renewed"]


async def test_a_client_is_passed_to_the_other_node_when_its_own_hangs(
    tmp_path: Path, postgres_server: PostgresServer, shared_store: ObjectStore
) -> None:
    """HAProxy finds that it does not answer, and ends its connections."""
    async with (
        cluster(tmp_path, postgres_server, shared_store) as nodes,
        people(nodes.url, "ann") as [ann],
        ann.stream() as stream,
    ):
        await next_event(stream, "online")
        a, b = nodes.nodes
        held = a if await a.server.metric("websocket_connections_active") else b
        held.freeze()
        try:
            await next_event(stream, "offline", within_s=WITHIN_S)
            await next_event(stream, "online", within_s=WITHIN_S)
        finally:
            held.thaw()
        await nodes.is_whole()
