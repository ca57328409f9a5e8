"""HTTP/1.1 requests out of bytes, without I/O: httptools does the grammar, this the framing and the bounds.

httptools (llhttp) refuses bare LF, obs-fold, blanks before a colon, control characters, repeated or malformed
lengths, and a length beside a transfer coding. What it lets through and RFC 9112 does not is refused here.
"""

from __future__ import annotations

import re
from typing import Any

import httptools

from ..config import GatewayConfig
from ..errors import HeadersTooLarge, Malformed, Problem, UriTooLong

MAX_FIELDS = 128
OVERHEAD_BYTES = 16_384  # of chunk sizes, extensions and trailers, and as much again for each byte of body
OVERHEAD_PER_BYTE = 8
_NAMES = {  # as most clients write them
    name.title().encode(): name
    for name in (
        "host",
        "connection",
        "accept",
        "accept-encoding",
        "accept-language",
        "authorization",
        "content-length",
        "content-type",
        "cookie",
        "origin",
        "user-agent",
        "x-forwarded-for",
        "x-forwarded-proto",
    )
}
_NAMES |= {name.encode(): name for name in _NAMES.values()}
_SINGLE = frozenset({"host", "content-type", "authorization", "sec-websocket-key", "sec-websocket-version"})
_HOST = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=%\[\]:-]*")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)


class Incoming:
    """A request whose head is here.

    path: percent-encoded, without the query.  headers: lower-case names, repeated ones joined by ", ".
    pieces: of the body, not taken yet.  is_whole: the body has come to its end.
    is_last: nothing after it on this connection is a request.
    waits: the client sends the body once it is told to continue.
    rest: of a WebSocket's handshake, the bytes that came behind it.
    """

    __slots__ = (
        "body_bytes",
        "header_bytes",
        "headers",
        "is_last",
        "is_upgrade",
        "is_whole",
        "method",
        "path",
        "pieces",
        "query",
        "rest",
        "version",
        "waits",
    )

    def __init__(
        self, method: str, target: bytes, headers: dict[str, str], header_bytes: int, version: str
    ) -> None:
        path, _, query = target.partition(b"?")
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.header_bytes = header_bytes
        self.version = version
        self.pieces: list[bytes] = []
        self.body_bytes = 0
        self.is_whole = False
        self.is_last = False
        self.is_upgrade = False
        self.waits = False
        self.rest = b""


