"""The way to the asyncio side and back."""

from __future__ import annotations

import asyncio
import threading

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from secureconnect.deps.asyncio_bridge import AT_ONCE, open_bridge


async def test_a_call_goes_over_and_comes_back() -> None:
    async def double(number: int) -> int:
        await asyncio.sleep(0)
        return 2 * number

    async with open_bridge() as bridge:
        assert await bridge.run(double, 21) == 42


async def test_errors_come_back_as_they_are() -> None:
    async def fail() -> None:
        raise KeyError("x")

    async with open_bridge() as bridge:
        with pytest.raises(KeyError, match="x"):
            await bridge.run(fail)


async def test_an_error_of_the_block_comes_out_as_it_is() -> None:
    with pytest.raises(KeyError, match="x"):
        async with open_bridge():
            raise KeyError("x")
    with trio.move_on_after(0.01) as scope:
        async with open_bridge():
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_cancelled_call_has_ended_when_it_returns() -> None:
    ended = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    async with open_bridge() as bridge:
        with trio.move_on_after(0.01) as scope:
            await bridge.run(wait)
        assert (scope.cancelled_caught, ended) == (True, [True])


async def test_a_cancellation_that_is_lost_comes_again() -> None:
    """`asyncio.wait_for` loses one that comes in the moment its work is done."""
    passed = []

    async def work(done: asyncio.Future[None]) -> None:
        await asyncio.wait_for(done, 60)
        passed.append("lost")
        await asyncio.sleep(4)
        passed.append("for good")

    async def make() -> asyncio.Future[None]:
        return asyncio.get_running_loop().create_future()

    async with open_bridge() as bridge:
        done = await bridge.run(make)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(bridge.run, work, done)
                await trio.testing.wait_all_tasks_blocked()
                done.set_result(None)
                scope.cancel()
    assert (scope.cancelled_caught, passed) == (True, ["lost"])


async def test_a_cancellation_during_work_in_a_thread_is_not_forgotten() -> None:
    go_on, reached = threading.Event(), []

    async def work() -> None:
        await asyncio.to_thread(go_on.wait, 10)
        reached.append(True)
        await asyncio.Event().wait()

    async with open_bridge() as bridge:
        with trio.fail_after(5):
            with trio.move_on_after(0.05) as scope:
                await bridge.run(work)
            assert scope.cancelled_caught
        go_on.set()
    assert not reached


async def test_what_nobody_awaits_ends_nothing() -> None:
    async def begin() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(0.01)

    with capture_logs() as logged:
        async with open_bridge() as bridge:
            await bridge.run(begin)
            await bridge.run(begin)
    assert [line["event"] for line in logged] == ["asyncio_failed"] * 2


async def test_what_is_ready_runs_together() -> None:
    ran: list[int] = []
    async with open_bridge() as bridge:
        for number in range(AT_ONCE):
            bridge._loop.call_soon(ran.append, number)
        turns = 0
        while len(ran) < AT_ONCE:
            await trio.lowlevel.checkpoint()
            turns += 1
    assert ran == list(range(AT_ONCE))
    assert turns <= 3


async def test_a_callback_that_calls_itself_for_ever_lets_others_run() -> None:
    is_over = False

    def once_more() -> None:
        if not is_over:
            bridge._loop.call_soon(once_more)

    async with open_bridge() as bridge:
        once_more()
        for _ in range(100):
            await trio.lowlevel.checkpoint()
        is_over = True
