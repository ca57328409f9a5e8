"""Files in conversations: who may read one, from when on, and until when."""

from __future__ import annotations

from typing import Any

import pytest

from kit.doors import two_doors
from kit.fixtures import StartServer
from kit.http import plain
from kit.people import (
    PASSWORD,
    direct,
    download_url,
    group,
    make_admin,
    next_event,
    people,
    put,
    upload,
    whole,
)
from kit.server import Server
from kit.wait import until
from secureconnect.client import ApiError, Client
from secureconnect.identity import new_id

FILES = "/v1/storage/files"
CONTENT = bytes(range(256)) * 100


async def say(client: Client, conversation: str, *file_ids: str, **more: Any) -> dict[str, Any]:
    """A message that carries these."""
    body = {"conversation_id": conversation, "content": "", "message_type": "file", "file_ids": file_ids}
    message: dict[str, Any] = await client.call("POST", "/v1/messages", body | more)
    return message


async def sees(client: Client, file_id: str) -> bool:
    """Whether they may: the record, an address, and what lies there agree."""
    try:
        await client.call("GET", f"{FILES}/{file_id}")
    except ApiError as refusal:
        if refusal.code != "NOT_FOUND":
            raise
        with pytest.raises(ApiError, match="NOT_FOUND"):
            await download_url(client, file_id)
        return False
    async with plain(follow_redirects=True) as http:
        url = await download_url(client, file_id)
        answer = await http.get(url)
        part = await http.get(url, headers={"Range": "bytes=-10", "If-Range": answer.headers["etag"]})
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert (part.status_code, part.content) == (206, CONTENT[-10:])
    assert answer.headers["content-type"] == "application/octet-stream", "whatever it is said to be"
    assert answer.headers["content-disposition"].startswith("attachment; filename=")
    return True


async def seen_by(file_id: str, *clients: Client) -> list[bool]:
    return [await sees(client, file_id) for client in clients]


async def listed(client: Client, conversation: str) -> list[str]:
    page = await client.call("GET", FILES, query={"conversation_id": conversation})
    return [file["file_id"] for file in page["files"]]


async def used_bytes(client: Client) -> int:
    return int((await client.call("GET", "/v1/storage/quota"))["used_bytes"])


async def refused(code: str, client: Client, conversation: str, *file_ids: str, **more: Any) -> None:
    with pytest.raises(ApiError) as refusal:
        await say(client, conversation, *file_ids, **more)
    assert refusal.value.code == code


