"""What bytes of a client come to, in the manner of Autobahn's cases."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterable
from typing import NamedTuple

from .frames import (
    BINARY,
    CLOSE,
    CONT,
    MASK,
    PING,
    PONG,
    RSV1,
    RSV2,
    RSV3,
    TEXT,
    closing,
    fragments,
    frame,
    header,
)

LIMIT = 100_000  # bytes of a message
HELLO = frame(TEXT, b"hello")
Event = tuple[int, bytes]


class Case(NamedTuple):
    """Bytes, and what comes of them.  code: of the violation."""

    name: str
    data: bytes
    events: list[Event]
    code: int | None = None
    deflate: bool = False


def deflate(message: bytes, level: int = 6) -> bytes:
    """What a client with a window of its own for each message sends."""
    deflater = zlib.compressobj(level, wbits=-15)
    return (deflater.compress(message) + deflater.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\0\0\xff\xff")


def finished(message: bytes) -> bytes:
    """The same with a last block, as RFC 7692 allows (7.2.3.4)."""
    deflater = zlib.compressobj(wbits=-15)
    return deflater.compress(message) + deflater.flush(zlib.Z_FINISH) + b"\0"


def sizes() -> Iterable[Case]:
    for size in (0, 1, 125, 126, 127, 128, 65_535, 65_536, LIMIT):
        message = b"*" * size
        yield Case(f"text of {size}", frame(TEXT, message) + HELLO, [(TEXT, message), (TEXT, b"hello")])
        yield Case(f"binary of {size}", frame(BINARY, message), [(BINARY, message)])
    message = b"*" * LIMIT
    yield Case("text over the limit", HELLO + frame(TEXT, message + b"*"), [(TEXT, b"hello")], 1009)
    yield Case("only the header of one over the limit", header(TEXT, LIMIT + 1), [], 1009)
    yield Case("the largest length", header(BINARY, (1 << 63) - 1), [], 1009)
    yield Case("fragments of the limit", fragments(message[:-1], b"", b"*"), [(TEXT, message)])
    yield Case("fragments over the limit", fragments(message[:-1], b"**"), [], 1009)
    unfinished = frame(TEXT, message, fin=False)
    yield Case("the header of a fragment too many", unfinished + header(CONT, 1, fin=False), [], 1009)
    yield Case("a limit for each message", frame(TEXT, message) * 2, [(TEXT, message)] * 2)
    ping = frame(PING, b"p" * 125)
    yield Case("pings do not count", unfinished + ping + frame(CONT), [(PING, b"p" * 125), (TEXT, message)])


def masks() -> Iterable[Case]:
    for mask in (bytes(4), b"\xff" * 4, b"\0\1\2\3", b"hell"):
        data = frame(TEXT, b"hello", mask=mask)
        yield Case(f"mask {mask.hex()}", data, [(TEXT, b"hello")])
    for opcode in (TEXT, BINARY, CLOSE, PING, PONG):
        yield Case(f"no mask on {opcode}", HELLO + header(opcode, 0, bit=0), [(TEXT, b"hello")], 1002)
    yield Case("no mask on a fragment", frame(TEXT, fin=False) + header(CONT, 0, bit=0), [], 1002)


def headers() -> Iterable[Case]:
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield Case(f"opcode {opcode}", HELLO + frame(opcode) + HELLO, [(TEXT, b"hello")], 1002)
        yield Case(f"opcode {opcode} in a message", frame(TEXT, b"a", fin=False) + frame(opcode), [], 1002)
    for opcode in (TEXT, BINARY, CLOSE, PING, PONG):
        for rsv in (RSV1, RSV2, RSV3, RSV1 | RSV2 | RSV3):
            yield Case(f"reserved {rsv:#x} on {opcode}", frame(opcode, rsv=rsv), [], 1002)
    for opcode in (TEXT, BINARY):
        for rsv in (RSV2, RSV3, RSV1 | RSV2):
            yield Case(f"reserved {rsv:#x} with compression", frame(opcode, rsv=rsv), [], 1002, deflate=True)
    for opcode in (CLOSE, PING, PONG):
        yield Case(f"compressed {opcode}", frame(opcode, rsv=RSV1), [], 1002, deflate=True)
        yield Case(f"{opcode} in fragments", frame(opcode, fin=False), [], 1002)
        yield Case(f"{opcode} of 126", frame(opcode, b"x" * 126), [], 1002)
        yield Case(f"{opcode} of 65536", frame(opcode, b"x" * 65_536), [], 1002)
        yield Case(f"{opcode} of 5 in a long header", header(opcode, 5, extended=2), [], 1002)
    yield Case("125 in two bytes", header(TEXT, 125, extended=2) + MASK + b"x" * 125, [], 1002)
    yield Case("125 in eight bytes", header(TEXT, 125, extended=8) + MASK + b"x" * 125, [], 1002)
    yield Case("65535 in eight bytes", header(TEXT, 65_535, extended=8) + MASK + b"x" * 65_535, [], 1002)
    yield Case("the top bit of a length", header(TEXT, 1 << 63, extended=8), [], 1002)
    yield Case("all bits of a length", header(TEXT, (1 << 64) - 1, extended=8), [], 1002)


def controls() -> Iterable[Case]:
    full = bytes(range(125))
    yield Case("ping", frame(PING), [(PING, b"")])
    yield Case("ping with any bytes", frame(PING, b"\0\xff\xfe"), [(PING, b"\0\xff\xfe")])
    yield Case("ping of 125", frame(PING, full), [(PING, full)])
    yield Case("a pong nobody asked for", frame(PONG, full) + HELLO, [(PONG, full), (TEXT, b"hello")])
    pings = b"".join(frame(PING, b"%d" % number) for number in range(10))
    yield Case("ten pings", pings, [(PING, b"%d" % number) for number in range(10)])


def fragmentation() -> Iterable[Case]:
    yield Case("two fragments", fragments(b"hel", b"lo") + HELLO, [(TEXT, b"hello")] * 2)
    yield Case("each byte a fragment", fragments(*(bytes((byte,)) for byte in b"hello")), [(TEXT, b"hello")])
    yield Case("binary in fragments", fragments(b"\xff", b"\xfe", opcode=BINARY), [(BINARY, b"\xff\xfe")])
    yield Case("empty fragments", fragments(b"", b"", b""), [(TEXT, b"")])
    yield Case("only the middle is not empty", fragments(b"", b"hello", b""), [(TEXT, b"hello")])
    inside = frame(TEXT, b"hel", fin=False) + frame(PING, b"1") + frame(CONT, b"l", fin=False)
    inside += frame(PING, b"2") + frame(PONG, b"3") + frame(CONT, b"o")
    pings = [(PING, b"1"), (PING, b"2"), (PONG, b"3")]
    yield Case("control frames between fragments", inside, [*pings, (TEXT, b"hello")])
    yield Case("a continuation of nothing", frame(CONT, b"x"), [], 1002)
    yield Case("a fragment of nothing", frame(CONT, b"x", fin=False), [], 1002)
    yield Case("a continuation of what is over", HELLO + frame(CONT, b"x"), [(TEXT, b"hello")], 1002)
    yield Case("a second ending", fragments(b"a", b"b") + frame(CONT, b"c"), [(TEXT, b"ab")], 1002)
    for opcode in (TEXT, BINARY):
        for fin in (True, False):
            data = frame(TEXT, b"a", fin=False) + frame(opcode, b"b", fin=fin)
            yield Case(f"{opcode} inside a message, {fin}", data, [], 1002)
    data = frame(TEXT, b"a", fin=False) + frame(CONT, b"b", rsv=RSV1)
    yield Case("a reserved bit on a continuation", data, [], 1002)
    yield Case("a closing inside a message", frame(TEXT, b"a", fin=False) + frame(CLOSE), [(CLOSE, b"")])


GOOD_TEXTS = (
    "κόσμε",
    "\0",
    "\x7f\x80\u07ff\u0800\uffff\U00010000\U0010ffff",
    "\ud7ff\ue000\ufffd",
    "\ufeff",
    "\ufdd0\ufffe\U0001fffe",  # no characters, but code points
    "Hello-µ@ßöäüàá-UTF-8!!",
    "🙂" * 50,
)
BAD_TEXTS = {
    "a continuation byte": b"\x80",
    "continuation bytes": b"\x80\xbf" * 3,
    "a lead byte at the end": b"hello \xc3",
    "a lead byte and a space": b"\xe2 ",
    "cut after two of three": b"\xe2\x82",
    "cut after three of four": b"\xf0\x9f\x99",
    "overlong, two bytes": b"\xc0\xaf",
    "overlong, three bytes": b"\xe0\x80\xaf",
    "overlong, four bytes": b"\xf0\x80\x80\xaf",
    "an overlong zero": b"\xc0\x80",
    "a high surrogate": b"\xed\xa0\x80",
    "a pair of surrogates": b"\xed\xa0\xbd\xed\xb9\x82",
    "a low surrogate": b"\xed\xbf\xbf",
    "past the last code point": b"\xf4\x90\x80\x80",
    "five bytes": b"\xf8\x88\x80\x80\x80",
    "six bytes": b"\xfc\x84\x80\x80\x80\x80",
    "fe": b"\xfe",
    "ff": b"\xff",
}


def encoding() -> Iterable[Case]:
    for text in GOOD_TEXTS:
        message = text.encode()
        yield Case(f"text {text!a:.40}", frame(TEXT, message), [(TEXT, message)])
        pieces = [message[at : at + 1] for at in range(len(message))] or [b""]
        yield Case(f"text {text!a:.40} in bytes", fragments(*pieces, b""), [(TEXT, message)])
    for name, message in BAD_TEXTS.items():
        yield Case(name, HELLO + frame(TEXT, b"\xc3\xa9" + message) + HELLO, [(TEXT, b"hello")], 1007)
        pieces = [message[at : at + 1] for at in range(len(message))]
        yield Case(f"{name}, in fragments", fragments(b"\xc3\xa9", *pieces, b""), [], 1007)
        yield Case(f"{name}, binary", frame(BINARY, message), [(BINARY, message)])
    data = frame(TEXT, b"ok \xf4", fin=False) + frame(CONT, b"\x90", fin=False)
    yield Case("wrong before the message is over", data, [], 1007)
    data = frame(TEXT, b"ok \xed", fin=False) + frame(CONT, b"\xa0", fin=False)
    yield Case("a surrogate before it is over", data, [], 1007)
    data = frame(TEXT, b"ok \xf4", fin=False) + frame(CONT, fin=False) + frame(CONT, b"\x8f\xbf", fin=False)
    yield Case("not wrong yet", data, [])
    data = frame(TEXT, b"ok \xf4", fin=False) + frame(PING) + frame(CONT)
    yield Case("cut at the end of the last fragment", data, [(PING, b"")], 1007)


def closings() -> Iterable[Case]:
    yield Case("a closing without code", frame(CLOSE) + HELLO, [(CLOSE, b"")])
    for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4999):
        payload = code.to_bytes(2, "big")
        yield Case(f"closing with {code}", closing(code) + HELLO, [(CLOSE, payload)])
    for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535):
        yield Case(f"closing with {code}", closing(code), [], 1002)
    yield Case("a closing of one byte", frame(CLOSE, b"\x03"), [], 1002)
    reason = ("é" * 61 + "x").encode()
    yield Case("a reason of 123", closing(1000, reason), [(CLOSE, b"\x03\xe8" + reason)])
    yield Case("a reason of 124", closing(1000, reason + b"x"), [], 1002)
    for name, wrong in BAD_TEXTS.items():
        yield Case(f"a reason with {name}", closing(1000, wrong), [], 1007)
    yield Case("a wrong code and reason", closing(1005, b"\xff"), [], 1007)
    yield Case("nonsense after a closing", closing(1000) + b"\xff" * 10, [(CLOSE, b"\x03\xe8")])


def compression() -> Iterable[Case]:
    for message in (b"", b"hello", b"hello " * 3000, random.Random(1).randbytes(40_000).hex().encode()):
        for level in (0, 1, 9):
            data = frame(TEXT, deflate(message, level), rsv=RSV1)
            yield Case(f"{len(message)} at {level}", data * 2, [(TEXT, message)] * 2, deflate=True)
        data = frame(TEXT, finished(message), rsv=RSV1)
        yield Case(f"{len(message)} with a last block", data + data, [(TEXT, message)] * 2, deflate=True)
    packed = deflate(b"hello")
    yield Case("the example of RFC 7692", b"\xc1\x87\0\0\0\0\xf2\x48\xcd\xc9\xc9\x07\x00", [(TEXT, b"Hello")],
               deflate=True)  # fmt: skip
    yield Case("not compressed", HELLO, [(TEXT, b"hello")], deflate=True)
    pieces = [packed[at : at + 1] for at in range(len(packed))]
    yield Case("in fragments", fragments(*pieces, b"", rsv=RSV1), [(TEXT, b"hello")], deflate=True)
    data = frame(BINARY, deflate(b"\xff"), rsv=RSV1)
    yield Case("binary", data, [(BINARY, b"\xff")], deflate=True)
    inside = frame(TEXT, packed[:3], fin=False, rsv=RSV1) + frame(PING, b"p") + frame(CONT, packed[3:])
    yield Case("a ping between", inside, [(PING, b"p"), (TEXT, b"hello")], deflate=True)
    data = frame(TEXT, packed[:3], fin=False, rsv=RSV1) + frame(CONT, packed[3:], rsv=RSV1)
    yield Case("the bit on a continuation", data, [], 1002, deflate=True)
    data = frame(TEXT, packed[:3], fin=False, rsv=RSV1) + frame(TEXT, packed, rsv=RSV1)
    yield Case("one inside another", data, [], 1002, deflate=True)
    yield Case("nobody agreed", frame(TEXT, packed, rsv=RSV1), [], 1002)
    yield Case("not UTF-8", frame(TEXT, deflate(b"\xed\xa0\x80"), rsv=RSV1), [], 1007, deflate=True)
    most = b"*" * LIMIT
    yield Case("inflates to the limit", frame(TEXT, deflate(most), rsv=RSV1), [(TEXT, most)], deflate=True)
    data = frame(TEXT, deflate(most + b"*"), rsv=RSV1)
    yield Case("inflates past the limit", data, [], 1009, deflate=True)
    yield Case("nonsense", frame(TEXT, b"\xff\xff\xff", rsv=RSV1), [], 1007, deflate=True)
    data = frame(TEXT, deflate(b"hello, hello, hello")[:-4], rsv=RSV1)
    yield Case("cut in a block", data, [], 1007, deflate=True)
    data = frame(BINARY, deflate(b"hello, hello, hello", 0)[:-15], rsv=RSV1)
    yield Case("binary, cut in a stored block", data, [], 1007, deflate=True)
    data = frame(BINARY, b"\xe3\xb7\x0f\x13\xe3[\xf0h\x86\xdb", rsv=RSV1)  # the fuzzer's
    yield Case("a block that goes on past its message", data, [], 1007, deflate=True)


CASES = [
    *sizes(), *masks(), *headers(), *controls(), *fragmentation(), *encoding(), *closings(), *compression()
]  # fmt: skip
