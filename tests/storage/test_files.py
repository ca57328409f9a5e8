"""Who sees a file, at which address it is to be had, and where it lies while the store is away."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from auth.harness import Clocked
from secureconnect.config import StorageConfig
from secureconnect.errors import (
    AddressExpired,
    DiskFull,
    FileOnAwayNode,
    NotFound,
    Problem,
    Unavailable,
    UploadMissing,
)
from secureconnect.identity import FileId, UserId, new_id
from secureconnect.storage import store
from secureconnect.storage.addresses import Addresses, Grant

from .conftest import embedded, on_servers
from .rig import ADDRESS, CONFIG, CONTENT, KEY, Node, World, unknown

SIZE = len(CONTENT)
ANN = UserId(new_id())
_COMPLETED = "SELECT incoming FROM files WHERE status = 'completed'"


async def test_others_see_nothing(node: Node, ann: UserId, bob: UserId) -> None:
    """What is there and what is not look the same; only the audit log tells them apart."""
    file = await node.uploaded(ann)
    room = node.room
    ways: list[Callable[[FileId], Awaitable[Any]]] = [
        lambda file_id: room.files.visible(bob, file_id),
        lambda file_id: room.files.address(bob, file_id, ADDRESS),
        lambda file_id: room.delete(bob, file_id, ADDRESS),
        lambda file_id: room.uploads.complete(bob, file_id, ADDRESS),
    ]
    for way in ways:
        told = []
        for file_id, denial in ((file.file_id, "denied:file"), (unknown(), None)):
            with pytest.raises(NotFound) as refusal:
                await way(file_id)
            told.append((refusal.value.message, refusal.value.details))
            assert refusal.value.denial == denial
        assert told[0] == told[1]
    assert await room.files.list_of(bob, None, 20) == []
    assert await node.fetch(await node.address(file)) == CONTENT


@embedded
async def test_the_list_has_pages(node: Node, ann: UserId) -> None:
    made = [(await node.begin(ann, file_size=1))[0].file_id for _ in range(5)]
    gone = (await node.begin(ann, file_size=1))[0]
    await node.room.files.delete(ann, gone.file_id, "")
    seen: list[FileId] = []
    while page := await node.room.files.list_of(ann, seen[-1] if seen else None, 2):
        assert len(page) <= 3, "one more tells that there are more"
        seen += [file.file_id for file in page[:2]]
    assert seen == made[::-1]
    told = [record async for record in node.room.export_of(ann)]
    assert [record["file_id"] for record in told] == seen


async def test_a_person_is_forgotten_with_their_files(node: Node, ann: UserId, bob: UserId) -> None:
    await node.uploaded(ann)
    await node.begin(ann)
    theirs = await node.uploaded(bob)
    await node.room.forget(ann)
    await node.room.forget(ann)
    assert await node.room.files.list_of(ann, None, 20) == []
    assert await node.rows(f"SELECT 1 FROM quotas WHERE user_id = '{ann}'") == []
    await node.room.sweeper.pass_once()
    assert await node.stored() == [theirs.key]
    assert [each.file_id for each in await node.room.files.list_of(bob, None, 20)] == [theirs.file_id]
    assert await node.quota(bob) == (SIZE, 0, 0)


# addresses


def test_an_address_is_good_for_one_thing() -> None:
    addresses = Addresses(KEY, "https://chat.example.org/")
    file_id = unknown()
    url = addresses.of(Grant("PUT", file_id, 7, 1_000, ANN), None)
    assert re.fullmatch(r"https://chat\.example\.org/v1/storage/objects/[\w-]+", url)
    token = url.rpartition("/")[2]
    assert addresses.read(token, "PUT", 999) == Grant("PUT", file_id, 7, 1_000, ANN)
    with pytest.raises(AddressExpired):
        addresses.read(token, "PUT", 1_000)
    with pytest.raises(NotFound):
        addresses.read(token, "GET", 0)
    with pytest.raises(NotFound):
        Addresses(b"another", "").read(token, "PUT", 0)
    for at in range(len(token) - 1):  # the last character has bits that mean nothing
        other = "A" if token[at] != "A" else "B"
        with pytest.raises(NotFound):
            addresses.read(token[:at] + other + token[at + 1 :], "PUT", 0)


@pytest.mark.parametrize(
    "token", ["", "a", "é" * 114, "A" * 113, "A" * 115, "=" * 114, "A" * 114, "A" * 113 + "\n"]
)
def test_what_is_no_address(token: str) -> None:
    with pytest.raises(NotFound):
        Addresses(KEY, "").read(token, "PUT", 0)


@embedded
async def test_addresses_end(node: Node, ann: UserId) -> None:
    file, url = await node.begin(ann)
    node.forward(CONFIG.upload_url_s)
    with pytest.raises(AddressExpired):
        await node.send(url)
    file = await node.uploaded(ann)
    there = await node.address(file)
    with pytest.raises(NotFound):
        await node.send(there)
    node.forward(CONFIG.download_url_s - 1)
    assert await node.fetch(there) == CONTENT
    node.forward(1)
    with pytest.raises(AddressExpired):
        await node.fetch(there)
    there = await node.address(file)
    await node.room.files.delete(ann, file.file_id, "")
    with pytest.raises(NotFound):
        await node.fetch(there)


# while the store is away


@on_servers
async def test_a_file_in_the_spool_moves_when_the_store_is_back(world: World, ann: UserId) -> None:
    a, b = await world.node(folder="a"), await world.node(folder="b")
    for node in (a, b):
        await world.renew(node, 60)
    in_store = await a.uploaded(ann)
    world.take_store_away()
    file, url = await a.begin(ann)
    assert f"/v1/storage/spool/{a.id}/" in url
    with pytest.raises(FileOnAwayNode):
        await b.send(url)
    with pytest.raises(UploadMissing):
        await b.complete(file)
    await a.send(url)
    assert (await b.complete(file)).status == "completed", "on any node"
    assert await a.quota(ann) == (2 * SIZE, 0, 0)

    for node in (a, b):
        with pytest.raises(Unavailable) as refusal:
            await node.address(in_store)
        assert refusal.value.details == {"dependency": "minio"}
    there = await b.address(file)
    assert f"/v1/storage/spool/{a.id}/" in there
    assert await a.fetch(there) == CONTENT
    with pytest.raises(FileOnAwayNode):
        await b.fetch(there)
    await a.room.sweeper.settle_once()
    assert a.room.files.may_be_spooled
    await world.renew(a, -1)
    with pytest.raises(FileOnAwayNode):
        await b.address(file)
    assert await a.fetch(await a.address(file)) == CONTENT, "it lies here"

    world.bring_store_back()
    await world.settled(a)
    assert await a.rows("SELECT node_id FROM files") == [(None,), (None,)]
    for node in (a, b):
        assert "://" in await node.address(file)
        assert await node.fetch(there) == CONTENT, "the old address leads to the store"
    a.forward(CONFIG.download_url_s - 60)
    content = await a.room.files.content(there.rpartition("/")[2], ADDRESS)
    assert content.elsewhere is not None
    assert 0 < int(httpx.URL(content.elsewhere).params["X-Amz-Expires"]) <= 60, "for as long as it is good"
    await a.room.sweeper.pass_once()
    assert await a.stored() == sorted([file.key, in_store.key])


@on_servers
async def test_a_file_in_the_spool_is_noted_though_nobody_heard_of_it(
    world: World, node: Node, ann: UserId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database has it, and the answer was lost."""
    world.take_store_away()
    file, url = await node.begin(ann)
    await node.room.sweeper.settle_once()
    write = Clocked.write

    async def lost(db: Clocked, unit: Any, *args: Any) -> Any:
        answer = await write(db, unit, *args)
        if unit is not store.claim:
            raise Unavailable
        return answer

    monkeypatch.setattr(Clocked, "write", lost)
    with pytest.raises(Unavailable):
        await node.send(url)
    monkeypatch.undo()
    assert (await node.complete(file)).status == "completed"
    world.bring_store_back()
    await world.settled(node)
    assert await node.rows("SELECT node_id FROM files") == [(None,)]


