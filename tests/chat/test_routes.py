"""The table of routes: bodies in, answers out, as API.md words them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from secureconnect.chat import ROUTES, Chat
from secureconnect.edge import Call
from secureconnect.errors import Conflict, Invalid
from secureconnect.identity import Principal, UserId

from .rig import Json, principal_of

_ROUTES = {f"{route.method} {route.path}": route for route in ROUTES}
CONVERSATION = "/v1/conversations/{conversation_id}"
MESSAGE = "/v1/messages/{message_id}"


async def ask(
    room: Chat, user: UserId | Principal, name: str, body: Any = None, query: Json | None = None, **path: str
) -> tuple[int, Any]:
    """Status and data of one request."""
    route = _ROUTES[name]
    principal = user if isinstance(user, Principal) else principal_of(user)
    call = Call("request", "127.0.0.1", float("inf"), principal, path)
    if route.body is not None:
        call.body = msgspec.json.decode(msgspec.json.encode(body), type=route.body)
    if route.query is not None:
        call.query = msgspec.convert(query or {}, route.query, strict=False)
    reply = await route.handler(room, call)
    assert route.answer is not None
    data = msgspec.json.encode(reply.data)
    if isinstance(reply.data, msgspec.Raw):
        assert data == msgspec.json.encode(msgspec.json.decode(data, type=route.answer))
    else:
        assert isinstance(reply.data, route.answer)
    status = route.status if reply.status is None else reply.status
    assert status in (route.status, *route.also)
    return status, msgspec.json.decode(data)


async def test_a_conversation_over_rest(room: Chat, people: list[UserId]) -> None:
    ann, bob, cid, _ = people
    body = {"type": "group", "name": "Trip", "participant_ids": [bob]}
    status, made = await ask(room, ann, "POST /v1/conversations", body)
    where = made["conversation_id"]
    assert status == 201
    assert (made["title"], made["my_role"], made["unread_count"], made["last_message"]) == (
        "Trip",
        "owner",
        0,
        None,
    )
    assert made["settings"] == {
        "is_e2ee_enabled": False,
        "recording_enabled": False,
        "message_retention_days": 0,
        "history_visible": False,
        "disappear_after_s": 0,
    }
    assert {each["username"]: each["role"] for each in made["participants"]} == {
        "ann": "owner",
        "bob": "member",
    }
    _, changed = await ask(
        room, ann, f"PATCH {CONVERSATION}", {"title": None, "avatar_url": "/x.png"}, conversation_id=where
    )
    assert (changed["title"], changed["avatar_url"]) == (None, "/x.png")
    settings = {"message_retention_days": 7, "is_e2ee_enabled": True}
    _, changed = await ask(room, ann, f"PUT {CONVERSATION}/settings", settings, conversation_id=where)
    assert changed["settings"]["message_retention_days"] == 7
    with pytest.raises(Conflict):
        await ask(
            room, ann, f"PUT {CONVERSATION}/settings", {"is_e2ee_enabled": False}, conversation_id=where
        )
    joined = {"user_id": cid}
    for expected in (201, 200):
        status, added = await ask(
            room, ann, f"POST {CONVERSATION}/participants", joined, conversation_id=where
        )
        assert (status, added["user_id"], added["role"]) == (expected, cid, "member")
    _, first = await ask(
        room, bob, f"GET {CONVERSATION}/participants", query={"limit": 2}, conversation_id=where
    )
    rest = {"limit": 2, "cursor": first["next_cursor"]}
    _, second = await ask(room, bob, f"GET {CONVERSATION}/participants", query=rest, conversation_id=where)
    names = [each["username"] for each in first["participants"] + second["participants"]]
    assert sorted(names) == ["ann", "bob", "cid"]
    assert second["next_cursor"] is None
    path = {"conversation_id": where, "user_id": cid}
    _, promoted = await ask(
        room, ann, f"PATCH {CONVERSATION}/participants/{{user_id}}", {"role": "admin"}, **path
    )
    assert promoted["role"] == "admin"
    _, left = await ask(room, cid, f"DELETE {CONVERSATION}/participants/{{user_id}}", **path)
    assert left == path


async def test_messages_over_rest(room: Chat, people: list[UserId]) -> None:
    ann, bob, *_ = people
    direct = {"type": "direct", "participant_ids": [bob]}
    _, made = await ask(room, ann, "POST /v1/conversations", direct)
    status, again = await ask(
        room, bob, "POST /v1/conversations", {"type": "direct", "participant_ids": [ann]}
    )
    where = made["conversation_id"]
    assert (status, again["conversation_id"]) == (200, where)
    new = {
        "conversation_id": where,
        "content": "hi",
        "client_message_id": "id-1",
        "metadata": {"k": [1, None]},
    }
    status, sent = await ask(room, ann, "POST /v1/messages", new)
    assert status == 201
    assert set(sent) == {
        "message_id", "client_message_id", "conversation_id", "sender_id", "seq", "content", "message_type",
        "is_encrypted", "reply_to", "file_ids", "metadata", "reactions", "change", "sent_at", "edited_at",
        "deleted_at", "expires_at",
    }  # fmt: skip
    assert (sent["metadata"], sent["file_ids"], sent["seq"]) == ({"k": [1, None]}, [], 1)
    assert await ask(room, ann, "POST /v1/messages", new | {"content": "other"}) == (200, sent)
    for number in range(2, 6):
        await ask(room, ann, "POST /v1/messages", {"conversation_id": where, "content": str(number)})
    found: list[int] = []
    query: Json = {"conversation_id": where, "limit": 2}
    while True:
        _, page = await ask(room, bob, "GET /v1/messages", query=query)
        found = [message["seq"] for message in page["messages"]] + found
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert found == [1, 2, 3, 4, 5]
    _, after = await ask(
        room, bob, "GET /v1/messages", query={"conversation_id": where, "after_seq": 3, "limit": 100}
    )
    assert [message["seq"] for message in after["messages"]] == [4, 5]
    assert after["change"] == 6
    path = {"message_id": sent["message_id"]}
    _, edited = await ask(room, ann, f"PATCH {MESSAGE}", {"content": "ho"}, **path)
    assert await ask(room, bob, f"GET {MESSAGE}", **path) == (200, edited)
    _, versions = await ask(room, bob, f"GET {MESSAGE}/history", query={"limit": 1}, **path)
    assert [each["content"] for each in versions["versions"]] == ["hi"]
    query = {"cursor": versions["next_cursor"]}
    _, versions = await ask(room, bob, f"GET {MESSAGE}/history", query=query, **path)
    assert [each["content"] for each in versions["versions"]] == ["ho"]
    assert versions["next_cursor"] is None
    _, deleted = await ask(room, ann, f"DELETE {MESSAGE}", **path)
    assert deleted["content"] == ""
    assert deleted["deleted_at"] is not None
    _, read = await ask(room, bob, f"POST {CONVERSATION}/read", {"seq": 4}, conversation_id=where)
    assert read == {"conversation_id": where, "last_read_seq": 4, "unread_count": 1}
    _, listed = await ask(room, bob, "GET /v1/conversations")
    (line,) = listed["conversations"]
    assert (line["unread_count"], line["last_message"]["content"], len(line["participants"])) == (1, "5", 2)


@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("GET /v1/conversations", {"cursor": "nonsense"}),
        ("GET /v1/conversations", {"cursor": "MTI6eA=="}),
        ("GET /v1/messages", {"cursor": "before:x"}),
        ("GET /v1/messages", {"cursor": "sideways:1"}),
        ("GET /v1/messages", {"before_seq": 1, "after_seq": 2}),
        ("GET /v1/messages/{message_id}/history", {"cursor": "-1"}),
        ("GET /v1/presence", {"user_ids": "ann,bob"}),
        ("GET /v1/presence", {"cursor": "ann"}),
    ],
)
async def test_bad_queries(room: Chat, people: list[UserId], name: str, query: Json) -> None:
    made = await ask(room, people[0], "POST /v1/conversations", {"type": "group", "participant_ids": []})
    if name == "GET /v1/messages":
        query = query | {"conversation_id": made[1]["conversation_id"]}
    with pytest.raises(Invalid):
        await ask(room, people[0], name, query=query)


async def test_presence_over_rest(room: Chat, people: list[UserId]) -> None:
    ann, bob, cid, _ = people
    phone = principal_of(ann)
    await ask(room, ann, "POST /v1/conversations", {"type": "direct", "participant_ids": [bob]})
    _, mine = await ask(room, phone, "POST /v1/presence", {"status": "busy"})
    assert (mine["user_id"], mine["status"]) == (ann, "busy")
    _, seen = await ask(room, bob, "GET /v1/presence", query={"user_ids": f"{ann},{cid}"})
    assert [(each["user_id"], each["status"]) for each in seen["presence"]] == [(ann, "busy")]
    await ask(room, phone, "POST /v1/presence", {"online": False})
    _, seen = await ask(room, bob, "GET /v1/presence", query={"user_ids": ann})
    assert [each["status"] for each in seen["presence"]] == ["offline"]
    with pytest.raises(Invalid):
        await ask(room, ann, "POST /v1/presence", {})
