"""What every request passes: ids, limits, origin, addresses, callers, rates, queries, bodies."""

from __future__ import annotations

import json
import tracemalloc
import uuid

import msgspec
import pytest
from structlog.testing import capture_logs

from secureconnect.config import RateLimitsConfig
from secureconnect.gateway.decoding import body_of
from secureconnect.identity import new_id
from secureconnect.log import with_bound

from .house import UPGRADE, House, Note, open_house

ANN = {"authorization": "Bearer ann"}
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


async def test_success_comes_in_the_envelope(house: House) -> None:
    response = await house.ask("GET", "/v1/open")
    assert response.status == 200
    assert response.json["success"] is True
    assert response.json["data"]["address"] == "127.0.0.1"
    assert response.json["meta"]["timestamp"].endswith("Z")
    assert response.json["meta"]["request_id"] == response.headers["x-request-id"]


async def test_failure_comes_in_the_envelope(house: House) -> None:
    response = await house.ask("GET", "/v1/nowhere")
    assert response.status == 404
    assert response.json["success"] is False
    assert set(response.json["error"]) == {"code", "message"}
    assert response.json["meta"]["request_id"] == response.headers["x-request-id"]


@pytest.mark.parametrize("given", ["a", "A.b:c_d-9", "x" * 64])
async def test_a_well_formed_request_id_is_kept(house: House, given: str) -> None:
    response = await house.ask("GET", "/v1/open", {"x-request-id": given})
    assert response.headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["x" * 65, "a b", 'a"b', ""])
async def test_another_request_id_is_replaced(house: House, given: str) -> None:
    response = await house.ask("GET", "/v1/open", {"x-request-id": given})
    assert uuid.UUID(response.headers["x-request-id"])


@pytest.mark.parametrize(
    ("traceparent", "trace_id"),
    [
        (f"00-{TRACE}-{SPAN}-01", TRACE),
        (f"01-{TRACE}-{SPAN}-00-of-the-future", TRACE),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{TRACE}-{SPAN}-01-more", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE}-{SPAN}", None),
        ("", None),
    ],
)
async def test_a_trace_is_named_on_every_line(house: House, traceparent: str, trace_id: str | None) -> None:
    with capture_logs([with_bound]) as logged:
        await house.ask("GET", "/v1/break", {"traceparent": traceparent, "x-request-id": "r"})
        await house.ask("GET", "/v1/ws/echo", UPGRADE | {"traceparent": traceparent, "x-request-id": "r"})
    lines = [line for line in logged if line.get("request_id") == "r"]
    assert {line["event"] for line in lines} == {"request", "request_failed", "websocket_refused"}
    assert [line.get("trace_id") for line in lines] == [trace_id] * len(lines)


async def test_a_caller_is_named_on_every_line(house: House) -> None:
    with capture_logs([with_bound]) as logged:
        await house.ask("GET", "/v1/mine?limit=x", ANN | {"x-request-id": "known"})
        await house.ask("GET", "/v1/mine", {"x-request-id": "unknown"})
    named = {line["request_id"]: line.get("user_id") for line in logged}
    assert named == {"known": "user-ann", "unknown": None}


async def test_a_trailing_slash_makes_no_difference(house: House) -> None:
    for path in ("/v1/open", "/v1/open/", f"/v1/things/{new_id()}/"):
        assert (await house.ask("GET", path)).status == 200
    for path in ("/v1/notes", "/v1/notes/"):
        assert (await house.post(path, b'{"text": "x"}')).status == 200
    assert (await house.ask("GET", "/v1//open")).status == 404


async def test_security_headers_stand_on_every_answer(house: House) -> None:
    for path in ("/v1/open", "/v1/nowhere", "/v1/break", "/v1/mine", "/health"):
        headers = (await house.ask("GET", path)).headers
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-frame-options"] == "DENY"
        assert headers["content-type"] == "application/json"
        assert "strict-transport-security" not in headers
        assert "server" not in headers


async def test_answers_are_not_stored_but_files_of_ours(house: House) -> None:
    for path in ("/v1/open", "/v1/mine", "/v1/nowhere", "/v1/break", "/health"):
        assert (await house.ask("GET", path)).headers["cache-control"] == "no-store", path
    assert (await house.ask("GET", "/docs/start.js")).headers["cache-control"] == "no-cache"


