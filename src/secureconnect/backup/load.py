"""The tables of a backup into an empty database, of either kind, and whether they are there then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import aclosing

from .. import node
from ..deps import migrate
from ..deps.contracts import ConstraintViolation, Database, Tx, UniqueViolation
from ..move import Batch
from ..move.compare import sum_of
from ..move.tables import Table, read_tables
from .folder import Refused
from .make import Tell
from .manifest import Manifest
from .reading import Opened
from .sheets import ROWS
from .streams import Damaged
from .threads import in_threads

_MODULUS = 1 << 256


def require_known(manifest: Manifest, dialect: str) -> None:
    """Raises Refused for a backup of a newer program."""
    known = {(each.number, each.name) for each in migrate.load(migrate.folder(), dialect)}
    if strange := [name for number, name in manifest.migrations if (number, name) not in known]:
        raise Refused(
            f"the backup was made by a newer program ({manifest.program}):"
            f" this one does not know {strange[0]}"
        )


async def load(backup: Opened, db: Database, tell: Tell) -> int:
    """Fill `db`, in which there is no table, and bring its schema up to date. Returns how many rows.

    A mark says from the beginning that it is not whole; whoever loads takes that away. Raises Refused,
    Damaged, MigrationError, or what the database raises.
    """
    manifest = backup.manifest
    await migrate.apply(db, up_to=1)
    await db.write(node.begin_restore, manifest.backup_id)
    await migrate.apply(db, up_to=manifest.migrations[-1][0])
    there = await db.read(read_tables)
    _require_same(manifest, there)
    rows = 0
    for name, table in there.items():
        rows += await _fill(backup, db, table, manifest.tables[name].sheet.rows, tell)
    if await db.read(migrate.applied) != manifest.migrations:
        raise Refused("a server has changed the schema meanwhile: stop them all, and begin again")
    await migrate.apply(db)
    return rows


def _require_same(manifest: Manifest, there: Mapping[str, Table]) -> None:
    columns = {name: [each.name for each in table.columns] for name, table in there.items()}
    told = {name: table.columns for name, table in manifest.tables.items()}
    if columns != told:
        strange = sorted(name for name in columns.keys() | told.keys() if columns.get(name) != told.get(name))
        raise Refused(f"the schema of the backup is another one: {', '.join(strange)}")


async def _fill(backup: Opened, db: Database, table: Table, total: int, tell: Tell) -> int:
    rows = checksum = 0
    async with aclosing(in_threads(backup.pages(f"table {table.name}"))) as found:
        async for page in found:
            rows += len(page)
            checksum += sum(table.digest(tuple(row)) for row in page)
            try:
                await db.write(_put, table, page, backup.manifest.backup_id)
            except (UniqueViolation, ConstraintViolation, ValueError) as exc:
                raise Damaged(f"the database refuses rows of {table.name}: {exc}") from exc
            tell(Batch("restoring", table.name, rows, total))
    written = await sum_of(db, table, ROWS)
    if (written.rows, written.checksum) != (rows, f"{checksum % _MODULUS:064x}") or rows != total:
        raise Damaged(f"what stands in table {table.name} now is not what was read from the backup")
    return rows


async def _put(tx: Tx, table: Table, page: Sequence[Sequence[object]], backup_id: str) -> None:
    if await node.read_restore(tx) != backup_id:
        raise Refused("another process restores into the same database")
    await tx.many(table.insert(), [table.for_target(tuple(row)) for row in page])
