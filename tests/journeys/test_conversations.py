"""A group from its first day to its last: roles, notices, pins, muting, and deleting it."""

from __future__ import annotations

import json

import pytest
import trio

from kit.doors import two_doors
from kit.fixtures import StartServer
from kit.people import group, next_event, people, upload
from kit.server import Server
from kit.wait import until
from secureconnect.client import ApiError, Client, Event, Stream
from secureconnect.identity import new_id

from .test_offline import come_back

CONTENT = b"what is in it" * 100


async def refusal(client: Client, method: str, path: str) -> str:
    with pytest.raises(ApiError) as refused:
        await client.call(method, path)
    return refused.value.code


async def used_bytes(client: Client) -> int:
    return int((await client.call("GET", "/v1/storage/quota"))["used_bytes"])


async def test_a_group_lives_and_is_deleted(start_server: StartServer) -> None:
    """On two nodes, where there can be two; both are killed just after, and what is left of it goes all the
    same."""
    here, there = two_doors(start_server, CHAT__RETENTION_PASS_S="3600", CHAT__DISAPPEAR_PASS_S="0.1")
    async with (
        people(here.url, "ann", "bob", "cid") as [ann, bob, cid],
        Client(there.url, bob.me) as far,
        Client(there.url, ann.me) as phone,
    ):
        room = await group(ann, bob)
        path, file_id = f"/v1/conversations/{room}", await upload(ann, CONTENT)
        said = {"conversation_id": room, "content": "", "message_type": "file", "file_ids": [file_id]}
        message_id = (await ann.call("POST", "/v1/messages", said | {"client_message_id": new_id()}))[
            "message_id"
        ]
        async with far.stream() as at_bob, phone.stream() as at_phone:
            await next_event(at_bob, "online")
            await next_event(at_phone, "online")
            await ann.call("POST", f"{path}/participants", {"user_id": cid.me.user_id})
            notice = await next_event(at_bob, "chat", message_type="system")
            assert notice["metadata"] == {"event": "member_added", "user_id": cid.me.user_id}
            await a_secret_disappears(room, ann, (far, at_bob), (cid, there))
            assert await refusal(far, "POST", f"{path}/pins/{message_id}") == "FORBIDDEN"
            await ann.call("PATCH", f"{path}/participants/{bob.me.user_id}", {"role": "admin"})
            await far.call("POST", f"{path}/pins/{message_id}")
            await next_event(at_phone, "message_pinned", message_id=message_id)
            [pin] = (await ann.call("GET", f"{path}/pins"))["pins"]
            assert (pin["message"]["message_id"], pin["pinned_by"]) == (message_id, bob.me.user_id)
            await ann.call("POST", f"{path}/mute", {})
            assert (await next_event(at_phone, "muted"))["is_muted"]
            assert [each["is_muted"] for each in await phone.conversations()] == [True]
            assert [each["is_muted"] for each in await far.conversations()] == [False]

            assert await refusal(far, "DELETE", path) == "FORBIDDEN"
            await ann.call("DELETE", path)
            for stream, others in ((at_bob, (ann, cid)), (at_phone, (bob, cid))):
                told = await first_of_each(stream, "conversation_deleted", "e2ee")
                assert told["conversation_deleted"]["conversation_id"] == room
                strangers = {each.split(":")[0] for each in told["e2ee"]["device_lists"]["left"]}
                assert strangers == {f"@{other.me.user_id}" for other in others}
        for client in (ann, far):
            assert await refusal(client, "GET", path) == "NOT_FOUND"
        assert await refusal(far, "GET", f"/v1/storage/files/{file_id}") == "NOT_FOUND"
        assert await used_bytes(ann) == len(CONTENT)
        for server in {here, there}:
            server.kill()
            server.settings["CHAT__RETENTION_PASS_S"] = "0.1"
            await trio.to_thread.run_sync(server.start)
        await until(lambda: _is_free(ann), within_s=20)
        await ann.call("DELETE", path)  # once more, and nothing happens
        assert await ann.conversations() == []


async def first_of_each(stream: Stream, *kinds: str) -> dict[str, Event]:
    """In whatever order they come."""
    found: dict[str, Event] = {}
    with trio.fail_after(5):
        async for event in stream:
            found.setdefault(event["type"], event)
            if found.keys() >= set(kinds):
                return found
    raise AssertionError("the stream ended")


async def a_secret_disappears(
    room: str, ann: Client, here: tuple[Client, Stream], away: tuple[Client, Server]
) -> None:
    """From who watches, from who was away, and from what is asked for."""
    path, (bob, at_bob), (cid, door) = f"/v1/conversations/{room}", here, away
    held = {room: (await cid.call("GET", path))["change"]}
    await ann.call("PUT", f"{path}/settings", {"disappear_after_s": 1})
    notice = await next_event(at_bob, "chat", message_type="system")
    assert notice["metadata"] == {"event": "disappearing_changed", "disappear_after_s": 1}
    sent = await ann.send_message(room, "a secret", new_id())
    message_id, end = sent["message_id"], sent["expires_at"]
    shown = await next_event(at_bob, "chat", message_id=message_id)
    assert (shown["content"], shown["expires_at"]) == ("a secret", end)
    gone = await next_event(at_bob, "message_deleted", message_id=message_id)
    assert gone["deleted_at"] == end
    for client in (ann, bob, cid):
        found = await client.call("GET", f"/v1/messages/{message_id}")
        assert (found["content"], found["deleted_at"]) == ("", end)
        assert (await client.call("GET", "/v1/messages/search?q=secret"))["hits"] == []
        [line] = await client.conversations()
        assert line["last_message"]["content"] == ""
    told, resumed = await come_back(door, cid, held)
    assert [each["type"] for each in told] == ["conversation_updated", "chat", "chat", "message_deleted"]
    assert "secret" not in json.dumps(told)
    assert resumed["conversations"][room]["unread_count"] == 0
    await ann.call("PUT", f"{path}/settings", {"disappear_after_s": 0})
    assert (await next_event(at_bob, "chat", message_type="system"))["expires_at"] is None


async def _is_free(client: Client) -> bool:
    return await used_bytes(client) == 0
