"""A call of four on two nodes, whatever ends beneath it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import trio

from kit.cluster import Cluster, cluster
from kit.people import group, people
from kit.postgres import PostgresServer
from kit.store import ObjectStore
from kit.talkers import Talker
from kit.wait import until

BACK_S = 5.0  # until everybody is there again, once what was away is back


@asynccontextmanager
async def four_in_a_call(nodes: Cluster) -> AsyncIterator[tuple[str, list[Talker]]]:
    """Two on each node; the call's id."""
    a, b = nodes.nodes
    async with (
        people(a.url, "ann", "bob") as [ann, bob],
        people(b.url, "cid", "dee") as [cid, dee],
        trio.open_nursery() as nursery,
        AsyncExitStack() as stack,
    ):
        room = await group(ann, bob, cid, dee)
        call = await ann.create("/v1/calls/initiate", {"conversation_id": room, "call_type": "video"})
        talkers: list[Talker] = []
        for client in (ann, bob, cid, dee):
            if client is not ann:
                await client.call("POST", f"/v1/calls/{call['call_id']}/join")
            signaling = await stack.enter_async_context(client.signaling(call["call_id"]))
            talkers.append(Talker(signaling))
            nursery.start_soon(talkers[-1].listen)
            await talkers[-1].hears("peers")
        for number, talker in enumerate(talkers):
            await until(lambda t=talker, n=number: len(t.of("join")) == 3 - n)  # type: ignore[misc]
        yield call["call_id"], talkers
        nursery.cancel_scope.cancel()


async def reaches(talkers: list[Talker], sdp: str) -> None:
    """Everybody reaches everybody with a frame."""
    for one in talkers:
        for other in talkers:
            if one is not other:
                await until(
                    lambda s=one.signaling, o=other: s.tell("offer", target_id=o.signaling.peer_id, sdp=sdp)  # type: ignore[misc]
                )
                await other.hears("offer", sender_id=one.signaling.peer_id, sdp=sdp)


@asynccontextmanager
async def frozen(nodes: Cluster) -> AsyncIterator[None]:
    for toll in nodes.tolls("postgres"):
        toll.stall()
    yield
    for toll in nodes.tolls("postgres"):
        toll.flow()


@asynccontextmanager
async def killed(nodes: Cluster) -> AsyncIterator[None]:
    await nodes.kill("postgres")
    yield
    await nodes.restart("postgres")


async def test_a_call_of_four_outlives_what_carries_it(
    tmp_path: Path, own_postgres: PostgresServer, shared_store: ObjectStore
) -> None:
    await trio.to_thread.run_sync(own_postgres.start)
    async with (
        cluster(tmp_path, own_postgres, shared_store, balancer=None) as nodes,
        four_in_a_call(nodes) as (call_id, talkers),
    ):
        ann, bob, cid, dee = talkers
        names = {each.signaling.peer_id for each in talkers}
        await nodes.kill("redis")
        await reaches(talkers, "without Redis")
        await nodes.restart("redis")
        await nodes.all_see("redis", "up")

        await _without_postgres(nodes, frozen(nodes), talkers, ann, cid, muted=[ann])
        await _without_postgres(nodes, killed(nodes), talkers, dee, bob, muted=[ann, dee])

        epoch = ann.signaling.epoch
        await nodes.nodes[0].kill()
        await nodes.nodes[0].start()
        for talker in (ann, bob):
            await until(lambda t=talker: bool(t.of("resumed", epoch=epoch + 1)))  # type: ignore[misc]
        for talker in (cid, dee):
            for other in (ann, bob):
                await _told_of_return(talker, other.signaling.peer_id, epoch + 1)
        await reaches(talkers, "after kill -9")
        assert {each.signaling.peer_id for each in talkers} == names

        assert await nodes.ask(f"SELECT to_json(state) FROM calls WHERE call_id = '{call_id}'") == "active"
        assert not [talker.of("leave") for talker in talkers if talker.of("leave")]


async def _told_of_return(talker: Talker, peer_id: str, epoch: int) -> None:
    def is_told() -> bool:
        told = [each for each in talker.of("peer_resumed", epoch=epoch) if each["peer"]["peer_id"] == peer_id]
        return bool(told) and told[-1]["restart_ice"]

    await until(is_told, BACK_S)


async def _without_postgres(
    nodes: Cluster,
    away: AbstractAsyncContextManager[None],
    talkers: list[Talker],
    one: Talker,
    other: Talker,
    muted: list[Talker],
) -> None:
    """Events and flags go on, a device that loses its connection comes back, and all of it is stored.

    one: who mutes, and loses it.  other: on the other node.  muted: who is by the end.
    """
    mine = one.signaling.peer_id
    async with away:
        await nodes.all_see("postgres", "down")
        await one.signaling.tell("mute_audio", muted=True)
        await other.hears("mute_audio", sender_id=mine)
        await one.signaling.cut()
        await one.hears("resumed")
        await other.hears("peer_reconnecting", peer_id=mine)
        await _told_of_return(other, mine, one.signaling.epoch)
        await reaches(talkers, f"without Postgres, {mine}")
    as_it_is = {each.signaling.peer_id: [each not in muted, True] for each in talkers}

    async def is_stored() -> bool:
        sql = "SELECT json_object_agg(peer_id, json_build_array(audio, lost_at IS NULL)) FROM call_peers"
        return bool(await nodes.ask(sql) == as_it_is)

    await until(is_stored, BACK_S)
    await nodes.all_see("postgres", "up")
