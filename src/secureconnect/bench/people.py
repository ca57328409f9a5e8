"""Accounts and conversations for a figure to work with."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from .wire import Site, call_each

AT_ONCE = 16
_numbers = itertools.count(1)


@dataclass(slots=True)
class Person:
    """token: to ask with, until about `renew_at`, of `time.monotonic`; then `refresh_token` gives others."""

    user_id: str
    username: str
    password: str
    token: str
    refresh_token: str
    renew_at: float

    @classmethod
    def of(cls, answer: Any, password: str) -> Self:
        """answer: to registering, or signing in."""
        user = answer["user"]
        return cls(user["user_id"], user["username"], password, *_tokens(answer))

    def renew(self, answer: Any) -> None:
        self.token, self.refresh_token, self.renew_at = _tokens(answer)


def _tokens(answer: Any) -> tuple[str, str, float]:
    renew_at = time.monotonic() + answer["expires_in"] / 4
    return answer["access_token"], answer["refresh_token"], renew_at


def register(site: Site, count: int) -> list[Person]:
    """New ones, on a server that lets everybody in."""
    password = secrets.token_urlsafe(16)
    names = [f"person{number}" for number in itertools.islice(_numbers, count)]
    accounts = (registration(site, name, password) for name in names)
    answers = dict(call_each(site, accounts, AT_ONCE))
    return [Person.of(answers[number], password) for number in range(count)]


def registration(site: Site, username: str, password: str, invite: str = "") -> bytes:
    account = {"username": username, "email": f"{username}@bench.invalid", "password": password}
    return site.request("POST", "/v1/auth/register", account | ({"invite_code": invite} if invite else {}))


def sign_in(site: Site, username: str, password: str) -> bytes:
    account = {"username": username, "password": password, "device_name": "secureconnect bench"}
    return site.request("POST", "/v1/auth/login", account)


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
