"""Metrics: one registry, one exposition, and the event loop's own lag."""

from __future__ import annotations

import time

import trio
from trio.testing import MockClock

from secureconnect import metrics


def sample(name: str) -> float:
    value = metrics.REGISTRY.get_sample_value(name)
    assert value is not None, f"there is no {name}"
    return value


def test_what_is_declared_is_exposed() -> None:
    counter = metrics.counter("test_things_total", "Things.", ["kind"])
    counter.labels("one").inc(3)
    text = metrics.exposition().decode()
    assert 'test_things_total{kind="one"} 3.0' in text
    assert "process_resident_memory_bytes" in text
    assert "secureconnect_loop_lag_seconds_bucket" in text
    metrics.REGISTRY.unregister(counter)


async def test_an_idle_loop_is_on_time(autojump_clock: MockClock) -> None:
    looks, lag_s = (
        sample("secureconnect_loop_lag_seconds_count"),
        sample("secureconnect_loop_lag_seconds_sum"),
    )
    with trio.move_on_after(10 * metrics.LAG_PERIOD_S + 0.01):
        await metrics.watch_loop()
    assert sample("secureconnect_loop_lag_seconds_count") - looks == 10
    assert sample("secureconnect_loop_lag_seconds_sum") - lag_s < 0.01


async def test_a_blocked_loop_shows() -> None:
    lag_s = sample("secureconnect_loop_lag_seconds_sum")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(metrics.watch_loop)
        await trio.testing.wait_all_tasks_blocked()  # it sleeps
        time.sleep(metrics.LAG_PERIOD_S + 0.2)  # noqa: ASYNC251  (blocking is the point)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert sample("secureconnect_loop_lag_seconds_sum") - lag_s > 0.15
