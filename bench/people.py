"""Accounts and conversations for a figure to work with."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from wire import call

PASSWORD = "correct horse battery staple"
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Person:
    user_id: str
    username: str
    token: str


def register(port: int) -> Person:
    username = f"person{next(_numbers)}"
    account = {"email": f"{username}@example.org", "username": username, "password": PASSWORD}
    data = call(port, "POST", "/v1/auth/register", account)
    return Person(data["user"]["user_id"], username, data["access_token"])


def converse(port: int, people: list[Person]) -> str:
    """The id of a conversation among them: direct for two, a group for more."""
    first, *others = people
    body = {
        "type": "direct" if len(others) == 1 else "group",
        "title": None if len(others) == 1 else "bench",
        "participant_ids": [other.user_id for other in others],
    }
    data = call(port, "POST", "/v1/conversations", body, first.token)
    conversation_id = data["conversation_id"]
    assert isinstance(conversation_id, str)
    return conversation_id
