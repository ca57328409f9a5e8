"""One browser for all tests of the web client in a process, and people at its pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import playwright.sync_api as playwright
import pytest

from kit.chromium import driven, launched

from .callers import Enter, callers
from .people import People


@pytest.fixture(scope="package")
def browser() -> Iterator[playwright.Browser]:
    with driven() as chromium, launched(chromium) as browser:
        yield browser


@pytest.fixture
def people(browser: playwright.Browser, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[People]:
    """Those who come; when the test fails, what they saw last is in its folder."""
    people = People(browser)
    failed_before = request.session.testsfailed
    try:
        yield people
        if request.session.testsfailed == failed_before:
            people.check()
        else:
            for number, person in enumerate(people.all):
                if person.has_come:
                    person.page.screenshot(path=tmp_path / f"{number}.png")
                print(f"{tmp_path}/{number}.png", person.faults)  # noqa: T201
    finally:
        people.clear()


@pytest.fixture
def enter(people: People) -> Enter:
    """Those who call each other."""
    return callers(people)
