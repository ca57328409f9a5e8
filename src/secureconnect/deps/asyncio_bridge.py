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


class Bridge:
    """The running loop, as the adapters see it."""

    def __init__(self, loop: trio_asyncio.BaseTrioEventLoop) -> None:
        self._loop = loop

    async def run(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Await `function(...)` on the asyncio side.

        Cancelled here, it is cancelled there, and has ended when this returns.
        """
        crossing: Any = trio_asyncio.aio_as_trio(function, loop=self._loop)
        result: T = await crossing(*args, **kwargs)
        return result


async def breathe() -> None:
    """On the asyncio side: let all other tasks run, of both loops."""
    await asyncio.sleep(0)


@asynccontextmanager
async def open_bridge() -> AsyncIterator[Bridge]:
    """The loop, for as long as the block lasts. Whatever uses it must have ended before."""
    failure: BaseException | None = None
    async with trio_asyncio.open_loop() as loop:
        loop.set_exception_handler(_note)
        loop.set_default_executor(_Executor(max_workers=THREADS))
        try:
            yield Bridge(loop)
        except BaseException as exc:
            failure = exc  # raised below as it is: the loop's nurseries would wrap it in groups
    if failure is not None:
        raise failure


class _Executor(trio_asyncio.TrioExecutor):  # type: ignore[misc]
    """For what drivers do in threads: look names up, hash. A cancelled job is left behind: trio-asyncio's
    own executor waits for it, hands out its result and forgets the cancellation: the call would go on."""

    async def submit(self, work: Callable[..., T], *args: object) -> T:
        return await trio.to_thread.run_sync(work, *args, abandon_on_cancel=True, limiter=self._limiter)


def _note(_: object, context: dict[str, Any]) -> None:
    """For what a driver's own task raises and nobody awaits. The usual handler would end the loop with it,
    and Trio with the loop."""
    log.warning("asyncio_failed", reason=context.get("message"), exc_info=context.get("exception"))
