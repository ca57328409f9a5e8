"""Running a suite on both databases."""

from __future__ import annotations

import pytest

DATABASES = ("sqlite", "postgres")

on_sqlite = pytest.mark.parametrize("db", ["sqlite"], indirect=True)
"""For a test that looks into the file."""


def on_both(metafunc: pytest.Metafunc) -> None:
    """For `pytest_generate_tests`: tests that have to do with `db` run on either, unless they say which."""
    chosen = any(mark.args[0] == "db" for mark in metafunc.definition.iter_markers("parametrize"))
    if "db" in metafunc.fixturenames and not chosen:
        metafunc.parametrize("db", DATABASES, indirect=True)
