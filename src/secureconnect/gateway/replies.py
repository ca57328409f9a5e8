"""Problem → bytes: the HTTP status and JSON envelope, or the WebSocket close code. The only such mapping."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import msgspec
import structlog
import trio

from ..clock import now_us, to_iso
from ..edge import Body, Close, File
from ..errors import Internal, Problem

log = structlog.get_logger(module="gateway")

JSON = "application/json"
PIECE_BYTES = 262_144  # of a file at a time
_DISK = trio.CapacityLimiter(8)  # threads that read files


class Answer(msgspec.Struct):
    """An HTTP response, whatever engine writes it.  headers: lower-case names.

    body: a generator is closed by the engine, also when nothing of it is sent.
    """

    status: int
    body: Body = b""
    headers: dict[str, str] = msgspec.field(default_factory=dict)

    @property
    def size(self) -> int | None:
        """Bytes of the body, for Content-Length; None if nobody knows, or there is none to be (RFC 9110
        section 8.6)."""
        if self.status in (204, 304):
            return None
        if isinstance(self.body, bytes):
            return len(self.body)
        return self.body.size if isinstance(self.body, File) else None


class Meta(msgspec.Struct, frozen=True, omit_defaults=True):
    """as_of: while the database is away: the answer is from memory, and holds what was stored before then."""

    timestamp: str
    request_id: str
    as_of: str | None = None


class Success(msgspec.Struct, frozen=True):
    success: bool
    data: Any
    meta: Meta


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    code: str
    message: str
    details: dict[str, Any] | None = None


class Failure(msgspec.Struct, frozen=True):
    success: bool
    error: Fault
    meta: Meta


_encode = msgspec.json.Encoder().encode


def success(
    data: Any, status: int, headers: Mapping[str, str], request_id: str, as_of_us: int | None = None
) -> Answer:
    """The envelope around `data`; 204 has no body."""
    if status == 204:
        return Answer(204, headers=dict(headers))
    as_of = None if as_of_us is None else to_iso(as_of_us)
    body = _encode(Success(True, data, Meta(to_iso(now_us()), request_id, as_of)))
    return Answer(status, body, {"content-type": JSON, **headers})


def failure(problem: Problem, request_id: str) -> Answer:
    fault = Fault(problem.code, problem.message, problem.details)
    headers = {"content-type": JSON}
    if problem.retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(problem.retry_after_s)))
    if problem.status == 401:
        headers["www-authenticate"] = "Bearer"
    body = _encode(Failure(False, fault, Meta(to_iso(now_us()), request_id)))
    return Answer(problem.status, body, headers)


def page(data: Any, status: int = 200) -> Answer:
    """JSON without an envelope, as operations endpoints answer."""
    return Answer(status, _encode(data), {"content-type": JSON})


def pieces(body: Body) -> AsyncGenerator[bytes, None]:
    """The bytes of `body`, one piece after the other. Whoever asks for them closes them."""
    if isinstance(body, bytes):
        return _whole(body)
    return _read(body) if isinstance(body, File) else body


async def _whole(body: bytes) -> AsyncGenerator[bytes, None]:
    if body:
        yield body


async def _read(file: File) -> AsyncGenerator[bytes, None]:
    """Raises EOFError for a file that turns out to be shorter."""
    with await trio.to_thread.run_sync(file.path.open, "rb", limiter=_DISK) as opened:
        left = file.size
        opened.seek(file.start)
        while left:
            piece = await trio.to_thread.run_sync(opened.read, min(left, PIECE_BYTES), limiter=_DISK)
            if not piece:
                raise EOFError("a file has become shorter while it was sent")
            left -= len(piece)
            yield piece
            if file.sent is not None:
                file.sent(len(piece))


def problem_of(error: Exception) -> Problem:
    """What the caller is told of `error`. What nobody expected is logged here, once, with its traceback, and
    told as INTERNAL without a detail. A group of problems alone is its first one."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, ExceptionGroup):
        problems, others = error.split(Problem)
        if problems is not None and others is None:
            return _first(problems)
    log.error("request_failed", exc_info=error)
    return Internal()


def beside(error: Exception, expected: type[Exception]) -> Exception | None:
    """What `error` is apart from `expected`, also where a nursery grouped them."""
    if isinstance(error, ExceptionGroup):
        return error.split(expected)[1]
    return None if isinstance(error, expected) else error


def _first(group: ExceptionGroup[Problem]) -> Problem:
    inner = group.exceptions[0]
    return _first(inner) if isinstance(inner, ExceptionGroup) else inner


_CLOSE = {
    401: Close.UNAUTHENTICATED,
    403: Close.FORBIDDEN,
    404: Close.NOT_FOUND,
    413: Close.TOO_BIG,
    429: Close.TOO_MANY_FRAMES,
    503: Close.RESTART,
}


def close_code(problem: Problem) -> Close:
    """How a socket ends whose handler raised `problem`."""
    if code := _CLOSE.get(problem.status):
        return code
    return Close.BAD_FRAME if problem.status < 500 else Close.INTERNAL
