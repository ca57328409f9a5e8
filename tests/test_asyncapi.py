"""docs/asyncapi.yaml is a valid document, what the code has, and what a server really says."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing

import jsonschema_rs
import pytest
import trio

from kit.asyncapi import FILE, Contract, Json, Socket, opened
from kit.fixtures import StartServer
from kit.olm import Encrypting, server_name
from kit.people import direct, group, make_admin, people, upload
from kit.redis import RedisServer
from kit.server import Server
from secureconnect.client import Client
from secureconnect.identity import new_id

ROOT = FILE.parent.parent
SPECIFICATION = ROOT / "tests" / "web" / "node_modules" / "@asyncapi" / "specs" / "schemas" / "3.0.0.json"
AWAY = str(ROOT / "tests" / "kit" / "launchers" / "database_away.py")
RENEWABLE_S = "59"  # so soon an access token ends that its socket is told at once


def test_it_is_what_the_code_has() -> None:
    made = subprocess.run([sys.executable, ROOT / "scripts" / "asyncapi", "--check"], check=False)
    assert made.returncode == 0, "run scripts/asyncapi"


def test_it_is_valid() -> None:
    if not SPECIFICATION.exists():
        pytest.skip("the specification comes with the tools of the web client: run scripts/check-web once")
    validator = jsonschema_rs.Draft7Validator(json.loads(SPECIFICATION.read_text("utf-8")))
    document = Contract().document
    assert [each.message for each in validator.iter_errors(document)] == []
    del document["channels"]["chat"]["address"]
    document["operations"]["chat.said"]["action"] = "shout"
    assert not validator.is_valid(document)


async def test_a_server_says_all_of_it_and_nothing_else(
    start_server: StartServer, redis_server: RedisServer
) -> None:
    server = start_server([AWAY], AUTH__ACCESS_TTL_S=RENEWABLE_S, REDIS__URL=redis_server.url)
    contract = Contract()
    async with people(server.url, "ann", "bob", "cid") as (ann, bob, cid):
        await make_admin(server, ann)
        async with opened(contract, "chat", ann) as at_ann, opened(contract, "chat", bob) as at_bob:
            await at_ann.hears("hello")
            await at_bob.hears("token_expiring")
            await of_conversations(ann, at_ann, bob, at_bob, cid)
            await of_messages(ann, at_ann, bob, at_bob)
            await of_devices(ann, bob, at_bob)
            await of_resuming(contract, bob, await group(ann, bob))
            await of_calls(contract, ann, at_ann, bob, at_bob, cid)
            await of_an_outage(contract, server, ann, at_ann, bob, at_bob)
            redis_server.kill()
            await at_ann.hears("degraded")
            redis_server.start()
            await at_ann.hears("recovered")
            await of_the_end(contract, server, ann, at_ann, bob)
    assert contract.messages - contract.seen == set()


async def of_conversations(ann: Client, at_ann: Socket, bob: Client, at_bob: Socket, cid: Client) -> None:
    room = await group(ann, bob)
    place = f"/v1/conversations/{room}"
    await at_bob.hears("conversation_updated")
    await ann.call("POST", f"{place}/participants", {"user_id": cid.me.user_id})
    await at_bob.hears("user_joined", conversation_id=room)
    await ann.call("PATCH", f"{place}/participants/{cid.me.user_id}", {"role": "admin"})
    await at_bob.hears("member_updated", user_id=cid.me.user_id, role="admin")
    await ann.call("DELETE", f"{place}/participants/{cid.me.user_id}")
    await at_bob.hears("user_left", conversation_id=room)
    await bob.call("POST", f"{place}/mute", {})
    await at_bob.hears("muted", is_muted=True)

    asked = {"conversation_id": room, "question": "When?", "options": ["now", "later"]}
    poll = await ann.create("/v1/polls", asked)
    await at_bob.hears("poll_created")
    await bob.call(
        "POST", f"/v1/polls/{poll['poll_id']}/vote", {"option_ids": [poll["options"][0]["option_id"]]}
    )
    await at_ann.hears("poll_voted")
    await ann.call("POST", f"/v1/polls/{poll['poll_id']}/close")
    await at_bob.hears("poll_closed")
    await ann.call("DELETE", f"/v1/polls/{poll['poll_id']}")
    await at_bob.hears("poll_deleted", poll_id=poll["poll_id"])
    await ann.call("DELETE", place)
    await at_bob.hears("conversation_deleted", conversation_id=room)
    await ann.create("/v1/admin/announcements", {"text": "Back at nine."})
    await at_bob.hears("announcement")


async def of_messages(ann: Client, at_ann: Socket, bob: Client, at_bob: Socket) -> None:
    room = await group(ann, bob)
    files = [await upload(ann, b"hello")]
    said: Json = {"conversation_id": room, "content": "@bob", "client_message_id": "one", "file_ids": files}
    stored = await at_ann.say("chat", **said, metadata={"mentions": [bob.me.user_id]})
    assert stored["status"] == "stored"
    seen = await at_bob.hears("chat", client_message_id="one")
    about = {"message_id": seen["message_id"]}
    told = await at_bob.hears("notification", kind="mention")
    await bob.call("POST", "/v1/notifications/read-all", {"up_to": told["notification_id"]})
    await at_bob.hears("notifications_read")
    await at_ann.say("edit", **about, content="@bob, later")
    await at_bob.hears("message_edited")
    await at_bob.say("react", **about, emoji="+", on=True)
    await at_ann.hears("reaction", count=1)
    for method, kind in (("POST", "message_pinned"), ("DELETE", "message_unpinned")):
        await ann.call(method, f"/v1/conversations/{room}/pins/{seen['message_id']}")
        await at_bob.hears(kind)
    await at_bob.say("read", conversation_id=room, seq=seen["seq"])
    await at_ann.hears("read", user_id=bob.me.user_id)
    await at_bob.say("typing", conversation_id=room, is_typing=True)
    await at_ann.hears("typing", is_typing=True)
    await at_bob.say("presence", status="busy")
    await at_ann.hears("presence", status="busy")
    await ann.call("DELETE", f"/v1/storage/files/{files[0]}")
    await at_ann.hears("file_updated")
    await at_ann.say("delete", **about)
    await at_bob.hears("message_deleted", **about)
    assert (await at_ann.say("ping"))["type"] == "pong"
    assert (await at_ann.say("auth", token=ann.me.access_token))["type"] == "ack"
    assert (await at_ann.say("read", conversation_id=new_id(), seq=1))["code"] == "NOT_FOUND"


async def of_devices(ann: Client, bob: Client, at_bob: Socket) -> None:
    name = await server_name(ann)
    for each in (Encrypting(bob, name), Encrypting(ann, name)):
        await each.publish()
    await at_bob.hears("key_changed", user_id=ann.me.user_id)
    await at_bob.hears("e2ee")


async def of_resuming(contract: Contract, bob: Client, room: str) -> None:
    async with opened(contract, "chat", bob, resume="1") as socket:
        history = (await socket.hears("hello"))["history_id"]
        await socket.say("resume", history_id=history, conversations={room: 1})
        assert room in (await socket.hears("resumed"))["conversations"]
    async with opened(contract, "chat", bob, resume="1") as socket:
        await socket.say("resume", history_id=new_id(), conversations={room: 1})
        await socket.hears("gap", conversation_id=room)


async def of_calls(
    contract: Contract, ann: Client, at_ann: Socket, bob: Client, at_bob: Socket, cid: Client
) -> None:
    room = await group(ann, bob, cid)
    await ann.call("PUT", f"/v1/conversations/{room}/settings", {"recording_enabled": True})
    begun = {"conversation_id": room, "call_type": "audio"}
    declined = (await ann.create("/v1/calls/initiate", begun))["call_id"]
    await at_bob.hears("call_incoming")
    for each in (bob, cid):
        await each.call("POST", f"/v1/calls/{declined}/decline", {})
    await at_ann.hears("call_declined")
    await at_ann.hears("call_ended")
    call_id = (await ann.create("/v1/calls/initiate", begun))["call_id"]
    place = f"/v1/calls/{call_id}"
    await bob.call("POST", f"{place}/join")
    await at_ann.hears("call_answered")
    await cid.call("POST", f"{place}/decline", {})
    missed = {"conversation_id": await direct(cid, bob), "call_type": "audio"}
    await cid.create("/v1/calls/initiate", missed)
    await at_bob.hears("call_missed")

    async with opened(contract, "call", ann, call_id=call_id) as one:
        await one.say("join", instance_id="page")
        async with opened(contract, "call", bob, call_id=call_id) as lost:
            await lost.say("join", instance_id="page")
            token = (await lost.hears("peers"))["resume_token"]
            await lost.wire.cut()
        await one.hears("peer_reconnecting")
        async with opened(contract, "call", bob, call_id=call_id) as other:
            await other.say("resume", instance_id="page", resume_token=token)
            peer = (await other.hears("resumed"))["peer_id"]
            await one.hears("join")
            await one.hears("peer_resumed")
            await one.hears("token_expiring")
            await of_signaling(one, ann, other, peer)
            await of_recording(place, one, ann, other, bob)
            await cid.call("POST", f"{place}/join")
            async with opened(contract, "call", cid, call_id=call_id) as third:
                await third.say("join", instance_id="page")
                await third.say("leave")
            await one.hears("leave", user_id=cid.me.user_id)
            await ann.call("POST", f"{place}/end")
            await other.hears("call_ended")


async def of_signaling(one: Socket, ann: Client, other: Socket, peer: str) -> None:
    for kind in ("offer", "answer", "ice_candidate", "renegotiate"):
        await one.say(kind, target_id=peer, epoch=1, sdp="v=0")
        await other.hears(kind, sdp="v=0")
    for kind in ("mute_audio", "mute_video", "screen_share_started", "screen_share_stopped"):
        await one.say(kind)
        await other.hears(kind)
    assert (await one.say("ping"))["type"] == "pong"
    assert (await one.say("auth", token=ann.me.access_token))["type"] == "ack"
    assert (await one.say("offer", target_id=new_id()))["code"] == "NOT_FOUND"


async def of_recording(place: str, one: Socket, ann: Client, other: Socket, bob: Client) -> None:
    recording = (await ann.create(f"{place}/recording/start", {}))["recording_id"]
    await other.hears("recording_requested")
    await bob.call("POST", f"{place}/recording/consent", {"recording_id": recording, "consent": True})
    await one.hears("recording_consent", user_id=bob.me.user_id)
    await other.hears("recording_started")
    await ann.call("POST", f"{place}/recording/stop", {"recording_id": recording})
    await other.hears("recording_stopped")


async def of_an_outage(
    contract: Contract, server: Server, ann: Client, at_ann: Socket, bob: Client, at_bob: Socket
) -> None:
    """Of what is accepted meanwhile one is stored, and one comes back to a sender who was removed."""
    rooms = [await group(ann, bob), await group(ann, bob)]
    for number, room in enumerate(rooms):  # which the server then knows
        await at_bob.say("chat", conversation_id=room, content="before", client_message_id=f"before{number}")
    server.signal(signal.SIGUSR1)
    for number, room in enumerate(rooms):
        said = {"conversation_id": room, "content": "meanwhile", "client_message_id": f"meanwhile{number}"}
        assert (await at_bob.say("chat", **said))["status"] == "accepted"
        await at_ann.hears("chat", conversation_id=room, provisional=True)
    async with opened(contract, "chat", ann, resume="1") as again:
        history = (await again.hears("hello"))["history_id"]
        await again.wire.send(
            json.dumps({"type": "resume", "history_id": history, "conversations": dict.fromkeys(rooms, 1)})
        )
        await again.hears("resuming")
        with closing(sqlite3.connect(server.data_dir / "secureconnect.db")) as table, table:
            table.execute(
                "DELETE FROM members WHERE conversation_id = ? AND user_id = ?", (rooms[1], bob.me.user_id)
            )
        server.signal(signal.SIGUSR2)
        await at_bob.hears("stored", conversation_id=rooms[0])
        await at_bob.hears("rejected", conversation_id=rooms[1])
        await at_ann.hears("message_withdrawn", conversation_id=rooms[1])
        await again.hears("resumed")


async def of_the_end(contract: Contract, server: Server, ann: Client, at_ann: Socket, bob: Client) -> None:
    begun = {"conversation_id": await direct(ann, bob), "call_type": "audio"}
    call_id = (await ann.create("/v1/calls/initiate", begun))["call_id"]
    async with opened(contract, "call", ann, call_id=call_id) as phone:
        await phone.say("join", instance_id="page")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, server.terminate)
            for socket in (at_ann, phone):
                await socket.hears("going_away")
