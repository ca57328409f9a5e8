"""One connection that speaks HTTP/1.1: one request after the other, in one task, up to its end or an upgrade.

A request goes from `parsing` through the router and the gate to its endpoint and back without another task.
What nobody reads of a request's body is never waited for: the answer is then the last on its connection,
which ends with a FIN and lingers until the client has taken it.
"""

from __future__ import annotations

import errno
import math
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec
import structlog
import trio

from ..config import GatewayConfig
from ..edge import File
from ..errors import Problem, RequestTimeout, Unavailable
from ..identity import new_id
from ..metrics import counter
from . import replies
from .admission import Gate, Request
from .parsing import Incoming, RequestParser
from .replies import Answer
from .routing import Router
from .transport import SEND_BYTES, Transport

if TYPE_CHECKING:
    from .websocket import Sockets, Visit

log = structlog.get_logger(module="gateway")

ABANDONED = counter("secureconnect_gateway_requests_abandoned_total", "Requests whose client left.")
# code: of the problem it was answered with
UNREAD = counter("secureconnect_gateway_requests_unread_total", "Requests that could not be read.", ["code"])

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_BODILESS = frozenset({204, 304})
_LAST_CHUNK = b"0\r\n\r\n"
SLICE_BYTES = 2_048  # parsed at a time: of a pipeline no more becomes requests before the first are answered


class Site(msgspec.Struct):
    """What a connection serves.  closing: answers say `Connection: close`."""

    config: GatewayConfig
    gate: Gate
    router: Router
    sockets: Sockets
    closing: bool = False


