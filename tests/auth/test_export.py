"""Everything of a person, as a zip file that is made while it is sent."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import replace
from hashlib import shake_128
from typing import Any

import pytest
import trio

from secureconnect import audit
from secureconnect.auth.export import export
from secureconnect.deps.contracts import Tx
from secureconnect.errors import Overloaded, Unavailable
from secureconnect.identity import UserId, new_id

from .harness import CHEAP, Node, Site, refused

ADDRESS = "192.0.2.1"


def records(count: int) -> Any:
    async def records_of(user: UserId) -> AsyncIterator[dict[str, Any]]:
        for number in range(count):
            if number % 200 == 0:
                await trio.lowlevel.checkpoint()
            yield {
                "kind": "message",
                "user_id": user,
                "number": number,
                "text": shake_128(b"%d" % number).hexdigest(500),
            }

    return records_of


async def test_each_room_has_a_file(node: Node) -> None:
    ann, bob = await node.register("ann"), await node.register("bob")
    await node.ask("POST /v1/users/{user_id}/friend", as_=ann, path={"user_id": bob.user_id})
    await node.ask("PUT /v1/users/me/privacy", {"last_seen": False}, as_=ann)
    node.room.export.rooms = {"chat": records(3), "storage": records(0)}
    files = await node.export(ann)
    assert set(files) == {"account.json", "chat.json", "storage.json"}
    assert [each["number"] for each in files["chat.json"]] == [0, 1, 2]
    assert files["storage.json"] == []
    account = files["account.json"]
    assert account["user"]["email"] == "ann@example.org"
    assert account["privacy"] == {"searchable": True, "last_seen": False, "read_receipts": True}
    [asked] = account["friend_requests"]
    assert (asked["user_id"], asked["direction"]) == (bob.user_id, "outgoing")
    rows = await node.rows("SELECT actor_id FROM audit WHERE action = 'auth:user:exported'")
    assert rows == [(ann.user_id,)]


async def test_the_audit_log_is_told_without_others(node: Node) -> None:
    """What one did oneself, and what was done to one: not by whom and from where."""
    ann, bob = await node.register("ann"), await node.register("bob")
    for who, action, subject, facts in (
        (bob, "admin:user:banned", ann.user_id, {"reason": "rude", "until": None}),
        (bob, "denied:forbidden", ann.user_id, {}),
        (None, "auth:session:refused", ann.user_id, {}),
        (bob, "auth:user:renamed", bob.user_id, {"username": "robert"}),
    ):
        await node.db.write(
            audit.record,
            action=action,
            actor=None if who is None else UserId(who.user_id),
            subject=subject,
            address="198.51.100.7",
            facts=facts,
            now_us=node.db.now_us(),
        )
    told = (await node.export(ann))["account.json"]["audit"]
    assert [(each["action"], each["facts"].get("address")) for each in told] == [
        ("auth:user:registered", "192.0.2.1"),
        ("auth:session:opened", "192.0.2.1"),
        ("admin:user:banned", None),
        ("auth:session:refused", "198.51.100.7"),
        ("auth:user:exported", "192.0.2.1"),
    ]
    assert told[2]["facts"] == {"reason": "rude", "until": None}
    assert bob.user_id not in repr(told)


async def test_every_list_is_whole(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many pages it has, and nobody else's."""
    monkeypatch.setattr(export, "PAGE", 2)
    ann, *others = [await node.register(name) for name in ("ann", "bob", "cid", "dee", "eve", "fay")]
    for other in others:
        path = {"user_id": other.user_id}
        await node.ask("POST /v1/users/{user_id}/friend", as_=ann, path=path)
        await node.ask("POST /v1/users/{user_id}/friend", as_=other, path={"user_id": ann.user_id})
        await node.ask("POST /v1/reports", path | {"reason": "spam"}, as_=ann, status=201)
        await node.ask("POST /v1/reports", {"user_id": ann.user_id, "reason": "spam"}, as_=other, status=201)
        await node.login("ann")
    for person in (ann, *others[1:]):
        await node.ask("POST /v1/users/{user_id}/block", as_=person, path={"user_id": others[0].user_id})
    account = (await node.export(ann))["account.json"]
    sizes = {name: len(account[name]) for name in ("devices", "sessions", "reports", "blocked")}
    assert sizes == {"devices": 6, "sessions": 6, "reports": 5, "blocked": 1}
    pairs = {(each["user_id"], each["direction"]) for each in account["friend_requests"]}
    assert pairs == {(each.user_id, way) for each in others[1:] for way in ("outgoing", "incoming")}
    assert len(account["friend_requests"]) == len(pairs)


async def test_a_long_life_takes_no_more_memory(node: Node) -> None:
    ann = UserId((await node.register()).user_id)

    async def peak_of(count: int) -> tuple[int, int]:
        node.room.export.rooms = {"chat": records(count)}
        body = await node.room.export.begin(ann, ADDRESS)
        size = 0
        tracemalloc.start()
        try:
            async for piece in body:
                size += len(piece)
            return tracemalloc.get_traced_memory()[1], size
        finally:
            tracemalloc.stop()

    short, _ = await peak_of(400)
    await node.db.write(_live_long, ann)
    long, size = await peak_of(10_000)
    assert size > 4_000_000
    assert long < short + 500_000


async def _live_long(tx: Tx, user: UserId) -> None:
    """Everybody wants to be friends, and somebody signs in again and again."""
    asked = "INSERT INTO friends (user_id, friend_id, created_at) VALUES ($1, $2, $3)"
    await tx.many(asked, [(new_id(), user, number) for number in range(5_000)])
    for number in range(1_000):
        await audit.record(
            tx,
            action="auth:session:opened",
            actor=user,
            subject=new_id(),
            address=f"192.0.2.{number % 256}",
            now_us=number,
        )


async def test_what_breaks_off_has_no_end(node: Node) -> None:
    ann = UserId((await node.register()).user_id)

    async def broken(_: UserId) -> AsyncIterator[dict[str, Any]]:
        yield {"kind": "message"}
        raise Unavailable

    node.room.export.rooms = {"chat": broken}
    body = await node.room.export.begin(ann, ADDRESS)
    with pytest.raises(Unavailable):
        async for _ in body:
            pass


async def test_so_many_at_once(site: Site) -> None:
    node = await site.node(replace(CHEAP, exports_at_once=1))
    ann = UserId((await node.register()).user_id)
    node.room.export.rooms = {"chat": records(2_000)}
    begun: list[AsyncGenerator[bytes, None]] = []

    async def begin() -> None:
        with suppress(Overloaded):
            begun.append(await node.room.export.begin(ann, ADDRESS))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(begin)
    [body] = begun
    async with aclosing(body):
        await anext(body)
        with refused("OVERLOADED"):
            await node.room.export.begin(ann, ADDRESS)
    assert len(await node.rows("SELECT 1 FROM audit WHERE action = 'auth:user:exported'")) == 1
    await (await node.room.export.begin(ann, ADDRESS)).aclose()
