"""Everything of a person, as a zip file that is made while it is sent."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from hashlib import shake_128
from typing import Any
from zipfile import ZipFile

import pytest
import trio

from secureconnect.errors import Unavailable
from secureconnect.identity import UserId

from .harness import CHEAP, Node, Person, Site, refused

ADDRESS = "192.0.2.1"


async def download(node: Node, who: Person) -> dict[str, Any]:
    """The JSON in the archive, by the name of its file."""
    body = await node.room.export.begin(UserId(who.user_id), ADDRESS)
    data = b"".join([piece async for piece in body])
    with ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        return {name: json.loads(archive.read(name)) for name in archive.namelist()}


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
    files = await download(node, ann)
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
    long, size = await peak_of(4_000)
    assert size > 1_500_000
    assert long < short + 500_000


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
    body = await node.room.export.begin(ann, ADDRESS)
    async with aclosing(body):
        await anext(body)
        with refused("OVERLOADED"):
            await node.room.export.begin(ann, ADDRESS)
    await (await node.room.export.begin(ann, ADDRESS)).aclose()
