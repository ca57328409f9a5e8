"""Who is put out of the service while in a call is out of the call at once."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial

import pytest
import trio

from kit.doors import ENDED_S
from kit.fixtures import StartServer
from kit.people import group, make_admin, people
from kit.talkers import Talker
from kit.wait import until
from secureconnect.client import Client
from secureconnect.edge import Close


async def are_in(reader: Client, call_id: str, *people: Client) -> bool:
    """Whether these are in the call, and nobody else."""
    told = (await reader.call("GET", f"/v1/calls/{call_id}"))["participants"]
    return {each["user_id"] for each in told if each["state"] == "joined"} == {
        each.me.user_id for each in people
    }


@pytest.mark.parametrize("world", ["embedded"], indirect=True)
async def test_who_is_signed_out_or_banned_is_out_of_the_call(start_server: StartServer) -> None:
    """The others are told at once that they are gone, not that they are waited for."""
    server = start_server()
    async with (
        people(server.url, "ann", "bob", "cid", "root") as [ann, bob, cid, root],
        trio.open_nursery() as nursery,
        AsyncExitStack() as stack,
    ):
        await make_admin(server, root)
        room = await group(ann, bob, cid)
        begun = {"conversation_id": room, "call_type": "audio"}
        call_id = (await ann.create("/v1/calls/initiate", begun))["call_id"]
        talkers: list[Talker] = []
        for client in (ann, bob, cid):
            if client is not ann:
                await client.call("POST", f"/v1/calls/{call_id}/join")
            talkers.append(Talker(await stack.enter_async_context(client.signaling(call_id))))
            nursery.start_soon(talkers[-1].listen)
            await talkers[-1].hears("peers")
        at_ann, at_bob, at_cid = talkers
        await cid.call("POST", "/v1/auth/logout")
        for talker in (at_ann, at_bob):
            await talker.hears("leave", ENDED_S, peer_id=at_cid.signaling.peer_id)
        await until(partial(are_in, ann, call_id, ann, bob), ENDED_S)
        await root.call("POST", f"/v1/admin/users/{bob.me.user_id}/ban", {"reason": "spam"})
        await at_ann.hears("leave", ENDED_S, peer_id=at_bob.signaling.peer_id)
        await until(partial(are_in, ann, call_id, ann), ENDED_S)
        for talker in (at_bob, at_cid):
            await until(lambda t=talker: t.code == Close.UNAUTHENTICATED, ENDED_S)  # type: ignore[misc]
        assert not [talker.of("peer_reconnecting") for talker in talkers if talker.of("peer_reconnecting")]
        nursery.cancel_scope.cancel()
