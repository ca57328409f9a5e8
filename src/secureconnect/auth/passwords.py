"""Passwords: argon2id in threads (`cores`).

A password is compared in Unicode form NFC (RFC 8265, OpaqueString): the same letters typed on another
keyboard are the same password, and nothing else is folded.
"""

from __future__ import annotations

import base64
import secrets
import unicodedata

from argon2 import PasswordHasher, Type
from argon2.exceptions import VerifyMismatchError
from argon2.low_level import ARGON2_VERSION

from ..config import AuthConfig
from .cores import Cores


class Passwords:
    """Hashes and verifies; what waits for a core is bounded by `auth.argon2_waiting`."""

    def __init__(self, config: AuthConfig) -> None:
        self._hasher = PasswordHasher(
            time_cost=config.argon2_time_cost,
            memory_cost=config.argon2_memory_kib,
            parallelism=1,
            type=Type.ID,
        )
        self._cores = Cores(config.argon2_waiting)
        self._dummy = _made_up(self._hasher)
        self._head = _head(self._hasher)

    async def hash(self, password: str) -> str:
        """Raises Unavailable when too many wait."""
        return await self._cores.run(self._hasher.hash, _normal(password))

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """password_hash: None for an unknown user, which costs the same time and is never right.
        Raises Unavailable when too many wait."""
        right = await self._cores.run(self._verify, password_hash or self._dummy, _normal(password))
        return right and password_hash is not None

    def is_outdated(self, password_hash: str) -> bool:
        """Whether the hash was made with other parameters than today's."""
        return len(password_hash) != len(self._dummy) or not password_hash.startswith(self._head)

    def _verify(self, password_hash: str, password: bytes) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except VerifyMismatchError:
            return False


def _made_up(hasher: PasswordHasher) -> str:
    """The hash that stands in for unknown users: it takes the time of a real one to compare with, and none to
    make."""
    salt, digest = map(_base64, (hasher.salt_len, hasher.hash_len))
    return f"{_head(hasher)}{salt}${digest}"


def _head(hasher: PasswordHasher) -> str:
    """What every hash of these parameters begins with; it has the length of the one made up, besides."""
    cost = f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
    return f"$argon2id$v={ARGON2_VERSION}${cost}$"


def _base64(size: int) -> str:
    """So many random bytes, without padding."""
    return base64.b64encode(secrets.token_bytes(size)).rstrip(b"=").decode()


def _normal(password: str) -> bytes:
    return unicodedata.normalize("NFC", password).encode()
