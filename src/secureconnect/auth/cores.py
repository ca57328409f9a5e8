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

HELD_S = 0.1  # about as long what is finished may be held back, so that others are told of with it

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
    """waiting: how many may wait for a core, or to be told of.

    Counted are the cores this process may run on: two that share one take longer than one after the other.
    """

    def __init__(self, waiting: int) -> None:
        self._count = _cores_at_hand()
        self._most = self._count + waiting
        self._waiting: deque[_Job] = deque()
        self._unfinished = 0
        self._threads = 0

    async def run(self, work: Callable[[Unpack[Args]], T], *args: *Args) -> T:
        """What `work` returns. Cancelled, it returns at once; what has begun goes on.
        Raises Unavailable when too many wait, or there is no thread to be had."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._unfinished >= self._most:
            raise _too_many()
        job = _Job(partial(work, *args))
        self._unfinished += 1
        self._waiting.append(job)
        if self._threads < self._count:
            self._begin_thread(trio.lowlevel.current_trio_token())
        if not self._threads:
            self._waiting.remove(job)
            self._unfinished -= 1
            raise _too_many()

        def leave(_: object) -> trio.lowlevel.Abort:
            job.task = None
            with suppress(ValueError):  # it has begun
                self._waiting.remove(job)
                self._unfinished -= 1
            return trio.lowlevel.Abort.SUCCEEDED

        result: T = await trio.lowlevel.wait_task_rescheduled(leave)
        return result

    def _begin_thread(self, token: trio.lowlevel.TrioToken) -> None:
        """If the system gives one more."""
        with suppress(RuntimeError):
            trio.lowlevel.start_thread_soon(partial(self._work, token), lambda ended: ended.unwrap())
            self._threads += 1

    def _work(self, token: trio.lowlevel.TrioToken) -> None:
        """In a thread, until nobody waits."""
        done: list[_Job] = []
        tell_at = longest_s = 0.0
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
                longest_s = max(longest_s, now - began)  # and the next will take as long
                if len(done) >= len(self._waiting) or now + longest_s > tell_at:
                    token.run_sync_soon(self._finished, done)
                    done = []
            token.run_sync_soon(self._thread_ended, token, done)

    def _finished(self, jobs: list[_Job]) -> None:
        self._unfinished -= len(jobs)
        for job in jobs:
            if job.task is not None:
                trio.lowlevel.reschedule(job.task, job.outcome)

    def _thread_ended(self, token: trio.lowlevel.TrioToken, jobs: list[_Job]) -> None:
        """jobs: held back for others who left, or whom another thread took; most often none."""
        self._finished(jobs)
        self._threads -= 1
        if self._waiting:  # since the thread has looked
            self._begin_thread(token)
        if not self._threads:
            left = [*self._waiting]
            self._waiting.clear()
            for job in left:
                job.outcome = outcome.Error(_too_many())
            self._finished(left)


def _cores_at_hand() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _too_many() -> Unavailable:
    return Unavailable("Too many people are signing in at this moment.", retry_after_s=1)
