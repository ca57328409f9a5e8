"""A small room behind a real gateway on real sockets, and raw clients that can misbehave."""

from __future__ import annotations

import dataclasses
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

import msgspec
import trio
from trio_websocket import WebSocketConnection, wrap_client_stream

from secureconnect.clock import SECOND_US, now_us
from secureconnect.config import Config, GatewayConfig, MemoryConfig, RateLimitsConfig
from secureconnect.deps.contracts import DependencyStatus
from secureconnect.deps.memory import MemoryCache
from secureconnect.edge import Audience, Call, Close, Frame, Rate, Reply, Route, Socket, SocketRoute
from secureconnect.errors import Conflict, Forbidden, InvalidToken, NotFound, Problem, Unavailable
from secureconnect.gateway import Gateway, Mount
from secureconnect.gateway.faults import Fault
from secureconnect.identity import DeviceId, Principal, SessionId, UserId
from secureconnect.metrics import REGISTRY
from secureconnect.supervise import Handle

WITHIN_S = 5
UPGRADE = {
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def principal(name: str, expires_in_s: float = 900) -> Principal:
    return Principal(
        UserId(f"user-{name}"),
        SessionId(f"session-{name}"),
        DeviceId(f"device-{name}"),
        "user",
        now_us() + int(expires_in_s * SECOND_US),
    )


class Tokens:
    """An authenticator whose token `ann` is Ann's; `ticket-ann` is her ticket.

    redeeming: set when a ticket is asked about, answered once `may_redeem` is.
    away: what `left_us` says while the database is away; None: it is there.  looks: how often it was asked.
    """

    def __init__(self) -> None:
        self.redeeming, self.may_redeem = trio.Event(), trio.Event()
        self.may_redeem.set()
        self.ended: set[SessionId] = set()
        self.people = {"ann": principal("ann"), "bob": principal("bob")}
        self.away: tuple[int, bool] | None = None
        self.looks = 0

    def known(self, token: str, *, outage: bool = False) -> Principal | None:
        person = self.people.get(token)
        return None if self.away is not None and not outage else person

    async def authenticate(self, token: str, *, outage: bool = False) -> Principal:
        if self.away is not None and not outage:
            raise Unavailable
        raise InvalidToken

    def has_ended(self, principal: Principal) -> bool:
        return principal.session_id in self.ended

    def left_us(self, principal: Principal) -> tuple[int, bool]:
        self.looks += 1
        return self.away or (principal.expires_us - now_us(), True)

    async def redeem(self, ticket: str) -> Principal:
        self.redeeming.set()
        await self.may_redeem.wait()
        person = self.people.get(ticket.removeprefix("ticket-"))
        if person is None:
            raise InvalidToken
        return person


class Inner(msgspec.Struct, frozen=True):
    b: Annotated[int, msgspec.Meta(ge=1)] = 1


class Note(msgspec.Struct, frozen=True):
    text: str
    inner: Inner = Inner()
    items: list[Inner] = []
    extra: dict[str, Any] = {}


class Filter(msgspec.Struct, frozen=True):
    limit: Annotated[int, msgspec.Meta(ge=1, le=100)] = 20
    cursor: str | None = None
    since: int = 0


class Seen(msgspec.Struct, frozen=True):
    """What a handler saw of its call."""

    address: str = ""
    user_id: str | None = None
    text: str = ""
    limit: int = 0
    thing_id: str = ""


class TestRoom:
    """Its `crash` event makes it crash; `sockets` holds the open ones."""

    __test__ = False

    def __init__(self) -> None:
        self.crash = trio.Event()
        self.entered = trio.Event()
        self.sockets: list[Socket] = []
        self.received: list[bytes] = []

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await self.crash.wait()
        raise RuntimeError("crashed as asked")


async def _see(_: TestRoom, call: Call) -> Reply:
    user = call.principal.user_id if call.principal else None
    return Reply(
        Seen(
            address=call.address,
            user_id=user,
            text=call.body.text if call.body else "",
            limit=call.query.limit if call.query else 0,
            thing_id=call.path.get("thing_id", ""),
        )
    )


async def _hang(room: TestRoom, _: Call) -> Reply:
    room.entered.set()
    await trio.sleep_forever()
    raise AssertionError


async def _break(_: TestRoom, __: Call) -> Reply:
    raise ZeroDivisionError("a secret detail")


async def _break_in_a_group(_: TestRoom, __: Call) -> Reply:
    async with trio.open_nursery():
        raise Conflict


async def _deny(_: TestRoom, call: Call) -> Reply:
    raise Forbidden(denial="denied:forbidden", subject=call.request_id)


async def _nothing(_: TestRoom, __: Call) -> Reply:
    return Reply()


async def _large(_: TestRoom, __: Call) -> Reply:
    return Reply(Seen(text="x" * 20_000_000))


async def _echo(room: TestRoom, _: Call, socket: Socket) -> None:
    """Answers what it is sent; a message `leave` ends it, `break` breaks it."""
    room.sockets.append(socket)
    while True:
        message = await socket.receive()
        room.received.append(message)
        if message == b"leave":
            return
        if message == b"break":
            raise ZeroDivisionError
        if message == b"deny":
            raise Forbidden
        if message == b"close":
            socket.close(Close.NOT_FOUND, "lost access")
        else:
            await socket.send(Frame(message))


async def _members_only(_: TestRoom, call: Call) -> None:
    raise NotFound(denial="denied:conversation", subject=call.request_id)


async def _deaf(room: TestRoom, _: Call, socket: Socket) -> None:
    """Never receives."""
    room.sockets.append(socket)
    await trio.sleep_forever()


USER, ANYONE = Audience.USER, Audience.ANYONE
ROUTES = (
    Route("GET", "/v1/open", _see, ANYONE, Rate.NONE, "Open to anyone", answer=Seen),
    Route("GET", "/v1/public", _see, ANYONE, Rate.PUBLIC, "Open, limited", answer=Seen),
    Route("GET", "/v1/mine", _see, USER, Rate.READ, "For users", query=Filter, answer=Seen),
    Route("POST", "/v1/mine", _see, USER, Rate.WRITE, "Write", body=Note, answer=Seen, status=201),
    Route("POST", "/v1/notes/", _see, ANYONE, Rate.NONE, "Open to write", body=Note, answer=Seen),
    Route("GET", "/v1/things/{thing_id}", _see, ANYONE, Rate.NONE, "One thing", answer=Seen),
    Route("DELETE", "/v1/things/{thing_id}", _nothing, ANYONE, Rate.NONE, "Delete it", status=204),
    Route("GET", "/v1/named/{name}", _see, ANYONE, Rate.NONE, "By name", answer=Seen),
    Route("GET", "/v1/hang", _hang, ANYONE, Rate.NONE, "Never answers", answer=Seen),
    Route("GET", "/v1/break", _break, ANYONE, Rate.NONE, "Breaks", answer=Seen),
    Route("GET", "/v1/group", _break_in_a_group, ANYONE, Rate.NONE, "Breaks in a group", errors=(Conflict,)),
    Route("GET", "/v1/deny", _deny, USER, Rate.NONE, "Denies", errors=(Forbidden,)),
    Route("GET", "/v1/lasting", _see, USER, Rate.NONE, "Without the database", answer=Seen, outage=True),
    Route("GET", "/v1/large", _large, ANYONE, Rate.NONE, "A large answer", answer=Seen),
)
SOCKETS = (
    SocketRoute("/v1/ws/echo", _echo, USER, "Echo", query=Filter),
    SocketRoute("/v1/ws/deaf", _deaf, USER, "Deaf"),
    SocketRoute("/v1/ws/lasting", _echo, USER, "Echo without the database", outage=True),
    SocketRoute("/v1/ws/members", _echo, USER, "For others", admit=_members_only),
)


@dataclasses.dataclass
class House:
    """A running gateway.  denials: (tag, subject) of what was denied."""

    gateway: Gateway
    rooms: dict[str, Handle[TestRoom]]
    tokens: Tokens
    denials: list[tuple[str, str | None]]
    port: int
    nursery: trio.Nursery
    streams: list[trio.SocketStream] = dataclasses.field(default_factory=list)

    @property
    def room(self) -> TestRoom:
        return self.rooms["chat"].require()

    async def connect(self) -> Raw:
        return Raw(await self._stream())

    async def ask(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> Response:
        """One request on a connection of its own."""
        raw = await self.connect()
        async with raw.stream:
            await raw.request(method, path, headers, body)
            return await raw.response(method)

    async def post(self, path: str, body: bytes, **headers: str) -> Response:
        return await self.ask("POST", path, {"content-type": "application/json", **headers}, body)

    async def socket(
        self,
        path: str = "/v1/ws/echo",
        token: str | None = "ann",
        headers: dict[str, str] | None = None,
        subprotocols: list[str] | None = None,
    ) -> WebSocketConnection:
        given = dict(headers or {})
        if token:
            given["Authorization"] = f"Bearer {token}"
        extra = [(name.encode(), value.encode()) for name, value in given.items()]
        stream = await self._stream()
        with trio.fail_after(WITHIN_S):
            return await wrap_client_stream(
                self.nursery,
                stream,
                f"127.0.0.1:{self.port}",
                path,
                extra_headers=extra,
                subprotocols=subprotocols or [],
            )

    async def _stream(self) -> trio.SocketStream:
        """A connection that is closed with the house at the latest."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        self.streams.append(stream)
        return stream

    @property
    def open_connections(self) -> int:
        return len(self.gateway._listener._open)


@dataclasses.dataclass
class Response:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["error"]["code"])


class Raw:
    """HTTP/1.1 over a bare socket."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.buffer = b""

    async def send(self, data: bytes) -> None:
        with trio.fail_after(WITHIN_S):
            await self.stream.send_all(data)

    async def request(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        data: bytes = b"",
    ) -> None:
        """data: bytes that go with the request and are no part of it."""
        given = {"host": "localhost", **(headers or {})}
        if body is not None:
            given["content-length"] = str(len(body))
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items()), "", ""]
        await self.send("\r\n".join(lines).encode("latin-1") + (body or b"") + data)

    async def response(self, method: str = "GET") -> Response:
        with trio.fail_after(WITHIN_S):
            head = await self.receive_until(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            headers = {}
            for line in lines:
                name, _, value = line.partition(":")
                headers[name.lower()] = value.strip()
            status = int(first.split()[1])
            size = 0 if method == "HEAD" or status in (204, 304) else int(headers.get("content-length", 0))
            while len(self.buffer) < size:
                data = await self.stream.receive_some(65536)
                assert data, "the answer was cut off"
                self.buffer += data
            body, self.buffer = self.buffer[:size], self.buffer[size:]
            return Response(status, headers, body)

    async def ended(self) -> bytes:
        """Everything up to the server's FIN; a reset raises BrokenResourceError."""
        with trio.fail_after(WITHIN_S):
            rest = self.buffer
            while data := await self.stream.receive_some(65536):
                rest += data
            return rest

    async def receive_until(self, end: bytes) -> bytes:
        """What comes before `end`."""
        while end not in self.buffer:
            with trio.fail_after(WITHIN_S):
                data = await self.stream.receive_some(65536)
            assert data, f"no answer, only {self.buffer!r}"
            self.buffer += data
        head, _, self.buffer = self.buffer.partition(end)
        return head


async def narrow_stream(house: House) -> trio.SocketStream:
    """A connection behind the smallest buffers, so that not reading soon stops the server."""
    sock = trio.socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await sock.connect(("127.0.0.1", house.port))
    return trio.SocketStream(sock)


def counted(fault: Fault) -> float:
    """How many of these there were in this process."""
    return REGISTRY.get_sample_value("secureconnect_gateway_faults_total", {"fault": fault}) or 0.0


def dependencies() -> list[DependencyStatus]:
    return [DependencyStatus("postgres", "sqlite", "up", now_us())]


@asynccontextmanager
async def open_house(
    limits: RateLimitsConfig | None = None, routes: Sequence[Route] = (), **settings: Any
) -> AsyncIterator[House]:
    """A gateway with the rooms `chat`, which has everything, and `auth`, which has one route.

    routes: further ones of `chat`.  settings: of [gateway].
    """
    gateway_config = GatewayConfig(**{"port": 0, "drain_s": 1.0, "close_timeout_s": 0.2, **settings})
    config = Config(gateway=gateway_config, rate_limits=limits or RateLimitsConfig())
    tokens = Tokens()
    denials: list[tuple[str, str | None]] = []

    def deny(problem: Problem, _: Call) -> None:
        denials.append((str(problem.denial), problem.subject))

    rooms = {name: Handle(name, TestRoom) for name in ("chat", "auth")}
    quiet = Route("GET", "/v1/other", _see, ANYONE, Rate.NONE, "Another room", answer=Seen)
    gateway = Gateway(
        config,
        [Mount(rooms["chat"], (*ROUTES, *routes), SOCKETS), Mount(rooms["auth"], (quiet,), ())],
        lambda: tokens,
        MemoryCache(MemoryConfig()),
        dependencies,
        list(rooms.values()),
        deny,
        lambda: "server.test",
    )
    async with trio.open_nursery() as nursery:
        for handle in rooms.values():
            await nursery.start(handle.run)
        urls = await nursery.start(gateway.run)
        port = int(urls[0].rpartition(":")[2])
        house = House(gateway, rooms, tokens, denials, port, nursery)
        try:
            yield house
        finally:
            for stream in house.streams:
                stream.socket.close()
        nursery.cancel_scope.cancel()
