"""Push services: Web Push wherever a browser's maker keeps it, FCM where Google does.

Which services there are is up to the devices. Each is judged by itself, by its origin: one that fails is left
alone for a pause that doubles, and then tried by one push alone; what goes through the others does not wait.
The dependency is away when every service that was asked lately is.
"""

from __future__ import annotations

import ssl
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec
import structlog
import trio

from .. import clock
from ..clock import SECOND_US
from ..config import PushConfig
from ..errors import Unavailable
from ..settings import BadSetting
from .contracts import Deferred, FcmTarget, Push, Undeliverable, Unregistered, WebPushTarget
from .guard import Guard
from .public import is_public
from .webpush import AUTH_BYTES, Vapid, encrypt, is_point, new_key

if TYPE_CHECKING:
    from .fcm import Fcm
    from .outward import Answer, Outward

log = structlog.get_logger(module="deps")

SERVICES = 1_000  # remembered, by origin
FCM = "fcm"  # the way of what goes through it; of the others it is their origin
HTTPS_PORT = 443
CLOSE_S = 2.0
FORGET_S = 5.0  # between two looks for those that can be tried again


class _Service:
    """failures: in a row.  away_until: on trio's clock; left alone so long.  is_proven: the last push was
    answered."""

    __slots__ = ("away_until", "failures", "is_proven")

    def __init__(self) -> None:
        self.failures = 0
        self.away_until = 0.0
        self.is_proven = False


