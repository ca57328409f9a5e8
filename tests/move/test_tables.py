"""The form of a row that both databases agree on."""

from __future__ import annotations

import pytest

from secureconnect.move.tables import Column, Table, canonical_json, order


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"a": 1, "b": [2, 3]}', '{"b":[2,3],"a":1}'),
        ("1.50", "1.5"),
        ("1e3", "1000"),
        ("-0.0", "0"),
        ("12e-1", "1.20"),
        ('"\\u00fc"', '"ü"'),
        ("123456789012345678901234567890", "1.23456789012345678901234567890e29"),
    ],
)
def test_json_that_means_the_same(one: str, other: str) -> None:
    assert canonical_json(one) == canonical_json(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", '"1"'),
        ("1", "10"),
        ("-1", "1"),
        ("[]", "{}"),
        ("null", "0"),
        ("true", "1"),
        ("12345678901234567890123", "12345678901234567890124"),
        ("[1, 2]", "[2, 1]"),
    ],
)
def test_json_that_does_not(one: str, other: str) -> None:
    assert canonical_json(one) != canonical_json(other)


def table(*types: str) -> Table:
    return Table("t", tuple(Column(f"c{at}", kind) for at, kind in enumerate(types)), (0,))


def test_rows_of_both_databases() -> None:
    both = table("boolean", "jsonb", "double precision", "bytea", "text")
    assert both.digest((1, '{"a":1.0}', 0.5, b"x", None)) == both.digest((True, '{"a": 1}', 0.5, b"x", None))
    assert both.digest((0, None, 0.5, b"x", "")) != both.digest((0, None, 0.5, b"x", None))
    assert both.for_target((1, "{}", 0.5, b"x", None)) == [True, "{}", 0.5, b"x", None]


def test_what_stands_in_which_column_counts() -> None:
    texts = table("text", "text")
    assert texts.digest(("ab", "c")) != texts.digest(("a", "bc"))
    assert table("text").digest(("1",)) != table("bigint").digest((1,))


def test_keys_sort_by_code_point() -> None:
    assert sorted(["é", "z", "Z", "😀", "\uffff"], key=lambda each: order((each,))) == [
        "Z", "z", "é", "\uffff", "😀",
    ]  # fmt: skip
