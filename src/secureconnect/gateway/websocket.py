"""WebSockets: the gate before the upgrade, and `edge.Socket` over raw ASGI, beside Quart.

An open socket is three parties: the room's handler reads, one writer task sends what the room offers, and
`Sockets.watch` looks every second for silence and for tokens that end. Whoever closes a socket only marks
it; the connection's `end_by` then bounds what the client can still delay.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from time import perf_counter
from typing import Any
from urllib.parse import parse_qs

import msgspec
import structlog
import trio

from ..clock import SECOND_US, now_us
from ..config import GatewayConfig
from ..edge import Call, Close, Frame, SocketClosed, SocketRoute
from ..errors import DeadlineExceeded, NotFound, Problem, Unavailable
from ..identity import Principal, SessionId, new_id
from ..log import bind
from ..metrics import counter, gauge
from . import replies
from .admission import Endpoint, Gate, Request, bearer_of, named_in_log, request_id_of
from .listener import Connection
from .rest import Lend, request_of

log = structlog.get_logger(module="gateway")

ACTIVE = gauge("websocket_connections_active", "Open WebSockets.")
MESSAGES = counter("websocket_messages_total", "WebSocket messages.", ["direction"])  # in, out
_IN, _OUT = MESSAGES.labels("in"), MESSAGES.labels("out")

PROTOCOL = "secureconnect.v1"
BEARER = "bearer."
WATCH_S = 1.0
FRAMES_WINDOW_S = 10.0
EXPIRY_NOTICE_US = 60 * SECOND_US
RECONNECT_MS = (500, 3_000)
_DROPS_OUTBOX = frozenset({Close.TOO_SLOW, Close.UNAUTHENTICATED})

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class OpenSocket:
    """`edge.Socket` on one connection."""

    def __init__(
        self,
        principal: Principal,
        connection: Connection,
        config: GatewayConfig,
        receive: Receive,
        send: Send,
    ) -> None:
        self.id = new_id()
        self.principal = principal
        self.handling = trio.CancelScope()
        self._connection = connection
        self._config = config
        self._receive = receive
        self._send = send
        self._outbox: deque[tuple[Frame, trio.Event | None]] = deque()
        self._outbox_bytes = 0
        self._wake = trio.Event()
        self._receiving: trio.CancelScope | None = None
        self._closing: tuple[Close, str] | None = None
        self._lost = False
        self._noticed_us = 0
        self._frames = 0
        self._frames_until = 0.0
        connection.on_gone = self._gone
        if connection.gone.is_set():
            self._gone()

    @property
    def closed(self) -> bool:
        return self._lost or self._closing is not None

    @property
    def code(self) -> int | None:
        """The close code we gave, or None while open and when the client left first."""
        return self._closing[0] if self._closing else None

    async def receive(self) -> bytes:
        if self.closed:
            raise SocketClosed
        with trio.CancelScope() as self._receiving:
            message = await self._receive()
        if self.closed:
            raise SocketClosed
        if message["type"] == "websocket.disconnect":
            self._gone()
            raise SocketClosed
        data = self._checked(message)
        _IN.inc()
        return data

    def offer(self, frame: Frame) -> bool:
        if self.closed:
            return False
        if self._outbox_bytes + len(frame.data) > self._config.ws_outbox_bytes:
            self.close(Close.TOO_SLOW, "too slow: come back and resume")
            return False
        self._outbox_bytes += len(frame.data)
        self._put(frame, None)
        return True

    async def send(self, frame: Frame) -> None:
        if self.closed:
            raise SocketClosed
        sent = trio.Event()
        self._put(frame, sent)
        await sent.wait()
        if self.closed:
            raise SocketClosed

    def close(self, code: Close, reason: str) -> None:
        if self.closed:
            return
        self._closing = (code, reason)
        if code in _DROPS_OUTBOX:
            self._drop_outbox()
            within_s = self._config.close_timeout_s
        else:
            within_s = self._config.write_timeout_s + self._config.close_timeout_s
        self._connection.end_by(trio.current_time() + within_s)
        self._release()

    def end_session(self) -> None:
        self.close(Close.UNAUTHENTICATED, "the session has ended")

    def dismiss(self) -> None:
        """Send the client away to come back in a moment: not all in the same."""
        self.offer(_frame("going_away", reconnect_after_ms=random.randint(*RECONNECT_MS)))  # noqa: S311
        self.close(Close.RESTART, "the server is restarting")

    def renew(self, principal: Principal) -> None:
        self.principal = principal

    async def write(self) -> None:
        """Send the outbox, in order, until the socket is closed; then the close frame."""
        while not self._lost:
            if self._outbox:
                frame, sent = self._outbox.popleft()
                await self._send({"type": "websocket.send", "text": frame.data.decode()})
                if sent is not None:
                    sent.set()
                else:
                    self._outbox_bytes -= len(frame.data)
                _OUT.inc()
            elif self._closing is not None:
                code, reason = self._closing
                await self._send({"type": "websocket.close", "code": int(code), "reason": reason})
                return
            else:
                await self._wake.wait()
                self._wake = trio.Event()

    def check(self, now: float, clock_us: int) -> None:
        """Close if the client is silent or its token has ended; tell it once that the token will."""
        expires_us = self.principal.expires_us
        if now - self._connection.last_read > self._config.ws_silence_s:
            self.close(Close.SILENT, "nothing was heard for too long")
        elif expires_us <= clock_us:
            self.close(Close.UNAUTHENTICATED, "the token has expired")
        elif expires_us - clock_us <= EXPIRY_NOTICE_US and self._noticed_us != expires_us:
            self._noticed_us = expires_us
            self.offer(_frame("token_expiring", in_s=(expires_us - clock_us) // SECOND_US))

    def _checked(self, message: Any) -> bytes:
        """The message's UTF-8. Closes and raises SocketClosed if it is not allowed."""
        now = trio.current_time()
        if now >= self._frames_until:
            self._frames, self._frames_until = 0, now + FRAMES_WINDOW_S
        self._frames += 1
        if self._frames > self._config.ws_frames_per_10s:
            self.close(Close.TOO_MANY_FRAMES, "too many messages")
            raise SocketClosed
        text = message.get("text")
        if text is None:
            self.close(Close.BAD_FRAME, "text messages only")
            raise SocketClosed
        data: bytes = text.encode()
        if len(data) > self._config.ws_frame_limit_bytes:
            self.close(Close.TOO_BIG, "the message is too big")
            raise SocketClosed
        return data

    def _put(self, frame: Frame, sent: trio.Event | None) -> None:
        self._outbox.append((frame, sent))
        self._wake.set()

    def _drop_outbox(self) -> None:
        for _, sent in self._outbox:
            if sent is not None:
                sent.set()
        self._outbox.clear()
        self._outbox_bytes = 0

    def _gone(self) -> None:
        """The connection is over."""
        if not self._lost:
            self._lost = True
            self._drop_outbox()
            self._release()

    def _release(self) -> None:
        """Wake whoever waits on this socket; the handler gets the close timeout to end by itself."""
        self._wake.set()
        if self._receiving is not None:
            self._receiving.cancel()
        self.handling.deadline = trio.current_time() + self._config.close_timeout_s


