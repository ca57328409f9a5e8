"""Messages are found by their words: soon after they are said, and as long as one may see them."""

from __future__ import annotations

from typing import Any

import pytest

from kit.doors import two_doors
from kit.fixtures import StartServer
from kit.people import group, people
from kit.wait import until
from secureconnect.client import ApiError, Client

SEARCH = "/v1/messages/search"
FRESH_S = 5  # it takes about one; machines of tests are busy


async def say(client: Client, conversation: str, text: str) -> dict[str, Any]:
    body = {"conversation_id": conversation, "content": text}
    message: dict[str, Any] = await client.call("POST", "/v1/messages", body)
    return message


async def hits(client: Client, q: str, **more: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await client.call("GET", SEARCH, query={"q": q} | more))["hits"]
    return found


async def found_soon(client: Client, q: str) -> dict[str, Any]:
    async def is_found() -> bool:
        return bool(await hits(client, q))

    await until(is_found, FRESH_S)
    return (await hits(client, q))[0]


async def test_what_is_said_is_found_until_it_is_gone(start_server: StartServer) -> None:
    """Two nodes, where there can be two."""
    here, there = two_doors(start_server)
    async with (
        people(here.url, "ann", "bob", "cid") as [ann, bob, cid],
        Client(there.url, bob.me) as far,
    ):
        room = await group(ann, bob)
        said = await say(ann, room, "Hẹn gặp ở <b>Đà Nẵng</b>")
        hit = await found_soon(far, "da nang")
        assert hit["message"]["message_id"] == said["message_id"]
        assert hit["ranges"] == [{"start": 13, "end": 15}, {"start": 16, "end": 20}]
        assert hit["snippet"] == {"text": said["content"], "ranges": hit["ranges"]}
        assert await hits(cid, "da nang") == []
        with pytest.raises(ApiError, match="NOT_FOUND"):
            await hits(cid, "da nang", conversation_id=room)
        with pytest.raises(ApiError, match="VALIDATION"):
            await hits(ann, "...")
        with pytest.raises(ApiError, match="VALIDATION"):
            await hits(ann, "word " * 100)
        with pytest.raises(ApiError, match="URI_TOO_LONG"):
            await hits(ann, "word " * 2_000)

        await ann.call("PATCH", f"/v1/messages/{said['message_id']}", {"content": "in Hội An"})
        assert await hits(far, "da nang") == [], "at once"
        assert (await found_soon(far, "hoi an"))["message"]["content"] == "in Hội An"
        await ann.call("DELETE", f"/v1/messages/{said['message_id']}")
        assert await hits(far, "hoi an") == []

        await say(ann, room, "one more word")
        await found_soon(far, "one more")
        await bob.call("DELETE", f"/v1/conversations/{room}/participants/{bob.me.user_id}")
        assert await hits(far, "one more") == []
        await ann.call("PUT", f"/v1/conversations/{room}/settings", {"is_e2ee_enabled": True})
        assert await hits(ann, "one more") == []
