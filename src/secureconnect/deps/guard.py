"""The guard before a dependency: breaker, bulkhead, time limit and retries of its calls, and its probe.

The guard is outside and the time limit inside: the other way round, a dependency that never answers would
look like a caller who gave up.
"""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from types import TracebackType
from typing import ParamSpec, TypeVar

import structlog
import trio

from .. import clock, metrics
from ..config import BreakerConfig
from ..errors import DeadlineExceeded, DiskFull, OutcomeUnknown, Overloaded, PoolExhausted, Unavailable
from .breaker import Breaker, Change, Generation, Limits, Reason
from .contracts import Dependency, DependencyStatus

log = structlog.get_logger(module="deps")

# dependency: postgres, redis, minio, smtp, push
UP = metrics.gauge("dependency_up", "1 while calls to it pass, 0 while it is away.", ["dependency"])
STATE = metrics.gauge("circuit_breaker_state", "0 closed, 1 half-open, 2 open.", ["dependency"])
# state: under_way, waiting (for a place among those)
CALLS = metrics.gauge(
    "secureconnect_deps_calls", "Calls where only so many may be under way.", ["dependency", "state"]
)
# reason: open, busy
REFUSED = metrics.counter(
    "secureconnect_deps_refused_total", "Calls that were not made.", ["dependency", "reason"]
)

T = TypeVar("T")
P = ParamSpec("P")
Probe = Callable[[], Awaitable[None]]

TITLES: dict[Dependency, str] = {
    "postgres": "The database",
    "redis": "The cache",
    "minio": "The file store",
    "smtp": "The mail server",
    "push": "The push service",
}
STATES = {"closed": 0, "half_open": 1, "open": 2}

# What a failure says of the dependency; the first class that fits. None: nothing.
_SAYS: tuple[tuple[type[Exception], Reason | None], ...] = (
    (trio.TooSlowError, "timeout"),
    (DeadlineExceeded, "timeout"),
    (OutcomeUnknown, "outcome_unknown"),
    (PoolExhausted, None),  # it is us who ask too much
    (DiskFull, None),
    (Overloaded, None),
    (Unavailable, "unreachable"),
)


def reason_of(error: BaseException) -> Reason | None:
    """The failure of a dependency that `error` tells of. None for what tells of none: cancellation, a
    violated constraint, a thing that is not there, any other refusal."""
    return next((reason for kind, reason in _SAYS if isinstance(error, kind)), None)


class Refused(Unavailable):
    """The guard let no call through."""


def _nothing() -> None:
    """Most dependencies' calls have a short limit of their own."""