async def test_https_alone_brings_hsts() -> None:
    async with open_house(public_url="https://chat.example.org") as house:
        assert "max-age" in (await house.ask("GET", "/v1/open")).headers["strict-transport-security"]


async def test_methods(house: House) -> None:
    head = await house.ask("HEAD", "/v1/open")
    assert (head.status, head.body) == (200, b"")
    assert int(head.headers["content-length"]) > 0
    for method in ("PUT", "DELETE", "TRACE", "PROPFIND"):
        response = await house.ask(method, "/v1/mine")
        assert (response.status, response.code) == (405, "METHOD_NOT_ALLOWED")
        assert response.headers["allow"] == "GET, HEAD, POST"
    options = await house.ask("OPTIONS", "/v1/mine")
    assert (options.status, options.headers["allow"]) == (204, "GET, HEAD, POST")
    assert "content-length" not in options.headers
    assert (await house.ask("OPTIONS", "/v1/nowhere")).status == 404
    assert (await house.ask("BREW", "/v1/mine")).code == "MALFORMED"
    assert (await house.ask("DELETE", f"/v1/things/{new_id()}")).status == 204


async def test_odd_request_targets(house: House) -> None:
    assert (await house.ask("GET", f"http://localhost:{house.port}/v1/open")).status == 200
    root, named = await house.ask("GET", "/"), await house.ask("GET", "http://x")
    assert (root.status, root.body) == (named.status, named.body)
    for target in (
        "*",
        "/%00",
        "/v1/named/%00",
        "/%ff%fe",
        "//",
        "/v1/open/x",
    ):
        assert (await house.ask("GET", target)).status == 404, target
    for target in ("?a=b", "v1/open", "é", ""):
        assert (await house.ask("GET", target)).code == "MALFORMED", target
    for host in ("a b", "[", "xn--a", "é", "a" * 300):
        assert (await house.ask("GET", "/v1/open", {"host": host})).status in (200, 400), host


async def test_limits_of_address_and_headers() -> None:
    async with open_house(uri_limit_bytes=1000, header_limit_bytes=2000) as house:
        assert (await house.ask("GET", "/v1/open?" + "a" * 900)).status == 200
        for size in (1200, 60_000):
            response = await house.ask("GET", "/v1/open?" + "a" * size)
            assert (response.status, response.code) == (414, "URI_TOO_LONG")
        assert (await house.ask("GET", "/v1/open", {"x-long": "a" * 1800})).status == 200
        for size in (2100, 60_000):
            response = await house.ask("GET", "/v1/open", {"x-long": "a" * size})
            assert (response.status, response.code) == (431, "HEADERS_TOO_LARGE")


async def test_what_does_not_parse_is_malformed(house: House) -> None:
    for head in (
        b"nonsense\r\n\r\n",
        b"GET /v1/open HTTP/1.1\r\n\r\n",
        b"POST /v1/notes HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/notes HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n",
        b"POST /v1/notes HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0",
    ):
        raw = await house.connect()
        async with raw.stream:
            await raw.send(head)
            response = await raw.response()
            assert (response.status, response.code) == (400, "MALFORMED")
            assert response.headers["connection"] == "close"
            assert response.headers["x-request-id"] == response.json["meta"]["request_id"]
            assert response.headers["x-content-type-options"] == "nosniff"


# callers


async def test_callers(house: House) -> None:
    assert (await house.ask("GET", "/v1/mine", ANN)).json["data"]["user_id"] == "user-ann"
    assert (await house.ask("GET", "/v1/mine", {"authorization": "bearer ann"})).status == 200
    for header in ({}, {"authorization": "Basic ann"}, {"authorization": "Bearer"}):
        response = await house.ask("GET", "/v1/mine", header)
        assert (response.status, response.code) == (401, "UNAUTHENTICATED")
        assert response.headers["www-authenticate"] == "Bearer"
    response = await house.ask("GET", "/v1/mine", {"authorization": "Bearer eve"})
    assert (response.status, response.code) == (401, "INVALID_TOKEN")


