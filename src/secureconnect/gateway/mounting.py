"""How a room's tables become endpoints."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import msgspec

from ..edge import Call, Route, SocketRoute
from ..errors import Malformed
from ..supervise import Handle
from . import replies
from .admission import SERVICES, Endpoint, Request
from .replies import Answer
from .static import conditional

Lend = Callable[[], AbstractContextManager[Any]]


class Mount(msgspec.Struct, frozen=True):
    """A room and the tables it exports."""

    handle: Handle[Any]
    routes: Sequence[Route]
    sockets: Sequence[SocketRoute] = ()


def endpoint_of(route: Route, room: str, lend: Lend) -> Endpoint:
    return Endpoint(
        route.method,
        route.path,
        enveloped(route, lend),
        service=SERVICES.get(room, f"{room}-service"),
        audience=route.audience,
        rate=route.rate,
        query=route.query,
        body=route.body,
        stream=route.stream,
        outage=route.outage,
        repeats=route.repeats,
    )


def socket_endpoint_of(route: SocketRoute, room: str) -> Endpoint:
    async def serve(_: Call, __: Request) -> Answer:
        raise Malformed("This address takes a WebSocket.")

    return Endpoint(
        "GET",
        route.path,
        serve,
        service=SERVICES.get(room, f"{room}-service"),
        audience=route.audience,
        rate=route.rate,
        query=route.query,
        outage=route.outage,
    )


def enveloped(route: Route, lend: Lend) -> Callable[[Call, Request], Awaitable[Answer]]:
    """Serves a room's route.  lend: gives the running room for as long as it is used."""

    async def serve(call: Call, request: Request) -> Answer:
        with lend() as room:
            reply = await route.handler(room, call)
        status = route.status if reply.status is None else reply.status
        if reply.body is not None:
            assert isinstance(reply.body, bytes) or route.stream is not None, "it is no streaming route"
            answer = Answer(status, reply.body, dict(reply.headers))
            return conditional(answer, call, request) if status == 200 else answer
        return replies.success(reply.data, status, reply.headers, call.request_id, reply.as_of_us)

    return serve
