"""An object in the making, in two files: its content, each part at its place, and a ledger that has the
SHA-256 of each part that is there whole. All of it blocks.

A part is in the ledger only after its bytes are on the disk, and out of it before they change.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator
from pathlib import Path

from ..durable import sync_folder
from .contracts import Division, UploadedPart

LEDGER = "="  # how its name ends; no key has one
READ_BYTES = 1024 * 1024
STEP_BYTES = 32 * READ_BYTES  # hashed before whoever waits for it is asked whether he still does
_ENTRY_BYTES = hashlib.sha256().digest_size
_MISSING = bytes(_ENTRY_BYTES)


class Draft:
    """In `folder`, which is there; the two files need not be.  name: no ledger's."""

    def __init__(self, folder: Path, name: str) -> None:
        self.content = folder / name
        self.ledger = folder / (name + LEDGER)
        self._folder = folder

    def part(self, division: Division, number: int) -> Part:
        """To be written now; from here on it counts as missing."""
        is_new = not self.ledger.exists()
        content, ledger = _open(self.content), -1
        try:
            ledger = _open(self.ledger)
            if is_new:
                os.truncate(content, division.size_bytes)  # takes no room: it tells what it will take
                sync_folder(self._folder)
            return Part(content, ledger, division, number)
        except BaseException:
            for descriptor in (content, ledger):
                if descriptor >= 0:
                    os.close(descriptor)
            raise

    def parts(self, division: Division) -> list[UploadedPart]:
        try:
            entries = self.ledger.read_bytes()
        except FileNotFoundError:
            return []
        found: list[UploadedPart] = []
        for number in range(1, division.count + 1):
            entry = entries[(number - 1) * _ENTRY_BYTES : number * _ENTRY_BYTES]
            if len(entry) == _ENTRY_BYTES and entry != _MISSING:
                found.append(UploadedPart(number, entry.hex(), division.length(number)))
        return found

    def size(self) -> int:
        """Of the whole object; 0 if nothing of it is there."""
        return self.content.stat().st_size if self.content.exists() else 0

    def digests(self, size: int) -> Generator[bytes | None, None, None]:
        """SHA-256 of the first `size` bytes, after None for each step on the way."""
        digest, buffer, at = hashlib.sha256(), memoryview(bytearray(READ_BYTES)), 0
        with self.content.open("rb", buffering=0) as file:
            while at < size:
                until = min(size, at + STEP_BYTES)
                while at < until:
                    taken = os.preadv(file.fileno(), [buffer[: min(READ_BYTES, until - at)]], at)
                    if not taken:
                        raise OSError("a draft has become shorter")
                    digest.update(buffer[:taken])
                    at += taken
                yield None
        yield digest.digest()

    def remove(self) -> None:
        if self.content.exists() or self.ledger.exists():
            self.ledger.unlink(missing_ok=True)  # first: without it nothing of the content counts
            self.content.unlink(missing_ok=True)
            sync_folder(self._folder)


class Part:
    """One part on its way into a draft."""

    def __init__(self, content: int, ledger: int, division: Division, number: int) -> None:
        """Takes the descriptors over."""
        self.descriptor = content
        self._ledger = ledger
        self._number = number
        self._entry_at = (number - 1) * _ENTRY_BYTES
        self._digest = hashlib.sha256()
        self._at = division.start(number)
        self._length = self._left = division.length(number)
        if os.pread(ledger, _ENTRY_BYTES, self._entry_at).strip(b"\0"):
            self._enter(_MISSING)

    def write(self, pieces: list[bytes]) -> None:
        """No more of them than its length."""
        for piece in pieces:
            self._left -= len(piece)
            self._digest.update(piece)
            rest = memoryview(piece)
            while rest:
                taken = os.pwrite(self.descriptor, rest, self._at)
                self._at += taken
                rest = rest[taken:]

    def keep(self) -> UploadedPart:
        """On the disk, and then in the ledger. Raises ValueError when it is not whole."""
        if self._left:
            raise ValueError("a part that is too short")
        os.fdatasync(self.descriptor)
        self._enter(self._digest.digest())
        return UploadedPart(self._number, self._digest.hexdigest(), self._length)

    def close(self) -> None:
        os.close(self.descriptor)
        os.close(self._ledger)

    def _enter(self, entry: bytes) -> None:
        os.pwrite(self._ledger, entry, self._entry_at)
        os.fdatasync(self._ledger)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
