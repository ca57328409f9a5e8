"""Large files: parts in any order, again, missing, wrong; verified later, by whoever is there."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import trio

from auth.harness import Clocked
from kit.objects import left_behind, pieces, put
from kit.wait import until
from secureconnect.clock import SECOND_US
from secureconnect.config import StorageConfig
from secureconnect.deps.contracts import Division
from secureconnect.deps.files import FolderObjects
from secureconnect.deps.minio import MinioObjects
from secureconnect.errors import (
    AddressExpired,
    Conflict,
    DiskFull,
    FileOnAwayNode,
    NotFound,
    QuotaExceeded,
    Unavailable,
    UploadArrived,
    UploadMismatch,
    UploadMissing,
    UploadOver,
)
from secureconnect.idempotency import Attempt
from secureconnect.identity import UserId
from secureconnect.storage import store, verifying
from secureconnect.storage.addresses import Grant
from secureconnect.storage.arriving import Read
from secureconnect.storage.orphans import FEW
from secureconnect.storage.parts import Parts
from secureconnect.storage.uploads import Announcement

from .conftest import embedded, on_servers
from .rig import ADDRESS, Cut, Node, World, unknown

MB = 1024 * 1024
CONFIG = StorageConfig(quota_mb=40, part_mb=1, parts_told=2, verify_wait_s=20, verify_poll_s=0.1)
SEED = hashlib.sha256(b"parts").digest()


def config_of(world: World) -> StorageConfig:
    return replace(CONFIG, part_mb=1 if world.minio is None else 5)  # S3 takes no smaller ones


def content_of(node: Node, parts: float) -> bytes:
    size = int(node.room.config.part_mb * MB * parts)
    return (SEED * (size // len(SEED) + 1))[:size]


async def sent(node: Node, owner: UserId, content: bytes, **said: str) -> object:
    begun = await node.begin_parts(owner, content, **said)
    while begun.parts:
        await node.send_parts(begun, content)
        begun = await node.progress(begun.file, begun.parts[-1].number)
    return begun.file


@pytest.fixture
async def large(world: World) -> Node:
    """A node that cuts files early."""
    return await world.node(config_of(world), folder="large")


async def test_from_the_announcement_to_the_end(world: World, large: Node, ann: UserId) -> None:
    content = content_of(large, 2.5)
    sha = hashlib.sha256(content).hexdigest()
    told: list[str] = []
    large.room.files.tell = lambda file, _: told.append(file.status)
    begun = await large.begin_parts(ann, content, checksum_sha256=sha)
    file = begun.file
    assert (begun.url, [part.number for part in begun.parts]) == (None, [1, 2])
    assert await large.quota(ann) == (0, len(content), 1)
    with pytest.raises(UploadMissing) as nothing:
        await large.complete(file)
    assert nothing.value.details == {"parts": [1, 2, 3]}

    second = await large.send_part(file, begun.parts[1], content)
    begun = await large.progress(file)
    assert ([part.number for part in begun.done], [part.number for part in begun.parts]) == ([2], [1, 3])
    assert begun.done[0].etag.strip('"') == second.strip('"')
    assert [part.number for part in (await large.progress(file, 1)).parts] == [3]
    assert [part.number for part in (await large.progress(file, 0, 2)).parts] == [2]
    with pytest.raises(UploadMissing) as some:
        await large.complete(file)
    assert some.value.details == {"parts": [1, 3]}
    await large.send_parts(begun, content)
    with pytest.raises(UploadMissing) as another:
        await large.room.uploads.complete(ann, file.file_id, ADDRESS, [(1, "of another"), (2, second)])
    assert another.value.details == {"parts": [1]}

    done = await large.room.uploads.complete(ann, file.file_id, ADDRESS, [(2, second)])
    assert (done.status, done.checksum_sha256) == ("completed", sha)
    assert await large.quota(ann) == (len(content), 0, 0)
    assert await large.fetch(await large.address(file)) == content
    again = await large.complete(file)
    assert again == done._replace(media_type=again.media_type), "safe to repeat"
    with pytest.raises(UploadOver):
        await large.progress(file)
    assert await large.stored() == [file.key]
    noted = await large.rows("SELECT count(*) FROM audit WHERE action = 'storage:file:uploaded'")
    assert noted == [(1,)]
    await nothing_is_left(world)


async def nothing_is_left(world: World) -> None:
    if world.minio is None:
        assert isinstance(world.store.inner, FolderObjects)
        assert await world.store.inner.drafts() == []


async def test_an_announcement_that_comes_twice_is_one(
    world: World, large: Node, ann: UserId, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun_there = noting_uploads(monkeypatch)
    content = content_of(large, 1.1)
    announced = Announcement("a.mp4", len(content), "video/mp4")
    attempt = Attempt(ann, "POST /v1/storage/upload-url", "once", b"fingerprint")
    first = await large.room.uploads.begin(ann, announced, None, attempt)
    await large.send_part(first.file, first.parts[0], content)
    second = await large.room.uploads.begin(ann, announced, None, attempt)
    assert second.file == first.file
    assert [part.number for part in second.parts] == [2]
    assert await large.quota(ann) == (0, len(content), 1)
    await large.send_parts(second, content)
    assert (await large.complete(first.file)).status == "completed"
    if world.minio is not None:
        assert len(begun_there) == 2
        assert not await unfinished(world.minio, begun_there)


@on_servers
async def test_an_announcement_whose_answer_was_lost_is_found_again(
    world: World, large: Node, ann: UserId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row has been written: what was begun in the store for it goes on."""
    content = content_of(large, 1.1)
    announced = Announcement("a.mp4", len(content), "video/mp4")
    attempt = Attempt(ann, "POST /v1/storage/upload-url", "once", b"fingerprint")
    write = Clocked.write

    async def lost(db: Clocked, unit: Any, *args: Any) -> Any:
        await write(db, unit, *args)
        raise Unavailable

    monkeypatch.setattr(Clocked, "write", lost)
    with pytest.raises(Unavailable):
        await large.room.uploads.begin(ann, announced, None, attempt)
    monkeypatch.undo()
    begun = await large.room.uploads.begin(ann, announced, None, attempt)
    assert await large.quota(ann) == (0, len(content), 1)
    await large.send_parts(begun, content)
    assert (await large.complete(begun.file)).status == "completed"


