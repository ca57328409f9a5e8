"""Units of work on their way to a thread of the embedded database and back.

The way there is a queue, the way back one word to the event loop. What a thread pool of Trio does besides (a
token, a name for the thread, a copy of the context, a timer) would cost more than a short unit itself.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from itertools import takewhile
from typing import Any

import trio

from ..errors import DeadlineExceeded, OutcomeUnknown, PoolExhausted


class Job(ABC):
    """One unit, and the task that waits for it.

    due: when the caller stops waiting, on trio's clock.  stop: when the unit is interrupted, on
    time.monotonic.  overdue: what the caller is told instead of the outcome.
    """

    __slots__ = ("args", "begun", "due", "error", "kwargs", "overdue", "result", "stop", "task", "unit")

    def __init__(
        self,
        unit: Callable[..., Awaitable[Any]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        limit_s: float,
    ) -> None:
        self.unit = unit
        self.args = args
        self.kwargs = kwargs
        self.due = trio.current_time() + limit_s
        self.stop = time.monotonic() + limit_s
        self.begun = False
        self.task: trio.lowlevel.Task | None = trio.lowlevel.current_task()
        self.result: Any = None
        self.error: BaseException | None = None
        self.overdue: Exception | None = None

    @abstractmethod
    def begin(self) -> bool:
        """For the thread: False if the unit was withdrawn."""

    @abstractmethod
    def withdraw(self, _: Any) -> trio.lowlevel.Abort:
        """For trio, when the caller is cancelled."""

    @abstractmethod
    def expire(self) -> None:
        """Wake the caller, if it still waits, without an outcome."""

    def wake(self) -> None:
        task, self.task = self.task, None
        if task is not None:
            trio.lowlevel.reschedule(task)


class Write(Job):
    """A unit that writes: from when it has begun on, its outcome is awaited.

    claim: taken once, by the writer that begins the unit or by the caller who withdraws it.  stop: earlier
    than due, so that the outcome is known in time.
    """

    __slots__ = ("claim", "relieves")

    def __init__(
        self,
        unit: Callable[..., Awaitable[Any]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        limit_s: float,
        *,
        relieves: bool,
    ) -> None:
        super().__init__(unit, args, kwargs, limit_s)
        self.stop -= 0.1 * limit_s
        self.relieves = relieves
        self.claim = threading.Lock()

    def begin(self) -> bool:
        if not self.begun:
            self.begun = self.claim.acquire(blocking=False)
        return self.begun

    def withdraw(self, _: Any) -> trio.lowlevel.Abort:
        if self.claim.acquire(blocking=False):
            self.task = None
            return trio.lowlevel.Abort.SUCCEEDED
        return trio.lowlevel.Abort.FAILED

    def expire(self) -> None:
        if self.task is None:
            return
        withdrawn = self.claim.acquire(blocking=False)
        self.overdue = PoolExhausted() if withdrawn else OutcomeUnknown()
        self.wake()


class Read(Job):
    """A unit that reads: whoever does not wait for it any more leaves at once, and it is interrupted."""

    __slots__ = ()

    def begin(self) -> bool:
        self.begun = self.task is not None
        return self.begun

    def withdraw(self, _: Any) -> trio.lowlevel.Abort:
        self.stop = 0.0
        self.task = None
        return trio.lowlevel.Abort.SUCCEEDED

    def expire(self) -> None:
        if self.task is None:
            return
        self.stop = 0.0
        self.overdue = DeadlineExceeded("The database took too long.") if self.begun else PoolExhausted()
        self.wake()


class Pending:
    """The jobs whose callers wait, oldest first. All have the same limit, so the oldest is the next to end.

    limit_s: that limit.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._jobs: dict[Job, None] = {}

    async def wait(self, job: Job) -> Any:
        """What has become of a job that was handed to a thread."""
        self._jobs[job] = None
        try:
            await trio.lowlevel.wait_task_rescheduled(job.withdraw)
            await trio.lowlevel.checkpoint_if_cancelled()
            if job.overdue is not None:
                raise job.overdue
            if job.error is not None:
                raise job.error
            return job.result
        finally:
            self._jobs.pop(job, None)
            del job  # its error holds this frame

    def expire_all(self) -> None:
        for job in list(self._jobs):
            job.expire()

    async def expire_forever(self) -> None:
        """Wake the callers whose time is up."""
        while True:
            now = trio.current_time()
            for job in list(takewhile(lambda job: job.due <= now, self._jobs)):  # noqa: B023
                job.expire()
                del self._jobs[job]
            oldest = next(iter(self._jobs), None)
            await trio.sleep_until(oldest.due if oldest is not None else now + self._limit_s)
            await trio.lowlevel.checkpoint()  # after a stop of the loop, outcomes come before ends
