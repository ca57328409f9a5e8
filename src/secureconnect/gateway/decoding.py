"""Bodies and queries into the structs a route asks for, and what is wrong with them in words for a client."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from ..errors import Invalid, Malformed

QUERY_FIELDS = 100
_ZEROED = bytes.maketrans(b"123456789", b"000000000")
_LONG_NUMBER = b"0" * 19
_AT = re.compile(r"(?:field `(?P<missing>[^`]*)`)?(?: - at `\$\.?(?P<path>[^`]*)`)?$")


def is_json(content_type: str | None) -> bool:
    kind, _, parameters = (content_type or "").lower().partition(";")
    charset = parameters.replace(" ", "").replace('"', "")
    return kind.strip() == "application/json" and charset in ("", "charset=utf-8")


def body_of(body: bytes, decode: Callable[[bytes], Any]) -> Any:
    """The struct in `body`. Raises Malformed or Invalid."""
    try:
        if not body.isascii():
            body.decode()  # msgspec does not look into fields it skips
        value = decode(body)
    except msgspec.ValidationError as exc:
        raise _invalid(exc) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise Malformed("The body is not well-formed JSON in UTF-8.") from exc
    if b"\\u0000" in body or _LONG_NUMBER in body.translate(_ZEROED):
        _check_fields(value)
    return value


def query_of(raw: bytes, kind: type) -> Any:
    """The struct in a query string; unknown fields are ignored, the last of a repeated one counts."""
    try:
        pairs = parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=QUERY_FIELDS
        )
    except ValueError as exc:
        raise Malformed("The query is not well-formed.") from exc
    for name, value in pairs:
        _check_storable(name, name + value)
    try:
        query: Any = msgspec.convert(dict(pairs), kind, strict=False)
    except msgspec.ValidationError as exc:
        raise _invalid(exc) from exc
    _check_fields(query)
    return query


def _check_fields(value: msgspec.Struct) -> None:
    for name in value.__struct_fields__:
        _check_storable(name, getattr(value, name))


def _check_storable(field: str, document: Any) -> None:
    """Raises Invalid for what neither database takes: NUL in a text, an integer of more than 64 bits."""
    waiting = [document]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            if "\0" in item:
                raise Invalid("A text contains U+0000.", details={"field": field.replace("\0", "")})
        elif isinstance(item, int):
            if not -(2**63) <= item < 2**63:
                raise Invalid("A number is out of range.", details={"field": field})
        elif isinstance(item, dict):
            waiting += item.keys()
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
        elif isinstance(item, msgspec.Struct):
            waiting += msgspec.structs.astuple(item)


def _invalid(error: msgspec.ValidationError) -> Invalid:
    """`Expected `str`, got `int` - at `$.a[0].b`` becomes a refusal of `a[0].b`."""
    said = str(error)
    found = _AT.search(said)
    path, missing = (found["path"], found["missing"]) if found else (None, None)
    field = ".".join(part for part in (path, missing) if part) or "body"
    text = said.partition(" - at `")[0].replace("`", "")
    return Invalid(f"{field}: {text}.", details={"field": field})