class Sockets:
    """All open sockets.  refusing: new ones are answered 503, because the server is going away."""

    def __init__(self, gate: Gate, config: GatewayConfig) -> None:
        self.refusing = False
        self._gate = gate
        self._config = config
        self._routes: dict[str, tuple[SocketRoute, Endpoint, Lend]] = {}
        self._sessions: dict[SessionId, set[OpenSocket]] = {}

    def add(self, route: SocketRoute, endpoint: Endpoint, lend: Lend) -> None:
        """Serve `route`, whose path has no `{names}`.  endpoint: what a request without upgrade gets."""
        self._routes[route.path] = (route, endpoint, lend)

    async def serve(self, scope: Any, receive: Receive, send: Send) -> None:
        """One ASGI scope of type `websocket`."""
        await receive()  # websocket.connect
        started = perf_counter()
        request = request_of(scope, _no_body)
        request_id = request_id_of(request)
        known = self._routes.get(request.path.decode("latin-1").rstrip("/"))
        endpoint = known[1] if known else self._gate.nothing("GET")
        extra: dict[str, str] = {}
        deadline = trio.current_time() + self._config.request_deadline_s
        call = Call(request_id, self._gate.address_of(request), deadline)
        with bind(**named_in_log(request, request_id)):
            try:
                with trio.CancelScope(deadline=deadline) as admitting:
                    await self._admit(call, request, endpoint, scope["subprotocols"], extra)
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
                await self._refuse(problem, request_id, extra, send)
                endpoint.count(problem.status, perf_counter() - started)
                return
            call.deadline = math.inf
            headers = self._gate.headers(request_id, extra)
            protocol = PROTOCOL if PROTOCOL in scope["subprotocols"] else None
            await send({"type": "websocket.accept", "subprotocol": protocol, "headers": _raw(headers)})
            endpoint.count(101, perf_counter() - started)
            socket = OpenSocket(call.caller, scope["state"]["connection"], self._config, receive, send)
            with bind(user_id=call.caller.user_id):
                await self._run(route, lend, call, socket)

    def close_sessions(self, sessions: Iterable[SessionId]) -> None:
        for session in sessions:
            for socket in self._sessions.get(session, ()):
                socket.end_session()

    def dismiss(self) -> None:
        """Send all clients away, and take no new ones."""
        self.refusing = True
        for socket in self._all():
            socket.dismiss()

    async def watch(self) -> None:
        """Close the silent and the expired, for ever."""
        while True:
            await trio.sleep(WATCH_S)
            now, clock_us = trio.current_time(), now_us()
            for socket in self._all():
                socket.check(now, clock_us)

    def _all(self) -> list[OpenSocket]:
        return [socket for sockets in self._sessions.values() for socket in sockets]

    async def _admit(
        self, call: Call, request: Request, endpoint: Endpoint, offered: list[str], extra: dict[str, str]
    ) -> None:
        async def credentials() -> Principal:
            """Header, ticket or subprotocol: browsers can set no header on a WebSocket."""
            if token := bearer_of(request):
                return await self._gate.authenticate(token)
            if ticket := parse_qs(request.query.decode("latin-1")).get("ticket"):
                return await self._gate.redeem(ticket[-1])
            tokens = [each.removeprefix(BEARER) for each in offered if each.startswith(BEARER)]
            return await self._gate.authenticate(tokens[0] if tokens else None)

        await self._gate.admit(call, request, endpoint, {}, extra, credentials)
        if self.refusing:
            raise Unavailable("The server is restarting.", retry_after_s=1)

    async def _refuse(self, problem: Problem, request_id: str, extra: dict[str, str], send: Send) -> None:
        answer = replies.failure(problem, request_id)
        headers = self._gate.headers(request_id, extra) | answer.headers
        headers["content-length"] = str(len(answer.body))
        log.info("websocket_refused", status=answer.status, code=problem.code)
        await send(
            {"type": "websocket.http.response.start", "status": answer.status, "headers": _raw(headers)}
        )
        await send({"type": "websocket.http.response.body", "body": answer.body})

    async def _run(self, route: SocketRoute, lend: Lend, call: Call, socket: OpenSocket) -> None:
        session = call.caller.session_id
        self._sessions.setdefault(session, set()).add(socket)
        # What `close_sessions` and `dismiss` did between the gate and here has missed this socket.
        if self._gate.has_ended(session):
            socket.end_session()
        elif self.refusing:
            socket.dismiss()
        ACTIVE.inc()
        log.info("websocket_opened", route=route.path)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(socket.write)
                await self._handle(route, lend, call, socket)
        finally:
            ACTIVE.dec()
            sockets = self._sessions[session]
            sockets.discard(socket)
            if not sockets:
                del self._sessions[session]
            log.info("websocket_closed", route=route.path, code=socket.code)

    async def _handle(self, route: SocketRoute, lend: Lend, call: Call, socket: OpenSocket) -> None:
        try:
            with socket.handling, lend() as room:
                await route.handler(room, call, socket)
        except Exception as error:
            other = replies.beside(error, SocketClosed)
            if other is not None:
                problem = self._gate.problem_of(other, call)
                socket.close(replies.close_code(problem), problem.message)
        socket.close(Close.NORMAL, "")


def _frame(kind: str, **facts: int) -> Frame:
    return Frame(msgspec.json.encode({"type": kind, **facts}))


def _raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]


async def _no_body() -> bytes:
    return b""
