"""Cores: in order, no more at once than there are, told of in groups, bounded."""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import Any

import pytest
import trio
import trio.testing

from secureconnect.auth import cores
from secureconnect.auth.cores import Cores
from secureconnect.errors import Unavailable

WITHIN_S = 10.0


class Work:
    """Keeps a core until it may end."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._begun, self._may_end = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self._begun.set()
        if not self._may_end.wait(WITHIN_S):
            raise TimeoutError(self.name)
        return self.name

    @property
    def has_begun(self) -> bool:
        return self._begun.is_set()

    async def begun(self) -> None:
        assert await trio.to_thread.run_sync(self._begun.wait, WITHIN_S)

    def end(self) -> None:
        self._may_end.set()


@pytest.fixture(autouse=True)
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    monkeypatch.setattr(cores, "HELD_S", 2 * WITHIN_S)  # however slow the machine is


def refuse(*_: object) -> None:
    raise RuntimeError("can't start new thread")


async def begin(nursery: trio.Nursery, room: Cores, names: str) -> tuple[list[Work], set[str]]:
    """Work that is asked for in this order, and what has been told of."""
    told: set[str] = set()

    async def one(work: Work) -> None:
        told.add(await room.run(work))

    works = [Work(name) for name in names]
    for work in works:
        nursery.start_soon(one, work)
        await trio.testing.wait_all_tasks_blocked()
    await works[0].begun()
    return works, told


async def leaving(
    room: Cores, work: Work, task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED
) -> None:
    """Asks for it, until the scope that it tells is cancelled."""
    with trio.CancelScope() as scope:
        task_status.started(scope)
        await room.run(work)


async def told_all(told: set[str], names: str) -> None:
    with trio.fail_after(WITHIN_S):
        while told != set(names):
            await trio.testing.wait_all_tasks_blocked()


async def test_one_after_the_other_where_there_is_one_core() -> None:
    async with trio.open_nursery() as nursery:
        works, told = await begin(nursery, Cores(8), "abc")
        a, b, c = works
        assert not b.has_begun
        a.end()
        await b.begun()
        assert not c.has_begun
        b.end()
        await c.begun()
        c.end()
    assert told == set("abc")


async def test_as_many_at_once_as_there_are_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    async with trio.open_nursery() as nursery:
        works, _ = await begin(nursery, Cores(8), "abc")
        a, b, c = works
        await b.begun()
        assert not c.has_begun
        b.end()
        await c.begun()
        a.end()
        c.end()


async def test_what_is_finished_is_held_while_more_wait_than_are_held() -> None:
    async with trio.open_nursery() as nursery:
        works, told = await begin(nursery, Cores(8), "abcd")
        a, b, c, d = works
        a.end()
        await b.begun()
        await trio.testing.wait_all_tasks_blocked()
        assert not told
        b.end()
        await c.begun()
        await told_all(told, "ab")
        c.end()
        await d.begun()
        await told_all(told, "abc")
        d.end()
    assert told == set("abcd")


async def test_nobody_is_held_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "HELD_S", 0.0)
    async with trio.open_nursery() as nursery:
        works, told = await begin(nursery, Cores(8), "abcd")
        works[0].end()
        await works[1].begun()
        await told_all(told, "a")
        for work in works:
            work.end()


async def test_who_is_held_is_told_when_those_who_waited_leave() -> None:
    room, others = Cores(8), [Work("c"), Work("d")]
    async with trio.open_nursery() as nursery:
        works, told = await begin(nursery, room, "ab")
        scopes = [await nursery.start(leaving, room, work) for work in others]
        await trio.testing.wait_all_tasks_blocked()
        works[0].end()
        await works[1].begun()
        for scope in scopes:
            scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert not told
        works[1].end()
        await told_all(told, "ab")
    assert not any(work.has_begun for work in others)


async def test_more_than_may_wait_are_refused_until_one_leaves() -> None:
    room = Cores(2)
    async with trio.open_nursery() as nursery:
        works, told = await begin(nursery, room, "ab")
        scope = await nursery.start(leaving, room, Work("c"))
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(Unavailable):
            await room.run(str)
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        for work in works:
            work.end()
        told.add(await room.run(str, "d"))
    assert told == set("abd")


async def test_who_leaves_what_has_begun_leaves_at_once_and_it_keeps_its_core() -> None:
    room, work = Cores(0), Work("a")
    async with trio.open_nursery() as nursery:
        scope = await nursery.start(leaving, room, work)
        await work.begun()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert scope.cancelled_caught
        with pytest.raises(Unavailable):
            await room.run(str)
        work.end()


async def test_where_no_thread_is_to_be_had_nobody_waits_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    room = Cores(1)
    with monkeypatch.context() as system:
        system.setattr(trio.lowlevel, "start_thread_soon", refuse)
        for _ in range(3):
            with pytest.raises(Unavailable):
                await room.run(str)
    assert await room.run(str, "a") == "a"


async def test_who_comes_as_a_thread_ends_does_not_wait_for_one_that_is_not_to_be_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Overlooked(deque[Any]):
        """Once a thread has taken the first, it sees none of the others, as if they came just then."""

        looks = 0

        def __bool__(self) -> bool:
            self.looks += 1
            return self.looks != 2

    room, refused = Cores(8), 0

    async def one() -> None:
        nonlocal refused
        with pytest.raises(Unavailable):
            await room.run(str)
        refused += 1

    monkeypatch.setattr(room, "_waiting", Overlooked())
    async with trio.open_nursery() as nursery:
        (work,), told = await begin(nursery, room, "a")
        monkeypatch.setattr(trio.lowlevel, "start_thread_soon", refuse)
        for _ in range(2):
            nursery.start_soon(one)
        await trio.testing.wait_all_tasks_blocked()
        work.end()
        await told_all(told, "a")
    assert refused == 2


async def test_an_error_is_that_of_who_asked() -> None:
    room = Cores(1)
    with pytest.raises(ZeroDivisionError):
        await room.run(divmod, 1, 0)
    assert await room.run(divmod, 7, 2) == (3, 1)
