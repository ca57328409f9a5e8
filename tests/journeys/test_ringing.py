"""A call nobody answers: what rings, what is listed, and what stands in the conversation then."""

from __future__ import annotations

from kit.doors import two_doors
from kit.fixtures import StartServer
from kit.people import group, next_event, people
from secureconnect.client import Client


async def test_a_call_is_missed(start_server: StartServer) -> None:
    """On two nodes, where there can be two."""
    here, there = two_doors(start_server)
    async with (
        people(here.url, "ann", "bob") as [ann, bob],
        Client(there.url, bob.me) as far,
    ):
        room = await group(ann, bob)
        async with far.stream() as at_bob:
            await next_event(at_bob, "online")
            asked = {"conversation_id": room, "call_type": "audio"}
            call_id = (await ann.call("POST", "/v1/calls/initiate", asked))["call_id"]
            await next_event(at_bob, "call_incoming")
            [ringing] = (await far.call("GET", "/v1/calls", query={"ringing": "true"}))["calls"]
            assert (ringing["call_id"], ringing["status"]) == (call_id, "ringing")
            await ann.call("POST", f"/v1/calls/{call_id}/leave")
            missed = await next_event(at_bob, "call_missed")
            assert missed["call"]["end_reason"] == "cancelled"
            line = await next_event(at_bob, "chat", message_type="system")
            assert (line["sender_id"], line["metadata"]["event"], line["metadata"]["call_id"]) == (
                ann.me.user_id,
                "call",
                call_id,
            )
        [listed] = [
            each
            for each in (await far.call("GET", "/v1/notifications"))["notifications"]
            if each["kind"] == "missed_call"
        ]
        assert (listed["ref"], listed["actor_id"]) == (call_id, ann.me.user_id)
        assert (await far.call("GET", "/v1/calls", query={"ringing": "true"}))["calls"] == []
