"""The guard: what counts, the bulkhead, the time limit, retries, the probe, and what is told of a change."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from kit.scrape import value
from kit.toll import toll_before
from kit.wait import until
from secureconnect.config import BreakerConfig
from secureconnect.deps.contracts import ConstraintViolation, UniqueViolation
from secureconnect.deps.guard import Guard, Probe, reason_of
from secureconnect.errors import (
    Conflict,
    DeadlineExceeded,
    DiskFull,
    Forbidden,
    NotFound,
    OutcomeUnknown,
    Overloaded,
    PoolExhausted,
    Unavailable,
)
from secureconnect.metrics import REGISTRY

CONFIG = BreakerConfig(failures=3, retry_ms=10)


async def answer() -> str:
    await trio.lowlevel.checkpoint()
    return "answer"


async def fail(error: Exception) -> str:
    await trio.lowlevel.checkpoint()
    raise error


class Server:
    """Something to be called that fails as often as it is told."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.calls = 0

    async def ask(self) -> str:
        await trio.lowlevel.checkpoint()
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        return "answer"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Unavailable(), "unreachable"),
        (DeadlineExceeded(), "timeout"),
        (trio.TooSlowError(), "timeout"),
        (OutcomeUnknown(), "outcome_unknown"),
        (PoolExhausted(), None),
        (DiskFull(), None),
        (Overloaded(), None),
        (NotFound(), None),
        (Forbidden(), None),
        (Conflict(), None),
        (UniqueViolation("users_key"), None),
        (ConstraintViolation("check"), None),
        (ZeroDivisionError(), None),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, Exception) else str(each),
)
async def test_what_counts(error: Exception, reason: str | None) -> None:
    assert reason_of(error) == reason
    guard = Guard("redis", CONFIG)
    for _ in range(CONFIG.failures):
        with pytest.raises((type(error), DeadlineExceeded)):
            await guard.call(fail, error)
    assert guard.breaker.state == ("closed" if reason is None else "open")
    assert guard.status().last_error == reason


async def test_what_is_cancelled_does_not_count(autojump_clock: MockClock) -> None:
    guard = Guard("redis", CONFIG, limit_s=10)
    for _ in range(10):
        with trio.move_on_after(1):
            await guard.call(trio.sleep_forever)
    assert guard.breaker.state == "closed"
    guard.breaker.probe_failed("timeout", decides=True)
    guard.breaker.probe_succeeded()
    for _ in range(10):  # nor does it keep its place among the trials
        with trio.move_on_after(1):
            await guard.call(trio.sleep_forever)
    assert await guard.call(answer) == "answer"
    assert guard.is_up


async def test_the_limit_is_inside(autojump_clock: MockClock) -> None:
    """A dependency that never answers is one that fails, not one nobody waits for any more."""
    guard = Guard("minio", CONFIG, limit_s=0.5)
    for number in range(1, CONFIG.failures + 1):
        with pytest.raises(DeadlineExceeded) as slow:
            await guard.call(trio.sleep_forever)
        assert slow.value.details == {"dependency": "minio"}
        assert trio.current_time() == pytest.approx(number * 0.5)
    assert guard.status().last_error == "timeout"
    with pytest.raises(Unavailable) as refused:
        await guard.call(answer)
    assert trio.current_time() == pytest.approx(CONFIG.failures * 0.5), "at once"
    assert refused.value.details == {"dependency": "minio"}
    assert refused.value.retry_after_s


def counted() -> tuple[float, ...]:
    return tuple(
        value("secureconnect_deps_calls", dependency="minio", state=state)
        for state in ("under_way", "waiting")
    )


async def test_the_bulkhead(autojump_clock: MockClock) -> None:
    guard = Guard("minio", CONFIG, calls=2, waiting=3, limit_s=1)
    under_way = most = 0
    ends: list[str] = []

    async def work() -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await trio.sleep(0.3)
        under_way -= 1

    async def call() -> None:
        try:
            await guard.call(work)
            ends.append("done")
        except Unavailable as problem:
            ends.append(problem.message)
            assert trio.current_time() == 0

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        assert counted() == (2, 3)
    assert counted() == (0, 0)
    assert most == 2
    assert sorted(ends) == ["The file store is busy."] * 3 + ["done"] * 5
    assert guard.breaker.state == "closed", "it is us who ask too much"


