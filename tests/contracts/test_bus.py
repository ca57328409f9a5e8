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
