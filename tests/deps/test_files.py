"""What is peculiar to objects in a folder: crashes, modes, what the disk says."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path

import pytest

from secureconnect.deps.contracts import StoredObject
from secureconnect.deps.files import INCOMING, FolderObjects
from secureconnect.errors import DiskFull, Unavailable


async def put(objects: FolderObjects, key: str, content: bytes) -> StoredObject:
    async def chunks() -> AsyncGenerator[bytes, None]:
        yield content

    async with aclosing(chunks()) as source:
        return await objects.put(key, source, limit_bytes=10_000_000)


def files(root: Path) -> dict[str, int]:
    """Relative path → mode of everything under `root`."""
    return {str(path.relative_to(root)): path.stat().st_mode & 0o777 for path in root.rglob("*")}


@contextmanager
def small_files(limit_bytes: int) -> Iterator[None]:
    """The system refuses to write past this size: a real error in the middle of a write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


async def test_everything_is_private(data_dir: Path) -> None:
    root = data_dir / "objects"
    await put(FolderObjects(root), "a/b", b"x")
    assert files(root) == {INCOMING: 0o700, "a": 0o700, "a/b=": 0o600}


async def test_a_new_start_removes_what_a_crash_left_and_keeps_the_rest(data_dir: Path) -> None:
    root = data_dir / "objects"
    await put(FolderObjects(root), "a", b"kept")
    half = root / INCOMING / "half"
    half.write_bytes(b"half an obj")
    objects = FolderObjects(root)
    assert set(files(root)) == {INCOMING, "a="}
    assert (await objects.stat("a")).size_bytes == 4


async def test_a_write_that_fails_leaves_what_was_there(data_dir: Path) -> None:
    root = data_dir / "objects"
    objects = FolderObjects(root)
    await put(objects, "a", b"old")
    with small_files(1_000_000), pytest.raises(Unavailable):
        await put(objects, "a", bytes(2_000_000))
    assert set(files(root)) == {INCOMING, "a="}
    assert (await objects.stat("a")).size_bytes == 3
    assert (await put(objects, "a", b"newer")).size_bytes == 5


async def test_a_disk_below_its_reserve_takes_nothing_and_gives_all(data_dir: Path) -> None:
    root = data_dir / "objects"
    await put(FolderObjects(root), "a", b"old")
    objects = FolderObjects(root, reserve_mb=2**40)
    with pytest.raises(DiskFull):
        await put(objects, "b", b"")
    assert set(files(root)) == {INCOMING, "a="}
    assert (await objects.copy("a", "c")).size_bytes == 3, "a link takes no room"
    await objects.delete("a")


async def test_an_object_cut_short_by_others_is_not_served_as_whole(data_dir: Path) -> None:
    root = data_dir / "objects"
    objects = FolderObjects(root)
    await put(objects, "a", bytes(1_000_000))
    reader = objects.get("a")
    await anext(reader)
    os.truncate(root / "a=", 300_000)
    with pytest.raises(Unavailable):
        [chunk async for chunk in reader]
