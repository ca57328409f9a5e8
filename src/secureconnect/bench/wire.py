"""The load's end of the wire: HTTP/1.1 and WebSocket on plain sockets and one epoll loop, TLS or not.

A client made for people costs more per frame than the server does, and one core drives thousands of them
here; so this one knows only what our own server sends, and masks with zeros.
"""

from __future__ import annotations

import itertools
import os
import re
import select
import socket
import ssl
import struct
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

import msgspec

from ..client.answers import ApiError

CONNECT_S = 10.0
QUIET_LIMIT_S = 30.0
IN_PROGRESS = 64  # connections that are being opened at a time
EVENTS = 1024  # taken from epoll at a time
BUFFER_BYTES = 262_144

TEXT, CLOSING, PING, PONG = 0x1, 0x8, 0x9, 0xA
_KEY, _ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455, section 1.3
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_POLICY = re.compile(r'"(\w+)";q=(\d+);w=(\d+)')
_ERROR = b'{"type":"error"'
_AGAIN = (BlockingIOError, ssl.SSLWantReadError)


class Faulty(Exception):
    """The server did not do what it must: that is an error and no figure."""


class Limited(ApiError):
    """429: it does no more of this for now.  words: what its limit is."""

    words = "a limit of its own"

    @classmethod
    def of_reply(cls, status: int, headers: Mapping[str, str], body: bytes) -> Self:
        limited = super().of_reply(status, headers, body)
        if policy := _POLICY.match(headers.get("ratelimit-policy", "")):
            limited.words = f"{policy[2]} requests of the class {policy[1]!r} in {policy[3]} s"
        return limited


