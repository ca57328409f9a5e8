"""From the announcement of a file to its place, and what becomes of it when that goes wrong."""

from __future__ import annotations

import hashlib

import httpx
import pytest
import trio

from kit.objects import put
from secureconnect.clock import SECOND_US
from secureconnect.config import StorageConfig
from secureconnect.deps.files import FolderObjects
from secureconnect.errors import (
    Conflict,
    DiskFull,
    FileTooLarge,
    NotFound,
    Problem,
    QuotaExceeded,
    TooManyUploads,
    Unavailable,
    UploadArrived,
    UploadMismatch,
    UploadMissing,
    UploadOver,
)
from secureconnect.identity import UserId
from secureconnect.storage import store
from secureconnect.storage.store import File

from .conftest import embedded, on_servers
from .rig import CONFIG, CONTENT, Node, World

SIZE = len(CONTENT)
SHA = hashlib.sha256(CONTENT).hexdigest()


async def test_a_file_comes_and_goes(world: World, node: Node, ann: UserId) -> None:
    file, url = await node.begin(ann, checksum_sha256=SHA)
    assert (file.status, await node.quota(ann)) == ("uploading", (0, SIZE, 1))
    await node.send(url)
    assert await node.statuses() == ["uploading"], "only its owner completes it"
    done = await node.complete(file)
    assert (done.status, done.checksum_sha256, await node.quota(ann)) == ("completed", SHA, (SIZE, 0, 0))
    assert await node.fetch(await node.address(done)) == CONTENT
    assert await node.stored() == [file.key], "nothing lies where it came in"
    assert (await node.room.files.visible(ann, file.file_id)).status == "completed"

    await node.room.files.delete(ann, file.file_id, "")
    assert await node.quota(ann) == (0, 0, 0)
    with pytest.raises(NotFound):
        await node.room.files.visible(ann, file.file_id)
    await node.room.sweeper.pass_once()
    assert await node.stored() == []
    assert await node.statuses() == ["deleted"], "something may still arrive"
    node.forward(CONFIG.upload_s)
    await node.room.sweeper.pass_once()
    assert await node.is_gone(file)
    actions = await node.rows("SELECT action, actor_id, subject FROM audit ORDER BY audit_id")
    served = () if world.minio is not None else ("served",)  # the store tells nobody what it gives out
    assert actions == [
        (f"storage:file:{deed}", ann, file.file_id)
        for deed in ("announced", "uploaded", "downloaded", *served, "deleted")
    ]


async def test_an_empty_file(node: Node, ann: UserId) -> None:
    done = await node.uploaded(ann, b"")
    assert await node.fetch(await node.address(done)) == b""


async def test_complete_before_it_has_arrived(node: Node, ann: UserId) -> None:
    file, url = await node.begin(ann)
    for _ in range(2):
        with pytest.raises(UploadMissing):
            await node.complete(file)
    with pytest.raises(UploadMissing):
        await node.address(file)
    await node.send(url)
    assert (await node.complete(file)).status == "completed"


async def test_completed_many_times_it_counts_once(node: Node, ann: UserId) -> None:
    file, url = await node.begin(ann)
    await node.send(url)
    statuses: list[str] = []

    async def complete() -> None:
        statuses.append((await node.complete(file)).status)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(complete)
    assert set(statuses) <= {"completed", "verifying"}
    assert "completed" in statuses
    assert (await node.complete(file)).status == "completed"
    assert await node.quota(ann) == (SIZE, 0, 0)
    assert await node.rows("SELECT count(*) FROM audit WHERE action = 'storage:file:uploaded'") == [(1,)]


@pytest.mark.parametrize("wrong", [CONTENT[1:], CONTENT + b"x", b""])
async def test_what_has_another_size(world: World, node: Node, ann: UserId, wrong: bytes) -> None:
    """It is not let in: the address is good for the right one. Should a store let it in all the same, this
    upload is over."""
    file, url = await node.begin(ann)
    if world.minio is None:
        for length in (len(wrong), None):  # whatever it says of itself
            with pytest.raises(UploadMismatch):
                await node.receive(url, [wrong], length)
    else:
        async with httpx.AsyncClient(trust_env=False) as http:
            assert (await http.put(url, content=wrong)).status_code == 403
    assert await node.stored() == []
    await node.send(url)
    assert (await node.complete(file)).status == "completed"
    await node.room.delete(ann, file.file_id, "")
    await node.room.sweeper.pass_once()
    node.forward(CONFIG.upload_s)
    await node.room.sweeper.pass_once()

    file, _ = await node.begin(ann)
    await put(world.store.inner, file.incoming_key, wrong)
    with pytest.raises(UploadMismatch):
        await node.complete(file)
    assert (await node.statuses(), await node.quota(ann)) == (["failed"], (0, 0, 0))
    with pytest.raises(UploadOver):
        await node.complete(file)
    await node.room.sweeper.pass_once()
    assert await node.stored() == []


