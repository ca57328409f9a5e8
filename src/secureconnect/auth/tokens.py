"""Access tokens: JWTs signed with Ed25519, and the memory of those verified lately.

A token names user, session and device and ends after `auth.access_ttl_s`. Role and ban are not in it: they
are read from the session. Refresh tokens and tickets are plain random text; only their SHA-256 is stored.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

import msgspec
from jwt import InvalidTokenError, PyJWS

from ..clock import SECOND_US
from ..config import AuthConfig
from ..errors import InvalidToken, TokenExpired
from ..identity import DeviceId, Principal, Role, SessionId, UserId
from .keys import Keyring

ALGORITHM = "EdDSA"
ISSUER = "secureconnect"

K = TypeVar("K")
V = TypeVar("V")

_JWS = PyJWS(algorithms=[ALGORITHM])


class Claims(msgspec.Struct, frozen=True):
    """iat, exp: Unix seconds."""

    iss: str
    sub: UserId
    sid: SessionId
    did: DeviceId
    iat: int
    exp: int


class AccessTokens:
    """now_us: the database's time, by which all nodes judge expiry."""

    def __init__(self, config: AuthConfig, keyring: Keyring, now_us: Callable[[], int]) -> None:
        self._ttl_s = config.access_ttl_s
        self._room = config.token_cache
        self._keyring = keyring
        self._now_us = now_us
        self._verified: OrderedDict[str, Principal] = OrderedDict()
        self._roles: OrderedDict[SessionId, Role] = OrderedDict()
        self._unread: OrderedDict[str, Principal] = OrderedDict()
        self._unread_since_us: int | None = None

    def issue(self, user: UserId, session: SessionId, device: DeviceId) -> str:
        key = self._keyring.current()
        now_s = self._now_us() // SECOND_US
        claims = Claims(ISSUER, user, session, device, now_s, now_s + self._ttl_s)
        return _JWS.encode(msgspec.json.encode(claims), key.private, ALGORITHM, {"kid": key.kid})

    async def verify(self, token: str, at_us: int) -> Claims:
        """What a token of ours claims that was valid at that time. Raises InvalidToken, TokenExpired."""
        try:
            kid = _JWS.get_unverified_header(token).get("kid")
            key = await self._keyring.find(kid) if isinstance(kid, str) else None
            if key is None:
                raise InvalidToken
            # the algorithm is the key's, whatever the token says of itself
            signed = _JWS.decode_complete(token, key, [ALGORITHM])["payload"]
            claims = msgspec.json.decode(signed, type=Claims)
        except (InvalidTokenError, msgspec.MsgspecError, UnicodeError) as exc:
            raise InvalidToken from exc
        if claims.iss != ISSUER:
            raise InvalidToken
        if claims.exp * SECOND_US <= at_us:
            raise TokenExpired
        return claims

    def known(self, token: str) -> Principal | None:
        """The principal of a token remembered, be it expired or not."""
        principal = self._verified.get(token)
        if principal is not None:
            self._verified.move_to_end(token)
        return principal

    def remember(self, token: str, principal: Principal) -> None:
        """Keep it; the one unused for longest makes room."""
        _keep(self._verified, token, principal, self._room)
        _keep(self._roles, principal.session_id, principal.role, self._room)

    def known_unread(self, token: str, since_us: int) -> Principal | None:
        """The principal of a token taken without its session, in the outage that began then."""
        return self._unread.get(token) if since_us == self._unread_since_us else None

    def remember_unread(self, token: str, claims: Claims, since_us: int) -> Principal:
        """`unread`, kept for that outage."""
        if since_us != self._unread_since_us:
            self._unread_since_us = since_us
            self._unread.clear()
        principal = self.unread(claims)
        _keep(self._unread, token, principal, self._room)
        return principal

    def unread(self, claims: Claims) -> Principal:
        """The principal of a token whose session cannot be read. Its role is the one last read, or `user`."""
        role = self._roles.get(claims.sid, "user")
        return Principal(claims.sub, claims.sid, claims.did, role, claims.exp * SECOND_US)


def _keep(held: OrderedDict[K, V], key: K, value: V, room: int) -> None:
    held[key] = value
    held.move_to_end(key)
    if len(held) > room:
        held.popitem(last=False)


def random_token() -> str:
    """256 bits in 43 URL-safe characters."""
    return secrets.token_urlsafe(32)


def digest(token: str) -> bytes:
    """What is stored instead of a random token: having 256 bits, it needs neither salt nor stretching."""
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()
