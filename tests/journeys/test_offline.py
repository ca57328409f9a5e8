"""A day in a group: who looks on, who was away for all of it and comes back, and who looks for the first time
hold the same; who leaves loses it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from journeys.picture import Picture
from kit.doors import socket, two_doors
from kit.fixtures import StartServer
from kit.people import direct, download_url, group, people, upload
from kit.server import Server
from kit.wait import until
from secureconnect.client import ApiError, Client, Stream
from secureconnect.client.held import conversation_of
from secureconnect.client.wire import Refused, connect

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


async def look_on(stream: Stream, picture: Picture) -> None:
    async for event in stream:
        picture.take(event)


async def test_a_day_in_a_group_is_missed_and_made_up_for(start_server: StartServer) -> None:
    here, there = two_doors(start_server)
    async with (
        people(here.url, "ann", "bob", "cid", "dee") as [ann, bob, cid, dee],
        Client(there.url, cid.me) as far,
        far.stream() as at_cid,
        trio.open_nursery() as nursery,
    ):
        room, two = await group(ann, bob, cid, dee), await direct(ann, bob)
        first = await ann.send_message(room, "good morning", "first")
        held = {each: (await standing(bob, each))["change"] for each in (room, two)}
        back, live = await Picture.first(bob, room), await Picture.first(cid, room)
        assert back == live
        nursery.start_soon(look_on, at_cid, live)

        # bob is away
        message = await ann.send_message(room, "helo", "second")
        about = f"/v1/messages/{message['message_id']}"
        await ann.edit_message(message["message_id"], "hello")
        await cid.call("PUT", f"{about}/reactions/👍")
        await dee.call("PUT", f"{about}/reactions/👍")
        await dee.call("DELETE", f"{about}/reactions/👍")
        await ann.call("POST", f"/v1/conversations/{room}/pins/{message['message_id']}")
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
            changes = [event["change"] for event in told if conversation_of(event) == each]
            assert changes == list(range(held[each] + 1, now["change"] + 1)), "all of it, once, in order"
        kinds = [event["type"] for event in told if conversation_of(event) == room and not is_notice(event)]
        assert kinds == [
            "chat",
            "message_edited",
            *["reaction"] * 3,
            "message_pinned",
            "poll_created",
            "poll_voted",
            "chat",
            "message_deleted",
            "user_left",
            "conversation_updated",
        ]
        for event in told:
            back.take(event)
        await until(lambda: live.change == back.change)
        assert back == live
        assert back == await Picture.first(bob, room)
        assert back.messages[message["message_id"]]["reactions"] == {"👍": 1}
        assert back.messages[carries["message_id"]]["file_ids"] == [file_id]
        assert back.polls[poll["poll_id"]]["total_votes"] == 1
        assert await download_url(bob, file_id)

        # and goes for good
        held = {each: at["change"] for each, at in resumed["conversations"].items()}
        await bob.call("DELETE", f"/v1/conversations/{room}/participants/{bob.me.user_id}")
        await ann.send_message(room, "goodbye", "fourth")
        told, resumed = await come_back(here, bob, held)
        assert set(resumed["conversations"]) == {two}
        assert told == []
        assert [each["conversation_id"] for each in await bob.conversations()] == [two]
        for path in (
            f"/v1/conversations/{room}",
            f"/v1/conversations/{room}/pins",
            f"/v1/messages?conversation_id={room}",
            about,
            f"{about}/history",
            f"/v1/polls?conversation_id={room}",
            f"/v1/polls/{poll['poll_id']}",
            f"/v1/storage/files?conversation_id={room}",
            f"/v1/storage/files/{file_id}",
            f"/v1/storage/download-url/{file_id}",
        ):
            with pytest.raises(ApiError, match="NOT_FOUND"):
                await bob.call("GET", path)
        with pytest.raises(Refused) as refused:
            async with socket(here, bob, room):
                pass
        assert refused.value.status == 404
        nursery.cancel_scope.cancel()


def is_notice(event: Frame) -> bool:
    return bool(event["type"] == "chat" and event["message_type"] == "system")