async def test_a_file_is_shared_and_taken_back(start_server: StartServer) -> None:
    """Two nodes, where there can be two."""
    here, there = two_doors(start_server)
    async with (
        people(here.url, "ann", "bob", "cid", "dan") as [ann, bob, cid, dan],
        Client(there.url, bob.me) as far,
    ):
        room, elsewhere = await group(ann, bob, cid), await group(bob, dan)
        file_id = await upload(ann, CONTENT)
        assert await seen_by(file_id, ann, bob, dan) == [True, False, False]
        await refused("VALIDATION", bob, room, file_id)
        await refused("VALIDATION", ann, room, new_id())
        await refused("VALIDATION", ann, room, *(new_id() for _ in range(21)))

        async with far.stream() as at_bob:
            await next_event(at_bob, "online")
            first = await say(ann, room, file_id, file_id)
            assert first["file_ids"] == [file_id]
            event = await next_event(at_bob, "chat", message_id=first["message_id"])
            assert event["file_ids"] == [file_id]
        assert await seen_by(file_id, ann, far, cid, dan) == [True, True, True, False]
        assert await listed(cid, room) == [file_id]
        assert (await far.call("GET", FILES))["files"] == [], "it is not his"
        with pytest.raises(ApiError, match="NOT_FOUND"):
            await far.call("DELETE", f"{FILES}/{file_id}")
        with pytest.raises(ApiError, match="NOT_FOUND"):
            await listed(dan, room)

        # whoever joins sees what is said from then on; whoever leaves sees nothing more
        await ann.call("POST", f"/v1/conversations/{room}/participants", {"user_id": dan.me.user_id})
        assert (await sees(dan, file_id), await listed(dan, room)) == (False, [])
        second = await say(ann, room, file_id)
        assert (await sees(dan, file_id), await listed(dan, room)) == (True, [file_id])
        await ann.call("DELETE", f"/v1/conversations/{room}/participants/{cid.me.user_id}")
        url = await download_url(dan, file_id)
        await dan.call("DELETE", f"/v1/conversations/{room}/participants/{dan.me.user_id}")
        if "/v1/storage/" in url:  # the store knows nobody
            async with plain() as http:
                assert (await http.get(url)).status_code == 404, "nor at an address from before"
        assert await seen_by(file_id, bob, cid, dan) == [True, False, False]

        # to pass it on is no more than to read it
        forward = f"/v1/messages/{first['message_id']}/forward"
        [forwarded] = (await far.call("POST", forward, {"conversation_ids": [elsewhere]}))["messages"]
        assert (forwarded["file_ids"], await seen_by(file_id, dan, cid)) == ([file_id], [True, False])
        await bob.delete_message(forwarded["message_id"])
        assert not await sees(dan, file_id)
        passed_on = await say(far, elsewhere, file_id)
        assert await seen_by(file_id, dan, cid) == [True, False]
        await ann.delete_message(first["message_id"])
        await ann.delete_message(second["message_id"])
        assert await seen_by(file_id, ann, bob, dan) == [True, True, True]
        assert (await listed(bob, room), await listed(bob, elsewhere)) == ([], [file_id])
        assert await used_bytes(ann) == len(CONTENT), "whoever passes it on pays nothing"
        await bob.delete_message(passed_on["message_id"])
        assert await seen_by(file_id, ann, bob, dan) == [False, False, False]
        assert await used_bytes(ann) == 0

        # its owner takes it from everybody
        file_id = await upload(ann, CONTENT)
        kept = await say(ann, room, file_id)
        async with far.stream() as at_bob:
            await next_event(at_bob, "online")
            await ann.call("DELETE", f"{FILES}/{file_id}")
            event = await next_event(at_bob, "file_updated")
            assert (event["file"]["file_id"], event["file"]["status"]) == (file_id, "deleted")
        assert await seen_by(file_id, ann, bob) == [False, False]
        message = await bob.call("GET", f"/v1/messages/{kept['message_id']}")
        assert message["file_ids"] == [file_id], "what was said stays"


async def test_where_files_go_and_where_not(start_server: StartServer) -> None:
    server = start_server()
    await they_are_uploaded_into_conversations(server)
    await encrypted_conversations_take_no_plain_one(server)
    await an_address_ends_with_a_ban_and_a_file_with_its_owner(server)


async def they_are_uploaded_into_conversations(server: Server) -> None:
    async with people(server.url, "ann", "bob", "cid") as [ann, bob, cid]:
        room = await group(ann, bob)
        where = {"conversation_id": room}
        with pytest.raises(ApiError, match="NOT_FOUND"):
            await begin(cid, **where)
        async with bob.stream() as at_bob:
            await next_event(at_bob, "online")
            file_id = await uploaded(ann, **where)
            event = await next_event(at_bob, "file_updated")
            assert (event["file"]["file_id"], event["file"]["status"]) == (file_id, "completed")
        assert await seen_by(file_id, ann, bob, cid) == [True, True, False]
        assert await listed(bob, room) == [file_id]
        # the message that carries it is where it lies then
        message = await say(ann, room, file_id)
        await ann.delete_message(message["message_id"])
        assert await seen_by(file_id, ann, bob) == [False, False]

        # one who leaves meanwhile keeps it for themselves
        begun = await begin(bob, **where)
        await bob.call("DELETE", f"/v1/conversations/{room}/participants/{bob.me.user_id}")
        await put(whole(bob, begun["upload_url"]), CONTENT)
        await bob.call("POST", "/v1/storage/upload-complete", {"file_id": begun["file_id"]})
        assert await seen_by(begun["file_id"], ann, bob) == [False, True]

        # two who have parted send each other nothing
        two = await direct(ann, cid)
        file_id = await uploaded(ann, conversation_id=two)
        assert await seen_by(file_id, ann, cid) == [True, True]
        await cid.call("POST", f"/v1/users/{ann.me.user_id}/block")
        await refused("FORBIDDEN", ann, two, file_id)
        with pytest.raises(ApiError, match="FORBIDDEN"):
            await begin(ann, conversation_id=two)
        assert await sees(cid, file_id), "what was said before stays readable, and so does this"


