"""Spans on their way to a collector: OpenTelemetry's protocol, protobuf over HTTP.

Whoever ends a span puts it into a queue that has a bound, and goes on. One task empties that, a batch at a
time; a collector that is away, or answers nobody, costs spans and nothing else.
"""

from __future__ import annotations

import socket
import ssl
from collections import deque
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

import structlog
import trio
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Written
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from .. import __version__
from ..config import TracingConfig
from ..errors import Unavailable
from ..identity import new_id
from ..tracing import SPANS, Fact, Span
from .contracts import Undeliverable
from .outward import Outward

log = structlog.get_logger(module="tracing")

PATH = "/v1/traces"  # of an endpoint that names none
BUSY = frozenset({408, 429, 502, 503, 504})  # say: try again
CLOSE_S = 0.5

_SENT, _DROPPED, _REFUSED = (SPANS.labels(result) for result in ("sent", "dropped", "refused"))


class Collector:
    """tracing.Recorder."""

    def __init__(self, config: TracingConfig) -> None:
        self.ratio = config.ratio
        self._config = config
        at = urlsplit(config.endpoint)
        self._url = at.geturl() if at.path.strip("/") else at._replace(path=PATH).geturl()
        pairs = (each.partition("=") for each in config.headers)
        self._headers = {"content-type": "application/x-protobuf"} | {name: value for name, _, value in pairs}
        self._about: Mapping[str, Fact] = {
            "service.name": config.service,
            "service.version": __version__,
            "service.instance.id": new_id(),
            "host.name": socket.gethostname(),
        }
        self._outward = Outward(
            connections=1,
            connect_s=config.call_s,
            trusted=ssl.create_default_context(),
            only_public=False,
        )
        self._waiting: deque[Span] = deque()
        self._batch: list[Span] = []  # taken from those, and not taken by the collector yet
        self._encoding = trio.CapacityLimiter(1)
        self._away: str | None = None  # why

    def take(self, span: Span) -> None:
        if len(self._waiting) < self._config.queue:
            self._waiting.append(span)
        else:
            _DROPPED.inc()

    async def run(self) -> None:
        """Send for ever: what has gathered, every `every_s`; after a failure with pauses that double."""
        pause_s = self._config.every_s
        while True:
            await trio.sleep(pause_s)
            await self._empty()
            pause_s = (
                self._config.every_s if self._away is None else min(pause_s * 2, self._config.longest_pause_s)
            )

    async def close(self) -> None:
        """What is left goes out now, unless the collector is known to be away; within `close_s`."""
        with trio.move_on_after(self._config.close_s, shield=True):
            if self._away is None:
                await self._empty()
        with trio.move_on_after(CLOSE_S, shield=True):
            await self._outward.close()
        _DROPPED.inc(len(self._batch) + len(self._waiting))

    async def _empty(self) -> None:
        """Send all that waits, or until the collector fails. What it may take later is kept."""
        while self._batch or self._waiting:
            if not self._batch:
                size = min(len(self._waiting), self._config.batch)
                self._batch = [self._waiting.popleft() for _ in range(size)]
            body = await trio.to_thread.run_sync(encoded, self._batch, self._about, limiter=self._encoding)
            status = await self._hand_over(body)
            if isinstance(status, int) and status not in BUSY:
                (_SENT if status < 300 else _REFUSED).inc(len(self._batch))
                self._batch = []
            self._note(status)
            if self._away is not None:
                return

    async def _hand_over(self, body: bytes) -> int | str:
        """The status it answers with, or why there is none."""
        with trio.move_on_after(self._config.call_s):
            try:
                return (await self._outward.post(self._url, self._headers, body)).status
            except (Unavailable, Undeliverable) as problem:
                return type(problem.__cause__ or problem).__name__
        return "silence"

    def _note(self, status: int | str) -> None:
        """One line when spans are no longer taken, one when they are again."""
        reason = None if isinstance(status, int) and status < 300 else str(status)
        if reason is not None and self._away is None:
            log.warning("spans_not_taken", reason=reason)
        elif reason is None and self._away is not None:
            log.info("spans_taken_again")
        self._away = reason


def encoded(spans: Sequence[Span], about: Mapping[str, Fact]) -> bytes:
    """An ExportTraceServiceRequest.  about: facts of the process."""
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.extend(_pairs(about))
    scope = group.scope_spans.add()
    scope.scope.name = "secureconnect"
    scope.spans.extend(_written(each) for each in spans)
    body: bytes = request.SerializeToString()
    return body


def _written(span: Span) -> Written:
    written = Written(
        trace_id=span.trace_id.to_bytes(16, "big"),
        span_id=span.span_id.to_bytes(8, "big"),
        parent_span_id=span.parent_id.to_bytes(8, "big") if span.parent_id else b"",
        name=span.name,
        kind=Written.SpanKind.ValueType(span.kind),
        start_time_unix_nano=span.began_ns,
        end_time_unix_nano=span.began_ns + (span.took_ns or 0),
        attributes=_pairs(dict(span.facts)),
        links=[
            Written.Link(trace_id=trace.to_bytes(16, "big"), span_id=other.to_bytes(8, "big"))
            for trace, other in span.links
        ],
    )
    if span.failure is not None:
        written.status.code = Status.STATUS_CODE_ERROR
        written.attributes.extend(_pairs({"error.type": span.failure}))
    return written


def _pairs(facts: Mapping[str, Fact]) -> list[KeyValue]:
    return [KeyValue(key=name, value=_value(value)) for name, value in facts.items()]


def _value(value: Fact) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    return AnyValue(string_value=value)
