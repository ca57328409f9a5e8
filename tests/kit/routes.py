"""Every route of every room, and documents that each would take."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import msgspec

from secureconnect.edge import Route

_ROOMS = ("auth", "chat", "signaling", "storage")
ROUTES: tuple[Route, ...] = tuple(
    route
    for room in _ROOMS
    if find_spec(f"secureconnect.{room}") is not None
    for route in import_module(f"secureconnect.{room}.routes").ROUTES
)


def example(kind: type) -> dict[str, Any]:
    """A document with every field of a struct, each of a value that its type allows. Patterns are not looked
    at."""
    schemas, top = _schema(kind)
    found: dict[str, Any] = _example(top, schemas)
    return found


@cache
def _schema(kind: type) -> tuple[dict[str, Any], dict[str, Any]]:
    (top,), schemas = msgspec.json.schema_components([kind])
    return schemas, top


def _example(schema: dict[str, Any], schemas: dict[str, Any]) -> Any:
    if "$ref" in schema:
        return _example(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    if "enum" in schema:
        return next(value for value in schema["enum"] if value is not None)
    if "const" in schema:
        return schema["const"]
    if "anyOf" in schema:
        return _example(next(each for each in schema["anyOf"] if each.get("type") != "null"), schemas)
    match schema.get("type"):
        case "object":
            fields = schema.get("properties", {})
            return {name: _example(each, schemas) for name, each in fields.items()}
        case "array":
            items = schema.get("items") or {"type": "string"}
            return [_example(items, schemas) for _ in range(schema.get("minItems", 0))]
        case "string":
            return "x" * max(1, schema.get("minLength", 0))
        case "integer" | "number":
            return max(1, schema.get("minimum", 1))
        case "boolean":
            return False
    return None
