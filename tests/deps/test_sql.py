"""Every SQL constant of the product is valid on a migrated database, whichever that is."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct

import secureconnect
from kit.databases import DATABASES, on_both
from secureconnect.deps.contracts import Database, Row, Tx

_HOLDS_SQL = re.compile(
    r"secureconnect\.(node|outbox|idempotency|(audit|auth|chat|signaling|storage)\.[\w.]+|deps\.(migrate|signals))"
)
_STATEMENT = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|REPLACE|WITH)\s")
# What only one of the two databases understands (DATA §2).
_NOT_PORTABLE = re.compile(r"::|\bnow\s*\(|\bANY\s*\(|\bILIKE\b|\bCURRENT_TIMESTAMP\b|\?", re.IGNORECASE)

pytest_generate_tests = on_both


def constants() -> Iterator[tuple[str, str | None, str]]:
    """(module.NAME, the database whose text it is or None for both, SQL)"""
    for found in pkgutil.walk_packages(secureconnect.__path__, "secureconnect."):
        if _HOLDS_SQL.fullmatch(found.name):
            for name, value in vars(importlib.import_module(found.name)).items():
                yield from texts(f"{found.name.removeprefix('secureconnect.')}.{name}", None, value)


def texts(name: str, dialect: str | None, value: Any) -> Iterator[tuple[str, str | None, str]]:
    """The statements in a constant: itself, its items, one for each database, or the fields of a table."""
    if isinstance(value, str):
        if _STATEMENT.match(value):
            yield name, dialect, value
    elif isinstance(value, tuple):
        for number, each in enumerate(value):
            yield from texts(f"{name}[{number}]", dialect, each)
    elif isinstance(value, Mapping) and value.keys() <= set(DATABASES):
        for key, each in value.items():
            yield from texts(f"{name}[{key}]", key, each)
    elif isinstance(value, Struct):
        for field in value.__struct_fields__:
            yield from texts(f"{name}.{field}", dialect, getattr(value, field))


CONSTANTS = sorted(constants())


async def explain(tx: Tx, sql: str, count: int) -> list[Row]:
    return await tx.all(f"EXPLAIN {sql}", *[None] * count)


def parameters(sql: str) -> set[int]:
    return {int(number) for number in re.findall(r"\$(\d+)", sql)}


def test_they_are_found() -> None:
    assert {name.split(".")[0] for name, _, _ in CONSTANTS} >= {"node", "audit", "auth", "chat", "deps"}
    assert {dialect for name, dialect, _ in CONSTANTS if "append._SQL" in name} == set(DATABASES)
    assert any(name == "auth.store._PRUNE[3]" for name, _, _ in CONSTANTS)


def test_parameters_are_numbered_from_1_without_holes() -> None:
    numbers = {name: parameters(sql) for name, _, sql in CONSTANTS}
    assert not {name: used for name, used in numbers.items() if used != set(range(1, len(used) + 1))}


def test_what_both_get_is_portable() -> None:
    assert not [name for name, dialect, sql in CONSTANTS if dialect is None and _NOT_PORTABLE.search(sql)]


async def test_they_are_valid(db: Database) -> None:
    wrong = {}
    own = await db.read(dialect_of)
    for name, dialect, sql in CONSTANTS:
        if dialect in (None, own):
            try:
                assert await db.write(explain, sql, len(parameters(sql)))
            except RuntimeError as exc:
                wrong[name] = str(exc)
    assert not wrong


async def dialect_of(tx: Tx) -> str:
    return tx.dialect