class Closed(Faulty):
    """It closed a WebSocket.  code: of its close frame, 1006 without one."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"the server closed a WebSocket: {code} {reason}".rstrip())
        self.code = code


class Refused(Faulty):
    """It answered a frame with an error."""

    def __init__(self, frame: bytes) -> None:
        error = msgspec.json.decode(frame)
        super().__init__(f"the server refused a frame: {error['code']}: {error['message']}")
        self.code = str(error["code"])


@dataclass(frozen=True, slots=True)
class Site:
    """A server that was reached.  address: of its socket.  tls: how to speak to it; None for plain TCP."""

    host: str
    authority: str
    family: int
    address: Any
    tls: ssl.SSLContext | None

    @classmethod
    def reach(cls, url: str, tls: ssl.SSLContext | None = None) -> Site:
        """url: http or https, checked before.  tls: in place of what browsers ask of a certificate.
        Raises OSError."""
        parts = urlsplit(url)
        if parts.scheme == "https" and tls is None:
            tls = ssl.create_default_context()
        host = parts.hostname or ""
        with socket.create_connection(
            (host, parts.port or (443 if parts.scheme == "https" else 80)), CONNECT_S
        ) as found:
            return cls(host, parts.netloc.rpartition("@")[2], found.family, found.getpeername(), tls)

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """body: becomes JSON."""
        content = b"" if body is None else msgspec.json.encode(body)
        fields = {"Host": self.authority, "User-Agent": "secureconnect-bench", "Accept": "*/*"}
        if token is not None:
            fields["Authorization"] = f"Bearer {token}"
        if content:
            fields |= {"Content-Type": "application/json", "Content-Length": str(len(content))}
        fields |= headers or {}
        lines = (f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", "")
        return "\r\n".join(lines).encode() + content

    def upgrade(self, path: str, token: str) -> bytes:
        asked = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": _KEY,
        }
        return self.request("GET", path, token=token, headers=asked)


# connections


@dataclass(frozen=True, slots=True)
class Line:
    """An open connection.  number: of its first request, from 0.  answer: to that."""

    number: int
    sock: socket.socket
    answer: bytes


IsAnswered = Callable[
    [bytes], bool
]  # whether these bytes are a whole answer; raises if it is not the right one


def open_each(
    site: Site,
    requests: Iterator[bytes],
    is_answered: IsAnswered,
    at_once: int = IN_PROGRESS,
    then: tuple[Callable[[bytes], bytes], IsAnswered] | None = None,
) -> Iterator[tuple[Line, float]]:
    """Connections whose first request is answered, and how long that took from their beginning. Whoever takes
    them closes them.  then: what else is said, of the answer so far, and whether that is answered, too.
    Raises OSError, Faulty, and as these do."""
    poll = select.epoll()
    opening: dict[int, tuple[Generator[int, None, Line], float]] = {}
    numbered = enumerate(requests)

    def begin() -> None:
        for number, request in itertools.islice(numbered, at_once - len(opening)):
            sock = socket.socket(site.family)
            steps = _steps(site, sock, number, request, is_answered, then)
            fd = sock.fileno()
            opening[fd] = steps, time.perf_counter()
            poll.register(fd, next(steps))

    try:
        begin()
        while opening:
            ready = poll.poll(QUIET_LIMIT_S, EVENTS)
            if not ready:
                raise Faulty(f"nothing arrived for {QUIET_LIMIT_S:.0f} s")
            for fd, _ in ready:
                steps, began = opening[fd]
                try:
                    poll.modify(fd, next(steps))
                except StopIteration as done:
                    del opening[fd]
                    poll.unregister(fd)
                    yield done.value, time.perf_counter() - began
            begin()
    finally:
        poll.close()
        for steps, _ in opening.values():
            steps.close()


def _steps(
    site: Site,
    sock: socket.socket,
    number: int,
    request: bytes,
    is_answered: IsAnswered,
    then: tuple[Callable[[bytes], bytes], IsAnswered] | None,
) -> Generator[int, None, Line]:
    """Open one connection; says what event of its socket it goes on with."""
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        if sock.connect_ex(site.address):
            yield select.EPOLLOUT
            if error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(error, f"no connection to {site.authority}: {os.strerror(error)}")
        if site.tls is not None:
            sock = secured = site.tls.wrap_socket(
                sock, do_handshake_on_connect=False, server_hostname=site.host
            )
            while True:
                try:
                    secured.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    yield select.EPOLLIN
        send(sock, request)
        answer = b""
        while True:
            yield select.EPOLLIN
            try:
                data = sock.recv(BUFFER_BYTES)
            except _AGAIN:
                continue
            if not data:
                raise Faulty(f"a connection was closed instead of answered: {answer[:200]!r}")
            answer += data
            if not is_answered(answer):
                continue
            if then is None:
                return Line(number, sock, answer)
            (say, is_answered), then = then, None
            send(sock, say(answer))
    except BaseException:
        sock.close()
        raise


@contextmanager
def opened(site: Site, requests: Iterable[bytes], is_answered: IsAnswered) -> Iterator[list[Line]]:
    """In the order of the requests."""
    lines: list[Line] = []
    try:
        lines += [line for line, _ in open_each(site, iter(requests), is_answered)]
        yield sorted(lines, key=lambda line: line.number)
    finally:
        for line in lines:
            line.sock.close()


def watching(fds: Iterable[int]) -> select.epoll:
    poll = select.epoll()
    for fd in fds:
        poll.register(fd, select.EPOLLIN)
    return poll


def send(sock: socket.socket, data: bytes) -> None:
    """One small write; so little is under way that it always fits."""
    if sock.send(data) != len(data):
        raise Faulty("the server does not read what it is sent")


def receive(sock: socket.socket) -> bytes:
    """What has come; empty if that is nothing yet. Raises Faulty at the end of the connection."""
    try:
        data = sock.recv(BUFFER_BYTES)
    except _AGAIN:
        return b""
    if not data:
        raise Faulty("the server closed a connection")
    return data


def receive_into(read: Callable[[bytearray], int], buffer: bytearray) -> int:
    """The same, of `socket.recv_into`."""
    try:
        size = read(buffer)
    except _AGAIN:
        return 0
    if not size:
        raise Faulty("the server closed a connection")
    return size


# HTTP


def is_whole(answer: bytes) -> bool:
    """Raises Faulty."""
    head = answer.find(b"\r\n\r\n")
    if head < 0:
        return False
    if length := _LENGTH.search(answer, 0, head):
        return len(answer) >= head + 4 + int(length[1])
    if _CHUNKED.search(answer, 0, head):  # of something in front
        return answer.endswith(b"\r\n0\r\n\r\n")
    raise Faulty(f"an answer without a length: {answer[:200]!r}")


def data_of(answer: bytes) -> Any:
    """What a whole answer tells. Raises ApiError unless it is a success."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if _CHUNKED.search(head):
        body = b"".join(_chunks(body))
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
    status = int(first.split(" ", 2)[1])
    try:
        if 200 <= status < 300:
            return msgspec.json.decode(body)["data"]
    except (msgspec.DecodeError, KeyError, TypeError):
        pass
    raise (Limited if status == 429 else ApiError).of_reply(status, headers, body)


