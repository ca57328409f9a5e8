"""Many clients, connections cut at random: at the end everybody holds everything, once, in order."""

from __future__ import annotations

import random

import trio

from journeys.log import Log, Tally, contents
from kit.fixtures import StartServer
from kit.people import group, next_event, people
from kit.toll import Toll, toll_before
from secureconnect.client import ApiError, Client, ConnectionLost, Stream

CLIENTS = 50
MESSAGES = 500
CUT_EVERY = 25  # stored messages
CUT_SHARE = 0.15
SEED = 20_261_122
LIMIT_S = 120  # a few seconds on two free cores


async def change(stream: Stream, message_id: str, content: str | None) -> None:
    """Edit, or delete; again whenever the connection was lost before the answer."""
    while True:
        try:
            if content is None:
                await stream.delete(message_id)
            else:
                await stream.edit(message_id, content)
        except ConnectionLost:
            continue
        except ApiError as refusal:
            if refusal.code != "MESSAGE_DELETED":  # as the answer that was lost said
                raise
        return


async def write(stream: Stream, room: str, name: str, seed: int, stored: Tally, toll: Toll) -> int:
    """This client's share of the messages, some of them edited, some deleted. Returns the connections cut."""
    choose = random.Random(seed)
    cuts = 0
    for number in range(MESSAGES // CLIENTS):
        ack = await stream.send(room, f"{name} {number}")
        stored.add()
        if stored.count % CUT_EVERY == 0:
            cuts += toll.cut(CUT_SHARE)
        fate = choose.random()
        if fate < 0.15:
            await change(stream, ack["message_id"], f"{name} {number}, edited")
        elif fate < 0.22:
            await change(stream, ack["message_id"], None)
    return cuts


async def test_fifty_clients_hold_every_change_once_in_order(start_server: StartServer) -> None:
    server = start_server(CHAT__RESUME_CHANGES="10000")
    names = [f"p{number}" for number in range(CLIENTS)]
    with trio.fail_after(LIMIT_S):
        async with toll_before(server.url, SEED) as toll, people(toll.url, *names) as everybody:
            room = await group(everybody[0], *everybody[1:])
            start = (await everybody[0].conversation(room))["change"]
            logs: list[Log] = []
            ready, written, stored = Tally(), Tally(), Tally()
            cuts = 0
            head = trio.Event()

            async def take_part(client: Client, name: str, seed: int) -> None:
                nonlocal cuts
                async with client.stream() as stream, trio.open_nursery() as nursery:
                    await next_event(stream, "online", within_s=20)
                    log = Log(stream, room)
                    logs.append(log)
                    nursery.start_soon(log.follow)
                    ready.add()
                    await ready.reaches(CLIENTS)
                    cut = await write(stream, room, name, seed, stored, toll)
                    cuts += cut
                    written.add()
                    await head.wait()
                    await log.reaches(last)
                    nursery.cancel_scope.cancel()

            async with trio.open_nursery() as nursery:
                for number, (client, name) in enumerate(zip(everybody, names, strict=True)):
                    nursery.start_soon(take_part, client, name, SEED + number)
                await written.reaches(CLIENTS)
                last = (await everybody[0].conversation(room))["change"]
                head.set()
            told = await everybody[0].history(room, MESSAGES + 1)

    assert cuts > CLIENTS
    assert [one["seq"] for one in told] == list(range(1, MESSAGES + 1))
    for log in logs:
        assert log.reread == 0
        assert log.changes == list(range(start + 1, last + 1))
        assert log.state == contents(told)