class Guard:
    """calls: under way at a time, None for any number.  waiting: further ones that may wait for their turn.
    limit_s: what a call may take, and what one may wait for its turn.
    affects: what does not work as usual while the dependency is away, in words for clients.
    abandon: ends what is under way when the breaker opens: what has been found dead or frozen is not waited
    for until a longer limit of its own. Never waits.
    """

    def __init__(
        self,
        name: Dependency,
        config: BreakerConfig,
        *,
        calls: int | None = None,
        waiting: int = 0,
        limit_s: float = math.inf,
        affects: tuple[str, ...] = (),
        abandon: Callable[[], None] = _nothing,
    ) -> None:
        self.name = name
        limits = Limits(probes=config.probes, failures=config.failures, trials=config.trials)
        self.breaker = Breaker(limits, trio.current_time, self._note)
        self._config = config
        self._limit_s = limit_s
        self._waiting = waiting
        self._slots = None if calls is None else trio.Semaphore(calls, max_value=calls)
        self._queue: set[trio.CancelScope] = set()  # of those who wait for a place
        self._affects = affects
        self._since_us, self._since = clock.now_us(), trio.current_time()
        self._is_held_back = False
        self._was_up = True
        self._last_error: Reason | None = None
        self._observers: list[Callable[[bool], None]] = []
        self._hopeful = trio.lowlevel.ParkingLot()
        self._lost = trio.lowlevel.ParkingLot()
        self._abandon = abandon
        self._up, self._state = UP.labels(name), STATE.labels(name)
        self._under_way, self._wait_there = CALLS.labels(name, "under_way"), CALLS.labels(name, "waiting")
        self._refused_open, self._refused_busy = REFUSED.labels(name, "open"), REFUSED.labels(name, "busy")
        self._up.set(1)
        self._state.set(0)

    # calls

    async def call(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """`function(...)` behind the whole guard. What fails raises Unavailable that names the dependency."""
        try:
            async with self.slot():
                with self.counted(), trio.fail_after(self._limit_s):
                    return await function(*args, **kwargs)
        except trio.TooSlowError as exc:
            raise DeadlineExceeded(
                f"{TITLES[self.name]} did not answer in time.", details=self._named
            ) from exc

    async def call_safely(self, function: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """`call` for what is idempotent: made again after a failed connection, with growing pauses of random
        length. Not after one that took all its time: whoever waits has waited enough."""
        for attempt in range(self._config.retries):
            try:
                return await self.call(function, *args, **kwargs)
            except Unavailable as problem:
                if isinstance(problem, Refused) or reason_of(problem) != "unreachable":
                    raise
            await trio.sleep(random.uniform(0, self._config.retry_ms / 1000 * 2**attempt))  # noqa: S311
        return await self.call(function, *args, **kwargs)

    def counted(self) -> Counted:
        """One call, as the breaker sees it. Raises Unavailable at once while it is open. What the block
        raises counts if it tells of the dependency."""
        return Counted(self)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """A place among the calls under way, for as long as the block lasts. Raises Unavailable while the
        breaker is open, and when there are too many calls."""
        if self._is_held_back or self.breaker.state == "open":  # or whoever waits would wait for nothing
            raise self.away()
        if self._slots is None:
            yield
            return
        await self._take(self._slots)
        self._under_way.inc()
        try:
            yield
        finally:
            self._under_way.dec()
            self._slots.release()

    async def _take(self, slots: trio.Semaphore) -> None:
        try:
            slots.acquire_nowait()
        except trio.WouldBlock:
            if len(self._queue) >= self._waiting:
                raise self._busy() from None
        else:
            return
        with trio.move_on_after(self._limit_s) as limit:
            self._queue.add(limit)
            self._wait_there.inc()
            try:
                await slots.acquire()
                return
            finally:
                self._wait_there.dec()
                self._queue.discard(limit)
        raise self.away() if self.breaker.state == "open" else self._busy()

    def away(self) -> Unavailable:
        self._refused_open.inc()
        return Refused(f"{TITLES[self.name]} is not available right now.", details=self._named)

    def _busy(self) -> Unavailable:
        self._refused_busy.inc()
        return Refused(f"{TITLES[self.name]} is busy.", details=self._named, retry_after_s=1)

    @property
    def _named(self) -> dict[str, str]:
        return {"dependency": self.name}

    # the probe

    async def probe_forever(
        self, probe: Probe, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Ask whether it is there every `probe_ms`, always. started: after the first answer, which alone
        decides how it stands at the start."""
        is_first = True
        while True:
            due = trio.current_time() + self._config.probe_ms / 1000
            reason = await self._ask(probe)
            if reason is None:
                self.breaker.probe_succeeded()
            else:
                self.breaker.probe_failed(reason, decides=is_first)
            if is_first:
                task_status.started()
                is_first = False
            await trio.sleep_until(due)

    async def probe_while_away(
        self, probe: Probe, *, limit_s: float, first_s: float, longest_s: float
    ) -> None:
        """Instead of `probe_forever`, for a server of others that is not to be asked all the time: once at
        the start, then only after a call has failed, with pauses that double from `first_s` to `longest_s`
        while it is away."""
        is_first, pause_s = True, first_s
        while True:
            reason = await self._ask(probe, limit_s)
            if reason is None:
                self.breaker.probe_succeeded()
                pause_s = first_s
            else:
                self.breaker.probe_failed(reason, decides=is_first)
            is_first = False
            while self.breaker.state == "closed":
                await self._lost.park()
                pause_s = first_s
            await trio.sleep(pause_s)
            pause_s = min(pause_s * 2, longest_s)

    async def _ask(self, probe: Probe, limit_s: float | None = None) -> Reason | None:
        """Why it failed, or None.  limit_s: `probe_limit_ms` if left out."""
        try:
            with trio.fail_after(self._config.probe_limit_ms / 1000 if limit_s is None else limit_s):
                await probe()
        except (Unavailable, trio.TooSlowError) as exc:
            return reason_of(exc) or "unreachable"
        except Exception as exc:  # the probe of one dependency never ends the process
            if self._last_error != "unexpected":
                log.error("probe_failed", dependency=self.name, exc_info=exc)
            return "unexpected"
        return None

    # what is known without a probe

    def find(self, reason: Reason | None) -> None:
        """For what is judged by calls that do not pass here.  reason: why it is away; None: it is there."""
        if reason is not None:
            self.breaker.probe_failed(reason, decides=True)
            return
        if self.breaker.state == "open":
            self.breaker.probe_succeeded()
        if self.breaker.state == "half_open" and (generation := self.breaker.admit()) is not None:
            self.breaker.succeeded(generation)

    # its state

    @property
    def is_up(self) -> bool:
        return self.breaker.state == "closed" and not self._is_held_back

    def hold_back(self) -> None:
        """Let no call pass until `admit`, though it may answer before: something must be done there first."""
        self._is_held_back = True
        self._tell("answers", trio.current_time())

    def admit(self) -> None:
        self._is_held_back = False
        self._tell("answers", trio.current_time())

    async def wait_admitting(self) -> None:
        """Until the breaker lets calls pass, if only for a trial."""
        while self.breaker.state == "open":
            await self._hopeful.park()

    def status(self) -> DependencyStatus:
        return DependencyStatus(
            self.name,
            self.name,
            "up" if self.is_up else "down",
            self._since_us,
            self._last_error,
            self.breaker.state,
            self._affects,
        )

    def observe(self, told: Callable[[bool], None]) -> None:
        """`told(is_up)` is called when the dependency has gone away or is back; it never waits."""
        self._observers.append(told)

    def _note(self, change: Change) -> None:
        self._state.set(STATES[change.new])
        if change.new == "open":
            self._last_error = change.reason
            self._lost.unpark_all()
            for waiting in self._queue:
                waiting.cancel()
            self._abandon()
        else:
            self._hopeful.unpark_all()
        self._tell(change.reason, change.at)

    def _tell(self, reason: Reason, at: float) -> None:
        """Say so if it has gone or is back. Whether a trial failed meanwhile is told by the gauge."""
        if self.is_up == self._was_up:
            return
        self._was_up = self.is_up
        lasted_s = round(at - self._since, 3)
        self._since_us, self._since = clock.now_us(), at
        self._up.set(self.is_up)
        if self.is_up:
            self._last_error = None
            log.info("dependency_back", dependency=self.name, reason=reason, away_s=lasted_s)
        else:
            log.warning("dependency_away", dependency=self.name, reason=reason, up_s=lasted_s)
        for told in self._observers:
            told(self.is_up)


class Counted(AbstractContextManager["Counted"]):
    """`Guard.counted`. Every unit of work passes here; a generator would cost it as much again.

    innocent: an error that says nothing of the dependency, whatever its class.
    """

    __slots__ = ("_generation", "_guard", "innocent")

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self.innocent: BaseException | None = None

    def __enter__(self) -> Counted:
        generation = None if self._guard._is_held_back else self._guard.breaker.admit()
        if generation is None:
            raise self._guard.away()
        self._generation: Generation = generation
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        breaker = self._guard.breaker
        if error is None:
            breaker.succeeded(self._generation)
            return
        reason = None if error is self.innocent else reason_of(error)
        if reason is None:
            breaker.passed(self._generation)
            return
        if isinstance(error, Unavailable) and error.details is None:
            error.details = self._guard._named
        breaker.failed(self._generation, reason)
