"""One connection that speaks HTTP/2: Hypercorn's `H2Protocol` over a `Transport`.

Hypercorn's classes read the frames and make of a request an ASGI application's task. How a stream is opened,
fed and answered is replaced here, because theirs
- send through a task and a buffer for each stream, which grows with an answer that its client does not take;
- wait, with the whole connection, for an application that does not read its request's body;
- break on data that follows an early answer, on CONNECT, on a path that is not ASCII, on many priorities;
- leave the client without an end when an application fails halfway.
Private names of Hypercorn 0.18 and h2 4 that this rests on are pinned by tests/gateway/test_http2.py.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import trio
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, RemoteSettingsChanged, RequestReceived, StreamEnded, StreamReset
from h2.events import Event as FrameEvent
from h2.exceptions import DenialOfServiceError, ProtocolError
from h2.settings import SettingCodes, Settings
from hypercorn.config import Config as EngineConfig
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.events import (
    Body,
    EndBody,
    InformationalResponse,
    Request,
    Response,
    StreamClosed,
    Trailers,
)
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import filter_pseudo_headers
from hyperframe.frame import Frame, GoAwayFrame, RstStreamFrame, SettingsFrame

from ..config import GatewayConfig
from .faults import note
from .transport import Transport

Message = dict[str, Any]
Asgi = Callable[[Any, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]

STREAM_WINDOW = 262_144  # bytes of a body that its application has not read
CONNECTION_WINDOW = 1_048_576  # and of all bodies of a connection
PIECE_BYTES = 16_384  # of an answer; each gets `write_timeout_s`
SLICE_BYTES = 16_384  # of frames that are handled before other tasks get their turn
HEADER_TABLE_BYTES = (
    4_096  # of compressed heads that we keep; a client may ask for gigabytes, searched in line
)
CLOSED_KEPT = 1_000  # streams remembered after their end; a late frame for an older one ends the connection

# What may come that is no request and no body: so many frames at once, and so many more each second.
RESETS, RESETS_PER_S = 200, 20  # requests cancelled (CVE-2023-44487), resets provoked (CVE-2025-8671)
FRAMES, FRAMES_PER_S = 1_000, 100  # PING, SETTINGS, PRIORITY, WINDOW_UPDATE, DATA that is empty or late, …
EARNED, EARNED_BY_BYTES = 2, 1_024  # more of these for each piece that was sent, unless it was tiny


def engine_config() -> EngineConfig:
    """What Hypercorn is told; the rest is ours."""
    engine = EngineConfig()
    engine.errorlog = logging.getLogger("hypercorn.error")
    engine.include_server_header = False
    engine.keep_alive_max_requests = sys.maxsize
    return engine


class Http2(H2Protocol):
    """One connection.

    first: what was read already.
    app: run in a task for each request. It is told when its client has left, and ends then.
    is_idle: no application is running.
    """

    connection: _Connection
    streams: dict[int, _Stream]  # type: ignore[assignment]

    def __init__(
        self, transport: Transport, first: bytes, app: Asgi, config: GatewayConfig, engine: EngineConfig
    ) -> None:
        client = (transport.address, 0)
        super().__init__(
            app,  # type: ignore[arg-type]
            engine,
            WorkerContext(None),
            None,  # type: ignore[arg-type]  # a stream starts its task itself
            ConnectionState({}),
            transport.is_secure,
            client,
            None,
            self._send,
        )
        header_bytes = config.uri_limit_bytes + config.header_limit_bytes
        self.connection = _Connection(H2Configuration(client_side=False, header_encoding=None))
        self.connection.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: config.h2_streams,
                SettingCodes.MAX_HEADER_LIST_SIZE: header_bytes,
                SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            },
        )
        # Up to here it is one request that is refused, with 431; past it the connection.
        self.connection.decoder.max_header_list_size = 2 * header_bytes
        self._transport = transport
        self._first = first
        self._limits = config
        self._running = 0
        self._sent_bytes = 0
        self._greeted = False  # the client's SETTINGS have come
        self._leaving = False  # the client knows that requests are no longer taken
        self._over = False  # h2 takes no more frames
        self._reading = trio.CancelScope()
        self._draining = trio.Lock()
        self._tasks: trio.Nursery

    @property
    def is_idle(self) -> bool:
        return self._running == 0

    async def serve(self, greeting_due: float) -> None:
        """Serve until either side ends it; afterwards every application has ended.

        greeting_due: trio's time by which preface and SETTINGS must be here.
        """
        transport = self._transport
        async with trio.open_nursery() as self._tasks:
            self.connection.initiate_connection()
            self.connection.increment_flow_control_window(
                CONNECTION_WINDOW - self.connection.inbound_flow_control_window
            )
            await self._flush()
            self._read_until(greeting_due)
            with self._reading:
                await self._take(self._first)
                self._first = b""
                while not self._over and (data := await transport.receive()):
                    await self._take(data)
            await self.handle(Closed())
            if not transport.gone:
                self._say_goodbye()
                transport.end_by(trio.current_time() + self._limits.close_timeout_s)
                await self._drain()
                transport.end()
                await transport.linger(self._limits.close_timeout_s)

    def end_by(self, deadline: float) -> None:
        """Whatever the client does, the connection is over by `deadline` (trio's time)."""
        self._transport.end_by(deadline)
        self._reading.deadline = min(self._reading.deadline, deadline)

    def end_if_idle(self) -> None:
        """Take no more requests, and end once those that run are answered."""
        self._say_goodbye()
        if self.is_idle:
            self._reading.cancel()

    def look(self, _: float) -> None:
        """The client's leaving is noted without this: it is always read."""

    def _say_goodbye(self) -> None:
        """GOAWAY. Not h2's own, after which it would send no answers any more."""
        if not self._leaving and not self._over:
            self._leaving = True
            last = self.connection.highest_inbound_stream_id
            self._transport.send(GoAwayFrame(last_stream_id=last).serialize())

    def _read_until(self, due: float) -> None:
        self._reading.deadline = min(due, self._transport.end_at)

    # reading

    async def _take(self, data: bytes) -> None:
        for start in range(0, len(data), SLICE_BYTES):
            await self.handle(RawData(data[start : start + SLICE_BYTES]))
            if self._over:
                return
            await trio.lowlevel.checkpoint()

    async def _handle_events(self, events: list[FrameEvent]) -> None:
        for event in events:
            if isinstance(event, DataReceived):
                await self._take_body(event)
            else:
                await super()._handle_events([event])
            if isinstance(event, RemoteSettingsChanged) and not self._greeted:
                self._greeted = True
                self._read_until(trio.current_time() + self._limits.keep_alive_s)
        await self._flush()

    async def _take_body(self, event: DataReceived) -> None:
        """The client may send as much again once the application has read it."""
        stream = self.streams.get(event.stream_id)
        if stream is not None:
            await stream.handle(Body(event.stream_id, event.data))
        kept = 0 if stream is None else len(event.data)
        self.acknowledge(event.stream_id, event.flow_controlled_length - kept)

    def acknowledge(self, stream_id: int, size: int) -> None:
        """Room for `size` bytes of bodies has become free."""
        self.connection.acknowledge_received_data(size, stream_id)

    async def _create_stream(self, request: RequestReceived) -> None:
        fields = dict(request.headers)
        method, path = fields[b":method"], fields.get(b":path", b"")
        if self._leaving:
            self.connection.reset_stream(request.stream_id, ErrorCodes.REFUSED_STREAM)
        elif method == b"CONNECT" or not (method.isascii() and path.isascii()):
            self.connection.reset_stream(request.stream_id, ErrorCodes.PROTOCOL_ERROR)
        else:
            stream = self.streams[request.stream_id] = _Stream(self, request.stream_id)
            await stream.handle(
                Request(
                    request.stream_id,
                    headers=_joined(filter_pseudo_headers(request.headers)),
                    http_version="2",
                    method=method.decode("ascii"),
                    raw_path=path,
                    state=self.connection_state,
                )
            )

    async def _close_stream(self, stream_id: int) -> None:
        stream = self.streams.get(stream_id)
        await super()._close_stream(stream_id)
        if stream is not None:
            stream.opened.set()
            self.acknowledge(stream_id, stream.forget())

    async def _window_updated(self, stream_id: int | None) -> None:
        if not stream_id:
            for stream in self.streams.values():
                stream.opened.set()
        elif stream_id in self.streams:
            self.streams[stream_id].opened.set()

    async def _priority_updated(self, event: object) -> None:
        """Every stream has its turn (RFC 9113 section 5.3.2 lets us)."""

    # applications

    def start(self, serve: Callable[..., Awaitable[None]], *args: Any) -> None:
        self._running += 1
        self._read_until(math.inf)
        self._tasks.start_soon(serve, *args)

    def ended(self) -> None:
        self._running -= 1
        if self.is_idle:
            self._read_until(trio.current_time() + self._limits.keep_alive_s)
            if self._leaving:
                self._reading.cancel()

    # answering

    async def stream_send(self, event: StreamEvent) -> None:
        """Called by applications' tasks; what is for a stream that is over is dropped."""
        stream = self.streams.get(event.stream_id)
        if stream is None or self._transport.gone:
            await trio.lowlevel.checkpoint()  # or an application that goes on would stop everything
            return
        with suppress(ProtocolError):
            await self._answer(stream, event)

    async def _answer(self, stream: _Stream, event: StreamEvent) -> None:
        number = event.stream_id
        if isinstance(event, Response | InformationalResponse):
            head = [(b":status", b"%d" % event.status_code), *event.headers]
            self.connection.send_headers(number, [*head, *self.config.response_headers("h2")])
            length = dict(event.headers).get(b"content-length")
            if length is None:
                await self._flush()
            else:  # the head goes with the first piece, and that may be the last
                stream.left = int(length)
        elif isinstance(event, Body):
            for start in range(0, len(event.data), PIECE_BYTES):
                await self._send_piece(stream, event.data[start : start + PIECE_BYTES])
        elif isinstance(event, Trailers):
            self.connection.send_headers(number, event.headers, end_stream=True)
            stream.is_answered = True
            await self._flush()
        elif isinstance(event, EndBody):
            if not stream.is_answered:
                self.connection.end_stream(number)
                stream.is_answered = True
                await self._flush()
        elif isinstance(event, StreamClosed):
            await self._close_stream(number)
            half_open = self.connection.streams.get(number)
            if half_open is not None and not half_open.closed:
                # The client is to send no more of a body that nobody reads, or will get no more of an answer.
                code = ErrorCodes.NO_ERROR if stream.is_answered else ErrorCodes.INTERNAL_ERROR
                self.connection.reset_stream(number, code)
            await self._flush()

    async def _send_piece(self, stream: _Stream, piece: bytes) -> None:
        """Send what the client's windows allow, and wait for more. It loses the stream when it does not take
        the piece in time, unless it was others of its streams that were in the way."""
        number, begun = stream.stream_id, self._sent_bytes
        due = trio.current_time() + self._limits.write_timeout_s
        while piece and not stream.closed and not self._transport.gone:
            await self._drain()
            window = self.connection.local_flow_control_window(number)
            size = min(len(piece), window, self.connection.max_outbound_frame_size)
            if size > 0:
                stream.left -= size
                stream.is_answered = stream.left == 0
                self.connection.send_data(number, piece[:size], end_stream=stream.is_answered)
                self.connection.sent(size)
                self._sent_bytes += size
                piece = piece[size:]
                await self._flush()
                await trio.lowlevel.checkpoint()  # others have their turn, however fast the client is
                continue
            stream.opened = trio.Event()
            with trio.CancelScope(deadline=due) as waiting:
                await stream.opened.wait()
            if not waiting.cancelled_caught:
                continue
            mine = self.connection.streams.get(number)  # none, if it was reset just now
            others = mine is not None and mine.outbound_flow_control_window > 0
            if others and self._sent_bytes - begun >= PIECE_BYTES:
                due, begun = trio.current_time() + self._limits.write_timeout_s, self._sent_bytes
            else:
                self.connection.reset_stream(number, ErrorCodes.CANCEL)
                await self._close_stream(number)
                await self._flush()

    async def _send(self, event: Event) -> None:
        """What the protocol asks of the connection."""
        if isinstance(event, RawData):
            if not self._transport.send(event.data):
                await self._drain()
        elif isinstance(event, Closed):
            self._over = True

    async def _drain(self) -> None:
        while self._transport.is_blocked:
            async with self._draining:
                await self._transport.drain()


class _Stream(HTTPStream):
    """One request, and the task of the application that answers it.

    left: bytes of the answer still to send, where its head told.  is_answered: the answer has ended.
    opened: set when the client may have granted more window.
    """

    def __init__(self, owner: Http2, stream_id: int) -> None:
        super().__init__(
            owner.app,
            owner.config,
            owner.context,
            self,  # type: ignore[arg-type]  # of a task group only `spawn_app` is called
            owner.ssl,
            owner.client,
            owner.server,
            owner.stream_send,
            stream_id,
        )
        self.left: float = math.inf
        self.is_answered = False
        self.opened = trio.Event()
        self._owner = owner
        self._unread = bytearray()
        self._is_whole = False  # nothing of the body comes after `_unread`
        self._arrived = trio.Event()

    async def spawn_app(
        self,
        app: Asgi,
        _: EngineConfig,
        scope: Message,
        send: Callable[[Message | None], Awaitable[None]],
    ) -> Callable[[Message], Awaitable[None]]:
        self._owner.start(self._serve, app, scope, send)
        return self._put

    def forget(self) -> int:
        """Drop what was not read. Returns how many bytes that was."""
        size = len(self._unread)
        self._unread.clear()
        return size

    async def _serve(
        self, app: Asgi, scope: Message, send: Callable[[Message | None], Awaitable[None]]
    ) -> None:
        """An application that raises harms no other."""
        try:
            try:
                if not self.closed:  # as a request is that was cancelled at once
                    await app(scope, self._receive, send)
            except Exception:
                note("application_failed")
            await send(None)
        finally:
            self._owner.ended()

    async def _put(self, message: Message) -> None:
        if message["type"] == "http.request":
            self._unread += message["body"]
            self._is_whole = not message["more_body"]
        self._arrived.set()

    async def _receive(self) -> Message:
        while not (self._unread or self._is_whole or self.closed):
            self._arrived = trio.Event()
            await self._arrived.wait()
        if self.closed:
            return {"type": "http.disconnect"}
        body, is_whole = bytes(self._unread), self._is_whole
        self._is_whole = False  # told
        if self._unread:
            self._owner.acknowledge(self.stream_id, self.forget())
            await self._owner._flush()
        return {"type": "http.request", "body": body, "more_body": not is_whole}


class _Connection(H2Connection):
    """h2, which here counts what costs us and brings no request."""

    MAX_CLOSED_STREAMS = CLOSED_KEPT

    def __init__(self, config: H2Configuration) -> None:
        super().__init__(config)
        self._resets = _Allowance(RESETS, RESETS_PER_S)
        self._frames = _Allowance(FRAMES, FRAMES_PER_S)

    def sent(self, size: int) -> None:
        """A client that takes what it is sent may say so."""
        if size >= EARNED_BY_BYTES:
            self._frames.give(EARNED)

    def _receive_frame(self, frame: Frame) -> list[FrameEvent]:
        if isinstance(frame, SettingsFrame) and (asked := frame.settings.get(SettingCodes.HEADER_TABLE_SIZE)):
            frame.settings[SettingCodes.HEADER_TABLE_SIZE] = min(asked, HEADER_TABLE_BYTES)
        events = super()._receive_frame(frame)
        if isinstance(frame, RstStreamFrame) or any(isinstance(each, StreamReset) for each in events):
            self._resets.take()
        elif not any(map(_is_useful, events)):
            self._frames.take()
        return events


def _is_useful(event: FrameEvent) -> bool:
    if isinstance(event, DataReceived):
        return bool(event.data)
    return isinstance(event, RequestReceived | StreamEnded)


class _Allowance:
    """`most` at once, and `per_s` more each second."""

    def __init__(self, most: int, per_s: int) -> None:
        self._most = most
        self._per_s = per_s
        self._left: float = most
        self._counted = trio.current_time()

    def give(self, number: int) -> None:
        self._left = min(self._most, self._left + number)

    def take(self) -> None:
        """Raises DenialOfServiceError when there is none left."""
        now = trio.current_time()
        self._left = min(self._most, self._left + (now - self._counted) * self._per_s) - 1
        self._counted = now
        if self._left < 0:
            raise DenialOfServiceError("too many frames that are no request")


def _joined(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """With one cookie header, that HTTP/2 clients may send in parts (RFC 9113 section 8.2.3)."""
    cookies = [value for name, value in headers if name == b"cookie"]
    if len(cookies) < 2:
        return headers
    return [*(each for each in headers if each[0] != b"cookie"), (b"cookie", b"; ".join(cookies))]
