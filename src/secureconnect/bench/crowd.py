"""Broadcasts into a room: every member's frames are counted, and no more is done for each than that takes."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence

from .rounds import Run, Target
from .wire import (
    BUFFER_BYTES,
    EVENTS,
    QUIET_LIMIT_S,
    Faulty,
    Line,
    frame_end,
    receive_into,
    rest_of,
    send,
    text_in,
    watching,
)

TIMED_OF = 10  # one of so many members is timed
KEPT_OF = 100  # and one of so many keeps what it received
GRACE_S = 1.0  # a paced broadcast is waited for this long after the last one was sent

_LONG = b"\x81\x7e"  # a whole text of 126 bytes or more; two bytes of its length follow
_CHAT = b'{"type":"chat"'

Make = Callable[[int], bytes]  # the frame that says message number so-and-so
Number = Callable[[bytes], int]  # its number, of what a member was sent; raises Faulty if that is not whole


class Crowd:
    """Open members of one room, and how far each has come: a broadcast reaches all of them.

    sent: when each was.  least: messages that all members have.  reached: number of messages → members that
    have exactly so many.  writers: the first so many members, who write in turn.
    """

    def __init__(self, target: Target, lines: Sequence[Line], make: Make, writers: int = 1) -> None:
        self.run = Run(done=0)
        self.sent: list[float] = []
        self.least = 0
        self._target, self._make = target, make
        self._socks = {line.sock.fileno(): line.sock for line in lines}
        self._writers = [line.sock for line in lines[:writers]]
        self._reads = {fd: sock.recv_into for fd, sock in self._socks.items()}
        self._parts = {line.sock.fileno(): rest_of(line.answer) for line in lines}
        self._had = dict.fromkeys(self._reads, 0)  # messages
        self._timed = set(itertools.islice(self._reads, TIMED_OF // 2 % len(lines), None, TIMED_OF))
        kept = itertools.islice(self._reads, KEPT_OF // 2 % len(lines), None, KEPT_OF)
        self._kept: dict[int, list[bytes]] = {fd: [] for fd in kept}
        self._reached = [len(lines)]
        self._buffer = bytearray(BUFFER_BYTES)
        self._poll = watching(self._reads)

    def keep_under_way(self, broadcasts: int, seconds: float, most: float = math.inf) -> None:
        """So many at any time; a new one once one has reached everybody.  most: in all."""
        with self.run.timed(self._target.meters):
            until = time.perf_counter() + seconds
            self._say(int(min(broadcasts, most)))
            while self.least < len(self.sent):
                now = self._receive(QUIET_LIMIT_S)
                if not now:
                    raise Faulty(self._missing())
                if now < until:
                    self._say(int(min(broadcasts + self.least, most)) - len(self.sent))

    def keep_pace(self, per_s: float, seconds: float) -> None:
        """So many a second, whether they arrive or not; one counts from when it was due to be sent."""
        with self.run.timed(self._target.meters):
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
        return self.run.count / (len(self.sent) * len(self._socks))

    @property
    def text_bytes(self) -> int:
        """Of the last message that somebody kept."""
        return len(next(iter(self._kept.values()))[-1])

    def check(self, number: Number) -> None:
        """Whether every member that kept what it received was sent each message once, as it was said.
        Raises Faulty."""
        for fd, texts in self._kept.items():
            numbers = [number(each) for each in texts]
            if len(set(numbers)) != len(numbers) or len(numbers) != self._had[fd]:
                raise Faulty("a member was sent a message twice")
            if not set(range(len(self.sent))).issuperset(numbers):
                raise Faulty("a member was sent what nobody said")

    def _missing(self) -> str:
        lost = sum((len(self.sent) - had) for had in self._had.values())
        return (
            f"deliveries were lost: {lost} of {len(self.sent) * len(self._socks)}"
            f" had not come after {QUIET_LIMIT_S:.0f} s"
        )

    def _say(self, broadcasts: int, at: float | None = None) -> None:
        for _ in range(broadcasts):
            number = len(self.sent)
            self.sent.append(at or time.perf_counter())
            self._reached.append(0)
            send(self._writers[number % len(self._writers)], self._make(number))

    def _receive(self, timeout_s: float) -> float:
        """Take what has come. When that was, or 0.0 if nothing came."""
        ready = self._poll.poll(timeout_s, EVENTS)
        now = time.perf_counter()
        buffer, reads, parts, had, reached = self._buffer, self._reads, self._parts, self._had, self._reached
        arrived = 0
        for fd, _ in ready:
            size = receive_into(reads[fd], buffer)
            data: bytes | bytearray = buffer
            if parts[fd]:
                data = parts[fd] + buffer[:size]
                size = len(data)
                parts[fd] = b""
            at, before = 0, had[fd]
            after = before
            while at < size:
                if not (data.startswith(_LONG, at) and data.startswith(_CHAT, at + 4)):
                    bounds = frame_end(data, at, size)
                    if bounds is None:
                        break
                    text_in(self._socks[fd], data, at, *bounds)
                    at = bounds[1]
                    continue
                end = at + 4 + (data[at + 2] << 8 | data[at + 3])
                if end > size:
                    break
                if fd in self._kept:
                    self._kept[fd].append(bytes(data[at + 4 : end]))
                at = end
                after += 1
            if at < size:
                parts[fd] = bytes(data[at:size])
            if after != before:
                if after > len(self.sent):
                    raise Faulty("a member was sent more messages than were said")
                had[fd] = after
                arrived += after - before
                reached[before] -= 1
                reached[after] += 1
                if fd in self._timed:
                    self.run.each_s += [now - sent for sent in self.sent[before:after]]
        while self.least < len(self.sent) and not reached[self.least]:
            self.least += 1
        assert self.run.done is not None
        self.run.done += arrived
        return now if ready else 0.0
