"""Time: microseconds inside, ISO-8601 outside."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secureconnect.clock import SECOND_US, from_iso, now_us, to_iso

LAST_US = 253_402_300_799_999_999  # the end of the year 9999


@given(st.integers(0, LAST_US))
def test_a_time_comes_back_to_the_microsecond(us: int) -> None:
    text = to_iso(us)
    assert from_iso(text) == us
    assert len(text) == len("2026-01-19T05:25:00.000123Z")
    assert text.endswith("Z")


def test_known_times() -> None:
    assert to_iso(0) == "1970-01-01T00:00:00.000000Z"
    assert from_iso("2026-01-19T05:25:00.000123Z") == 1_768_800_300_000_123
    assert from_iso("2026-01-19T06:25:00+01:00") == 1_768_800_300 * SECOND_US
    assert from_iso("1969-12-31T23:59:59.5Z") == -500_000


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-01-19", "2026-01-19T05:25:00", "2026-13-01T00:00:00Z"]
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (fromisoformat's own, or ours)
        from_iso(text)


def test_now() -> None:
    before = datetime.now(UTC).timestamp() * SECOND_US
    assert before - SECOND_US < now_us() < before + 60 * SECOND_US
