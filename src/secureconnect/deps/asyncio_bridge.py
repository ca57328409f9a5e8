"""The one asyncio loop, for drivers that know nothing else. Opened outermost, and only when one is used.

Both loops share one thread: what runs on the asyncio side may call plain functions of ours directly, and must
not block. A crossing costs 0.1 to 0.2 ms, so one is made for a unit of work, never for a row or a message.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, ParamSpec, TypeVar

import structlog
import trio_asyncio

log = structlog.get_logger(module="asyncio_bridge")

T = TypeVar("T")
P = ParamSpec("P")


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


@asynccontextmanager
async def open_bridge() -> AsyncIterator[Bridge]:
    """The loop, for as long as the block lasts. Whatever uses it must have ended before."""
    async with trio_asyncio.open_loop() as loop:
        loop.set_exception_handler(_note)
        yield Bridge(loop)


def _note(_: object, context: dict[str, Any]) -> None:
    """For what a driver's own task raises and nobody awaits. The usual handler would end the loop with it,
    and Trio with the loop."""
    log.warning("asyncio_failed", reason=context.get("message"), exc_info=context.get("exception"))
