"""What is a request and what is none, byte by byte, however the bytes arrive."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secureconnect.config import GatewayConfig
from secureconnect.errors import HeadersTooLarge, Malformed, Problem, UriTooLong
from secureconnect.gateway.parsing import MAX_FIELDS, OVERHEAD_BYTES, Incoming, RequestParser

HOST = b"host: x\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
UPGRADE = b"connection: keep-alive, Upgrade\r\nupgrade: websocket\r\n"
LIMITS = GatewayConfig(uri_limit_bytes=500, header_limit_bytes=2_000)


def parse(*pieces: bytes, limits: GatewayConfig = LIMITS) -> RequestParser:
    parser = RequestParser(limits)
    for piece in pieces:
        parser.feed(piece)
    return parser


def fault_of(data: bytes) -> type[Problem] | None:
    parser = parse(data)
    return None if parser.fault is None else type(parser.fault)


def only(data: bytes) -> Incoming:
    parser = parse(data)
    assert parser.fault is None, parser.fault
    (incoming,) = parser.waiting
    return incoming


def get(*lines: bytes, first: bytes = b"GET / HTTP/1.1") -> bytes:
    return b"\r\n".join((first, b"host: x", *lines, b"", b""))


def post(*lines: bytes, body: bytes = b"hello") -> bytes:
    return get(*lines, first=b"POST / HTTP/1.1") + body


# Requests


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", b"/", b""),
        (b"/a/b?c=d?e", b"/a/b", b"c=d?e"),
        (b"/a%2Fb", b"/a%2Fb", b""),
        (b"//a", b"//a", b""),
        (b"/a#b", b"/a", b""),
        (b"/?", b"/", b""),
        (b"http://h", b"/", b""),
        (b"http://h/a?b", b"/a", b"b"),
        (b"http://h?b#c", b"/", b"b"),
        (b"HTTPS://h:1/a", b"/a", b""),
        (b"*", b"/*", b""),
        (b"ftp://h/a", b"/*", b""),
    ],
)
def test_targets(target: bytes, path: bytes, query: bytes) -> None:
    method = b"OPTIONS" if target == b"*" else b"GET"
    incoming = only(get(first=method + b" " + target + b" HTTP/1.1"))
    assert (incoming.path, incoming.query) == (path, query)


def test_a_length_may_have_many_zeros() -> None:
    incoming = only(get(b"content-length: " + b"0" * 5_000 + b"2", first=b"POST / HTTP/1.1") + b"{}")
    assert (incoming.headers["content-length"], incoming.pieces) == ("2", [b"{}"])


def test_the_host_of_a_whole_address_counts() -> None:
    assert only(get(first=b"GET http://h:1/a HTTP/1.1")).headers == {"host": "h:1"}
    assert only(get(first=b"GET http://h/a HTTP/1.0")).headers == {"host": "h"}
    assert only(get(first=b"GET ftp://h/a HTTP/1.1")).headers == {"host": "x"}


def test_fields() -> None:
    incoming = only(
        get(
            b"Accept:text/html",
            b"X-A: \t one \t",
            b"x-a: two",
            b"X-Empty:",
            b"cookie: a=\xe9",
            b"x~!#$%&'*+-.^_`|9: tokens",
        )
    )
    assert incoming.headers == {
        "host": "x",
        "accept": "text/html",
        "x-a": "one, two",
        "x-empty": "",
        "cookie": "a=é",
        "x~!#$%&'*+-.^_`|9": "tokens",
    }
    assert incoming.is_whole
    assert not incoming.is_last


@pytest.mark.parametrize(
    ("data", "is_last"),
    [
        (get(), False),
        (get(b"connection: keep-alive"), False),
        (get(b"connection: close"), True),
        (get(b"connection: x, Close"), True),
        (get(b"connection: x", b"connection: close"), True),
        (get(b"proxy-connection: close"), True),
        (get(b"connection: \xa0close"), False),
        (get(b"transfer-encoding: chunked") + b"0\r\nconnection: close\r\n\r\n", True),
        (get(first=b"GET / HTTP/1.0"), True),
        (get(b"connection: keep-alive", first=b"GET / HTTP/1.0"), True),
        (b"GET / HTTP/1.0\r\n\r\n", True),
        (b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n", True),
    ],
)
def test_whether_more_may_follow(data: bytes, is_last: bool) -> None:
    parser = parse(data + get())
    assert [each.is_last for each in parser.waiting] == ([True] if is_last else [False, False])
    assert parser.fault is None, "what follows a last request is not looked at"


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (post(b"content-length: 5"), b"hello"),
        (post(b"content-length: 5 "), b"hello"),
        (post(b"content-length: 005"), b"hello"),
        (post(b"content-length: 0", body=b""), b""),
        (post(body=b""), b""),
        (CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (CHUNKED + b"2\r\nhe\r\n0003\r\nllo\r\n00\r\n\r\n", b"hello"),
        (CHUNKED + b'5;a=b;c="d"\r\nhello\r\n0;e\r\n\r\n', b"hello"),
        (CHUNKED + b"A\r\n0123456789\r\n0\r\nx-trailer: y\r\n\r\n", b"0123456789"),
        (post(b"Transfer-Encoding: Chunked", body=b"5\r\nhello\r\n0\r\n\r\n"), b"hello"),
        # an upgrade that nobody takes does not hide the body
        (post(b"connection: upgrade", b"upgrade: h2c", b"content-length: 5"), b"hello"),
        (
            post(
                b"connection: upgrade",
                b"upgrade: h2c",
                b"transfer-encoding: chunked",
                body=b"5\r\nhello\r\n0\r\n\r\n",
            ),
            b"hello",
        ),
        (get(b"connection: upgrade", b"upgrade: TLS/1.2"), b""),
        (post(*UPGRADE.split(b"\r\n")[:-1], b"content-length: 5"), b"hello"),
        # nor does a WebSocket: frames would begin in the body
        (get(*UPGRADE.split(b"\r\n")[:-1], b"content-length: 5") + b"hello", b"hello"),
        (get(*UPGRADE.split(b"\r\n")[:-1], b"transfer-encoding: chunked") + b"0\r\n\r\n", b""),
        # a trailer is not a field of the head
        (CHUNKED + b"0\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n", b""),
        (CHUNKED + b'000000000000000000005;a="b;c"\r\nhello\r\n0\r\n\r\n', b"hello"),
        (post(b"content-length: 00000000000000000000000005"), b"hello"),
    ],
)
def test_bodies_end_where_they_say(data: bytes, body: bytes) -> None:
    parser = parse(data + get(first=b"GET /next HTTP/1.1"))
    assert parser.fault is None
    first, second = parser.waiting
    assert (b"".join(first.pieces), first.is_whole) == (body, True)
    assert (second.path, second.is_whole) == (b"/next", True)
    assert "x-trailer" not in first.headers


def test_what_is_left_of_a_body() -> None:
    """Never more than what is its own: a request may stand behind it."""
    parser = parse()
    assert parser.body_left == 0
    parser.feed(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n")
    assert parser.body_left == 0
    parser.feed(b"\r\nabcd")
    assert parser.body_left == 5
    parser.feed(b"efghi" + get())
    assert (parser.body_left, len(parser.waiting)) == (0, 2)
    assert parse(CHUNKED + b"5\r\nhel").body_left == 0
    assert parse(post(b"content-length: 9", b"connection: close", body=b"123456789")).body_left == 0


def test_a_body_comes_as_it_comes() -> None:
    parser = parse(post(b"content-length: 10", body=b"01234"))
    (incoming,) = parser.waiting
    assert (list(incoming.pieces), incoming.is_whole) == ([b"01234"], False)
    parser.feed(b"567")
    parser.feed(b"89" + get())
    assert (list(incoming.pieces), incoming.is_whole) == ([b"01234", b"567", b"89"], True)
    assert len(parser.waiting) == 2


@pytest.mark.parametrize(
    ("line", "waits"), [(b"expect: 100-continue", True), (b"Expect: 100-CONTINUE", True), (b"x: y", False)]
)
def test_expectations(line: bytes, waits: bool) -> None:
    assert only(post(line, b"content-length: 5", body=b"")).waits is waits


def test_an_old_client_expects_nothing() -> None:
    old = get(b"expect: 100-continue", b"content-length: 5", first=b"POST / HTTP/1.0")
    assert not only(old).waits


# Upgrades


def test_a_websocket_keeps_what_came_behind_it() -> None:
    head = b"GET /ws HTTP/1.1\r\n" + HOST + UPGRADE + b"\r\n"
    for pieces in (
        (head + b"\x81\x80abcd",),
        (head, b"\x81\x80", b"abcd"),
        (head[:30], head[30:] + b"\x81\x80abcd"),
    ):
        (incoming,) = parse(*pieces).waiting
        assert (incoming.is_upgrade, incoming.is_last, incoming.rest) == (True, True, b"\x81\x80abcd")


@pytest.mark.parametrize(
    "data",
    [
        post(*UPGRADE.split(b"\r\n")[:-1], b"content-length: 0", body=b""),
        b"GET /ws HTTP/1.0\r\n" + HOST + UPGRADE + b"\r\n",
        get(b"upgrade: websocket"),
        get(b"connection: upgrade"),
        get(b"connection: upgrade", b"upgrade: h2c"),
    ],
)
def test_these_are_no_upgrades(data: bytes) -> None:
    assert not only(data).is_upgrade


def test_any_number_of_upgrades_may_come_at_once() -> None:
    """As many as one read takes."""
    one = post(b"connection: upgrade", b"upgrade: h2c", body=b"")
    parser = parse(one * 800)
    assert (len(parser.waiting), parser.fault) == (800, None)


# No requests


REFUSED = {
    "no version": b"GET /\r\n\r\n" + get(),
    "half a version": b"GET / HTTP\r\n\r\n",
    "HTTP/0.9": get(first=b"GET / HTTP/0.9"),
    "HTTP/1.2": get(first=b"GET / HTTP/1.2"),
    "HTTP/1.10": get(first=b"GET / HTTP/1.10"),
    "HTTP/2.0": get(first=b"GET / HTTP/2.0"),
    "http/1.1": get(first=b"GET / http/1.1"),
    "a preface too late": get() + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a method in lower case": get(first=b"get / HTTP/1.1"),
    "an unknown method": get(first=b"BREW / HTTP/1.1"),
    "no target": get(first=b"GET HTTP/1.1"),
    "a target with a blank": get(first=b"GET /a b HTTP/1.1"),
    "a target that is no path": get(first=b"GET a HTTP/1.1"),
    "a target that is a query": get(first=b"GET ?a HTTP/1.1"),
    "a target that is not ASCII": get(first="GET /é HTTP/1.1".encode()),
    "a target with NUL": get(first=b"GET /\0 HTTP/1.1"),
    "a target without a host": get(first=b"GET http:///a HTTP/1.1"),
    "a target with a user": get(first=b"GET http://good@evil/ HTTP/1.1"),
    "a target with another host's port": get(first=b"GET http://a\\b/ HTTP/1.1"),
    "tabs": get(first=b"GET\t/\tHTTP/1.1"),
    "a blank behind the version": get(first=b"GET / HTTP/1.1 "),
    "a version of two digits": get(first=b"GET / HTTP/01.1"),
    "a blank in front": b" " + get(),
    "bare LF": b"GET / HTTP/1.1\nhost: x\n\n",
    "bare LF after the first line": b"GET / HTTP/1.1\nhost: x\r\n\r\n",
    "bare LF after a field": b"GET / HTTP/1.1\r\nhost: x\n\r\n",
    "bare LF at the end": b"GET / HTTP/1.1\r\nhost: x\r\n\n",
    "bare CR in a value": get(b"a: b\rc"),
    "bare CR after a field": b"GET / HTTP/1.1\r\nhost: x\ra: b\r\n\r\n",
    "obs-fold": get(b"a: b", b" c"),
    "obs-fold with a tab": get(b"a: b", b"\tc"),
    "obs-fold of nothing": get(b"a:", b" b"),
    "obs-fold of the first line": b"GET / HTTP/1.1\r\n host: x\r\n\r\n",
    "a blank before the colon": get(b"a : b"),
    "no colon": get(b"a"),
    "no name": get(b": a"),
    "a name that is not ASCII": get("é: a".encode()),
    "a name in brackets": get(b"(a): b"),
    "NUL in a value": get(b"a: b\0c"),
    "a control character in a value": get(b"a: b\x01c"),
    "DEL in a value": get(b"a: b\x7fc"),
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "two Hosts": get(b"host: x"),
    "two other Hosts": get(b"Host: y"),
    "a Host with a slash": b"GET / HTTP/1.1\r\nhost: a/b\r\n\r\n",
    "a Host with a blank": b"GET / HTTP/1.1\r\nhost: a b\r\n\r\n",
    "a Host that is not ASCII": b"GET / HTTP/1.1\r\nhost: \xe9\r\n\r\n",
    "two Authorizations": get(b"authorization: Bearer a", b"authorization: Bearer b"),
    "two content types": post(b"content-type: a/b", b"content-type: c/d", b"content-length: 5"),
    "another expectation": get(b"expect: 200-ok"),
    "length and coding": post(b"content-length: 5", b"transfer-encoding: chunked", body=b"0\r\n\r\n"),
    "coding and length": post(b"transfer-encoding: chunked", b"content-length: 5", body=b"0\r\n\r\n"),
    "two lengths": post(b"content-length: 5", b"content-length: 5"),
    "two other lengths": post(b"content-length: 5", b"content-length: 6"),
    "a list of lengths": post(b"content-length: 5, 5"),
    "a length with a sign": post(b"content-length: +5"),
    "a length below nothing": post(b"content-length: -5"),
    "a length in hexadecimal": post(b"content-length: 0x5"),
    "no length": post(b"content-length:"),
    "two numbers": post(b"content-length: 5 5"),
    "an endless length": post(b"content-length: 99999999999999999999"),
    "another coding": post(b"transfer-encoding: gzip"),
    "identity": post(b"transfer-encoding: identity"),
    "two codings": post(b"transfer-encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "chunked first": post(b"transfer-encoding: chunked, gzip", body=b"0\r\n\r\n"),
    "chunked twice": post(b"transfer-encoding: chunked, chunked", body=b"0\r\n\r\n"),
    "two codings in two fields": post(b"transfer-encoding: chunked", b"transfer-encoding: chunked"),
    "nearly chunked": post(b"transfer-encoding: xchunked", body=b"0\r\n\r\n"),
    "chunked in quotes": post(b'transfer-encoding: "chunked"', body=b"0\r\n\r\n"),
    "chunked with a parameter": post(b"transfer-encoding: chunked;a=b", body=b"0\r\n\r\n"),
    "chunked behind a vertical tab": post(b"transfer-encoding: \x0bchunked", body=b"0\r\n\r\n"),
    "chunked in HTTP/1.0": get(b"transfer-encoding: chunked", first=b"POST / HTTP/1.0") + b"0\r\n\r\n",
    "no coding": post(b"transfer-encoding:", body=b"0\r\n\r\n"),
    # what parsers have been made to smuggle by
    "CVE-2019-15605": post(b"transfer-encoding: chunked\x0b", body=b"0\r\n\r\n"),
    "CVE-2020-8287": post(
        b"transfer-encoding: chunked", b"transfer-encoding: chunked-false", body=b"0\r\n\r\n"
    ),
    "CVE-2021-22959": post(b"content-length : 5"),
    "CVE-2022-32213": post(b"transfer-encoding: chunkedchunked", body=b"0\r\n\r\n"),
    "CVE-2022-32214": b"GET / HTTP/1.1\r\nhost: x\r\na: b\nGET /next HTTP/1.1\r\nhost: x\r\n\r\n",
    "CVE-2022-32215": post(b"transfer-encoding: chunked", b" , identity", body=b"0\r\n\r\n"),
    "CVE-2022-35256": b"GET / HTTP/1.1\r\nhost: x\r\na: \nGET /next HTTP/1.1\r\nhost: x\r\n\r\n",
    "CVE-2023-30589": post(b"a: \rtransfer-encoding: chunked", body=b"0\r\n\r\n"),
    "CVE-2023-38697": post(b"content-length: 0x05"),
    "CVE-2023-47627": post(b"content-length: 5_0"),
    "CVE-2024-27982": b"POST / HTTP/1.1\r\nhost: x\r\n content-length: 5\r\n\r\nhello",
    "CVE-2025-23167": b"GET / HTTP/1.1\r\nhost: x\r\n\rX\r\n\r\n",
}
BROKEN_CHUNKS = {
    "no size": b"\r\nhello\r\n0\r\n\r\n",
    "a size with a sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "a size below nothing": b"-5\r\nhello\r\n0\r\n\r\n",
    "a size with 0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "a blank behind the size": b"5 \r\nhello\r\n0\r\n\r\n",
    "a blank before the size": b" 5\r\nhello\r\n0\r\n\r\n",
    "an endless size": b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "bare LF after the size": b"5\nhello\r\n0\r\n\r\n",
    "bare LF after the data": b"5\r\nhello\n0\r\n\r\n",
    "bare LF in an extension": b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "bare CR after the size": b"5\rhello\r\n0\r\n\r\n",
    "more data than said": b"5\r\nhello!\r\n0\r\n\r\n",
    "less data than said": b"6\r\nhello\r\n0\r\n\r\n",
    "a trailer without a colon": b"0\r\nx\r\n\r\n",
    "a folded trailer": b"0\r\na: b\r\n c\r\n\r\n",
    "a length for a trailer": b"0\r\ncontent-length: 5\r\n\r\n",
    "a coding for a trailer": b"0\r\ntransfer-encoding: chunked\r\n\r\n",
    "an extension without a name": b"5;\r\nhello\r\n0\r\n\r\n",
    "an extension with an open quote": b'5;a="\r\nhello\r\n0\r\n\r\n',
    "CVE-2021-22960": b"2 ;\nxx\r\n0\r\n\r\n",
    "CVE-2024-52304": b"2;a\nGET /next HTTP/1.1\r\nxx\r\n0\r\n\r\n",
    "CVE-2025-43859": b"5\r\nhelloXX0\r\n\r\n",
}


@pytest.mark.parametrize("name", REFUSED)
def test_these_are_no_requests(name: str) -> None:
    parser = parse(REFUSED[name])
    assert isinstance(parser.fault, Malformed)
    assert len(parser.waiting) == (1 if name == "a preface too late" else 0)
    parser.feed(get())
    assert len(parser.waiting) == (1 if name == "a preface too late" else 0), (
        "nothing is parsed after a fault"
    )


@pytest.mark.parametrize("name", BROKEN_CHUNKS)
def test_these_are_no_chunks(name: str) -> None:
    parser = parse(CHUNKED + BROKEN_CHUNKS[name])
    assert isinstance(parser.fault, Malformed)
    (incoming,) = parser.waiting
    assert not incoming.is_whole


def test_what_came_before_a_fault_is_kept() -> None:
    parser = parse(get() + post(b"content-length: 5") + REFUSED["bare LF"] + get())
    assert [each.method for each in parser.waiting] == ["GET", "POST"]
    assert isinstance(parser.fault, Malformed)


# Bounds


def feed_until_fault(parser: RequestParser, piece: bytes, most: int) -> int:
    """How many bytes it took."""
    fed = 0
    while parser.fault is None and fed < most:
        parser.feed(piece)
        fed += len(piece)
    return fed


@pytest.mark.parametrize(
    ("start", "piece", "fault"),
    [
        (b"GET /", b"a" * 100, UriTooLong),
        (b"GET / HTTP/1.1\r\nhost: x\r\na: ", b"b" * 100, HeadersTooLarge),
        (b"GET / HTTP/1.1\r\n", b"a" * 100, HeadersTooLarge),
        (b"GET / HTTP/1.1\r\nhost: x\r\n", b"a: b\r\n", HeadersTooLarge),
        (b"", b"\r\n", HeadersTooLarge),
    ],
)
def test_a_head_is_bounded(start: bytes, piece: bytes, fault: type[Problem]) -> None:
    parser = parse(start) if start else RequestParser(LIMITS)
    fed = feed_until_fault(parser, piece, 10_000)
    assert isinstance(parser.fault, fault)
    assert fed <= LIMITS.uri_limit_bytes + LIMITS.header_limit_bytes + len(piece)


def test_so_are_the_fields_that_come_at_once() -> None:
    fields = [b"a%d: b" % number for number in range(MAX_FIELDS)]
    assert fault_of(get(*fields[:-1])) is None
    assert fault_of(get(*fields)) is HeadersTooLarge


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (CHUNKED + b"5;", b"a" * 100),
        (CHUNKED + b"0\r\n", b"a: b\r\n"),
        (CHUNKED + b"0\r\na: ", b"b" * 100),
        (CHUNKED, b"1;" + b"a" * 98 + b"\r\nx\r\n"),
    ],
)
def test_so_is_what_is_no_body(start: bytes, piece: bytes) -> None:
    parser = parse(start)
    fed = feed_until_fault(parser, piece, 100_000)
    assert isinstance(parser.fault, Malformed)
    assert fed <= 1.2 * OVERHEAD_BYTES + len(piece)


def test_small_chunks_are_no_fault() -> None:
    parser = parse(CHUNKED)
    for _ in range(20_000):
        parser.feed(b"1\r\nx\r\n")
    assert parser.fault is None


# However it arrives


def told(parser: RequestParser) -> Any:
    requests = [
        (
            each.method,
            each.path,
            each.query,
            each.headers,
            b"".join(each.pieces),
            each.is_whole,
            each.is_last,
            each.is_upgrade,
            each.waits,
            each.rest if each.is_upgrade else b"",
        )
        for each in parser.waiting
    ]
    return requests, type(parser.fault), parser.is_amid


STREAMS = st.lists(
    st.sampled_from(
        [
            get(),
            get(b"a: b", first=b"HEAD /a?b HTTP/1.1"),
            post(b"content-length: 5"),
            post(b"connection: upgrade", b"upgrade: h2c", b"content-length: 5"),
            CHUNKED + b"5;a=b\r\nhello\r\n0\r\nt: r\r\n\r\n",
            CHUNKED + b"5\r\nhel",
            get(b"connection: close"),
            b"GET /ws HTTP/1.1\r\n" + HOST + UPGRADE + b"\r\n\x81\x80abcd",
            b"\r\n",
            *REFUSED.values(),
            *(CHUNKED + each for each in BROKEN_CHUNKS.values()),
        ]
    ),
    min_size=1,
    max_size=4,
).map(b"".join)


@settings(deadline=None)
@given(STREAMS, st.data())
def test_every_split_says_the_same(stream: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(stream) - 1)), max_size=12)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True) if b > a]
    assert told(parse(*pieces)) == told(parse(stream))
    assert told(parse(*(stream[at : at + 1] for at in range(len(stream))))) == told(parse(stream))
