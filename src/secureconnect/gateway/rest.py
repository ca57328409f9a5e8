"""REST over ASGI, for what comes by HTTP/2.

An ordinary request passes through Quart. Quart reads bodies without holding the client back, so routes that
stream stand beside it, on plain ASGI. The Router finds the endpoint for both, and the gate does all the rest.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import quart
import structlog
import trio
from quart_trio import QuartTrio
from quart_trio.wrappers import TrioResponse
from werkzeug.exceptions import RequestEntityTooLarge

from ..errors import Malformed, Problem, TooLarge
from . import replies
from .admission import Gate, Request
from .faults import note
from .replies import Answer
from .routing import Match, Router

log = structlog.get_logger(module="gateway")

Read = Callable[[], Awaitable[bytes]]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class Rest:
    """`serve` is the ASGI application.  body_limit_bytes: of a body that Quart buffers unread."""

    def __init__(self, router: Router, gate: Gate, body_limit_bytes: int) -> None:
        self._router = router
        self._gate = gate
        self._app = _App(gate, body_limit_bytes)

    async def serve(self, scope: Any, receive: Receive, send: Send) -> None:
        match = self._router.find(scope["method"], scope["raw_path"])
        if match.endpoint is not None and match.endpoint.stream is not None:
            await self._stream(match, scope, receive, send)
        else:
            scope["match"] = match
            await self._app(scope, receive, send)

    async def _stream(self, match: Match, scope: Any, receive: Receive, send: Send) -> None:
        answer = await self._gate.answer(request_of(scope, _reader(receive)), *match)
        async with aclosing(replies.pieces(answer.body)) as pieces:
            await send({"type": "http.response.start", "status": answer.status, "headers": _wire(answer)})
            if scope["method"] == "HEAD" or await _send_all(pieces, receive, send):
                await send({"type": "http.response.body", "body": b"", "more_body": False})


class _App(QuartTrio):
    """Answers every request with what the gate answers to the endpoint found for it."""

    def __init__(self, gate: Gate, body_limit_bytes: int) -> None:
        super().__init__("secureconnect", static_folder=None)
        self._gate = gate
        # The gate has the time limits and the size; Quart's limit only bounds what it buffers unread.
        self.config.update(RESPONSE_TIMEOUT=None, BODY_TIMEOUT=None, MAX_CONTENT_LENGTH=body_limit_bytes)

    def create_url_adapter(self, request: Any) -> None:
        """Quart looks for no route, and nothing is ever built from the Host header."""

    async def dispatch_request(self, _: Any = None) -> TrioResponse:
        scope: Any = quart.request.scope
        answer = await self._gate.answer(request_of(scope, _buffered), *scope["match"])
        assert isinstance(answer.body, bytes)  # only a route that streams has another
        response = TrioResponse(answer.body, answer.status)
        if not answer.body:
            del response.headers["content-type"]
        if answer.size is None:
            del response.headers["content-length"]
        for name, value in answer.headers.items():
            response.headers[name] = value
        return response


def request_of(scope: Any, read: Read) -> Request:
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


async def _buffered() -> bytes:
    """The next bytes of the body that Quart has received."""
    try:
        return await anext(quart.request.body)
    except StopAsyncIteration:
        return b""
    except RequestEntityTooLarge:
        raise TooLarge from None


def _reader(receive: Receive) -> Read:
    """Takes the body from the engine no faster than it is read."""
    ended = False

    async def read() -> bytes:
        nonlocal ended
        while not ended:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Malformed("The body has been cut off.")
            ended = not message.get("more_body", False)
            if message["body"]:
                return bytes(message["body"])
        return b""

    return read


def _wire(answer: Answer) -> list[tuple[bytes, bytes]]:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers.items()]
    if answer.size is not None:
        headers.append((b"content-length", b"%d" % answer.size))
    return headers


async def _send_all(pieces: AsyncGenerator[bytes, None], receive: Receive, send: Send) -> bool:
    """False if the body broke off or the client left: without an end, a client knows that it is not whole."""
    sent = False
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_when_gone, receive, nursery.cancel_scope)
        try:
            async for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            sent = True
        except Problem as problem:
            log.warning("body_broken", code=problem.code)
        except Exception:
            note("body_failed")
        nursery.cancel_scope.cancel()
    return sent


async def _cancel_when_gone(receive: Receive, scope: trio.CancelScope) -> None:
    """Nothing else would tell: what is sent to a client that has left is dropped in silence."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
