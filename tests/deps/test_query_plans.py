"""Of 2 000 people and 100 000 messages, nothing that is asked often reads a whole table, in either database.

Every statement of the product is looked at; those that may read a table whole are named, with the reason.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from kit.databases import DATABASES
from secureconnect.config import PostgresConfig, SqliteConfig
from secureconnect.deps import migrate
from secureconnect.deps.asyncio_bridge import open_bridge
from secureconnect.deps.contracts import Database, Tx
from secureconnect.deps.postgres import Postgres
from secureconnect.deps.sqlite import Sqlite

from .test_sql import CONSTANTS, parameters

PEOPLE, CONVERSATIONS = 2_000, 500
OTHERS = 500  # rows of every other table
ROWS = {"users": PEOPLE, "conversations": CONVERSATIONS, "members": 20_000, "messages": 100_000}

# Statements that may read a table whole, and why.
WHOLE = {
    "auth.admin.store._ADMINS": "whoever asks is an admin, who asks seldom",
    "auth.admin.store._COUNTS": "the same",
    "auth.admin.store._NODES": "the same, and nodes are few",
    "auth.deletion.store._ERASE[12]": "tickets live for half a minute",
    "auth.deletion.store._ERASE[21]": "reports are few",
    "auth.devicekeys.store._ORPHANS": "a pass that ends with the devices looked through, once in a while",
    "auth.devicekeys.store._PURGE": "after a restore: all of them",
    "auth.recovery.store._DROP_ALL_TOKENS": "after a restore: all of them",
    "auth.store._DROP_REFRESH_TOKENS": "the same",
    "auth.store._DROP_TICKETS": "the same",
    "auth.store._END_ALL": "the same",
    "auth.store._SEARCH": "people by any part of their names",
    "chat.archive._SEATS": "an export; Postgres goes along the conversations as the page does",
    "chat.archive._TERMS": "along an index, once a minute",
    "chat.notifications.push_store._WAYS_DUE": "along an index of what waits, once in a pass",
    "chat.notifications.store._NEXT": "the first of few",
    "chat.search.store._MERGING[sqlite]": "one row",
    "chat.search.store._REMOVED[sqlite]": "one row",
    "chat.search.store._UPKEEP[sqlite]": "one row",
    "chat.store._DESERTED": "once for a person who is erased",
    "deps.migrate._IS_THERE[sqlite]": "at the start",
    "deps.migrate._LIST": "at the start",
    "deps.signals._HEADS": "what nodes said in the last minutes",
    "node._ALL": "secrets are few",
    "node._OTHER": "nodes are few",
    "outbox._DROP_ALL": "after a restore: all of them",
    "outbox._LOOK": "the first of an index",
    "signaling.recordings.store.ARRIVED": "a backup: all of them",
    "signaling.store._UNSEEN_IN": "along an index of who is in a call just now",
    "signaling.store._UNWRITTEN": "along an index of the calls that ended just now",
    "signaling.store._UNWRITTEN_PEOPLE": "the same",
    "signaling.store._WITH_LOST": "along an index of the devices that are waited for",
    "signaling.store._WITH_ORPHANS": "devices that are in a call just now",
    "signaling.store._WITH_STRANGERS": "along an index of who is in a call, or called, just now",
    "signaling.store._WITH_UNSEEN": "along an index of who is in a call just now",
    "storage.contents.FILES": "a backup: all of them",
    "storage.store._FIGURES": "for admins, who ask seldom",
}

BAD = (
    "SELECT message_id FROM messages WHERE content = $1",
    "SELECT user_id FROM users WHERE display_name LIKE $1 ORDER BY user_id LIMIT 20",
    "SELECT COUNT(*) FROM members",
    "UPDATE messages SET metadata = NULL WHERE reply_to = $1",
    "SELECT c.title FROM conversations c JOIN messages g ON g.conversation_id = c.conversation_id"
    " WHERE g.sent_at < $1 AND c.created_by = $2",
)

# The tables, filled


class Column(NamedTuple):
    """is_key: the whole primary key."""

    table: str
    name: str
    type: str
    is_nullable: bool
    is_key: bool


_COLUMNS = {
    "sqlite": (
        'SELECT t.name, c.name, lower(c.type), NOT c."notnull", c.pk = 1 AND 1 ='
        " (SELECT COUNT(*) FROM pragma_table_xinfo(t.name) k WHERE k.pk > 0)"
        " FROM pragma_table_list() t, pragma_table_xinfo(t.name) c"
        " WHERE t.schema = 'main' AND t.type = 'table' ORDER BY t.name, c.cid"
    ),
    "postgres": (
        "SELECT CAST(c.relname AS text), CAST(a.attname AS text), format_type(a.atttypid, NULL),"
        " NOT a.attnotnull, EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary"
        " AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum)"
        " FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
        " WHERE c.relnamespace = to_regnamespace('public') AND c.relkind = 'r' AND a.attnum > 0"
        " ORDER BY c.relname, a.attnum"
    ),
}
_IDS = {
    "sqlite": "printf('00000000-0000-7000-8000-%012d', {})",
    "postgres": "CAST('00000000-0000-7000-8000-' || lpad(CAST({} AS text), 12, '0') AS uuid)",
}
_OF_TYPE = {
    "text": "CAST(i AS text)",
    "bigint": "i",
    "integer": "i",
    "blob": "CAST(i AS blob)",
    "bytea": "convert_to(CAST(i AS text), 'UTF8')",
    "boolean": "false",
    "jsonb": "'{}'",
    "timestamp with time zone": "to_timestamp(1767225600 + i)",
    "tsvector": "CAST('w' || i % 100 AS tsvector)",
}
_NAMED = {  # what a CHECK asks for, of one table or of all
    "message_type": "'text'",
    "type": "'group'",
    "role": "'member'",
    "status": "'completed'",
    "poll_type": "'single'",
    "service": "'fcm'",
    "usage": "'master'",
    "state": "'open'",
    "calls.state": "'ended'",
    "call_people.state": "'left'",
    "recordings.state": "'asking'",
    "call_type": "'video'",
    "topology": "'mesh'",
}
_PERSON = {"user_id", "sender_id", "owner_id", "created_by", "reporter_id"}
_SELDOM_NULL = {"message_id", "position"}  # though they may be


def value(dialect: str, column: Column, rows: int) -> str:
    """Of row `i`, from 1: messages of one conversation, and the like, stand together."""
    each = max(rows // CONVERSATIONS, 1)
    for name in (f"{column.table}.{column.name}", column.name):
        if name in _NAMED:
            return _NAMED[name]
    if column.name in ("seq", "change"):
        return f"(i - 1) % {each} + 1"
    if column.is_nullable and column.name not in _SELDOM_NULL:
        return "NULL"
    if column.type == "uuid" or (column.type == "text" and column.name.endswith("_id")):
        number = "i"
        if not column.is_key and column.name == "conversation_id":
            number = f"(i - 1) / {each} + 1"
        elif not column.is_key and column.name in _PERSON:
            number = f"i * 7 % {PEOPLE} + 1"
        return _IDS[dialect].format(number)
    return _OF_TYPE[column.type]


async def fill(tx: Tx) -> None:
    tables: dict[str, list[Column]] = {}
    for column in map(Column._make, await tx.all(_COLUMNS[tx.dialect])):
        tables.setdefault(column.table, []).append(column)
    for table, columns in tables.items():
        rows = ROWS.get(table, 0 if tx.dialect == "sqlite" else OTHERS)
        if rows and table != "schema_migrations":
            names = ", ".join(f'"{each.name}"' for each in columns)
            values = ", ".join(value(tx.dialect, each, rows) for each in columns)
            await tx.run(
                f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})"
                f' INSERT INTO "{table}" ({names}) SELECT {values} FROM n WHERE true ON CONFLICT DO NOTHING'
            )
    await tx.run("ANALYZE" if tx.dialect == "postgres" else "SELECT 1")


@pytest.fixture(params=DATABASES)
async def db(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    if request.param == "sqlite":
        async with Sqlite.open(tmp_path / "plans.db", SqliteConfig(statement_s=60)) as sqlite:
            await migrate.apply(sqlite)
            await sqlite.write(fill)
            yield sqlite
    else:
        config = PostgresConfig(url=request.getfixturevalue("postgres_url"), statement_s=60)
        async with open_bridge() as bridge, Postgres.open(config, bridge) as postgres:
            await migrate.apply(postgres)
            await postgres.write(fill)
            yield postgres


# What a plan reads whole

_HOT = re.compile(r"chat\.(append|listing)\.|chat\.store\._(LIST|ONE|SEAT)")
_GROWING = {"Seq Scan messages", "Seq Scan members", "Seq Scan users"}

_SCANS = re.compile(r"SCAN (\w+)")
# Indexes of what is still to be done, and of nothing else: to read one whole is what it is for.
_PARTIAL = set(
    re.findall(
        r"CREATE INDEX (\w+) ON [^;]* WHERE ",
        "".join(each.text for each in migrate.load(migrate.folder(), "postgres")),
    )
)


async def read_whole(tx: Tx, statements: dict[str, str]) -> dict[str, list[str]]:
    """The steps of each plan that do, by the name of the statement."""
    if tx.dialect == "postgres":
        # plans for any values, as they are kept with prepared statements; as if no table were small enough to
        # be read
        await tx.run("SET LOCAL plan_cache_mode = force_generic_plan")
        for way in ("seqscan", "hashjoin", "mergejoin"):
            await tx.run(f"SET LOCAL enable_{way} = off")
    look = _in_postgres if tx.dialect == "postgres" else _in_sqlite
    return {name: whole for name, sql in statements.items() if (whole := await look(tx, sql))}


async def costly(tx: Tx, statements: dict[str, str]) -> dict[str, set[str]]:
    """Statements of sending and listing for which Postgres would rather read a whole table that grows: it
    does not know how many keys are in a list, nor how short a page is."""
    await tx.run("SET LOCAL plan_cache_mode = force_generic_plan")
    plans = {name: await _in_postgres(tx, sql) for name, sql in statements.items() if _HOT.match(name)}
    assert len(plans) > len(_GROWING)
    return {name: whole for name, steps in plans.items() if (whole := _GROWING & set(steps))}


async def _in_sqlite(tx: Tx, sql: str) -> list[str]:
    steps = [row[3] for row in await tx.all(f"EXPLAIN QUERY PLAN {sql}", *[None] * len(parameters(sql)))]
    made = {step.split()[1] for step in steps if step.startswith(("CO-ROUTINE", "MATERIALIZE"))}
    return [
        step
        for step in steps
        if (scan := _SCANS.match(step))
        and scan[1] not in made | {"CONSTANT"}
        and " VIRTUAL TABLE" not in step  # full text, or the items of a JSON list
    ]


async def _in_postgres(tx: Tx, sql: str) -> list[str]:
    await tx.run(f"PREPARE hot AS {sql}")
    values = ", ".join(["NULL"] * len(parameters(sql)))
    row = await tx.one(f"EXPLAIN (FORMAT JSON) EXECUTE hot{f'({values})' if values else ''}")
    await tx.run("DEALLOCATE hot")
    assert row is not None
    return list(_whole(msgspec.json.decode(row[0])[0]["Plan"]))


def _whole(node: dict[str, Any]) -> Iterator[str]:
    kind, index = node["Node Type"], node.get("Index Name")
    if kind == "Seq Scan" or (index is not None and index not in _PARTIAL and "Index Cond" not in node):
        yield f"{kind} {node.get('Relation Name') or index}"
    for each in node.get("Plans", ()):
        yield from _whole(each)


async def test_nothing_that_is_asked_often_reads_a_whole_table(db: Database) -> None:
    async def look(tx: Tx) -> tuple[dict[str, set[str]], dict[str, list[str]], dict[str, list[str]]]:
        ours = {name: sql for name, dialect, sql in CONSTANTS if dialect in (None, tx.dialect)}
        dear = await costly(tx, ours) if tx.dialect == "postgres" else {}
        return dear, await read_whole(tx, ours), await read_whole(tx, {sql: sql for sql in BAD})

    dear, found, caught = await db.write(look)
    assert dear == {}
    assert {name: steps for name, steps in found.items() if name not in WHOLE} == {}
    assert caught.keys() == set(BAD), "a test that cannot fail"


def test_what_is_excused_is_there() -> None:
    assert WHOLE.keys() <= {name for name, _, _ in CONSTANTS}