async def test_nobody_waits_for_a_turn_longer_than_a_call_may_take(autojump_clock: MockClock) -> None:
    guard = Guard("minio", CONFIG, calls=1, waiting=5, limit_s=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, guard, 60)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(Unavailable, match="busy"):
            await guard.call(answer)
        assert trio.current_time() == pytest.approx(1)
        with trio.move_on_after(0.5):  # leaves the queue
            await guard.call(answer)
        nursery.cancel_scope.cancel()
    assert await guard.call(answer) == "answer"


async def hold(guard: Guard, seconds: float) -> None:
    async with guard.slot():
        await trio.sleep(seconds)


async def test_those_who_wait_are_refused_once_it_opens(autojump_clock: MockClock) -> None:
    guard = Guard("minio", CONFIG, calls=1, waiting=50, limit_s=1)
    ends: list[float] = []

    async def call() -> None:
        with pytest.raises(Unavailable):
            await guard.call(trio.sleep_forever)
        ends.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(call)
    assert max(ends) <= 2, "not one limit after the other"


async def test_whoever_waits_is_not_left_waiting_when_it_opens(autojump_clock: MockClock) -> None:
    guard = Guard("minio", CONFIG, calls=1, waiting=5, limit_s=30)
    ends: list[float] = []

    async def call() -> None:
        with pytest.raises(Unavailable, match="not available"):
            await guard.call(answer)
        ends.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, guard, 60)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(3):
            nursery.start_soon(call)
        await trio.sleep(1)
        guard.breaker.probe_failed("timeout", decides=True)
        await trio.testing.wait_all_tasks_blocked()
        assert ends == [pytest.approx(1)] * 3
        nursery.cancel_scope.cancel()
    guard.breaker.probe_succeeded()
    assert await guard.call(answer) == "answer"


async def test_what_is_safe_is_made_again(autojump_clock: MockClock) -> None:
    guard = Guard("minio", CONFIG)
    server = Server(Unavailable(), Unavailable())
    assert await guard.call_safely(server.ask) == "answer"
    assert server.calls == 3
    assert 0 < trio.current_time() <= 0.030, "10 ms, then 20 ms, at most"


@pytest.mark.parametrize("error", [DeadlineExceeded(), NotFound(), PoolExhausted(), OutcomeUnknown()])
async def test_what_would_not_help_is_not(error: Exception) -> None:
    server = Server(error)
    with pytest.raises(type(error)):
        await Guard("minio", CONFIG).call_safely(server.ask)
    assert server.calls == 1


async def test_it_is_made_again_twice_at_most_and_not_past_an_open_breaker() -> None:
    server = Server(*(Unavailable() for _ in range(10)))
    with pytest.raises(Unavailable):
        await Guard("minio", BreakerConfig(failures=5, retry_ms=1)).call_safely(server.ask)
    assert server.calls == 3
    server = Server(*(Unavailable() for _ in range(10)))
    with pytest.raises(Unavailable):
        await Guard("minio", BreakerConfig(failures=2, retry_ms=1)).call_safely(server.ask)
    assert server.calls == 2


def gauges(name: str) -> tuple[float | None, float | None]:
    labels = {"dependency": name}
    return (
        REGISTRY.get_sample_value("dependency_up", labels),
        REGISTRY.get_sample_value("circuit_breaker_state", labels),
    )