async def encrypted_conversations_take_no_plain_one(server: Server) -> None:
    async with people(server.url, "ann", "bob") as [ann, bob]:
        asked = {"type": "group", "participant_ids": [bob.me.user_id], "is_e2ee_enabled": True}
        room = (await ann.call("POST", "/v1/conversations", asked))["conversation_id"]
        plain = await upload(ann, CONTENT)
        named = await uploaded(ann, is_encrypted=True, file_name="plan.pdf")
        metadata = {"iv": "AAECAw==", "v": 2}
        closed = await uploaded(ann, is_encrypted=True, file_name=None, encryption_metadata=metadata)
        secret = {"content": "c2VjcmV0", "is_encrypted": True}
        for file_id in (plain, named):
            await refused("E2EE_REQUIRED", ann, room, file_id, **secret)
        await say(ann, room, closed, **secret)
        assert await seen_by(closed, ann, bob) == [True, True]
        told = await bob.call("GET", f"{FILES}/{closed}")
        assert (told["file_name"], told["encryption_metadata"]) == ("encrypted", metadata)
        for said in ({"is_encrypted": False}, {"is_encrypted": True, "file_name": "plan.pdf"}):
            with pytest.raises(ApiError, match="E2EE_REQUIRED"):
                await begin(ann, conversation_id=room, **said)
        with pytest.raises(ApiError, match="VALIDATION"):
            await begin(ann, file_name=None)
        assert await sees(bob, await uploaded(ann, conversation_id=room, is_encrypted=True, file_name=None))


async def begin(client: Client, **said: Any) -> dict[str, Any]:
    """What is None is left out."""
    told = {"file_name": "a.bin", "file_size": len(CONTENT), "content_type": "application/pdf"} | said
    told = {name: value for name, value in told.items() if value is not None}
    begun: dict[str, Any] = await client.call("POST", "/v1/storage/upload-url", told)
    return begun


async def uploaded(client: Client, **said: Any) -> str:
    begun = await begin(client, **said)
    await put(whole(client, begun["upload_url"]), CONTENT)
    await client.call("POST", "/v1/storage/upload-complete", {"file_id": begun["file_id"]})
    return str(begun["file_id"])


async def an_address_ends_with_a_ban_and_a_file_with_its_owner(server: Server) -> None:
    """The address in the folder: the store knows nobody."""
    async with people(server.url, "ann", "bob", "admin") as [ann, bob, admin]:
        await make_admin(server, admin)
        room = await group(ann, bob)
        file_id, other = await upload(ann, CONTENT), await upload(bob, CONTENT)
        await say(ann, room, file_id)
        await say(bob, room, other)
        url = await download_url(bob, file_id)
        await admin.login(admin.me.username, PASSWORD)
        await admin.call("POST", f"/v1/admin/users/{bob.me.user_id}/ban", {})
        if "/v1/storage/" in url:
            async with plain() as http:
                answer = await http.get(url)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "ADDRESS_EXPIRED")
        assert await sees(ann, other), "what he has shared stays"
        await admin.call("DELETE", f"/v1/admin/users/{bob.me.user_id}")
        await until(lambda: is_gone(ann, other))
        assert await listed(ann, room) == [file_id]


async def is_gone(client: Client, file_id: str) -> bool:
    try:
        await client.call("GET", f"{FILES}/{file_id}")
    except ApiError as refusal:
        return refusal.code == "NOT_FOUND"
    return False