async def test_what_has_another_checksum(node: Node, ann: UserId) -> None:
    file, url = await node.begin(ann, checksum_sha256=SHA)
    with pytest.raises(UploadMismatch):
        await node.send_and_complete(file, url, bytes(SIZE))
    assert (await node.statuses(), await node.quota(ann)) == (["failed"], (0, 0, 0))
    await node.room.sweeper.pass_once()
    assert await node.stored() == [], "nor does it lie at its key"


@on_servers
async def test_the_id_of_a_file_does_not_tell_where_it_lies(node: Node, ann: UserId) -> None:
    """At an address for sending, MinIO copies whatever one header more tells it the name of."""
    file = await node.uploaded(ann)
    assert file.file_id not in await node.address(file)


async def test_what_is_put_there_later_changes_nothing(world: World, node: Node, ann: UserId) -> None:
    """The address is still good, and what it leads to is cleared away when it is not any more."""
    file, url = await node.begin(ann)
    await node.send(url)
    await node.complete(file)
    if world.minio is None:
        with pytest.raises(UploadOver):
            await node.send(url, bytes(SIZE))
    else:
        await node.send(url, bytes(SIZE))
        assert await node.stored() == [file.key, file.incoming_key]
    assert await node.fetch(await node.address(file)) == CONTENT
    await node.room.sweeper.pass_once()
    node.forward(CONFIG.upload_s)
    await node.room.sweeper.pass_once()
    assert await node.stored() == [file.key]
    assert await node.rows("SELECT sweep_at FROM files") == [(None,)]
    assert await node.quota(ann) == (SIZE, 0, 0)


@embedded
async def test_what_is_put_there_much_later_is_nobodys(world: World, node: Node, ann: UserId) -> None:
    """Sending began while the address was good, and went on until long after."""
    file = await node.uploaded(ann)
    node.forward(CONFIG.upload_s)
    await node.room.sweeper.pass_once()
    await put(world.store.inner, file.incoming_key, CONTENT)
    node.forward(CONFIG.orphans_h * 3600)
    await node.room.orphans.pass_once()
    assert await node.stored() == [file.key]


async def test_what_is_exchanged_while_it_is_verified(world: World, node: Node, ann: UserId) -> None:
    """What was looked at is what is kept."""
    file, url = await node.begin(ann)

    async def exchange() -> None:
        await put(world.store.inner, file.incoming_key, b"another size")

    world.store.before_copy = exchange
    with pytest.raises(Conflict):
        await node.send_and_complete(file, url, CONTENT)
    world.store.before_copy = None
    assert (await node.statuses(), await node.stored()) == (["uploading"], [file.incoming_key])
    assert (await node.send_and_complete(file, url, CONTENT)).status == "completed"
    assert await node.fetch(await node.address(file)) == CONTENT


@embedded
async def test_a_file_that_is_too_large(node: Node, ann: UserId) -> None:
    with pytest.raises(FileTooLarge) as refusal:
        await node.begin(ann, file_size=CONFIG.max_file_mb * 1024 * 1024 + 1)
    assert refusal.value.details == {"limit_bytes": 5_368_709_120}
    assert await node.statuses() == []


async def test_the_quota_is_exact_however_many_begin(node: Node, ann: UserId, bob: UserId) -> None:
    outcomes: list[str] = []

    async def begin(owner: UserId) -> None:
        try:
            await node.begin(owner, file_size=1024 * 1024)
        except QuotaExceeded as refusal:
            outcomes.append(refusal.code)
        else:
            outcomes.append("begun")

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(begin, ann)
    assert sorted(outcomes) == ["QUOTA_EXCEEDED"] * 16 + ["begun"] * 4
    full = 4 * 1024 * 1024
    assert await node.quota(ann) == (0, full, 4)
    with pytest.raises(QuotaExceeded) as refusal:
        await node.begin(ann, file_size=1)
    assert refusal.value.details == {"quota_bytes": full, "used_bytes": 0, "reserved_bytes": full}
    await begin(bob)
    assert outcomes[-1] == "begun", "everybody has their own"


