"""Which endpoint a method and a path mean."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.routing import Map, Rule

from secureconnect.auth.routes import ROUTES as AUTH_ROUTES
from secureconnect.chat.routes import ROUTES as CHAT_ROUTES
from secureconnect.chat.routes import SOCKETS as CHAT_SOCKETS
from secureconnect.edge import Call
from secureconnect.gateway import health
from secureconnect.gateway.admission import Endpoint, Request
from secureconnect.gateway.replies import Answer
from secureconnect.gateway.routing import Router


async def _serve(_: Call, __: Request) -> Answer:
    raise AssertionError


def router(*served: str) -> Router:
    """served: as `GET /v1/x`."""
    split = (each.split(" ") for each in served)
    return Router(Endpoint(method, path, _serve) for method, path in split)


SMALL = router(
    "GET /",
    "GET /v1/open",
    "GET /v1/notes/",
    "POST /v1/notes",
    "GET /v1/things/{thing_id}",
    "DELETE /v1/things/{thing_id}",
    "GET /v1/things/latest",
    "GET /v1/things/{name}/parts/{part_id}",
    "GET /v1/{kind}/open",
    "GET /v1/straße",
)


@pytest.mark.parametrize(
    ("method", "path", "found", "values"),
    [
        ("GET", "/", "/", {}),
        ("GET", "/v1/open", "/v1/open", {}),
        ("GET", "/v1/open/", "/v1/open", {}),
        ("HEAD", "/v1/open", "/v1/open", {}),
        ("HEAD", "/v1/things/7", "/v1/things/{thing_id}", {"thing_id": "7"}),
        ("POST", "/v1/notes/", "/v1/notes", {}),
        ("GET", "/v1/notes", "/v1/notes/", {}),
        # the literal one first
        ("GET", "/v1/things/latest", "/v1/things/latest", {}),
        ("GET", "/v1/things/open", "/v1/things/{thing_id}", {"thing_id": "open"}),
        ("GET", "/v1/others/open", "/v1/{kind}/open", {"kind": "others"}),
        (
            "GET",
            "/v1/things/a/parts/b/",
            "/v1/things/{name}/parts/{part_id}",
            {"name": "a", "part_id": "b"},
        ),
        # decoded after the path was split
        ("GET", "/v1/%6fpen", "/v1/open", {}),
        ("GET", "/v1/stra%C3%9fe", "/v1/straße", {}),
        ("GET", "/v1/things/a%2Fb", "/v1/things/{thing_id}", {"thing_id": "a/b"}),
        ("GET", "/v1/things/%e2%82%ac%20+", "/v1/things/{thing_id}", {"thing_id": "€ +"}),
        ("GET", "/v1/things/%ff", "/v1/things/{thing_id}", {"thing_id": "\ufffd"}),
        ("GET", "/v1/things/%zz%", "/v1/things/{thing_id}", {"thing_id": "%zz%"}),
        ("GET", "/v1/things/%00", "/v1/things/{thing_id}", {"thing_id": "\0"}),
        ("GET", "/v1/things/..", "/v1/things/{thing_id}", {"thing_id": ".."}),
        ("GET", "/v1/things/{thing_id}", "/v1/things/{thing_id}", {"thing_id": "{thing_id}"}),
    ],
)
def test_what_is_found(method: str, path: str, found: str, values: dict[str, str]) -> None:
    match = SMALL.find(method, path.encode())
    assert match.endpoint is not None
    assert (match.endpoint.path, match.path, match.allow) == (found, values, ())


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/v1/notes", ["GET", "HEAD", "POST"]),
        ("OPTIONS", "/v1/notes/", ["GET", "HEAD", "POST"]),
        ("POST", "/v1/things/latest", ["GET", "HEAD"]),
        ("DELETE", "/v1/things/latest", ["GET", "HEAD"]),  # which is no thing
        ("DELETE", "/v1/things/l%61test/", ["GET", "HEAD"]),
        ("GET", "/v1/things/a/parts", []),
        ("get", "/v1/open", ["GET", "HEAD"]),
        ("GET", "/v1/nowhere", []),
        ("GET", "/v1", []),
        ("GET", "", []),
        ("GET", "*", []),
        ("GET", "v1/open", []),
        ("GET", "//", []),
        ("GET", "//v1/open", []),
        ("GET", "/v1//open", []),
        ("GET", "/v1/open//", []),
        ("GET", "/v1/things/", []),
        ("GET", "/v1/things//parts/b", []),
        ("GET", "/v1/things/a/b", []),
        ("GET", "/v1/../v1/open", []),
        ("GET", "/v1%2Fopen", []),
        ("GET", "/V1/open", []),
        ("GET", "/%ff%fe", []),
    ],
)
def test_what_is_not(method: str, path: str, allow: list[str]) -> None:
    match = SMALL.find(method, path.encode())
    assert (match.endpoint, list(match.allow)) == (None, allow)


def test_bytes_that_are_no_text() -> None:
    assert SMALL.find("GET", b"/v1/things/\xff").path == {"thing_id": "\ufffd"}
    assert SMALL.find("GET", "/v1/straße".encode()).endpoint is not None


def test_a_head_of_its_own_goes_before_that_of_get() -> None:
    for served in (("GET /x", "HEAD /x"), ("HEAD /x", "GET /x")):
        found = router(*served).find("HEAD", b"/x").endpoint
        assert found is not None
        assert found.method == "HEAD"


def test_no_head_of_what_does_more_than_read() -> None:
    """GET /v1/keys/{user_id} gives a key away."""
    found = Router([Endpoint("GET", "/x", _serve, repeats=True)]).find("HEAD", b"/x")
    assert (found.endpoint, found.allow) == (None, ["GET"])


def test_nothing_is_served_twice() -> None:
    for one, other in (("/x", "/x/"), ("/{a}", "/{b}")):
        with pytest.raises(ValueError, match="twice"):
            router(f"GET {one}", f"GET {other}")


# the product's own tables, against another implementation

ROUTES = [
    *((route.method, route.path) for route in (*AUTH_ROUTES, *CHAT_ROUTES, *health.ROUTES)),
    *(("GET", route.path) for route in CHAT_SOCKETS),
]
OURS = router(*(f"{method} {path}" for method, path in ROUTES))
ORACLE = Map(
    [
        Rule(re.sub(r"{(\w+)}", r"<\1>", path.rstrip("/")), methods=[method], endpoint=f"{method} {path}")
        for method, path in ROUTES
    ],
    strict_slashes=False,
    merge_slashes=False,
).bind("localhost")
LITERAL: dict[str, set[str]] = {}
for _method, _path in ROUTES:
    if "{" not in _path:
        LITERAL.setdefault(_path, set()).update({_method, "HEAD"} if _method == "GET" else {_method})
SEGMENTS = sorted({segment for _, path in ROUTES for segment in path.split("/")} - {""})
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW")

# mostly the words of the tables, in their order and out of it; a %2F means another thing to werkzeug
paths = st.one_of(
    st.sampled_from([path for _, path in ROUTES]),
    st.lists(
        st.one_of(
            st.sampled_from([*SEGMENTS, "", "..", "%41", "%C3%A9", "%ff", "é"]),
            st.text(st.characters(codec="utf-8", exclude_characters="/%?#"), max_size=3),
        ),
        max_size=7,
    ).map(lambda segments: "/" + "/".join(segments)),
).flatmap(lambda path: st.sampled_from([path, path.rstrip("/"), path + "/", path + "/x"]))


def oracle(method: str, path: str) -> tuple[tuple[Any, Mapping[str, Any]], list[str]]:
    """((the endpoint or None, its values), the methods allowed). Unlike werkzeug's, a path that is served as
    it stands is never the value of a name, whatever the method."""
    served = LITERAL.get(unquote(path).removesuffix("/"), set())
    if served and method not in served:
        return (None, {}), sorted(served)
    try:
        return ORACLE.match(unquote(path), method), []
    except MethodNotAllowed as refused:
        return (None, {}), sorted(refused.valid_methods or ())
    except NotFound:
        return (None, {}), []


@given(st.sampled_from(METHODS), paths)
def test_the_real_tables_mean_what_werkzeug_says(method: str, path: str) -> None:
    expected, allow = oracle(method, path)
    match = OURS.find(method, path.encode())
    assert (match.endpoint and f"{match.endpoint.method} {match.endpoint.path}", match.path) == expected
    assert list(match.allow) == allow


def test_every_route_is_found() -> None:
    for method, path in ROUTES:
        found = OURS.find(method, path.encode()).endpoint
        assert found is not None
        assert (found.method, found.path) == (method, path)