class RequestParser:
    """The requests on one connection.

    waiting: those whose head is here and that nobody has taken.  A `feed` may add several.
    fault: why nothing after `waiting`, or the rest of its last body, can be understood.
    is_amid: bytes of a head that is not whole have come.
    """

    __slots__ = (
        "_config",
        "_current",
        "_fields",
        "_parser",
        "_raw_bytes",
        "_replaying",
        "_target",
        "fault",
        "is_amid",
        "waiting",
    )

    def __init__(self, config: GatewayConfig) -> None:
        self.waiting: list[Incoming] = []
        self.fault: Problem | None = None
        self.is_amid = False
        self._config = config
        self._current: Incoming | None = None  # the one whose body is coming
        self._target = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._raw_bytes = 0  # of the head that is coming, or of the body's framing
        self._replaying = False
        self._parser: Any = httptools.HttpRequestParser(self)  # None once closed

    def feed(self, data: bytes | memoryview) -> None:
        """Parse what came. Nothing is parsed after a fault or a last request."""
        while data and self.fault is None:
            if self._current is not None and self._current.is_whole:
                if self._current.is_upgrade:
                    self._current.rest += data
                return
            rest: bytes | memoryview = b""
            self._raw_bytes += len(data)
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as exc:
                rest = data[exc.args[0] :]
                self._go_on_after_upgrade()
            except httptools.HttpParserError as exc:
                if self._current is None or not self._current.is_whole:
                    cause = exc.__context__
                    self.fault = cause if isinstance(cause, Problem) else Malformed("This is no HTTP/1.1.")
            self._check_bounds()
            data = rest

    @property
    def body_left(self) -> int:
        """How much of a body is still to come, if that is known."""
        incoming = self._current
        if incoming is None or incoming.is_whole:
            return 0
        return max(0, int(incoming.headers.get("content-length", 0)) - incoming.body_bytes)

    def close(self) -> None:
        """Let go of llhttp's parser, which holds on to us, and of the last request. Nothing is parsed any
        more."""
        self._parser = self._current = None

    # what httptools calls

    def on_message_begin(self) -> None:
        if self._replaying:
            return
        if self._current is not None:
            raise Malformed  # behind a last request
        self._target = b""
        self._fields = []
        self.is_amid = True

    def on_url(self, part: bytes) -> None:
        if not self._replaying:
            self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._replaying or self._current is not None:
            return  # a trailer: nobody has asked for one
        self._fields.append((name, value))
        if len(self._fields) > MAX_FIELDS:
            raise HeadersTooLarge

    def on_headers_complete(self) -> None:
        if self._replaying:
            return
        incoming = self._incoming()
        self._current = incoming
        self._raw_bytes = 0
        self.is_amid = False
        self.waiting.append(incoming)

    def on_body(self, data: bytes) -> None:
        assert self._current is not None
        self._current.pieces.append(data)
        self._current.body_bytes += len(data)

    def on_message_complete(self) -> None:
        incoming = self._current
        assert incoming is not None
        if self._parser.should_upgrade() and not self._replaying:
            return  # llhttp gives up here, whether there is a body or not
        incoming.is_whole = True
        self._raw_bytes = 0
        if not self._parser.should_keep_alive():  # llhttp knows more words for that, and reads trailers
            incoming.is_last = True
        if not incoming.is_last:
            self._current = None
        self._replaying = False

    def _incoming(self) -> Incoming:
        version = self._parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise Malformed("The versions of HTTP here are 1.1 and 2.")
        headers: dict[str, str] = {}
        size = 0
        for raw_name, raw_value in self._fields:
            name = _NAMES.get(raw_name) or raw_name.decode("ascii").lower()
            value = raw_value.strip(b" \t").decode("latin-1")
            size += len(raw_name) + len(raw_value)
            if name not in headers:
                headers[name] = value
            elif name in _SINGLE:
                raise Malformed(f"A request has one {name}.")
            else:
                headers[name] = f"{headers[name]}, {value}"
        self._fields = []
        method = self._parser.get_method().decode("ascii")
        _check_fields(headers, version)
        incoming = Incoming(method, _origin_form(self._target, headers), headers, size, version)
        self._target = b""
        connection = headers.get("connection")
        tokens = () if connection is None else tokens_of(connection)
        incoming.is_last = version == "1.0" or "close" in tokens or method == "CONNECT"
        if version == "1.1":
            incoming.waits = headers.get("expect", "").lower() == "100-continue"
            incoming.is_upgrade = (
                method == "GET"
                and "upgrade" in tokens
                and "websocket" in tokens_of(headers.get("upgrade", ""))
                and "transfer-encoding" not in headers  # a body would be taken for frames
                and int(headers.get("content-length", 0)) == 0
            )
        return incoming

    def _go_on_after_upgrade(self) -> None:
        """llhttp leaves the connection to whatever protocol was asked for. We ignore all but WebSocket (RFC
        9110 section 7.8), so the body is parsed as that of the same request without its `Upgrade`."""
        incoming = self._current
        assert incoming is not None
        if incoming.is_upgrade or incoming.method == "CONNECT":
            incoming.is_last = True
            incoming.is_whole = True
            return
        framing = [
            f"{name}: {incoming.headers[name]}\r\n"
            for name in ("content-length", "transfer-encoding")
            if name in incoming.headers
        ]
        close = "connection: close\r\n" if incoming.is_last else ""
        self._replaying = True
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(f"POST / HTTP/1.1\r\n{''.join(framing)}{close}\r\n".encode("latin-1"))

    def _check_bounds(self) -> None:
        if self.fault is not None:
            return
        if self._current is None:
            limit = self._config.uri_limit_bytes
            if self._raw_bytes > limit + self._config.header_limit_bytes:
                self.fault = (
                    UriTooLong() if not self._fields and len(self._target) > limit else HeadersTooLarge()
                )
        elif not self._current.is_whole:
            body_bytes = self._current.body_bytes
            if self._raw_bytes - body_bytes > OVERHEAD_BYTES + OVERHEAD_PER_BYTE * body_bytes:
                self.fault = Malformed("The body's chunks are mostly overhead.")


def tokens_of(value: str) -> list[str]:
    """A comma-separated list of names, in lower case."""
    return [each.strip(" \t") for each in value.lower().split(",")]


def _origin_form(target: bytes, headers: dict[str, str]) -> bytes:
    """The path and query of a request target; of one that is neither a path nor `http://host/path` what names
    nothing. The host of the latter counts instead of `Host` (RFC 9112 section 3.2.2). Raises Malformed."""
    if target.startswith(b"/"):
        return target.partition(b"#")[0]
    found = _ABSOLUTE.match(target)
    if found is None:
        return b"/*"
    host = found[1].decode("ascii")
    if not host or not _HOST.fullmatch(host):  # nor is there a user in it (RFC 9110 section 4.2.4)
        raise Malformed("The target is not well-formed.")
    headers["host"] = host
    rest = target[found.end() :].partition(b"#")[0]
    return rest if rest.startswith(b"/") else b"/" + rest


def _check_fields(headers: dict[str, str], version: str) -> None:
    """What llhttp takes and RFC 9112 does not. Raises Malformed."""
    host = headers.get("host")
    if host is None:
        if version == "1.1":
            raise Malformed("A request of HTTP/1.1 has a Host (RFC 9112 section 3.2).")
    elif not _HOST.fullmatch(host):
        raise Malformed("The Host is not well-formed.")
    length = headers.get("content-length")
    if length is not None:
        headers["content-length"] = length.lstrip("0") or "0"  # Python takes no number of 5,000 digits
    coding = headers.get("transfer-encoding")
    if coding is not None and (coding.lower() != "chunked" or version != "1.1"):
        raise Malformed("The transfer coding of a body is chunked, in HTTP/1.1 alone (RFC 9112 section 6.1).")
    if headers.get("expect", "100-continue").lower() != "100-continue":
        raise Malformed("The only expectation is 100-continue.")
