"""Accounts and conversations for a figure to work with."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .wire import Site, call_each

AT_ONCE = 16
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Person:
    user_id: str
    username: str
    token: str
    password: str


def register(site: Site, count: int) -> list[Person]:
    """New ones, on a server that lets everybody in."""
    password = secrets.token_urlsafe(16)
    names = [f"person{number}" for number in itertools.islice(_numbers, count)]
    accounts = (
        site.request(
            "POST",
            "/v1/auth/register",
            {"email": f"{name}@example.org", "username": name, "password": password},
        )
        for name in names
    )
    answers = dict(call_each(site, accounts, AT_ONCE))
    return [
        Person(answers[number]["user"]["user_id"], name, answers[number]["access_token"], password)
        for number, name in enumerate(names)
    ]


def converse(site: Site, people: Sequence[Person], title: str = "bench") -> str:
    """The id of a group of them, which is the first one's."""
    return converse_each(site, [people], title)[0]


def converse_each(site: Site, groups: Iterable[Sequence[Person]], title: str = "bench") -> list[str]:
    """Groups, also of two: a direct conversation is nobody's to delete afterwards."""
    asked = (
        site.request(
            "POST",
            "/v1/conversations",
            {"type": "group", "title": title, "participant_ids": [each.user_id for each in others]},
            first.token,
        )
        for first, *others in groups
    )
    return [str(made["conversation_id"]) for _, made in sorted(call_each(site, asked, AT_ONCE))]
