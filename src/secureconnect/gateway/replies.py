"""Problem → bytes: the HTTP status and JSON envelope, or the WebSocket close code. The only such mapping."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import structlog

from ..clock import now_us, to_iso
from ..edge import Close
from ..errors import Internal, Problem

log = structlog.get_logger(module="gateway")

JSON = "application/json"


@dataclass(slots=True)
class Answer:
    """An HTTP response, whatever engine writes it.  headers: lower-case names."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class Meta(msgspec.Struct, frozen=True):
    timestamp: str
    request_id: str


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


def success(data: Any, status: int, headers: Mapping[str, str], request_id: str) -> Answer:
    """The envelope around `data`; 204 has no body."""
    if status == 204:
        return Answer(204, headers=dict(headers))
    body = _encode(Success(True, data, Meta(to_iso(now_us()), request_id)))
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
