"""What the rooms and the gateway share: routes, calls, replies, sockets, frames.

A room exports tables, `ROUTES` and `SOCKETS`. From them come the routing, the OpenAPI document, the rate
classes and the test of who may see what. Rooms see nothing else of HTTP or WebSocket.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import msgspec

from .errors import Forbidden, Problem
from .identity import Principal, SessionId, UserId


class Audience(enum.Enum):
    """Who gets an answer; the rule enforces it, the authorisation test is built from it."""

    ANYONE = "anyone"  # no token needed
    USER = "user"  # any signed-in user, about public or own things
    OWNER = "owner"  # the one whose thing path or body names; others get 404
    MEMBER = "member"  # members of the conversation that is named, or of one with the person; others get 404
    MODERATOR = "moderator"  # its owner or admins; other members get 403, strangers 404
    AUTHOR = "author"  # the sender of the message; other members get 403, strangers 404
    ADMIN = "admin"  # the server's administrators; everybody else gets 403


def require_admin(caller: Principal, subject: str) -> None:
    """Raises Forbidden, to be audited.  subject: what was asked for."""
    if caller.role != "admin":
        raise Forbidden("Only administrators may do this.", denial="denied:admin", subject=subject)


class Rate(enum.Enum):
    """Rate classes; their numbers are the settings of the same name in [rate_limits]."""

    LOGIN = "login"
    REGISTER = "register"
    MAIL = "mail"
    REFRESH = "refresh"
    READ = "read"
    WRITE = "write"
    SEARCH = "search"
    SOCKET = "socket"
    PUBLIC = "public"
    ASSETS = "assets"  # the files of the web client: a page needs many of them
    NONE = "none"  # health and metrics


class Call(msgspec.Struct):
    """One request, admitted: its deadline runs, its caller is known, path, query and body are valid.

    path: values of the path's `{names}`; one that ends in `_id` is a UUID.
    query, body: instances of the route's `query` and `body` structs.
    deadline: on trio's clock.  address: of the client, behind trusted proxies.
    language: the Accept-Language it sent, as it is.
    read: of a streaming route, the next bytes of the body and b"" at its end; raises RequestTimeout when they
    do not come in `body_timeout_s`, or come in drops, and TooLarge past the route's limit.
    length: of the body of a streaming route, if the client tells.
    route: method and template, of a route that `repeats`.  idempotency_key: of such a route's caller, who may
    ask again with the same one.
    """

    request_id: str
    address: str
    deadline: float
    principal: Principal | None = None
    path: Mapping[str, str] = msgspec.field(default_factory=dict)
    query: Any = None
    body: Any = None
    user_agent: str = ""
    language: str = ""
    read: Callable[[], Awaitable[bytes]] | None = None
    length: int | None = None
    route: str = ""
    idempotency_key: str | None = None

    @property
    def caller(self) -> Principal:
        """The signed-in caller of a route that is not for anyone."""
        if self.principal is None:
            raise RuntimeError("a route for anyone asked for its caller")
        return self.principal


class File(msgspec.Struct, frozen=True):
    """`size` bytes of a file of this machine, from `start` on. Without TLS they do not pass through us.

    sent: hears how many were handed to the network, in several steps.
    """

    path: Path
    size: int
    start: int = 0
    sent: Callable[[int], None] | None = None


Body = bytes | File | AsyncGenerator[bytes, None]


class Reply(msgspec.Struct, frozen=True):
    """data: an instance of the route's `answer`, or a Raw of such a one; it stands in the envelope's `data`.

    as_of_us: told from memory, while the database is away: what was stored before then is in it. None: it is
    how things are.

    body: sent as it is, in the place of an envelope; `headers` then tell its content-type. Of bytes and files
    with an `etag`, a client gets what it asks for: nothing (304), or a part of the file. A generator is asked
    for more at the client's pace, and closed whatever happens.
    """

    data: Any = None
    status: int | None = None  # None: the route's own
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    body: Body | None = None
    as_of_us: int | None = None


Handler = Callable[[Any, Call], Awaitable[Reply]]


class Route(msgspec.Struct, frozen=True):
    """One REST endpoint.  handler(room, call) is called with the room's running instance.

    body, query, answer: msgspec Structs.  status: of success; also: further statuses of success.
    other: what is answered in the place of `answer` with some of those.
    errors: the problems this route adds to those every route may give.
    stream: the body is not read before the handler runs: it reads `call.read`, up to `stream` bytes, and
    neither it nor the answer is bound by the request's deadline, only by the pace of the client. With 0 there
    is no body to read, and the deadline stands, but the answer may have a body that is not bytes.
    media: the content type of an answer whose body is not JSON; `*/*` where it is the content's own.
    outage: served while the database is away, too: its callers' tokens are then accepted past their end.
    repeats: takes an Idempotency-Key, which its rule keeps with what it has made (`idempotency.once`).
    """

    method: str
    path: str
    handler: Handler
    audience: Audience
    rate: Rate
    summary: str
    body: type | None = None
    query: type | None = None
    answer: type | None = None
    status: int = 200
    also: tuple[int, ...] = ()
    other: Mapping[int, type] = msgspec.field(default_factory=dict)
    errors: tuple[type[Problem], ...] = ()
    stream: int | None = None
    media: str = "application/octet-stream"
    outage: bool = False
    repeats: bool = False


class SocketRoute(msgspec.Struct, frozen=True):
    """One WebSocket endpoint.  handler(room, call, socket) runs for as long as the socket is open.

    admit(room, call): asked before the upgrade; a Problem it raises is answered over HTTP.
    outage: as in `Route`.
    """

    path: str
    handler: Callable[[Any, Call, Socket], Awaitable[None]]
    audience: Audience
    summary: str
    query: type | None = None
    admit: Callable[[Any, Call], Awaitable[None]] | None = None
    rate: Rate = Rate.SOCKET
    outage: bool = False


class Close(enum.IntEnum):
    """WebSocket close codes (API.md)."""

    NORMAL = 1000
    TOO_BIG = 1009
    INTERNAL = 1011
    RESTART = 1012
    TOO_SLOW = 1013
    BAD_FRAME = 4400
    UNAUTHENTICATED = 4401
    FORBIDDEN = 4403
    NOT_FOUND = 4404
    SILENT = 4408
    TOO_MANY_FRAMES = 4429


class Weight(enum.IntEnum):
    """What is left out first when a socket or the server has more to send than it can."""

    TYPING = 0
    PRESENCE = 1
    DURABLE = 2  # never left out: a socket that cannot take it is closed, and resumes


class Frame:
    """One outbound text message, encoded once however many sockets it goes to.

    data: UTF-8 JSON.  wire, deflated: the gateway's own, as it goes over the network.
    """

    __slots__ = ("data", "deflated", "weight", "wire")

    def __init__(self, data: bytes, weight: Weight = Weight.DURABLE) -> None:
        self.data = data
        self.weight = weight
        self.wire: bytes | None = None
        self.deflated: bytes | None = None


class Run:
    """Several durable messages in a row, for sockets that get all of them.

    wire, deflated: as of a frame, all together.
    """

    __slots__ = ("deflated", "frames", "wire")

    def __init__(self, frames: Sequence[Frame]) -> None:
        self.frames = frames
        self.wire: bytes | None = None
        self.deflated: bytes | None = None


class SocketClosed(Exception):
    """The other side, or we, closed the socket."""


class Socket(Protocol):
    """One open WebSocket, as a room sees it. Pings, sizes and deadlines are the gateway's, and so is closing
    it (4401) when its token ends or is revoked."""

    @property
    def id(self) -> str: ...

    @property
    def principal(self) -> Principal:
        """The caller; its `expires_us` moves when the token is renewed."""
        ...

    async def receive(self) -> bytes:
        """The next inbound text message as UTF-8. Raises SocketClosed."""
        ...

    def offer(self, frame: Frame) -> bool:
        """Queue a frame without waiting. False when the socket is closed, or was closed just now (1013)
        because its outbox is full: the client comes back and resumes. One of little weight may be left out
        in silence."""
        ...

    def offer_run(self, run: Run) -> bool:
        """`offer` of all of its frames, one after the other."""
        ...

    def gather(self, sockets: Sequence[Socket]) -> Crowd:
        """A crowd of these, which are all of this one's gateway."""
        ...

    @property
    def is_behind(self) -> bool:
        """Whether more than half of its outbox waits for the client."""
        ...

    async def send(self, frame: Frame) -> None:
        """Send at the client's pace: returns when everything queued so far was handed to the network.
        Raises SocketClosed."""
        ...

    def close(self, code: Close, reason: str) -> None:
        """Begin to close; never waits. What was queued before is sent first, within the write deadline."""
        ...

    def renew(self, principal: Principal) -> None:
        """The client has proved a fresh token of the same session."""
        ...


