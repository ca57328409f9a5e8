"""A collector of traces: it takes OTLP over HTTP as the real ones do, and can be frozen."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from kit.wait import until


@dataclass(frozen=True)
class Recorded:
    """One span.  process: the instance it came from.  facts: its attributes."""

    name: str
    kind: int
    trace: str
    id: str
    parent: str
    process: str
    facts: dict[str, Any]
    links: list[str]
    failed: bool
    began_ns: int
    ended_ns: int


class Collector:
    """status: what it answers with; None while it is frozen: it accepts, and answers nobody.
    bodies, headers: of every request, as they came."""

    def __init__(self) -> None:
        self.status: int | None = 200
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.asked = 0
        self._spans: list[Recorded] = []
        self._thawed = threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.asked += 1
                collector.headers.append({name.lower(): value for name, value in self.headers.items()})
                status = collector.status
                if status is None:
                    collector._thawed.wait()
                    self.close_connection = True
                    return
                if status == 200:
                    assert self.path == "/v1/traces", self.path
                    collector.bodies.append(body)
                    collector._spans += read(body)
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def spans(self, trace: str | None = None) -> list[Recorded]:
        return [span for span in list(self._spans) if trace in (None, span.trace)]

    def traces(self, root: str) -> list[str]:
        """The ids of those that hold a span of that name."""
        return [span.trace for span in self.spans() if span.name == root]

    async def holds(self, names: Sequence[str], but: str = "", within_s: float = 30) -> list[Recorded]:
        """The spans of the one trace but this that has all of these, each as often as it is named."""
        wanted = Counter(names)

        def found() -> list[str]:
            traces = {span.trace for span in self.spans()} - {but}
            return [each for each in traces if wanted <= Counter(span.name for span in self.spans(each))]

        await until(lambda: bool(found()), within_s)
        [trace] = found()
        return self.spans(trace)

    def close(self) -> None:
        self._thawed.set()
        self._server.shutdown()
        self._server.server_close()

    def serve(self) -> None:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()


@contextmanager
def collector() -> Iterator[Collector]:
    made = Collector()
    made.serve()
    try:
        yield made
    finally:
        made.close()


def read(body: bytes) -> Iterator[Recorded]:
    for group in ExportTraceServiceRequest.FromString(body).resource_spans:
        about = _facts(group.resource.attributes)
        for scope in group.scope_spans:
            for span in scope.spans:
                yield Recorded(
                    span.name,
                    span.kind,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    about["service.instance.id"],
                    _facts(span.attributes),
                    [link.trace_id.hex() for link in span.links],
                    span.status.code == span.status.STATUS_CODE_ERROR,
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                )


def _facts(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
