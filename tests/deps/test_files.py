"""What is peculiar to objects in a folder: crashes, modes, what the disk says."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import pytest

from kit.disk import small_files
from secureconnect.deps.contracts import Division, StoredObject, UploadedPart
from secureconnect.deps.files import DRAFTS, INCOMING, FolderObjects
from secureconnect.errors import DiskFull, NotFound, TooLarge, Unavailable


async def put(objects: FolderObjects, key: str, content: bytes) -> StoredObject:
    async def chunks() -> AsyncGenerator[bytes, None]:
        yield content

    async with aclosing(chunks()) as source:
        return await objects.put(key, source, limit_bytes=10_000_000)


def files(root: Path) -> dict[str, int]:
    """Relative path → mode of everything under `root`."""
    return {str(path.relative_to(root)): path.stat().st_mode & 0o777 for path in root.rglob("*")}


async def test_everything_is_private(data_dir: Path) -> None:
    root = data_dir / "objects"
    await put(FolderObjects(root), "a/b", b"x")
    assert files(root) == {INCOMING: 0o700, DRAFTS: 0o700, "a": 0o700, "a/b=": 0o600}


async def test_a_new_start_removes_what_a_crash_left_and_keeps_the_rest(data_dir: Path) -> None:
    root = data_dir / "objects"
    await put(FolderObjects(root), "a", b"kept")
    half = root / INCOMING / "half"
    half.write_bytes(b"half an obj")
    objects = FolderObjects(root)
    assert set(files(root)) == {INCOMING, DRAFTS, "a="}
    assert (await objects.stat("a")).size_bytes == 4


async def test_a_write_that_fails_leaves_what_was_there(data_dir: Path) -> None:
    root = data_dir / "objects"
    objects = FolderObjects(root)
    await put(objects, "a", b"old")
    with small_files(1_000_000), pytest.raises(Unavailable):
        await put(objects, "a", bytes(2_000_000))
    assert set(files(root)) == {INCOMING, DRAFTS, "a="}
    assert (await objects.stat("a")).size_bytes == 3
    assert (await put(objects, "a", b"newer")).size_bytes == 5


async def test_a_disk_below_its_reserve_takes_nothing_and_gives_all(data_dir: Path) -> None:
    root = data_dir / "objects"
    await put(FolderObjects(root), "a", b"old")
    objects = FolderObjects(root, reserve_mb=2**40)
    with pytest.raises(DiskFull):
        await put(objects, "b", b"")
    assert set(files(root)) == {INCOMING, DRAFTS, "a="}
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


# drafts

CUT = Division(size_bytes=2_500, part_bytes=1_000)


async def put_part(objects: FolderObjects, number: int, *content: bytes) -> UploadedPart:
    async def chunks() -> AsyncGenerator[bytes, None]:
        for chunk in content:
            yield chunk

    async with aclosing(chunks()) as source:
        return await objects.put_part("in/a", CUT, number, source)


async def test_a_draft_becomes_an_object_without_a_copy(data_dir: Path) -> None:
    root = data_dir / "objects"
    objects = FolderObjects(root)
    assert (await objects.parts("in/a", CUT), await objects.drafts()) == ([], [])
    for number, content in ((3, b"c" * 500), (1, b"a" * 1_000)):
        part = await put_part(objects, number, content)
        assert part == UploadedPart(number, hashlib.sha256(content).hexdigest(), len(content))
    with pytest.raises(NotFound):
        await objects.finish_draft("in/a", CUT, "a")
    await put_part(objects, 2, b"b" * 999, b"b")
    assert set(files(root).values()) == {0o600, 0o700}
    inode = (root / DRAFTS / "in=a").stat().st_ino
    done = await objects.finish_draft("in/a", CUT, "a")
    whole = b"a" * 1_000 + b"b" * 1_000 + b"c" * 500
    assert (done.size_bytes, done.sha256) == (2_500, hashlib.sha256(whole).hexdigest())
    assert b"".join([chunk async for chunk in objects.get("a")]) == whole
    assert (root / "a=").stat().st_ino == inode
    assert set(files(root)) == {INCOMING, DRAFTS, "a="}
    with pytest.raises(NotFound):
        await objects.finish_draft("in/a", CUT, "a")


async def test_a_part_counts_only_when_it_is_whole(data_dir: Path) -> None:
    objects = FolderObjects(data_dir / "objects")
    await put_part(objects, 1, b"a" * 1_000)
    for wrong in (b"b" * 999, b"b" * 1_001):
        with pytest.raises((ValueError, TooLarge)):
            await put_part(objects, 1, wrong)
        assert await objects.parts("in/a", CUT) == []
    for number in (0, 4):
        with pytest.raises(ValueError, match="number"):
            await put_part(objects, number, b"")
    await put_part(objects, 2, b"b" * 1_000)
    assert [part.number for part in await FolderObjects(data_dir / "objects").parts("in/a", CUT)] == [2]
    await objects.abandon_draft("in/a")
    await objects.abandon_draft("in/a")
    assert (await objects.parts("in/a", CUT), await objects.drafts()) == ([], [])


async def test_a_crash_between_the_checksum_and_the_name(data_dir: Path) -> None:
    """The draft is longer than its parts then."""
    objects = FolderObjects(data_dir / "objects")
    for number in (1, 2, 3):
        await put_part(objects, number, b"x" * CUT.length(number))
    with (data_dir / "objects" / DRAFTS / "in=a").open("ab") as content:
        content.write(bytes(32))
    done = await objects.finish_draft("in/a", CUT, "a")
    assert (done.size_bytes, done.sha256) == (2_500, hashlib.sha256(b"x" * 2_500).hexdigest())
