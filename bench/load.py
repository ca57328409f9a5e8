"""The load of `bench/edge.py`: what is asked and told there, by the client of `secureconnect bench`.

Every answer is checked, for a broken server must be an error and not a figure: status, size and body of HTTP,
each echo byte by byte, and of a broadcast the frames at every member, and all the bytes at some of them.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import msgspec

from secureconnect.bench.asking import keep_asking
from secureconnect.bench.crowd import Crowd
from secureconnect.bench.rounds import Run, Target
from secureconnect.bench.wire import Line, Site, is_upgraded, open_each, opened, text
from server import Server

MESSAGE_BYTES = 200
_HEADER = b"\x81\x7e" + MESSAGE_BYTES.to_bytes(2)  # of the text frame a server sends


@dataclass(frozen=True, slots=True)
class Contestant:
    """A running server, and how to speak to it."""

    server: Server
    target: Target


# HTTP


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and what must be answered.  data: of the envelope."""

    method: str
    path: str
    status: int
    data: Mapping[str, object]
    body: Mapping[str, object] | None = None

    def request(self, site: Site) -> bytes:
        return site.request(self.method, self.path, self.body)

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
NOTE = Exchange("POST", "/v1/note", 201, {"title": "A note", "length": 100}, _NOTE)


def ask(to: Contestant, exchange: Exchange, connections: int, seconds: float) -> Run:
    """Each of the connections, which are kept alive, asks again as soon as it is answered.

    The first answer of a connection is read; the others must have its status and its size.
    """
    request = exchange.request(to.target.site)
    status = b"HTTP/1.1 %d " % exchange.status
    with _settled(to, itertools.repeat(request, connections), exchange.is_answered) as lines:
        size = len(lines[0].answer)
        if any(len(line.answer) != size for line in lines):
            raise RuntimeError("answers of different sizes")

        def is_whole(data: bytes) -> bool:
            if len(data) > size or not data.startswith(status):
                raise RuntimeError(f"not the answer that was due:\n{data.decode()}")
            return len(data) == size

        return keep_asking(to.target, lines, lambda _: request, is_whole, seconds)


# WebSocket


def upgrade(site: Site, path: str, number: int) -> bytes:
    return site.upgrade(path, f"person{number}")


def upgrades(to: Contestant, path: str, numbers: Iterable[int]) -> Iterator[bytes]:
    return (upgrade(to.target.site, path, number) for number in numbers)


def message(number: int, size: int = MESSAGE_BYTES) -> bytes:
    text = b'{"type":"chat","number":"%09d","text":"' % number
    return text + b"x" * (size - len(text) - 2) + b'"}'


def echo(to: Contestant, sockets: int, seconds: float) -> Run:
    """Each of the sockets says the same again as soon as it was echoed."""
    said, expected = text(message(0)), _HEADER + message(0)

    def is_whole(data: bytes) -> bool:
        if not expected.startswith(data):
            raise RuntimeError(f"not an echo: {data!r}")
        return len(data) == len(expected)

    with _settled(to, upgrades(to, "/v1/ws/echo", range(sockets)), is_upgraded) as lines:
        return keep_asking(to.target, lines, lambda _: said, is_whole, seconds)


@contextmanager
def room(
    to: Contestant, members: int, size: int = MESSAGE_BYTES, writers: int | None = None
) -> Iterator[Crowd]:
    """Everybody is in it, and has been reached once.  writers: who say something in turn; None for all.
    size: of what they say."""
    say = partial(_say, size)
    with _settled(to, upgrades(to, "/v1/ws/room", range(members)), is_upgraded) as lines:
        to.target.settle()  # a socket may be upgraded a moment before it is in the room
        Crowd(to.target, lines, say, writers or members).keep_under_way(1, 0)
        crowd = Crowd(to.target, lines, say, writers or members)
        yield crowd
        crowd.check(_number)


def _say(size: int, number: int) -> bytes:
    return text(message(number, size))


def _number(heard: bytes) -> int:
    number = int(msgspec.json.decode(heard)["number"])
    if heard != message(number, len(heard)):
        raise RuntimeError(f"a member was sent what nobody said: {heard!r}")
    return number


# connections


def opened_in(
    to: Contestant,
    requests: Iterator[bytes],
    is_answered: Callable[[bytes], bool],
    seconds: float,
    *,
    keep: bool,
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
        with run.timed(to.target.meters):
            for line, took_s in open_each(to.target.site, until(), is_answered):
                run.each_s.append(took_s)
                if keep:
                    lines.append(line)
                else:
                    line.sock.close()
    finally:
        for line in lines:
            line.sock.close()
        to.target.settle()
    return run


def kb_each(
    to: Contestant,
    request: Callable[[int], bytes],
    is_answered: Callable[[bytes], bool],
    counts: Iterable[int],
) -> list[float]:
    """Resident memory of one idle connection when so many (growing counts) are open."""
    with _settled(to, map(request, range(100)), is_answered):
        pass  # what the first ones cost once is not counted
    before_kb, each_kb = to.server.rss_kb(), []
    lines: list[Line] = []
    try:
        for count in counts:
            more = map(request, range(len(lines), count))
            lines += [line for line, _ in open_each(to.target.site, more, is_answered)]
            to.target.settle()
            each_kb.append((to.server.rss_kb() - before_kb) / count)
    finally:
        for line in lines:
            line.sock.close()
    return each_kb


@contextmanager
def _settled(
    to: Contestant, requests: Iterable[bytes], is_answered: Callable[[bytes], bool]
) -> Iterator[list[Line]]:
    """Open lines, and a server that is idle afterwards."""
    try:
        with opened(to.target.site, requests, is_answered) as lines:
            yield lines
    finally:
        to.target.settle()
