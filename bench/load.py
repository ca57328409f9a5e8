"""The load of `bench/edge.py`: many connections on one epoll loop, and as little work for each as counts it.

Every answer is checked, for a broken server must be an error and not a figure: status, size and body of HTTP,
each echo byte by byte, and of a broadcast the header and the number of bytes at every member, and all the
bytes at some of them.
"""

from __future__ import annotations

import itertools
import select
import socket
import ssl
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from report import Run
from server import Server
from wire import QUIET_LIMIT_S, head_of

IN_PROGRESS = 64  # connections that are being opened at a time
QUIET_S = 0.2
EVENTS = 1024  # taken from epoll at a time
BUFFER_BYTES = 262_144

MESSAGE_BYTES = 200
_KEY, _ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455, section 1.3
_HEADER = b"\x81\x7e" + MESSAGE_BYTES.to_bytes(2)  # of the text frame a server sends
FRAME_BYTES = len(_HEADER) + MESSAGE_BYTES
_MASKED = b"\x81\xfe" + MESSAGE_BYTES.to_bytes(2) + bytes(4)  # of the one it is sent

TIMED_OF = 10  # one of so many members is timed
KEPT_OF = 100  # and one of so many keeps what it received
GRACE_S = 1.0  # a paced broadcast is waited for this long after the last one was sent


@dataclass(frozen=True, slots=True)
class Target:
    """A running server.  tls: how to speak to it, or None for plain TCP."""

    server: Server
    tls: ssl.SSLContext | None

    def settle(self) -> None:
        """Wait until the server has nothing left to do."""
        until = time.perf_counter() + QUIET_LIMIT_S
        before = self.server.cpu_s()
        while time.perf_counter() < until:
            time.sleep(QUIET_S)
            before, spent = self.server.cpu_s(), self.server.cpu_s() - before
            if spent < QUIET_S / 10:
                return
        raise TimeoutError(f"the server was still busy after {QUIET_LIMIT_S:.0f} s")


