"""Work that keeps a core busy for long, in threads: first come, first served, never more at once than cores.

A thread goes on by itself with what waits next, and tells the event loop of what it has finished in groups. A
hash drives everything else out of the core's cache, so what follows it (a transaction, an answer, the next
request) costs twice as much for each that comes alone. Where few wait, nobody is held back for that.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar, TypeVarTuple, Unpack

import outcome
import trio

from ..errors import Unavailable

HELD_S = 0.1  # how long what is finished may be held back, so that others are told of with it

T = TypeVar("T")
Args = TypeVarTuple("Args")


class _Job:
    """task: who waits for it; None once they have left."""

    __slots__ = ("outcome", "task", "work")

    outcome: outcome.Outcome[Any]

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work
        self.task: trio.lowlevel.Task | None = trio.lowlevel.current_task()


class Cores:
    """waiting: how many may wait for a core.

    Counted are the cores this process may run on: two that share one take longer than one after the other.
    """

    def __init__(self, waiting: int) -> None:
        self._count = len(os.sched_getaffinity(0))
        self._most = self._count + waiting
        self._waiting: deque[_Job] = deque()
        self._unfinished = 0
        self._threads = 0

    async def run(self, work: Callable[[Unpack[Args]], T], *args: *Args) -> T:
        """What `work` returns. Cancelled, it returns at once; what has begun goes on.
        Raises Unavailable when too many wait."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._unfinished >= self._most:
            raise Unavailable("Too many people are signing in at this moment.", retry_after_s=1)
        job = _Job(partial(work, *args))
        self._unfinished += 1
        self._waiting.append(job)
        if self._threads < self._count:
            self._begin_thread(trio.lowlevel.current_trio_token())

        def leave(_: object) -> trio.lowlevel.Abort:
            job.task = None
            with suppress(ValueError):  # it has begun
                self._waiting.remove(job)
                self._unfinished -= 1
            return trio.lowlevel.Abort.SUCCEEDED

        result: T = await trio.lowlevel.wait_task_rescheduled(leave)
        return result

    def _begin_thread(self, token: trio.lowlevel.TrioToken) -> None:
        self._threads += 1
        trio.lowlevel.start_thread_soon(partial(self._work, token), lambda ended: ended.unwrap())

    def _work(self, token: trio.lowlevel.TrioToken) -> None:
        """In a thread, until nobody waits."""
        done: list[_Job] = []
        tell_at = 0.0
        with suppress(trio.RunFinishedError):  # nobody is left to tell
            while self._waiting:
                began = time.monotonic()
                try:
                    job = self._waiting.popleft()
                except IndexError:  # another thread took it
                    break
                job.outcome = outcome.capture(job.work)
                now = time.monotonic()
                if not done:
                    tell_at = now + HELD_S
                done.append(job)
                # the next will take as long
                if len(done) >= len(self._waiting) or now + (now - began) > tell_at:
                    token.run_sync_soon(self._finished, done)
                    done = []
            token.run_sync_soon(self._thread_ended, token, done)

    def _finished(self, jobs: list[_Job]) -> None:
        self._unfinished -= len(jobs)
        for job in jobs:
            if job.task is not None:
                trio.lowlevel.reschedule(job.task, job.outcome)

    def _thread_ended(self, token: trio.lowlevel.TrioToken, jobs: list[_Job]) -> None:
        """jobs: held back, when those who waited had left or been taken."""
        self._finished(jobs)
        self._threads -= 1
        if self._waiting:  # since the thread has looked
            self._begin_thread(token)
