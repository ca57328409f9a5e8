"""Servers to be backed up, and what is compared afterwards."""

from __future__ import annotations

import pytest

from kit.worlds import in_both


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    in_both(metafunc)
