"""What an installation says of itself before anything is done to it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import Any

from ..client.answers import ApiError
from .asking import keep_asking
from .rounds import Run, Target
from .wire import Faulty, Site, call, is_whole, opened

PING_S = 0.5
FRAMES_PER_10S = 600  # of a server that tells none


class NotThere(Exception):
    """There is no server of ours. It says what to do."""


@dataclass(frozen=True, slots=True)
class Installation:
    """pings: round trips of a request without work.  frames: that one WebSocket may send in 10 s."""

    url: str
    site: Site
    version: str
    registration: str
    sends_mail: bool
    group_members: int
    frames: int
    pings: Run

    @classmethod
    def look(cls, url: str) -> Installation:
        """url: http or https, checked before. Raises NotThere."""
        try:
            site = Site.reach(url)
            told = call(site, "GET", "/v1/server")
            limits: dict[str, Any] = told["limits"]
            return cls(
                url,
                site,
                told["version"],
                told["registration"],
                told.get("sends_mail", False),
                limits["group_members"],
                limits.get("websocket_messages_per_10s", FRAMES_PER_10S),
                _pings(site),
            )
        except ssl.SSLCertVerificationError as exc:
            raise NotThere(
                f"the certificate of {url} is refused: {exc.verify_message}. If it comes from an authority of"
                " your own, name the file of that in the environment: SSL_CERT_FILE=authority.pem"
            ) from exc
        except ssl.SSLError as exc:
            raise NotThere(f"{url} speaks no TLS ({exc.reason}): is it http://…, or another port?") from exc
        except OSError as exc:
            raise NotThere(
                f"{url} cannot be reached ({exc.strerror or exc}): does the server run, and is this its port?"
            ) from exc
        except (ApiError, Faulty, KeyError, TypeError) as exc:
            raise NotThere(
                f"what answers at {url} is not SecureConnect: give the URL that people open, without a path"
            ) from exc


def _pings(site: Site) -> Run:
    request = site.request("GET", "/livez")
    with opened(site, [request], is_whole) as lines:
        return keep_asking(Target(site), lines, lambda _: request, is_whole, PING_S)
