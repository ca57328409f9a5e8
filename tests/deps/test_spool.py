"""The spool before a store that goes away: a folder that does, and a real S3 server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from kit.objects import LIMIT, MB, keys, pieces, put, whole
from kit.store import ObjectStore
from kit.toll import toll_before
from kit.wait import until
from secureconnect.config import Config, MinioConfig
from secureconnect.deps import spool as module
from secureconnect.deps.asyncio_bridge import open_bridge
from secureconnect.deps.contracts import StoredObject
from secureconnect.deps.files import FolderObjects
from secureconnect.deps.minio import MinioObjects
from secureconnect.deps.policy import open_deps
from secureconnect.deps.spool import BLOCK_BYTES, SpooledObjects
from secureconnect.errors import Conflict, DiskFull, NotFound, TooLarge, Unavailable

CONFIG = MinioConfig(spool_mb=1, part_mb=5)


class Store(FolderObjects):
    """A folder that is away when told so, and says how far a put has come."""

    is_away = False
    on_put: Callable[[], None] = staticmethod(lambda: None)  # after it has stored
    reached: trio.Event
    hold: trio.Event | None = None

    async def put(self, key: str, chunks: AsyncIterator[bytes], *, limit_bytes: int) -> StoredObject:
        self._here()
        stored = await super().put(key, chunks, limit_bytes=limit_bytes)
        self.on_put()
        if self.hold is not None:
            self.reached.set()
            await self.hold.wait()
        return stored

    async def get(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        self._here()
        async for chunk in super().get(key, start, end):
            yield chunk

    async def stat(self, key: str) -> StoredObject:
        self._here()
        return await super().stat(key)

    async def delete(self, key: str) -> None:
        self._here()
        await super().delete(key)

    def _here(self) -> None:
        if self.is_away:
            raise Unavailable()


@dataclass
class World:
    """A store, a spool before it, and what the breaker thinks."""

    folder: Path
    store: Store = field(init=False)
    objects: SpooledObjects = field(init=False)
    known: bool = True  # whether the breaker has noticed

    def __post_init__(self) -> None:
        self.store = Store(self.folder / "store")
        self.store.reached = trio.Event()

    async def open(self, config: MinioConfig = CONFIG) -> SpooledObjects:
        """Afresh: as after a crash."""
        self.objects = await SpooledObjects.open(
            self.store, self.folder / "spool", lambda: self.store.is_away and self.known, config
        )
        return self.objects

    def files(self) -> set[str]:
        """Of the spool: objects and marks."""
        root = self.folder / "spool"
        return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


@pytest.fixture
async def world(data_dir: Path) -> World:
    world = World(data_dir)
    await world.open()
    return world


async def test_while_it_is_away_and_when_it_is_back(world: World) -> None:
    objects = world.objects
    await put(objects, "before", b"before")
    world.store.is_away = True
    stored = await put(objects, "files/a", b"kept here")
    assert objects.where("files/a") == "spool"
    assert objects.path_of("files/a") is not None
    assert objects.where("before") == "store"
    assert await objects.stat("files/a") == stored
    assert await whole(objects, "files/a") == b"kept here"
    assert (await objects.copy("files/a", "files/b", version=stored.version)).sha256 == stored.sha256
    with pytest.raises(Conflict):
        await objects.copy("files/a", "files/c", version="another")
    for refused in (
        objects.stat("before"),
        whole(objects, "before"),
        objects.copy("before", "x"),
        objects.delete("before"),
        keys(objects),
    ):
        with pytest.raises(Unavailable):
            await refused
    assert await objects.pass_once() == 0

    world.store.is_away = False
    assert await keys(objects) == ["before", "files/a", "files/b"]
    assert await objects.pass_once() == 2
    assert await objects.pass_once() == 0
    assert world.files() == set()
    for key in ("files/a", "files/b"):
        assert objects.where(key) == "store"
        assert (await objects.stat(key)).version == stored.version
        assert await whole(world.store, key) == b"kept here"
    assert await keys(objects) == ["before", "files/a", "files/b"]


async def test_an_outage_nobody_has_noticed_yet(world: World) -> None:
    world.known = False
    world.store.is_away = True
    await put(world.objects, "a", b"x" * 300_000)
    assert await whole(world.objects, "a") == b"x" * 300_000
    assert world.objects.where("a") == "spool"


async def test_what_was_read_too_far_to_be_read_again_is_refused(world: World) -> None:
    class Late(Store):
        async def put(self, key: str, chunks: AsyncIterator[bytes], *, limit_bytes: int) -> StoredObject:
            [chunk async for chunk in chunks]
            raise Unavailable()

    world.store = Late(world.folder / "store")
    objects = await world.open(MinioConfig(spool_mb=100, part_mb=5))
    await put(objects, "fits", bytes(5 * MB))
    assert (await objects.stat("fits")).size_bytes == 5 * MB
    with pytest.raises(Unavailable):
        await put(objects, "large", bytes(5 * MB + 1))
    assert objects.where("large") == "store"


async def test_a_source_that_breaks_is_not_taken_for_a_short_one(world: World) -> None:
    async def breaking() -> AsyncGenerator[bytes, None]:
        yield b"half"
        raise Unavailable()

    async with aclosing(breaking()) as chunks:
        with pytest.raises(Unavailable):
            await world.objects.put("a", chunks, limit_bytes=LIMIT)
    assert world.objects.waiting == 0
    assert world.files() == set()


async def test_its_size_is_bounded(world: World) -> None:
    world.store.is_away = True
    objects = world.objects
    await put(objects, "a", bytes(600_000))
    with pytest.raises(DiskFull):
        await put(objects, "b", bytes(600_000))
    with pytest.raises(DiskFull):
        await objects.copy("a", "b")
    with pytest.raises(TooLarge):
        await put(objects, "b", bytes(20), 10)
    await put(objects, "b", bytes(300_000))

    async def fill() -> None:
        for number in range(MB // BLOCK_BYTES):
            await put(objects, f"empty/{number}", b"")

    with pytest.raises(DiskFull):  # empty ones take room too
        await fill()
    await objects.delete("a")
    await put(objects, "c", bytes(500_000))
    fresh = await world.open()
    with pytest.raises(DiskFull):
        await put(fresh, "d", bytes(200_000))
    assert len(world.files()) == fresh.waiting


async def test_without_a_spool(world: World) -> None:
    objects = await world.open(MinioConfig(spool_mb=0))
    world.store.is_away = True
    with pytest.raises(Unavailable):
        await put(objects, "a", b"x")


async def test_puts_at_once_share_the_room(world: World) -> None:
    world.store.is_away = True
    refused = 0

    async def one(key: str) -> None:
        nonlocal refused
        try:
            await put(world.objects, key, bytes(400_000))
        except DiskFull:
            refused += 1

    async with trio.open_nursery() as nursery:
        for number in range(6):
            nursery.start_soon(one, f"a{number}")
    assert refused >= 4
    assert world.objects.waiting == 6 - refused
    await put(world.objects, "small", bytes(100_000))  # what was refused has given its room back


async def test_what_is_deleted_stays_deleted(world: World) -> None:
    objects = world.objects
    await put(objects, "a", b"older")
    world.store.is_away = True
    await put(objects, "a", b"newer")
    for _ in range(2):
        await objects.delete("a")
    with pytest.raises(NotFound):
        await objects.stat("a")
    objects = await world.open()
    with pytest.raises(NotFound):
        await whole(objects, "a")
    world.store.is_away = False
    with pytest.raises(NotFound):
        await objects.copy("a", "b")
    assert await keys(objects) == []
    assert await objects.pass_once() == 1
    assert await keys(world.store) == []
    assert world.files() == set()


async def test_a_deletion_is_told_to_a_store_that_is_there(world: World) -> None:
    world.store.is_away = True
    await put(world.objects, "a", b"x")
    world.store.is_away = False
    await world.objects.delete("a")
    assert world.objects.waiting == 0
    assert await keys(world.objects) == []


async def test_put_again_after_deletion(world: World) -> None:
    world.store.is_away = True
    await put(world.objects, "a", b"one")
    await world.objects.delete("a")
    await put(world.objects, "a", b"two")
    objects = await world.open()
    assert await whole(objects, "a") == b"two"
    world.store.is_away = False
    assert await objects.pass_once() == 1
    assert await whole(world.store, "a") == b"two"
    assert await objects.pass_once() == 0
    assert await whole(objects, "a") == b"two"


async def test_the_newest_wins(world: World) -> None:
    """A key that lies here is changed here, or its move would undo the change."""
    objects = world.objects
    world.store.is_away = True
    await put(objects, "a", b"one")
    await put(objects, "b", b"one")
    world.store.is_away = False
    await put(objects, "a", b"two")
    await put(objects, "c", b"three")
    await objects.copy("c", "b")
    while objects.waiting:
        await objects.pass_once()
    assert await whole(objects, "a") == b"two"
    assert await whole(objects, "b") == b"three"


@pytest.mark.parametrize("change", ["put", "delete", "copy"])
async def test_a_move_gives_way_to_a_change(world: World, change: str) -> None:
    objects = world.objects
    world.store.is_away = True
    await put(objects, "a", b"one")
    await put(objects, "b", b"two")
    world.store.is_away = False
    world.store.hold = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(objects.pass_once)
        await world.store.reached.wait()  # the store has it, and the spool does not know yet
        with trio.fail_after(5):
            if change == "put":
                await put(objects, "a", b"new")
            elif change == "copy":
                await objects.copy("b", "a")
            else:
                await objects.delete("a")
        world.store.hold.set()
        world.store.hold = None
    while objects.waiting:
        await objects.pass_once()
    if change == "delete":
        assert await keys(world.store) == ["b"]
    else:
        assert await whole(world.store, "a") == (b"new" if change == "put" else b"two")


async def test_a_crash_between_copy_and_removal(world: World) -> None:
    world.store.is_away = True
    await put(world.objects, "a", b"precious")
    world.store.is_away = False
    with trio.CancelScope() as crash:
        world.store.on_put = crash.cancel
        await world.objects.pass_once()
    world.store.on_put = lambda: None
    assert crash.cancelled_caught
    assert await whole(world.store, "a") == b"precious"
    assert world.files() == {"kept/a="}
    objects = await world.open()
    assert objects.where("a") == "spool"
    assert await objects.pass_once() == 1
    assert world.files() == set()
    assert await whole(objects, "a") == b"precious"


async def test_a_crash_between_mark_and_removal_keeps_the_object(world: World) -> None:
    world.store.is_away = True
    await put(world.objects, "a", b"x")
    await world.objects._mark("a")
    objects = await world.open()
    assert await whole(objects, "a") == b"x"
    assert world.files() == {"kept/a="}
    world.store.is_away = False
    await objects.pass_once()
    assert await objects.pass_once() == 0
    assert await whole(objects, "a") == b"x"


async def test_what_the_store_does_not_give_back_stays(world: World) -> None:
    class Forgetful(Store):
        forgets = True

        async def put(self, key: str, chunks: AsyncIterator[bytes], *, limit_bytes: int) -> StoredObject:
            if self.forgets and key == "a":
                async with aclosing(pieces(b"something else")) as other:
                    return await super().put(key, other, limit_bytes=LIMIT)
            return await super().put(key, chunks, limit_bytes=limit_bytes)

    store = world.store = Forgetful(world.folder / "store")
    objects = await world.open()
    store.is_away = True
    await put(objects, "a", b"mine")
    await put(objects, "b", b"mine too")
    store.is_away = False
    with capture_logs() as logged:
        assert await objects.pass_once() == 1
    assert [line["event"] for line in logged] == ["spooled_object_differs"]
    assert await whole(objects, "a") == b"mine"
    store.forgets = False
    assert await objects.pass_once() == 1
    assert await whole(store, "a") == b"mine"


async def test_a_deletion_that_the_store_refuses_holds_up_nothing_else(world: World) -> None:
    class Keeping(Store):
        keeps = True

        async def delete(self, key: str) -> None:
            if self.keeps and key == "held":
                raise Unavailable()  # a retention rule, say
            await super().delete(key)

    store = world.store = Keeping(world.folder / "store")
    objects = await world.open(MinioConfig(spool_mb=1, spool_pass=1))
    await put(objects, "held", b"1")
    store.is_away = True
    await put(objects, "held", b"2")
    await objects.delete("held")
    await put(objects, "a", b"a")
    await put(objects, "b", b"b")
    store.is_away = False
    for _ in range(6):
        await objects.pass_once()
    assert await keys(store) == ["a", "b", "held"]
    with pytest.raises(NotFound):
        await objects.stat("held")
    store.keeps = False
    while objects.waiting:
        assert await objects.pass_once()
    assert await keys(store) == ["a", "b"]


async def test_a_pass_is_bounded_and_ends_when_the_store_goes(world: World) -> None:
    objects = await world.open(MinioConfig(spool_mb=1, spool_pass=3))
    world.store.is_away = True
    for number in range(8):
        await put(objects, f"a{number}", b"x")
    world.store.is_away = False
    assert await objects.pass_once() == 3
    assert await keys(world.store) == ["a0", "a1", "a2"]

    def go_away() -> None:
        world.store.is_away = True

    world.store.on_put = go_away
    world.known = False
    assert await objects.pass_once() == 0
    assert objects.waiting == 5
    world.store.on_put = lambda: None
    world.store.is_away = False
    assert [await objects.pass_once() for _ in range(3)] == [3, 2, 0]


async def test_it_is_measured(world: World) -> None:
    def measured() -> tuple[float, float]:
        return module.OBJECTS._value.get(), module.BYTES._value.get()

    world.store.is_away = True
    await put(world.objects, "a", bytes(5000))
    await put(world.objects, "a", bytes(4096))
    await put(world.objects, "b", b"")
    assert measured() == (2, 2 * BLOCK_BYTES)
    await world.objects.delete("b")
    assert measured() == (1, 2 * BLOCK_BYTES)  # the mark takes as much
    await world.open()
    assert measured() == (1, 2 * BLOCK_BYTES)
    world.store.is_away = False
    await world.objects.pass_once()
    assert measured() == (0, 0)


async def test_a_real_server_that_is_killed_and_comes_back(
    store: ObjectStore, minio_config: MinioConfig, data_dir: Path
) -> None:
    async with open_bridge() as bridge, MinioObjects.open(minio_config, bridge) as minio:
        away = False
        objects = await SpooledObjects.open(minio, data_dir / "spool", lambda: away, minio_config)
        await put(objects, "before", b"before")
        store.kill()
        first = await put(objects, "files/a", b"a" * 300_000)  # the breaker is still closed
        away = True
        await put(objects, "files/b", b"b")
        await put(objects, "files/c", b"c")
        await put(objects, "before", b"after")
        await objects.delete("files/c")
        assert await whole(objects, "files/a") == b"a" * 300_000
        assert await objects.pass_once() == 0

        store.start()
        away = False

        async def all_moved() -> bool:
            await objects.pass_once()
            return objects.waiting == 0

        await until(all_moved, within_s=20)
        assert (await minio.stat("files/a")).sha256 == first.sha256
        assert (await objects.stat("files/a")).version == first.version
        assert await whole(minio, "before") == b"after"
        assert await keys(minio) == ["before", "files/a", "files/b"]
        assert not [path for path in (data_dir / "spool").rglob("*") if path.is_file()]


async def test_a_real_server_that_dies_during_a_pass(
    store: ObjectStore, minio_config: MinioConfig, data_dir: Path
) -> None:
    async with open_bridge() as bridge, MinioObjects.open(minio_config, bridge) as minio:
        away = True
        objects = await SpooledObjects.open(minio, data_dir / "spool", lambda: away, minio_config)
        contents = {f"files/{number}": bytes([number]) * 200_000 for number in range(30)}
        for key, content in contents.items():
            await put(objects, key, content)
        away = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(objects.pass_once)
            await until(lambda: objects.waiting < 25)
            store.kill()
        assert objects.waiting > 0
        objects = await SpooledObjects.open(minio, data_dir / "spool", lambda: away, minio_config)
        store.start()

        async def all_moved() -> bool:
            await objects.pass_once()
            return objects.waiting == 0

        await until(all_moved, within_s=20)
        for key, content in contents.items():
            assert await whole(minio, key) == content


async def test_a_put_to_a_store_that_froze_is_kept_as_soon_as_that_is_known(
    store: ObjectStore, minio_config: MinioConfig, data_dir: Path
) -> None:
    patient = replace(minio_config, call_s=60)
    async with open_deps(Config(data_dir=str(data_dir / "node"), minio=patient)) as deps:
        await put(deps.objects, "files/a", b"before")
        store.freeze()
        with trio.fail_after(10):  # the breaker is still closed
            await put(deps.objects, "files/a", b"after")
        assert await whole(deps.objects, "files/a") == b"after"


async def test_a_call_that_moves_bytes_goes_on_though_the_store_is_found_away(
    minio_config: MinioConfig,
) -> None:
    content = bytes(range(256)) * 4096
    async with (
        toll_before(f"http://{minio_config.endpoint}") as toll,
        open_bridge() as bridge,
        MinioObjects.open(
            replace(minio_config, endpoint=f"127.0.0.1:{toll.port}", connect_s=0.5), bridge
        ) as objects,
    ):
        await put(objects, "a", content)
        toll.delay_s = 0.1
        read: list[bytes] = []

        async def reads() -> None:
            read.append(await whole(objects, "a"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(reads)
            await trio.sleep(0.3)
            objects.abandon()
        assert read == [content]
