"""Applies `migrations/NNNN_name.sql` in order, each in one transaction, and remembers its checksum. An empty
database gets them all in one: to sync them one by one would be most of a first start.

The files are written once for both databases in a closed list of column types. Postgres takes them as they
are; for SQLite the types of CREATE TABLE and ALTER TABLE … ADD COLUMN are mapped and tables made STRICT.
Where one text cannot do (full-text search), `NNNN_name.sqlite.sql` and `NNNN_name.postgres.sql` stand beside
each other and are run as written. Triggers, transactions and PRAGMAs have no place in a migration.

A comment line `-- min_program: 0.2.0` names the oldest program that can still work with the schema after
this step; without it, any can.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import msgspec
import structlog

from .. import __version__
from .contracts import Database, Tx

log = structlog.get_logger(module="migrate")

_TABLE = (
    "CREATE TABLE IF NOT EXISTS schema_migrations (number bigint PRIMARY KEY, name text NOT NULL,"
    " checksum text NOT NULL, applied_at timestamptz NOT NULL, min_program text NOT NULL)"
)
_LIST = "SELECT number, name, checksum, min_program FROM schema_migrations ORDER BY number"
_IS_THERE = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table' AND name = 'schema_migrations'",
    "postgres": "SELECT 1 WHERE to_regclass('schema_migrations') IS NOT NULL",
}
_RECORD = (
    "INSERT INTO schema_migrations (number, name, checksum, applied_at, min_program)"
    " VALUES ($1, $2, $3, $4, $5)"
)

# Two nodes may start at once. Transactions that hold this wait for each other; SQLite has one writer anyway.
_LOCK = {"postgres": "SELECT pg_advisory_xact_lock($1)"}
_LOCK_KEY = 0x5343_4D49_4752  # "SCMIGR", for whoever looks into pg_locks

TYPES = {
    "uuid": "TEXT",
    "text": "TEXT",
    "jsonb": "TEXT",
    "bigint": "INTEGER",
    "boolean": "INTEGER",
    "timestamptz": "INTEGER",
    "bytea": "BLOB",
    "double precision": "REAL",
}
_NOT_COLUMNS = {"constraint", "primary", "unique", "check", "foreign"}
_NOT_ALLOWED = {"begin", "commit", "rollback", "savepoint", "pragma", "vacuum", "attach", "detach"}

_FILE = re.compile(r"(?P<number>\d{4})_(?P<name>[a-z0-9_]+)(?:\.(?P<dialect>sqlite|postgres))?\.sql")
_MIN_PROGRAM = re.compile(r"^-- min_program: (\d+\.\d+\.\d+)\s*$", re.MULTILINE)
_TOKEN = re.compile(
    r"""(?P<comment>--[^\n]*|/\*.*?\*/)|(?P<space>\s+)|(?P<word>[A-Za-z_]\w*)
       |(?P<quoted>'(?:[^']|'')*'|"(?:[^"]|"")*")|(?P<mark>.)""",
    re.VERBOSE | re.DOTALL,
)


class MigrationError(Exception):
    """Why the schema cannot be brought up to date: one line for the person who starts the server."""


class NotCopied(Exception):
    """Why there is no copy of the database from before a migration."""


Tell: TypeAlias = Callable[[str, int, int], None]
"""Of a copy that is being made: the part, how much of it is done, and of how much."""


class Migration(msgspec.Struct, frozen=True):
    """One file.  native: run as written, being the text of one database only."""

    number: int
    name: str
    text: str
    native: bool

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def min_program(self) -> str:
        found = _MIN_PROGRAM.search(self.text)
        return found[1] if found else "0.0.0"


class _Applied(NamedTuple):
    number: int
    name: str
    checksum: str
    min_program: str


class _Pending(NamedTuple):
    """is_first: the database has nothing yet."""

    steps: list[Migration]
    is_first: bool


