"""One WebSocket connection, from the handshake to its close code, over trio-websocket.

Two things are mended here. A server that goes away in the middle of the handshake is noticed at once instead
of at the time limit; and whatever ends the connection reaches the caller bare, not in an exception group.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast
from urllib.parse import urlsplit

import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    HandshakeError,
    WebSocketConnection,
    wrap_client_stream,
)

CONNECT_S = 10.0
GOODBYE_S = 0.1  # to hand over a close frame; whoever would read the answer is being cancelled too
MESSAGE_BYTES = 4 * 1024 * 1024
RECEIVE_BYTES = 65_536


class Refused(Exception):
    """The server answered the handshake with an HTTP status.  body: its envelope."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        super().__init__(f"refused with {status}")
        self.status = status
        self.headers = headers
        self.body = body


class Lost(Exception):
    """The connection is gone, or never came to be.  code: the close code, 1006 where there was none."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code} {reason}".rstrip())
        self.code = code
        self.reason = reason


class Wire:
    """An open connection."""

    def __init__(self, socket: WebSocketConnection, stream: _Stream) -> None:
        self._socket = socket
        self._stream = stream

    async def receive(self) -> str | bytes:
        """The next message. Raises Lost."""
        try:
            message: str | bytes = await self._socket.get_message()
        except ConnectionClosed as closed:
            raise _lost(closed) from None
        return message

    async def send(self, text: str) -> None:
        """Raises Lost."""
        try:
            await self._socket.send_message(text)
        except ConnectionClosed as closed:
            raise _lost(closed) from None

    async def ping(self) -> None:
        """Returns with the pong. Raises Lost."""
        try:
            await self._socket.ping()
        except ConnectionClosed as closed:
            raise _lost(closed) from None

    async def cut(self) -> None:
        """End the TCP connection without a word, as a network does."""
        await trio.aclose_forcefully(self._stream)


@asynccontextmanager
async def alongside() -> AsyncIterator[trio.Nursery]:
    """A nursery for tasks that last as long as the block. What the block raises comes out bare; should a task
    fail as well, as its cause."""
    raised: Exception | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except Exception as exc:
                raised = exc
            nursery.cancel_scope.cancel()
    except ExceptionGroup as group:
        if raised is None:
            raise
        raise raised from group
    if raised is not None:
        raise raised


@asynccontextmanager
async def connect(url: str, headers: list[tuple[bytes, bytes]]) -> AsyncIterator[Wire]:
    """url: ws:// or wss://. Raises Refused, and Lost when there is no server."""
    try:
        with trio.fail_after(CONNECT_S):
            stream = _Stream(await _dial(url))
    except (OSError, trio.BrokenResourceError) as exc:
        raise Lost(1006, str(exc)) from None
    except trio.TooSlowError:
        raise Lost(1006, "no answer") from None
    closing = False
    of_block: Exception | None = None
    try:
        async with alongside() as reader:
            socket = await _shake_hands(reader, stream, url, headers)
            try:
                yield Wire(socket, stream)
            except Exception as exc:
                of_block = exc
                raise
            finally:
                closing = True
                with trio.move_on_after(GOODBYE_S, shield=True):
                    await socket.aclose()
    except ExceptionGroup as group:
        if group is of_block:
            raise
        match group.exceptions:  # from trio-websocket's reader
            case (ConnectionRejected() as refusal,):
                raise _refused(refusal) from None
            case (HandshakeError() as failure,):
                raise Lost(1006, str(failure)) from None
        if not closing:  # afterwards it stumbles over a ping it can no longer answer
            raise
    finally:
        await trio.aclose_forcefully(stream)


async def _shake_hands(
    reader: trio.Nursery, stream: _Stream, url: str, headers: list[tuple[bytes, bytes]]
) -> WebSocketConnection:
    target = urlsplit(url)
    try:
        with trio.fail_after(CONNECT_S):
            socket = await wrap_client_stream(
                reader,
                cast("trio.SocketStream", stream),  # any trio.abc.Stream does
                target.netloc,
                f"{target.path}?{target.query}",
                extra_headers=headers,
                max_message_size=MESSAGE_BYTES,
                receive_buffer_size=RECEIVE_BYTES,
            )
    except trio.TooSlowError:
        raise Lost(1006, "no answer to the handshake") from None
    stream.is_open = True
    return socket


async def _dial(url: str) -> trio.abc.Stream:
    target = urlsplit(url)
    host = target.hostname or ""
    if target.scheme != "wss":
        return await trio.open_tcp_stream(host, target.port or 80)
    context = ssl.create_default_context()
    return await trio.open_ssl_over_tcp_stream(
        host, target.port or 443, ssl_context=context, https_compatible=True
    )


class _Stream(trio.abc.Stream):
    """The connection beneath. Until it `is_open`, its end is an error that trio-websocket passes on."""

    def __init__(self, inner: trio.abc.Stream) -> None:
        self._inner = inner
        self.is_open = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        try:
            received = await self._inner.receive_some(max_bytes)
        except trio.BrokenResourceError as exc:
            raise self._ended() or exc from None
        if not received and (ended := self._ended()):
            raise ended
        return bytes(received)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        try:
            await self._inner.send_all(data)
        except trio.BrokenResourceError as exc:
            raise self._ended() or exc from None

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._inner.aclose()

    def _ended(self) -> HandshakeError | None:
        return None if self.is_open else HandshakeError("closed in the middle of the handshake")


def _lost(closed: ConnectionClosed) -> Lost:
    reason = closed.reason
    return Lost(reason.code, reason.reason or "") if reason else Lost(1006, "")


def _refused(refusal: ConnectionRejected) -> Refused:
    headers = {
        name.decode("latin-1").lower(): value.decode("latin-1") for name, value in refusal.headers or ()
    }
    return Refused(refusal.status_code, headers, refusal.body or b"")