@on_servers
async def test_the_spool_survives_its_node(world: World, ann: UserId) -> None:
    """Another room on the same folder, as after a crash."""
    a = await world.node(folder="a")
    world.take_store_away()
    file = await a.uploaded(ann)
    half, url = await a.begin(ann)
    world.bring_store_back()
    again = await world.node(folder="a", node_id=a.id)
    await again.send(url)  # an address for the spool is good when the store is back, too
    assert (await again.complete(half)).status == "completed"
    await world.settled(again)
    assert await again.fetch(await again.address(file)) == CONTENT
    assert await again.fetch(await again.address(half)) == CONTENT


@on_servers
async def test_what_is_deleted_in_the_spool_of_another_node(world: World, ann: UserId) -> None:
    a, b = await world.node(folder="a"), await world.node(folder="b")
    world.take_store_away()
    file = await a.uploaded(ann)
    abandoned, _ = await a.begin(ann)
    await b.room.delete(ann, file.file_id, "")
    assert await b.quota(ann) == (0, SIZE, 1)
    world.db.forward(CONFIG.upload_s)
    await b.room.sweeper.pass_once()
    assert await b.quota(ann) == (0, 0, 0), "room is free, whoever's spool it is"
    assert await b.statuses() == ["deleted", "failed"]
    await a.room.sweeper.pass_once()
    world.bring_store_back()
    await world.settled(a)
    world.db.forward(CONFIG.sweep_s)
    await a.room.sweeper.pass_once()
    assert (await a.is_gone(file), await a.is_gone(abandoned), await a.stored()) == (True, True, [])


