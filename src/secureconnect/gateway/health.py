"""Operations: health, liveness, readiness, metrics, and what this server is."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec
import trio

from .. import __version__, metrics
from ..clock import now_us, to_iso
from ..config import Config
from ..deps.contracts import DependencyStatus
from ..edge import Audience, Call, Rate, Reply, Route
from ..errors import Forbidden, NotFound
from ..supervise import Handle
from ..systemd import Standing
from . import replies
from .admission import SERVICES, Endpoint, Request
from .replies import Answer

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

READY = metrics.gauge("secureconnect_ready", "1 while /readyz answers 200, else 0.")

Condition = Literal["healthy", "degraded", "unhealthy"]
Phase = Literal["starting", "ready", "draining"]
Registration = Literal["open", "invite", "closed"]


class Limits(msgspec.Struct, frozen=True):
    """What this server takes, so that a client need not find out by being refused."""

    message_chars: int
    encrypted_message_bytes: int
    group_members: int
    request_body_bytes: int
    websocket_message_bytes: int
    websocket_messages_per_10s: int
    file_bytes: int
    message_files: int
    part_bytes: int
    call_participants: int
    signaling_frame_bytes: int


class Server(msgspec.Struct, frozen=True):
    """e2ee_default_direct: the web client begins direct conversations encrypted, where it can.

    sends_mail: there is a mail server; without one nobody can confirm an address, or reset a password."""

    version: str
    server_name: str
    registration: Registration
    features: list[str]
    limits: Limits
    e2ee_default_direct: bool
    vapid_public_key: str | None
    sends_mail: bool


class Health:
    """phase: of the gateway.  status: of the dependencies.  rooms: whose states are the modules'.

    waits_for: what nothing starts without, and why; None once it has started.
    """

    def __init__(
        self,
        config: Config,
        phase: Callable[[], Phase],
        status: Callable[[], list[DependencyStatus]],
        rooms: Sequence[Handle[Any]],
        server_name: Callable[[], str],
        vapid_public_key: Callable[[], str | None],
    ) -> None:
        self.waits_for: dict[str, str | None] | None = None
        self._phase = phase
        self._status = status
        self._rooms = {room.name: room for room in rooms}
        self._anyone_reads_metrics = config.gateway.metrics_from == "any"
        self._one_scrape = trio.CapacityLimiter(1)
        self._server_name = server_name
        self._vapid_public_key = vapid_public_key
        self._registration = msgspec.convert(config.auth.registration, Registration)
        self._e2ee_default_direct = config.chat.e2ee_default_direct
        self._sends_mail = config.smtp.url != ""
        self._limits = Limits(
            message_chars=config.chat.max_message_chars,
            encrypted_message_bytes=config.chat.max_encrypted_bytes,
            group_members=config.chat.max_members,
            request_body_bytes=config.gateway.body_limit_bytes,
            websocket_message_bytes=config.gateway.ws_frame_limit_bytes,
            websocket_messages_per_10s=config.gateway.ws_frames_per_10s,
            file_bytes=config.storage.max_file_mb * 1024 * 1024,
            message_files=config.chat.max_files,
            part_bytes=config.storage.part_mb * 1024 * 1024,
            call_participants=config.signaling.max_participants,
            signaling_frame_bytes=config.signaling.frame_bytes,
        )

    def server(self) -> Server:
        return Server(
            version=__version__,
            server_name=self._server_name(),
            registration=self._registration,
            features=sorted(self._rooms),
            limits=self._limits,
            e2ee_default_direct=self._e2ee_default_direct,
            vapid_public_key=self._vapid_public_key(),
            sends_mail=self._sends_mail,
        )

    def endpoints(self) -> list[Endpoint]:
        """The operations endpoints; their answers have no envelope."""
        pages = {
            "/health": self._health,
            "/health/{module}": self._module,
            "/livez": self._live,
            "/readyz": self._ready,
            "/metrics": self._metrics,
        }
        return [Endpoint("GET", path, serve) for path, serve in pages.items()]

    async def _health(self, _: Call, __: Request) -> Answer:
        modules = {name: self._condition(name) for name in ("gateway", *self._rooms)}
        dependencies = {
            each.name: {
                "status": each.status,
                "kind": each.kind,
                "breaker": each.breaker,
                "since": to_iso(each.since_us),
                "last_error": each.last_error,
            }
            for each in self._status()
        }
        whole = set(modules.values()) == {"healthy"} and all(
            each["status"] == "up" for each in dependencies.values()
        )
        serving = any(self._condition(name) == "healthy" for name in self._rooms)
        status: Condition = "healthy" if whole else "degraded" if serving else "unhealthy"
        return replies.page(
            {
                "status": status,
                "service": "secureconnect",
                "timestamp": to_iso(now_us()),
                "version": __version__,
                "modules": modules,
                "dependencies": dependencies,
                "between_nodes": self._between_nodes(),
                "waits_for": self.waits_for,
            },
            503 if status == "unhealthy" else 200,
        )

    def _between_nodes(self) -> Literal["bus", "catch_up"] | None:
        """How it learns of changes on other nodes: at once, or by looking twice a second. None: alone."""
        known = {each.name: each for each in self._status()}
        database, bus = known.get("postgres"), known.get("redis")
        if database is None or database.kind != "postgres":
            return None
        return "bus" if bus is not None and bus.kind == "redis" and bus.status == "up" else "catch_up"

    async def _module(self, call: Call, _: Request) -> Answer:
        name = call.path["module"]
        if name != "gateway" and name not in self._rooms:
            raise NotFound
        status = self._condition(name)
        said = {
            "status": status,
            "service": SERVICES.get(name, f"{name}-service"),
            "timestamp": to_iso(now_us()),
        }
        return replies.page(said, 200 if status == "healthy" else 503)

    async def _live(self, _: Call, __: Request) -> Answer:
        return replies.page({"status": "alive", "timestamp": to_iso(now_us())})

    async def _ready(self, _: Call, __: Request) -> Answer:
        phase = self._readiness()
        said = {"status": phase, "timestamp": to_iso(now_us())}
        return replies.page(said, 200 if phase == "ready" else 503)

    def _readiness(self) -> Phase:
        phase = self._phase()
        if phase == "ready" and any(room.state != "running" for room in self._rooms.values()):
            return "starting"
        return phase

    def standing(self) -> Standing:
        """The same, for systemd."""
        phase = self._readiness()
        away = ", ".join(each.name for each in self._status() if each.status != "up")
        status: str = phase
        if self.waits_for is not None:
            status = f"waiting for {self.waits_for['dependency']}"
        elif away:
            status = f"{phase}, without {away}"
        return Standing(
            is_ready=phase == "ready",
            is_ending=phase == "draining",
            is_alive=phase != "ready" or all(room.state != "stopped" for room in self._rooms.values()),
            status=status,
        )

    async def _metrics(self, call: Call, request: Request) -> Answer:
        if not self._anyone_reads_metrics and not self._is_near(call, request):
            raise Forbidden("Metrics are for private addresses only.")
        READY.set(self._readiness() == "ready")
        text = await trio.to_thread.run_sync(metrics.exposition, limiter=self._one_scrape)
        return Answer(200, text, {"content-type": METRICS_TYPE})

    def _is_near(self, call: Call, request: Request) -> bool:
        """Whether the request comes from a private address; through a proxy that is not ours nobody knows."""
        if call.address == request.peer and "x-forwarded-for" in request.headers:
            return False
        try:
            address = ipaddress.ip_address(call.address)
        except ValueError:
            return False
        return address.is_loopback or address.is_private

    def _condition(self, module: str) -> Condition:
        if module == "gateway":
            return "healthy" if self._phase() == "ready" else "degraded"
        return "healthy" if self._rooms[module].state == "running" else "unhealthy"


async def _server(health: Health, _: Call) -> Reply:
    return Reply(health.server())


ROUTES = (
    Route(
        "GET",
        "/v1/server",
        _server,
        Audience.ANYONE,
        Rate.PUBLIC,
        "What this server is, and what it takes",
        answer=Server,
    ),
)
