"""The one asyncio loop, for drivers that know nothing else. Opened outermost, and only when one is used.

Both loops share one thread: what runs on the asyncio side may call plain functions of ours directly, and must
not block. A crossing costs 0.1 to 0.2 ms, so one is made for a unit of work, never for a row or a message.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, ParamSpec, TypeVar

import structlog
import trio
import trio_asyncio

log = structlog.get_logger(module="asyncio_bridge")

T = TypeVar("T")
P = ParamSpec("P")

THREADS = 16  # that drivers use at once
AT_ONCE = 32  # callbacks before tasks of Trio have their turn
AGAIN_S = 1.0  # between two cancellations of what goes on: more than its clean-up takes


class Bridge:
    """The running loop, as the adapters see it."""

    def __init__(self, loop: trio_asyncio.BaseTrioEventLoop) -> None:
        self._loop = loop

    async def run(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Await `function(...)` on the asyncio side.

        Cancelled here, it is cancelled there, and has ended when this returns. What goes on all the same is
        cancelled again every AGAIN_S: `asyncio.wait_for` loses a cancellation that comes in the moment its
        work is done, and trio-asyncio hands on each just once.
        """
        if self._loop.is_closed():
            raise RuntimeError("the loop has ended")
        task = asyncio.ensure_future(_call(function, args, kwargs), loop=self._loop)
        result: T = await trio_asyncio.run_aio_future(_Persistent(task))
        return result


async def _call(function: Callable[..., Awaitable[T]], args: Any, kwargs: Any) -> T:
    """So that all of it runs on the asyncio side."""
    return await function(*args, **kwargs)


class _Persistent:
    """A task, as `run_aio_future` uses it, that cannot outlive its cancellation by losing it."""

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        self.add_done_callback, self.result = task.add_done_callback, task.result

    def cancel(self) -> None:
        if self._task.cancel():
            self._task.get_loop().call_later(AGAIN_S, self.cancel)


_giving_way: set[asyncio.AbstractEventLoop] = set()  # loops that have been asked to


async def breathe() -> None:
    """On the asyncio side: let all other tasks run, of both loops."""
    _giving_way.add(asyncio.get_running_loop())
    await asyncio.sleep(0)


@asynccontextmanager
async def open_bridge() -> AsyncIterator[Bridge]:
    """The loop, for as long as the block lasts. Whatever uses it must have ended before."""
    failure: BaseException | None = None
    async with trio_asyncio.open_loop() as loop:
        _take_several(loop)
        loop.set_exception_handler(_note)
        loop.set_default_executor(_Executor(max_workers=THREADS))
        try:
            yield Bridge(loop)
        except BaseException as exc:
            failure = exc  # raised below as it is: the loop's nurseries would wrap it in groups
    _giving_way.discard(loop)
    if failure is not None:
        raise failure


def _take_several(loop: Any) -> None:
    """Have the loop run what is ready, AT_ONCE callbacks at most, before it waits again. trio-asyncio waits
    before each of them, with a timer and a turn of Trio's loop. Whoever `breathe`s ends it early."""
    take_one = loop._main_loop_one

    async def take_several(no_wait: bool = False) -> None:
        _giving_way.discard(loop)
        await take_one(no_wait)
        try:
            for _ in range(AT_ONCE - 1):
                if loop in _giving_way:
                    break
                await take_one(no_wait=True)
        except trio.WouldBlock:
            pass

    loop._main_loop_one = take_several


class _Executor(trio_asyncio.TrioExecutor):  # type: ignore[misc]
    """For what drivers do in threads: look names up, hash. A cancelled job is left behind: trio-asyncio's
    own executor waits for it, hands out its result and forgets the cancellation: the call would go on."""

    async def submit(self, work: Callable[..., T], *args: object) -> T:
        return await trio.to_thread.run_sync(work, *args, abandon_on_cancel=True, limiter=self._limiter)


def _note(_: object, context: dict[str, Any]) -> None:
    """For what a driver's own task raises and nobody awaits. The usual handler would end the loop with it,
    and Trio with the loop."""
    log.warning("asyncio_failed", reason=context.get("message"), exc_info=context.get("exception"))
