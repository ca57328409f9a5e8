"""What contracts.Cache promises, whoever stands behind it."""

from __future__ import annotations

import pytest
import trio

from secureconnect.deps.contracts import Allowance, Cache


async def test_values_are_kept_replaced_and_deleted(cache: Cache) -> None:
    assert await cache.get("a") is None
    await cache.put("a", b"1", 60)
    await cache.put("b", b"\0\xff", 60)
    await cache.put("a", b"2", 60)
    assert await cache.get("a") == b"2"
    await cache.delete("a")
    await cache.delete("a")
    assert await cache.get("a") is None
    assert await cache.get("b") == b"\0\xff"


async def test_values_end(cache: Cache) -> None:
    await cache.put("short", b"1", 0.05)
    await cache.put("shortened", b"1", 60)
    await cache.put("shortened", b"1", 0.05)
    await cache.put("long", b"1", 60)
    await cache.put("prolonged", b"1", 0.05)
    await cache.put("prolonged", b"1", 60)
    with trio.fail_after(5):
        while await cache.get("short") or await cache.get("shortened"):  # noqa: ASYNC110
            await trio.sleep(0.01)
    assert await cache.get("long") == b"1"
    assert await cache.get("prolonged") == b"1"


async def test_a_burst_then_an_even_rate(cache: Cache) -> None:
    first, second, third = [await cache.take("k", 2, 0.4) for _ in range(3)]
    assert (first.allowed, first.remaining, first.retry_after_s) == (True, 1, 0)
    assert (second.allowed, second.remaining) == (True, 0)
    assert not third.allowed
    assert 0 < third.retry_after_s <= 0.2
    assert third.retry_after_s < third.reset_s <= 0.4
    await trio.sleep(third.retry_after_s + 0.01)
    assert (await cache.take("k", 2, 0.4)).allowed
    assert (await cache.take("other", 2, 0.4)).remaining == 1


async def test_many_are_taken_of_in_one_question(cache: Cache) -> None:
    assert await cache.take_each([], 2, 60) == []
    await cache.take("b", 2, 60)
    for wanted in ([(True, 1), (True, 0), (True, 1)], [(True, 0), (False, 0), (True, 0)]):
        taken = await cache.take_each(["a", "b", "c"], 2, 60)
        assert [(each.allowed, each.remaining) for each in taken] == wanted
    assert [each.retry_after_s > 25 for each in taken] == [False, True, False]
    await cache.put("v", b"1", 60)
    with pytest.raises(TypeError, match="take"):
        await cache.take_each(["d", "v"], 2, 60)


async def test_takers_at_once_get_no_more_than_the_limit(cache: Cache) -> None:
    answers: list[Allowance] = []

    async def take() -> None:
        answers.append(await cache.take("k", 10, 60))

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(take)
    assert sorted(each.remaining for each in answers if each.allowed) == list(range(10))


async def test_a_key_is_for_values_or_for_take(cache: Cache) -> None:
    await cache.put("k", b"x", 60)
    with pytest.raises(TypeError, match="take"):
        await cache.take("k", 1, 60)
    assert await cache.get("k") == b"x"
    await cache.take("t", 1, 60)
    assert await cache.get("t") is None


async def test_what_take_remembers_can_be_deleted_and_replaced(cache: Cache) -> None:
    for _ in range(2):
        assert (await cache.take("k", 1, 60)).allowed
        assert not (await cache.take("k", 1, 60)).allowed
        await cache.delete("k")
    assert (await cache.take("k", 1, 60)).allowed
    await cache.put("k", b"x", 60)
    assert await cache.get("k") == b"x"


async def test_a_value_that_has_ended_before_it_began(cache: Cache) -> None:
    await cache.put("k", b"x", 60)
    await cache.put("k", b"y", 0)
    await trio.sleep(0.01)
    assert await cache.get("k") is None


async def test_any_text_is_a_key_and_any_bytes_a_value(cache: Cache) -> None:
    keys = ["", " ", "a b\r\nc", "\0", "ключ", "\ud800", "k" * 10_000]
    for number, key in enumerate(keys):
        await cache.put(key, b"%d\r\n\0\xff" % number, 60)
    for number, key in enumerate(keys):
        assert await cache.get(key) == b"%d\r\n\0\xff" % number
    await cache.put("long", b"x" * 1_000_000, 60)
    assert await cache.get("long") == b"x" * 1_000_000
    await cache.put("empty", b"", 60)
    assert await cache.get("empty") == b""
