"""How many backups a folder keeps, and the files that none of them needs any more."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from . import manifest as manifests
from .folder import OBJECTS, Folder
from .reading import Opened

DIGITS = "0123456789abcdef"


def prune(folder: Folder, keep: int) -> list[Path]:
    """Remove all but the newest, and what only they needed. Returns those removed. The caller holds the
    folder. Blocking. Raises Damaged, OSError: then nothing is removed that might be needed.
    """
    backups = folder.backups()
    over, kept = backups[:-keep], backups[-keep:]
    opened = [Opened(folder, path, manifests.read(path, folder.key)) for path in kept]
    for path in over:
        folder.drop(path)
    if over:
        _sweep(folder, opened)
    return over


def _sweep(folder: Folder, kept: Sequence[Opened]) -> None:
    """In sixteen passes, so that a sixteenth of the names is held in memory."""
    for digit in DIGITS:
        needed: set[bytes] = set()
        for backup in kept:
            for page in backup.pages("files"):
                needed |= {bytes.fromhex(name) for *_, name in page if name[0] == digit}
        for path in (folder.root / OBJECTS).glob(f"{digit}*/*"):
            if not _is_needed(path.name, needed):
                path.unlink()


def _is_needed(name: str, needed: set[bytes]) -> bool:
    """Drafts that were never finished are not."""
    try:
        return bytes.fromhex(name) in needed
    except ValueError:
        return False
