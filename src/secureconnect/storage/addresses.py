"""Addresses of our own at which one file, or a part of it, is written or read, without a token of the caller.

Each is signed for one method, one file, a size and a time, with a key that every node derives from the master
key: an address given out by one node is good on the others.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import struct
import uuid
from typing import Literal

import msgspec

from ..errors import AddressExpired, NotFound
from ..identity import FileId, NodeId, UserId

Method = Literal["GET", "PUT"]

_SIGNED = struct.Struct(">3s16sqq16sH")
_MAC_BYTES = hashlib.sha256().digest_size
_TOKEN = re.compile(r"[A-Za-z0-9_-]{114}")  # 53 + 32 bytes


class Grant(msgspec.Struct, frozen=True):
    """size_bytes: of the file or part.  expires_us: in the database's time.  user_id: who asked for it.
    part: its number; 0: all."""

    method: Method
    file_id: FileId
    size_bytes: int
    expires_us: int
    user_id: UserId
    part: int = 0


class Addresses:
    """key: for HMAC-SHA256.  public_url: as the setting; empty: addresses are paths."""

    def __init__(self, key: bytes, public_url: str) -> None:
        self._key = key
        self._base = f"{public_url.rstrip('/')}/v1/storage"

    def of(self, grant: Grant, node_id: NodeId | None) -> str:
        """node_id: in whose spool the file lies, or is to lie, by which a balancer finds that node."""
        place = "objects" if node_id is None else f"spool/{node_id}"
        return f"{self._base}/{place}/{self.sign(grant)}"

    def sign(self, grant: Grant) -> str:
        signed = _SIGNED.pack(
            grant.method.encode(),
            uuid.UUID(grant.file_id).bytes,
            grant.size_bytes,
            grant.expires_us,
            uuid.UUID(grant.user_id).bytes,
            grant.part,
        )
        return base64.urlsafe_b64encode(signed + self._mac(signed)).decode().rstrip("=")

    def read(self, token: str, method: Method, now_us: int) -> Grant:
        """Raises NotFound for what was not signed here for this method, AddressExpired for what was."""
        if not _TOKEN.fullmatch(token):
            raise NotFound
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        signed, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(signed)):
            raise NotFound
        verb, file_id, size_bytes, expires_us, user_id, part = _SIGNED.unpack(signed)
        if verb.decode() != method:
            raise NotFound
        if expires_us <= now_us:
            raise AddressExpired
        file, user = (str(uuid.UUID(bytes=each)) for each in (file_id, user_id))
        return Grant(method, FileId(file), size_bytes, expires_us, UserId(user), part)

    def _mac(self, signed: bytes) -> bytes:
        return hmac.digest(self._key, signed, "sha256")
