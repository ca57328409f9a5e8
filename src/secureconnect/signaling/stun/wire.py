"""Messages of STUN and TURN as bytes. Source: RFC 8489 (sections 5, 14), RFC 8656 (section 18)."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import struct
import zlib
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

COOKIE = 0x2112A442
FINGERPRINT_XOR = 0x5354554E
TRANSACTION_BYTES = 12

Address = tuple[str, int]
"""Host, without brackets or scope, and port."""


class Kind(IntEnum):
    REQUEST = 0
    INDICATION = 1
    SUCCESS = 2
    ERROR = 3


class Method(IntEnum):
    BINDING = 1
    ALLOCATE = 3
    REFRESH = 4
    SEND = 6
    DATA = 7
    CREATE_PERMISSION = 8


class Attribute(IntEnum):
    MAPPED_ADDRESS = 0x0001
    USERNAME = 0x0006
    MESSAGE_INTEGRITY = 0x0008
    ERROR_CODE = 0x0009
    UNKNOWN_ATTRIBUTES = 0x000A
    LIFETIME = 0x000D
    XOR_PEER_ADDRESS = 0x0012
    DATA = 0x0013
    REALM = 0x0014
    NONCE = 0x0015
    XOR_RELAYED_ADDRESS = 0x0016
    REQUESTED_TRANSPORT = 0x0019
    MESSAGE_INTEGRITY_SHA256 = 0x001C
    PASSWORD_ALGORITHM = 0x001D
    USERHASH = 0x001E
    XOR_MAPPED_ADDRESS = 0x0020
    FINGERPRINT = 0x8028


OPTIONAL = 0x8000  # from here on an attribute may be passed over by who does not know it

HEADER_BYTES = 20
_HEADER = struct.Struct("!HHI12s")
_ATTRIBUTE = struct.Struct("!HH")
_FAMILIES = {1: 4, 2: 16}  # bytes of an address


class Message(NamedTuple):
    """method: a number, not always one of `Method`.  attributes: in their order; a type may come twice, of
    which the first counts."""

    method: int
    kind: Kind
    transaction: bytes
    attributes: Sequence[tuple[int, bytes]]

    def get(self, attribute: Attribute) -> bytes | None:
        return next((value for each, value in self.attributes if each == attribute), None)


def decode(data: bytes) -> Message:
    """Raises ValueError for what is no such message: whole, with the cookie, and with its check sum right if
    it has one."""
    if len(data) < _HEADER.size:
        raise ValueError("too short")
    kind, length, cookie, transaction = _HEADER.unpack_from(data)
    if kind >> 14 or cookie != COOKIE or length % 4 or length != len(data) - _HEADER.size:
        raise ValueError("not of STUN")
    method = (kind & 0x000F) | (kind & 0x00E0) >> 1 | (kind & 0x3E00) >> 2
    return Message(method, Kind((kind & 0x0100) >> 7 | (kind & 0x0010) >> 4), transaction, _attributes(data))


def _attributes(data: bytes) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    at = _HEADER.size
    while at < len(data):
        attribute, length = _ATTRIBUTE.unpack_from(data, at)
        value = data[at + 4 : at + 4 + length]
        if len(value) != length:
            raise ValueError("an attribute is cut off")
        if attribute == Attribute.FINGERPRINT and (at + 8 != len(data) or value != _fingerprint(data[:at])):
            raise ValueError("the check sum is wrong")
        found.append((attribute, value))
        at += 4 + length + -length % 4
    return found


def encode(
    method: int,
    kind: Kind,
    transaction: bytes,
    attributes: Sequence[tuple[int, bytes | Address]],
    *,
    key: bytes | None = None,
    fingerprint: bool = True,
) -> bytes:
    """key: what MESSAGE-INTEGRITY is made with; without it there is none.

    Addresses are written as in XOR-MAPPED-ADDRESS; raises ValueError for a host that is none.
    """
    body = b"".join(
        _attribute(each, value if isinstance(value, bytes) else _xor_address(value, transaction))
        for each, value in attributes
    )
    type_ = (method & 0x000F) | (method & 0x0070) << 1 | (method & 0x0F80) << 2 | (kind & 1) << 4
    type_ |= (kind & 2) << 7

    def so_far(further: int) -> bytes:
        """What a sum is made of: the length counts the attribute with the sum as well."""
        return _HEADER.pack(type_, len(body) + further, COOKIE, transaction) + body

    if key is not None:
        digest = hmac.digest(key, so_far(24), hashlib.sha1)
        body += _attribute(Attribute.MESSAGE_INTEGRITY, digest)
    if fingerprint:
        body += _attribute(Attribute.FINGERPRINT, _fingerprint(so_far(8)))
    return so_far(0)


def _attribute(attribute: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(attribute, len(value)) + value + bytes(-len(value) % 4)


def _fingerprint(before: bytes) -> bytes:
    return (zlib.crc32(before) ^ FINGERPRINT_XOR).to_bytes(4)


def long_term_key(name: str, realm: str, password: str) -> bytes:
    """RFC 8489, section 9.2.2, with MD5 as coturn expects it."""
    return hashlib.md5(f"{name}:{realm}:{password}".encode(), usedforsecurity=False).digest()


def _xor_address(address: Address, transaction: bytes) -> bytes:
    host = ipaddress.ip_address(address[0]).packed
    family = 1 if len(host) == 4 else 2
    return struct.pack("!xBH", family, address[1] ^ COOKIE >> 16) + _masked(host, transaction)


def address_of(value: bytes, transaction: bytes) -> Address:
    """What XOR-MAPPED-ADDRESS and its like say. Raises ValueError."""
    if len(value) < 4 or _FAMILIES.get(value[1]) != len(value) - 4:
        raise ValueError("no address")
    (port,) = struct.unpack_from("!H", value, 2)
    return str(ipaddress.ip_address(_masked(value[4:], transaction))), port ^ COOKIE >> 16


def _masked(host: bytes, transaction: bytes) -> bytes:
    mask = COOKIE.to_bytes(4) + transaction
    return bytes(one ^ other for one, other in zip(host, mask, strict=False))


def error_code(value: bytes | None) -> tuple[int, str]:
    """Number and words of ERROR-CODE; 0 if it is none."""
    if value is None or len(value) < 4:
        return 0, ""
    return (value[2] & 7) * 100 + value[3], value[4:].decode("utf-8", "replace")
