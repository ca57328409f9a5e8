"""Spans: what a request, a frame or a message spends its time on, on every node that has a part in it.

A trace begins at the edge (`root`), and only a share of them is recorded; what is done for one, in its task
and those that it starts, is a child (`span`). What leaves a task takes its span along, and what leaves the
node the text of it (`traceparent`). Where nothing is recorded there is NOTHING in the place of a span, and
while tracing is off a place that could make one costs a look at a name.

Names and facts come from closed lists in the code. What people send, ids, addresses and values of statements
are no facts.
"""

from __future__ import annotations

import enum
import random
import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar, Token
from time import monotonic_ns, time_ns
from types import TracebackType
from typing import Protocol

from . import metrics
from .errors import Problem

# result: sent, dropped (the queue was full, or the process ended), refused (by the collector)
SPANS = metrics.counter(
    "secureconnect_tracing_spans_total", "Spans recorded, by what became of them.", ["result"]
)

Fact = str | int | float | bool

# W3C Trace Context, section 3.2; later versions may append
_TRACEPARENT = re.compile(
    r"(?:00(?!.{54})|(?!00|ff)[0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?"
)


class Kind(enum.IntEnum):
    """Which side of a call it is; the numbers are OTLP's."""

    INTERNAL = 1
    SERVER = 2
    CLIENT = 3
    PRODUCER = 4
    CONSUMER = 5


class Recorder(Protocol):
    """Where spans go that have ended.  ratio: the share of traces that are recorded, 0 to 1."""

    @property
    def ratio(self) -> float: ...

    def take(self, span: Span) -> None:
        """From any thread. Never waits, never raises."""
        ...


class Span:
    """One piece of work. As a context manager it is what others are children of, and ends with the block;
    where there is no block, whoever made it calls `end`.

    began_ns: Unix time.  took_ns: None until it has ended.  failure: what went wrong: a code or a class.
    links: trace and span of others that this work was done for, or together with.
    """

    __slots__ = (
        "_clock_ns", "_recorder", "_token", "began_ns", "facts", "failure", "kind", "links", "name",
        "parent_id", "span_id", "took_ns", "trace_id",
    )  # fmt: skip

    def __init__(self, recorder: Recorder, name: str, kind: Kind, trace_id: int, parent_id: int) -> None:
        self.name = name
        self.kind = kind
        self.trace_id = trace_id
        self.span_id = random.getrandbits(64) or 1  # 0 is no id
        self.parent_id = parent_id
        self.began_ns = time_ns()
        self.took_ns: int | None = None
        self.facts: dict[str, Fact] = {}
        self.failure: str | None = None
        self.links: list[tuple[int, int]] = []
        self._clock_ns = monotonic_ns()
        self._recorder = recorder
        self._token: Token[Span | None] | None = None

    def __bool__(self) -> bool:
        """Whether it is recorded."""
        return True

    @property
    def trace(self) -> str:
        """The trace's id, as logs and other programs write it."""
        return f"{self.trace_id:032x}"

    @property
    def traceparent(self) -> str | None:
        """What goes on under this span elsewhere is told this. None of NOTHING."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-01"

    def child(self, name: str, kind: Kind = Kind.INTERNAL) -> Span:
        return Span(self._recorder, name, kind, self.trace_id, self.span_id)

    def note(self, name: str, value: Fact) -> None:
        """name: as OpenTelemetry's semantic conventions have it, if they do."""
        self.facts[name] = value

    def follow(self, other: Span) -> None:
        """Link it to `other`, under which the work of both is recorded."""
        self.links.append((other.trace_id, other.span_id))

    def fail(self, reason: str) -> None:
        self.failure = reason

    def end(self) -> None:
        if self.took_ns is None:
            self.took_ns = monotonic_ns() - self._clock_ns
            self._recorder.take(self)

    def __enter__(self) -> Span:
        self._token = _current.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        assert self._token is not None
        _current.reset(self._token)
        if error is not None:
            self.failed_by(error)
        self.end()

    def failed_by(self, error: BaseException) -> None:
        """A refusal is an outcome like others. Of no error the text is kept: it may tell values."""
        if not isinstance(error, Problem):
            self.failure = type(error).__name__
        elif error.status < 500:
            self.facts["error.type"] = error.code
        else:
            self.failure = error.code


class _Nothing(Span):
    """Stands for a span where none is recorded."""

    __slots__ = ()

    def __init__(self) -> None:
        pass

    def __bool__(self) -> bool:
        return False

    @property
    def traceparent(self) -> str | None:
        return None

    def child(self, name: str, kind: Kind = Kind.INTERNAL) -> Span:  # noqa: ARG002
        return self

    def note(self, name: str, value: Fact) -> None:
        pass

    def follow(self, other: Span) -> None:
        pass

    def fail(self, reason: str) -> None:
        pass

    def failed_by(self, error: BaseException) -> None:
        pass

    def end(self) -> None:
        pass

    def __enter__(self) -> Span:
        return self

    def __exit__(self, *_: object) -> None:
        pass


NOTHING: Span = _Nothing()
_recorder: Recorder | None = None
_current: ContextVar[Span | None] = ContextVar("span", default=None)


@contextmanager
def recording(recorder: Recorder) -> Iterator[None]:
    """Tracing is on for as long as the block lasts."""
    global _recorder
    _recorder = recorder
    try:
        yield
    finally:
        _recorder = None


def is_on() -> bool:
    return _recorder is not None


def root(name: str, kind: Kind = Kind.SERVER, *, parent: str | None = None) -> Span:
    """The first span of this node for something that came from outside.

    parent: a caller's traceparent, if that is to be believed: whether to record is then the caller's word.
    """
    recorder = _recorder
    if recorder is None:
        return NOTHING
    if parent is not None and trace_of(parent) is not None:
        return resumed(name, kind, parent)
    if random.random() >= recorder.ratio:  # noqa: S311
        return NOTHING
    return Span(recorder, name, kind, random.getrandbits(128) or 1, 0)


def resumed(name: str, kind: Kind, parent: str) -> Span:
    """A child of a span that was told by its `traceparent`."""
    if _recorder is None:
        return NOTHING
    known = _TRACEPARENT.fullmatch(parent)
    if known is None or not int(known[3], 16) & 1:
        return NOTHING
    return Span(_recorder, name, kind, int(known[1], 16), int(known[2], 16))


def span(name: str, kind: Kind = Kind.INTERNAL) -> Span:
    """A child of what this task works on."""
    if _recorder is None:
        return NOTHING
    parent = _current.get()
    return NOTHING if parent is None else parent.child(name, kind)


def together(spans: Iterable[Span]) -> AbstractContextManager[object]:
    """The block works for all of these at once: it is recorded under the first of them, the others are linked
    to that. None of them ends with it."""
    if _recorder is None:
        return NOTHING
    recorded = [each for each in spans if each]
    if not recorded:
        return NOTHING
    first, *others = recorded
    for other in others:
        other.follow(first)
    return _under(first)


@contextmanager
def _under(span: Span) -> Iterator[None]:
    token = _current.set(span)
    try:
        yield
    finally:
        _current.reset(token)


def trace_of(traceparent: str) -> str | None:
    """The trace's id in a traceparent header; None if it is none."""
    known = _TRACEPARENT.fullmatch(traceparent)
    return None if known is None else known[1]
