"""Accepts connections and serves HTTP/1.1 on each, in the place of Hypercorn's own `TCPServer`.

Hypercorn's protocol classes do the parsing; the connection around them is ours, because theirs leaks:
- its close waits, in the application's task, which Quart cancels on hearing that the stream is over;
- it closes while the client still sends, which resets the connection and may destroy the answer;
- it sends under a shield without limit, so a client that stops reading hangs handler and shutdown;
- it waits for ever to hand a message to an application that has ended.
Here every wait for a client is bounded, and `Connection.end_by` ends a connection whatever its client does.
Private names of Hypercorn 0.18 that this rests on are pinned by tests/gateway/test_connections.py.
"""

from __future__ import annotations

import errno
import logging
import math
import re
import socket
import struct
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import h11
import structlog
import trio
from hypercorn.config import Config as EngineConfig
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Data, EndBody, Response
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import H11Protocol, H11WSConnection
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState, H11SendableEvent

from ..config import GatewayConfig
from ..errors import HeadersTooLarge, Malformed, Overloaded, Problem, RateLimited, RequestTimeout, UriTooLong
from ..identity import new_id
from . import replies
from .admission import Gate, subscriber_of
from .replies import Answer

log = structlog.get_logger(module="gateway")

Asgi = Callable[[Any, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]

RECEIVE_BYTES = 65_536
SEND_BYTES = 65_536  # each gets `write_timeout_s`, so that a large answer may take long on a slow link
REFUSING = 100  # refused connections that are told so at a time; more are closed unanswered
ACCEPT_PAUSE_S = 0.1
_SHORT_OF = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
_CLOSE_FRAME = b"\x88"
_READ_AS_ASCII = {b"connection", b"sec-websocket-protocol"}
_SOCKET_KEY = re.compile(rb"[A-Za-z0-9+/]{22}==")


def engine_config(config: GatewayConfig) -> EngineConfig:
    """Our settings in Hypercorn's terms."""
    engine = EngineConfig()
    engine.errorlog = logging.getLogger("hypercorn.error")
    engine.include_server_header = False
    engine.h11_max_incomplete_size = config.uri_limit_bytes + config.header_limit_bytes
    engine.keep_alive_max_requests = sys.maxsize
    engine.websocket_max_message_size = config.ws_frame_limit_bytes
    engine.websocket_ping_interval = config.ws_ping_s
    return engine


class Listener:
    """All open connections, and the loops that accept them."""

    def __init__(self, app: Asgi, config: GatewayConfig, gate: Gate) -> None:
        self._app = app
        self._config = config
        self.engine = engine_config(config)
        self._gate = gate
        self._open: set[Connection] = set()
        self._held: dict[str, int] = {}  # connections of each subscriber
        self._refusing = 0
        self._listening: list[trio.SocketListener] = []
        self._empty = trio.Event()
        self.closing = False  # answers say `Connection: close`

    async def accept(self, sockets: trio.SocketListener, connections: trio.Nursery) -> None:
        """Accept until `stop`; connections are served in the nursery `connections`."""
        self._listening.append(sockets)
        try:
            while True:
                try:
                    stream = await sockets.accept()
                except trio.ClosedResourceError:
                    return
                except OSError as exc:
                    if exc.errno not in _SHORT_OF:
                        raise
                    log.warning("accept_failed", error=errno.errorcode[exc.errno])
                    await trio.sleep(ACCEPT_PAUSE_S)
                    continue
                self._take(stream, connections)
        finally:
            sockets.socket.close()

    def _take(self, stream: trio.SocketStream, connections: trio.Nursery) -> None:
        try:
            peer = stream.socket.getpeername()
        except OSError:  # gone already
            stream.socket.close()
            return
        address = str(peer[0])
        problem = self.refusal_of(address)
        if problem is None:
            connection = Connection(stream, address, self)
            connections.start_soon(self._serve, connection)
            self._open.add(connection)
            self.count(address, 1)
        elif self._refusing < REFUSING:
            connections.start_soon(self._refuse, stream, problem)
        else:
            stream.socket.close()

    def refusal_of(self, address: str) -> Problem | None:
        """Why no more connections are taken from `address`. A proxy of ours may hold any number."""
        if len(self._open) >= self._config.max_connections:
            return Overloaded()
        if self._held.get(subscriber_of(address), 0) < self._config.max_connections_per_address:
            return None
        if is_loopback(address) or self._gate.is_trusted(address):
            return None
        return RateLimited("There are too many connections from this address.")

    def count(self, address: str, change: int) -> None:
        subscriber = subscriber_of(address)
        held = self._held.pop(subscriber, 0) + change
        if held:
            self._held[subscriber] = held

    def answer_to_unread(self, problem: Problem) -> Answer:
        """For a connection that is not let in, or whose request could not be read: the last on it."""
        request_id = new_id()
        answer = replies.failure(problem, request_id)
        answer.headers |= self._gate.headers(request_id, {})
        answer.headers |= {"content-length": str(len(answer.body)), "connection": "close"}
        log.info("request_unread", request_id=request_id, status=answer.status, code=problem.code)
        return answer

    async def _serve(self, connection: Connection) -> None:
        try:
            await connection.run()
        except Exception:
            log.exception("connection_failed")
        finally:
            self._open.discard(connection)
            self.count(connection.address, -1)
            if not self._open:
                self._empty.set()

    async def _refuse(self, stream: trio.SocketStream, problem: Problem) -> None:
        self._refusing += 1
        try:
            with trio.move_on_after(self._config.close_timeout_s), suppress(trio.BrokenResourceError):
                await stream.send_all(_raw(self.answer_to_unread(problem)))
                await stream.send_eof()
                while await stream.receive_some(RECEIVE_BYTES):
                    pass
        finally:
            self._refusing -= 1
            stream.socket.close()

    def stop(self) -> None:
        """Accept no more, and close what is idle."""
        self.closing = True
        for sockets in self._listening:
            sockets.socket.close()
        for connection in self._open:
            connection.end_if_idle()

    def end_all_by(self, deadline: float) -> None:
        for connection in self._open:
            connection.end_by(deadline)

    async def wait_empty(self) -> None:
        while self._open:
            self._empty = trio.Event()
            await self._empty.wait()


class Connection:
    """One client, from accept to close.

    address: of the peer.  last_read: trio's time of the last byte received.  gone: nothing more can be sent.
    on_gone: called, without a wait, once that is so.
    """

    def __init__(self, stream: trio.SocketStream, address: str, listener: Listener) -> None:
        self.address = address
        self.last_read = trio.current_time()
        self.gone = trio.Event()
        self.on_gone: Callable[[], None] | None = None
        self._stream = stream
        self._listener = listener
        self._config = listener._config
        self._lock = trio.Lock()
        self._end_at = math.inf
        self._ended = False  # we have sent FIN
        self._hung_up = False  # the client has
        self._idle = True
        self._head_due: float | None = None
        self._sending = trio.CancelScope()
        self._serving = trio.CancelScope(deadline=self.last_read + self._config.header_timeout_s)
        self._lingering = trio.CancelScope()

    @property
    def closing(self) -> bool:
        """Whether the answer under way is the last one."""
        return self._listener.closing

    async def run(self) -> None:
        """Serve until either side ends it; afterwards the socket is closed and every application told."""
        try:
            here = self._stream.socket.getsockname()[:2]
            there = self._stream.socket.getpeername()[:2]
            async with _Tasks() as tasks:
                protocol = _Http1(
                    self._listener._app,  # type: ignore[arg-type]
                    self._listener.engine,
                    _Context(self.gone),  # type: ignore[arg-type]
                    tasks,
                    ConnectionState({"connection": self}),
                    False,
                    there,
                    here,
                    self._send,
                )
                protocol.owner = self
                protocol.connection = _Parser(
                    h11.SERVER, max_incomplete_event_size=self._listener.engine.h11_max_incomplete_size
                )
                with self._serving:
                    await self._read(protocol)
                if self._head_due is not None and not self._ended and not self._hung_up:
                    await protocol.refuse(RequestTimeout())
                self._lost()
                await self._linger()
                self._stream.socket.close()
                await protocol.handle(Closed())
        except OSError:
            pass  # the client was gone before we looked at it
        finally:
            self._lost()
            self._stream.socket.close()

    def end_by(self, deadline: float) -> None:
        """Whatever the client does, the connection is over by `deadline` (trio's time)."""
        self._end_at = min(self._end_at, deadline)
        for scope in (self._sending, self._serving, self._lingering):
            scope.deadline = min(scope.deadline, deadline)

    def end_soon(self) -> None:
        """The last has been said: the client gets `close_timeout_s` to take it and hang up."""
        self.end_by(trio.current_time() + self._config.close_timeout_s)

    def end_if_idle(self) -> None:
        if self._idle:
            self._end()

    async def _read(self, protocol: _Http1) -> None:
        while True:
            try:
                data = await self._stream.receive_some(RECEIVE_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            if not data:
                self._hung_up = True
                return
            self.last_read = trio.current_time()
            await protocol.handle(RawData(bytes(data)))
            if self._idle and self._head_due is None and protocol.has_partial_head:
                self._head_due = self.last_read + self._config.header_timeout_s
                self._serving.deadline = min(self._head_due, self._end_at)

    async def _send(self, event: Event) -> None:
        """What the protocol asks of the connection. Only RawData waits: the rest must happen even in a task
        that has just been cancelled, as Quart's is when a request ends before its body."""
        if isinstance(event, RawData):
            await self._write(event.data)
        elif isinstance(event, Closed):
            self._end()
        elif isinstance(event, Updated):
            if event.idle and self.closing:
                self._end()
            self._idle = event.idle
            self._head_due = None
            keep_until = trio.current_time() + self._config.keep_alive_s if event.idle else math.inf
            self._serving.deadline = min(keep_until, self._end_at)

    async def _write(self, data: bytes) -> None:
        async with self._lock:
            for start in range(0, len(data), SEND_BYTES):
                if self._ended or self.gone.is_set():
                    return
                await self._write_piece(data[start : start + SEND_BYTES])

    async def _write_piece(self, piece: bytes) -> None:
        due = min(trio.current_time() + self._config.write_timeout_s, self._end_at)
        # Half a frame on the wire would be worse than none: shielded, and bounded.
        self._sending = trio.CancelScope(deadline=due, shield=True)
        with self._sending, suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._stream.send_all(piece)
            return
        self._cut()

    def _end(self) -> None:
        """Send FIN and let the reader linger; never waits."""
        if not self._ended:
            self._ended = True
            with suppress(OSError):
                self._stream.socket.shutdown(socket.SHUT_WR)
            self._serving.cancel()

    def _cut(self) -> None:
        """Close now, and drop what the client has not taken."""
        with suppress(OSError):
            self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._hung_up = True
        self._stream.socket.close()
        self._serving.cancel()
        self._lost()

    def _lost(self) -> None:
        if not self.gone.is_set():
            self.gone.set()
            if self.on_gone is not None:
                self.on_gone()

    async def _linger(self) -> None:
        """Read and throw away until the client hangs up: closing with unread bytes would reset the
        connection, and with it the answer the client has not read yet."""
        self._end()
        if self._hung_up:
            return
        self.end_soon()
        with self._lingering, suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while await self._stream.receive_some(RECEIVE_BYTES):
                pass


class _Tasks(TaskGroup):
    """The applications of one connection. One that has ended takes no more messages, so that nobody waits to
    hand it one; one that raises harms nobody else."""

    async def spawn_app(
        self,
        app: Any,
        config: EngineConfig,
        scope: Any,
        send: Callable[[Any], Awaitable[None]],
    ) -> Callable[[Any], Awaitable[None]]:
        put, get = trio.open_memory_channel[Any](config.max_app_queue_size)

        async def serve() -> None:
            try:
                with get:
                    await app(scope, get.receive, send)
            except Exception:
                log.exception("application_failed")
            await send(None)

        async def app_put(message: Any) -> None:
            with suppress(trio.BrokenResourceError):
                await put.send(message)

        assert self._nursery is not None
        self._nursery.start_soon(serve)
        return app_put


class _Context(WorkerContext):
    """gone: of the connection; ends the pings that Hypercorn would otherwise finish sleeping for."""

    def __init__(self, gone: trio.Event) -> None:
        super().__init__(max_requests=None)
        self._gone = gone

    async def sleep(self, wait: float) -> None:  # type: ignore[override]
        with trio.move_on_after(wait):
            await self._gone.wait()


class _Parser(h11.Connection):
    """Ignores what follows a last request (RFC 9112 section 9.6): an error there would take the place of the
    answer under way."""

    def receive_data(self, data: bytes) -> None:
        if self.their_state is not h11.MUST_CLOSE:
            super().receive_data(data)

    def next_event(self) -> Any:
        return h11.NEED_DATA if self.their_state is h11.MUST_CLOSE else super().next_event()


class _Http1(H11Protocol):
    """HTTP/1.1 and the upgrade to WebSocket; no HTTP/2."""

    owner: Connection
    connection: Any
    _head = b""
    _upgraded: trio.Event

    @property
    def has_partial_head(self) -> bool:
        return self.stream is None and bool(self.connection.trailing_data[0])

    async def refuse(self, problem: Problem) -> None:
        """Answer what could not be parsed, or never came whole."""
        answer = self.owner._listener.answer_to_unread(problem)
        headers = [(name.encode(), value.encode()) for name, value in answer.headers.items()]
        headers += self.config.response_headers("h11")
        await self._send_h11_event(h11.Response(status_code=answer.status, headers=headers))
        await self._send_h11_event(h11.Data(data=answer.body))
        await self._send_h11_event(h11.EndOfMessage())

    async def stream_send(self, event: StreamEvent) -> None:
        if isinstance(event, Response) and event.status_code >= 200 and self._is_last_answer(event):
            event.headers.append((b"connection", b"close"))
        await super().stream_send(event)
        if isinstance(event, Response) and event.status_code == 101:
            self._upgraded.set()
        elif isinstance(event, Data) and event.data.startswith(_CLOSE_FRAME):
            self.owner.end_soon()
        elif isinstance(event, EndBody) and isinstance(self.connection, H11WSConnection):
            await self.send(Closed())  # a refused upgrade

    def _is_last_answer(self, event: Response) -> bool:
        """Also when the request's body is not here yet: then the connection cannot be used again."""
        last = self.owner.closing or self.connection.their_state is not h11.DONE
        return last and all(name != b"connection" for name, _ in event.headers)

    async def _send_h11_event(self, event: H11SendableEvent) -> None:
        """The head waits for the first part of the body, so that a small answer is one packet. A large part
        goes by itself: joining would copy it for each client that reads it slowly."""
        try:
            data = self.connection.send(event)
        except h11.LocalProtocolError:
            if self.connection.their_state != h11.ERROR:
                raise
            return
        if isinstance(event, h11.Response):
            self._head = data
            return
        head, self._head = self._head, b""
        parts = [head + data] if len(data) <= SEND_BYTES else [head, data]
        for part in filter(None, parts):
            await self.send(RawData(part))

    async def _send_error_response(self, status_code: int) -> None:
        problem: Problem = Malformed()
        if status_code == HeadersTooLarge.status:
            line, *_ = bytes(self.connection.trailing_data[0]).split(b"\n", 1)
            problem = UriTooLong() if len(line) > self.owner._config.uri_limit_bytes else HeadersTooLarge()
        await self.refuse(problem)

    async def _create_stream(self, request: h11.Request) -> None:
        """Without WebSocket compression: some kilobytes can unpack into many megabytes before anyone sees
        their size, and each connection would hold two zlib windows."""
        if problem := _fault_of(request):
            await self.refuse(problem)
            await self.send(Closed())
            return
        kept = [(name, value) for name, value in request.headers if name != b"sec-websocket-extensions"]
        if len(kept) != len(request.headers):
            request = h11.Request(
                method=request.method,
                target=request.target,
                headers=kept,
                http_version=request.http_version,
            )
        self._upgraded = trio.Event()
        await super()._create_stream(request)
        if isinstance(self.connection, H11WSConnection):
            # Hypercorn breaks on what comes before its answer. If that is a refusal, reading ends with it.
            await self._upgraded.wait()

    async def _check_protocol(self, event: h11.Request) -> None:
        """Upgrades to HTTP/2 are ignored, as RFC 9110 section 7.8 allows."""


def _fault_of(request: h11.Request) -> Problem | None:
    """What Hypercorn would take, answer without a body or break on."""
    headers = dict(request.headers)
    chunked = b"transfer-encoding" in headers
    if chunked and b"content-length" in headers:  # smuggling (RFC 9112 section 6.1)
        return Malformed("A request has one length, not two.")
    asked = b"upgrade" in headers.get(b"connection", b"").lower() and request.method == b"GET"
    if not asked or headers.get(b"upgrade", b"").lower() != b"websocket":
        return None
    sound = (
        request.http_version == b"1.1"
        and headers.get(b"sec-websocket-version") == b"13"
        and _SOCKET_KEY.fullmatch(headers.get(b"sec-websocket-key", b""))
        and all(value.isascii() for name, value in request.headers if name in _READ_AS_ASCII)
        and not chunked
        and headers.get(b"content-length", b"0") == b"0"
    )
    return None if sound else Malformed("This is no WebSocket handshake (RFC 6455 section 4.2.1).")


def _raw(answer: Answer) -> bytes:
    lines = [f"HTTP/1.1 {answer.status} Refused"]
    lines += [f"{name}: {value}" for name, value in answer.headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + answer.body


def is_loopback(address: str) -> bool:
    return address.startswith("127.") or address in ("::1", "::ffff:127.0.0.1")
