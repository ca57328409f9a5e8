"""Messages stored: people write, each in a room of two, and wait for what they said to be acknowledged."""

from __future__ import annotations

import itertools
import math
import secrets
import time
from collections.abc import Sequence

import msgspec

from .rounds import Run, Target
from .wire import EVENTS, QUIET_LIMIT_S, Faulty, Frames, Line, receive, send, text, watching

TEXT = "x" * 100  # what a message says
_ACK = b'{"type":"ack"'
_CHAT = b'{"type":"chat"'
_RUN = secrets.token_hex(4)
_numbers = itertools.count()


class _Ack(msgspec.Struct):
    ref: int
    status: str


_decode_ack = msgspec.json.Decoder(_Ack).decode


def message(conversation_id: str, text: str = TEXT) -> dict[str, str]:
    """What a message is over REST, and beside its `type` on a socket."""
    return {
        "conversation_id": conversation_id,
        "client_message_id": f"bench-{_RUN}-{next(_numbers)}",
        "content": text,
        "message_type": "text",
    }


def said(conversation_id: str, text: str = TEXT, ref: int | None = None) -> dict[str, object]:
    frame: dict[str, object] = {"type": "chat", **message(conversation_id, text)}
    return frame if ref is None else frame | {"ref": ref}


class Talk:
    """Open sockets of people who talk in rooms of two, neighbours with each other; the first of them write.

    rooms: of each writer.  The clock of a message stops at its ack.
    """

    def __init__(self, target: Target, lines: Sequence[Line], rooms: Sequence[str]) -> None:
        self.run = Run()
        self._target = target
        self._socks = {line.sock.fileno(): line.sock for line in lines}
        self._frames = {line.sock.fileno(): Frames(line) for line in lines}
        self._room_of = dict(zip(self._socks, rooms, strict=False))
        self._left: dict[int, float] = {}
        self._sent: dict[int, float] = {}
        self._said = self._told = 0
        self._poll = watching(self._socks)

    def keep_under_way(self, messages: int, seconds: float, most: float = math.inf) -> None:
        """So many of each writer at any time.  most: of each writer in all."""
        self._left = dict.fromkeys(self._room_of, most)
        with self.run.timed(self._target.meters):
            until = time.perf_counter() + seconds
            for fd in self._room_of:
                self._say(fd, messages)
            while self._sent:
                for fd, acks in self._receive().items():
                    if time.perf_counter() < until:
                        self._say(fd, acks)
        while self._told < 2 * self._said:  # both of a room are told of each message
            self._receive()
        if self._told > 2 * self._said:
            raise Faulty("a message was told twice")

    def _say(self, fd: int, messages: int) -> None:
        messages = int(min(messages, self._left[fd]))
        if not messages:
            return
        self._left[fd] -= messages
        self._said += messages
        frames, now = [], time.perf_counter()
        for _ in range(messages):
            ref = next(_numbers)
            self._sent[ref] = now
            frames.append(text(msgspec.json.encode(said(self._room_of[fd], ref=ref))))
        send(self._socks[fd], b"".join(frames))

    def _receive(self) -> dict[int, int]:
        """Which sockets have been sent acks, and how many."""
        ready = self._poll.poll(QUIET_LIMIT_S, EVENTS)
        if not ready:
            lost = 2 * self._said - self._told
            raise Faulty(
                f"after {QUIET_LIMIT_S:.0f} s {len(self._sent)} messages were not acknowledged,"
                f" and {lost} deliveries had not come"
            )
        acks: dict[int, int] = {}
        for fd, _ in ready:
            for each in self._frames[fd].take(receive(self._socks[fd])):
                if each.startswith(_ACK):
                    self._acknowledged(each)
                    acks[fd] = acks.get(fd, 0) + 1
                elif each.startswith(_CHAT):
                    self._told += 1
        return acks

    def _acknowledged(self, frame: bytes) -> None:
        ack, now = _decode_ack(frame), time.perf_counter()
        if ack.status != "stored":
            raise Faulty(f"a message is {ack.status} and not stored: the server has lost its database")
        sent = self._sent.pop(ack.ref, None)
        if sent is None:
            raise Faulty("a message was acknowledged twice")
        self.run.each_s.append(now - sent)