class Crowd(Protocol):
    """Sockets that are offered the same, again and again."""

    def offer(self, frame: Frame) -> Sequence[int]:
        """`Socket.offer` to each of them. Returns the places in the crowd of those where that was False."""
        ...

    def offer_run(self, run: Run) -> Sequence[int]:
        """The same with `Socket.offer_run`."""
        ...


class Authenticator(Protocol):
    """What the gateway asks of auth."""

    def known(self, token: str, *, outage: bool = False) -> Principal | None:
        """The principal of an access token verified before, neither expired nor revoked since; no await.
        outage: while the database is away, the end of the token may pass, as `left_us` says."""
        ...

    async def authenticate(self, token: str, *, outage: bool = False) -> Principal:
        """Verify an access token. Raises InvalidToken, TokenExpired, TokenRevoked; and Unavailable while the
        database is away, unless `outage`: then a token that was valid when it went is enough for a while."""
        ...

    def has_ended(self, principal: Principal) -> bool:
        """Whether this node has learnt that the session is over; no await."""
        ...

    def left_us(self, principal: Principal) -> tuple[int, bool]:
        """The microseconds for which an open socket needs no fresh token, negative when it should have had
        one; and whether one can be got now: not while the database is away. No await."""
        ...

    async def redeem(self, ticket: str) -> Principal:
        """Spend a WebSocket ticket. Raises InvalidToken."""
        ...


SessionsEnded = Callable[[frozenset[SessionId]], None]
PeopleSignedOut = Callable[[frozenset[UserId]], None]


@lru_cache(maxsize=4096)
def subscriber_of(address: str) -> str:
    """What counts as one address: a /64 of IPv6 is one subscriber's."""
    if ":" not in address:
        return address
    try:
        return str(ipaddress.ip_network(f"{address}/64", strict=False))
    except ValueError:
        return address
