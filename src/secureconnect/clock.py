"""Time: integer microseconds UTC everywhere inside, ISO-8601 with `Z` at the edge."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import lru_cache

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US


def now_us() -> int:
    """This machine's clock. Leases and expiry use `Database.now_us`, which all nodes share (DATA §9)."""
    return time.time_ns() // 1000


def to_iso(us: int) -> str:
    """`2026-01-19T05:25:00.000123Z`."""
    seconds, micros = divmod(us, SECOND_US)
    return f"{_to_second(seconds)}.{micros:06d}Z"


@lru_cache(maxsize=1024)
def _to_second(seconds: int) -> str:
    """Most times told are of a few seconds: now, and those of a page of messages."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


def from_iso(text: str) -> int:
    """Microseconds of an ISO-8601 time with a zone. Raises ValueError for anything else."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a time without a zone")
    whole = int(moment.replace(microsecond=0).timestamp())
    return whole * SECOND_US + moment.microsecond
