"""Making a backup beside a running server: the database at one moment, then the files that belong to it.

The files come second. What a row of that moment names was in the store before the row, so it is missing there
only if it has been deleted since; that is noted, and a restore deletes the file as its owner did.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import cast

from .. import __version__, node
from ..audit import head_of
from ..clock import to_iso
from ..deps import migrate
from ..deps.contracts import Database, Objects, Row, Snapshot, Tx
from ..durable import sync_folder
from ..errors import NotFound
from ..move import Batch
from ..move.tables import Table, quoted, read_tables
from ..signaling.recordings.store import ARRIVED
from ..storage.contents import FILES, Content, content_of, is_kept, part_of
from . import manifest as manifests
from .folder import OBJECTS, Folder, Refused
from .manifest import Files, Head, Manifest, Sheet
from .sheets import ROWS, SheetWriter, pages
from .streams import Damaged, Writer, Written, told
from .threads import in_thread, in_threads

Tell = Callable[[Batch], None]
Pace = Callable[[Callable[[], Awaitable[None]]], Awaitable[None]]
WANTED = "wanted"  # the sheet of what is still to be copied


@dataclass(frozen=True, slots=True)
class Source:
    """What is copied.  snapshot: opens it at the moment it is called.  db: as it goes on.  names: what the
    database and the store of files are.  master: the key that opens its secrets, by its id; asked where the
    backup holds it."""

    snapshot: Callable[[], AbstractAsyncContextManager[Snapshot]]
    db: Database
    objects: Objects
    names: tuple[str, str]
    master: Callable[[str], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Made:
    path: Path
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class _Moment:
    """What the database was.  backup: the folder its tables are in.  key_id: of the master key."""

    backup: Path
    at_us: int
    migrations: list[tuple[int, str]]
    history_id: str
    server_name: str
    key_id: str
    head: Head
    tables: dict[str, manifests.Table]


async def at_once(work: Callable[[], Awaitable[None]]) -> None:
    """The pace of whoever waits for the backup."""
    await work()


async def make(source: Source, folder: Folder, tell: Tell, pace: Pace = at_once) -> Made:
    """One more backup in `folder`, which the caller holds.  pace: does each piece of work, and may rest.

    Raises Refused, Damaged (what is in the folder), OSError, or what database and store raise; what was begun
    is then no backup.
    """
    copying = _Copying(folder, tell, pace)
    async with source.snapshot() as snapshot:
        moment = await copying.database(snapshot)
        wanted = await copying.want(snapshot, moment.backup)
    files = await copying.files(source, moment.backup, wanted)
    master = await source.master(moment.key_id) if folder.key is not None else None
    return await _finish(folder, moment, source.names, files, master)


async def make_of_tables(snapshot: Snapshot, database: str, folder: Folder, tell: Tell) -> Made:
    """`make` without the files, which stay where they are.  database: what it is.  folder: without a
    passphrase."""
    copying = _Copying(folder, tell, at_once)
    moment = await copying.database(snapshot)
    return await _finish(folder, moment, (database, ""), await copying.no_files(moment.backup), None)


def sheet_path(backup: Path, name: str) -> Path:
    return backup / f"{name}.rows"


def label_of(backup: Path, name: str) -> str:
    """Of a sheet; no other file of the folder has it."""
    return f"{backup.name} {name}"


@dataclass(slots=True)
class _Tally:
    """Of the files so far.  found, missing: rows of the two sheets that are not written yet."""

    found: list[Row] = field(default_factory=list)
    missing: list[Row] = field(default_factory=list)
    size_bytes: int = 0
    copied: int = 0
    copied_bytes: int = 0
    gone: int = 0
    lost: int = 0

    def find(self, content: Content, name: str, written: Written, *, is_new: bool) -> None:
        self.found.append((content.key, written.size_bytes, written.sha256, name))
        self.size_bytes += written.size_bytes
        self.copied += is_new
        self.copied_bytes += written.size_bytes if is_new else 0

    def miss(self, content: Content, *, is_lost: bool) -> None:
        self.missing.append((content.key, content.file_id, "lost" if is_lost else "gone"))
        self.lost += is_lost
        self.gone += not is_lost


class _Copying:
    def __init__(self, folder: Folder, tell: Tell, pace: Pace) -> None:
        self._folder = folder
        self._tell = tell
        self._pace = pace

    async def database(self, snapshot: Snapshot) -> _Moment:
        names = await snapshot.read(node.read_names)
        if names is None:
            raise Refused("this installation was never served: there is nothing to back up")
        backup = await in_thread(self._folder.begin, to_iso(snapshot.at_us).replace(":", ""))
        tables = {
            table.name: await self.table(snapshot, backup, table)
            for table in (await snapshot.read(read_tables)).values()
        }
        migrations, head = await snapshot.read(migrate.applied), await snapshot.read(head_of)
        end = Head(head.count, head.seal.hex())
        return _Moment(backup, snapshot.at_us, migrations, *names, end, tables)

    async def table(self, snapshot: Snapshot, backup: Path, table: Table) -> manifests.Table:
        total = await snapshot.read(_count, table)
        columns = [each.name for each in table.columns]
        with self._sheet(backup, f"table {table.name}") as writer:
            async with aclosing(snapshot.pages(table.select(), ROWS)) as found:
                async for page in found:
                    kept = [row for row in page if not node.is_note(table.name, row)]
                    await self._pace(partial(in_thread, writer.add, kept))
                    self._tell(Batch("copying", table.name, writer.rows, total))
            return manifests.Table(columns, await _finished(writer))

    async def want(self, snapshot: Snapshot, backup: Path) -> int:
        """Note what the files of that moment are: they take longer than it should be held. Returns how
        many."""
        with self._sheet(backup, WANTED) as writer:
            for sql, read in ((FILES, content_of), (ARRIVED, part_of)):
                async with aclosing(snapshot.pages(sql, ROWS)) as found:
                    async for page in found:
                        await in_thread(writer.add, [read(row) for row in page])
            return (await _finished(writer)).rows

    async def files(self, source: Source, backup: Path, total: int) -> Files:
        """Copy what is not there yet.  total: how many are wanted."""
        tally = _Tally()
        key, path, label = self._folder.key, sheet_path(backup, WANTED), label_of(backup, WANTED)
        with self._sheet(backup, "files") as here, self._sheet(backup, "absent") as absent:
            async with aclosing(in_threads(pages(path, key, label))) as wanted:
                async for page in wanted:
                    for row in page:
                        await self._file(source, Content(*row), tally)
                    await in_thread(here.add, tally.found)
                    await in_thread(absent.add, tally.missing)
                    tally.found, tally.missing = [], []
                    self._tell(Batch("copying", "contents", here.rows + absent.rows, total))
            sheets = await _finished(here), await _finished(absent)
        await in_thread(path.unlink)
        size, copied, copied_bytes = tally.size_bytes, tally.copied, tally.copied_bytes
        return Files(sheets[0], size, copied, copied_bytes, sheets[1], tally.gone, tally.lost)

    async def no_files(self, backup: Path) -> Files:
        with self._sheet(backup, "files") as here, self._sheet(backup, "absent") as absent:
            return Files(await _finished(here), 0, 0, 0, await _finished(absent), 0, 0)

    async def _file(self, source: Source, content: Content, tally: _Tally) -> None:
        key, name = self._folder.key, self._folder.name_of(content.key)
        path = self._folder.object(name)
        there = await in_thread(_there, path, key, name, content)
        if there is not None:
            tally.find(content, name, there, is_new=False)
            return
        copied: list[Written] = []

        async def copy() -> None:
            copied.extend(await _from_store(source.objects, content, path, key, name))

        await self._pace(copy)
        for written in copied:
            tally.find(content, name, written, is_new=True)
        if not copied:
            is_there = content.file_id is not None and await source.db.read(is_kept, content.file_id)
            tally.miss(content, is_lost=is_there)

    @contextmanager
    def _sheet(self, backup: Path, name: str) -> Iterator[SheetWriter]:
        writer = SheetWriter(sheet_path(backup, name), self._folder.key, label_of(backup, name))
        try:
            yield writer
        finally:
            writer.discard()


def _there(path: Path, key: bytes | None, name: str, content: Content) -> Written | None:
    """What an earlier backup has copied, if that is what is meant."""
    try:
        found = told(path, key, f"{OBJECTS} {name}")
    except Damaged:
        return None
    is_it = found.size_bytes == content.size_bytes and content.sha256 in (None, found.sha256)
    return found if is_it else None


async def _from_store(
    objects: Objects, content: Content, path: Path, key: bytes | None, name: str
) -> list[Written]:
    """Copied; nothing if it is not there as it should be."""
    try:
        expected = content.sha256 or (await objects.stat(content.key)).sha256
        await in_thread(make_folders, path)
        writer = await in_thread(Writer, path, key, f"{OBJECTS} {name}")
        try:
            chunks = cast("AsyncGenerator[bytes, None]", objects.get(content.key))
            async with aclosing(chunks):
                async for chunk in chunks:
                    await in_thread(writer.write, chunk)
            if writer.size_bytes != content.size_bytes or expected not in ("", writer.sha256):
                return []
            return [await in_thread(writer.finish)]
        finally:
            writer.discard()
    except NotFound:
        return []


def make_folders(path: Path) -> None:
    """The two above it, durably. Blocking."""
    for folder in (path.parent.parent, path.parent):
        if not folder.exists():
            folder.mkdir(mode=0o700)
            sync_folder(folder.parent)


async def _finish(
    folder: Folder, moment: _Moment, names: tuple[str, str], files: Files, master: str | None
) -> Made:
    manifest = Manifest(
        backup_id=moment.backup.name,
        program=__version__,
        at_us=moment.at_us,
        database=names[0],
        objects=names[1],
        migrations=moment.migrations,
        history_id=moment.history_id,
        server_name=moment.server_name,
        master_key_id=moment.key_id,
        audit=moment.head,
        tables=moment.tables,
        files=files,
        master_key=master,
    )
    await in_thread(manifests.write, moment.backup, folder.key, manifest)
    return Made(moment.backup, manifest)


async def _finished(writer: SheetWriter) -> Sheet:
    written = await in_thread(writer.finish)
    return Sheet(writer.rows, written.size_bytes, written.sha256)


async def _count(tx: Tx, table: Table) -> int:
    row = await tx.one(f"SELECT COUNT(*) FROM {quoted(table.name)}")  # noqa: S608
    return 0 if row is None else int(row[0])
