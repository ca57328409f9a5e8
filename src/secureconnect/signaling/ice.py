"""What a device needs to find a way to the others: STUN and TURN servers, with credentials for a while.

The credentials are those of coturn's `use-auth-secret`: the name says until when they are good and for whom,
the password is an HMAC of the name. Source: draft-uberti-behave-turn-rest-00, section 2.2.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

from msgspec import UNSET, Struct, UnsetType

from ..clock import SECOND_US
from ..config import TurnConfig
from ..identity import UserId


class IceServer(Struct, frozen=True):
    """As RTCIceServer of WebRTC."""

    urls: list[str]
    username: str | UnsetType = UNSET
    credential: str | UnsetType = UNSET


def ice_servers(config: TurnConfig, user: UserId, now_us: int) -> list[IceServer]:
    """user: stands in the name of the credentials, so that the relay can count what is whose."""
    servers = [IceServer(list(config.stun_urls))] if config.stun_urls else []
    if config.urls:
        name = f"{now_us // SECOND_US + config.credentials_s}:{user}"
        digest = hmac.digest(config.secret.encode(), name.encode(), hashlib.sha1)
        servers.append(IceServer(list(config.urls), name, base64.b64encode(digest).decode()))
    return servers
