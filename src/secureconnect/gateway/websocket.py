"""WebSockets: the gate before the upgrade, and `edge.Socket` on a connection's bytes.

The room's handler runs in the connection's own task, and its `receive` reads the connection: nobody else
does, so a handler that is busy slows its client down and nothing piles up. What the room offers waits in an
outbox (`fanout`). Whoever closes a socket only marks it; the deadlines of the connection then bound what the
client can still delay.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from time import perf_counter
from typing import NamedTuple, Protocol, cast
from urllib.parse import parse_qs

import msgspec
import structlog
import trio

from ..clock import SECOND_US, now_us
from ..config import GatewayConfig
from ..edge import Call, Close, Crowd, Frame, Run, Socket, SocketClosed, SocketRoute
from ..errors import DeadlineExceeded, Malformed, NotFound, Problem, Unavailable
from ..identity import Principal, SessionId, UserId, new_id
from ..log import bind
from ..metrics import gauge
from . import framing, replies
from .admission import Endpoint, Gate, Request, bearer_of, named_in_log, note_status, request_id_of
from .fanout import MESSAGES, SOCKETS_A_TURN, Fanout, Outbox, OutboxCrowd
from .faults import note
from .mounting import Lend
from .replies import Answer
from .transport import Transport

log = structlog.get_logger(module="gateway")

ACTIVE = gauge("websocket_connections_active", "Open WebSockets.")
_IN = MESSAGES.labels("in")

PROTOCOL = "secureconnect.v1"
BEARER = "bearer."
WATCH_S = 1.0
FRAMES_WINDOW_S = 10.0
EXPIRY_NOTICE_US = 60 * SECOND_US
RECONNECT_MS = (500, 3_000)
_DROPS_OUTBOX = frozenset({Close.TOO_SLOW, Close.UNAUTHENTICATED})
_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")


class GoingAway(msgspec.Struct, tag_field="type", tag="going_away"):
    reconnect_after_ms: int


class TokenExpiring(msgspec.Struct, tag_field="type", tag="token_expiring"):
    """in_s: seconds left to send `auth` with a fresh one."""

    in_s: int


class Handshake(Protocol):
    """A request for an upgrade, on the connection it came on."""

    @property
    def transport(self) -> Transport: ...

    async def refuse(self, answer: Answer) -> None:
        """Answer over HTTP; the last on this connection."""
        ...

    def accept(self, headers: Mapping[str, str]) -> bytes:
        """Answer 101. Returns what the client has sent behind its handshake."""
        ...


class OpenSocket:
    """`edge.Socket` on one connection.

    handling: the scope in which the room's handler runs.
    """

    __slots__ = (
        "_closing",
        "_config",
        "_frames_before",
        "_has_left",
        "_heard_close",
        "_inbound",
        "_inbox",
        "_is_receiving",
        "_outbox",
        "_ping_at",
        "_quiet_until_us",
        "_transport",
        "_window_ends",
        "handling",
        "id",
        "principal",
    )

    def __init__(
        self,
        principal: Principal,
        transport: Transport,
        config: GatewayConfig,
        fanout: Fanout,
        deflates: bool,
    ) -> None:
        self.id = new_id()
        self.principal = principal
        self.handling = trio.CancelScope()
        self._transport = transport
        self._config = config
        self._inbound = framing.Inbound(config.ws_frame_limit_bytes, deflates)
        self._inbox: list[bytes] = []
        self._outbox = Outbox(transport, fanout, deflates, self._overflow)
        self._is_receiving = False
        self._closing: tuple[Close | int, str] | None = None
        self._heard_close = False
        self._has_left = False
        self._quiet_until_us = 0
        self._frames_before = 0  # of this window
        self._window_ends = 0.0
        self._ping_at = trio.current_time() + config.ws_ping_s
        transport.on_gone = self._gone
        if transport.gone:
            self._gone()

    @property
    def closed(self) -> bool:
        return self._has_left or self._closing is not None

    @property
    def code(self) -> int | None:
        """The close code we gave, or None while open and when the client left first."""
        return self._closing[0] if self._closing else None

    # edge.Socket

    async def receive(self) -> bytes:
        while self._closing is None:
            if self._inbox:
                _IN.inc()
                return self._inbox.pop(0)
            if self._has_left:
                break
            if self._inbound.is_holding:
                self.feed(b"")
                continue
            self._is_receiving = True
            data = await self._transport.receive()
            self._is_receiving = False
            if data:
                self.feed(data)
            elif self._transport.hung_up:
                self._gone()
        raise SocketClosed

    def offer(self, frame: Frame) -> bool:
        return self._outbox.offer(frame)

    def offer_run(self, run: Run) -> bool:
        return self._outbox.offer_run(run)

    def gather(self, sockets: Sequence[Socket]) -> Crowd:
        return OutboxCrowd([cast(OpenSocket, socket)._outbox for socket in sockets])

    @property
    def is_behind(self) -> bool:
        return self._outbox.size * 2 > self._config.ws_outbox_bytes

    async def send(self, frame: Frame) -> None:
        if self.closed:
            raise SocketClosed
        await self._outbox.send(frame)
        if self.closed:
            raise SocketClosed

    def close(self, code: Close, reason: str) -> None:
        if not self.closed:
            self._close(code, reason, drops=code in _DROPS_OUTBOX)

    def renew(self, principal: Principal) -> None:
        self.principal = principal
        self._quiet_until_us = 0

    # what the gateway does with it

    def feed(self, data: bytes) -> None:
        """Take what the client sent. Messages wait for `receive`; the rest is dealt with here."""
        inbound, now = self._inbound, self._transport.last_read
        if self._has_left or self._closing is not None:
            self._await_close(data)
            return
        if now >= self._window_ends:
            self._window_ends = now + FRAMES_WINDOW_S
            self._frames_before = inbound.frames
        for opcode, payload in inbound.feed(data):
            if opcode == framing.TEXT:
                self._inbox.append(payload)
            elif opcode == framing.PING:
                self._outbox.answer(framing.control(framing.PONG, payload))
            elif opcode == framing.BINARY:
                self.close(Close.BAD_FRAME, "text messages only")
            elif opcode == framing.CLOSE:
                self._hear_close(payload)
            if self.closed:
                return
        if inbound.violation is not None:
            self._close(inbound.violation.code, inbound.violation.reason)
        elif inbound.frames - self._frames_before > self._config.ws_frames_per_10s:
            self.close(Close.TOO_MANY_FRAMES, "too many messages")

    async def finish(self) -> None:
        """Let the close frame out and hear the client's, each within its time."""
        await self._outbox.emptied()
        transport = self._transport
        due = min(trio.current_time() + self._config.close_timeout_s, transport.end_at)
        with trio.CancelScope(deadline=due):
            while not self._heard_close and (data := await transport.receive()):
                self._await_close(data)

    def end_session(self) -> None:
        self.close(Close.UNAUTHENTICATED, "the session has ended")

    def dismiss(self) -> None:
        """Send the client away to come back in a moment: not all in the same."""
        self.offer(_frame(GoingAway(random.randint(*RECONNECT_MS))))  # noqa: S311
        self.close(Close.RESTART, "the server is restarting")

    def check(self, now: float, clock_us: int, gate: Gate) -> None:
        """Ping when it is time. Close if the client is silent or its token has ended; tell it once that the
        token will, if it can get another."""
        transport, config = self._transport, self._config
        if now >= self._ping_at and not self.closed:
            self._ping_at = now + config.ws_ping_s
            self._outbox.put(framing.control(framing.PING, b""))
        if not self._is_receiving or now - transport.last_read > config.ws_silence_s:
            transport.look()  # its handler is busy: what the client says waits in the network
            if transport.hung_up:
                self._gone()
        if now - transport.last_read > config.ws_silence_s:
            self.close(Close.SILENT, "nothing was heard for too long")
        elif self.principal.expires_us - clock_us <= EXPIRY_NOTICE_US:
            self._check_token(gate, clock_us)

    def _check_token(self, gate: Gate, clock_us: int) -> None:
        found = gate.left_us(self.principal)
        if found is None or self.closed:
            return
        left_us, may_renew = found
        if left_us <= 0:
            self.close(Close.UNAUTHENTICATED, "the token has expired")
        elif may_renew and left_us <= EXPIRY_NOTICE_US and clock_us >= self._quiet_until_us:
            self._quiet_until_us = clock_us + left_us
            self.offer(_frame(TokenExpiring(left_us // SECOND_US)))

    # ending

    def _close(self, code: int, reason: str, drops: bool = False) -> None:
        self._closing = (code, reason)
        self._outbox.shut()
        within_s = self._config.close_timeout_s
        if drops:
            self._outbox.drop()
        else:
            within_s += self._config.write_timeout_s
        self._outbox.put(framing.close(code, reason))
        self._transport.end_by(trio.current_time() + within_s)
        self._release()

    def _await_close(self, data: bytes) -> None:
        """Nothing else that comes counts any more."""
        self._inbound.skip()
        if any(opcode == framing.CLOSE for opcode, _ in self._inbound.feed(data)):
            self._heard_close = True

    def _hear_close(self, payload: bytes) -> None:
        self._heard_close = True
        if not self.closed:
            self._outbox.put(framing.control(framing.CLOSE, payload[:2]))
            self._has_left = True
            self._outbox.shut()
            self._release()

    def _overflow(self) -> None:
        if self.closed:
            self._transport.cut()
        else:
            self.close(Close.TOO_SLOW, "too slow: come back and resume")

    def _gone(self) -> None:
        """The connection is over."""
        if not self._has_left:
            self._has_left = True
            self._outbox.shut()
            self._outbox.drop()
            self._release()

    def _release(self) -> None:
        """Wake whoever waits on this socket; the handler gets the close timeout to end by itself."""
        if self._is_receiving:
            self._transport.interrupt()
        self.handling.deadline = trio.current_time() + self._config.close_timeout_s


class Visit(NamedTuple):
    """A WebSocket whose handshake is through: all that is left of it while it is open.

    named: what its log lines say of it.
    """

    route: SocketRoute
    lend: Lend
    call: Call
    socket: OpenSocket
    named: bind


class Sockets:
    """All open sockets.

    fanout: what sends to them.  refusing: new ones are answered 503, because the server is going away.
    """

    def __init__(self, gate: Gate, config: GatewayConfig) -> None:
        self.fanout = Fanout(config)
        self.refusing = False
        self._gate = gate
        self._config = config
        self._routes: dict[str, tuple[SocketRoute, Endpoint, Lend]] = {}
        self._sessions: dict[SessionId, set[OpenSocket]] = {}

    def add(self, route: SocketRoute, endpoint: Endpoint, lend: Lend) -> None:
        """Serve `route`, whose path has no `{names}`.  endpoint: what a request without upgrade gets."""
        self._routes[route.path] = (route, endpoint, lend)

    async def open(self, request: Request, handshake: Handshake) -> Visit | None:
        """Answer a request for an upgrade. Returns what to `run`, unless it was refused."""
        started = perf_counter()
        request_id = request_id_of(request)
        known = self._routes.get(request.path.decode("latin-1").rstrip("/"))
        endpoint = known[1] if known else self._gate.nothing("GET")
        extra: dict[str, str] = {}
        deadline = trio.current_time() + self._config.request_deadline_s
        call = Call(request_id, self._gate.address_of(request), deadline)
        offered = [each.strip() for each in request.headers.get("sec-websocket-protocol", "").split(",")]
        span = self._gate.span(request, endpoint)
        facts = named_in_log(request, request_id, span)
        with span, bind(**facts):
            try:
                with trio.CancelScope(deadline=deadline) as admitting:
                    _check_handshake(request)
                    await self._admit(call, request, endpoint, offered, extra)
                    if known is None:
                        raise NotFound
                    route, _, lend = known
                    if route.admit is not None:
                        with lend() as room:
                            await route.admit(room, call)
                if admitting.cancelled_caught:
                    raise DeadlineExceeded
            except Exception as error:
                problem = self._gate.problem_of(error, call)
                endpoint.count(problem.status, perf_counter() - started)
                note_status(span, problem.status)
                await self._refuse(problem, request_id, extra, handshake)
                return None
            endpoint.count(101, perf_counter() - started)
            note_status(span, 101)
            call.deadline = math.inf
            extra |= {
                "connection": "Upgrade",
                "upgrade": "websocket",
                "sec-websocket-accept": framing.accept_key(request.headers["sec-websocket-key"]),
            }
            if PROTOCOL in offered:
                extra["sec-websocket-protocol"] = PROTOCOL
            agreed = self._extensions(request)
            if agreed is not None:
                extra["sec-websocket-extensions"] = agreed
            rest = handshake.accept(self._gate.headers(request_id, extra))
        socket = OpenSocket(call.caller, handshake.transport, self._config, self.fanout, agreed is not None)
        if rest:
            socket.feed(rest)
        return Visit(route, lend, call, socket, bind(**facts, user_id=call.caller.user_id))

    async def run(self, visit: Visit) -> None:
        """The WebSocket, up to the end of its connection."""
        route, socket, session = visit.route, visit.socket, visit.call.caller.session_id
        self._sessions.setdefault(session, set()).add(socket)
        # What `close_sessions` and `dismiss` did between the gate and here has missed this socket.
        if self._gate.has_ended(visit.call.caller):
            socket.end_session()
        elif self.refusing:
            socket.dismiss()
        ACTIVE.inc()
        with visit.named:
            log.info("websocket_opened", route=route.path)
            try:
                await self._handle(visit)
                await socket.finish()
            finally:
                ACTIVE.dec()
                sockets = self._sessions[session]
                sockets.discard(socket)
                if not sockets:
                    del self._sessions[session]
                log.info("websocket_closed", route=route.path, code=socket.code)

    def close_sessions(self, sessions: Iterable[SessionId]) -> None:
        for session in sessions:
            for socket in self._sessions.get(session, ()):
                socket.end_session()

    def close_people(self, people: Collection[UserId]) -> None:
        """Looks at every socket: for what happens seldom."""
        for socket in self._all():
            if socket.principal.user_id in people and self._gate.has_ended(socket.principal):
                socket.end_session()

    def dismiss(self) -> None:
        """Send all clients away, and take no new ones."""
        self.refusing = True
        for socket in self._all():
            socket.dismiss()

    async def watch(self) -> None:
        """Ping all, and close the silent and the expired, for ever."""
        while True:
            await trio.sleep(min(WATCH_S, self._config.ws_ping_s / 2))
            self.fanout.look()
            for number, socket in enumerate(self._all(), 1):
                try:
                    socket.check(trio.current_time(), now_us(), self._gate)
                except Exception:  # one socket never ends the look at all others
                    note("check_failed")
                if not number % SOCKETS_A_TURN:
                    await trio.lowlevel.checkpoint()

    def _all(self) -> list[OpenSocket]:
        return [socket for sockets in self._sessions.values() for socket in sockets]

    async def _admit(
        self, call: Call, request: Request, endpoint: Endpoint, offered: list[str], extra: dict[str, str]
    ) -> None:
        async def credentials() -> Principal:
            """Header, ticket or subprotocol: browsers can set no header on a WebSocket."""
            if token := bearer_of(request):
                return await self._gate.authenticate(token, endpoint)
            if ticket := parse_qs(request.query.decode("latin-1")).get("ticket"):
                return await self._gate.redeem(ticket[-1])
            tokens = [each.removeprefix(BEARER) for each in offered if each.startswith(BEARER)]
            return await self._gate.authenticate(tokens[0] if tokens else None, endpoint)

        await self._gate.admit(call, request, endpoint, {}, extra, credentials)
        if self.refusing:
            raise Unavailable("The server is restarting.", retry_after_s=1)

    def _extensions(self, request: Request) -> str | None:
        offers = request.headers.get("sec-websocket-extensions")
        return framing.negotiate(offers) if offers and self._config.ws_compression else None

    async def _refuse(
        self, problem: Problem, request_id: str, extra: dict[str, str], handshake: Handshake
    ) -> None:
        answer = replies.failure(problem, request_id)
        answer.headers = self._gate.headers(request_id, extra) | answer.headers
        log.info("websocket_refused", status=answer.status, code=problem.code)
        await handshake.refuse(answer)

    async def _handle(self, visit: Visit) -> None:
        socket = visit.socket
        try:
            with socket.handling, visit.lend() as room:
                await visit.route.handler(room, visit.call, socket)
        except Exception as error:
            other = replies.beside(error, SocketClosed)
            if other is not None:
                problem = self._gate.problem_of(other, visit.call)
                socket.close(replies.close_code(problem), problem.message)
        socket.close(Close.NORMAL, "")


def _frame(told: msgspec.Struct) -> Frame:
    return Frame(msgspec.json.encode(told))


def _check_handshake(request: Request) -> None:
    """Raises Malformed."""
    headers = request.headers
    sound = (
        headers.get("sec-websocket-version") == "13"
        and _KEY.fullmatch(headers.get("sec-websocket-key", ""))
        and "transfer-encoding" not in headers
        and headers.get("content-length", "0") == "0"
        and headers["connection"].isascii()
        and headers.get("sec-websocket-protocol", "").isascii()
    )
    if not sound:
        raise Malformed("This is no WebSocket handshake (RFC 6455 section 4.2.1).")
