"""A running room on a real database, asked through its own table of routes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import pytest
import trio

from secureconnect.auth import ROUTES, Auth
from secureconnect.config import AuthConfig
from secureconnect.deps.contracts import P, Row, T, Tx, Unit
from secureconnect.deps.sqlite import Sqlite
from secureconnect.edge import Call
from secureconnect.errors import Problem, Unavailable
from secureconnect.identity import Principal, SessionId
from secureconnect.node import Secrets

CHEAP = AuthConfig(argon2_time_cost=1, argon2_memory_kib=64)
PASSWORD = "correct horse battery"

_ROUTES = {f"{route.method} {route.path}": route for route in ROUTES}


class Clocked:
    """The database with a clock that a test moves, and switches that cut reading or hold answers back.

    refused, held: how many reads it did that to.
    """

    def __init__(self, db: Sqlite) -> None:
        self.inner = db
        self.ahead_us = 0
        self.refusing = False
        self.refused = 0
        self.hold: trio.Event | None = None
        self.held = 0

    async def write(self, unit: Unit[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.inner.write(unit, *args, **kwargs)

    async def relieve(self, unit: Unit[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.inner.relieve(unit, *args, **kwargs)

    async def read(self, unit: Unit[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self.refusing:
            self.refused += 1
            raise Unavailable
        answer = await self.inner.read(unit, *args, **kwargs)
        if self.hold is not None:
            self.held += 1
            await self.hold.wait()
        return answer

    def now_us(self) -> int:
        return self.inner.now_us() + self.ahead_us

    def forward(self, seconds: float) -> None:
        self.ahead_us += int(seconds * 1_000_000)


@dataclass
class Site:
    """One installation: a database and its secrets, on which any number of nodes run."""

    db: Clocked
    secrets: Secrets
    nursery: trio.Nursery

    async def node(self, config: AuthConfig = CHEAP) -> Node:
        room = Auth(config, self.db, self.secrets)
        node = Node(room, self.db)
        room.connect(ended=node.closed.extend)
        await self.nursery.start(lambda task_status: room.run(task_status=task_status))
        return node


class Node:
    """closed: the sessions whose sockets this node was told to close."""

    def __init__(self, room: Auth, db: Clocked) -> None:
        self.room = room
        self.db = db
        self.closed: list[SessionId] = []

    async def ask(
        self,
        what: str,
        body: dict[str, Any] | None = None,
        *,
        as_: Person | None = None,
        path: dict[str, str] | None = None,
        query: dict[str, Any] | None = None,
        user_agent: str = "tests",
    ) -> Any:
        """What the route answers, as a client reads it: the token is proved, body and query are checked."""
        route = _ROUTES[what]
        call = Call("request", "192.0.2.1", trio.current_time() + 30, user_agent=user_agent)
        if as_ is not None:
            call.principal = await self.room.authenticate(as_.access_token)
        call.path = path or {}
        if route.body is not None:
            call.body = msgspec.convert(body, route.body)
        if route.query is not None:
            call.query = msgspec.convert(query or {}, route.query)
        reply = await route.handler(self.room, call)
        answer = msgspec.json.encode(reply.data)
        if route.answer is None:
            assert answer == b"null"
        else:
            msgspec.json.decode(answer, type=route.answer)
        return msgspec.json.decode(answer)

    async def register(self, username: str = "ann", **more: Any) -> Person:
        email = more.pop("email", f"{username}@example.org")
        body = {"email": email, "username": username, "password": PASSWORD} | more
        return Person(username, **_tokens(await self.ask("POST /v1/auth/register", body)))

    async def login(self, username: str = "ann", password: str = PASSWORD, **more: Any) -> Person:
        body = {"username": username, "password": password} | more
        return Person(username, **_tokens(await self.ask("POST /v1/auth/login", body)))

    async def refresh(self, person: Person) -> Person:
        data = await self.ask("POST /v1/auth/refresh", {"refresh_token": person.refresh_token})
        return replace(person, access_token=data["access_token"], refresh_token=data["refresh_token"])

    async def rows(self, sql: str) -> list[Row]:
        return await self.db.read(_all, sql)

    async def who(self, person: Person) -> Principal:
        return await self.room.authenticate(person.access_token)


@dataclass(frozen=True)
class Person:
    username: str
    user_id: str
    session_id: str
    device_id: str
    device_secret: str | None
    access_token: str
    refresh_token: str


def _tokens(data: dict[str, Any]) -> dict[str, Any]:
    names = ("session_id", "device_id", "device_secret", "access_token", "refresh_token")
    return {name: data[name] for name in names} | {"user_id": data["user"]["user_id"]}


async def _all(tx: Tx, sql: str) -> list[Row]:
    return await tx.all(sql)


@contextmanager
def refused(code: str, **details: Any) -> Iterator[None]:
    """The block must end in this refusal."""
    with pytest.raises(Problem) as caught:
        yield
    assert caught.value.code == code
    assert not details or caught.value.details == details
