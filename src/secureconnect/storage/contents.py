"""What lies in the store and must not get lost: for backups, which copy it beside a running server.

The content of a completed file never changes, nor does a part of a recording that has arrived; all else is
on its way, and its owner has it still.
"""

from __future__ import annotations

from typing import NamedTuple

from ..deps.contracts import Row, Tx
from ..identity import FileId
from . import store


class Content(NamedTuple):
    """sha256: hexadecimal; None where nobody has read it.  file_id: None for a part of a recording."""

    key: str
    size_bytes: int
    sha256: str | None
    file_id: FileId | None


FILES = "SELECT file_id, incoming, file_size, checksum_sha256 FROM files WHERE status = 'completed'"
_LEAVE_SPOOLS = "UPDATE files SET node_id = NULL WHERE node_id IS NOT NULL AND status = 'completed'"


def content_of(row: Row) -> Content:
    """Of a row of FILES."""
    file_id, place, size, sha256 = row
    return Content(store.key_of(place), size, sha256, file_id)


def part_of(row: Row) -> Content:
    """Of a row that names place, number, size and SHA-256 of a part."""
    place, number, size, sha256 = row
    return Content(store.part_key(place, number), size, sha256.hex(), None)


async def is_kept(tx: Tx, file_id: FileId) -> bool:
    """Whether the file is still there for somebody."""
    file = await store.get(tx, file_id)
    return file is not None and file.status == "completed"


async def settle(tx: Tx, gone: list[FileId], now_us: int) -> None:
    """After a restore: files whose content was deleted while the backup was made are deleted, and what was in
    a spool is in the store.  gone: the ids of the former."""
    await tx.run(_LEAVE_SPOOLS)
    for file_id in gone:
        file = await store.lock(tx, file_id)
        if file is not None and file.status == "completed":
            await store.delete(tx, file, now_us)
