"""A client that speaks HTTP/2 frame by frame, and may misbehave in each; and applications to ask."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import hpack
import trio
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from secureconnect.config import GatewayConfig
from secureconnect.gateway.http2 import Asgi, Http2, engine_config
from secureconnect.gateway.listener import PREFACE
from secureconnect.gateway.transport import Transport

from .port import Port, open_port

WITHIN_S = 5
MOST = 2**31 - 1  # of a window
F = TypeVar("F", bound=Frame)


@dataclass
class Reply:
    """headers: of the last head, status included.  reset: the error code of a RST_STREAM."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int:
        return int(self.headers[":status"])


class Peer:
    """goaway: the frame, once it came.  ended: the server's FIN, or its reset."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.encoder, self._decoder = hpack.Encoder(), hpack.Decoder()
        self.frames: list[Frame] = []
        self.replies: dict[int, Reply] = {}
        self.goaway: GoAwayFrame | None = None
        self.ended = False
        self._buffer = b""
        self._next_id = 1

    async def greet(self, window: int = MOST, **settings: int) -> None:
        """window: of the connection and of each stream, which then is never filled."""
        own = SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: window})
        await self.send(PREFACE, own)
        if window > 65_535:
            await self.send(WindowUpdateFrame(0, window_increment=window - 65_535))

    async def send(self, *parts: Frame | bytes) -> None:
        data = b"".join(part.serialize() if isinstance(part, Frame) else part for part in parts)
        with trio.fail_after(WITHIN_S):
            await self.stream.send_all(data)

    def head(
        self,
        path: str = "/",
        method: str = "GET",
        headers: Iterable[tuple[str, str]] = (),
        end: bool = True,
        fields: Iterable[tuple[str, str | bytes]] | None = None,
    ) -> HeadersFrame:
        """The request on the next stream.  fields: all of its head, in the place of what is usual."""
        usual = [(":method", method), (":scheme", "http"), (":authority", "localhost"), (":path", path)]
        frame = HeadersFrame(self._next_id, self.encoder.encode(fields or [*usual, *headers]))
        frame.flags.add("END_HEADERS")
        if end:
            frame.flags.add("END_STREAM")
        self._next_id += 2
        return frame

    async def ask(self, path: str = "/", body: bytes | None = None, **headers: str) -> int:
        """Returns the stream's number.  body: not ended if it is None and the method has one."""
        given = [(name.replace("_", "-"), value) for name, value in headers.items()]
        head = self.head(path, "GET" if body is None else "POST", given, end=body is None)
        await self.send(head)
        if body is not None:
            for start in range(0, len(body), 16_384):
                await self.send(DataFrame(head.stream_id, body[start : start + 16_384]))
            await self.send(DataFrame(head.stream_id, flags=["END_STREAM"]))
        return head.stream_id

    async def reply(self, number: int) -> Reply:
        """What came on a stream, once it has ended."""

        def done() -> bool:
            reply = self.replies.get(number)
            return reply is not None and (reply.ended or reply.reset is not None)

        await self.until(done)
        return self.replies[number]

    async def get(self, path: str = "/") -> Reply:
        return await self.reply(await self.ask(path))

    async def until(self, holds: Callable[[], bool]) -> None:
        """Read until it holds."""
        with trio.fail_after(WITHIN_S):
            while not holds():
                assert not self.ended, f"the connection is over, after {self.frames[-3:]}"
                await self.read()

    async def frame(self, kind: type[F], **fields: object) -> F:
        """The first such frame, that came or will come."""

        def found() -> list[F]:
            return [
                each
                for each in self.frames
                if isinstance(each, kind)
                and all(getattr(each, name) == value for name, value in fields.items())
            ]

        await self.until(lambda: bool(found()))
        return found()[0]

    async def over(self) -> int | None:
        """Read to the end of the connection. Returns the error code of the GOAWAY before it."""
        with trio.fail_after(WITHIN_S):
            while not self.ended:
                await self.read()
        return self.goaway.error_code if self.goaway is not None else None

    async def read(self) -> None:
        data = b""
        with suppress(trio.BrokenResourceError):
            data = await self.stream.receive_some(65_536)
        self.ended = not data
        self._buffer += data
        while len(self._buffer) >= 9:
            frame, size = Frame.parse_frame_header(memoryview(self._buffer[:9]))
            if len(self._buffer) < 9 + size:
                return
            frame.parse_body(memoryview(self._buffer[9 : 9 + size]))
            self._buffer = self._buffer[9 + size :]
            self._note(frame)

    def _note(self, frame: Frame) -> None:
        self.frames.append(frame)
        reply = self.replies.setdefault(frame.stream_id, Reply())
        if isinstance(frame, GoAwayFrame):
            self.goaway = frame
        elif isinstance(frame, HeadersFrame):
            reply.headers = {str(name): str(value) for name, value in self._decoder.decode(bytes(frame.data))}
        elif isinstance(frame, DataFrame):
            reply.body += bytes(frame.data)
        elif isinstance(frame, RstStreamFrame):
            reply.reset = frame.error_code
        reply.ended |= isinstance(frame, HeadersFrame | DataFrame) and "END_STREAM" in frame.flags


