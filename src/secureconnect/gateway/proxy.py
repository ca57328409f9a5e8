"""The PROXY protocol, versions 1 and 2: what a proxy in front of us says of the client, before its bytes.

Source: HAProxy's proxy-protocol.txt, sections 2.1 (a line of text) and 2.2 (binary).
"""

from __future__ import annotations

import ipaddress
import re

import msgspec

LINE_BYTES = 107  # the longest line of version 1, its CRLF included
HEAD_BYTES = 16  # of version 2, before its addresses
BLOCK_BYTES = 536  # of addresses and the fields after them; what a TCP segment always takes

_TEXT = b"PROXY "
_BINARY = b"\r\n\r\n\0\r\nQUIT\n"
_PORT = rb"(?:0|[1-9][0-9]{0,4})"
_LINE = re.compile(rb"PROXY (?:UNKNOWN(?: .*)?|TCP([46]) (\S+) (\S+) (%b) (%b))" % (_PORT, _PORT))
_LOCAL, _PROXY = 0x20, 0x21  # version and command
# family and transport → bytes of both addresses and ports; of ours, only the first two name a client
_TCP4, _TCP6, _UNSPECIFIED, _UNIX = 0x11, 0x21, 0x00, 0x31
_ADDRESS_BYTES = {_TCP4: 12, _TCP6: 36, _UNSPECIFIED: 0, _UNIX: 216}


class BadHeader(Exception):
    """These bytes are no PROXY header that a proxy of TCP connections sends."""


class Header(msgspec.Struct, frozen=True):
    """source: the client's address; None where the proxy names none, and the connection's own peer counts.
    size: bytes of the header; the client's own follow."""

    source: str | None
    size: int


def parse(data: bytes) -> Header | None:
    """The header that `data` begins with; None while it may still become one. Raises BadHeader."""
    if data.startswith(_BINARY[: len(data)]):
        return _binary(data) if len(data) >= HEAD_BYTES else None
    if data.startswith(_TEXT[: len(data)]):
        return _line(data)
    raise BadHeader("neither version of the PROXY protocol begins like this")


def _line(data: bytes) -> Header | None:
    line, end, _ = data[:LINE_BYTES].partition(b"\r\n")
    if not end:
        if len(data) < LINE_BYTES:
            return None
        raise BadHeader(f"the line does not end within {LINE_BYTES} bytes")
    match = _LINE.fullmatch(line)
    if match is None:
        raise BadHeader("the line is malformed")
    size = len(line) + len(end)
    version, *addresses = match.groups()
    if version is None:
        return Header(None, size)
    source, destination, *ports = (part.decode("latin-1") for part in addresses)
    if any(int(port) > 65535 for port in ports):
        raise BadHeader("there is no such port")
    _address(destination, int(version))
    return Header(_address(source, int(version)), size)


def _address(text: str, version: int) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise BadHeader("an address is malformed") from None
    if address.version != version or "%" in text:
        raise BadHeader("an address is not of the family named")
    return _plain(address)


def _plain(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """IPv4 as such, also when a proxy that listens on both writes it as `::ffff:192.0.2.1`."""
    return str(getattr(address, "ipv4_mapped", None) or address)


def _binary(data: bytes) -> Header | None:
    command, family = data[12], data[13]
    length = int.from_bytes(data[14:HEAD_BYTES])
    if command not in (_LOCAL, _PROXY):
        raise BadHeader("the version or the command is not known")
    if length > BLOCK_BYTES:
        raise BadHeader(f"the header is longer than {HEAD_BYTES + BLOCK_BYTES} bytes")
    # a proxy that speaks for itself may name any family
    if command == _PROXY and length < _ADDRESS_BYTES.get(family, BLOCK_BYTES + 1):
        raise BadHeader("the family is not one of TCP's, or its addresses are cut off")
    size = HEAD_BYTES + length
    if len(data) < size:
        return None
    source = None
    if command == _PROXY and family == _TCP4:
        source = str(ipaddress.IPv4Address(data[16:20]))
    elif command == _PROXY and family == _TCP6:
        source = _plain(ipaddress.IPv6Address(data[16:32]))
    return Header(source, size)
