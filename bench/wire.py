"""The load generator's end of the wire: HTTP/1.1 and WebSocket on plain sockets and one epoll loop.

A client made for people costs more per frame than the server does, and one core drives a thousand of them
here; so this one knows only what our own server sends, and masks with zeros.
"""

from __future__ import annotations

import base64
import http.client
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

QUIET_LIMIT_S = 30.0


def call(port: int, method: str, path: str, body: object = None, token: str | None = None) -> Any:
    """The `data` of one answer, over a connection of its own. Raises RuntimeError unless it is a success."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=QUIET_LIMIT_S)
    try:
        connection.request(
            method, path, None if body is None else msgspec.json.encode(body), headers_with(token)
        )
        answer = connection.getresponse()
        envelope = msgspec.json.decode(answer.read())
    finally:
        connection.close()
    if not envelope["success"]:
        raise RuntimeError(f"{method} {path}: {answer.status} {envelope['error']}")
    return envelope["data"]


def headers_with(token: str | None) -> dict[str, str]:
    headers = {"Content-Type": "application/json"}
    return headers | {"Authorization": f"Bearer {token}"} if token else headers


class Peer(Protocol):
    """Something on a non-blocking socket that the loop calls when it can be read."""

    @property
    def sock(self) -> socket.socket: ...

    def readable(self) -> None: ...


def loop(peers: Sequence[Peer], done: Callable[[], bool]) -> None:
    """Read from all peers until `done`. Raises TimeoutError when nothing arrives for long."""
    poll = select.epoll()
    by_fd = {peer.sock.fileno(): peer for peer in peers}
    for fd in by_fd:
        poll.register(fd, select.EPOLLIN)
    try:
        while not done():
            ready = poll.poll(QUIET_LIMIT_S, 1024)
            if not ready:
                raise TimeoutError(f"nothing arrived for {QUIET_LIMIT_S:.0f} s")
            for fd, _ in ready:
                by_fd[fd].readable()
    finally:
        poll.close()


def _connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=QUIET_LIMIT_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class Requests:
    """A keep-alive connection that asks again as soon as it is answered.

    body: makes the next request's body, or None for no more.  answered: told how long each took, seconds.
    """

    def __init__(
        self,
        port: int,
        path: str,
        token: str | None,
        body: Callable[[], object | None],
        answered: Callable[[float], None],
        status: int,
    ) -> None:
        self.sock = _connect(port)
        self.sock.setblocking(False)
        self.idle = True
        self._head = head_of(f"POST {path} HTTP/1.1", {"Host": f"127.0.0.1:{port}", **headers_with(token)})
        self._body, self._answered = body, answered
        self._expected = f"HTTP/1.1 {status} ".encode()
        self._buffer = b""
        self._sent = 0.0

    def ask(self) -> None:
        body = self._body()
        self.idle = body is None
        if not self.idle:
            payload = msgspec.json.encode(body)
            self._sent = time.perf_counter()
            _send(self.sock, self._head + b"Content-Length: %d\r\n\r\n" % len(payload) + payload)

    def readable(self) -> None:
        self._buffer += _receive(self.sock)
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found or len(rest) < _content_length(head):
            return
        if not head.startswith(self._expected):
            raise RuntimeError(f"{head.decode()}\n{rest.decode()}")
        self._buffer = b""
        self._answered(time.perf_counter() - self._sent)
        self.ask()

    def close(self) -> None:
        self.sock.close()


class WebSocket:
    """heard: told of each text frame.  path: with its query."""

    def __init__(
        self,
        port: int,
        token: str,
        heard: Callable[[WebSocket, bytes], None],
        path: str = "/v1/ws/chat",
    ) -> None:
        self.sock = _connect(port)
        self.heard = heard
        self.sock.sendall(
            head_of(
                f"GET {path} HTTP/1.1",
                {
                    "Host": f"127.0.0.1:{port}",
                    "Authorization": f"Bearer {token}",
                    "Connection": "Upgrade",
                    "Upgrade": "websocket",
                    "Sec-WebSocket-Version": "13",
                    "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
                },
            )
            + b"\r\n"
        )
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += _receive(self.sock)
        head, _, self._buffer = answer.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101 "):
            raise RuntimeError(answer.decode(errors="replace"))
        self.sock.setblocking(False)
        self._parse()  # frames that came in the same packet

    def send(self, frame: object) -> None:
        self._write(0x1, msgspec.json.encode(frame))

    def readable(self) -> None:
        self._buffer += _receive(self.sock)
        self._parse()

    def close(self) -> None:
        self.sock.close()

    def _parse(self) -> None:
        buffer, at = self._buffer, 0
        while len(buffer) - at >= 2:
            opcode, length, start = buffer[at] & 0x0F, buffer[at + 1], at + 2
            if length == 126:
                length, start = int.from_bytes(buffer[at + 2 : at + 4]), at + 4
            elif length == 127:
                length, start = int.from_bytes(buffer[at + 2 : at + 10]), at + 10
            if len(buffer) < start + length:
                break
            payload, at = buffer[start : start + length], start + length
            if opcode == 0x1:
                self.heard(self, payload)
            elif opcode == 0x9:
                self._write(0xA, payload)
            elif opcode == 0x8:
                raise RuntimeError(f"the server closed a socket: {payload!r}")
        self._buffer = buffer[at:]

    def _write(self, opcode: int, payload: bytes) -> None:
        size = len(payload)
        length = struct.pack("!B", 0x80 | size) if size < 126 else struct.pack("!BH", 0x80 | 126, size)
        _send(self.sock, bytes((0x80 | opcode,)) + length + bytes(4) + payload)


def head_of(first: str, headers: Mapping[str, str]) -> bytes:
    """Without the empty line that ends it."""
    return "".join(f"{line}\r\n" for line in (first, *(f"{k}: {v}" for k, v in headers.items()))).encode()


def _content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    raise RuntimeError(f"an answer without a length:\n{head.decode()}")


def _receive(sock: socket.socket) -> bytes:
    data = sock.recv(262_144)
    if not data:
        raise RuntimeError("the server closed a connection")
    return data


def _send(sock: socket.socket, data: bytes) -> None:
    """One small write; the loops keep so little under way that it always fits."""
    if sock.send(data) != len(data):
        raise RuntimeError("a send buffer is full")