# HTTP


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and what must be answered.  data: of the envelope."""

    method: str
    path: str
    status: int
    data: Mapping[str, object]
    body: bytes = b""

    def request(self) -> bytes:
        headers = {"Host": "127.0.0.1", "Accept": "*/*", "User-Agent": "bench"}
        if self.body:
            headers |= {"Content-Type": "application/json", "Content-Length": str(len(self.body))}
        return head_of(f"{self.method} {self.path} HTTP/1.1", headers) + b"\r\n" + self.body

    def is_answered(self, answer: bytes) -> bool:
        """Whether the answer is complete. Raises RuntimeError if it is not the right one."""
        head, found, body = answer.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:])
        if not found or len(body) < int(fields[b"content-length"]):
            return False
        envelope = msgspec.json.decode(body)
        shape = msgspec.json.encode({**envelope, "meta": {"timestamp": "t" * 27, "request_id": "r" * 36}})
        if (
            not head.startswith(b"HTTP/1.1 %d " % self.status)
            or envelope["data"] != self.data
            or envelope["success"] is not True
            or len(shape) != len(body.rstrip())  # Quart ends it with a line feed
        ):
            raise RuntimeError(f"{self.method} {self.path}: not the answer that was due:\n{answer.decode()}")
        return True


PING = Exchange("GET", "/v1/ping", 200, {"pong": True})
_NOTE = {"title": "A note", "text": "x" * 100, "tags": ["bench", "edge"]}
NOTE = Exchange("POST", "/v1/note", 201, {"title": "A note", "length": 100}, msgspec.json.encode(_NOTE))


def ask(target: Target, exchange: Exchange, connections: int, seconds: float) -> Run:
    """Each of the connections, which are kept alive, asks again as soon as it is answered.

    The first answer of a connection is read; the others must have its status and its size.
    """
    run, request = Run(), exchange.request()
    status = b"HTTP/1.1 %d " % exchange.status
    with _opened(target, itertools.repeat(request, connections), exchange.is_answered) as lines:
        size = len(lines[0].answer)
        if any(len(line.answer) != size for line in lines):
            raise RuntimeError("answers of different sizes")

        def is_whole(fd: int, data: bytes) -> bool:
            if len(data) > size or not data.startswith(status):
                raise RuntimeError(f"fd {fd}: not the answer that was due:\n{data.decode()}")
            return len(data) == size

        _ping_pong(target, lines, run, request, is_whole, seconds)
    return run


# WebSocket


def upgrade(path: str, number: int) -> bytes:
    headers = {
        "Host": "127.0.0.1",
        "Authorization": f"Bearer person{number}",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": _KEY,
    }
    return head_of(f"GET {path} HTTP/1.1", headers) + b"\r\n"


def upgrades(path: str, numbers: Iterable[int]) -> Iterator[bytes]:
    return (upgrade(path, number) for number in numbers)


def is_upgraded(answer: bytes) -> bool:
    if not answer.endswith(b"\r\n\r\n"):
        return False
    if not answer.startswith(b"HTTP/1.1 101 ") or _ACCEPT not in answer:
        raise RuntimeError(f"not upgraded:\n{answer.decode()}")
    return True


def message(number: int) -> bytes:
    text = b'{"type":"chat","number":"%09d","text":"' % number
    return text + b"x" * (MESSAGE_BYTES - len(text) - 2) + b'"}'


def echo(target: Target, sockets: int, seconds: float) -> Run:
    """Each of the sockets says the same again as soon as it was echoed."""
    run, expected = Run(), _HEADER + message(0)

    def is_whole(fd: int, data: bytes) -> bool:
        if not expected.startswith(data):
            raise RuntimeError(f"fd {fd}: not an echo: {data!r}")
        return len(data) == len(expected)

    with _opened(target, upgrades("/v1/ws/echo", range(sockets)), is_upgraded) as lines:
        _ping_pong(target, lines, run, _MASKED + message(0), is_whole, seconds)
    return run


class Room:
    """Open members of one room, and how far each has come: a broadcast reaches all of them.

    sent: when each was.  reached: number of frames → members that have exactly so many.
    least: frames that all members have.
    """

    def __init__(self, target: Target, lines: list[Line]) -> None:
        self.run = Run(done=0)
        self.sent: list[float] = []
        self.least = 0
        self._target, self._members = target, [line.sock for line in lines]
        self._reads = {sock.fileno(): sock.recv_into for sock in self._members}
        self._had = dict.fromkeys(self._reads, 0)  # bytes
        self._timed = set(itertools.islice(self._reads, TIMED_OF // 2, None, TIMED_OF))
        self._kept = {fd: bytearray() for fd in itertools.islice(self._reads, KEPT_OF // 2, None, KEPT_OF)}
        self._reached = [len(lines)]
        self._buffer = bytearray(BUFFER_BYTES)
        self._poll = _poll(self._reads)

    def keep_under_way(self, broadcasts: int, seconds: float) -> None:
        """So many at any time, by members in turn; a new one once one has reached everybody."""
        with self.run.timed(self._target.server):
            until = time.perf_counter() + seconds
            self._say(broadcasts)
            while self.least < len(self.sent):
                now = self._receive(QUIET_LIMIT_S)
                if not now:
                    raise TimeoutError(f"nothing arrived for {QUIET_LIMIT_S:.0f} s")
                if now < until:
                    self._say(broadcasts - (len(self.sent) - self.least))

    def keep_pace(self, per_s: float, seconds: float) -> None:
        """So many a second, whether they arrive or not; one counts from when it was due to be sent."""
        with self.run.timed(self._target.server):
            due = time.perf_counter()
            last, end = due + seconds, due + seconds + GRACE_S
            while (now := time.perf_counter()) < end and (due < last or self.least < len(self.sent)):
                if due < last and due <= now:
                    self._say(1, due)
                    due += 1 / per_s
                self._receive(max(0.0, min(due if due < last else end, end) - time.perf_counter()))

    @property
    def share(self) -> float:
        """Of the deliveries that were due, those made."""
        return self.run.count / (len(self.sent) * len(self._members))

    def check(self) -> None:
        """Whether every member that kept what it received has what was sent, each once."""
        said = {_HEADER + message(number) for number in range(len(self.sent))}
        for received in self._kept.values():
            whole = len(received) // FRAME_BYTES
            frames = [bytes(received[at * FRAME_BYTES :][:FRAME_BYTES]) for at in range(whole)]
            if len(set(frames)) != len(frames) or not said.issuperset(frames):
                raise RuntimeError("a member was sent something else than was said")

    def _say(self, broadcasts: int, at: float | None = None) -> None:
        for _ in range(broadcasts):
            number = len(self.sent)
            self.sent.append(at or time.perf_counter())
            self._reached.append(0)
            self._members[number % len(self._members)].send(_MASKED + message(number))

    def _receive(self, timeout_s: float) -> float:
        """Take what has come. When that was, or 0.0 if nothing came."""
        ready = self._poll.poll(timeout_s, EVENTS)
        now = time.perf_counter()
        buffer, reads, had, reached = self._buffer, self._reads, self._had, self._reached
        arrived = 0
        for fd, _ in ready:
            try:
                size = reads[fd](buffer)
            except (BlockingIOError, ssl.SSLWantReadError):
                continue
            if not size:
                raise RuntimeError("the server closed a connection")
            before = had[fd]
            had[fd] = after = before + size
            frames_before, within = divmod(before, FRAME_BYTES)
            if not within and not buffer.startswith(_HEADER):
                raise RuntimeError(f"not the frame that was due: {buffer[:20]!r}")
            frames = after // FRAME_BYTES
            if frames != frames_before:
                arrived += frames - frames_before
                reached[frames_before] -= 1
                reached[frames] += 1
                if fd in self._timed:
                    self.run.each_s += [now - sent for sent in self.sent[frames_before:frames]]
            if fd in self._kept:
                self._kept[fd] += buffer[:size]
        while self.least < len(self.sent) and not reached[self.least]:
            self.least += 1
        assert self.run.done is not None
        self.run.done += arrived
        return now if ready else 0.0


@contextmanager
def room(target: Target, members: int) -> Iterator[Room]:
    """Everybody is in it, and has been reached once."""
    with _opened(target, upgrades("/v1/ws/room", range(members)), is_upgraded) as lines:
        target.settle()  # a socket may be upgraded a moment before it is in the room
        warm = Room(target, lines)
        warm.keep_under_way(1, 0)
        opened = Room(target, lines)
        yield opened
        opened.check()


# connections


@dataclass(frozen=True, slots=True)
class Line:
    """An open connection.  answer: to its first request."""

    sock: socket.socket
    answer: bytes


IsAnswered = Callable[[bytes], bool]


def opened_in(
    target: Target, requests: Iterator[bytes], is_answered: IsAnswered, seconds: float, *, keep: bool
) -> Run:
    """Connections opened, their first request answered, as many as `requests` within the time.

    keep: they stay open until it is over; if not, each is closed once it is answered.
    """
    run = Run()

    def until() -> Iterator[bytes]:
        end = time.perf_counter() + seconds
        return itertools.takewhile(lambda _: time.perf_counter() < end, requests)

    lines: list[Line] = []
    try:
        with run.timed(target.server):
            for line, took_s in _open(target, until(), is_answered):
                run.each_s.append(took_s)
                if keep:
                    lines.append(line)
                else:
                    line.sock.close()
    finally:
        for line in lines:
            line.sock.close()
        target.settle()
    return run


def kb_each(
    target: Target, request: Callable[[int], bytes], is_answered: IsAnswered, counts: Iterable[int]
) -> list[float]:
    """Resident memory of one idle connection when so many (growing counts) are open."""
    with _opened(target, map(request, range(100)), is_answered):
        pass  # what the first ones cost once is not counted
    before_kb, each_kb = target.server.rss_kb(), []
    lines: list[Line] = []
    try:
        for count in counts:
            more = map(request, range(len(lines), count))
            lines += [line for line, _ in _open(target, more, is_answered)]
            target.settle()
            each_kb.append((target.server.rss_kb() - before_kb) / count)
    finally:
        for line in lines:
            line.sock.close()
    return each_kb


@contextmanager
def _opened(target: Target, requests: Iterable[bytes], is_answered: IsAnswered) -> Iterator[list[Line]]:
    lines: list[Line] = []
    try:
        lines += [line for line, _ in _open(target, iter(requests), is_answered)]
        yield lines
    finally:
        for line in lines:
            line.sock.close()
        target.settle()


def _open(target: Target, requests: Iterator[bytes], is_answered: IsAnswered) -> Iterator[tuple[Line, float]]:
    """Connections whose first request is answered, and how long that took from their beginning."""
    poll = select.epoll()
    opening: dict[int, tuple[Generator[socket.socket, None, Line], float]] = {}

    def begin() -> None:
        for request in itertools.islice(requests, IN_PROGRESS - len(opening)):
            began = time.perf_counter()
            steps = _steps(target, request, is_answered)
            fd = next(steps).fileno()
            opening[fd] = steps, began
            poll.register(fd, select.EPOLLIN)

    try:
        begin()
        while opening:
            ready = poll.poll(QUIET_LIMIT_S, EVENTS)
            if not ready:
                raise TimeoutError(f"nothing arrived for {QUIET_LIMIT_S:.0f} s")
            for fd, _ in ready:
                steps, began = opening[fd]
                try:
                    next(steps)
                except StopIteration as done:
                    del opening[fd]
                    poll.unregister(fd)
                    yield done.value, time.perf_counter() - began
            begin()
    finally:
        poll.close()


def _steps(target: Target, request: bytes, is_answered: IsAnswered) -> Generator[socket.socket, None, Line]:
    """Open one connection; goes on whenever it can be read."""
    sock = socket.socket()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.connect(("127.0.0.1", target.server.port))
    sock.setblocking(False)
    if target.tls is not None:
        sock = secured = target.tls.wrap_socket(sock, do_handshake_on_connect=False)
        while True:
            try:
                secured.do_handshake()
                break
            except ssl.SSLWantReadError:
                yield sock
    sock.send(request)
    yield sock
    answer = b""
    while True:
        try:
            data = sock.recv(BUFFER_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError):
            yield sock
            continue
        if not data:
            raise RuntimeError(f"the server closed a connection instead of answering: {answer!r}")
        answer += data
        if is_answered(answer):
            return Line(sock, answer)
        yield sock


def _ping_pong(
    target: Target,
    lines: list[Line],
    run: Run,
    request: bytes,
    is_whole: Callable[[int, bytes], bool],
    seconds: float,
) -> None:
    """One request under way on each line, until the time is over."""
    socks = {line.sock.fileno(): line.sock for line in lines}
    sent = dict.fromkeys(socks, 0.0)
    parts = dict.fromkeys(socks, b"")
    each_s, poll = run.each_s, _poll(socks)
    with run.timed(target.server):
        until = time.perf_counter() + seconds
        for fd, sock in socks.items():
            sent[fd] = time.perf_counter()
            sock.send(request)
        waiting = len(socks)
        while waiting:
            ready = poll.poll(QUIET_LIMIT_S, EVENTS)
            if not ready:
                raise TimeoutError(f"nothing arrived for {QUIET_LIMIT_S:.0f} s")
            for fd, _ in ready:
                try:
                    data = socks[fd].recv(BUFFER_BYTES)
                except (BlockingIOError, ssl.SSLWantReadError):
                    continue
                if not data:
                    raise RuntimeError("the server closed a connection")
                if parts[fd]:
                    data = parts[fd] + data
                if not is_whole(fd, data):
                    parts[fd] = data
                    continue
                parts[fd] = b""
                now = time.perf_counter()
                each_s.append(now - sent[fd])
                if now < until:
                    sent[fd] = now
                    socks[fd].send(request)
                else:
                    waiting -= 1
    poll.close()


def _poll(fds: Mapping[int, Any]) -> select.epoll:
    poll = select.epoll()
    for fd in fds:
        poll.register(fd, select.EPOLLIN)
    return poll
