"""What every journal promises: kept once `append` has returned, in order, until it is done."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
import trio

from secureconnect.deps.contracts import Journal
from secureconnect.errors import Unavailable

Open = Callable[[], AbstractAsyncContextManager[Journal]]


async def payloads(journal: Journal, topic: str = "chat") -> list[bytes]:
    return [record.payload for record in await journal.read(topic, 0, 1_000_000)]


async def test_what_was_appended_is_read_in_order_also_after_a_restart(open_journal: Open) -> None:
    async with open_journal() as journal:
        first = await journal.append("chat", [b"one", b"two"])
        second = await journal.append("chat", [b"three"])
        assert first + second == sorted(set(first + second))
        assert await payloads(journal) == [b"one", b"two", b"three"]
    async with open_journal() as journal:
        assert await payloads(journal) == [b"one", b"two", b"three"]
        assert await journal.append("chat", [b"four"]) > second
        assert await payloads(journal) == [b"one", b"two", b"three", b"four"]


async def test_what_is_done_is_gone_also_after_a_restart(open_journal: Open) -> None:
    async with open_journal() as journal:
        numbers = await journal.append("chat", [b"one", b"two", b"three"])
        await journal.done([numbers[1], 4711])
        assert await payloads(journal) == [b"one", b"three"]
    async with open_journal() as journal:
        assert await payloads(journal) == [b"one", b"three"]
        await journal.done(numbers)
        assert await payloads(journal) == []
    async with open_journal() as journal:
        assert await payloads(journal) == []


async def test_it_is_read_in_parts(open_journal: Open) -> None:
    async with open_journal() as journal:
        await journal.append("chat", [b"%d" % number for number in range(10)])
        found: list[bytes] = []
        after = 0
        while page := await journal.read("chat", after, 3):
            assert len(page) <= 3
            found += [record.payload for record in page]
            after = page[-1].number
    assert found == [b"%d" % number for number in range(10)]


async def test_topics_do_not_see_each_other(open_journal: Open) -> None:
    async with open_journal() as journal:
        await journal.append("chat", [b"a message"])
        await journal.append("auth", [b"a revocation"])
        assert await payloads(journal) == [b"a message"]
        assert await payloads(journal, "auth") == [b"a revocation"]


async def test_many_at_once_are_all_kept(open_journal: Open) -> None:
    async with open_journal() as journal:
        numbers: dict[bytes, int] = {}

        async def append(payload: bytes) -> None:
            [numbers[payload]] = await journal.append("chat", [payload])

        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(append, b"%d" % number)
        kept = {record.payload: record.number for record in await journal.read("chat", 0, 1_000)}
        assert kept == numbers
        assert len(kept) == 200


async def test_a_cancelled_append_harms_no_other(open_journal: Open) -> None:
    async with open_journal() as journal:
        scopes = [trio.CancelScope() for _ in range(20)]
        returned: list[bytes] = []

        async def append(scope: trio.CancelScope, payload: bytes) -> None:
            with scope:
                await journal.append("chat", [payload])
                returned.append(payload)

        async with trio.open_nursery() as nursery:
            for number, scope in enumerate(scopes):
                nursery.start_soon(append, scope, b"%d" % number)
            await trio.lowlevel.checkpoint()
            for scope in scopes[::2]:
                scope.cancel()
        kept = await payloads(journal)
        assert set(returned) <= set(kept)
        assert {b"%d" % number for number in range(1, 20, 2)} <= set(returned)


async def test_it_is_bounded_and_takes_more_once_something_is_done(open_journal: Open) -> None:
    chunk = b"x" * 100_000
    async with open_journal() as journal:
        numbers: list[int] = []
        with pytest.raises(Unavailable):  # noqa: PT012  (how many fit is the journal's to say)
            for _ in range(20):
                numbers += await journal.append("chat", [chunk])
        assert 9 <= len(numbers) <= 10
        assert len(await payloads(journal)) == len(numbers), "what was refused is not kept"
        for _ in range(30):  # the file is bounded too, whatever has passed through it
            await journal.done([numbers.pop(0)])
            numbers += await journal.append("chat", [chunk])
        assert [record.number for record in await journal.read("chat", 0, 100)] == numbers
    async with open_journal() as journal:
        assert len(await payloads(journal)) == len(numbers)


async def test_a_closed_one_takes_nothing(open_journal: Open) -> None:
    async with open_journal() as journal:
        pass
    with pytest.raises(Unavailable):
        await journal.append("chat", [b"late"])
