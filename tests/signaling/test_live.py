"""Signaling on real servers: full ones, flooded ones, and two whose bus is gone."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import trio

from kit.cluster import cluster
from kit.fixtures import StartServer
from kit.people import people
from kit.postgres import PostgresServer
from kit.store import ObjectStore
from kit.wait import until
from secureconnect.client.wire import Lost, Refused

from .phones import Phone, call_of, dialled, talking

SOCKETS = 3
AT_ONCE = 12
LARGE = "A" * 50_000
FLOOD = 300  # of these: more than the network between the two and the outbox hold
HELD_UP_S = 2.0  # another call, on a machine that is busy with a hundred other tests


async def test_so_many_sockets_and_no_more_also_when_all_come_at_once(start_server: StartServer) -> None:
    server = start_server(SIGNALING__SOCKETS=str(SOCKETS))
    refused: list[Refused] = []
    async with people(server.url, "ann", "bob") as (ann, bob), AsyncExitStack() as stack:
        call_id = await call_of(ann, bob)
        nursery = await stack.enter_async_context(trio.open_nursery())
        settled = trio.Semaphore(0)
        done = trio.Event()

        async def come() -> None:
            try:
                async with dialled(ann, call_id):
                    settled.release()
                    await done.wait()
            except Refused as refusal:
                refused.append(refusal)
                settled.release()

        for _ in range(AT_ONCE):
            nursery.start_soon(come)
        for _ in range(AT_ONCE):
            await settled.acquire()
        assert len(refused) == AT_ONCE - SOCKETS
        assert {each.status for each in refused} == {503}
        assert {json.loads(each.body)["error"]["code"] for each in refused} == {"OVERLOADED"}
        assert await server.metric("secureconnect_signaling_sockets") == SOCKETS
        done.set()

        async def is_empty() -> bool:
            return await server.metric("secureconnect_signaling_sockets") == 0

        await until(is_empty)
        async with dialled(bob, call_id) as phone:
            await phone.join()
            await bob.logout()
            with pytest.raises(Lost, match="4401"):
                await phone.next("none")


async def test_who_is_flooded_keeps_the_socket_and_other_calls_their_pace(start_server: StartServer) -> None:
    server = start_server(
        SIGNALING__FRAMES_PER_10S="10000",
        SIGNALING__BYTES_PER_10S="104857600",
        GATEWAY__WS_OUTBOX_BYTES="131072",
        GATEWAY__WS_FRAMES_PER_10S="100000",
    )
    answers: list[str] = []
    longest_s = 0.0
    async with (
        people(server.url, "ann", "bob", "cid", "dee") as (ann, bob, cid, dee),
        talking(ann, bob) as (flooder, slow),
        talking(cid, dee) as (one, other),
    ):

        async def flood() -> None:
            for _ in range(FLOOD):
                await flooder.say("offer", ref=1, target_id=slow.peer_id, sealed=LARGE)

        async def hear() -> None:
            while len(answers) < FLOOD:
                frame = json.loads(await flooder.wire.receive())
                answers.append(frame.get("code") or frame["type"])
            nursery.cancel_scope.cancel()

        async def talk() -> None:
            nonlocal longest_s
            number = 0
            while True:
                began = trio.current_time()
                await one.say("ice_candidate", target_id=other.peer_id, number=number)
                await other.next("ice_candidate", number=number)
                longest_s = max(longest_s, trio.current_time() - began)
                number += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            nursery.start_soon(hear)
            nursery.start_soon(talk)
        assert set(answers) == {"ack", "UNAVAILABLE"}
        await slow.say("ping", ref=1)
        await slow.next("pong", ref=1)  # behind all that it has been slow to read
    assert 0 < longest_s < HELD_UP_S


async def test_frames_go_between_nodes_also_while_redis_is_away(
    tmp_path: Path, postgres_server: PostgresServer, shared_store: ObjectStore
) -> None:
    async with cluster(tmp_path, postgres_server, shared_store, balancer=None) as nodes:
        a, b = nodes.nodes
        async with (
            people(a.url, "ann") as (ann,),
            people(b.url, "bob") as (bob,),
            talking(ann, bob) as (one, other),
        ):
            await exchange(one, other)
            await nodes.kill("redis")
            await exchange(one, other)
            await one.say("mute_audio", muted=True)
            assert (await other.next("mute_audio"))["sender_id"] == one.peer_id
            await other.say("leave", ref=1)
            await other.next("ack", ref=1)
            await one.next("call_ended")


async def exchange(one: Phone, other: Phone) -> None:
    """In order, and each once."""
    for number in range(20):
        await one.say("offer", target_id=other.peer_id, number=number)
    told = [(await other.next("offer"))["number"] for _ in range(20)]
    assert told == list(range(20))
    await other.say("answer", target_id=one.peer_id)
    await one.next("answer", sender_id=other.peer_id)