@pytest.mark.parametrize("name", ["token", "access_token", "authorization", "ticket"])
async def test_a_token_in_the_address_is_none(house: House, name: str) -> None:
    for value in ("ann", "Bearer%20ann", "ticket-ann"):
        assert (await house.ask("GET", f"/v1/mine?{name}={value}")).code == "UNAUTHENTICATED"


async def test_a_denial_is_handed_on(house: House) -> None:
    response = await house.ask("GET", "/v1/deny", ANN | {"x-request-id": "r-1"})
    assert (response.status, response.code) == (403, "FORBIDDEN")
    assert house.denials == [("denied:forbidden", "r-1")]


async def test_an_unexpected_error_tells_nothing(house: House) -> None:
    response = await house.ask("GET", "/v1/break")
    assert (response.status, response.code) == (500, "INTERNAL")
    assert b"secret" not in response.body


async def test_a_problem_in_a_nursery_is_still_that_problem(house: House) -> None:
    assert (await house.ask("GET", "/v1/group")).code == "CONFLICT"


async def test_the_deadline_ends_a_request() -> None:
    async with open_house(request_deadline_s=0.2) as house:
        response = await house.ask("GET", "/v1/hang")
        assert (response.status, response.code) == (503, "DEADLINE_EXCEEDED")
        assert int(response.headers["retry-after"]) >= 1


# origin


async def test_without_a_public_url_the_own_origin_is_allowed(house: House) -> None:
    own = f"http://localhost:{house.port}"
    headers = {"host": f"localhost:{house.port}", "origin": own}
    response = await house.ask("GET", "/v1/open", headers)
    assert (response.status, response.headers["access-control-allow-origin"]) == (200, own)
    for origin in ("null", "http://evil.example", own.replace("http", "https"), f"{own}.evil.example", ""):
        response = await house.ask("GET", "/v1/open", headers | {"origin": origin})
        assert (response.status, response.code) == (403, "ORIGIN_FORBIDDEN"), origin
        assert "access-control-allow-origin" not in response.headers


async def test_with_a_public_url_it_and_the_list_decide() -> None:
    listed = "https://app.example.org"
    async with open_house(public_url="https://chat.example.org/", allowed_origins=(listed,)) as house:
        for origin in (listed, "https://chat.example.org"):
            response = await house.ask("GET", "/v1/open", {"origin": origin})
            assert response.headers["access-control-allow-origin"] == origin
            assert response.headers["vary"] == "Origin"
        response = await house.ask(
            "GET", "/v1/open", {"host": "evil.example", "origin": "http://evil.example"}
        )
        assert response.status == 403
        page = await house.ask("GET", "/", {"host": "192.0.2.1", "origin": "http://192.0.2.1"})
        assert page.status == 200  # which can then say what the API refuses
        assert "access-control-allow-origin" not in page.headers


async def test_an_origin_has_no_default_port() -> None:
    """Browsers leave it out (RFC 6454 section 6.2), whatever the settings say."""
    async with open_house(
        public_url="https://Chat.example.org:443", allowed_origins=("http://app.example.org:80/",)
    ) as house:
        for origin in ("https://chat.example.org", "http://app.example.org"):
            response = await house.ask("GET", "/v1/open", {"origin": origin})
            assert (response.status, response.headers["access-control-allow-origin"]) == (200, origin)


async def test_a_preflight() -> None:
    listed = "https://app.example.org"
    async with open_house(allowed_origins=(listed,)) as house:
        asked = {"origin": listed, "access-control-request-method": "POST"}
        response = await house.ask("OPTIONS", "/v1/mine", asked)
        assert response.status == 204
        assert response.headers["access-control-allow-origin"] == listed
        assert "POST" in response.headers["access-control-allow-methods"]
        assert "Authorization" in response.headers["access-control-allow-headers"]
        asked["origin"] = "https://evil.example"
        assert (await house.ask("OPTIONS", "/v1/mine", asked)).status == 403
        # an error can be read by the page that may call us
        response = await house.ask("GET", "/v1/mine", {"origin": listed})
        assert (response.status, response.headers["access-control-allow-origin"]) == (401, listed)


