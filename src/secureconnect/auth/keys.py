"""The keys that sign access tokens: Ed25519, sealed in `secrets` under the name `jwt`.

A new version is verified everywhere for `auth.key_lead_s` before it signs; an old one is verified until the
last token it signed is dead. Every node reads the versions with each look at the revocations, so rotating
needs no restart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec
import structlog
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from .. import audit
from ..clock import MINUTE_US, SECOND_US
from ..config import AuthConfig
from ..deps.contracts import Database, Tx
from ..errors import Conflict, Unavailable
from ..node import Secret, Secrets
from .kept import VerifyingKey
from .outage import Outage, never_away

log = structlog.get_logger(module="auth")

NAME = "jwt"
RELOAD_PAUSE_S = 1.0  # forged key ids cost one read a second at most
SLACK_US = MINUTE_US  # a node that hears late of a new key signs with the old one for that much longer


class SigningKey(msgspec.Struct, frozen=True):
    """kid: names the public key.  retired_us: from when on nothing it signed can be valid; None: not yet
    replaced."""

    kid: str
    private: Ed25519PrivateKey
    public: Ed25519PublicKey
    active_us: int
    retired_us: int | None


class Keyring:
    """The signing keys as this node knows them."""

    def __init__(
        self, config: AuthConfig, db: Database, secrets: Secrets, outage: Outage | None = None
    ) -> None:
        self._config = config
        self._db = db
        self._secrets = secrets
        self._outage = outage or Outage(config, db.now_us, never_away)
        self._lent: dict[str, VerifyingKey] = {}
        self._versions: tuple[int, ...] = ()
        self._keys: tuple[SigningKey, ...] = ()
        self._reloading = trio.Lock()
        self._reloaded_s = float("-inf")
        self._is_stale = True  # the last reading failed, or there was none

    async def ensure(self) -> None:
        """Load the keys; the very first start makes one."""
        await self._secrets.get_or_make(self._db, NAME, _fresh)
        await self.reload()

    async def reload(self) -> None:
        self.hold(await self._db.read(self._secrets.list, NAME))
        self._is_stale = False

    def hold(self, stored: Sequence[Secret]) -> None:
        """Take over what the table holds, oldest first."""
        versions = tuple(secret.version for secret in stored)
        if versions == self._versions:
            return
        ends: list[int | None] = [
            after.active_us + self._config.access_ttl_s * SECOND_US + SLACK_US for after in stored[1:]
        ]
        self._keys = tuple(_unpack(secret, end) for secret, end in zip(stored, [*ends, None], strict=True))
        self._versions = versions
        log.info("signing_keys_loaded", versions=versions)

    def current(self) -> SigningKey:
        """The newest key whose time to sign has come. Raises Unavailable before they are read."""
        if not self._keys:
            raise Unavailable
        now_us = self._db.now_us()
        # the very first key signs at once even if it was made by an early `keys rotate`
        return next((key for key in reversed(self._keys) if key.active_us <= now_us), self._keys[0])

    def verifying(self) -> list[VerifyingKey]:
        """What verifies tokens, for an earlier start's `lend`."""
        if not self._keys:
            return list(self._lent.values())
        return [VerifyingKey(key.kid, key.public.public_bytes_raw(), key.retired_us) for key in self._keys]

    def lend(self, keys: Sequence[VerifyingKey]) -> None:
        """Verify with these until the keys themselves can be read."""
        self._lent = {key.kid: key for key in keys}

    async def find(self, kid: str) -> Ed25519PublicKey | None:
        """What verifies the tokens of that key, if they may still be valid. An unknown id makes the keys be
        read again, once a second at most. Raises Unavailable if they cannot be read."""
        key = self._held(kid)
        if key is None:
            async with self._reloading:
                key = self._held(kid)
                if key is None and trio.current_time() - self._reloaded_s >= RELOAD_PAUSE_S:
                    self._reloaded_s = trio.current_time()
                    self._is_stale = True
                    await self.reload()
                    key = self._held(kid)
        if key is None and self._is_stale:
            raise Unavailable  # it may be one that this node could not read yet
        return key

    def _held(self, kid: str) -> Ed25519PublicKey | None:
        """Judged by the moment the database went away, while it is: as its tokens are."""
        since_us = self._outage.since_us()
        now_us = self._db.now_us() if since_us is None else since_us
        for key in self._keys:
            if key.kid == kid and (key.retired_us is None or now_us < key.retired_us):
                return key.public
        lent = None if self._keys else self._lent.get(kid)
        if lent is None or (lent.retired_us is not None and now_us >= lent.retired_us):
            return None
        return Ed25519PublicKey.from_public_bytes(lent.public)


async def rotate(db: Database, secrets: Secrets, config: AuthConfig, now_us: int) -> int:
    """Add a signing key, for servers that run and for those that do not. Returns its version, which signs
    after `auth.key_lead_s`. Raises Conflict when another rotation was faster."""

    async def unit(tx: Tx) -> int:
        known = await secrets.list(tx, NAME)
        version = known[-1].version + 1 if known else 1
        active_us = now_us + config.key_lead_s * SECOND_US
        if not await secrets.add(tx, NAME, version, value, active_us=active_us, now_us=now_us):
            raise Conflict("Another rotation of the signing key was faster.")
        await audit.record(
            tx, action="auth:key:rotated", actor=None, facts={"version": version}, now_us=now_us
        )
        return version

    value = _fresh()
    return await db.write(unit)


async def replace(tx: Tx, secrets: Secrets, now_us: int) -> None:
    """All of them by one that signs at once: what the old ones signed is worth nothing from then on."""
    await secrets.replace(tx, NAME, _fresh(), now_us)


def _fresh() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes_raw()


def _unpack(secret: Secret, retired_us: int | None) -> SigningKey:
    private = Ed25519PrivateKey.from_private_bytes(secret.value)
    public = private.public_key()
    kid = hashlib.sha256(public.public_bytes_raw()).hexdigest()[:16]
    return SigningKey(kid, private, public, secret.active_us, retired_us)
