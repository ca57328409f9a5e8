"""Runs one room: restarts it alone when it crashes, and gives up when it does so again and again.

The rest of the program reaches a room only through its `Handle`, so nobody keeps a reference to an
instance that is gone, and whoever waits inside a crashed room is told at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from types import TracebackType
from typing import Any, Generic, Literal, Protocol, TypeVar

import structlog
import trio

from . import metrics
from .errors import Unavailable

log = structlog.get_logger(module="supervise")

# room: its name, and those of what runs beside the rooms
UP = metrics.gauge("secureconnect_room_up", "1 while it serves, else 0.", ["room"])
RESTARTS = metrics.counter("secureconnect_room_restarts_total", "Rooms restarted after a crash.", ["room"])

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
CRASH_BUDGET = 5
CRASH_WINDOW_S = 60.0

State = Literal["starting", "running", "restarting", "stopped"]


class Room(Protocol):
    """`run` calls `task_status.started()` when the room can serve, and ends when cancelled."""

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None: ...


class GaveUp(Exception):
    """A room crashed too often: the process ends, so that whoever watches it starts it afresh."""


R = TypeVar("R", bound=Room)


class Handle(Generic[R]):
    """The supervised handle of a room.  build: makes a fresh instance for each start."""

    def __init__(self, name: str, build: Callable[[], R]) -> None:
        self.name = name
        self._state: State = "stopped"  # what is never run is nowhere counted
        self._build = build
        self._room: R | None = None
        self._waits = False
        self._users: set[trio.CancelScope] = set()
        self._life = trio.CancelScope()

    @property
    def state(self) -> State:
        return self._state

    @state.setter
    def state(self, state: State) -> None:
        self._state = state
        UP.labels(self.name).set(state == "running")

    def require(self) -> R:
        """The running instance. Raises Unavailable while there is none."""
        if self._room is None:
            raise self._restarting()
        return self._room

    def use(self) -> AbstractContextManager[R]:
        """The running instance, for as long as the block lasts: if the room crashes meanwhile, the block is
        cancelled and Unavailable raised."""
        return _Use(self)

    def restart(self) -> None:
        """End the running instance, as if it had crashed, and begin with a fresh one. Never waits."""
        if self.state == "running":
            self.state = "restarting"
        log.info("room_restarts", room=self.name)
        self._lost()
        self._life.cancel()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the room running until cancelled. Raises GaveUp after too many crashes.

        A room that ends because of Unavailable alone has not crashed: what it needs is away, and it is
        started again for as long as that lasts.
        """
        restarts = RESTARTS.labels(self.name)  # there from the start, or nobody sees the first as an increase
        crashes: deque[float] = deque(maxlen=CRASH_BUDGET)
        pause_s = FIRST_PAUSE_S
        started = _Started(self, task_status)
        try:
            while True:
                self.state = "restarting" if crashes or self._waits else "starting"
                if not await self._crashed(started):
                    self.state = "restarting"
                    await trio.sleep(FIRST_PAUSE_S)
                    continue
                restarts.inc()
                now = trio.current_time()
                if crashes and now - crashes[-1] > CRASH_WINDOW_S:
                    pause_s = FIRST_PAUSE_S
                crashes.append(now)
                if len(crashes) == CRASH_BUDGET and now - crashes[0] < CRASH_WINDOW_S:
                    raise GaveUp(f"room {self.name} crashed {CRASH_BUDGET} times in {CRASH_WINDOW_S:.0f} s")
                self.state = "restarting"
                await trio.sleep(pause_s)
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
        finally:
            self._lost()
            self.state = "stopped"

    async def _crashed(self, started: _Started) -> bool:
        """Run one instance to its end. False if that was for want of something else, or asked for."""
        crashed = False
        room = started.room = self._build()
        try:
            with trio.CancelScope() as self._life:
                await room.run(task_status=started)
            if not self._life.cancelled_caught:
                raise RuntimeError(f"room {self.name} ended by itself")
        except* Unavailable as absence:
            self._lost()
            if not self._waits:
                log.warning("room_waits", room=self.name, reason=_leaf(absence))
            self._waits = True
        except* Exception as crash:
            self._lost()
            crashed = True
            log.error("room_crashed", room=self.name, exc_info=crash)
        return crashed

    def _restarting(self) -> Unavailable:
        return Unavailable(f"The {self.name} module is restarting.", retry_after_s=1)

    def _lost(self) -> None:
        self._room = None
        for scope in self._users:
            scope.cancel()

    def _serving(self, room: R) -> None:
        self._room = room
        self._waits = False
        self.state = "running"


def _leaf(group: ExceptionGroup[Unavailable]) -> str:
    first = group.exceptions[0]
    return _leaf(first) if isinstance(first, ExceptionGroup) else first.message


class _Use(AbstractContextManager[R]):
    """`Handle.use`. Every request passes here; a generator would cost it as much again."""

    __slots__ = ("_handle", "_scope")

    def __init__(self, handle: Handle[R]) -> None:
        self._handle = handle
        self._scope = trio.CancelScope()

    def __enter__(self) -> R:
        room = self._handle.require()
        self._handle._users.add(self._scope)
        self._scope.__enter__()
        return room

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._handle._users.discard(self._scope)
        is_ours = self._scope.__exit__(kind, error, trace)
        if self._scope.cancelled_caught:
            raise self._handle._restarting()
        return is_ours


class _Started(trio.TaskStatus[None]):
    """Publishes the instance when it says it can serve; passes the first word on to our own starter."""

    def __init__(self, handle: Handle[R], first: trio.TaskStatus[None]) -> None:
        self.room: Room | None = None
        self._handle = handle
        self._first: trio.TaskStatus[None] | None = first

    def started(self, value: None = None) -> None:  # noqa: ARG002  (trio's signature)
        self._handle._serving(self.room)  # type: ignore[arg-type]
        if self._first is not None:
            self._first.started()
            self._first = None


@asynccontextmanager
async def running(*handles: Handle[Any]) -> AsyncIterator[None]:
    """Supervise these for as long as the block lasts; started in order."""
    async with trio.open_nursery() as nursery:
        for handle in handles:
            await nursery.start(handle.run)
        yield
        nursery.cancel_scope.cancel()
