"""REST on Quart-Trio: Quart finds the endpoint, the gate does all the rest."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import quart
from quart_trio import QuartTrio
from quart_trio.wrappers import TrioResponse
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound, RequestEntityTooLarge
from werkzeug.routing import MapAdapter

from ..edge import Call, Route
from ..errors import TooLarge
from . import replies
from .admission import Endpoint, Gate, Request
from .replies import Answer

Lend = Callable[[], AbstractContextManager[Any]]


class _App(QuartTrio):
    def create_url_adapter(self, request: Any) -> MapAdapter | None:
        """Nothing is ever built from the Host header, so a bad one does no harm."""
        if request is None:
            return None
        return self.url_map.bind("localhost", default_method=request.method, path_info=request.path)


def build(endpoints: Iterable[Endpoint], gate: Gate, body_limit_bytes: int) -> QuartTrio:
    """The application that serves `endpoints`; `/v1/x` and `/v1/x/` are the same."""
    app = _App("secureconnect", static_folder=None)
    app.url_map.merge_slashes = False
    app.url_map.strict_slashes = False
    # The gate has the time limits and the size; Quart's limit only bounds what it buffers unread.
    app.config.update(RESPONSE_TIMEOUT=None, BODY_TIMEOUT=None, MAX_CONTENT_LENGTH=body_limit_bytes)
    for number, endpoint in enumerate(endpoints):
        app.add_url_rule(
            endpoint.path.rstrip("/").replace("{", "<").replace("}", ">") or "/",
            endpoint=str(number),
            view_func=_view(endpoint, gate),
            methods=[endpoint.method],
            provide_automatic_options=False,
        )

    async def unmatched(error: HTTPException) -> TrioResponse:
        allow = getattr(error, "valid_methods", None) or ()
        return _response(await gate.answer(_request(), None, {}, allow))

    for kind in (NotFound, MethodNotAllowed):
        app.register_error_handler(kind, unmatched)
    return app


def enveloped(route: Route, lend: Lend) -> Callable[[Call, Request], Awaitable[Answer]]:
    """Serves a room's route.  lend: gives the running room for as long as it is used."""

    async def serve(call: Call, _: Request) -> Answer:
        with lend() as room:
            reply = await route.handler(room, call)
        status = route.status if reply.status is None else reply.status
        return replies.success(reply.data, status, reply.headers, call.request_id)

    return serve


def request_of(scope: Any, read: Callable[[], Awaitable[bytes]]) -> Request:
    """The request in an ASGI scope, `http` or `websocket`."""
    headers: dict[str, str] = {}
    size = 0
    for raw_name, raw_value in scope["headers"]:
        size += len(raw_name) + len(raw_value)
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return Request(
        method=scope.get("method", "GET"),
        path=scope["raw_path"],
        query=scope["query_string"],
        headers=headers,
        header_bytes=size,
        scheme="https" if scope["scheme"] in ("https", "wss") else "http",
        peer=scope["client"][0],
        read=read,
    )


def _view(endpoint: Endpoint, gate: Gate) -> Callable[..., Awaitable[TrioResponse]]:
    async def view(**path: str) -> TrioResponse:
        return _response(await gate.answer(_request(), endpoint, path))

    return view


def _request() -> Request:
    request = quart.request

    async def read() -> bytes:
        try:
            return await anext(request.body)
        except StopAsyncIteration:
            return b""
        except RequestEntityTooLarge:
            raise TooLarge from None

    return request_of(request.scope, read)


def _response(answer: Answer) -> TrioResponse:
    response = TrioResponse(answer.body, answer.status)
    if not answer.body:
        del response.headers["content-type"]
    if answer.status in (204, 304):
        del response.headers["content-length"]  # RFC 9110 section 8.6
    for name, value in answer.headers.items():
        response.headers[name] = value
    return response
