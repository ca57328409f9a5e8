"""The migration runner: order, checksums, types, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from secureconnect.config import PostgresConfig, SqliteConfig
from secureconnect.deps import migrate
from secureconnect.deps.asyncio_bridge import open_bridge
from secureconnect.deps.contracts import Database, Row, Tx
from secureconnect.deps.migrate import MigrationError
from secureconnect.deps.postgres import Postgres
from secureconnect.deps.sqlite import Sqlite


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "migrations"
    path.mkdir()
    return path


async def rows(tx: Tx, sql: str) -> list[Row]:
    return await tx.all(sql)


def to_sqlite(text: str) -> str:
    (statement,) = migrate.split(text)
    return migrate.to_sqlite(statement)


def test_types_are_mapped_and_tables_are_strict() -> None:
    made = to_sqlite(
        """CREATE TABLE IF NOT EXISTS "t" (  -- uuid, in a comment
            id uuid PRIMARY KEY, n bigint NOT NULL CHECK (n IN (1, 2)), x double
            precision, at timestamptz, b bytea, j jsonb DEFAULT '{"uuid": ";"}',
            ok boolean NOT NULL DEFAULT false, uuid text REFERENCES u (uuid),
            PRIMARY KEY (id, n), CONSTRAINT c CHECK (x > 0))"""
    )
    assert " ".join(made.split()) == (
        'CREATE TABLE IF NOT EXISTS "t" ( id TEXT PRIMARY KEY, n INTEGER NOT NULL CHECK (n IN (1, 2)), x REAL'
        """ , at INTEGER, b BLOB, j TEXT DEFAULT '{"uuid": ";"}', ok INTEGER NOT NULL DEFAULT false,"""
        " uuid TEXT REFERENCES u (uuid), PRIMARY KEY (id, n), CONSTRAINT c CHECK (x > 0)) STRICT"
    )
    assert to_sqlite("ALTER TABLE t ADD COLUMN ok boolean DEFAULT true") == (
        "ALTER TABLE t ADD COLUMN ok INTEGER DEFAULT true"
    )
    assert to_sqlite("ALTER TABLE t ADD at timestamptz") == "ALTER TABLE t ADD at INTEGER"
    assert to_sqlite("UPDATE t SET uuid = CAST(n AS bigint)") == "UPDATE t SET uuid = CAST(n AS bigint)"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("CREATE TABLE t (id uuid, size integer)", "size: 'integer'"),
        ("CREATE TABLE t (id)", "id: 'no type'"),
        ("ALTER TABLE t ADD COLUMN at datetime", "at: 'datetime'"),
        ("CREATE TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; END", "CREATE TRIGGER"),
        ("BEGIN; DELETE FROM t; COMMIT", "BEGIN"),
        ("INSERT INTO t VALUES ('never closed)", "quote is not closed"),
    ],
)
def test_what_cannot_be_carried_over_is_named(text: str, said: str) -> None:
    with pytest.raises(MigrationError, match=said):
        [migrate.to_sqlite(statement) for statement in migrate.split(text)]


def test_statements_are_split_outside_quotes_and_comments() -> None:
    text = """INSERT INTO t VALUES ('a;b', 'it''s; "'); -- one; two
        /* three; ' */ DELETE FROM "t;";;"""
    assert [migrate.to_sqlite(each) for each in migrate.split(text)] == [
        """INSERT INTO t VALUES ('a;b', 'it''s; "')""",
        'DELETE FROM "t;"',
    ]


async def test_applies_in_order_once_and_upgrades_data(data_dir: Path, folder: Path) -> None:
    (folder / "0001_first.sql").write_text("CREATE TABLE a (id bigint PRIMARY KEY, v text NOT NULL);")
    (folder / "0002_only.postgres.sql").write_text("CREATE EXTENSION nothing;")
    (folder / "0002_only.sqlite.sql").write_text("CREATE TABLE b (id INTEGER PRIMARY KEY); -- native")
    async with Sqlite.open(data_dir / "x.db", SqliteConfig()) as db:
        assert await migrate.pending(db, folder) == ["0001_first", "0002_only"]
        assert await migrate.apply(db, folder) == ["0001_first", "0002_only"]
        assert await migrate.apply(db, folder) == []
        await db.write(rows, "INSERT INTO a VALUES (1, 'kept')")
        (folder / "0003_more.sql").write_text(
            "ALTER TABLE a ADD COLUMN n bigint NOT NULL DEFAULT 7; UPDATE a SET v = v || '!';"
        )
        assert await migrate.apply(db, folder) == ["0003_more"]
        assert await migrate.pending(db, folder) == []
        assert await db.read(rows, "SELECT * FROM a") == [(1, "kept!", 7)]


async def test_a_failing_migration_leaves_nothing_behind(data_dir: Path, folder: Path) -> None:
    (folder / "0001_first.sql").write_text("CREATE TABLE a (id bigint); CREATE TABLE a (id bigint);")
    async with Sqlite.open(data_dir / "x.db", SqliteConfig()) as db:
        with pytest.raises(RuntimeError, match="already exists"):
            await migrate.apply(db, folder)
        tables = await db.read(rows, "SELECT name FROM sqlite_master WHERE type = 'table'")
        assert tables == [("schema_migrations",)]


async def test_a_new_database_gets_all_or_nothing_an_old_one_step_by_step(
    data_dir: Path, folder: Path
) -> None:
    first, second = folder / "0001_first.sql", folder / "0002_second.sql"
    first.write_text("CREATE TABLE a (id bigint);")
    second.write_text("CREATE TABLE a (id bigint);")
    async with Sqlite.open(data_dir / "x.db", SqliteConfig()) as db:
        with pytest.raises(RuntimeError, match="already exists"):
            await migrate.apply(db, folder)
        assert await migrate.pending(db, folder) == ["0001_first", "0002_second"]
        second.unlink()
        assert await migrate.apply(db, folder) == ["0001_first"]
        second.write_text("CREATE TABLE b (id bigint);")
        (folder / "0003_third.sql").write_text("CREATE TABLE a (id bigint);")
        with pytest.raises(RuntimeError, match="already exists"):
            await migrate.apply(db, folder)
        assert await migrate.pending(db, folder) == ["0003_third"]


async def test_a_changed_file_stops_the_start(data_dir: Path, folder: Path) -> None:
    (folder / "0001_first.sql").write_text("CREATE TABLE a (id bigint);")
    async with Sqlite.open(data_dir / "x.db", SqliteConfig()) as db:
        await migrate.apply(db, folder)
        (folder / "0001_first.sql").write_text("CREATE TABLE a (id text);")
        with pytest.raises(MigrationError, match="0001_first was changed"):
            await migrate.apply(db, folder)


@pytest.mark.parametrize(("needs", "works"), [("0.0.1", True), ("99.0.0", False)])
async def test_a_newer_schema_says_whom_it_needs(
    data_dir: Path, folder: Path, needs: str, works: bool
) -> None:
    later = folder / "0002_later.sql"
    (folder / "0001_first.sql").write_text("CREATE TABLE a (id bigint);")
    later.write_text(f"-- min_program: {needs}\nCREATE TABLE b (id bigint);")
    async with Sqlite.open(data_dir / "x.db", SqliteConfig()) as db:
        await migrate.apply(db, folder)
        later.unlink()  # as for the program before
        if works:
            assert await migrate.apply(db, folder) == []
        else:
            with pytest.raises(MigrationError, match="needs 99"):
                await migrate.apply(db, folder)


async def test_numbers_are_unique_and_only_grow(data_dir: Path, folder: Path) -> None:
    (folder / "0002_first.sql").write_text("CREATE TABLE a (id bigint);")
    async with Sqlite.open(data_dir / "x.db", SqliteConfig()) as db:
        await migrate.apply(db, folder)
        (folder / "0001_late.sql").write_text("CREATE TABLE b (id bigint);")
        with pytest.raises(MigrationError, match="0001_late comes before"):
            await migrate.apply(db, folder)
    (folder / "0002_again.sql").write_text("")
    with pytest.raises(MigrationError, match="same number"):
        migrate.load(folder, "sqlite")


async def test_the_products_schema_is_the_same_step_by_step(db: Sqlite, tmp_path: Path, folder: Path) -> None:
    assert await migrate.pending(db) == []
    assert await db.read(rows, "PRAGMA integrity_check") == [("ok",)]
    async with Sqlite.open(tmp_path / "steps.db", SqliteConfig()) as other:
        for step in migrate.load(migrate.folder(), "sqlite"):
            (folder / f"{step.name}{'.sqlite' if step.native else ''}.sql").write_text(step.text)
            assert await migrate.apply(other, folder) == [step.name]
        schema = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name"
        assert await other.read(rows, schema) == await db.read(rows, schema)


# Postgres


async def test_nodes_that_start_together_apply_each_step_once(postgres_url: str) -> None:
    applied: list[str] = []

    async def start(db: Database) -> None:
        applied.extend(await migrate.apply(db))
        assert await migrate.pending(db) == []

    config = PostgresConfig(url=postgres_url)
    async with open_bridge() as bridge, trio.open_nursery() as nursery:

        async def node() -> None:
            async with Postgres.open(config, bridge) as db:
                await start(db)

        for _ in range(4):
            nursery.start_soon(node)
    assert sorted(applied) == [each.name for each in migrate.load(migrate.folder(), "postgres")]


async def test_a_step_that_fails_on_postgres_leaves_nothing_behind(postgres_url: str, folder: Path) -> None:
    (folder / "0001_first.sql").write_text("CREATE TABLE a (id bigint); CREATE TABLE a (id bigint);")
    async with open_bridge() as bridge, Postgres.open(PostgresConfig(url=postgres_url), bridge) as db:
        with pytest.raises(RuntimeError, match="already exists"):
            await migrate.apply(db, folder)
        tables = await db.read(rows, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        assert tables == [("schema_migrations",)]
        (folder / "0001_first.sql").write_text("CREATE TABLE a (id bigint);")
        assert await migrate.apply(db, folder) == ["0001_first"]


async def test_each_database_takes_its_own_text(postgres_url: str, folder: Path) -> None:
    (folder / "0001_search.sqlite.sql").write_text("CREATE VIRTUAL TABLE words USING fts5 (word)")
    (folder / "0001_search.postgres.sql").write_text("CREATE TABLE words (word tsvector)")
    async with open_bridge() as bridge, Postgres.open(PostgresConfig(url=postgres_url), bridge) as db:
        assert await migrate.apply(db, folder) == ["0001_search"]