class Server:
    """Answers `/` at once; other paths do what their names say.

    scopes: of the requests so far.  told: paths whose client has left.  running: applications at work.
    go: lets those go on that wait for it.
    """

    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []
        self.told: list[str] = []
        self.running = 0
        self.go = trio.Event()
        self.connections: list[Http2] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        self.running += 1
        try:
            await getattr(self, "_" + scope["path"].strip("/"), self._plain)(scope, receive, send)
        finally:
            self.running -= 1

    async def _plain(self, scope: Any, receive: Any, send: Any) -> None:
        """Without reading the body."""
        await answer(send, scope["path"].encode())

    async def _echo(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message["more_body"]:
                await answer(send, body)
                return

    async def _read(self, scope: Any, receive: Any, send: Any) -> None:
        """Nothing of the body until it may."""
        await self.go.wait()
        size, more = 0, True
        while more:
            message = await receive()
            size, more = size + len(message.get("body", b"")), message.get("more_body", False)
        await answer(send, b"%d" % size)

    async def _large(self, scope: Any, receive: Any, send: Any) -> None:
        await answer(send, bytes(5_000_000))

    async def _stream(self, scope: Any, receive: Any, send: Any) -> None:
        """Of unknown length; the second half when it may."""
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        await self.go.wait()
        await send({"type": "http.response.body", "body": b"half"})

    async def _wait(self, scope: Any, receive: Any, send: Any) -> None:
        await self.go.wait()
        await answer(send, b"waited")

    async def _hang(self, scope: Any, receive: Any, send: Any) -> None:
        """Until its client leaves."""
        await self._left(scope, receive)
        await answer(send, b"for nobody")

    async def _endless(self, scope: Any, receive: Any, send: Any) -> None:
        """Until its client leaves."""
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                await self._left(scope, receive)
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                await send({"type": "http.response.body", "body": bytes(100_000), "more_body": True})

    async def _left(self, scope: Any, receive: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        assert (await receive())["type"] == "http.disconnect"
        self.told.append(scope["path"])

    async def _break(self, scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError

    async def _silent(self, scope: Any, receive: Any, send: Any) -> None:
        """Ends without an answer."""

    async def _half(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ZeroDivisionError


async def answer(send: Any, body: bytes, status: int = 200) -> None:
    headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def open_server(
    config: GatewayConfig | None = None, app: Asgi | None = None
) -> AsyncIterator[tuple[Server, Port]]:
    """HTTP/2 alone on a port.  app: in the place of the server's."""
    config = config or GatewayConfig(close_timeout_s=0.5)
    server = Server()
    engine = engine_config()

    async def serve(transport: Transport) -> None:
        http2 = Http2(transport, b"", app or server, config, engine)
        server.connections.append(http2)
        try:
            await http2.serve(trio.current_time() + config.header_timeout_s)
        finally:
            server.connections.remove(http2)

    async with open_port(serve, config) as port:
        yield server, port


@asynccontextmanager
async def open_peer(
    config: GatewayConfig | None = None, **greeting: int
) -> AsyncIterator[tuple[Server, Peer]]:
    """A server and a client that has greeted it."""
    async with open_server(config) as (server, port), await port.connect() as stream:
        peer = Peer(stream)
        await peer.greet(**greeting)
        yield server, peer


def reset_now(stream: trio.SocketStream) -> None:
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    stream.socket.close()
