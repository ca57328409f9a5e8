"""A backup to be read, and whether every byte of it is as it was written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..move import Batch
from . import manifest as manifests
from .folder import OBJECTS, Folder, choose
from .make import Tell, label_of, sheet_path
from .manifest import Manifest, Sheet
from .sheets import pages
from .streams import Damaged, read, told
from .threads import in_thread, in_threads


@dataclass(frozen=True, slots=True)
class Opened:
    folder: Folder
    path: Path
    manifest: Manifest

    @classmethod
    def find(cls, source: Path, passphrase: bytes | None) -> Opened:
        """The newest in that folder, or the one that `source` is. Blocking. Raises Refused, Damaged,
        OSError."""
        folder, path = choose(source, passphrase)
        return cls(folder, path, manifests.read(path, folder.key))

    def pages(self, name: str) -> Iterator[list[list[Any]]]:
        """The rows of a sheet. Blocking. Raises Damaged."""
        return pages(sheet_path(self.path, name), self.folder.key, label_of(self.path, name))

    def content(self, name: str) -> Iterator[bytes]:
        """Of a file. Blocking. Raises Damaged."""
        return read(self.folder.object(name), self.folder.key, f"{OBJECTS} {name}")


async def read_all(backup: Opened, tell: Tell) -> None:
    """Raises Damaged, OSError."""
    manifest = backup.manifest
    sheets = {f"table {name}": table.sheet for name, table in manifest.tables.items()}
    sheets |= {"files": manifest.files.sheet, "absent": manifest.files.absent}
    for at, (name, sheet) in enumerate(sheets.items(), start=1):
        await in_thread(_require_sheet, backup, name, sheet)
        tell(Batch("reading", "tables", at, len(sheets)))
    done = 0
    async with aclosing(in_threads(backup.pages("files"))) as found:
        async for page in found:
            for key, size_bytes, sha256, name in page:
                await in_thread(_require_file, backup, key, size_bytes, sha256, name)
            done += len(page)
            tell(Batch("reading", "contents", done, manifest.files.sheet.rows))


def _require_sheet(backup: Opened, name: str, sheet: Sheet) -> None:
    path = sheet_path(backup.path, name)
    rows = sum(map(len, backup.pages(name)))
    there = told(path, backup.folder.key, label_of(backup.path, name))
    if (rows, there.size_bytes, there.sha256) != (sheet.rows, sheet.size_bytes, sheet.sha256):
        raise Damaged(f"{path} is damaged: it is not the one that its backup was made with")


def _require_file(backup: Opened, key: str, size_bytes: int, sha256: str, name: str) -> None:
    size = sum(map(len, backup.content(name)))
    path = backup.folder.object(name)
    there = told(path, backup.folder.key, f"{OBJECTS} {name}")
    if (size, there.sha256) != (size_bytes, sha256):
        raise Damaged(f"{path} is damaged: it is not the file {key} that its backup was made with")
