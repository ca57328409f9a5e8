"""Where a text lies on a server: in which tables, in which files, in the log."""

from __future__ import annotations

from kit.server import Server
from secureconnect.config_file import load
from secureconnect.deps.contracts import Tx
from secureconnect.deps.policy import open_database

LOG = "the log"
_TABLES = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name",
    "postgres": "SELECT table_name FROM information_schema.tables"
    " WHERE table_schema = 'public' AND table_type = 'BASE TABLE' ORDER BY table_name",
}


async def whereabouts(server: Server, text: str) -> set[str]:
    """Names of tables, of files in the data folder (what is written before rows, too, and journals), and LOG.
    The server runs on."""
    settings = {f"SECURECONNECT_{name}": value for name, value in server.settings.items()}
    async with open_database(load(None, settings, {"data_dir": str(server.data_dir)})) as db:
        found = await db.read(_tables_with, text)
    files = (path for path in server.data_dir.rglob("*") if path.is_file() and not path.is_symlink())
    found |= {path.name for path in files if text.encode() in path.read_bytes()}
    return found | ({LOG} if any(text in line for line in server.output) else set())


async def _tables_with(tx: Tx, text: str) -> set[str]:
    found: set[str] = set()
    for (table,) in await tx.all(_TABLES[tx.dialect]):
        rows = await tx.all(f'SELECT * FROM "{table}"')
        if any(_is_in(text, value) for row in rows for value in row):
            found.add(table)
    return found


def _is_in(text: str, value: object) -> bool:
    return text.encode() in value if isinstance(value, bytes) else text in str(value)
