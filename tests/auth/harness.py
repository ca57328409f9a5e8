"""A running room on a real database, asked through its own table of routes."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import msgspec
import pytest
import trio

from secureconnect.auth import ROUTES, Auth, Letters
from secureconnect.config import AuthConfig, KeysConfig, MemoryConfig, OutboxConfig
from secureconnect.deps.contracts import (
    Bus,
    Database,
    Mail,
    P,
    RevocationFeed,
    Revoked,
    Row,
    T,
    Tx,
    Unit,
)
from secureconnect.deps.memory import MemoryCache, MemorySignals
from secureconnect.edge import Call
from secureconnect.errors import Problem, Unavailable
from secureconnect.identity import Principal, SessionId, UserId
from secureconnect.node import Secrets
from secureconnect.outbox import Outbox

CHEAP = AuthConfig(argon2_time_cost=1, argon2_memory_kib=64)
PASSWORD = "correct horse battery"

_ROUTES = {f"{route.method} {route.path}": route for route in ROUTES}


class Clocked:
    """The database with a clock that a test moves, and switches that hold answers back or take it away.

    refusing: reads alone are cut.  away_since_us: since when all is, as a node's breaker would say it.
    hold, holds: answers wait for it, all of them or of this unit alone, and are lost if it is away by then.
    refused, held: how many calls it did that to.
    """

    def __init__(self, db: Database) -> None:
        self.inner = db
        self.ahead_us = 0
        self.refusing = False
        self.refusal: type[Unavailable] = Unavailable
        self.refused = 0
        self.hold: trio.Event | None = None
        self.holds: object = None
        self.held = 0
        self.away_since_us: int | None = None

    def take_away(self) -> None:
        self.away_since_us = self.now_us()

    def bring_back(self) -> None:
        self.away_since_us = None

    async def write(self, unit: Unit[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self._check(self.away_since_us is not None)
        return await self.inner.write(unit, *args, **kwargs)

    async def relieve(self, unit: Unit[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self._check(self.away_since_us is not None)
        return await self.inner.relieve(unit, *args, **kwargs)

    async def read(self, unit: Unit[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self._check(self.refusing or self.away_since_us is not None)
        answer = await self.inner.read(unit, *args, **kwargs)
        if self.hold is not None and self.holds in (None, unit):
            self.held += 1
            await self.hold.wait()
            self._check(self.away_since_us is not None)
        return answer

    def _check(self, is_cut: bool) -> None:
        if is_cut:
            self.refused += 1
            raise self.refusal

    def now_us(self) -> int:
        return self.inner.now_us() + self.ahead_us

    def forward(self, seconds: float) -> None:
        self.ahead_us += int(seconds * 1_000_000)


class CutFeed:
    """A feed with a switch: `cut` takes it away from one node."""

    def __init__(self, inner: RevocationFeed) -> None:
        self.inner = inner
        self.cut = False

    async def add(self, revoked: Sequence[Revoked], now_us: int) -> None:
        if self.cut:
            raise Unavailable
        await self.inner.add(revoked, now_us)

    async def since(self, us: int) -> list[Revoked]:
        if self.cut:
            raise Unavailable
        return await self.inner.since(us)


class Postman:
    """A mail server that keeps what it is given."""

    def __init__(self) -> None:
        self.is_away = False
        self.mails: list[Mail] = []

    async def send(self, mail: Mail) -> None:
        self.mails.append(mail)


@dataclass
class Site:
    """One installation: a database and its secrets, on which any number of nodes run.  folder: where their
    data folders are made.  postman: what their outboxes send with."""

    db: Clocked
    secrets: Secrets
    nursery: trio.Nursery
    folder: Path
    nodes: int = 0
    cache: MemoryCache = field(default_factory=lambda: MemoryCache(MemoryConfig()))
    signals: MemorySignals = field(default_factory=lambda: MemorySignals(MemoryConfig(), 65_536))
    postman: Postman = field(default_factory=Postman)

    async def rows(self, sql: str) -> list[Row]:
        """What the database has, whoever can reach it."""
        return await self.db.inner.read(_all, sql)

    async def node(
        self,
        config: AuthConfig = CHEAP,
        *,
        keys: KeysConfig | None = None,
        server_name: str = "example.org",
        db: Clocked | None = None,
        feed: RevocationFeed | None = None,
        bus: Bus | None = None,
        folder: Path | None = None,
        confirms_email: bool = False,
    ) -> Node:
        """db: the node's own way to the database.  folder: of a node that ran before."""
        db = db or self.db
        if folder is None:
            self.nodes += 1
            folder = self.folder / f"node-{self.nodes}"
            folder.mkdir(mode=0o700)
        outbox = Outbox(OutboxConfig(senders=1), db, self.postman, self.secrets.derive("outbox"), 1)
        room = Auth(
            config,
            db,
            self.secrets,
            folder,
            cache=self.cache,
            signals=self.signals,
            server_name=server_name,
            keys=keys,
            letters=Letters(outbox, "https://chat.example.org"),
            confirms_email=confirms_email,
            outage_since_us=lambda: db.away_since_us,
            feed=feed,
            bus=bus,
        )
        scope = trio.CancelScope()
        node = Node(room, db, folder, scope, outbox)
        room.connect(ended=node.closed.extend, signed_out=node.signed_out.extend)

        async def run(*, task_status: trio.TaskStatus[None]) -> None:
            with scope:
                await room.run(task_status=task_status)
            node.stopped.set()

        await self.nursery.start(run)
        return node