def folder() -> Path:
    """Inside the package when installed from a wheel, at the top of a checkout otherwise."""
    installed = Path(__file__).parents[1] / "migrations"
    return installed if installed.is_dir() else Path(__file__).parents[3] / "migrations"


def load(directory: Path, dialect: str) -> list[Migration]:
    """The migrations for one database, in order. Raises MigrationError on a strange or doubled file."""
    found: dict[int, Migration] = {}
    for path in sorted(directory.glob("*.sql")):
        match = _FILE.fullmatch(path.name)
        if match is None:
            raise MigrationError(f"{path} is not named NNNN_name.sql")
        if match["dialect"] not in (None, dialect):
            continue
        number = int(match["number"])
        if number in found:
            raise MigrationError(f"{path} has the same number as {found[number].name}")
        name = f"{match['number']}_{match['name']}"
        found[number] = Migration(number, name, path.read_text("utf-8"), native=match["dialect"] is not None)
    return [found[number] for number in sorted(found)]


async def pending(db: Database, directory: Path | None = None) -> list[str]:
    """Names of the migrations not yet applied. Raises MigrationError if this program and the database do not
    go together."""
    return [each.name for each in (await db.relieve(_pending, directory or folder())).steps]


async def missing(db: Database, directory: Path | None = None) -> list[str]:
    """`pending`, for a database that must not be written to; one without any table lacks them all."""
    return [each.name for each in await db.read(_missing, directory or folder())]


def tables(directory: Path, dialect: str) -> set[str]:
    """The names of all that are made."""
    made = {"schema_migrations"}
    for each in load(directory, dialect):
        for statement in split(each.text):
            words = [token.text for token in statement if token.kind == "word"]
            if [word.lower() for word in words[:2]] == ["create", "table"]:
                made.add(words[2])
    return made


async def applied(tx: Tx) -> list[tuple[int, str]]:
    """Number and name of each that was, in order."""
    there = await tx.one(_IS_THERE[tx.dialect])
    return [(row.number, row.name) for row in await _list(tx)] if there else []


async def apply(db: Database, directory: Path | None = None, *, up_to: int | None = None) -> list[str]:
    """Apply what is pending and return its names. Safe to run from two processes at once.

    up_to: the number of the last one to be applied; None: all there are.

    A migration may take long on a large database: `db` should be opened with limits that allow for it, also
    for the wait for a lock, which another process may hold meanwhile.
    """
    directory = directory or folder()
    done = []
    pending = await db.relieve(_pending, directory)
    steps = [each for each in pending.steps if up_to is None or each.number <= up_to]
    for unit in [steps] if pending.is_first else [[each] for each in steps]:
        for name in await db.write(_apply, unit, db.now_us()):
            log.info("migration_applied", name=name)
            done.append(name)
    return done


async def _pending(tx: Tx, directory: Path) -> _Pending:
    await _lock(tx)
    await _run(tx, _TABLE)
    return _Pending(await _missing(tx, directory), is_first=not await _list(tx))


async def _missing(tx: Tx, directory: Path) -> list[Migration]:
    known = load(directory, tx.dialect)
    there = await tx.one(_IS_THERE[tx.dialect])
    done = {row.number: row for row in await _list(tx)} if there else {}
    for row in done.values():
        if _version(row.min_program) > _version(__version__):
            raise MigrationError(
                f"the database has the schema of a newer program (migration {row.name}):"
                f" it needs {row.min_program} or later, this is {__version__}"
            )
    for each in known:
        row_or_none = done.get(each.number)
        if row_or_none is None:
            if each.number < max(done, default=0):
                raise MigrationError(f"migration {each.name} comes before one that is already applied")
        elif row_or_none.checksum != each.checksum:
            raise MigrationError(f"migration {row_or_none.name} was changed after it had been applied")
    return [each for each in known if each.number not in done]


