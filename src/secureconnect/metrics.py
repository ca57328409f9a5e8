"""Counters, gauges and histograms, in one registry of our own.

Each metric is declared beside the code that moves it. Label values come from closed lists; ids never stand
in labels. Look a child up once and keep it: `.labels()` costs three times what `.inc()` does.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import trio
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

LATENCY_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


def counter(name: str, meaning: str, labels: Sequence[str] = ()) -> Counter:
    return Counter(name, meaning, labels, registry=REGISTRY)


def gauge(name: str, meaning: str, labels: Sequence[str] = ()) -> Gauge:
    return Gauge(name, meaning, labels, registry=REGISTRY)


def histogram(
    name: str, meaning: str, labels: Sequence[str] = (), buckets: Sequence[float] = LATENCY_S
) -> Histogram:
    return Histogram(name, meaning, labels, buckets=buckets, registry=REGISTRY)


def exposition() -> bytes:
    """Everything in Prometheus text. Takes milliseconds: call it in a thread."""
    return generate_latest(REGISTRY)


LOOP_LAG = histogram(
    "secureconnect_loop_lag_seconds",
    "How late the event loop woke a sleeping task.",
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)
LAG_PERIOD_S = 0.25
TASKS = gauge("secureconnect_tasks", "Living tasks.")
DISK_FREE = gauge("secureconnect_disk_free_bytes", "What the disk of the data folder still takes.")
DISK_SIZE = gauge("secureconnect_disk_size_bytes", "What it takes in all.")


async def watch_loop() -> None:
    """Measure how late the event loop is and how many tasks it has, for ever."""
    while True:
        TASKS.set(trio.lowlevel.current_statistics().tasks_living)
        due = trio.current_time() + LAG_PERIOD_S
        await trio.sleep_until(due)
        LOOP_LAG.observe(trio.current_time() - due)


def watch_disk(folder: Path) -> None:
    """Look at it whenever metrics are asked for. NaN while it does not tell."""

    def blocks(which: str) -> float:
        try:
            disk = os.statvfs(folder)
        except OSError:
            return math.nan
        return float(getattr(disk, which) * disk.f_frsize)

    DISK_FREE.set_function(lambda: blocks("f_bavail"))
    DISK_SIZE.set_function(lambda: blocks("f_blocks"))