# addresses


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("6.6.6.6, 203.0.113.9", "203.0.113.9"),
        ("6.6.6.6, 203.0.113.9, 10.0.0.7", "203.0.113.9"),
        ("203.0.113.9:4711", "203.0.113.9"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("6.6.6.6, unknown", "127.0.0.1"),
        ("6.6.6.6, rubbish, 10.0.0.7", "10.0.0.7"),
        ("10.0.0.8, 10.0.0.7", "10.0.0.8"),
    ],
)
async def test_addresses_behind_trusted_proxies(forwarded: str, address: str) -> None:
    async with open_house(trusted_proxies=("127.0.0.1", "10.0.0.0/8")) as house:
        response = await house.ask("GET", "/v1/open", {"x-forwarded-for": forwarded})
        assert response.json["data"]["address"] == address


async def test_nobody_else_is_believed(house: House) -> None:
    response = await house.ask("GET", "/v1/open", {"x-forwarded-for": "203.0.113.9"})
    assert response.json["data"]["address"] == "127.0.0.1"


# rates


async def test_rates_are_counted_per_account() -> None:
    async with open_house(RateLimitsConfig(read=3, write=2)) as house:
        for left in (2, 1, 0):
            response = await house.ask("GET", "/v1/mine", ANN)
            assert response.status == 200
            assert response.headers["ratelimit-policy"] == '"read";q=3;w=60'
            assert response.headers["ratelimit"].startswith(f'"read";r={left};t=')
        response = await house.ask("GET", "/v1/mine", ANN)
        assert (response.status, response.code) == (429, "RATE_LIMITED")
        assert 1 <= int(response.headers["retry-after"]) <= 60
        assert response.headers["ratelimit"].startswith('"read";r=0;t=')
        assert (await house.ask("GET", "/v1/mine", {"authorization": "Bearer bob"})).status == 200
        assert (await house.post("/v1/mine", b'{"text": "x"}', **ANN)).status == 201


async def test_public_rates_are_counted_per_address() -> None:
    async with open_house(RateLimitsConfig(public=2), trusted_proxies=("127.0.0.1",)) as house:

        async def ask(path: str, address: str) -> int:
            return (await house.ask("GET", path, {"x-forwarded-for": address})).status

        assert [await ask("/v1/public", "203.0.113.1") for _ in range(3)] == [200, 200, 429]
        assert await ask("/v1/public", "203.0.113.2") == 200
        # a /64 is one subscriber; guessing paths and tokens costs too
        assert [await ask("/v1/nowhere", f"2001:db8::{n}") for n in range(3)] == [404, 404, 429]
        assert [await ask("/v1/mine", "203.0.113.3") for _ in range(3)] == [401, 401, 429]


async def test_rates_can_be_switched_off() -> None:
    async with open_house(RateLimitsConfig(enabled=False, public=1)) as house:
        for _ in range(3):
            response = await house.ask("GET", "/v1/public")
            assert response.status == 200
            assert "ratelimit" not in response.headers


# paths and queries


async def test_an_id_that_is_no_uuid_is_not_found(house: House) -> None:
    known = new_id()
    assert (await house.ask("GET", f"/v1/things/{known}")).json["data"]["thing_id"] == known
    for wrong in ("1", "x" * 36, known.upper(), known.replace("-", ""), "%27--", known + "%00"):
        response = await house.ask("GET", f"/v1/things/{wrong}")
        assert (response.status, response.code) == (404, "NOT_FOUND"), wrong


async def test_queries(house: House) -> None:
    for query, limit in (("", 20), ("?limit=7", 7), ("?limit=7&limit=8", 8), ("?other=x&cursor=&limit=3", 3)):
        assert (await house.ask("GET", f"/v1/mine{query}", ANN)).json["data"]["limit"] == limit
    for query in ("limit=x", "limit=0", "limit=101", "limit=", "limit=1.5", "limit=1e400", "limit=%00"):
        response = await house.ask("GET", f"/v1/mine?{query}", ANN)
        assert (response.status, response.code) == (422, "VALIDATION"), query
        assert response.json["error"]["details"]["field"] == "limit"
    assert (await house.ask("GET", f"/v1/mine?cursor={10**30}", ANN)).status == 200
    assert (await house.ask("GET", f"/v1/mine?since={2**63}", ANN)).code == "VALIDATION"
    response = await house.ask("GET", "/v1/mine?cursor=a%00b", ANN)
    assert (response.status, response.json["error"]["details"]) == (422, {"field": "cursor"})
    for query in ("cursor=%ff", "cursor=%ed%a0%80", "&".join(f"a{n}=1" for n in range(101))):
        response = await house.ask("GET", f"/v1/mine?{query}", ANN)
        assert (response.status, response.code) == (400, "MALFORMED"), query


