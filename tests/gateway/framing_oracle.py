"""`websockets` as a second opinion on frames.

What it does otherwise, and we on purpose:
- it looks at reserved bits, and at the length and the FIN of control frames, when the payload is there, and
  at the size before all that; we look at the header, and at what it means before its size.
- it takes lengths in more bytes than they need, and one with the top bit for a large one (RFC 6455, 5.2).
- it counts control frames against the limit of the message they are in; so we give it room for one more.
- to a CLOSE inside a message in fragments it answers 1002. RFC 6455 (5.4) lets control frames be there.
- its layer above checks that texts are UTF-8, when they are whole; `Theirs` does so fragment by fragment.
- it inflates fragment by fragment, and we whole messages: so does it here (`Whole`).
- it has 1002 for broken compression, where we have 1007, and takes a message whose last block is cut.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame as TheirFrame
from websockets.frames import Opcode
from websockets.protocol import SERVER, Protocol, Side

from secureconnect.gateway.framing import CONTROL_BYTES, Inbound

from .frames import CLOSE, CONT, TEXT
from .framing_cases import LIMIT, Event


class Outcome(NamedTuple):
    events: list[Event]
    code: int | None


def ours(pieces: Iterable[bytes], limit: int = LIMIT, deflate: bool = False) -> tuple[Outcome, Inbound]:
    inbound = Inbound(limit, deflate)
    events = []
    for piece in pieces:
        events += inbound.feed(piece)
        while inbound.is_holding:
            events += inbound.feed(b"")
    return Outcome(events, inbound.violation and inbound.violation.code), inbound


def in_steps(data: bytes, step: int) -> list[bytes]:
    return [data[at : at + step] for at in range(0, len(data), step)]


class Whole(PerMessageDeflate):
    """Inflates a message when its last fragment is there; those before look empty."""

    def __init__(self, limit: int) -> None:
        super().__init__(True, True, 15, 15)
        self._limit = limit
        self._packed: bytes | None = None

    def decode(self, frame: TheirFrame, *, max_size: int | None = None) -> TheirFrame:
        if frame.opcode >= CLOSE or not (frame.rsv1 or (frame.opcode == CONT and self._packed is not None)):
            return frame
        if frame.opcode == CONT and frame.rsv1:
            raise ProtocolError("RSV1 on a continuation")
        if frame.opcode != CONT and self._packed is not None:
            raise ProtocolError("a message inside another")
        packed = (self._packed or b"") + bytes(frame.data)
        if len(packed) > self._limit:
            raise PayloadTooBig(len(packed), self._limit)
        self._packed = None if frame.fin else packed
        whole = dataclasses.replace(frame, opcode=Opcode.TEXT, data=packed, rsv1=True)
        data = super().decode(whole, max_size=max_size).data if frame.fin else b""
        return dataclasses.replace(frame, data=data, rsv1=False)


class Theirs:
    """What `websockets` makes of bytes."""

    def __init__(self, side: Side, limit: int, packs: bool = False) -> None:
        self.events: list[Event] = []
        self.code: int | None = None
        self.protocol = Protocol(side, max_size=limit + CONTROL_BYTES)
        if packs:
            self.protocol.extensions = [Whole(limit)]
        self._limit = limit
        self._opcode, self._message = 0, b""

    def feed(self, data: bytes) -> None:
        self.protocol.receive_data(data)
        for each in self.protocol.events_received():
            if self.code is None:
                assert isinstance(each, TheirFrame)
                self.code = self._take(each)
        if self.code is None and (error := self.protocol.parser_exc) is not None:
            if str(error) == "incomplete fragmented message" and (close := self.protocol.close_rcvd):
                self.events.append((CLOSE, b"" if close.code == 1005 else close.serialize()))
            else:
                assert self.protocol.close_sent is not None
                self.code = int(self.protocol.close_sent.code)

    def _take(self, each: TheirFrame) -> int | None:
        if each.opcode >= CLOSE:
            self.events.append((int(each.opcode), bytes(each.data)))
            return None
        if each.opcode != CONT:
            self._opcode = int(each.opcode)
        self._message += bytes(each.data)
        if len(self._message) > self._limit:
            return 1009
        if self._opcode == TEXT and not could_be_text(self._message, each.fin):
            return 1007
        if each.fin:
            self.events.append((self._opcode, self._message))
            self._message = b""
        return None


def could_be_text(message: bytes, is_whole: bool) -> bool:
    for more in (
        (b"",) if is_whole else (b"", b"\x80", b"\x80\x80", b"\x80\x80\x80", b"\x90\x80\x80", b"\xa0\x80")
    ):
        try:
            (message + more).decode()
        except UnicodeDecodeError:
            continue
        return True
    return False


def assert_agreed(data: bytes, limit: int, deflate: bool = False) -> None:
    (events, code), inbound = ours([data], limit, deflate)
    other = Theirs(SERVER, limit, deflate)
    other.feed(data)
    reason = inbound.violation.reason if inbound.violation else ""
    is_ours_alone = reason in ("a length is not written as it must be", "the compression is broken")
    if is_ours_alone or (deflate and code == 1009):  # what is broken may look too big first
        assert events == other.events[: len(events)]
        return
    if code is not None and other.code is None:
        other.feed(bytes(limit + 200))  # the rest of the frame, for which we did not wait
    assert events == other.events
    assert code == other.code or (code, other.code) == (1002, 1009)
