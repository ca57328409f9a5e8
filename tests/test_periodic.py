"""What is repeated goes on after a refusal, and says so once."""

from __future__ import annotations

import pytest
import structlog
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from secureconnect.errors import Unavailable
from secureconnect.periodic import every

log = structlog.get_logger()


class Attempts:
    """Refused at the turns that are named; a bug at turn `broken`."""

    def __init__(self, refused: set[int], broken: int | None = None) -> None:
        self.turns = 0
        self._refused = refused
        self._broken = broken

    async def once(self) -> None:
        self.turns += 1
        if self.turns == self._broken:
            raise LookupError
        if self.turns in self._refused:
            raise Unavailable


async def test_trouble_is_told_when_it_begins_and_when_it_is_over(autojump_clock: MockClock) -> None:
    attempts = Attempts({2, 3, 4, 6})
    with capture_logs() as lines, trio.move_on_after(75):
        await every(10, attempts.once, log, "it_failed")
    assert attempts.turns == 7
    assert [(line["event"], line.get("code"), line.get("failed")) for line in lines] == [
        ("it_failed", "UNAVAILABLE", None),
        ("trouble_over", None, 3),
        ("it_failed", "UNAVAILABLE", None),
        ("trouble_over", None, 1),
    ]
    assert lines[1]["trouble"] == "it_failed"


async def test_a_bug_is_no_trouble(autojump_clock: MockClock) -> None:
    with capture_logs() as lines, pytest.raises(LookupError):
        await every(10, Attempts({1}, broken=2).once, log, "it_failed")
    assert [line["event"] for line in lines] == ["it_failed"]