@on_servers
async def test_what_is_deleted_in_the_spool_of_a_node_that_never_returns(world: World, ann: UserId) -> None:
    a, b = await world.node(folder="a"), await world.node(folder="b")
    world.take_store_away()
    file, kept = await a.uploaded(ann), await a.uploaded(ann)
    world.bring_store_back()
    await b.room.delete(ann, file.file_id, "")
    world.db.forward(CONFIG.orphans_h * 3600 - 60)
    await world.renew(a, 3600)
    for ahead_s in (0, 120):
        world.db.forward(ahead_s)
        await b.room.sweeper.pass_once()
        assert await b.statuses() == ["deleted", "completed"], "the node is there"
    world.db.forward(3600)
    await b.room.sweeper.pass_once()
    assert await b.rows("SELECT file_id FROM files") == [(kept.file_id,)]


@on_servers
async def test_a_full_spool_says_so(world: World, ann: UserId) -> None:
    a = await world.node(folder="a", spool_mb=2)  # there must be room for a file where it arrives, too
    world.take_store_away()
    await a.uploaded(ann)
    file, url = await a.begin(ann)
    with pytest.raises(DiskFull):
        await a.send(url)
    assert await a.quota(ann) == (SIZE, SIZE, 1)
    world.bring_store_back()
    await world.settled(a)
    assert await a.stored() == [f"files/{each[0]}" for each in await a.rows(_COMPLETED)], "nothing is left"
    await a.send(url)
    assert (await a.complete(file)).status == "completed"


@embedded
async def test_a_quota_that_is_made_smaller(world: World, node: Node, ann: UserId) -> None:
    await node.uploaded(ann)
    smaller = await world.node(StorageConfig(quota_mb=0), folder="b")
    with pytest.raises(Problem) as refusal:
        await smaller.begin(ann)
    assert refusal.value.code == "QUOTA_EXCEEDED"
