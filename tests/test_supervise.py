"""One room crashes: it alone is restarted, and whoever waited inside is told."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock, wait_all_tasks_blocked

from kit.scrape import value
from secureconnect.errors import Unavailable
from secureconnect.supervise import CRASH_BUDGET, CRASH_WINDOW_S, FIRST_PAUSE_S, GaveUp, Handle


class Crash(Exception):
    pass


def state(handle: Handle[Room]) -> str:
    """As text, or mypy would take each state for the one asserted before."""
    return handle.state


class Room:
    """A room that crashes when told to.  lives_s: how long it runs before it crashes by itself."""

    def __init__(self, lives_s: float = float("inf"), *, starts: bool = True) -> None:
        self.born = trio.current_time()
        self._lives_s = lives_s
        self._starts = starts
        self._crash = trio.Event()

    def crash(self) -> None:
        self._crash.set()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        if self._starts:
            task_status.started()
        with trio.move_on_after(self._lives_s):
            await self._crash.wait()
        raise Crash


class House:
    """Builds rooms and remembers them."""

    def __init__(self, build: Callable[[], Room] = Room) -> None:
        self.rooms: list[Room] = []
        self._build = build

    def build(self) -> Room:
        self.rooms.append(self._build())
        return self.rooms[-1]

    @property
    def born(self) -> list[float]:
        return [room.born - self.rooms[0].born for room in self.rooms]


class Waiting(Room):
    """A room that cannot start for want of something, as often as `absences` says, and is `away` again once
    it is told to crash."""

    absences = 0

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        if Waiting.absences:
            Waiting.absences -= 1
            async with trio.open_nursery():
                raise Unavailable("The database is away.")
        task_status.started()
        await self._crash.wait()
        raise Unavailable("The database went away.")


async def test_a_room_waits_for_what_is_away_however_long(autojump_clock: MockClock) -> None:
    house = House(Waiting)
    handle = Handle("chat", house.build)
    Waiting.absences = 20 * CRASH_BUDGET
    with capture_logs() as lines:
        async with trio.open_nursery() as nursery:
            await nursery.start(handle.run)
            assert len(house.rooms) == 20 * CRASH_BUDGET + 1
            assert house.born[-1] == pytest.approx(20 * CRASH_BUDGET * FIRST_PAUSE_S), "at an even pace"
            Waiting.absences = 3
            handle.require().crash()
            await wait_all_tasks_blocked()
            assert state(handle) == "restarting"
            await trio.sleep(4.5 * FIRST_PAUSE_S)
            assert state(handle) == "running"
            nursery.cancel_scope.cancel()
    assert [(line["event"], line["reason"]) for line in lines] == [
        ("room_waits", "The database is away."),
        ("room_waits", "The database went away."),
    ]


async def test_a_room_that_crashes_is_built_anew(autojump_clock: MockClock) -> None:
    house = House()
    handle = Handle("chat", house.build)
    assert state(handle) == "stopped"
    crashes = value("secureconnect_room_restarts_total", room="chat")
    async with trio.open_nursery() as nursery:
        await nursery.start(handle.run)
        assert state(handle) == "running"
        assert value("secureconnect_room_up", room="chat") == 1
        first = handle.require()
        first.crash()
        await wait_all_tasks_blocked()
        assert state(handle) == "restarting"
        assert value("secureconnect_room_up", room="chat") == 0
        assert value("secureconnect_room_restarts_total", room="chat") == crashes + 1
        with pytest.raises(Unavailable) as caught:
            handle.require()
        assert caught.value.retry_after_s == 1
        await trio.sleep(FIRST_PAUSE_S)
        await wait_all_tasks_blocked()
        assert state(handle) == "running"
        assert handle.require() is house.rooms[1] is not first
        nursery.cancel_scope.cancel()
    assert state(handle) == "stopped"
    with pytest.raises(Unavailable):
        handle.require()


async def test_pauses_double_and_too_many_crashes_end_it(autojump_clock: MockClock) -> None:
    house = House(lambda: Room(lives_s=0))
    handle = Handle("chat", house.build)
    with pytest.raises(GaveUp, match=f"chat crashed {CRASH_BUDGET} times"):
        await handle.run()
    assert house.born == pytest.approx([0, 0.5, 1.5, 3.5, 7.5])
    assert state(handle) == "stopped"


async def test_crashes_far_apart_are_forgiven(autojump_clock: MockClock) -> None:
    house = House(lambda: Room(lives_s=CRASH_WINDOW_S + 1))
    with trio.move_on_after(20 * CRASH_WINDOW_S):
        await Handle("chat", house.build).run()
    gaps = [later - sooner for sooner, later in zip(house.born, house.born[1:], strict=False)]
    assert len(gaps) > CRASH_BUDGET
    assert gaps == pytest.approx([CRASH_WINDOW_S + 1 + FIRST_PAUSE_S] * len(gaps))


async def test_pauses_are_bounded(autojump_clock: MockClock) -> None:
    house = House(lambda: Room(lives_s=20))
    with trio.move_on_after(600):
        await Handle("chat", house.build).run()
    gaps = [later - sooner for sooner, later in zip(house.born, house.born[1:], strict=False)]
    assert gaps == pytest.approx([20.5, 21, 22, 24, 28, 36] + [50] * (len(gaps) - 6))


async def test_a_room_that_ends_by_itself_has_crashed(autojump_clock: MockClock) -> None:
    class Brief(Room):
        async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
            task_status.started()

    with pytest.raises(GaveUp):
        await Handle("chat", Brief).run()


async def test_the_starter_waits_for_the_first_instance_that_serves(autojump_clock: MockClock) -> None:
    rooms = iter([Room(lives_s=1, starts=False), Room()])
    house = House(lambda: next(rooms))
    handle = Handle("chat", house.build)
    async with trio.open_nursery() as nursery:
        began = trio.current_time()
        await nursery.start(handle.run)
        assert trio.current_time() - began == pytest.approx(1 + FIRST_PAUSE_S)
        assert handle.require() is house.rooms[1]
        nursery.cancel_scope.cancel()


async def test_waiters_inside_a_crashed_room_get_unavailable(autojump_clock: MockClock) -> None:
    chat, auth = Handle("chat", Room), Handle("auth", Room)
    ended: list[str] = []

    async def wait_in(handle: Handle[Room], name: str) -> None:
        with pytest.raises(Unavailable), handle.use():
            await trio.sleep_forever()
        ended.append(name)

    async with trio.open_nursery() as nursery:
        await nursery.start(chat.run)
        await nursery.start(auth.run)
        nursery.start_soon(wait_in, chat, "chat 1")
        nursery.start_soon(wait_in, chat, "chat 2")
        nursery.start_soon(wait_in, auth, "auth")
        await wait_all_tasks_blocked()
        chat.require().crash()
        await wait_all_tasks_blocked()
        assert sorted(ended) == ["chat 1", "chat 2"]
        assert state(auth) == "running"
        # a new use waits in the new instance, untouched by the old crash
        await trio.sleep(FIRST_PAUSE_S)
        await wait_all_tasks_blocked()
        with chat.use() as room:
            await trio.sleep(1)
            assert room is chat.require()
        auth.require().crash()
        await wait_all_tasks_blocked()
        assert "auth" in ended
        nursery.cancel_scope.cancel()


async def test_work_that_was_done_when_the_room_crashed_is_done(autojump_clock: MockClock) -> None:
    handle = Handle("chat", Room)
    async with trio.open_nursery() as nursery:
        await nursery.start(handle.run)
        with handle.use() as room:
            room.crash()
        nursery.cancel_scope.cancel()


async def test_what_is_raised_inside_passes_through(autojump_clock: MockClock) -> None:
    handle = Handle("chat", Room)
    async with trio.open_nursery() as nursery:
        await nursery.start(handle.run)
        with pytest.raises(Crash), handle.use():
            raise Crash
        with trio.move_on_after(1) as scope, handle.use():
            await trio.sleep_forever()
        assert scope.cancelled_caught, "a caller's own deadline is not Unavailable"
        assert state(handle) == "running"
        nursery.cancel_scope.cancel()


async def test_a_crash_inside_a_nursery_of_the_room(autojump_clock: MockClock) -> None:
    class Nested(Room):
        async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                task_status.started()
                await trio.sleep(1)
                raise Crash

    with pytest.raises(GaveUp):
        await Handle("chat", Nested).run()


async def told_to_go(handle: Handle[Room]) -> None:
    with pytest.raises(Unavailable), handle.use():
        await trio.sleep_forever()


async def test_a_room_can_be_begun_afresh_as_often_as_one_likes(autojump_clock: MockClock) -> None:
    house = House()
    handle = Handle("chat", house.build)
    async with trio.open_nursery() as nursery:
        await nursery.start(handle.run)
        for times in range(1, 2 * CRASH_BUDGET):
            nursery.start_soon(told_to_go, handle)
            await wait_all_tasks_blocked()
            handle.restart()
            assert state(handle) == "restarting"
            await trio.sleep(1.5 * FIRST_PAUSE_S)
            assert state(handle) == "running"
            assert len(house.rooms) == times + 1
        nursery.cancel_scope.cancel()