async def test_a_bounded_number_is_kept(world: World, ann: UserId, bob: UserId) -> None:
    node = await world.node(StorageConfig(max_files=2), folder="b")
    outcomes: list[str] = []

    async def begin() -> None:
        try:
            await node.begin(ann, b"")
        except QuotaExceeded as refusal:
            outcomes.append(repr(refusal.details))
        else:
            outcomes.append("begun")

    kept = await node.uploaded(ann, b"")
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(begin)
    assert sorted(outcomes) == ["begun"] + ["{'files': 2}"] * 4
    assert await node.quota(ann) == (0, 0, 1), "a refusal reserves nothing"
    await node.begin(bob, b"")
    await node.room.files.delete(ann, kept.file_id, "")
    await node.begin(ann, b"")


@embedded
async def test_a_bounded_number_is_unfinished(node: Node, ann: UserId) -> None:
    files = [(await node.begin(ann, file_size=1))[0] for _ in range(CONFIG.max_unfinished)]
    with pytest.raises(TooManyUploads):
        await node.begin(ann, file_size=1)
    await node.room.files.delete(ann, files[0].file_id, "")
    await node.begin(ann, file_size=1)
    assert await node.quota(ann) == (0, CONFIG.max_unfinished, CONFIG.max_unfinished)


async def test_abandoned_uploads_are_freed(node: Node, ann: UserId) -> None:
    abandoned = [await node.begin(ann) for _ in range(2)]
    await node.send(abandoned[1][1])
    kept = await node.uploaded(ann)
    await node.room.sweeper.pass_once()
    assert await node.quota(ann) == (SIZE, 2 * SIZE, 2)
    node.forward(CONFIG.upload_s)
    for _ in range(2):  # safe to repeat
        await node.room.sweeper.pass_once()
        assert await node.quota(ann) == (SIZE, 0, 0)
        assert await node.statuses() == ["completed"]
        assert await node.stored() == [kept.key]
    noted = await node.rows("SELECT subject FROM audit WHERE action = 'storage:file:expired' ORDER BY 1")
    assert noted == [(file.file_id,) for file, _ in abandoned]


async def test_what_cannot_be_removed_now_is_removed_later(world: World, node: Node, ann: UserId) -> None:
    first, second = await node.uploaded(ann), await node.uploaded(ann)
    world.store.is_away = True
    for file in (first, second):
        await node.room.delete(ann, file.file_id, "")
    await node.room.sweeper.pass_once()
    assert (await node.statuses(), await node.quota(ann)) == (["deleted", "deleted"], (0, 0, 0))
    world.store.is_away = False
    node.forward(CONFIG.sweep_s)
    await node.room.sweeper.pass_once()
    assert await node.stored() == []
    node.forward(CONFIG.upload_s)
    await node.room.sweeper.pass_once()
    assert await node.statuses() == []


async def test_the_store_goes_away_while_it_is_verified(world: World, node: Node, ann: UserId) -> None:
    file, url = await node.begin(ann)
    if world.minio is None:
        world.store.is_away = True
        with pytest.raises(Unavailable):
            await node.send(url)
        world.store.is_away = False
        await node.send(url)
    else:
        await node.send(url)
        world.store.is_away = True
        with pytest.raises(Unavailable):
            await node.complete(file)
        world.store.is_away = False
    assert await node.statuses() == ["uploading"], "nobody holds it"
    assert (await node.complete(file)).status == "completed"


async def test_whoever_died_verifying_it_holds_it_for_a_while_only(node: Node, ann: UserId) -> None:
    file, url = await node.begin(ann)
    now_us = node.db.now_us()
    claim = now_us + 30 * SECOND_US
    assert await node.db.write(store.claim, file.file_id, now_us, claim) is not None
    assert await node.db.write(store.claim, file.file_id, now_us, claim + 1) is None
    await node.send(url)
    assert (await node.complete(file)).status == "verifying"
    node.forward(31)
    assert (await node.complete(file)).status == "completed"
    assert await node.db.write(store.keep, file.file_id, claim, now_us, None, None) is None
    await node.db.write(store.fail, file.file_id, claim, now_us)
    await node.db.write(store.unclaim, file.file_id, claim)
    assert await node.statuses() == ["completed"], "who comes late changes nothing"


