"""Identifiers."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secureconnect.identity import is_id, new_id, new_id_at, time_of


def test_ids_are_version_7_different_and_in_order() -> None:
    ids = [new_id() for _ in range(10_000)]
    assert len(set(ids)) == len(ids)
    assert ids == sorted(ids)
    assert all(is_id(each) for each in ids)
    assert uuid.UUID(ids[0]).version == 7


@given(st.lists(st.integers(0, 2**48 * 1000 - 1), min_size=2, max_size=5))
def test_ids_of_a_given_time_tell_it_and_keep_its_order(times: list[int]) -> None:
    ids = [new_id_at(us) for us in sorted(times)]
    assert all(is_id(each) and uuid.UUID(each).version == 7 for each in ids)
    assert all(uuid.UUID(each).variant == uuid.RFC_4122 for each in ids)
    assert [time_of(each) for each in ids] == [us // 1000 * 1000 for us in sorted(times)]
    if len(set(times)) == len(times):
        assert ids == sorted(ids)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "0190ABCD-0000-7000-8000-000000000000",
        "0190abcd000070008000000000000000",
        "{0190abcd-0000-7000-8000-00000000000}",
        "0190abcd-0000-7000-8000-00000000000g",
        "0190abcd-0000-7000-8000-0000000000\u0661\u0661",
        " 190abcd-0000-7000-8000-000000000000",
        "0190abcd-0000-7000-8000-000000000000\n",
        "0190abcd-00007-000-8000-000000000000",
    ],
)
def test_only_the_one_form_is_an_id(text: str) -> None:
    assert not is_id(text)


@given(st.text(max_size=40))
def test_any_text_can_be_asked_about(text: str) -> None:
    assert not is_id(text) or str(uuid.UUID(text)) == text
