"""Where a text can still be read of what a server keeps: in its data folder and in every table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from urllib.parse import urlsplit

from kit.postgres import PostgresServer
from kit.server import Server

_TABLES = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"


def traces(server: Server, texts: Iterable[str], postgres: PostgresServer | None) -> dict[str, list[str]]:
    """Files and tables, by the text that is there. A database in the folder is read as bytes, what it has
    freed as well."""
    files = [path for path in server.data_dir.rglob("*") if path.is_file() and not path.is_symlink()]
    places = {path.name: path.read_bytes() for path in files}
    if postgres is not None:
        places |= _tables(server, postgres)
    return {
        text: found
        for text in texts
        if (found := [name for name, content in places.items() if text.encode() in content])
    }


def _tables(server: Server, postgres: PostgresServer) -> dict[str, bytes]:
    """The rows of each as text; bytes in them are hexadecimal."""
    database = urlsplit(server.settings["POSTGRES__URL"]).path.lstrip("/")
    rows = [f"SELECT '{name}', t::text FROM {name} AS t" for name in postgres.sql(_TABLES, database).split()]
    tables: dict[str, bytes] = defaultdict(bytes)
    for line in postgres.sql(" UNION ALL ".join(rows), database).splitlines():
        name, _, row = line.partition("|")
        tables[name] += row.encode()
    return tables
