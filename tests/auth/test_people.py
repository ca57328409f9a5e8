"""What people say of themselves, and what they are to each other."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
import trio

from secureconnect.auth.sessions import Origin
from secureconnect.deps.contracts import Tx
from secureconnect.errors import Forbidden, Problem
from secureconnect.identity import UserId, new_id

from .harness import CHEAP, PASSWORD, Node, Person, Site, refused

FRESH = "a fresh battery horse"
ORIGIN = Origin("192.0.2.1", "tests")


async def friends(node: Node, who: Person, state: str = "accepted") -> list[str]:
    data = await node.ask("GET /v1/users/me/friends", as_=who, query={"state": state})
    assert data["next_cursor"] is None
    assert all(each["state"] == state for each in data["friends"])
    return [each["username"] for each in data["friends"]]


async def ask(node: Node, who: Person, other: Person) -> str:
    path = {"user_id": other.user_id}
    data = await node.ask("POST /v1/users/{user_id}/friend", as_=who, path=path)
    return str(data["state"])


async def answer(node: Node, what: str, who: Person, other: Person) -> Any:
    return await node.ask(what, as_=who, path={"user_id": other.user_id})


async def block(node: Node, who: Person, other: Person) -> None:
    await answer(node, "POST /v1/users/{user_id}/block", who, other)


async def found(node: Node, who: Person, text: str) -> list[str]:
    data = await node.ask("GET /v1/users/search", as_=who, query={"q": text})
    return [user["username"] for user in data["users"]]


# profiles


async def test_a_profile_is_changed_field_by_field(node: Node) -> None:
    ann, bob = await node.register("ann"), await node.register("bob")
    picture = "https://example.org/ann.png"
    me = await node.ask("PATCH /v1/users/me", {"avatar_url": picture}, as_=ann)
    assert (me["username"], me["display_name"], me["avatar_url"]) == ("ann", "ann", picture)
    me = await node.ask("PATCH /v1/users/me", {"display_name": " Änn ", "username": "Ann_2"}, as_=ann)
    assert (me["username"], me["display_name"], me["avatar_url"]) == ("Ann_2", "Änn", picture)
    assert me == await node.ask("GET /v1/users/me", as_=ann)
    assert await found(node, bob, "änn") == ["Ann_2"]
    assert (await node.login("ann_2")).user_id == ann.user_id
    with refused("INVALID_CREDENTIALS"):
        await node.login("ann")
    me = await node.ask("PATCH /v1/users/me", {"avatar_url": None}, as_=ann)
    assert me["avatar_url"] is None
    renamed = await node.rows("SELECT subject FROM audit WHERE action = 'auth:user:renamed'")
    assert renamed == [(ann.user_id,)]


async def test_what_is_not_offered_is_not_changed(node: Node) -> None:
    ann = await node.register("ann")
    before = await node.ask("GET /v1/users/me", as_=ann)
    body = {"role": "admin", "user_id": "x", "email": "eve@example.org", "email_verified": True, "ban": None}
    assert await node.ask("PATCH /v1/users/me", body, as_=ann) == before
    assert await node.rows("SELECT role, email FROM users") == [("user", "ann@example.org")]


async def test_a_name_of_somebody_else_is_refused(node: Node) -> None:
    ann, _ = await node.register("ann"), await node.register("bob")
    with refused("USERNAME_TAKEN"):
        await node.ask("PATCH /v1/users/me", {"username": "BOB"}, as_=ann)
    await node.ask("PATCH /v1/users/me", {"username": "ANN"}, as_=ann)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"username": "no way"}, "username"),
        ({"display_name": "a\u202eb"}, "display_name"),
        ({"avatar_url": "javascript:alert(1)"}, "avatar_url"),
        ({"avatar_url": "//elsewhere.example/x.png"}, "avatar_url"),
        ({"avatar_url": "https://a:b@example.org/x"}, "avatar_url"),
        ({"avatar_url": "https://[x"}, "avatar_url"),
        ({"avatar_url": "/v1/files/a b"}, "avatar_url"),
    ],
)
async def test_bad_profiles_are_refused(node: Node, body: dict[str, str], field: str) -> None:
    ann = await node.register()
    with refused("VALIDATION", field=field):
        await node.ask("PATCH /v1/users/me", body, as_=ann)


async def test_a_new_password_ends_every_other_session(node: Node) -> None:
    ann = await node.register()
    phone = await node.login()
    body = {"password": PASSWORD, "new_password": FRESH}
    with refused("INVALID_CREDENTIALS"):
        await node.ask("POST /v1/users/me/password", body | {"password": "wrong password"}, as_=phone)
    with refused("VALIDATION", field="password"):
        await node.room.profile.change_password(await node.who(phone), PASSWORD, None, "short", ORIGIN)
    await node.ask("POST /v1/users/me/password", body, as_=phone)
    assert node.closed == [ann.session_id]
    noted = await node.rows("SELECT subject FROM audit WHERE action = 'auth:password:changed'")
    assert noted == [(ann.user_id,)]
    with refused("TOKEN_REVOKED"):
        await node.who(ann)
    await node.who(phone)
    await node.refresh(phone)
    with refused("INVALID_CREDENTIALS"):
        await node.login()
    await node.login(password=FRESH)


async def test_of_two_new_passwords_at_once_one_counts(node: Node) -> None:
    """Each ends the session of the other: whoever was overtaken is told so."""
    devices = [await node.register(), await node.login()]
    said: dict[int, str] = {}

    async def change(number: int) -> None:
        body = {"password": PASSWORD, "new_password": f"{FRESH} {number}"}
        try:
            await node.ask("POST /v1/users/me/password", body, as_=devices[number])
            said[number] = "ok"
        except Problem as problem:
            said[number] = problem.code

    async with trio.open_nursery() as nursery:
        nursery.start_soon(change, 0)
        nursery.start_soon(change, 1)
    assert sorted(said.values())[-1] == "ok"
    assert set(said.values()) <= {"ok", "TOKEN_REVOKED", "UNAVAILABLE", "INVALID_CREDENTIALS"}
    winner = next(number for number, word in said.items() if word == "ok")
    assert list(said.values()).count("ok") == 1
    await node.who(devices[winner])
    await node.login(password=f"{FRESH} {winner}")


async def test_who_does_not_want_to_be_found_is_not(node: Node) -> None:
    ann, bob = await node.register("ann"), await node.register("bob")
    assert await node.ask("GET /v1/users/me/privacy", as_=ann) == {
        "searchable": True,
        "last_seen": True,
        "read_receipts": True,
    }
    assert await found(node, bob, "ann") == ["ann"]
    said = await node.ask("PUT /v1/users/me/privacy", {"searchable": False}, as_=ann)
    assert said == {"searchable": False, "last_seen": True, "read_receipts": True}
    assert await found(node, bob, "ann") == []
    await node.ask("PUT /v1/users/me/privacy", {"searchable": True, "last_seen": False}, as_=ann)
    assert await found(node, bob, "ann") == ["ann"]
    assert (await node.ask("GET /v1/users/me/privacy", as_=ann))["last_seen"] is False


# friends


async def test_a_request_that_is_accepted_makes_friends(node: Node) -> None:
    ann, bob = await node.register("ann"), await node.register("bob")
    assert await ask(node, ann, bob) == await ask(node, ann, bob) == "outgoing"
    assert await friends(node, ann, "outgoing") == ["bob"]
    assert await friends(node, bob, "incoming") == ["ann"]
    assert await friends(node, ann) == await friends(node, bob) == []
    await answer(node, "POST /v1/users/me/friends/{user_id}/accept", bob, ann)
    await answer(node, "POST /v1/users/me/friends/{user_id}/accept", bob, ann)
    assert await friends(node, ann) == ["bob"]
    assert await friends(node, bob) == ["ann"]
    assert await friends(node, ann, "outgoing") == await friends(node, bob, "incoming") == []
    with refused("NOT_FOUND"):
        await answer(node, "DELETE /v1/users/me/friends/{user_id}/reject", bob, ann)
    await answer(node, "DELETE /v1/users/me/friends/{user_id}", bob, ann)
    assert await friends(node, ann) == await friends(node, bob, "incoming") == []
    with refused("NOT_FOUND"):
        await answer(node, "DELETE /v1/users/me/friends/{user_id}", bob, ann)


async def test_requests_are_rejected_and_taken_back(node: Node) -> None:
    ann, bob = await node.register("ann"), await node.register("bob")
    await ask(node, ann, bob)
    with refused("NOT_FOUND"):  # it is bob who decides
        await answer(node, "POST /v1/users/me/friends/{user_id}/accept", ann, bob)
    with refused("NOT_FOUND"):
        await answer(node, "DELETE /v1/users/me/friends/{user_id}/reject", ann, bob)
    await answer(node, "DELETE /v1/users/me/friends/{user_id}/reject", bob, ann)
    assert await friends(node, ann, "outgoing") == []
    await ask(node, ann, bob)
    with refused("NOT_FOUND"):
        await answer(node, "DELETE /v1/users/me/friends/{user_id}", bob, ann)
    await answer(node, "DELETE /v1/users/me/friends/{user_id}", ann, bob)
    with refused("NOT_FOUND"):
        await answer(node, "POST /v1/users/me/friends/{user_id}/accept", bob, ann)


async def test_requests_that_cross_make_friends(site: Site) -> None:
    """On two nodes; the later of the two is told that they are friends."""
    nodes = [await site.node(), await site.node()]
    ann, bob = await nodes[0].register("ann"), await nodes[0].register("bob")
    for _ in range(10):
        said: list[str] = []

        async def race(node: Node, who: Person, other: Person, said: list[str] = said) -> None:
            said.append(await ask(node, who, other))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(race, nodes[0], ann, bob)
            nursery.start_soon(race, nodes[1], bob, ann)
        assert sorted(said) == ["accepted", "outgoing"]
        assert await friends(nodes[0], ann) == ["bob"]
        await answer(nodes[0], "DELETE /v1/users/me/friends/{user_id}", ann, bob)


async def test_one_is_no_friend_of_oneself_nor_of_nobody(site: Site) -> None:
    node = await site.node(replace(CHEAP, max_friends=1))
    ann, bob, cid = [await node.register(name) for name in ("ann", "bob", "cid")]
    with refused("VALIDATION", field="user_id"):
        await ask(node, ann, ann)
    with refused("NOT_FOUND"):
        await ask(node, ann, replace(bob, user_id=new_id()))
    await ask(node, ann, bob)
    with refused("CONFLICT"):
        await ask(node, ann, cid)
    await ask(node, cid, ann)
    with refused("CONFLICT"):
        await answer(node, "POST /v1/users/me/friends/{user_id}/accept", ann, cid)
    assert await friends(node, ann, "incoming") == ["cid"]


async def test_lists_of_people_are_paged(node: Node) -> None:
    ann = await node.register("ann")
    for number in range(5):
        other = await node.register(f"other{number}")
        await ask(node, ann, other)
        await ask(node, other, ann)
    for path, noun in (("friends", "friends"), ("blocked", "users")):
        seen: list[str] = []
        cursor = None
        while True:
            query = {"limit": 2, "cursor": cursor}
            page = await node.ask(f"GET /v1/users/me/{path}", as_=ann, query=query)
            seen += [each["user_id"] for each in page[noun]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert len(seen) == len(set(seen)) == 5
        for each in seen:
            await node.ask("POST /v1/users/{user_id}/block", as_=ann, path={"user_id": each})
        with refused("VALIDATION", field="cursor"):
            await node.ask(f"GET /v1/users/me/{path}", as_=ann, query={"cursor": "x"})


# blocks


async def test_a_block_hides_both_from_each_other(node: Node) -> None:
    ann, bob = await node.register("ann"), await node.register("bob")
    parted: list[tuple[str, str]] = []
    node.room.blocks.parted = lambda one, other: parted.append((one, other))
    await ask(node, ann, bob)
    await ask(node, bob, ann)
    await block(node, ann, bob)
    await block(node, ann, bob)
    assert parted[0] == (ann.user_id, bob.user_id)
    assert await friends(node, ann) == await friends(node, bob) == []
    for who, other in ((ann, bob), (bob, ann)):
        assert await found(node, who, other.username) == []
        with refused("FORBIDDEN"):
            await ask(node, who, other)
    listed = await node.ask("GET /v1/users/me/blocked", as_=ann)
    assert [each["username"] for each in listed["users"]] == ["bob"]
    assert (await node.ask("GET /v1/users/me/blocked", as_=bob))["users"] == []
    await answer(node, "DELETE /v1/users/{user_id}/block", bob, ann)  # which takes away none of ann's
    assert await found(node, bob, "ann") == []
    await answer(node, "DELETE /v1/users/{user_id}/block", ann, bob)
    assert await found(node, bob, "ann") == ["ann"]
    assert await ask(node, bob, ann) == "outgoing"


async def test_one_blocks_others_and_not_too_many(site: Site) -> None:
    node = await site.node(replace(CHEAP, max_blocked=1))
    ann, bob, cid = [await node.register(name) for name in ("ann", "bob", "cid")]
    with refused("VALIDATION", field="user_id"):
        await block(node, ann, ann)
    with refused("NOT_FOUND"):
        await block(node, ann, replace(bob, user_id=new_id()))
    await block(node, ann, bob)
    with refused("CONFLICT"):
        await block(node, ann, cid)
    assert await found(node, cid, "ann") == ["ann"]


async def test_a_block_and_a_request_at_once_leave_no_friends(site: Site) -> None:
    nodes = [await site.node(), await site.node()]
    ann, bob = await nodes[0].register("ann"), await nodes[0].register("bob")
    for _ in range(10):
        await ask(nodes[0], ann, bob)

        async def race() -> None:
            with suppress(Forbidden):  # the block was first
                await ask(nodes[1], bob, ann)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(block, nodes[0], ann, bob)
            nursery.start_soon(race)
        assert await nodes[0].rows("SELECT user_id FROM friends") == []
        await answer(nodes[0], "DELETE /v1/users/{user_id}/block", ann, bob)


async def test_presence_is_for_those_who_share_a_conversation(node: Node) -> None:
    ann, bob = await node.register("ann"), await node.register("bob")
    node.room.connect(ended=lambda _: None, status_of=lambda _: "online")

    async def seen() -> Any:
        return (await answer(node, "GET /v1/users/{user_id}", bob, ann))["status"]

    assert await seen() is None
    await node.db.write(_converse, UserId(ann.user_id), UserId(bob.user_id))
    assert await seen() == "online"
    await block(node, ann, bob)
    assert await seen() is None
    assert (await node.ask("GET /v1/users/me", as_=bob))["status"] == "online"


async def _converse(tx: Tx, one: UserId, other: UserId) -> None:
    room = new_id()
    for user in (one, other):
        await tx.run(
            "INSERT INTO members (conversation_id, user_id, role, joined_at, visible_from_seq, last_read_seq)"
            " VALUES ($1, $2, 'member', $3, 1, 0)",
            room,
            user,
            0,
        )