class Node:
    """closed, signed_out: the sessions and people whose sockets this node was told to close."""

    def __init__(
        self, room: Auth, db: Clocked, folder: Path, scope: trio.CancelScope, outbox: Outbox
    ) -> None:
        self.outbox = outbox
        self.room = room
        self.db = db
        self.folder = folder
        self.closed: list[SessionId] = []
        self.signed_out: list[UserId] = []
        self.stopped = trio.Event()
        self._scope = scope

    async def stop(self) -> None:
        """As a crash does: nothing more is written."""
        self._scope.cancel()
        await self.stopped.wait()

    async def ask(
        self,
        what: str,
        body: dict[str, Any] | None = None,
        *,
        as_: Person | None = None,
        path: dict[str, str] | None = None,
        query: dict[str, Any] | None = None,
        user_agent: str = "tests",
        idempotency_key: str | None = None,
        language: str = "",
        status: int = 200,
    ) -> Any:
        """What the route answers, as a client reads it: the token is proved, body and query are checked.
        status: of the answer, as far as it is not the route's own success."""
        route = _ROUTES[what]
        call = Call("request", "192.0.2.1", trio.current_time() + 30)
        call.user_agent, call.language, call.idempotency_key = user_agent, language, idempotency_key
        if as_ is not None:
            call.principal = await self.room.authenticate(as_.access_token, outage=route.outage)
        call.path = path or {}
        if route.body is not None:
            call.body = msgspec.convert(body, route.body)
        if route.query is not None:
            call.query = msgspec.convert(query or {}, route.query)
        reply = await route.handler(self.room, call)
        assert (reply.status or 200) == status
        assert status in (route.status, 200, *route.also)
        answer = msgspec.json.encode(reply.data)
        shape = route.other.get(status, route.answer)
        if shape is None:
            assert answer == b"null"
        else:
            msgspec.json.decode(answer, type=shape)
        return msgspec.json.decode(answer)

    async def call(self, method: str, path: str, body: Any, caller: Principal, query: dict[str, Any]) -> Any:
        """The answer to a request as it was sent. There is a route for it."""
        route, named = next(
            (route, found.groupdict())
            for route in ROUTES
            if route.method == method and (found := _pattern(route.path).fullmatch(path))
        )
        call = Call("request", "192.0.2.1", trio.current_time() + 30, principal=caller, path=named)
        if route.body is not None:
            call.body = msgspec.convert(body, route.body)
        if route.query is not None:
            call.query = msgspec.convert(query, route.query)
        reply = await route.handler(self.room, call)
        return msgspec.json.decode(msgspec.json.encode(reply.data))

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

    async def export(self, person: Person) -> dict[str, Any]:
        """What is in the archive, by the names of its files."""
        body = await self.room.export.begin(UserId(person.user_id), "192.0.2.1")
        data = b"".join([piece async for piece in body])
        with ZipFile(io.BytesIO(data)) as archive:
            assert archive.testzip() is None
            return {name: msgspec.json.decode(archive.read(name)) for name in archive.namelist()}

    async def who(self, person: Person, *, outage: bool = False) -> Principal:
        return await self.room.authenticate(person.access_token, outage=outage)


@dataclass(frozen=True)
class Person:
    username: str
    user_id: str
    session_id: str
    device_id: str
    device_secret: str | None
    access_token: str
    refresh_token: str


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", path))


def _tokens(data: dict[str, Any]) -> dict[str, Any]:
    names = ("session_id", "device_id", "device_secret", "access_token", "refresh_token")
    return {name: data[name] for name in names} | {"user_id": data["user"]["user_id"]}


async def _all(tx: Tx, sql: str) -> list[Row]:
    return await tx.all(sql)


@contextmanager
def refused(code: str, **details: Any) -> Iterator[pytest.ExceptionInfo[Problem]]:
    """The block must end in this refusal."""
    with pytest.raises(Problem) as caught:
        yield caught
    assert caught.value.code == code
    assert not details or caught.value.details == details
