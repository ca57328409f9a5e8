"""One OpenAPI 3.1 document from the route tables, and the page that shows it, without a CDN."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from .. import __version__
from ..edge import Audience, Rate, Route
from ..errors import (
    DeadlineExceeded,
    Forbidden,
    HeadersTooLarge,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    Internal,
    Invalid,
    InvalidToken,
    Malformed,
    NotFound,
    OriginForbidden,
    Problem,
    RateLimited,
    RequestTimeout,
    TokenExpired,
    TokenRevoked,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UnsupportedMediaType,
    UriTooLong,
)
from .admission import IDEMPOTENCY_KEY, Endpoint
from .replies import JSON, Meta
from .static import TYPES, Asset, files

TEMPLATE = "#/components/schemas/{name}"
_ALWAYS = (Malformed, OriginForbidden, UriTooLong, HeadersTooLarge, Internal, Unavailable, DeadlineExceeded)
_SIGNED_IN = (Unauthenticated, InvalidToken, TokenExpired, TokenRevoked)
_WITH_BODY = (RequestTimeout, TooLarge, UnsupportedMediaType, Invalid)
_WITH_KEY = (Invalid, IdempotencyKeyInUse, IdempotencyKeyReused)
_KEY: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Of the client's choice. The same request with the same key is done once in 24 hours.",
    "schema": {"type": "string", "pattern": IDEMPOTENCY_KEY},
}
_WITH_STREAM = (RequestTimeout, TooLarge)
# OpenAPI 3.1: a body of bytes has no schema
_BYTES: dict[str, Any] = {"application/octet-stream": {}}
_ERROR = {
    "title": "Error",
    "type": "object",
    "required": ["success", "error", "meta"],
    "properties": {
        "success": {"const": False},
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "details": {"type": "object"},
            },
        },
        "meta": {"$ref": TEMPLATE.format(name="Meta")},
    },
}


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """The OpenAPI document as JSON-able data. Every `$ref` in it resolves."""
    routes = list(routes)
    kinds = [
        kind
        for route in routes
        for kind in (route.body, route.answer, *route.other.values(), route.query)
        if kind is not None
    ]
    unique = list(dict.fromkeys([Meta, *kinds]))
    refs, schemas = msgspec.json.schema_components(unique, ref_template=TEMPLATE)
    ref_of = dict(zip(unique, refs, strict=True))
    schemas["Error"] = _ERROR
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, ref_of, schemas)
    for route in routes:  # queries are spelt out as parameters
        if route.query is not None:
            schemas.pop(_name(ref_of[route.query]), None)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "SecureConnect",
            "version": __version__,
            "description": "Success and failure come in one envelope; WebSockets are described in docs/.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(_tag(route) for route in routes)],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }


def problems_of(route: Route) -> list[type[Problem]]:
    """Everything `route` may refuse with: its own errors, and what the gate adds."""
    found: list[type[Problem]] = [*_ALWAYS, *route.errors]
    if route.audience is not Audience.ANYONE:
        found += _SIGNED_IN
    if route.rate is not Rate.NONE:
        found.append(RateLimited)
    if route.body is not None:
        found += _WITH_BODY
    if route.repeats:
        found += _WITH_KEY
    if route.stream:
        found += _WITH_STREAM
    if route.query is not None:
        found.append(Invalid)
    if "{" in route.path or route.audience in (Audience.OWNER, Audience.MEMBER):
        found.append(NotFound)
    if route.audience in (Audience.MODERATOR, Audience.AUTHOR):
        found += (NotFound, Forbidden)
    if route.audience is Audience.ADMIN:
        found.append(Forbidden)
    return list(dict.fromkeys(found))


def _operation(route: Route, ref_of: dict[type, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{route.method.lower()}{route.path}").strip("_"),
        "summary": route.summary,
        "tags": [_tag(route)],
        "parameters": _parameters(route, ref_of, schemas),
        "responses": _responses(route, ref_of, schemas),
        "security": [] if route.audience is Audience.ANYONE else [{"bearer": []}],
    }
    if route.stream:
        operation["requestBody"] = {"required": True, "content": _BYTES}
    elif route.body is not None:
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": ref_of[route.body]}}}
    return operation


def _parameters(route: Route, ref_of: dict[type, Any], schemas: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for name in re.findall(r"{(\w+)}", route.path):
        schema = {"type": "string"} | ({"format": "uuid"} if name.endswith("_id") else {})
        found.append({"name": name, "in": "path", "required": True, "schema": schema})
    if route.query is not None:
        fields = schemas[_name(ref_of[route.query])]
        for name, schema in fields["properties"].items():
            needed = name in fields["required"]
            found.append({"name": name, "in": "query", "required": needed, "schema": schema})
    if route.repeats:
        found.append(_KEY)
    return found


def _responses(route: Route, ref_of: dict[type, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status in (route.status, *route.also):
        if status == 204:
            responses["204"] = {"description": "Done."}
        elif route.stream is not None and route.answer is None:
            responses[str(status)] = {"description": "Success.", "content": {route.media: {}}}
        else:
            schema = _success(route.other.get(status, route.answer), ref_of, schemas)
            responses[str(status)] = {"description": "Success.", "content": {JSON: {"schema": schema}}}
    by_status: dict[int, list[type[Problem]]] = {}
    for problem in problems_of(route):
        by_status.setdefault(problem.status, []).append(problem)
    for status, problems in sorted(by_status.items()):
        codes = [problem.code for problem in problems]
        responses[str(status)] = {
            "description": " ".join(f"`{problem.code}`: {problem.text}" for problem in problems),
            "content": {
                JSON: {
                    "schema": {
                        "allOf": [{"$ref": TEMPLATE.format(name="Error")}],
                        "properties": {"error": {"properties": {"code": {"enum": codes}}}},
                    }
                }
            },
        }
    return responses


def _success(answer: type | None, ref_of: dict[type, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """A reference to the envelope of an answer, which is a component of its own."""
    data = {} if answer is None else ref_of[answer]
    name = "Done" if answer is None else f"{_name(data)}Envelope"
    schemas[name] = {
        "title": name,
        "type": "object",
        "required": ["success", "data", "meta"],
        "properties": {
            "success": {"const": True},
            "data": data,
            "meta": {"$ref": TEMPLATE.format(name="Meta")},
        },
    }
    return {"$ref": TEMPLATE.format(name=name)}


def _name(ref: Any) -> str:
    return str(ref["$ref"]).rpartition("/")[2]


def _tag(route: Route) -> str:
    return route.path.split("/")[2]


# /docs

_ASSETS = ("swagger-ui.css", "index.css", "swagger-ui-bundle.js", "favicon-32x32.png")
_PAGE = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>SecureConnect API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
<link rel="stylesheet" href="/docs/index.css">
<link rel="icon" type="image/png" href="/docs/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_START = b'SwaggerUIBundle({url: "/openapi.json", dom_id: "#swagger-ui", deepLinking: true});\n'
_PAGE_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def endpoints(routes: Iterable[Route]) -> list[Endpoint]:
    """`/openapi.json` and `/docs`. The assets are those of flask-swagger-ui."""
    text = Asset(lambda: msgspec.json.encode(document(routes)), JSON)
    page = Asset(_PAGE, TYPES[".html"], {"content-security-policy": _PAGE_CSP})
    return [
        Endpoint("GET", "/openapi.json", text.serve, rate=Rate.PUBLIC),
        Endpoint("GET", "/docs", page.serve, rate=Rate.PUBLIC),
        Endpoint("GET", "/docs/start.js", Asset(_START, TYPES[".js"]).serve, rate=Rate.PUBLIC),
        *files(_assets(), "/docs", _ASSETS),
    ]


def _assets() -> Path:
    """The folder of the assets, found without importing the package."""
    spec = find_spec("flask_swagger_ui")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "dist"
