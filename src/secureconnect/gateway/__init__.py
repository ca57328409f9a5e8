"""The edge: takes connections, admits requests, and hands them to the rooms' routes. It knows no feature.

`listener` serves connections; `rest` and `websocket` adapt them to `admission`, the gate that every request
passes; `replies` words the answers. `health`, `openapi` and `web` are endpoints of the gateway's own.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import trio

from ..config import Config
from ..deps.contracts import Cache, DependencyStatus
from ..edge import Authenticator, Call
from ..errors import Problem
from ..identity import SessionId, UserId
from ..supervise import Handle
from ..systemd import Standing
from . import health, openapi
from .admission import Gate
from .health import Health, Phase
from .http1 import Site
from .listener import Listener, listen
from .mounting import Mount, endpoint_of, socket_endpoint_of
from .routing import Router
from .seam import Seam
from .tls import Certificates
from .web import Web
from .websocket import Sockets

__all__ = ["Gateway", "Mount"]


def _without_key() -> None:
    """Nothing is pushed."""


class Gateway:
    """auth: the running authenticator; raises Unavailable while there is none.
    status: of the dependencies, for /health.  rooms: whose states /health shows.
    deny: told of refusals that carry a denial tag; never waits.
    server_name: asked for once the gateway admits people.  store_origin: as `web.policy_of` has it.
    """

    def __init__(
        self,
        config: Config,
        mounts: Sequence[Mount],
        auth: Callable[[], Authenticator],
        cache: Cache,
        status: Callable[[], list[DependencyStatus]],
        rooms: Sequence[Handle[Any]],
        deny: Callable[[Problem, Call], None],
        server_name: Callable[[], str],
        vapid_public_key: Callable[[], str | None] = _without_key,
        store_origin: str | None = None,
    ) -> None:
        self._config = config.gateway
        self._phase: Phase = "starting"
        self._drained, self._ended = trio.Event(), trio.Event()
        self._gate = gate = Gate(
            config.gateway,
            config.rate_limits,
            auth,
            cache,
            deny,
            believes_any=config.tracing.parents == "any",
        )
        self._own = own = Health(config, lambda: self._phase, status, rooms, server_name, vapid_public_key)
        self._sockets = Sockets(gate, config.gateway)
        endpoints = own.endpoints()
        endpoints += [endpoint_of(route, "gateway", lambda: nullcontext(own)) for route in health.ROUTES]
        for mount in mounts:
            name, lend = mount.handle.name, mount.handle.use
            endpoints += [endpoint_of(route, name, lend) for route in mount.routes]
            for route in mount.sockets:
                endpoint = socket_endpoint_of(route, name)
                endpoints.append(endpoint)
                self._sockets.add(route, endpoint, lend)
        routes = [*health.ROUTES, *(route for mount in mounts for route in mount.routes)]
        endpoints += openapi.endpoints(routes)
        if config.gateway.web:
            endpoints += Web(
                store_origin, is_secure=config.gateway.public_url.startswith("https:")
            ).endpoints()
        router = Router(endpoints)
        self._seam = Seam(config.gateway, router, gate)
        self._site = Site(config.gateway, gate, router, self._sockets)
        self._certificates = Certificates(config.gateway)
        self._listener = Listener(self._site, self._seam, self._certificates)

    @property
    def ready(self) -> bool:
        return self._phase == "ready"

    def standing(self) -> Standing:
        return self._own.standing()

    async def run(self, *, task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `drain` is through.  started: with the URLs that are listened on."""
        if self._certificates.context is not None:  # browsers are offered HTTP/2, and take it
            await self._seam.load()
        listeners = await listen(self._config.host, self._config.port)
        async with trio.open_nursery() as nursery:
            await nursery.start(self._sockets.fanout.run)
            nursery.start_soon(self._sockets.watch)
            nursery.start_soon(self._listener.watch)
            for each in listeners:
                nursery.start_soon(self._listener.accept, each, nursery)
            if self._gate.waits_for is None:
                self._phase = "ready"
            scheme = "http" if self._certificates.context is None else "https"
            task_status.started([_url(scheme, each) for each in listeners])
            await self._drained.wait()
            nursery.cancel_scope.cancel()
        self._ended.set()

    def wait_for(self, dependency: str, reason: str | None) -> None:
        """Until `admit_all`, refuse with 503 what is not about the server's own state. Before `run`.

        reason: why it does not start without it, for /health."""
        self._gate.waits_for = dependency
        self._own.waits_for = {"dependency": dependency, "reason": reason}

    def admit_all(self) -> None:
        self._gate.waits_for = self._own.waits_for = None
        self._phase = "ready"

    async def drain(self) -> None:
        """Stop taking work and end what runs, within drain_notice_s + drain_s whatever a client does; `run`
        has ended when this returns."""
        self._phase = "draining"
        self._site.closing = True
        await trio.sleep(self._config.drain_notice_s)
        self._listener.stop()
        self._sockets.dismiss()
        deadline = trio.current_time() + self._config.drain_s
        self._listener.end_all_by(deadline)
        with trio.move_on_at(deadline + self._config.close_timeout_s):
            await self._listener.wait_empty()
        self._drained.set()
        await self._ended.wait()

    def close_sessions(self, sessions: frozenset[SessionId]) -> None:
        """Close the open sockets of sessions that have ended, with 4401, at once."""
        self._sockets.close_sessions(sessions)

    def close_people(self, people: frozenset[UserId]) -> None:
        """Close, in the same way, the open sockets of these people that the authenticator has ended."""
        self._sockets.close_people(people)

    async def reload(self) -> None:
        """Read the certificate again, for new connections."""
        await self._certificates.reload()


def _url(scheme: str, listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
