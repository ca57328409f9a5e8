"""What is done again and again for as long as the process runs, whatever refuses it for a while."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, TypeVar

import trio

from .errors import Problem

T = TypeVar("T")

LONGEST_REST_S = 1.0  # a database that was frozen is no reason to rest for minutes


class Trouble:
    """`with trouble:` around each attempt. A Problem ends the attempt, not the program; the log tells of the
    first, and when an attempt succeeds again, how many had failed.

    log: the logger of whoever attempts.  event: what it is called in the log.
    """

    def __init__(self, log: Any, event: str) -> None:
        self._log = log
        self._event = event
        self._failed = 0

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(error, Problem):
            self._failed += 1
            if self._failed == 1:
                self._log.warning(self._event, code=error.code)
            return True
        if error is None and self._failed:
            self._log.info("trouble_over", trouble=self._event, failed=self._failed)
            self._failed = 0
        return False


async def every(period_s: float, attempt: Callable[[], Awaitable[object]], log: Any, event: str) -> None:
    """For ever, a pause before each. What is refused waits for the next turn.  log, event: of `Trouble`."""
    trouble = Trouble(log, event)
    while True:
        await trio.sleep(period_s)
        with trouble:
            await attempt()


async def modestly(share: float, work: Callable[[], Awaitable[T]]) -> T:
    """Do a piece of work, and rest for so long that it had that share of the time. What can be behind leaves
    the processor and the database to what people wait for: the busier these are, the longer it rests."""
    began = trio.current_time()
    done = await work()
    took = trio.current_time() - began
    await trio.sleep(min(took / share - took, LONGEST_REST_S))
    return done
