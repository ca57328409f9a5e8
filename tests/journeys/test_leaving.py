"""People who want to be left alone, and people who go and take what is theirs with them."""

from __future__ import annotations

import io
import json
from typing import Any
from zipfile import ZipFile

import pytest

from kit.fixtures import StartServer
from kit.people import PASSWORD, direct, group, next_event, people, upload
from secureconnect.client import ApiError, Client, StreamEnded


async def export(client: Client) -> dict[str, Any]:
    reply = await client.reply("GET", "/v1/users/me/export")
    assert reply.headers["content-type"] == "application/zip"
    with ZipFile(io.BytesIO(reply.content)) as archive:
        return {name: json.loads(archive.read(name)) for name in archive.namelist()}


async def test_who_is_blocked_vanishes(start_server: StartServer) -> None:
    server = start_server()
    async with people(server.url, "ann", "bob") as (ann, bob):
        room = await direct(ann, bob)
        async with ann.stream() as at_ann:
            await next_event(at_ann, "online")
            async with bob.stream() as at_bob:
                await next_event(at_ann, "presence", user_id=bob.me.user_id, status="online")
                assert (await ann.user(bob.me.user_id))["status"] == "online"
                await bob.call("POST", f"/v1/users/{ann.me.user_id}/block")
                await next_event(at_ann, "presence", user_id=bob.me.user_id, status="offline")
                await next_event(at_bob, "presence", user_id=ann.me.user_id, status="offline")
                assert (await ann.user(bob.me.user_id))["status"] is None
                both = (await ann.conversation(room))["participants"]
                shown = {each["user_id"]: each["status"] for each in both}
                assert shown == {ann.me.user_id: "online", bob.me.user_id: "offline"}
                assert await ann.search_users(bob.me.username) == []
                with pytest.raises(ApiError) as refusal:
                    await ann.send_message(room, "are you there?", "m1")
                assert refusal.value.code == "FORBIDDEN"


async def test_who_leaves_takes_their_data_and_leaves_their_words(start_server: StartServer) -> None:
    server = start_server(AUTH__DELETION_GRACE_DAYS="0")
    async with people(server.url, "ann", "bob", "cid") as (ann, bob, cid):
        name = ann.me.username
        ours, pair = await group(ann, bob, cid), await direct(ann, bob)
        for number in range(5):
            await ann.send_message(ours, f"word {number}", f"g{number}")
        await ann.send_message(pair, "for bob", "d")
        await bob.send_message(pair, "for ann", "d")
        file_id = await upload(ann, b"what is in it")
        await ann.call("PATCH", "/v1/users/me", {"display_name": "Änn"})

        files = await export(ann)
        assert files["account.json"]["user"]["display_name"] == "Änn"
        said = [each["content"] for each in files["chat.json"] if each["kind"] == "message"]
        assert sorted(said) == ["for bob", *(f"word {number}" for number in range(5))]
        rooms = [each["conversation_id"] for each in files["chat.json"] if each["kind"] == "conversation"]
        assert sorted(rooms) == sorted((ours, pair))
        assert [each["file_id"] for each in files["storage.json"]] == [file_id]

        async with ann.stream() as at_ann, bob.stream() as at_bob:
            await next_event(at_ann, "online")
            await next_event(at_bob, "online")
            await ann.call("DELETE", "/v1/users/me", {"password": PASSWORD})
            heir = await next_event(at_bob, "member_updated", conversation_id=ours)
            assert heir["role"] == "owner"
            left = await next_event(at_bob, "user_left", conversation_id=ours)
            assert left["user"]["display_name"] == "deleted user"
            with pytest.raises(StreamEnded) as ended:
                await next_event(at_ann, "nothing")
            assert ended.value.code == 4401
        seen = await bob.user(ann.me.user_id)
        assert (seen["display_name"], seen["avatar_url"]) == ("deleted user", None)
        assert [each["content"] for each in await bob.history(pair, 10)] == ["for bob", "for ann"]
        assert len(await cid.history(ours, 10)) == 5
        both = (await bob.conversation(pair))["participants"]
        assert {each["display_name"] for each in both} == {"deleted user", "bob"}
        async with Client(server.url) as late:
            with pytest.raises(ApiError) as refusal:
                await late.login(name, PASSWORD)
            assert refusal.value.code == "INVALID_CREDENTIALS"
