"""docs/security.md goes through every line of the standard, and the tests it names for what is met exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "security.md").read_text("utf-8")
ROWS = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if re.match(r"\| \d", line)]
TEST = re.compile(r"`([\w/]+\.py)(?:::(\w+))?`")

# OWASP ASVS 4.0.3, as it was released: the lines of levels 1 and 2 in each section
LINES = """
1.1 1-7, 1.2 1-4, 1.4 1 4-5, 1.5 1-4, 1.6 1-4, 1.7 1-2, 1.8 1-2, 1.9 1-2, 1.10 1, 1.11 1-2, 1.12 2, 1.14 1-6,
2.1 1-12, 2.2 1-3, 2.3 1-3, 2.4 1-5, 2.5 1-7, 2.6 1-3, 2.7 1-6, 2.8 1-7, 2.9 1-3, 2.10 1-4,
3.1 1, 3.2 1-4, 3.3 1-4, 3.4 1-5, 3.5 1-3, 3.7 1,
4.1 1-3 5, 4.2 1-2, 4.3 1-3,
5.1 1-5, 5.2 1-8, 5.3 1-10, 5.4 1-3, 5.5 1-4,
6.1 1-3, 6.2 1-6, 6.3 1-2, 6.4 1-2,
7.1 1-4, 7.2 1-2, 7.3 1 3-4, 7.4 1-3,
8.1 1-4, 8.2 1-3, 8.3 1-8,
9.1 1-3, 9.2 1-4,
10.2 1-2, 10.3 1-3,
11.1 1-8,
12.1 1-3, 12.2 1, 12.3 1-6, 12.4 1-2, 12.5 1-2, 12.6 1,
13.1 1 3-5, 13.2 1-3 5-6, 13.3 1-2, 13.4 1-2,
14.1 1-4, 14.2 1-6, 14.3 2-3, 14.4 1-7, 14.5 1-4
"""


def standard() -> Iterator[str]:
    for section in LINES.split(","):
        name, *spans = section.split()
        for span in spans:
            first, _, last = span.partition("-")
            for number in range(int(first), int(last or first) + 1):
                yield f"{name}.{number}"


@cache
def names_of(path: Path) -> set[str]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, functions)}


def test_every_line_of_the_standard_stands_there_once_and_in_its_order() -> None:
    assert [line for line, *_ in ROWS] == list(standard())


def test_each_line_says_what_it_asks_for_and_how_it_stands() -> None:
    assert {len(row) for row in ROWS} == {4}
    assert {state for _, _, state, _ in ROWS} == {"met", "partly", "not yet", "n/a", "yours"}
    assert not [line for line, asked, _, how in ROWS if not asked.strip() or not how.strip()]


def test_what_is_met_names_its_test_or_says_why_there_is_none() -> None:
    bare = [(line, how) for line, _, state, how in ROWS if state == "met" and not TEST.search(how)]
    assert not [line for line, how in bare if not how.startswith("no test: ")]


def test_a_line_that_points_to_another_points_to_one_that_says_more() -> None:
    hows = {line: how for line, _, _, how in ROWS}
    for line, how in hows.items():
        for other in re.findall(r"\bas (\d+\.\d+\.\d+)", how):
            assert not hows[other].startswith("as "), f"{line} points to {other}"


def test_every_test_that_is_named_exists() -> None:
    named = TEST.findall(PAGE)
    assert len(named) > 200
    assert not [
        f"{path}::{test}"
        for path, test in sorted(set(named))
        if not (TESTS / path).exists() or (test and test not in names_of(TESTS / path))
    ]
