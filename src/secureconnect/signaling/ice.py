"""What a device needs to find a way to the others: STUN and TURN servers, with credentials for a while.

The credentials are those of coturn's `use-auth-secret`: the name says until when they are good and for whom,
the password is an HMAC of the name. Source: draft-uberti-behave-turn-rest-00, section 2.2.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from typing import NamedTuple

from msgspec import UNSET, Struct, UnsetType

from ..clock import SECOND_US
from ..config import TurnConfig
from ..identity import UserId


class IceServer(Struct, frozen=True):
    """As RTCIceServer of WebRTC."""

    urls: list[str]
    username: str | UnsetType = UNSET
    credential: str | UnsetType = UNSET


class Credentials(NamedTuple):
    name: str
    password: str


def credentials(secret: str, user: str, expires_s: int) -> Credentials:
    """Those of one person for the TURN servers.

    user: the relay counts by it what is whose, whatever the time in front.  expires_s: Unix seconds.
    """
    name = f"{expires_s}:{user}"
    digest = hmac.digest(secret.encode("utf-8", "surrogateescape"), name.encode(), hashlib.sha1)
    return Credentials(name, base64.b64encode(digest).decode())


def ice_servers(config: TurnConfig, own: Sequence[str], user: UserId, now_us: int) -> list[IceServer]:
    """own: addresses of the STUN server in this process; told if no other is set."""
    stun = list(config.stun_urls or own)
    servers = [IceServer(stun)] if stun else []
    if config.urls:
        name, password = credentials(config.secret, user, now_us // SECOND_US + config.credentials_s)
        servers.append(IceServer(list(config.urls), name, password))
    return servers
