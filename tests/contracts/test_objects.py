"""What contracts.Objects promises, whoever stands behind it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
import trio

from secureconnect import clock
from secureconnect.deps.contracts import Objects, StoredObject
from secureconnect.errors import NotFound, TooLarge

LIMIT = 10_000_000
BIG = bytes(range(256)) * 4096  # 1 MiB: several chunks


async def pieces(content: bytes, size: int = 100_000) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(content), size):
        yield content[start : start + size]
        await trio.lowlevel.checkpoint()


async def put(
    objects: Objects, key: str, chunks: AsyncGenerator[bytes, None], limit: int = LIMIT
) -> StoredObject:
    async with aclosing(chunks):
        return await objects.put(key, chunks, limit_bytes=limit)


async def whole(objects: Objects, key: str, start: int = 0, end: int | None = None) -> bytes:
    return b"".join([chunk async for chunk in objects.get(key, start, end)])


async def keys(objects: Objects, prefix: str = "") -> list[str]:
    return sorted([key async for key in objects.list(prefix)])


@pytest.mark.parametrize("content", [b"", b"x", BIG])
async def test_what_was_put_comes_back(objects: Objects, content: bytes) -> None:
    before_us = clock.now_us() - clock.SECOND_US
    stored = await put(objects, "files/a.bin", pieces(content))
    assert (stored.key, stored.size_bytes) == ("files/a.bin", len(content))
    assert stored.sha256 == hashlib.sha256(content).hexdigest()
    assert before_us <= stored.modified_us <= clock.now_us() + clock.SECOND_US
    assert await objects.stat("files/a.bin") == stored
    assert await whole(objects, "files/a.bin") == content


@pytest.mark.parametrize(
    ("start", "end"),
    [(0, 1), (0, None), (999, 700_000), (len(BIG) - 1, 2 * len(BIG)), (len(BIG), None), (5, 5)],
)
async def test_ranges(objects: Objects, start: int, end: int | None) -> None:
    await put(objects, "a", pieces(BIG))
    assert await whole(objects, "a", start, end) == BIG[start:end]


async def test_too_large_leaves_what_was_there(objects: Objects) -> None:
    with pytest.raises(TooLarge):
        await put(objects, "new", pieces(BIG), len(BIG) - 1)
    await put(objects, "old", pieces(b"old"), 3)
    with pytest.raises(TooLarge):
        await put(objects, "old", pieces(BIG), 3)
    assert await keys(objects) == ["old"]
    assert await whole(objects, "old") == b"old"


async def test_a_source_that_breaks_leaves_what_was_there(objects: Objects) -> None:
    class Gone(Exception):
        pass

    async def breaking() -> AsyncGenerator[bytes, None]:
        yield BIG
        raise Gone

    await put(objects, "a", pieces(b"old"))
    with pytest.raises(Gone):
        await put(objects, "a", breaking())
    assert await whole(objects, "a") == b"old"
    assert await keys(objects) == ["a"]


async def test_a_cancelled_put_leaves_nothing(objects: Objects) -> None:
    with trio.CancelScope() as scope:

        async def leaving() -> AsyncGenerator[bytes, None]:
            yield BIG
            scope.cancel()
            yield BIG

        await put(objects, "a", leaving())
    assert scope.cancelled_caught
    assert await keys(objects) == []


async def test_a_reader_keeps_the_object_it_began_with(objects: Objects) -> None:
    await put(objects, "a", pieces(BIG))
    reader = objects.get("a")
    got = [await anext(reader)]
    await put(objects, "a", pieces(b"new"))
    got += [chunk async for chunk in reader]
    assert b"".join(got) == BIG
    assert await whole(objects, "a") == b"new"


async def test_puts_at_once_leave_one_whole_object(objects: Objects) -> None:
    contents = [bytes([n]) * 300_000 for n in range(8)]

    async with trio.open_nursery() as nursery:
        for content in contents:
            nursery.start_soon(put, objects, "a", pieces(content))
    found = await whole(objects, "a")
    assert found in contents
    assert (await objects.stat("a")).sha256 == hashlib.sha256(found).hexdigest()


async def test_copies_are_objects_of_their_own(objects: Objects) -> None:
    await put(objects, "incoming/a", pieces(b"one"))
    for _ in range(2):
        copied = await objects.copy("incoming/a", "files/a")
        assert (copied.key, copied.size_bytes) == ("files/a", 3)
    await put(objects, "incoming/a", pieces(b"two"))
    assert await whole(objects, "files/a") == b"one"
    await objects.delete("incoming/a")
    assert await keys(objects) == ["files/a"]
    assert await whole(objects, "files/a") == b"one"


async def test_missing_keys(objects: Objects) -> None:
    await put(objects, "a", pieces(b"x"))
    for missing in ("b", "a/b"):
        with pytest.raises(NotFound):
            await objects.stat(missing)
        with pytest.raises(NotFound):
            await whole(objects, missing)
        with pytest.raises(NotFound):
            await objects.copy(missing, "c")
        await objects.delete(missing)
    await objects.delete("a")
    await objects.delete("a")
    assert await keys(objects) == []


async def test_where_something_lies_is_known_without_asking(objects: Objects) -> None:
    await put(objects, "a", pieces(b"x"))
    assert objects.where("a") in ("store", "spool")
    assert objects.where("nowhere") == "store"


async def test_a_file_of_this_machine_begins_with_the_object(objects: Objects) -> None:
    await put(objects, "files/a", pieces(BIG))
    path = objects.path_of("files/a")
    if path is None:
        return  # it lies elsewhere
    async with await trio.open_file(path, "rb") as file:
        await objects.delete("files/a")
        assert (await file.read())[: len(BIG)] == BIG, "once open it stays"


async def test_list_by_prefix(objects: Objects) -> None:
    names = ["a", "a/b", "a/b/c", "ab/c", "b.d/e_f-1.jpg"]
    for name in names:
        await put(objects, name, pieces(b"x"))
    assert await keys(objects) == names
    assert await keys(objects, "a") == ["a", "a/b", "a/b/c", "ab/c"]
    assert await keys(objects, "a/") == ["a/b", "a/b/c"]
    assert await keys(objects, "a/b") == ["a/b", "a/b/c"]
    assert await keys(objects, "nowhere/") == []


@pytest.mark.parametrize(
    "key",
    ["", "/a", "a/", "a//b", "..", "../a", "a/../b", ".", "a/./b", "A", "é", "a b", "a\0", "a=", "a" * 600],
)
async def test_impossible_keys(objects: Objects, key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        await put(objects, key, pieces(b"x"))
    with pytest.raises(ValueError, match="key"):
        await whole(objects, key)
    with pytest.raises(ValueError, match="key"):
        objects.path_of(key)