def noting_uploads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the uploads begun in the store from now on."""
    begun: list[str] = []
    begin = MinioObjects.begin_parts

    async def noting(store: MinioObjects, key: str) -> str:
        begun.append(await begin(store, key))
        return begun[-1]

    monkeypatch.setattr(MinioObjects, "begin_parts", noting)
    return begun


async def unfinished(minio: MinioObjects, upload_ids: list[str]) -> list[str]:
    _, left = await left_behind(minio)
    return [each for _, each in left if each in upload_ids]


async def test_a_part_that_comes_again_takes_the_place(large: Node, ann: UserId) -> None:
    content = content_of(large, 1.5)
    begun = await large.begin_parts(ann, content)
    await large.send_parts(begun, bytes(len(content)))
    await large.send_parts(begun, content)
    done = await large.complete(begun.file)
    assert done.status == "completed"
    assert await large.fetch(await large.address(done)) == content


async def test_another_checksum_than_announced(world: World, large: Node, ann: UserId) -> None:
    content = content_of(large, 1.1)
    begun = await large.begin_parts(ann, content, checksum_sha256="0" * 64)
    await large.send_parts(begun, content)
    told: list[str] = []
    large.room.files.tell = lambda file, _: told.append(file.status)
    with pytest.raises(UploadMismatch):
        await large.complete(begun.file)
    assert told == ["failed"]
    assert (await large.statuses(), await large.quota(ann)) == (["failed"], (0, 0, 0))
    with pytest.raises(UploadOver):
        await large.complete(begun.file)
    await large.room.sweeper.pass_once()
    assert await large.stored() == []
    await nothing_is_left(world)


@pytest.mark.parametrize("ends", ["deleted", "abandoned"])
async def test_what_was_begun_leaves_nothing(world: World, large: Node, ann: UserId, ends: str) -> None:
    content = content_of(large, 1.1)
    begun = await large.begin_parts(ann, content)
    await large.send_part(begun.file, begun.parts[1], content)
    await large.room.sweeper.pass_once()
    assert len((await large.progress(begun.file)).done) == 1, "what is under way is left alone"
    if ends == "deleted":
        await large.room.delete(ann, begun.file.file_id, ADDRESS)
    else:
        large.forward(large.room.config.upload_parts_s)
    await large.room.sweeper.pass_once()
    assert await large.quota(ann) == (0, 0, 0)
    assert await large.stored() == []
    await nothing_is_left(world)
    if world.minio is None:
        with pytest.raises((AddressExpired, UploadOver, NotFound)):
            await large.send_part(begun.file, begun.parts[0], content)
    else:
        with pytest.raises(NotFound):
            await world.minio.list_parts(begun.file.key, begun.file.upload_id or "")


async def test_others_learn_nothing_of_it(large: Node, ann: UserId, bob: UserId) -> None:
    begun = await large.begin_parts(ann, content_of(large, 1.1))
    for file_id in (begun.file.file_id, unknown()):
        with pytest.raises(NotFound):
            await large.room.uploads.progress(bob, file_id)
        with pytest.raises(NotFound):
            await large.room.uploads.complete(bob, file_id, ADDRESS)


async def test_whoever_dies_verifying_is_followed_by_another(world: World, ann: UserId) -> None:
    """It had put the file in its place, and told nobody."""
    config = replace(config_of(world), verify_at_once=0, verify_wait_s=0)
    dead = await world.node(config, folder="dead")
    content = content_of(dead, 1.1)
    begun = await dead.begin_parts(ann, content, checksum_sha256=hashlib.sha256(content).hexdigest())
    await dead.send_parts(begun, content)
    assert (await dead.complete(begun.file)).status == "verifying"
    now_us = dead.db.now_us()
    claimed = await dead.db.write(store.claim, begun.file.file_id, now_us, now_us + 60 * SECOND_US)
    assert claimed is not None
    await dead.room.uploads._parts.finish(claimed)
    with pytest.raises(UploadArrived):
        await dead.progress(begun.file)
    other = await world.node(config_of(world), folder="other")
    assert not await other.room.verifier.work_once(), "it may still be alive"
    other.forward(61)

    async def is_done() -> bool:
        return (await other.room.files.own(ann, begun.file.file_id)).status == "completed"

    await until(is_done)
    assert await other.fetch(await other.address(begun.file)) == content
    assert await other.quota(ann) == (len(content), 0, 0)
    assert await other.stored() == [begun.file.key]


@embedded
async def test_what_has_arrived_in_time_is_not_given_up(world: World, ann: UserId) -> None:
    """Its turn comes after its time."""
    config = replace(CONFIG, verify_at_once=0, verify_wait_s=0)
    node = await world.node(config, folder="busy")
    begun = await node.begin_parts(ann, content_of(node, 1.1))
    await node.send_parts(begun, content_of(node, 1.1))
    node.forward(config.upload_parts_s - 60)
    assert (await node.complete(begun.file)).status == "verifying"
    node.forward(120)
    await node.room.sweeper.pass_once()
    assert await node.statuses() == ["verifying"]
    assert await node.room.verifier.work_once()
    assert (await node.complete(begun.file)).status == "completed"

    begun = await node.begin_parts(ann, content_of(node, 1.1))
    await node.send_parts(begun, content_of(node, 1.1))
    await node.complete(begun.file)
    node.forward(config.upload_parts_s + config.upload_s)
    await node.room.sweeper.pass_once()
    assert await node.statuses() == ["completed"], "nor does it wait for ever"


@embedded
async def test_a_claim_is_held_for_as_long_as_it_takes(
    world: World, ann: UserId, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = await world.node(replace(CONFIG, verify_lease_s=0.3, verify_wait_s=0), folder="slow")
    content = content_of(node, 1.1)
    begun = await node.begin_parts(ann, content)
    await node.send_parts(begun, content)
    may_end, calls = trio.Event(), 0
    finish = Parts.finish

    async def slow(parts: Parts, file: store.File) -> object:
        nonlocal calls
        calls += 1
        await may_end.wait()
        return await finish(parts, file)

    monkeypatch.setattr(Parts, "finish", slow)
    assert (await node.complete(begun.file)).status == "verifying"

    async def was_prolonged() -> bool:
        [[until_us]] = await node.rows("SELECT claimed_until - asked_at FROM files")
        return int(until_us) > 600_000

    await until(was_prolonged)
    assert calls == 1
    may_end.set()

    async def is_done() -> bool:
        return (await node.statuses()) == ["completed"]

    await until(is_done)


async def test_a_file_deleted_while_it_is_verified_leaves_nothing(
    large: Node, ann: UserId, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = content_of(large, 1.1)
    begun = await large.begin_parts(ann, content)
    await large.send_parts(begun, content)
    finish = Parts.finish

    async def overtaken(parts: Parts, file: store.File) -> object:
        await large.room.files.delete(ann, file.file_id, ADDRESS)
        made = await finish(parts, file)
        assert await large.stored() == [file.key]
        return made

    monkeypatch.setattr(Parts, "finish", overtaken)
    with pytest.raises(NotFound):
        await large.complete(begun.file)
    assert await large.stored() == []


@on_servers
async def test_a_part_of_another_size_is_none(world: World, large: Node, ann: UserId) -> None:
    """An address is good for one length; and should the store take another, it does not count."""
    assert world.minio is not None
    content = content_of(large, 1.1)
    begun = await large.begin_parts(ann, content)
    file = begun.file
    await large.send_part(file, begun.parts[0], content)
    other = world.minio.part_url(file.key, file.upload_id or "", 2, 5, 60)
    async with httpx.AsyncClient(trust_env=False) as http:
        assert (await http.put(begun.parts[1].url, content=b"short")).status_code == 403
        assert (await http.put(other, content=b"short")).status_code == 200
    assert [part.number for part in (await large.progress(begun.file)).parts] == [2]
    with pytest.raises(UploadMissing) as refusal:
        await large.complete(begun.file)
    assert refusal.value.details == {"parts": [2]}
    await large.send_part(begun.file, begun.parts[1], content)
    assert (await large.complete(begun.file)).status == "completed"
    assert await large.fetch(await large.address(begun.file)) == content


# what comes through here


@embedded
async def test_a_part_has_its_size(large: Node, ann: UserId) -> None:
    content = content_of(large, 1.5)
    begun = await large.begin_parts(ann, content)
    url = begun.parts[1].url
    for wrong in (content[: MB // 2 - 1], content[: MB // 2 + 1], b""):
        with pytest.raises(UploadMismatch):
            await large.receive(url, [wrong], len(wrong))
        with pytest.raises(UploadMismatch):
            await large.receive(url, [wrong])
    assert (await large.progress(begun.file)).done == []
    await large.send_parts(begun, content)
    with pytest.raises(UploadMismatch):
        await large.receive(url, [b"x"])
    assert [part.number for part in (await large.progress(begun.file)).done] == [1], "it was begun anew"
    await large.send_parts(begun, content)
    assert (await large.complete(begun.file)).status == "completed"
    with pytest.raises(UploadOver):
        await large.send_parts(begun, content)


@embedded
async def test_parts_come_at_the_same_time_but_each_once(large: Node, ann: UserId) -> None:
    content = content_of(large, 2)
    begun = await large.begin_parts(ann, content)
    half, rest = trio.Event(), trio.Event()

    async def slowly() -> None:
        left = [content[:1000], content[1000:MB]]

        async def read() -> bytes:
            if len(left) == 1:
                half.set()
                await rest.wait()
            return left.pop(0) if left else b""

        await large.room.uploads.receive(begun.parts[0].url.rpartition("/")[2], read, MB)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(slowly)
        await half.wait()
        with pytest.raises(Conflict):
            await large.send_part(begun.file, begun.parts[0], content)
        await large.send_part(begun.file, begun.parts[1], content)
        rest.set()
    assert (await large.complete(begun.file)).status == "completed"
    assert await large.fetch(await large.address(begun.file)) == content


@embedded
async def test_a_part_that_comes_as_the_file_goes(
    world: World, large: Node, ann: UserId, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = content_of(large, 1.1)
    begun = await large.begin_parts(ann, content)
    receive = Parts.receive

    async def overtaken(parts: Parts, file: store.File, grant: Grant, read: Read) -> object:
        await large.room.files.delete(ann, file.file_id, ADDRESS)
        await large.room.sweeper.pass_once()
        return await receive(parts, file, grant, read)

    monkeypatch.setattr(Parts, "receive", overtaken)
    with pytest.raises(UploadOver):
        await large.send_part(begun.file, begun.parts[0], content)
    await nothing_is_left(world)


@embedded
async def test_a_start_keeps_what_has_arrived(world: World, large: Node, data_dir: Path, ann: UserId) -> None:
    content = content_of(large, 1.5)
    begun = await large.begin_parts(ann, content)
    await large.send_part(begun.file, begun.parts[1], content)
    world.store.inner = FolderObjects(data_dir / "objects")
    again = await world.node(CONFIG, folder="large", node_id=large.id)
    resumed = await again.progress(begun.file)
    assert ([part.number for part in resumed.done], [part.number for part in resumed.parts]) == ([2], [1])
    await again.send_parts(resumed, content)
    assert (await again.complete(begun.file)).status == "completed"
    assert await again.fetch(await again.address(begun.file)) == content


@on_servers
async def test_parts_in_a_spool(world: World, large: Node, ann: UserId) -> None:
    other = await world.node(config_of(world), folder="other")
    world.take_store_away()
    content = content_of(large, 1.1)
    begun = await large.begin_parts(ann, content)
    assert begun.file.node_id == large.id
    await large.send_parts(begun, content)
    with pytest.raises(FileOnAwayNode):
        await other.progress(begun.file)
    assert (await other.complete(begun.file)).status == "verifying", "where it lies, it is looked at"

    async def is_done() -> bool:
        return (await other.room.files.own(ann, begun.file.file_id)).status == "completed"

    await until(is_done)
    assert await large.fetch(await large.address(begun.file)) == content
    world.bring_store_back()
    await world.settled(large)
    assert await other.fetch(await other.address(begun.file)) == content


@on_servers
async def test_a_spool_has_room_for_all_of_it_or_takes_nothing(world: World, ann: UserId) -> None:
    world.take_store_away()
    node = await world.node(config_of(world), folder="small", spool_mb=8)
    content = content_of(node, 1.2)
    first, second = [await node.begin_parts(ann, content) for _ in range(2)]
    await node.send_part(first.file, first.parts[1], content)
    with pytest.raises(DiskFull):
        await node.send_part(second.file, second.parts[1], content)
    await node.room.delete(ann, first.file.file_id, ADDRESS)
    await node.room.sweeper.pass_once()
    await node.send_part(second.file, second.parts[1], content)


@on_servers
async def test_a_refused_announcement_leaves_no_upload(
    world: World, large: Node, ann: UserId, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = noting_uploads(monkeypatch)
    with pytest.raises(QuotaExceeded):
        await large.begin_parts(ann, b"", file_size=41 * MB)
    assert world.minio is not None
    assert len(begun) == 1
    assert not await unfinished(world.minio, begun)


# what belongs to no file


async def test_orphans_are_removed_when_they_are_old(world: World, large: Node, ann: UserId) -> None:
    for key in world.before:  # of other tests, and of no row here
        await world.store.delete(key)
    kept = await large.uploaded(ann)
    under_way, url = await large.begin(ann)
    if world.minio is not None:
        await large.send(url)
    begun = await large.begin_parts(ann, content_of(large, 1.1))
    lost = [f"files/{'0' * 32}", f"incoming/{'0' * 32}"]
    for key in (*lost, "files/of-somebody-else"):
        await put(world.store.inner, key, b"x")
    before = set(await large.stored())
    drafts = world.store.inner if world.minio is None else None
    if isinstance(drafts, FolderObjects):
        await large.send_part(begun.file, begun.parts[1], content_of(large, 1.1))
        async with aclosing(pieces(b"x")) as chunks:
            await drafts.put_part(f"incoming/{'1' * 32}", Division(1, 1), 1, chunks)
    await large.room.orphans.pass_once()
    assert set(await large.stored()) == before, "they may be somebody's who is not done yet"
    large.forward(CONFIG.orphans_h * 3600)
    await large.room.orphans.pass_once()
    assert set(await large.stored()) == before - set(lost)
    assert {kept.key} <= before - set(lost)
    if isinstance(drafts, FolderObjects):
        assert await drafts.drafts() == [begun.file.incoming_key]
    assert under_way.incoming_key in before or world.minio is None
    await world.store.delete("files/of-somebody-else")


@embedded
async def test_another_installations_files_are_left_alone(world: World, large: Node, ann: UserId) -> None:
    kept = await large.uploaded(ann)
    others = [f"files/{number:032x}" for number in range(FEW + 2)]
    for key in others:
        await put(world.store.inner, key, b"x")
    large.forward(CONFIG.orphans_h * 3600)
    await large.room.orphans.pass_once()
    assert set(await large.stored()) == {kept.key, *others}


@embedded
async def test_a_moment_without_the_store_does_not_make_it_begin_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifying, "PAUSE_S", 0)
    content = SEED * 40_000
    await put(world.store.inner, "files/a", content)
    read: list[int] = []

    class Breaking(Cut):
        async def get(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
            read.append(start)
            async with aclosing(
                cast("AsyncGenerator[bytes, None]", self.inner.get(key, start, end))
            ) as chunks:
                async for chunk in chunks:
                    yield chunk
                    if len(read) < 3:
                        raise Unavailable

    found = await verifying.sha256_of(Breaking(world.store.inner), "files/a")
    assert found == hashlib.sha256(content).hexdigest()
    assert read == sorted(set(read))
    world.store.is_away = True
    with pytest.raises(Unavailable):
        await verifying.sha256_of(world.store, "files/a")
    world.store.is_away = False