# bodies


async def test_a_body(house: House) -> None:
    response = await house.post("/v1/notes", '{"text": "é€😀", "unknown": [1]}'.encode())
    assert response.json["data"]["text"] == "é€😀"
    response = await house.post(
        "/v1/notes", b'{"text": "12345678901234567890", "inner": {"b": %d}}' % (2**63 - 1)
    )
    assert response.status == 200
    # what is ignored is never stored
    response = await house.post("/v1/notes", json.dumps({"text": "x", "unknown": ["\0", 2**70]}).encode())
    assert response.status == 200
    # a backslash before u0000 is text like any other
    response = await house.post("/v1/notes", json.dumps({"text": "\\u0000"}).encode())
    assert response.json["data"]["text"] == "\\u0000"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"not json",
        b'{"text": "x"} x',
        b'{"text": "\xff"}',
        b'{"text": "x", "unknown": "\xff"}',
        b'{"text": "\\ud800"}',
        b'{"text": "x", "unknown": "\\udc00"}',
        b'{"text": "a\0b"}',
        b'{"text": NaN}',
        b'{"text": "x", "unknown": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"text": "x", "inner": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}",
    ],
)
async def test_malformed_bodies(house: House, body: bytes) -> None:
    response = await house.post("/v1/notes", body)
    assert (response.status, response.code) == (400, "MALFORMED")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "text"),
        ({"text": 12}, "text"),
        ({"text": None}, "text"),
        ({"text": "x", "inner": {"b": 0}}, "inner.b"),
        ({"text": "x", "inner": {"b": "1"}}, "inner.b"),
        ({"text": "x", "items": [{}, {"b": 1.5}]}, "items[1].b"),
        ({"text": "a\0b"}, "text"),
        ({"text": "x", "extra": {"a": [{"b": "\0"}]}}, "extra"),
        ({"text": "x", "extra": {"\0": 1}}, "extra"),
        ({"text": "x", "extra": {"a": [-(2**63) - 1]}}, "extra"),
        ({"text": "x", "inner": {"b": 2**63}}, "inner"),
        ({"text": "x", "inner": {"b": 10**30}}, "inner"),
        ({"text": "x", "items": [{}, {"b": 2**63}]}, "items"),
        ([], "body"),
        ("text", "body"),
        (None, "body"),
    ],
)
async def test_invalid_bodies(house: House, body: object, field: str) -> None:
    response = await house.post("/v1/notes", json.dumps(body).encode())
    assert (response.status, response.code) == (422, "VALIDATION")
    assert response.json["error"]["details"] == {"field": field}


def test_what_is_ignored_is_not_built() -> None:
    """A body of nothing but brackets would stop everybody else for a third of a second."""
    body = b'{"text": "1234567890123456789", "unknown": [%s[]]}' % (b"[]," * 300_000)
    decode = msgspec.json.Decoder(Note).decode
    tracemalloc.start()
    try:
        assert body_of(body, decode).text == "1234567890123456789"
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * len(body)


async def test_no_body_is_an_empty_one(house: House) -> None:
    response = await house.ask("POST", "/v1/notes")
    assert (response.status, response.json["error"]["details"]) == (422, {"field": "text"})


async def test_content_types(house: House) -> None:
    body = b'{"text": "x"}'
    for kind in ("application/json", "Application/JSON; charset=UTF-8", 'application/json;charset="utf-8"'):
        assert (await house.post("/v1/notes", body, **{"content-type": kind})).status == 200
    for kind in ("text/plain", "application/json; charset=latin1", "application/jsonp", ""):
        response = await house.post("/v1/notes", body, **{"content-type": kind})
        assert (response.status, response.code) == (415, "UNSUPPORTED_MEDIA_TYPE"), kind
    assert (await house.post("/v1/notes", body, **{"content-encoding": "gzip"})).status == 415
    assert (await house.ask("POST", "/v1/notes", {}, body)).status == 415