async def test_a_file_deleted_while_it_is_verified_leaves_nothing(node: Node, ann: UserId) -> None:
    file, url = await node.begin(ann)
    await node.send(url)
    now_us = node.db.now_us()
    await node.db.write(store.claim, file.file_id, now_us, now_us + 30 * SECOND_US)
    await node.room.files.delete(ann, file.file_id, "")
    assert await node.quota(ann) == (0, 0, 0)
    with pytest.raises((NotFound, UploadOver)):
        await node.complete(file)
    await node.room.sweeper.pass_once()
    node.forward(CONFIG.upload_s)
    await node.room.sweeper.pass_once()
    assert (await node.statuses(), await node.stored()) == ([], [])


class Leaves(Exception):
    """The client has gone."""


async def sent_by_halves(node: Node, file: File, url: str, half: trio.Event, rest: trio.Event) -> None:
    left = [CONTENT[:1000], CONTENT[1000:]]

    async def read() -> bytes:
        if len(left) == 1:
            half.set()
            await rest.wait()
        return left.pop(0) if left else b""

    await node.room.uploads.receive(url.rpartition("/")[2], read, None)


@embedded
async def test_who_did_not_hear_that_it_arrived_sends_it_again(node: Node, ann: UserId) -> None:
    file, url = await node.begin(ann)
    await node.send(url)
    with pytest.raises(UploadArrived):
        await node.send(url)
    assert (await node.complete(file)).status == "completed"


@embedded
async def test_a_client_that_leaves_leaves_nothing(node: Node, ann: UserId) -> None:
    file, url = await node.begin(ann)
    half, never = trio.Event(), trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sent_by_halves, node, file, url, half, never)
        await half.wait()
        with pytest.raises(Conflict):
            await node.send(url)  # one at a time
        nursery.cancel_scope.cancel()
    assert await node.stored() == []
    await node.send(url)
    assert (await node.complete(file)).status == "completed"


@embedded
async def test_a_file_deleted_while_it_arrives(node: Node, ann: UserId) -> None:
    file, url = await node.begin(ann)
    half, rest = trio.Event(), trio.Event()
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            with pytest.raises(UploadOver):
                await sent_by_halves(node, file, url, half, rest)

        nursery.start_soon(send)
        await half.wait()
        await node.room.files.delete(ann, file.file_id, "")
        await node.room.sweeper.pass_once()
        rest.set()
    node.forward(CONFIG.upload_s)
    await node.room.sweeper.pass_once()
    assert (await node.statuses(), await node.stored()) == ([], [])


@embedded
async def test_a_file_that_arrives_when_its_time_is_over_leaves_nothing(node: Node, ann: UserId) -> None:
    file, url = await node.begin(ann)
    half, rest = trio.Event(), trio.Event()
    async with trio.open_nursery() as nursery:

        async def send() -> None:
            with pytest.raises(UploadOver):
                await sent_by_halves(node, file, url, half, rest)

        nursery.start_soon(send)
        await half.wait()
        node.forward(CONFIG.upload_s)
        await node.room.sweeper.pass_once()
        assert await node.is_gone(file)
        rest.set()
    assert await node.stored() == []


@embedded
async def test_a_disk_below_its_reserve_takes_nothing(world: World, node: Node, ann: UserId) -> None:
    whole = world.store.inner
    world.store.inner = FolderObjects(world.folder / "data" / "objects", reserve_mb=2**40)
    file, url = await node.begin(ann)
    with pytest.raises(DiskFull):
        await node.send(url)
    assert await node.stored() == []
    world.store.inner = whole
    await node.send(url)
    assert (await node.complete(file)).status == "completed"


async def test_verifying_has_a_limit(world: World, ann: UserId) -> None:
    node = await world.node(StorageConfig(verify_s=1), folder="slow")
    file, url = await node.begin(ann)
    stat = node.room.uploads._objects.stat

    async def never(key: str) -> None:
        await trio.sleep_forever()

    if world.minio is not None:
        await node.send(url)
    node.room.uploads._objects.stat = never  # type: ignore[assignment, method-assign]
    with trio.fail_after(5), pytest.raises(Problem, match="in time"):
        await (node.complete(file) if world.minio is not None else node.send(url))
    node.room.uploads._objects.stat = stat  # type: ignore[method-assign]
    assert (await node.complete(file)).status == "completed"
