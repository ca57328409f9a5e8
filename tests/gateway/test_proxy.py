"""The PROXY protocol's header, byte by byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secureconnect.gateway.proxy import BLOCK_BYTES, HEAD_BYTES, LINE_BYTES, BadHeader, Header, parse

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
PORTS = b"\xc0\x00\x01\xbb"
V4 = bytes([192, 0, 2, 1, 198, 51, 100, 2]) + PORTS
V6 = bytes.fromhex("20010db8000000000000000000000001") + bytes.fromhex("20010db8" + "0" * 23 + "2") + PORTS
MAPPED = bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 1]) + bytes(16) + PORTS
UNIX = b"/run/a".ljust(108, b"\0") + b"/run/b".ljust(108, b"\0")
LONGEST = b":".join([b"ffff"] * 8)


def binary(command: int, family: int, block: bytes, length: int | None = None) -> bytes:
    size = len(block) if length is None else length
    return SIGNATURE + bytes([command, family]) + size.to_bytes(2) + block


GOOD = [
    (b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n", "192.0.2.1"),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", "255.255.255.255"),
    (b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", "0.0.0.0"),
    (b"PROXY TCP6 2001:db8::1 ::1 56324 443\r\n", "2001:db8::1"),
    (b"PROXY TCP6 2001:DB8:0:0::1 ::1 56324 443\r\n", "2001:db8::1"),
    (b"PROXY TCP6 %b %b 65535 65535\r\n" % (LONGEST, LONGEST), LONGEST.decode()),
    (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 56324 443\r\n", "192.0.2.1"),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN %b %b 65535 65535\r\n" % (LONGEST, LONGEST), None),
    (b"PROXY UNKNOWN whatever else\r\n", None),
    (binary(0x21, 0x11, V4), "192.0.2.1"),
    (binary(0x21, 0x21, V6), "2001:db8::1"),
    (binary(0x21, 0x21, MAPPED), "192.0.2.1"),
    (binary(0x21, 0x11, V4 + b"\x03\x00\x04abcd"), "192.0.2.1"),  # with fields behind the addresses
    (binary(0x21, 0x11, V4 + bytes(BLOCK_BYTES - len(V4))), "192.0.2.1"),
    (binary(0x21, 0x00, b""), None),
    (binary(0x21, 0x00, V4), None),
    (binary(0x21, 0x31, UNIX), None),
    (binary(0x20, 0x00, b""), None),
    (binary(0x20, 0x11, V4), None),
    (binary(0x20, 0xFF, b"health check"), None),
]

BAD = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01",
    b"proxy TCP4 192.0.2.1 198.51.100.2 56324 443\r\n",
    b"PROXY\r\n",
    b"PROXY \r\n",
    b"PROXY UDP4 192.0.2.1 198.51.100.2 56324 443\r\n",
    b"PROXY UNKNOWNS\r\n",
    b"PROXY TCP4\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 56324\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443 1\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443 \r\n",
    b"PROXY TCP4  192.0.2.1 198.51.100.2 56324 443\r\n",
    b"PROXY TCP4\t192.0.2.1 198.51.100.2 56324 443\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\n\r\n",
    b"PROXY TCP4 192.0.2.01 198.51.100.2 56324 443\r\n",
    b"PROXY TCP4 192.0.2 198.51.100.2 56324 443\r\n",
    b"PROXY TCP4 192.0.2.256 198.51.100.2 56324 443\r\n",
    b"PROXY TCP4 2001:db8::1 ::1 56324 443\r\n",
    b"PROXY TCP6 192.0.2.1 198.51.100.2 56324 443\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 56324 443\r\n",
    b"PROXY TCP6 2001:db8:::1 ::1 56324 443\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 056324 443\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 65536\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 -1 443\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 +1 443\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.2 \xd9\xa1 443\r\n",
    b"PROXY UNKNOWN ".ljust(LINE_BYTES - 1, b"x") + b"\r\n",
    b"PROXY ".ljust(LINE_BYTES, b"x"),
    SIGNATURE[:-1] + b"\r",
    binary(0x11, 0x11, V4),
    binary(0x22, 0x11, V4),
    binary(0x21, 0x10, V4),
    binary(0x21, 0x12, V4),
    binary(0x21, 0x22, V6),
    binary(0x21, 0x32, UNIX),
    binary(0x21, 0x41, V4),
    binary(0x21, 0x11, V4, len(V4) - 1),
    binary(0x21, 0x21, V4),
    binary(0x21, 0x31, UNIX, len(UNIX) - 1),
    binary(0x21, 0x11, V4, BLOCK_BYTES + 1),
    binary(0x20, 0x00, b"", 65535),
]


def test_the_longest_line() -> None:
    line = b"PROXY UNKNOWN %b %b 65535 65535\r\n" % (LONGEST, LONGEST)
    assert (len(LONGEST), len(line)) == (39, LINE_BYTES)


@pytest.mark.parametrize(("data", "source"), GOOD)
def test_a_header_however_it_is_split(data: bytes, source: str | None) -> None:
    for size in range(len(data)):
        assert parse(data[:size]) is None
    header = Header(source, len(data))
    assert parse(data) == header
    assert parse(data + b"GET / HTTP/1.1\r\n") == header
    assert parse(data + data) == header


@pytest.mark.parametrize("data", BAD)
def test_what_is_no_header(data: bytes) -> None:
    """However it is split, it is known at the end, and stays known."""
    refused = False
    for size in range(len(data) + 1):
        try:
            assert parse(data[:size]) is None
            assert not refused
        except BadHeader:
            refused = True
    assert refused


@given(
    st.binary(max_size=600) | st.builds(bytes.__add__, st.sampled_from([b"PROXY ", SIGNATURE]), st.binary())
)
def test_random_bytes(data: bytes) -> None:
    try:
        header = parse(data)
    except BadHeader:
        return
    assert header is None or 0 < header.size <= len(data)


@given(st.sampled_from([data for data, _ in GOOD]), st.data())
def test_a_damaged_header(good: bytes, choices: st.DataObject) -> None:
    """One byte of a good header changed: it is no header, or one of the same length."""
    place = choices.draw(st.integers(0, len(good) - 1))
    damaged = good[:place] + choices.draw(st.binary(min_size=1, max_size=1)) + good[place + 1 :]
    try:
        header = parse(damaged + bytes(BLOCK_BYTES))
    except BadHeader:
        return
    assert header is not None
    assert header.size <= HEAD_BYTES + BLOCK_BYTES
