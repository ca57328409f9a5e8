"""WebSocket frames (RFC 6455) and their compression (RFC 7692), without a network.

A message is judged as early as it can be: its size by the header of the frame that makes it too big, its
UTF-8 by the fragment in which it goes wrong. No more of a message is held than the limit allows, and nothing
at all between messages. Compression keeps no window from one message to the next: a window would cost each
connection 40 kB and more, and would make every client's frame another.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from codecs import utf_8_decode
from typing import NamedTuple

try:
    from websockets.speedups import apply_mask
except ImportError:  # its C part could not be built
    from websockets.utils import apply_mask

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
FIN, RSV1, RESERVED, OPCODE = 0x80, 0x40, 0x70, 0x0F  # bits of a frame's first byte
CONTROL = 0x08  # of its opcode
MASK = 0x80  # of its second byte
CONTROL_BYTES = 125
REASON_BYTES = CONTROL_BYTES - 2
PROTOCOL_ERROR, BAD_DATA, TOO_BIG = 1002, 1007, 1009

# What the first byte of a frame may be, in each state.
_CONTROLS = frozenset({FIN | CLOSE, FIN | PING, FIN | PONG})
_STARTS = _CONTROLS | {TEXT, BINARY, FIN | TEXT, FIN | BINARY}
_STARTS_DEFLATED = _STARTS | {byte | RSV1 for byte in _STARTS - _CONTROLS}
_CONTINUES = _CONTROLS | {CONTINUATION, FIN | CONTINUATION}

# What a sender leaves out at the end of a message; and a last block, by which zlib tells if all was there.
_FLUSHED = b"\x00\x00\xff\xff"
_LAST_BLOCK = b"\x01\x00\x00\xff\xff"

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_WINDOW_BITS = frozenset(map(str, range(8, 16)))


class Violation(NamedTuple):
    """Why the connection cannot go on.  code: to close it with."""

    code: int
    reason: str


class _Violated(Exception):
    def __init__(self, code: int, reason: str) -> None:
        self.violation = Violation(code, reason)


class Inbound:
    """What a client sends: its frames become whole messages.

    limit_bytes: of a message, both on the wire and inflated.  deflate: whether `negotiate` agreed to it.
    frames: read so far, fragments and control frames too; one counts when it is whole.
    is_holding: there is more than `feed` has returned: what is small on the wire may be large when inflated,
    so that one `feed` inflates little beyond the limit. Another one, of b"", goes on.
    violation: set once; nothing is read after it, nor after a CLOSE.
    """

    __slots__ = (
        "_checked",
        "_inflated_bytes",
        "_limit_bytes",
        "_message",
        "_needed",
        "_opening",
        "_over",
        "_pending",
        "_skips",
        "_starts",
        "frames",
        "violation",
    )

    def __init__(self, limit_bytes: int, deflate: bool = False) -> None:
        self.frames = 0
        self.violation: Violation | None = None
        self._limit_bytes = limit_bytes
        self._starts = _STARTS_DEFLATED if deflate else _STARTS
        self._over = False
        self._skips = False
        self._inflated_bytes = 0  # by this `feed`
        self._pending: bytearray | None = None  # an unfinished frame
        self._needed = 0  # the bytes it must have to be looked at again
        self._message: bytearray | None = None  # the fragments so far
        self._opening = 0  # the first byte of its first frame
        self._checked = 0  # how much of it is known to be UTF-8

    @property
    def is_holding(self) -> bool:
        return self._pending is not None and len(self._pending) >= self._needed

    def skip(self) -> None:
        """From here on only control frames are wanted; messages are not inflated."""
        self._skips = True

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Messages and control frames that are whole now, in order: (opcode, payload). Those before a
        violation are returned, too. A TEXT is valid UTF-8; a CLOSE is valid as `close_of` has it."""
        events: list[tuple[int, bytes]] = []
        if self._over:
            return events
        self._inflated_bytes = 0
        try:
            if self._pending is None:
                self._read(data, events)
            else:
                self._pending += data
                if len(self._pending) >= self._needed:
                    pending, self._pending = self._pending, None
                    self._read(pending, events)
        except _Violated as violated:
            self._end(violated.violation)
        except UnicodeDecodeError:
            self._end(Violation(BAD_DATA, "the text is not UTF-8"))
        return events

    def _read(self, data: bytes | bytearray, events: list[tuple[int, bytes]]) -> None:
        """The frames of `data`; the last, if unfinished, is kept."""
        start, size = 0, len(data)
        needed = 2
        while size - start >= 2 and self._inflated_bytes <= self._limit_bytes:
            first, second = data[start], data[start + 1]
            expected = self._starts if self._message is None else _CONTINUES
            if first not in expected:
                raise _Violated(PROTOCOL_ERROR, _unexpected(first, self._message is not None))
            if second < MASK:
                raise _Violated(PROTOCOL_ERROR, "a frame is not masked")
            length = second - MASK
            at = start + 2
            if length > CONTROL_BYTES:
                at += 2 if length == 126 else 8
                if at > size:
                    needed = at - start
                    break
                length = _long(data[start + 2 : at])
                if first & CONTROL:
                    raise _Violated(PROTOCOL_ERROR, "a control frame is too long")
            if not first & CONTROL:
                held = 0 if self._message is None else len(self._message)
                if held + length > self._limit_bytes:
                    raise _Violated(TOO_BIG, "the message is too big")
            end = at + 4 + length
            if end > size:
                needed = end - start
                break
            self.frames += 1
            payload = apply_mask(data[at + 4 : end], data[at : at + 4])
            start, needed = end, 2
            if first == FIN | TEXT:
                if not payload.isascii():
                    payload.decode()
                events.append((TEXT, payload))
            elif not first & CONTROL:
                self._gather(first, payload, events)
            else:
                if first == FIN | CLOSE and isinstance(fault := close_of(payload), Violation):
                    raise _Violated(*fault)
                events.append((first & OPCODE, payload))
                if first == FIN | CLOSE:
                    self._end(None)
                    return
        if start < size:
            self._pending = bytearray(data[start:])
            self._needed = needed

    def _gather(self, first: int, payload: bytes, events: list[tuple[int, bytes]]) -> None:
        """A frame of a message in fragments, or of a binary or compressed one."""
        if self._message is None:
            self._message, self._opening, self._checked = bytearray(), first, 0
        self._message += payload
        opcode, is_deflated, is_last = self._opening & OPCODE, self._opening & RSV1, bool(first & FIN)
        if opcode == TEXT and not is_deflated:
            _, read = utf_8_decode(self._message[self._checked :], "strict", is_last)
            self._checked += read
            tail = self._message[self._checked :]
            if tail[:1] == b"\xed" and tail[1:] >= b"\xa0":  # for which Python would wait
                raise _Violated(BAD_DATA, "the text is not UTF-8")
        if is_last:
            message, self._message = bytes(self._message), None
            if is_deflated and not self._skips:
                message = _inflated(message, self._limit_bytes)
                self._inflated_bytes += len(message)
                if opcode == TEXT:
                    message.decode()
            events.append((opcode, message))

    def _end(self, violation: Violation | None) -> None:
        self.violation = violation
        self._over = True
        self._pending = self._message = None


