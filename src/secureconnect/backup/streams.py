"""Files of a backup: bytes in order, then their SHA-256; under a passphrase sealed chunk by chunk.

Plain: the content, then 32 bytes. Sealed: 16 random bytes, from which and the folder's key comes a key of
this file alone; then chunks of CHUNK_BYTES, each AES-256-GCM with its number as nonce; then the SHA-256,
sealed with a nonce that only the end has. A chunk that is missing, doubled, changed or in another place does
not open, nor does a file that ends too early; and the label, which goes into the key, keeps files from being
swapped.

All of it blocking.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ..durable import sync_folder

CHUNK_BYTES = 256 * 1024
DIGEST_BYTES = 32
SALT_BYTES = 16
TAG_BYTES = 16
KEY_BYTES = 32
_END = 1 << 95  # set in the nonce of the end alone


class Damaged(Exception):
    """A file of a backup is not as it was written: one line."""


@dataclass(frozen=True, slots=True)
class Written:
    """size_bytes, sha256: of the content, not of the file."""

    size_bytes: int
    sha256: str


class Writer:
    """A file that is there whole after `finish`, or not at all.  key: the folder's, None without passphrase.
    label: what the file is."""

    def __init__(self, path: Path, key: bytes | None, label: str) -> None:
        self._path = path
        self._draft = path.with_name(f"{path.name}.new")
        self._draft.unlink(missing_ok=True)  # of a run that was killed
        self._file: BinaryIO = os.fdopen(_private(self._draft), "wb")
        self._digest = hashlib.sha256()
        self.size_bytes = 0
        self._held = bytearray()
        self._number = 0
        self._seal: AESGCM | None = None
        if key is not None:
            salt = os.urandom(SALT_BYTES)
            self._file.write(salt)
            self._seal = _cipher(key, salt, label)

    @property
    def sha256(self) -> str:
        """Of what was written so far."""
        return self._digest.hexdigest()

    def write(self, content: bytes) -> None:
        self._digest.update(content)
        self.size_bytes += len(content)
        self._held += content
        while len(self._held) >= CHUNK_BYTES:
            self._put(bytes(self._held[:CHUNK_BYTES]))
            del self._held[:CHUNK_BYTES]

    def finish(self) -> Written:
        """It is on the disk, under its name, when this returns."""
        if self._held:
            self._put(bytes(self._held))
        end = self._digest.digest()
        if self._seal is not None:
            end = self._seal.encrypt(_nonce(self._number | _END), end, None)
        self._file.write(end)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._draft.replace(self._path)
        sync_folder(self._path.parent)
        return Written(self.size_bytes, self.sha256)

    def discard(self) -> None:
        """Leave nothing behind; after `finish`, leave it."""
        self._file.close()
        with suppress(OSError):
            self._draft.unlink(missing_ok=True)

    def _put(self, chunk: bytes) -> None:
        if self._seal is not None:
            chunk = self._seal.encrypt(_nonce(self._number), chunk, None)
        self._number += 1
        self._file.write(chunk)


def read(path: Path, key: bytes | None, label: str) -> Iterator[bytes]:
    """The content in chunks. What was read is as it was written only if this comes to its end; else it raises
    Damaged, which says where, or OSError."""
    with _opened(path) as file:
        size = _content_bytes(path, file, key)
        seal = _cipher(key, file.read(SALT_BYTES), label) if key is not None else None
        digest = hashlib.sha256()
        number, left = 0, size
        while left:
            length = min(CHUNK_BYTES, left)
            chunk = file.read(length + (TAG_BYTES if seal else 0))
            if seal is not None:
                chunk = _open(path, seal, number, chunk)
            if len(chunk) != length:
                raise Damaged(f"{path} ends too early")
            digest.update(chunk)
            yield chunk
            number, left = number + 1, left - length
        end = file.read(DIGEST_BYTES + TAG_BYTES)
        if seal is not None:
            end = _open(path, seal, number | _END, end)
        if end != digest.digest():
            raise Damaged(f"{path} is damaged: its content is not what its checksum says")


def told(path: Path, key: bytes | None, label: str) -> Written:
    """What the end of the file says of its content, which nobody has looked at. Raises Damaged, OSError."""
    with _opened(path) as file:
        size = _content_bytes(path, file, key)
        seal = _cipher(key, file.read(SALT_BYTES), label) if key is not None else None
        length = DIGEST_BYTES + (TAG_BYTES if seal else 0)
        file.seek(-length, os.SEEK_END)
        end = file.read(length)
        if seal is not None:
            end = _open(path, seal, -(-size // CHUNK_BYTES) | _END, end)
        return Written(size, end.hex())


def derived(key: bytes, label: str, salt: bytes | None = None) -> bytes:
    """A key for this one purpose."""
    return HKDF(SHA256(), KEY_BYTES, salt=salt, info=f"secureconnect-backup:{label}".encode()).derive(key)


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise Damaged(f"{path} is missing") from None


def _content_bytes(path: Path, file: BinaryIO, key: bytes | None) -> int:
    """How many the file holds, by its length."""
    size = os.fstat(file.fileno()).st_size - DIGEST_BYTES
    if key is not None:
        size -= SALT_BYTES + TAG_BYTES
        chunks, rest = divmod(size, CHUNK_BYTES + TAG_BYTES)
        if rest:
            if rest <= TAG_BYTES:
                raise Damaged(f"{path} ends too early")
            chunks += 1
        size -= chunks * TAG_BYTES
    if size < 0:
        raise Damaged(f"{path} ends too early")
    return size


def _cipher(key: bytes, salt: bytes, label: str) -> AESGCM:
    return AESGCM(derived(key, label, salt))


def _open(path: Path, seal: AESGCM, number: int, sealed: bytes) -> bytes:
    try:
        return seal.decrypt(_nonce(number), sealed, None)
    except (InvalidTag, ValueError):
        raise Damaged(f"{path} is damaged: it does not open at chunk {number & ~_END}") from None


def _nonce(number: int) -> bytes:
    return number.to_bytes(12, "big")


def _private(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
