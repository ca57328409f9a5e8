"""Which endpoint a method and a path mean: one truth for every engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

from .admission import Endpoint


class Match(NamedTuple):
    """path: values of the template's `{names}`, decoded.

    Without an endpoint, `allow` are the methods served at this path, in order; none: there is no such path.
    """

    endpoint: Endpoint | None
    path: Mapping[str, str]
    allow: Sequence[str]


class _Node:
    """What is served at one path, and what lies below it.

    methods: the endpoint of each, and where in the path the value of each of its names stands.
    """

    __slots__ = ("literal", "methods", "named")

    def __init__(self) -> None:
        self.literal: dict[str, _Node] = {}
        self.named: _Node | None = None
        self.methods: dict[str, tuple[Endpoint, tuple[tuple[str, int], ...]]] = {}


class Router:
    """Finds endpoints.

    A literal segment goes before a `{name}`, which takes one segment that is not empty: a path that is served
    as it stands is never the value of a name, whatever the method. GET's endpoint serves HEAD too, unless it
    takes an Idempotency-Key and so does more than read. One slash at the end makes no difference; every other
    slash does. A segment is decoded after the path was split, so a `%2F` stays inside it; bytes that are not
    UTF-8 become U+FFFD.
    """

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self._root = _Node()
        self._literal: dict[bytes, dict[str, Match]] = {}
        for endpoint in endpoints:
            self._add(endpoint)

    def find(self, method: str, path: bytes) -> Match:
        """path: as sent, percent-encoded, without the query."""
        found = self._literal.get(path)
        if found is not None and (match := found.get(method)) is not None:
            return match
        return self._search(method, path)

    def _add(self, endpoint: Endpoint) -> None:
        segments = endpoint.path.removesuffix("/").split("/")[1:]
        node, names = self._root, []
        for place, segment in enumerate(segments):
            if segment.startswith("{"):
                names.append((segment[1:-1], place))
                node.named = node.named or _Node()
                node = node.named
            else:
                node = node.literal.setdefault(segment, _Node())
        only_reads = endpoint.method == "GET" and not endpoint.repeats
        methods = [endpoint.method, "HEAD"] if only_reads else [endpoint.method]
        for method in methods:
            there = node.methods.get(method)
            if there is not None and there[0].method == endpoint.method:
                raise ValueError(f"{endpoint.method} {endpoint.path} is served twice")
            if there is None or method == endpoint.method:
                node.methods[method] = endpoint, tuple(names)
                if not names:
                    self._shorten(method, segments, endpoint)

    def _shorten(self, method: str, segments: Sequence[str], endpoint: Endpoint) -> None:
        path = quote("/".join(["", *segments])).encode()
        for each in (path, path + b"/") if path else (b"/",):
            self._literal.setdefault(each, {})[method] = Match(endpoint, {}, ())

    def _search(self, method: str, path: bytes) -> Match:
        if not path.startswith(b"/"):
            return Match(None, {}, ())
        segments = _segments(path)
        served = next((node.methods for node in _ends(self._root, segments) if node.methods), {})
        if (found := served.get(method)) is None:
            return Match(None, {}, sorted(served))
        endpoint, names = found
        return Match(endpoint, {name: segments[place] for name, place in names}, ())


def _segments(path: bytes) -> list[str]:
    parts = path.removesuffix(b"/").split(b"/")[1:]
    if b"%" in path:
        parts = [unquote_to_bytes(part) for part in parts]
    return [part.decode(errors="replace") for part in parts]


def _ends(node: _Node, segments: Sequence[str], place: int = 0) -> Iterator[_Node]:
    """The nodes that the whole path leads to, the most literal first."""
    if place == len(segments):
        yield node
        return
    segment = segments[place]
    if (literal := node.literal.get(segment)) is not None:
        yield from _ends(literal, segments, place + 1)
    if node.named is not None and segment:
        yield from _ends(node.named, segments, place + 1)