async def _apply(tx: Tx, migrations: Sequence[Migration], now_us: int) -> list[str]:
    """Names of those that no other process was faster with."""
    await _lock(tx)
    done = {row.number for row in await _list(tx)}
    mine = [each for each in migrations if each.number not in done]
    for each in mine:
        if each.native:
            for statement in split(each.text):
                await tx.run("".join(token.text for token in statement))
        else:
            await _run(tx, each.text)
        await tx.run(_RECORD, each.number, each.name, each.checksum, now_us, each.min_program)
    return [each.name for each in mine]


async def _lock(tx: Tx) -> None:
    if tx.dialect in _LOCK:
        await tx.one(_LOCK[tx.dialect], _LOCK_KEY)


async def _list(tx: Tx) -> list[_Applied]:
    return [_Applied._make(row) for row in await tx.all(_LIST)]


async def _run(tx: Tx, text: str) -> None:
    for statement in split(text):
        if tx.dialect == "sqlite":
            await tx.run(to_sqlite(statement))
        else:
            await tx.run("".join(token.text for token in statement))


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


class Token(NamedTuple):
    kind: str | None
    text: str

    @property
    def word(self) -> str:
        """In lower case; empty for anything that is not a bare word."""
        return self.text.lower() if self.kind == "word" else ""


def split(text: str) -> Iterator[list[Token]]:
    """Statements as tokens, without comments. Raises MigrationError on what has no place in a migration."""
    statement: list[Token] = []
    for match in _TOKEN.finditer(text + "\n;"):
        token = Token(match.lastgroup, match[0])
        if token.kind == "mark" and token.text in "'\"":
            raise MigrationError(f"a quote is not closed: {text[match.start() : match.start() + 40]!r}")
        if token == ("mark", ";"):
            words = [each.word for each in statement if each.kind != "space"]
            if (words[:1] and words[0] in _NOT_ALLOWED) or words[:2] == ["create", "trigger"]:
                raise MigrationError(f"{' '.join(words[:2]).upper()} has no place in a migration")
            if words:
                yield statement
            statement = []
        elif token.kind == "comment":
            statement.append(Token("space", " "))
        else:
            statement.append(token)


def to_sqlite(statement: Sequence[Token]) -> str:
    """The statement with SQLite's column types. Raises MigrationError naming a type that is not known."""
    tokens = list(statement)
    words = [token.word for token in tokens if token.kind != "space"]
    if words[:2] == ["create", "table"]:
        opening = next((at for at, token in enumerate(tokens) if token.text == "("), None)
        if opening is None:
            raise MigrationError(f"a table without columns: {''.join(t.text for t in tokens)}")
        depth, start = 0, opening + 1
        for at in range(opening, len(tokens)):
            depth += {"(": 1, ")": -1}.get(tokens[at].text, 0)
            if depth == 0 or (depth == 1 and tokens[at].text == ","):
                _map_type(tokens, start, at)
                start = at + 1
            if depth == 0:
                tokens[at] = Token("mark", ") STRICT")
                break
    elif words[:2] == ["alter", "table"] and "add" in words:
        after = next(at for at, token in enumerate(tokens) if token.word == "add") + 1
        column = next((at for at, t in enumerate(tokens) if at >= after and t.word == "column"), None)
        _map_type(tokens, after if column is None else column + 1, len(tokens))
    return "".join(token.text for token in tokens).strip()


def _map_type(tokens: list[Token], start: int, end: int) -> None:
    """Replace the type of the column defined in tokens[start:end], in place."""
    places = [at for at in range(start, end) if tokens[at].kind != "space"]
    if not places or tokens[places[0]].word in _NOT_COLUMNS:
        return
    words = [tokens[at].word for at in places[1:3]]
    length = 2 if words == ["double", "precision"] else 1
    name = " ".join(words[:length])
    if name not in TYPES:
        column = tokens[places[0]].text
        raise MigrationError(f"column {column}: {name or 'no type'!r} is none of {', '.join(TYPES)}")
    tokens[places[1]] = Token("word", TYPES[name])
    for at in places[2 : 1 + length]:
        tokens[at] = Token("space", " ")
