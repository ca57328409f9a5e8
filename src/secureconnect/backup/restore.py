"""A whole installation from a backup, in the place of none.

The mark in the database stays until the very end: a restore that was killed is seen, by servers too, and
begun again from the start. What comes back is another history than what went on after the backup was made,
and nothing that opens a door is taken over.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from .. import auth, node, outbox
from ..audit import Audit
from ..clock import to_iso
from ..config import Config
from ..deps import migrate
from ..deps.contracts import Database, Objects, Tx
from ..identity import FileId
from ..move import Batch
from ..move.tables import quoted, read_names
from ..node import Secrets
from ..storage.contents import settle
from .folder import Refused
from .load import load
from .make import Tell
from .reading import Opened
from .streams import Damaged
from .threads import in_thread, in_threads

# what a node keeps beside its database, and what is another's once that is another one
STALE = ("audit.head", "revocations.snapshot", "revocations.journal", "node.snapshot")
WAITING = ("journal", "bans.pending", "spool")


@dataclass(frozen=True, slots=True)
class Restored:
    rows: int
    history_id: str


async def require_place(db: Database, objects: Objects, data_dir: Path, backup: Opened) -> None:
    """There is nothing, or what an earlier attempt at the same has left. Raises Refused with what to do."""
    for name in WAITING:
        if await in_thread(_holds_something, data_dir / name):
            raise Refused(
                f"{data_dir / name} holds what a server has accepted and not stored yet:"
                " restore into another data folder, or move it away"
            )
    begun, filled = await db.read(_look)
    backup_id = backup.manifest.backup_id
    if begun is not None and begun != backup_id:
        raise Refused(
            f"the restore of another backup ({begun}) was begun here:"
            " finish that one, or empty the database and objects/ and begin anew"
        )
    if begun is None:
        if filled is not None:
            raise Refused(
                f"there is an installation here (table {filled} has rows): restore into an empty data folder"
                " or database, and put this one away first"
            )
        if not backup.manifest.has_files:
            return
        async with aclosing(cast("AsyncGenerator[str, None]", objects.list(""))) as keys:
            async for _ in keys:
                raise Refused("there are files in the store already: restore into an empty folder or bucket")


async def clear(db: Database) -> None:
    """Remove every table of ours from Postgres: those of an attempt that was killed, or empty ones."""
    await db.relieve(_drop_tables)


def clear_file(path: Path) -> None:
    """The same for SQLite. Blocking."""
    for each in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
        each.unlink(missing_ok=True)


async def restore(
    backup: Opened, db: Database, objects: Objects, secrets: Secrets, config: Config, tell: Tell
) -> Restored:
    """Into a database without a table, and a store without files unless they stay there; `require_place` has
    looked, and `read_all` has found the backup whole.

    Raises Refused, Damaged, or what database and store raise: the same call then begins again.
    """
    manifest, data_dir = backup.manifest, Path(config.data_dir)
    rows = await load(backup, db, tell)
    await _copy_files(backup, objects, tell)
    gone = await _gone(backup)
    await in_thread(_forget_stale, data_dir)
    audit = Audit(
        config.audit, db, secrets.derive("audit"), secrets.key_id, head_file=data_dir / "audit.head"
    )
    await audit.begin_anew({"backup": manifest.backup_id, "made_at": to_iso(manifest.at_us)})
    history_id = await db.write(_settle, secrets, gone, db.now_us())
    return Restored(rows, history_id)


async def _settle(tx: Tx, secrets: Secrets, gone: list[FileId], now_us: int) -> str:
    """From its end on the installation is whole, and a new one. Returns the id of its history."""
    await auth.close_doors(tx, secrets, now_us)
    await outbox.drop_all(tx)
    await settle(tx, gone, now_us)
    return await node.end_restore(tx)


async def _copy_files(backup: Opened, objects: Objects, tell: Tell) -> None:
    done, total = 0, backup.manifest.files.sheet.rows
    async with aclosing(in_threads(backup.pages("files"))) as found:
        async for page in found:
            for key, size_bytes, sha256, name in page:
                async with aclosing(in_threads(backup.content(name))) as chunks:
                    stored = await objects.put(key, chunks, limit_bytes=size_bytes)
                if stored.size_bytes != size_bytes or stored.sha256 not in ("", sha256):
                    raise Damaged(f"the store holds something else as {key} than was read from the backup")
            done += len(page)
            tell(Batch("restoring", "contents", done, total))


async def _gone(backup: Opened) -> list[FileId]:
    """Files that were deleted while the backup was made: few."""
    gone: list[FileId] = []
    async with aclosing(in_threads(backup.pages("absent"))) as found:
        async for page in found:
            gone += [FileId(file_id) for _, file_id, why in page if why == "gone" and file_id is not None]
    return gone


async def _look(tx: Tx) -> tuple[str | None, str | None]:
    """The backup whose restore was begun, and a table that has rows; None: there is none."""
    names = await read_names(tx)
    ours = migrate.tables(migrate.folder(), tx.dialect)
    if "schema_migrations" not in names:
        if strange := sorted(names & ours):
            raise Refused(f"the database has tables of something else: {', '.join(strange)}")
        return None, None
    begun = await node.read_restore(tx) if "meta" in names else None
    for name in sorted(names & ours - {"schema_migrations", "search_upkeep", "nodes"}):
        if await tx.one(f"SELECT 1 FROM {quoted(name)} LIMIT 1"):  # noqa: S608
            return begun, name
    return begun, None


async def _drop_tables(tx: Tx) -> None:
    for name in sorted(await read_names(tx) & migrate.tables(migrate.folder(), tx.dialect)):
        await tx.run(f"DROP TABLE {quoted(name)}")


def _holds_something(path: Path) -> bool:
    if path.is_dir():
        return any(each.is_file() for each in path.rglob("*"))
    return path.exists() and path.stat().st_size > 0


def _forget_stale(data_dir: Path) -> None:
    for name in STALE:
        (data_dir / name).unlink(missing_ok=True)