class Http1:
    """One connection.

    first: what was read already.
    is_idle: no request is being answered, and none has begun to come.
    """

    __slots__ = (
        "_config",
        "_due",
        "_incoming",
        "_is_over",
        "_is_writing",
        "_requests",
        "_serving",
        "_site",
        "_transport",
        "_unparsed",
        "is_idle",
    )

    def __init__(self, transport: Transport, first: bytes, site: Site) -> None:
        self.is_idle = True
        self._transport = transport
        self._site = site
        self._config = site.config
        self._requests = RequestParser(site.config)
        self._unparsed: bytes | memoryview = first  # what came and nobody has asked for yet
        self._incoming: Incoming | None = None  # being answered
        self._is_writing = False  # its answer has begun
        self._is_over = False  # no further request is waited for
        self._due = math.inf  # trio's time by which the next head must be here
        self._serving = trio.CancelScope()
        transport.on_gone = self._serving.cancel

    @property
    def is_answering(self) -> bool:
        return self._incoming is not None

    async def serve(self, head_due: float) -> None:
        """Serve until either side ends it.

        head_due: trio's time by which the first request's head must be here.
        """
        visit: Visit | None = None
        try:
            with self._serving:
                self._due = head_due
                visit = await self._serve()
        finally:
            self._requests.close()
        if visit is not None:
            await self._site.sockets.run(visit)
        transport = self._transport
        if self._serving.cancelled_caught and self._incoming is not None:
            if transport.gone:
                ABANDONED.inc()
                log.info("request_abandoned", method=self._incoming.method)
            elif not self._is_writing:
                problem = Unavailable("The server is restarting.", retry_after_s=1)
                transport.send(unread(problem, self._site.gate))
        if not transport.gone:
            transport.end()
            await transport.linger(self._config.close_timeout_s)

    async def _serve(self) -> Visit | None:
        """Answer requests. Returns the WebSocket that the last of them has opened."""
        while (incoming := await self._next()) is not None:
            self._incoming = incoming
            if incoming.is_upgrade:
                return await self._site.sockets.open(self._request(incoming), self)
            if not await self._answer(incoming):
                return None
            self._incoming = None
            self._is_writing = False
            self.is_idle = True
            if self._requests.waiting or self._unparsed:  # a pipeline is not to keep all others waiting
                await trio.lowlevel.checkpoint()
            self._due = trio.current_time() + self._config.keep_alive_s
        return None

    def end_by(self, deadline: float) -> None:
        """Whatever the client does, the connection is over by `deadline` (trio's time)."""
        self._transport.end_by(deadline)
        self._serving.deadline = min(self._serving.deadline, deadline)

    def end_if_idle(self) -> None:
        """End now if no request is being answered, and none has begun to come."""
        if self.is_idle:
            self._stop_waiting()

    def _stop_waiting(self) -> None:
        """Not a cancellation: a request that has just come would be begun, and left without an answer."""
        self._is_over = True
        self._due = math.inf
        self._transport.interrupt()

    def look(self, now: float) -> None:
        """Called about every second, which is cheaper than a timer for each request. Ends a wait that takes
        too long, and the request whose client has left: while it is worked on, nobody reads. Whoever only has
        said that nothing more comes (FIN) still gets an answer that has begun."""
        if self._incoming is None:
            if now > self._due:
                self._stop_waiting()
        elif not self._is_writing:
            self._transport.look()
            if self._transport.hung_up:
                self._transport.lose()

    # reading

    async def _next(self) -> Incoming | None:
        """The next request, or None when there is none: the client left, was idle for too long or sent
        something that is none and has been answered."""
        requests = self._requests
        while not requests.waiting:
            if requests.fault is not None:
                await self._refuse(requests.fault)
                return None
            if self._site.closing and not (requests.is_amid or self._unparsed):
                return None
            if requests.is_amid and self.is_idle:
                self.is_idle = False
                self._due = min(self._due, trio.current_time() + self._config.header_timeout_s)
            if not self._unparsed:
                # what came in the moment the wait was ended has been taken; nothing more is waited for
                data = b"" if self._is_over else await self._transport.receive()
                if not data:
                    if self._is_over and requests.is_amid and not self._transport.hung_up:
                        await self._refuse(RequestTimeout())
                    return None
                self._unparsed = data
            self._parse()
        self.is_idle = False
        return requests.waiting.pop(0)

    def _parse(self) -> None:
        """The next slice of what came; of a body that tells its length, all of it."""
        data, self._unparsed = self._unparsed, b""
        if len(data) > SLICE_BYTES:
            size = max(SLICE_BYTES, self._requests.body_left)
            data = memoryview(data)
            data, self._unparsed = data[:size], data[size:]
        self._requests.feed(data)

    async def _read(self) -> bytes:
        """The next bytes of the request's body, b"" at its end."""
        incoming = self._incoming
        assert incoming is not None
        while not incoming.pieces:
            if incoming.is_whole:
                return b""
            if self._requests.fault is not None:
                raise self._requests.fault
            if self._unparsed:
                self._parse()
                continue
            if incoming.waits:
                incoming.waits = False
                await self._transport.send_all(_CONTINUE)
            self._unparsed = await self._transport.receive()
            if not self._unparsed:
                self._transport.lose()  # half a request: its client has given up
                await trio.lowlevel.checkpoint()
        data = b"".join(incoming.pieces)
        incoming.pieces.clear()
        return data

    # answering

    async def _answer(self, incoming: Incoming) -> bool:
        """Whether the connection can go on to its next request."""
        site, request = self._site, self._request(incoming)
        match = site.router.find(incoming.method, incoming.path)
        answer = await site.gate.answer(request, *match)
        while self._unparsed and not incoming.is_whole and self._requests.fault is None:
            self._parse()  # nobody has read a body that is here
        keep = incoming.is_whole and not (incoming.is_last or site.closing or self._is_over)
        self._is_writing = True
        await self._write(answer, incoming, keep)
        return keep and not self._transport.gone and not site.closing

    def _request(self, incoming: Incoming) -> Request:
        return Request(
            incoming.method,
            incoming.path,
            incoming.query,
            incoming.headers,
            incoming.header_bytes,
            "https" if self._transport.is_secure else "http",
            self._transport.address,
            self._read,
        )

    async def _refuse(self, problem: Problem) -> None:
        """Answer what could not be read; the last on this connection."""
        await self._transport.send_all(unread(problem, self._site.gate))

    async def _write(self, answer: Answer, incoming: Incoming, keep: bool) -> None:
        body = answer.body
        if isinstance(body, bytes):
            bodiless = incoming.method == "HEAD" or answer.status in _BODILESS
            await self._write_bytes(head_of(answer, keep, len(body)), b"" if bodiless else body)
        elif isinstance(body, File):
            await self._write_file(answer, body, incoming, keep)
        else:
            await self._write_stream(answer, body, incoming, keep)

    async def _write_bytes(self, head: bytes, body: bytes) -> None:
        if len(body) <= SEND_BYTES:
            await self._transport.send_all(head + body)
        else:  # joining would copy it for each client that reads it slowly
            self._transport.send(head)
            await self._transport.send_all(body)

    async def _write_file(self, answer: Answer, body: File, incoming: Incoming, keep: bool) -> None:
        try:
            opened = await trio.to_thread.run_sync(body.path.open, "rb")
        except OSError as exc:
            request_id = answer.headers["x-request-id"]
            log.error("file_not_opened", request_id=request_id, error=errno.errorcode.get(exc.errno or 0))
            refusal = replies.failure(Unavailable(), request_id)
            refusal.headers |= self._site.gate.headers(request_id, {})
            await self._write(refusal, incoming, keep)
            return
        with opened as file:
            await self._transport.send_all(head_of(answer, keep, body.size))
            if incoming.method != "HEAD":
                await self._transport.send_file(file, body.start, body.size, body.sent)

    async def _write_stream(
        self, answer: Answer, body: AsyncGenerator[bytes, None], incoming: Incoming, keep: bool
    ) -> None:
        """In chunks when its length is not known, to an old client up to the end of the connection."""
        sized = "content-length" in answer.headers
        chunked = not sized and incoming.version == "1.1"
        transport = self._transport
        async with aclosing(body):
            await transport.send_all(head_of(answer, keep, None, chunked=chunked))
            if incoming.method == "HEAD":
                return
            try:
                async for piece in body:
                    if piece:
                        await transport.send_all(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            except Problem as problem:  # without an end, a client knows that it is not whole
                log.warning("body_broken", code=problem.code)
                transport.cut()
                return
            except BaseException:
                if not (sized or chunked):
                    transport.cut()  # an end would look like the body's
                raise
            if chunked:
                await transport.send_all(_LAST_CHUNK)

    # an upgrade (websocket.Handshake)

    @property
    def transport(self) -> Transport:
        return self._transport

    async def refuse(self, answer: Answer) -> None:
        """The answer to a handshake that becomes no WebSocket; the last on this connection."""
        assert isinstance(answer.body, bytes)
        await self._transport.send_all(head_of(answer, False, len(answer.body)) + answer.body)

    def accept(self, headers: Mapping[str, str]) -> bytes:
        """Switch protocols. Returns what the client has sent behind its handshake."""
        assert self._incoming is not None
        self._transport.send(head_of(Answer(101, headers=dict(headers)), True, None))
        rest, self._incoming = self._incoming.rest + self._unparsed, None
        self._unparsed = b""
        self._due = math.inf  # from here on it is the socket that knows silence
        return rest


def unread(problem: Problem, gate: Gate) -> bytes:
    """What a connection gets that is not let in, or whose request could not be read: the last on it."""
    request_id = new_id()
    answer = replies.failure(problem, request_id)
    answer.headers |= gate.headers(request_id, {})
    UNREAD.labels(problem.code).inc()
    log.info("request_unread", request_id=request_id, status=answer.status, code=problem.code)
    assert isinstance(answer.body, bytes)
    return head_of(answer, False, len(answer.body)) + answer.body


def head_of(answer: Answer, keep: bool, size: int | None, *, chunked: bool = False) -> bytes:
    """The bytes in front of the body.  size: of the body, if known.  Raises ValueError for a header that has
    a line break in it."""
    fields = [f"{name}: {value}\r\n" for name, value in answer.headers.items()]
    block = "".join(fields)
    if block.count("\n") != len(fields) or block.count("\r") != len(fields):
        raise ValueError("a header has a line break in it")
    if chunked:
        block += "transfer-encoding: chunked\r\n"
    elif size is not None and answer.status not in _BODILESS and "content-length" not in answer.headers:
        block += f"content-length: {size}\r\n"
    if not keep:
        block += "connection: close\r\n"
    return f"{_status_line(answer.status)}{_date(int(time.time()))}{block}\r\n".encode("latin-1")


@lru_cache(maxsize=64)
def _status_line(status: int) -> str:
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return f"date: {formatdate(second, usegmt=True)}\r\n"