def text(payload: bytes) -> bytes:
    """A frame that is a whole message.  payload: UTF-8."""
    return _header(FIN | TEXT, len(payload)) + payload


def deflated(payload: bytes) -> bytes:
    """The same, for clients with which `negotiate` agreed on compression."""
    # A window for a few kilobytes: setting up zlib's own takes a small message three times as long.
    deflater = zlib.compressobj(wbits=-13, memLevel=6)
    compressed = deflater.compress(payload) + deflater.flush(zlib.Z_SYNC_FLUSH)
    compressed = compressed.removesuffix(_FLUSHED)
    return _header(FIN | RSV1 | TEXT, len(compressed)) + compressed


def control(opcode: int, payload: bytes) -> bytes:
    """payload: at most 125 bytes."""
    return _header(FIN | opcode, len(payload)) + payload


def close(code: int, reason: str) -> bytes:
    """reason: cut to what fits."""
    fitting = reason.encode()[:REASON_BYTES].decode(errors="ignore")
    return control(CLOSE, code.to_bytes(2, "big") + fitting.encode())


def close_of(payload: bytes) -> int | Violation | None:
    """The code in a client's CLOSE; None if it gives none."""
    if not payload:
        return None
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        return Violation(BAD_DATA, "the reason for closing is not UTF-8")
    code = int.from_bytes(payload[:2], "big")
    if len(payload) < 2 or not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        return Violation(PROTOCOL_ERROR, "no such close code")
    return code


