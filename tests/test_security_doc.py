"""docs/security.md goes through every line of the standard, and each test it names exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "security.md").read_text("utf-8")
ROWS = re.findall(r"^\| ([\d., –]+) \| ([^|]*) \| (.*) \|$", PAGE, re.MULTILINE)

# OWASP ASVS 4.0.3, levels 1 and 2: the numbers of each section
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


def told() -> Iterator[str]:
    """`2.7.1–2.7.6` and `2.1.5, 2.1.6` are several."""
    for lines, _, _ in ROWS:
        for each in lines.split(", "):
            first, _, last = each.partition("–")
            section, _, number = first.rpartition(".")
            for place in range(int(number), int((last or first).rpartition(".")[2]) + 1):
                yield f"{section}.{place}"


def names_of(path: Path) -> set[str]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, functions)}


def test_every_line_of_the_standard_stands_there_once() -> None:
    assert sorted(told()) == sorted(standard())


def test_each_line_says_how_it_stands() -> None:
    assert {how for _, how, _ in ROWS} <= {"met", "partly", "not yet", "n/a", "yours"}
    assert all(reason.strip() for _, _, reason in ROWS)


def test_every_test_that_is_named_exists() -> None:
    named = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", PAGE)
    assert len(named) > 50
    for path, test in named:
        assert (ROOT / "tests" / path).exists(), path
        assert not test or test in names_of(ROOT / "tests" / path), f"{path}::{test}"
