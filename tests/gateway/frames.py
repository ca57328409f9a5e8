"""Client frames made byte by byte, so that they can be wrong."""

from __future__ import annotations

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
RSV1, RSV2, RSV3 = 0x40, 0x20, 0x10
MASK = b"\x37\xfa\x21\x3d"


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, mask: bytes = MASK) -> bytes:
    """One frame; `payload` is what it says once unmasked."""
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return header(opcode, len(payload), fin=fin, rsv=rsv) + mask + masked


def header(
    opcode: int, length: int, *, fin: bool = True, rsv: int = 0, extended: int | None = None, bit: int = 0x80
) -> bytes:
    """What comes before the mask.  extended: bytes of the length beyond the first, if not the fewest.
    bit: of the mask."""
    if extended is None:
        extended = 0 if length < 126 else 2 if length < 65_536 else 8
    short = length if extended == 0 else 126 if extended == 2 else 127
    head = bytes(((0x80 if fin else 0) | rsv | opcode, bit | short))
    return head + length.to_bytes(extended, "big") if extended else head


def fragments(*parts: bytes, opcode: int = TEXT, rsv: int = 0) -> bytes:
    """A message in as many frames."""
    last = len(parts) - 1
    return b"".join(
        frame(CONT if index else opcode, part, fin=index == last, rsv=0 if index else rsv)
        for index, part in enumerate(parts)
    )


def closing(code: int, reason: bytes = b"") -> bytes:
    return frame(CLOSE, code.to_bytes(2, "big") + reason)