class PushServices:
    """contracts.Pusher.  contact: of the operator, told to push services.  guard: shows how they are."""

    def __init__(self, config: PushConfig, contact: str, guard: Guard) -> None:
        self._config = config
        self._contact = contact
        self._guard = guard
        self._vapid: Vapid | None = None
        self._services: OrderedDict[str, _Service] = OrderedDict()
        self._trusted = trusted_by(config.ca_file) if config.ca_file else None
        self._opened: dict[bool, Outward] = {}
        self._fcm: Fcm | None = None
        if config.fcm_account:
            from .fcm import Fcm, read_account

            self._fcm = Fcm(*read_account(config.fcm_account), config.fcm_url, self._post_anywhere)

    def flaw(self, target: FcmTarget | WebPushTarget) -> str | None:
        if isinstance(target, FcmTarget):
            return "service" if self._fcm is None else None
        if not self._may_go_to(target.endpoint):
            return "endpoint"
        if not is_point(target.p256dh):
            return "p256dh"
        return None if len(target.auth) == AUTH_BYTES else "auth"

    def _may_go_to(self, endpoint: str) -> bool:
        """Names are looked up when something is sent there."""
        try:
            parts = urlsplit(endpoint)
            host, port = parts.hostname, parts.port
        except ValueError:
            return False
        if parts.scheme != "https" or not host or port == 0 or "@" in parts.netloc or "#" in endpoint:
            return False
        is_address = ":" in host or host.replace(".", "").isdigit()
        return not is_address or self._config.allow_private or is_public(host)

    def way(self, target: FcmTarget | WebPushTarget) -> str:
        return FCM if isinstance(target, FcmTarget) else origin_of(target.endpoint)

    def is_proven(self, way: str) -> bool:
        service = self._services.get(way)
        return service is not None and service.is_proven

    def rest_s(self, way: str) -> float:
        service = self._services.get(way)
        return 0.0 if service is None else max(0.0, service.away_until - trio.current_time())

    def room_for(self, way: str) -> int:
        service = self._services.get(way)
        if service is None or not service.failures:
            return self._config.senders_each
        return 0 if self.rest_s(way) > 0 else 1

    def new_key(self) -> bytes:
        return new_key()

    def identify(self, key: bytes) -> str:
        self._vapid = Vapid(key, self._contact)
        return self._vapid.public_key

    async def close(self) -> None:
        with trio.move_on_after(CLOSE_S, shield=True):
            for outward in self._opened.values():
                await outward.close()

    async def send(self, push: Push) -> None:
        way = self.way(push.target)
        service = self._services.setdefault(way, _Service())
        self._services.move_to_end(way)
        if len(self._services) > SERVICES:
            self._services.popitem(last=False)
        if (rest_s := self.rest_s(way)) > 0:
            raise Deferred("its push service is away", rest_s)
        try:
            with trio.fail_after(self._config.call_s):
                await self._send(push)
        except trio.TooSlowError as exc:
            self._failed(service, way)
            raise Deferred("its push service did not answer in time") from exc
        except Unavailable as exc:
            self._failed(service, way, exc.retry_after_s or 0)
            raise Deferred(str(exc), exc.retry_after_s or 0) from exc
        except (Deferred, Undeliverable, Unregistered):
            self._answered(service)
            raise
        self._answered(service)

    async def forget_forever(self) -> None:
        """A service that could be asked again is not away any more, though nobody asks."""
        while True:
            await trio.sleep(FORGET_S)
            self.forget_once()

    def forget_once(self) -> None:
        now = trio.current_time()
        if not self._guard.is_up and any(each.away_until <= now for each in self._services.values()):
            self._guard.find(None)

    async def _send(self, push: Push) -> None:
        now_s = clock.now_us() // SECOND_US
        if isinstance(push.target, FcmTarget):
            if self._fcm is None:
                raise Undeliverable("there is no account for FCM")
            await self._fcm.send(push, push.target, now_s)
            return
        if self._vapid is None:
            raise Deferred("the key to sign with is not known yet")
        body = encrypt(msgspec.json.encode(push.data), push.target.p256dh, push.target.auth)
        headers = {
            "Authorization": self._vapid.authorization(origin_of(push.target.endpoint), now_s),
            "Content-Encoding": "aes128gcm",
            "Content-Type": "application/octet-stream",
            "TTL": str(push.ttl_s),
            "Topic": push.topic,
            "Urgency": "high" if push.is_urgent else "normal",
        }
        outward = self._outward(only_public=not self._config.allow_private)
        await outward.hand_over(push.target.endpoint, headers, body)

    def _outward(self, *, only_public: bool) -> Outward:
        """Opened when something goes there: most servers have nothing to push on most days."""
        if only_public not in self._opened:
            from .outward import Outward

            self._opened[only_public] = Outward(
                connections=self._config.senders,
                connect_s=self._config.connect_s,
                trusted=self._trusted or ssl.create_default_context(),
                only_public=only_public,
            )
        return self._opened[only_public]

    async def _post_anywhere(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """To what the operator names, which may be anywhere."""
        return await self._outward(only_public=False).post(url, headers, body)

    def _failed(self, service: _Service, way: str, retry_after_s: float = 0) -> None:
        service.failures, service.is_proven = service.failures + 1, False
        doubled = self._config.first_pause_s * 2 ** min(service.failures - 1, 20)
        pause_s = min(max(doubled, retry_after_s), self._config.longest_pause_s)
        service.away_until = trio.current_time() + pause_s
        log.info("push_service_failed", service=way, failures=service.failures)
        if all(each.failures for each in self._services.values()):
            self._guard.find("unreachable")

    def _answered(self, service: _Service) -> None:
        service.failures, service.away_until, service.is_proven = 0, 0.0, True
        self._guard.find(None)


def origin_of(endpoint: str) -> str:
    """However it is written there: in lower case, without the port that everybody knows. Source: RFC 6454,
    section 6.2."""
    parts = urlsplit(endpoint)
    host = parts.hostname or ""
    port = "" if parts.port in (None, HTTPS_PORT) else f":{parts.port}"
    return f"https://[{host}]{port}" if ":" in host else f"https://{host}{port}"


def contact_of(config: PushConfig, public_url: str) -> str:
    """Whom push services could write to."""
    host = urlsplit(public_url).hostname or "localhost"
    return config.contact or (public_url if public_url.startswith("https://") else f"mailto:no-reply@{host}")


def trusted_by(ca_file: str) -> ssl.SSLContext:
    """The system's authorities, and those in the file. Raises BadSetting."""
    trusted = ssl.create_default_context()
    try:
        trusted.load_verify_locations(ca_file)
    except OSError as exc:  # ssl's errors are some, too
        raise BadSetting(f"push.ca_file = {ca_file!r} cannot be read: {exc.strerror}") from None
    return trusted


class SilentPusher:
    """contracts.Pusher of a server that pushes nothing: nobody can register with it."""

    def way(self, target: FcmTarget | WebPushTarget) -> str:  # noqa: ARG002
        return ""

    def is_proven(self, way: str) -> bool:  # noqa: ARG002
        return False

    def rest_s(self, way: str) -> float:  # noqa: ARG002
        return 0.0

    def room_for(self, way: str) -> int:  # noqa: ARG002
        return 0

    def flaw(self, target: FcmTarget | WebPushTarget) -> str:  # noqa: ARG002
        return "service"

    def new_key(self) -> bytes:
        return new_key()

    def identify(self, key: bytes) -> str:  # noqa: ARG002
        return ""

    async def send(self, push: Push) -> None:  # noqa: ARG002
        raise Undeliverable("this server pushes nothing")
