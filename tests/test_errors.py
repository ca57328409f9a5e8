"""The table of error codes."""

from __future__ import annotations

import re

import pytest

from secureconnect import errors
from secureconnect.errors import TABLE, Problem

# every status of API.md, "Conventions"
STATUSES = {400, 401, 403, 404, 405, 408, 409, 413, 414, 415, 416, 422, 423, 429, 431, 500, 503}


def _all(kind: type[Problem]) -> set[type[Problem]]:
    return {kind}.union(*(_all(child) for child in kind.__subclasses__()))


def test_the_table_holds_every_problem_once() -> None:
    ours = {kind for kind in _all(Problem) - {Problem} if kind.__module__ == errors.__name__}
    assert ours == {kind for kind in TABLE.values() if kind.__module__ == errors.__name__}
    assert all(kind.code == code for code, kind in TABLE.items())


@pytest.mark.parametrize("kind", TABLE.values(), ids=TABLE)
def test_a_problem_says_what_a_client_needs(kind: type[Problem]) -> None:
    assert re.fullmatch(r"[A-Z][A-Z0-9_]+", kind.code)
    assert kind.status in STATUSES
    assert re.fullmatch(r"[A-Z].+\.", kind.text), "one sentence"
    problem = kind()
    assert problem.message == kind.text
    if kind.status in (429, 503):
        assert problem.retry_after_s is not None
        assert problem.retry_after_s >= 1


def test_a_code_cannot_be_given_twice() -> None:
    with pytest.raises(ValueError, match="NOT_FOUND is defined twice"):
        type("Another", (Problem,), {"code": "NOT_FOUND"})
    assert TABLE["NOT_FOUND"] is errors.NotFound


def test_what_is_given_stands_on_the_problem() -> None:
    problem = errors.Forbidden(
        "Only admins may.",
        details={"field": "role"},
        retry_after_s=3,
        denial="denied:forbidden",
        subject="c1",
    )
    assert (problem.message, str(problem)) == ("Only admins may.", "Only admins may.")
    assert problem.details == {"field": "role"}
    assert (problem.retry_after_s, problem.denial, problem.subject) == (3, "denied:forbidden", "c1")
    assert errors.Forbidden().details is None
    assert errors.Forbidden.retry_after_s is None
