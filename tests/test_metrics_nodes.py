"""Metrics of what nodes have outside themselves: each moves when that goes away, and when it is back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from journeys.test_nodes import online
from kit.cluster import Cluster, cluster
from kit.people import direct, next_event, people, upload
from kit.postgres import PostgresServer
from kit.scrape import Deeds
from kit.store import ObjectStore
from kit.wait import until
from secureconnect.client import Client, Stream


@dataclass
class Scene:
    """Ann on one node and Bob on the other, who talk; Cid on Ann's, to sign out."""

    nodes: Cluster
    ann: Client
    bob: Client
    cid: Client
    room: str
    at_ann: Stream
    at_bob: Stream


DEEDS = Deeds[Scene]()


@asynccontextmanager
async def away(nodes: Cluster, dependency: str) -> AsyncIterator[None]:
    """Refused to all nodes, as by a machine that runs without it."""
    for toll in nodes.tolls(dependency):
        toll.refuses = True
        toll.cut()
    await nodes.all_see(dependency, "down")
    yield
    for toll in nodes.tolls(dependency):
        toll.refuses = False
    await nodes.all_see(dependency, "up")


def stands_open(dependency: str) -> tuple[str, str]:
    named = f'{{dependency="{dependency}"}}'
    return f"dependency_up{named}", f"circuit_breaker_state{named}"


@DEEDS.moves(
    'redis_commands_total{result="answered",role="publish"}',
    'redis_command_duration_seconds_count{role="publish"}',
    'secureconnect_redis_batch_commands_count{role="publish"}',
    'secureconnect_signals_sent_total{way="bus"}',
)
async def a_message_goes_to_the_other_node(scene: Scene) -> AsyncIterator[None]:
    ack = await scene.at_ann.send(scene.room, "hello")
    await scene.at_ann.edit(ack["message_id"], "hello there")
    await next_event(scene.at_bob, "message_edited")
    yield


@DEEDS.moves("secureconnect_redis_reopened_total")
async def connections_to_redis_are_cut(scene: Scene) -> AsyncIterator[None]:
    for toll in scene.nodes.tolls("redis"):
        toll.cut()
    yield
    await scene.nodes.all_see("redis", "up")


@DEEDS.moves(
    *stands_open("redis"),
    'redis_commands_total{result="failed",role="probe"}',
    'secureconnect_signals_sent_total{way="table"}',
)
async def redis_is_away(scene: Scene) -> AsyncIterator[None]:
    before = await times_reopened(scene.nodes)
    async with away(scene.nodes, "redis"):
        ack = await scene.at_ann.send(scene.room, "and now?")
        await scene.at_ann.edit(ack["message_id"], "and now")
        yield

    async def all_hear() -> bool:  # which is later than that it answers
        return all(now > then for now, then in zip(await times_reopened(scene.nodes), before, strict=True))

    await until(all_hear)


async def times_reopened(nodes: Cluster) -> list[float]:
    return [await node.server.metric("secureconnect_redis_reopened_total") for node in nodes.nodes]


@DEEDS.moves(
    *stands_open("postgres"),
    'secureconnect_deps_refused_total{dependency="postgres",reason="open"}',
    "secureconnect_journal_records",
    "secureconnect_journal_bytes",
    "secureconnect_journal_oldest_age_seconds",
    'secureconnect_chat_recalled_total{result="told"}',
    'secureconnect_chat_resumes_total{result="recalled"}',
    "secureconnect_auth_revocations_pending",
)
async def the_database_is_away(scene: Scene) -> AsyncIterator[None]:
    async with away(scene.nodes, "postgres"):
        entry = scene.at_ann.post(scene.room, "without the database")
        await next_event(scene.at_bob, "chat", provisional=True)
        await scene.ann.call("GET", f"/v1/messages?conversation_id={scene.room}")
        await scene.cid.logout()
        async with scene.ann.stream(events=0):
            yield
    await scene.at_ann.stored(entry)


@DEEDS.moves(
    *stands_open("minio"),
    'secureconnect_storage_uploads_total{place="spool"}',
    "secureconnect_spool_objects",
    "secureconnect_spool_bytes",
)
async def the_store_is_away(scene: Scene) -> AsyncIterator[None]:
    async with away(scene.nodes, "minio"):
        await upload(scene.ann, b"content")
        yield


@DEEDS.moves("secureconnect_spool_objects", 'secureconnect_spool_moved_total{result="moved"}')
async def the_store_is_back(scene: Scene) -> AsyncIterator[None]:
    yield


async def test_each_promised_metric_moves(
    tmp_path: Path, postgres_server: PostgresServer, shared_store: ObjectStore
) -> None:
    async with (
        cluster(tmp_path, postgres_server, shared_store, balancer=None, BREAKER__PROBE_MS="150") as nodes,
        people(nodes.nodes[0].url, "ann", "cid") as [ann, cid],
        people(nodes.nodes[1].url, "bob") as [bob],
        online(ann, bob) as [at_ann, at_bob],
    ):
        scene = Scene(nodes, ann, bob, cid, await direct(ann, bob), at_ann, at_bob)
        await DEEDS.each_shows(scene, *(node.server for node in nodes.nodes))
