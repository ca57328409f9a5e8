"""A database that many tests use one after another is to each as if it were new."""

from __future__ import annotations

import pytest

from kit.databases import MigratedDatabases
from kit.postgres import PostgresServer

FILL = "INSERT INTO blocks VALUES (gen_random_uuid(), gen_random_uuid(), now())"


@pytest.fixture
def databases(migrated_databases: MigratedDatabases) -> MigratedDatabases:
    return migrated_databases


def tables(postgres: PostgresServer, name: str) -> list[str]:
    return postgres.sql(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'", name
    ).split()


def test_it_comes_back_without_a_row(databases: MigratedDatabases, postgres_server: PostgresServer) -> None:
    name, other = databases.take(), databases.take()
    assert other != name, "one is in use"
    databases.give_back(other)
    postgres_server.sql(FILL, name)
    databases.give_back(name)
    assert databases.take() == name
    databases.give_back(name)
    for table in tables(postgres_server, name):
        is_empty = postgres_server.sql(f"SELECT count(*) FROM {table}", name) == "0"
        assert is_empty == (table != "schema_migrations")


@pytest.mark.parametrize(
    "change",
    [
        "CREATE TABLE log (what text)",
        "ALTER TABLE users ADD COLUMN shoe_size bigint",
        "ALTER TABLE users ADD CHECK (username <> 'zoe')",
        "CREATE FUNCTION one() RETURNS bigint LANGUAGE sql AS 'SELECT 1'",
        "DELETE FROM schema_migrations",
    ],
)
def test_one_whose_schema_was_changed_does_not(
    databases: MigratedDatabases, postgres_server: PostgresServer, change: str
) -> None:
    name = databases.take()
    postgres_server.sql(change, name)
    databases.give_back(name)
    other = databases.take()
    assert other != name
    databases.give_back(other)
    assert postgres_server.sql(f"SELECT count(*) FROM pg_database WHERE datname = '{name}'") == "0"
