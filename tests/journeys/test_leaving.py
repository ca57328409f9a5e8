"""People who want to be left alone, and people who go and take what is theirs with them."""

from __future__ import annotations

import io
import json
from typing import Any
from zipfile import ZipFile

import pytest

from kit.command import beside
from kit.fixtures import StartServer
from kit.http import plain
from kit.olm import Encrypting, server_name
from kit.people import PASSWORD, direct, download_url, group, next_event, people, upload
from kit.wait import until
from kit.whereabouts import whereabouts
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
    server = start_server(AUTH__DELETION_GRACE_DAYS="0", CHAT__LAST_SEEN_SAVE_S="0.1")
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

        async def is_told_when() -> bool:
            return "last_seen" in [each["kind"] for each in (await export(ann))["chat.json"]]

        await ann.call("POST", "/v1/presence", {"status": "online"})
        await until(is_told_when)
        await ann.call("PUT", "/v1/users/me/privacy", {"last_seen": False})
        assert not await is_told_when(), "what is shown to nobody is not kept"

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
        told = [each["message_type"] for each in await cid.history(ours, 10)]
        assert told == ["text"] * 5 + ["system"]
        both = (await bob.conversation(pair))["participants"]
        assert {each["display_name"] for each in both} == {"deleted user", "bob"}
        async with Client(server.url) as late:
            with pytest.raises(ApiError) as refusal:
                await late.login(name, PASSWORD)
            assert refusal.value.code == "INVALID_CREDENTIALS"


async def test_nothing_of_a_person_is_left(start_server: StartServer) -> None:
    """Asked for, taken back, asked for again; then everything that is kept is searched."""
    server = start_server()
    async with people(server.url, "ann", "bob", "cid") as (ann, bob, cid):
        name, room = ann.me.username, await direct(ann, bob)
        shown = {"display_name": "Ann of Nowhere", "avatar_url": "https://example.org/face-of-ann.png"}
        await ann.call("PATCH", "/v1/users/me", shown)
        await ann.call("PATCH", f"/v1/auth/sessions/{ann.me.session_id}", {"device_name": "the phone of ann"})
        await Encrypting(ann, await server_name(ann)).publish()
        await ann.call("POST", f"/v1/users/{bob.me.user_id}/friend")
        await ann.call("POST", f"/v1/users/{cid.me.user_id}/block")
        about = {"user_id": cid.me.user_id, "reason": "spam", "comment": "it is me whom he pesters"}
        await ann.call("POST", "/v1/reports", about)
        file_id = await upload(ann, b"the content of her file", "cv-of-ann.txt")
        url = await download_url(ann, file_id)
        await ann.send_message(room, "look", "m1")

        account = (await export(ann))["account.json"]
        assert [each["name"] for each in account["devices"]] == ["the phone of ann"]
        assert [each["identity_key"] for each in account["device_keys"]]
        assert [each["user_id"] for each in account["friend_requests"]] == [bob.me.user_id]
        assert [each["user_id"] for each in account["blocked"]] == [cid.me.user_id]
        assert [each["comment"] for each in account["reports"]] == [about["comment"]]

        await ann.call("DELETE", "/v1/users/me", {"password": PASSWORD})
        assert await bob.search_users(name) == []
        await ann.login(name, PASSWORD)
        assert (await ann.profile())["delete_at"]
        await ann.call("POST", "/v1/users/me/restore")
        assert [each["username"] for each in await bob.search_users(name)] == [name]
        await ann.call("DELETE", "/v1/users/me", {"password": PASSWORD})

        personal = [name, *shown.values(), "the phone of ann", about["comment"], "cv-of-ann.txt"]
        assert all([await whereabouts(server, text) for text in personal]), (
            "what is not found below is found now"
        )
        server.settings["AUTH__DELETION_GRACE_DAYS"] = "0"
        server.restart()
        await ann.login(name, PASSWORD)
        await ann.call("DELETE", "/v1/users/me", {"password": PASSWORD})
        async with plain() as http:
            assert (await http.get(url)).status_code in (403, 404)
        (message,) = await bob.history(room, 10)
        assert (message["sender_id"], message["content"]) == (ann.me.user_id, "look")
        assert (await bob.user(ann.me.user_id))["display_name"] == "deleted user"
    assert server.terminate() == 0
    assert {text: places for text in personal if (places := await whereabouts(server, text))} == {}
    verified = await beside(server, "audit", "verify")
    assert "the personal fields are erased" in verified
