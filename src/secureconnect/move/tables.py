"""What the schema says: which tables there are, of which columns, in which order they can be filled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from ..deps.contracts import Row, Tx, Value

# Not data of the installation: the schema's own list, who serves it at this moment, and what they say; and
# the index for search, which each database keeps in its own way and makes anew.
LEFT = frozenset(
    {"schema_migrations", "nodes", "signals", "search_positions", "search_entries", "search_upkeep"}
)

_COLUMNS = {
    "sqlite": (
        "SELECT t.name, c.name, lower(c.type), c.pk"
        " FROM pragma_table_list() AS t, pragma_table_xinfo(t.name) AS c"
        " WHERE t.schema = 'main' AND t.type = 'table' AND t.name NOT LIKE 'sqlite~_%' ESCAPE '~'"
        " AND c.hidden = 0 ORDER BY t.name, c.cid"
    ),
    # format_type, or a word of `migrate.TYPES`; key: the place in the primary key, from 1; generated columns
    # make themselves
    "postgres": (
        "SELECT CAST(c.relname AS text), CAST(a.attname AS text), format_type(a.atttypid, NULL),"
        " COALESCE((SELECT k.place FROM unnest(i.indkey) WITH ORDINALITY AS k (number, place)"
        " WHERE k.number = a.attnum), 0)"
        " FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
        " LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary"
        " WHERE c.relnamespace = to_regnamespace(current_schema()) AND c.relkind IN ('r', 'p')"
        " AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''"
        " ORDER BY c.relname, a.attnum"
    ),
}
_PARENTS = (  # of SQLite, which is always the source
    'SELECT t.name, f."table" FROM pragma_table_list() AS t, pragma_foreign_key_list(t.name) AS f'
    " WHERE t.schema = 'main' AND t.type = 'table'"
)


class Strange(Exception):
    """A schema that cannot be moved: one line."""


@dataclass(frozen=True, slots=True)
class Column:
    """type: as the database names it."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Table:
    """key: positions of the primary key's columns, in its order.  Column types are those of Postgres, which
    tells more apart."""

    name: str
    columns: tuple[Column, ...]
    key: tuple[int, ...]

    def key_of(self, row: Row) -> tuple[Any, ...]:
        return tuple(row[at] for at in self.key)

    def page(self, dialect: str, rows: int, *, first: bool) -> str:
        """SQL for the next rows in the key's order, the same on both sides: by code point, whatever the
        collation. Parameters, unless it is the first page: the key of the last row before."""
        key = [self._sorted(at, dialect) for at in self.key]
        after = f" WHERE ({', '.join(key)}) > ({_numbers(len(key))})"
        return (
            f"SELECT {self._names()} FROM {quoted(self.name)}{'' if first else after}"  # noqa: S608
            f" ORDER BY {', '.join(key)} LIMIT {rows}"
        )

    def select(self) -> str:
        """SQL for all rows, in no order."""
        return f"SELECT {self._names()} FROM {quoted(self.name)}"  # noqa: S608

    def insert(self) -> str:
        return (
            f"INSERT INTO {quoted(self.name)} ({self._names()})"  # noqa: S608
            f" VALUES ({_numbers(len(self.columns))})"
        )

    def for_target(self, row: Row) -> list[Value]:
        """SQLite knows no booleans; the driver of Postgres takes nothing else for one."""
        return [
            bool(value) if column.type == "boolean" and value is not None else value
            for column, value in zip(self.columns, row, strict=True)
        ]

    def digest(self, row: Row) -> int:
        """256 bits of the row in a form that both databases agree on."""
        hashed = hashlib.sha256()
        for column, value in zip(self.columns, row, strict=True):
            part = _canonical(column.type, value)
            hashed.update(len(part).to_bytes(8, "big"))
            hashed.update(part)
        return int.from_bytes(hashed.digest(), "big")

    def _names(self) -> str:
        return ", ".join(quoted(each.name) for each in self.columns)

    def _sorted(self, at: int, dialect: str) -> str:
        column = self.columns[at]
        collated = dialect == "postgres" and column.type == "text"
        return quoted(column.name) + (' COLLATE "C"' if collated else "")


def order(key: Sequence[Any]) -> tuple[Any, ...]:
    """A key as Python sorts it in the databases' order."""
    return tuple(part.encode() if isinstance(part, str) else part for part in key)


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


async def read_tables(tx: Tx) -> dict[str, Table]:
    """Every table of the schema but LEFT, by name. Raises Strange."""
    columns: dict[str, list[Column]] = {}
    keys: dict[str, list[tuple[int, int]]] = {}
    for table, column, kind, place in await tx.all(_COLUMNS[tx.dialect]):
        if place:
            keys.setdefault(table, []).append((place, len(columns.get(table, ()))))
        columns.setdefault(table, []).append(Column(column, kind))
    if keyless := [table for table in columns if table not in keys and table not in LEFT]:
        raise Strange(f"without a primary key, and so without an order to copy in: {', '.join(keyless)}")
    return {
        name: Table(name, tuple(columns[name]), tuple(at for _, at in sorted(keys[name])))
        for name in columns
        if name not in LEFT
    }


async def read_names(tx: Tx) -> set[str]:
    """Of every table there is."""
    return {table for table, *_ in await tx.all(_COLUMNS[tx.dialect])}


async def read_order(tx: Tx, tables: Sequence[str]) -> list[str]:
    """SQLite's tables, each after those that its foreign keys name; else by name. Raises Strange."""
    parents: dict[str, set[str]] = {name: set() for name in tables}
    for table, parent in await tx.all(_PARENTS):
        if table in parents and parent in parents and table != parent:
            parents[table].add(parent)
    ordered: list[str] = []
    while len(ordered) < len(parents):
        ready = sorted(name for name in parents if name not in ordered and parents[name] <= set(ordered))
        if not ready:
            raise Strange(
                f"tables that refer to each other: {', '.join(sorted(set(parents) - set(ordered)))}"
            )
        ordered += ready
    return ordered


def _numbers(count: int) -> str:
    return ", ".join(f"${number}" for number in range(1, count + 1))


def _canonical(kind: str, value: Value) -> bytes:
    match value:
        case None:
            return b"-"
        case bytes():
            return b"x" + value
        case bool() | int() if kind == "boolean":
            return b"true" if value else b"false"
        case str() if kind == "jsonb":
            return b"j" + canonical_json(value).encode()
        case str():
            return b"s" + value.encode()
        case float():
            return b"f" + value.hex().encode()
    return b"i" + str(value).encode()


def canonical_json(text: str) -> str:
    """jsonb keeps neither the order of keys nor how a number was written; numbers exactly, however long."""
    return json.dumps(
        json.loads(text, parse_float=_number, parse_int=_number), sort_keys=True, separators=(",", ":")
    )


def _number(text: str) -> str:
    sign, digits, exponent = Decimal(text).as_tuple()
    assert isinstance(exponent, int), "JSON has no NaN"
    shown = "".join(map(str, digits)).lstrip("0")
    short = shown.rstrip("0")
    if not short:
        return "\0n0"
    return f"\0n{'-' if sign else ''}{short}e{exponent + len(shown) - len(short)}"  # no text has U+0000
