"""What the fuzzer starts from, and what it found."""

from __future__ import annotations

import pytest

from .fuzz_targets import REQUESTS, requests


@pytest.mark.parametrize("number", range(len(REQUESTS)))
@pytest.mark.parametrize("step", [1, 2, 7])
def test_requests(number: int, step: int) -> None:
    requests(bytes((step,)) + REQUESTS[number])
