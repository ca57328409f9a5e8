"""Every SQL constant of the product is valid on a migrated database."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator, Mapping

import pytest

import secureconnect
from secureconnect.deps.contracts import Row, Tx
from secureconnect.deps.sqlite import Sqlite

_HOLDS_SQL = re.compile(r"\.(store|store_\w+|\w+_store|node|audit|migrate)$")
_STATEMENT = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|REPLACE|WITH)\s", re.IGNORECASE)
# What only one of the two databases understands (DATA §2).
_NOT_PORTABLE = re.compile(r"::|\bnow\s*\(|\bANY\s*\(|\bILIKE\b|\bCURRENT_TIMESTAMP\b|\?", re.IGNORECASE)


def constants() -> Iterator[tuple[str, str, bool]]:
    """(module.NAME, SQL, whether both databases get this text)"""
    for found in pkgutil.walk_packages(secureconnect.__path__, "secureconnect."):
        if not _HOLDS_SQL.search(found.name):
            continue
        for name, value in vars(importlib.import_module(found.name)).items():
            if isinstance(value, str) and _STATEMENT.match(value):
                yield f"{found.name.removeprefix('secureconnect.')}.{name}", value, True
            elif isinstance(value, Mapping) and "sqlite" in value:
                yield f"{found.name.removeprefix('secureconnect.')}.{name}", value["sqlite"], False


CONSTANTS = list(constants())


async def explain(tx: Tx, sql: str, count: int) -> list[Row]:
    return await tx.all(f"EXPLAIN {sql}", *[None] * count)


def test_there_are_some() -> None:
    assert {name.split(".")[0] for name, _, _ in CONSTANTS} >= {"node", "audit", "auth", "chat", "deps"}


@pytest.mark.parametrize(
    ("sql", "shared"), [each[1:] for each in CONSTANTS], ids=[each[0] for each in CONSTANTS]
)
async def test_is_valid(db: Sqlite, sql: str, shared: bool) -> None:
    numbers = {int(number) for number in re.findall(r"\$(\d+)", sql)}
    assert numbers == set(range(1, len(numbers) + 1)), "parameters are numbered from 1 without holes"
    assert await db.write(explain, sql, len(numbers))
    if shared:
        assert not _NOT_PORTABLE.search(sql)
