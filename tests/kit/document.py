"""Answers held against what /openapi.json says of them."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import httpx
import jsonschema_rs

OUR = "application/json"
NAMED = re.compile(r'"#/components/schemas/([^"]+)"')


class Document:
    """openapi: the whole document."""

    def __init__(self, openapi: dict[str, Any]) -> None:
        self._openapi = openapi
        self._validator = cache(self._make_validator)

    @property
    def operations(self) -> set[tuple[str, str]]:
        """Method and path of each."""
        return {(verb.upper(), path) for path, verbs in self._openapi["paths"].items() for verb in verbs}

    def fault(self, method: str, path: str, answer: httpx.Response) -> str | None:
        """What the document does not say of this answer; None when it does.  path: as the route has it."""
        said = self._openapi["paths"][path][method.lower()]["responses"].get(str(answer.status_code))
        if said is None:
            return "a status that is not documented"
        kind = answer.headers.get("content-type", "")
        content = said.get("content", {})
        if not {kind, "*/*"} & set(content or {""}):
            return f"{kind or 'no content'}, not {' or '.join(content) or 'none'}"
        if kind != OUR:
            return None
        errors = self._validator(method.lower(), path, str(answer.status_code)).iter_errors(answer.json())
        return next((f"{list(error.instance_path)}: {error.message}" for error in errors), None)

    def _make_validator(self, method: str, path: str, status: str) -> jsonschema_rs.Draft202012Validator:
        shape = self._openapi["paths"][path][method]["responses"][status]["content"][OUR]["schema"]
        return jsonschema_rs.Draft202012Validator(shape | {"components": {"schemas": self._named_in(shape)}})

    def _named_in(self, shape: dict[str, Any]) -> dict[str, Any]:
        """The schemas it refers to, and those that these do: with all of them it takes 8 ms to make."""
        found: dict[str, Any] = {}
        left = [shape]
        while left:
            for name in NAMED.findall(json.dumps(left.pop())):
                if name not in found:
                    found[name] = self._openapi["components"]["schemas"][name]
                    left.append(found[name])
        return found
