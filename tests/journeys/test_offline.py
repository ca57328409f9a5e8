"""Whoever was away for all of it comes back and holds what everybody else does."""

from __future__ import annotations

import json
from typing import Any

import trio

from kit.doors import two_doors
from kit.fixtures import StartServer
from kit.people import direct, download_url, group, people, upload
from kit.server import Server
from secureconnect.client import ApiError, Client
from secureconnect.client.wire import connect

Frame = dict[str, Any]
BACK_S = 10.0


async def come_back(server: Server, client: Client, held: dict[str, int]) -> tuple[list[Frame], Frame]:
    """What is replayed to a device that holds these positions, and how that ends."""
    headers = [(b"authorization", f"Bearer {client.me.access_token}".encode())]
    url = f"ws{server.url.removeprefix('http')}/v1/ws/chat?resume=1"
    told: list[Frame] = []
    with trio.fail_after(BACK_S):
        async with connect(url, headers) as wire:
            hello = json.loads(await wire.receive())
            frame = {"type": "resume", "history_id": hello["history_id"], "conversations": held}
            await wire.send(json.dumps(frame))
            while (event := json.loads(await wire.receive()))["type"] != "resumed":
                if "change" in event:
                    told.append(event)
    return told, event


async def standing(client: Client, room: str) -> Frame:
    found: Frame = await client.call("GET", f"/v1/conversations/{room}")
    return found


async def test_a_day_in_a_group_is_missed_and_made_up_for(start_server: StartServer) -> None:
    here, there = two_doors(start_server)
    async with people(here.url, "ann", "bob", "cid", "dee") as [ann, bob, cid, dee]:
        room, two = await group(ann, bob, cid, dee), await direct(ann, bob)
        first = await ann.send_message(room, "good morning", "first")
        held = {each: (await standing(bob, each))["change"] for each in (room, two)}

        # bob is away
        message = await ann.send_message(room, "helo", "second")
        about = f"/v1/messages/{message['message_id']}"
        await ann.edit_message(message["message_id"], "hello")
        await cid.call("PUT", f"{about}/reactions/👍")
        await dee.call("PUT", f"{about}/reactions/👍")
        await dee.call("DELETE", f"{about}/reactions/👍")
        question = {"conversation_id": room, "question": "When?", "options": ["now", "later"]}
        poll = await ann.call("POST", "/v1/polls", question)
        option = {"option_ids": [poll["options"][1]["option_id"]]}
        await cid.call("POST", f"/v1/polls/{poll['poll_id']}/vote", option)
        file_id = await upload(cid, b"what is in it")
        shared = {"conversation_id": room, "content": "", "message_type": "file", "file_ids": [file_id]}
        carries = await cid.call("POST", "/v1/messages", shared)
        await ann.delete_message(first["message_id"])
        await dee.call("DELETE", f"/v1/conversations/{room}/participants/{dee.me.user_id}")
        await ann.call("PATCH", f"/v1/conversations/{room}", {"title": "renamed"})
        await ann.send_message(two, "where are you?", "third")

        told, resumed = await come_back(there, bob, held)
        for each in (room, two):
            now = await standing(bob, each)
            at = resumed["conversations"][each]
            assert (at["change"], at["seq"], at["unread_count"]) == (
                now["change"],
                now["last_seq"],
                now["unread_count"],
            )
            changes = [event["change"] for event in told if of(event) == each]
            assert changes == list(range(held[each] + 1, now["change"] + 1)), "all of it, once, in order"
        kinds = [event["type"] for event in told if of(event) == room and not is_notice(event)]
        assert kinds == [
            "chat",
            "message_edited",
            *["reaction"] * 3,
            "poll_created",
            "poll_voted",
            "chat",
            "message_deleted",
            "user_left",
            "conversation_updated",
        ]
        by_id = {event["message_id"]: event for event in told if event["type"] == "chat"}
        assert by_id[message["message_id"]]["content"] == "hello"
        assert by_id[carries["message_id"]]["file_ids"] == [file_id]
        counts = [event["count"] for event in told if event["type"] == "reaction"]
        assert counts == [1, 2, 1]
        assert await download_url(bob, file_id)

        # and goes for good
        held = {each: at["change"] for each, at in resumed["conversations"].items()}
        await bob.call("DELETE", f"/v1/conversations/{room}/participants/{bob.me.user_id}")
        told, resumed = await come_back(here, bob, held)
        assert set(resumed["conversations"]) == {two}
        assert told == []
        try:
            await download_url(bob, file_id)
        except ApiError as refusal:
            lost = refusal.code
        assert lost == "NOT_FOUND"


def of(event: Frame) -> str:
    """The conversation it is about."""
    inner = event.get("poll") or event.get("conversation") or event
    return str(inner["conversation_id"])


def is_notice(event: Frame) -> bool:
    return bool(event["type"] == "chat" and event["message_type"] == "system")