async def test_what_is_told_of_a_change(autojump_clock: MockClock) -> None:
    guard = Guard("redis", CONFIG, affects=("presence",))
    told: list[bool] = []
    guard.observe(told.append)
    assert gauges("redis") == (1, 0)
    began = guard.status()
    assert (began.status, began.breaker, began.last_error) == ("up", "closed", None)
    with capture_logs() as lines:
        await trio.sleep(7)
        for _ in range(CONFIG.failures):
            with pytest.raises(Unavailable):
                await guard.call(fail, Unavailable())
        assert gauges("redis") == (0, 2)
        for _ in range(20):  # probes answer, calls do not
            guard.breaker.probe_succeeded()
            assert gauges("redis") == (0, 1)
            assert guard.status().status == "down"
            with pytest.raises(Unavailable):
                await guard.call(fail, Unavailable())
        await trio.sleep(5)
        guard.breaker.probe_succeeded()
        assert await guard.call(answer) == "answer"
    assert gauges("redis") == (1, 0)
    assert lines == [
        {
            "event": "dependency_away",
            "log_level": "warning",
            "module": "deps",
            "dependency": "redis",
            "reason": "unreachable",
            "up_s": 7,
        },
        {
            "event": "dependency_back",
            "log_level": "info",
            "module": "deps",
            "dependency": "redis",
            "reason": "answers",
            "away_s": 5,
        },
    ]
    assert told == [False, True]
    assert guard.status().since_us > began.since_us
    assert guard.status().last_error is None


# the probe, over a network


@asynccontextmanager
async def probing(guard: Guard, probe: Probe) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        await nursery.start(guard.probe_forever, probe)
        yield
        nursery.cancel_scope.cancel()


async def echo(stream: trio.SocketStream) -> None:
    async for data in stream:
        await stream.send_all(data)


async def ping(url: str) -> None:
    """A probe on a connection of its own."""
    host, _, port = url.removeprefix("http://").partition(":")
    try:
        async with await trio.open_tcp_stream(host, int(port)) as stream:
            await stream.send_all(b"ping")
            if await stream.receive_some() != b"ping":
                raise Unavailable
    except (OSError, trio.BrokenResourceError) as exc:
        raise Unavailable from exc


QUICK = BreakerConfig(probe_ms=50, probe_limit_ms=100, probes=2)


async def test_the_probe_notices_a_dead_and_a_frozen_server_and_its_return() -> None:
    guard = Guard("postgres", QUICK)
    async with trio.open_nursery() as servers:
        [listening] = await servers.start(partial(trio.serve_tcp, echo, 0, host="127.0.0.1"))
        port = listening.socket.getsockname()[1]
        async with (
            toll_before(f"http://127.0.0.1:{port}") as toll,
            probing(guard, partial(ping, toll.url)),
        ):
            assert guard.is_up
            toll.refuses = True
            await until(lambda: not guard.is_up)
            assert guard.status().last_error == "unreachable"
            toll.refuses = False
            await until(lambda: guard.is_up)
            toll.stall()
            await until(lambda: not guard.is_up)
            assert guard.status().last_error == "timeout"
            with trio.fail_after(5), pytest.raises(Unavailable):
                await guard.call(answer)
            toll.flow()
            with trio.fail_after(10):
                await guard.wait_admitting()
            await until(lambda: guard.is_up)
        servers.cancel_scope.cancel()


async def test_the_first_probe_alone_decides(autojump_clock: MockClock) -> None:
    for probe, state in ((partial(fail, Unavailable()), "open"), (answer, "closed")):
        guard = Guard("redis", QUICK)
        async with probing(guard, probe):  # type: ignore[arg-type]
            assert guard.breaker.state == state
            assert trio.current_time() == 0


async def test_the_probe_goes_on_while_open_and_at_its_pace(autojump_clock: MockClock) -> None:
    guard = Guard("redis", QUICK)
    asked: list[float] = []

    async def never() -> None:
        asked.append(round(trio.current_time(), 3))
        await trio.sleep_forever()

    async with probing(guard, never):
        await trio.sleep(0.95)
    assert asked == [round(0.1 * number, 3) for number in range(len(asked))], "late by its limit, not idle"
    assert len(asked) == 11


async def test_a_probe_that_breaks_is_one_that_fails(autojump_clock: MockClock) -> None:
    guard = Guard("redis", QUICK)
    with capture_logs() as lines:
        async with probing(guard, partial(fail, ZeroDivisionError())):  # type: ignore[arg-type]
            await trio.sleep(1)
    assert guard.status().last_error == "unexpected"
    assert [line["event"] for line in lines] == ["probe_failed", "dependency_away"]