def accept_key(key: str) -> str:
    """Sec-WebSocket-Accept.  key: Sec-WebSocket-Key."""
    return base64.b64encode(hashlib.sha1((key + _GUID).encode(), usedforsecurity=False).digest()).decode()


def negotiate(offers: str) -> str | None:
    """The Sec-WebSocket-Extensions to answer with, if one of the client's offers is compression as we do it.

    offers: the client's header; of several lines, joined by commas.
    """
    for offer in offers.split(","):
        name, *parameters = (part.strip(" \t") for part in offer.split(";"))
        if name == "permessage-deflate" and (settled := _settled(parameters)) is not None:
            return "; ".join((name, *settled))
    return None


def _settled(parameters: list[str]) -> list[str] | None:
    """What we answer to those of one offer; None if we cannot do as it says."""
    seen = set()
    settled = ["server_no_context_takeover", "client_no_context_takeover"]
    for parameter in parameters:
        name, equals, value = parameter.partition("=")
        if len(value) > 2 and value[0] == value[-1] == '"':
            value = value[1:-1]
        match name:
            case "server_no_context_takeover" | "client_no_context_takeover":
                is_possible = not equals
            case "client_max_window_bits":  # its window may be smaller than ours: nothing to say to that
                is_possible = not equals or value in _WINDOW_BITS
            case "server_max_window_bits":
                is_possible = value == "15"
                settled.append("server_max_window_bits=15")  # RFC 7692 7.1.2.1: not to say it declines
            case _:
                is_possible = False
        if not is_possible or name in seen:
            return None
        seen.add(name)
    return settled


def _header(first: int, length: int) -> bytes:
    if length <= CONTROL_BYTES:
        return bytes((first, length))
    if length < 0x10000:
        return bytes((first, 126)) + length.to_bytes(2, "big")
    return bytes((first, 127)) + length.to_bytes(8, "big")


def _long(extended: bytes | bytearray) -> int:
    """A length of two or eight bytes."""
    length = int.from_bytes(extended, "big")
    if length <= (CONTROL_BYTES if len(extended) == 2 else 0xFFFF) or length >> 63:
        raise _Violated(PROTOCOL_ERROR, "a length is not written as it must be")
    return length


def _unexpected(first: int, is_inside: bool) -> str:
    """What is wrong with the first byte of a frame.  is_inside: in a message in fragments."""
    opcode = first & OPCODE
    if is_inside and opcode in (TEXT, BINARY):
        return "a message begins inside another"
    if not is_inside and opcode == CONTINUATION:
        return "a message continues that has not begun"
    if opcode not in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG):
        return "no such opcode"
    if first & RESERVED:
        return "a reserved bit is set"
    return "a control frame is in fragments"


def _inflated(payload: bytes, limit_bytes: int) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        message = inflater.decompress(payload + _FLUSHED, limit_bytes + 1)
        if len(message) > limit_bytes:
            raise _Violated(TOO_BIG, "the message is too big")
        more = inflater.decompress(_LAST_BLOCK, 1)
    except zlib.error:
        raise _Violated(BAD_DATA, "the compression is broken") from None
    if more or not inflater.eof:
        raise _Violated(BAD_DATA, "the compression is broken")
    return message
