"""What contracts.Bus promises, whoever stands behind it."""

from __future__ import annotations

import trio
import trio.testing

from secureconnect.deps.contracts import Backlog, Bus, Delivery

from .conftest import BACKLOG


async def gather(backlog: Backlog, count: int) -> list[Delivery]:
    found: list[Delivery] = []
    with trio.fail_after(5):
        async for delivery in backlog:
            found.append(delivery)
            if len(found) == count:
                break
    return found


async def test_every_subscriber_gets_its_channels_in_order(bus: Bus) -> None:
    async with bus.subscribe(["a", "b"]) as both, bus.subscribe(["b"]) as one:
        for n in range(3):
            await bus.publish("a", b"%d" % n)
            await bus.publish("b", b"%d" % n)
            await bus.publish("c", b"nobody")
        got = await gather(both, 6)
        for channel in ("a", "b"):
            assert [each.payload for each in got if each.channel == channel] == [b"0", b"1", b"2"]
        assert await gather(one, 3) == [Delivery("b", b"%d" % n) for n in range(3)]
        assert (both.lost, one.lost) == (0, 0)


async def test_a_waiting_subscriber_is_woken(bus: Bus) -> None:
    async with bus.subscribe(["a"]) as backlog, trio.open_nursery() as nursery:
        got: list[Delivery] = []

        async def wait() -> None:
            got.extend(await gather(backlog, 1))

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await bus.publish("a", b"\0now")
    assert got == [Delivery("a", b"\0now")]


async def test_a_full_backlog_loses_counts_and_goes_on(bus: Bus) -> None:
    async with bus.subscribe(["a"]) as slow, bus.subscribe(["b"]) as other:
        for n in range(BACKLOG + 7):
            await bus.publish("a", b"%d" % n)
        with trio.fail_after(5):
            while slow.lost < 7:  # noqa: ASYNC110  (elsewhere they arrive over a network)
                await trio.sleep(0.01)
        assert slow.lost == 7
        assert [each.payload for each in await gather(slow, BACKLOG)] == [b"%d" % n for n in range(BACKLOG)]
        await bus.publish("a", b"later")
        assert await gather(slow, 1) == [Delivery("a", b"later")]
        assert other.lost == 0


async def test_iteration_ends_with_the_subscription(bus: Bus) -> None:
    async with bus.subscribe(["a"]) as backlog:
        pass
    await bus.publish("a", b"too late")
    with trio.fail_after(5):
        assert [each async for each in backlog] == []


async def test_a_channel_asked_for_twice_is_heard_once(bus: Bus) -> None:
    async with bus.subscribe(["a", "a"]) as backlog:
        await bus.publish("a", b"1")
        await bus.publish("a", b"2")
        assert [each.payload for each in await gather(backlog, 2)] == [b"1", b"2"]


async def test_subscriptions_come_and_go(bus: Bus) -> None:
    """What is published after a subscription began is heard, however often others ended just before."""
    for number in range(20):
        async with bus.subscribe(["a", f"b{number % 3}"]) as backlog:
            await bus.publish("a", b"%d" % number)
            assert await gather(backlog, 1) == [Delivery("a", b"%d" % number)]
            assert backlog.lost == 0


async def test_publishers_at_once_are_all_heard_each_in_order(bus: Bus) -> None:
    async with bus.subscribe(["a", "b"]) as backlog, trio.open_nursery() as nursery:

        async def publish(who: bytes) -> None:
            for number in range(3):
                await bus.publish("a", who + b"%d" % number)

        for who in (b"x", b"y", b"z"):
            nursery.start_soon(publish, who)
        got = [each.payload for each in await gather(backlog, 9)]
    for who in (b"x", b"y", b"z"):
        assert [each for each in got if each[:1] == who] == [who + b"%d" % number for number in range(3)]


async def test_large_payloads(bus: Bus) -> None:
    async with bus.subscribe(["a"]) as backlog:
        for size in (0, 1, 300_000):
            await bus.publish("a", b"\xff" * size)
        assert [len(each.payload) for each in await gather(backlog, 3)] == [0, 1, 300_000]