def _chunks(body: bytes) -> Iterator[bytes]:
    while (parts := body.partition(b"\r\n"))[1] and (size := int(parts[0].split(b";")[0], 16)):
        yield parts[2][:size]
        body = parts[2][size + 2 :]


def call(site: Site, method: str, path: str, body: object = None, token: str | None = None) -> Any:
    """As `answer_to`."""
    return answer_to(site, site.request(method, path, body, token))


def answer_to(site: Site, request: bytes) -> Any:
    """The `data` of one answer, over a connection of its own. Raises ApiError, OSError, Faulty."""
    return next(call_each(site, [request], 1))[1]


def call_each(site: Site, requests: Iterable[bytes], at_once: int) -> Iterator[tuple[int, Any]]:
    """Number and `data` of each answer as they come, so many under way. Raises as `call`."""
    for line, _ in open_each(site, iter(requests), is_whole, at_once):
        line.sock.close()
        yield line.number, data_of(line.answer)


# WebSocket


def is_upgraded(answer: bytes) -> bool:
    """Raises ApiError, Faulty."""
    if b"\r\n\r\n" not in answer:
        return False
    if not answer.startswith(b"HTTP/1.1 101 "):
        if is_whole(answer):
            data_of(answer)
        return False
    if _ACCEPT not in answer:
        raise Faulty("this is no WebSocket")
    return True


def is_greeted(answer: bytes) -> bool:
    """Whether the first frame is there, too: the room knows of the socket."""
    return is_upgraded(answer) and first_text(answer) != b""


def first_text(answer: bytes) -> bytes:
    """Behind the head of a handshake's answer; empty while it is not whole."""
    rest = rest_of(answer)
    bounds = frame_end(rest, 0, len(rest))
    return b"" if bounds is None else rest[slice(*bounds)]


def rest_of(answer: bytes) -> bytes:
    """What came behind the head."""
    return answer.partition(b"\r\n\r\n")[2]


def text(payload: bytes) -> bytes:
    """The frame of a client."""
    return _masked(TEXT, payload)


def _masked(opcode: int, payload: bytes) -> bytes:
    size = len(payload)
    length = struct.pack("!B", 0x80 | size) if size < 126 else struct.pack("!BH", 0x80 | 126, size)
    return bytes((0x80 | opcode,)) + length + bytes(4) + payload


class Frames:
    """What comes over one WebSocket."""

    def __init__(self, line: Line) -> None:
        self._sock = line.sock
        self._rest = rest_of(line.answer)

    def take(self, data: bytes = b"") -> list[bytes]:
        """The texts that are whole with these bytes. Raises Refused, Closed."""
        data, at, found = self._rest + data, 0, []
        while (bounds := frame_end(data, at, len(data))) is not None:
            if payload := text_in(self._sock, data, at, *bounds):
                found.append(payload)
            at = bounds[1]
        self._rest = data[at:]
        return found


def frame_end(data: bytes | bytearray, at: int, size: int) -> tuple[int, int] | None:
    """Where the payload of the frame at `at` begins and ends; None while it is not whole in `size` bytes."""
    start = at + 2
    if start > size:
        return None
    length = data[at + 1]
    if length >= 126:
        wide = 2 if length == 126 else 8
        length, start = int.from_bytes(data[start : start + wide]), start + wide
    return (start, start + length) if start + length <= size else None


def text_in(sock: socket.socket, data: bytes | bytearray, at: int, start: int, end: int) -> bytes:
    """The payload of a text, empty for what is none; a ping is answered. Raises Refused, Closed."""
    opcode, payload = data[at] & 0x0F, bytes(data[start:end])
    if opcode == TEXT:
        if payload.startswith(_ERROR):
            raise Refused(payload)
        return payload
    if opcode == PING:
        send(sock, _masked(PONG, payload))
    elif opcode == CLOSING:
        raise Closed(int.from_bytes(payload[:2] or b"\x03\xee"), payload[2:].decode(errors="replace"))
    return b""
