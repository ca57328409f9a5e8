"""A call of four on two nodes, whatever ends beneath it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import trio

from kit.cluster import Cluster, cluster
from kit.people import group, people
from kit.postgres import PostgresServer
from kit.store import ObjectStore
from kit.wait import until
from secureconnect.client import Event, Signaling, StreamEnded

BACK_S = 5.0


class Talker:
    """One device in a call.  seen: all it was told."""

    def __init__(self, signaling: Signaling) -> None:
        self.signaling = signaling
        self.seen: list[Event] = []

    async def listen(self) -> None:
        try:
            async for frame in self.signaling:
                self.seen.append(frame)
        except StreamEnded:
            return

    def of(self, kind: str, **fields: object) -> list[Event]:
        return [each for each in self.seen if each["type"] == kind and fields.items() <= each.items()]

    async def hears(self, kind: str, within_s: float = BACK_S, **fields: object) -> Event:
        await until(lambda: bool(self.of(kind, **fields)), within_s)
        return self.of(kind, **fields)[0]


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


async def test_a_call_of_four_outlives_what_carries_it(
    tmp_path: Path, postgres_server: PostgresServer, shared_store: ObjectStore
) -> None:
    async with (
        cluster(tmp_path, postgres_server, shared_store, balancer=None) as nodes,
        four_in_a_call(nodes) as (call_id, talkers),
    ):
        ann, bob, cid, dee = talkers
        names = {each.signaling.peer_id for each in talkers}
        await nodes.kill("redis")
        await reaches(talkers, "without Redis")
        await nodes.restart("redis")
        await nodes.all_see("redis", "up")

        await _without_postgres(nodes, talkers)

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


async def _without_postgres(nodes: Cluster, talkers: list[Talker]) -> None:
    """Events and flags go on, a device that loses its connection comes back, and all of it is stored."""
    ann, _, cid, _ = talkers
    for toll in nodes.tolls("postgres"):
        toll.stall()
    await nodes.all_see("postgres", "down")
    await ann.signaling.tell("mute_audio", muted=True)
    await cid.hears("mute_audio")
    await ann.signaling.cut()
    await ann.hears("resumed")
    await cid.hears("peer_reconnecting", peer_id=ann.signaling.peer_id)
    await cid.hears("peer_resumed")
    await reaches(talkers, "without Postgres")
    for toll in nodes.tolls("postgres"):
        toll.flow()
    await nodes.all_see("postgres", "up")

    async def is_stored() -> bool:
        sql = "SELECT coalesce(json_agg(json_build_array(audio, lost_at IS NULL)), '[]') FROM call_peers"
        return sorted(await nodes.ask(sql)) == [[False, True], [True, True], [True, True], [True, True]]

    await until(is_stored)
