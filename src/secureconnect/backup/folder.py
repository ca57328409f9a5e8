"""The folder that backups are kept in: its key, the objects they share, and which backups are whole.

    secureconnect-backup.json     what this folder is; under a passphrase also its key, sealed
    objects/ab/ab12…              files, each once, whichever backups have it
    2026-03-02T040000.000000Z/    a backup: manifest.json, written last, and its sheets

All of it blocking.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from ..durable import create_file, sync_folder
from .streams import KEY_BYTES, Damaged, derived

FORMAT = 1
ABOUT = "secureconnect-backup.json"
MANIFEST = "manifest.json"
LOCK = "lock"
OBJECTS = "objects"
NONCE_BYTES = 12
SALT_BYTES = 16
SHORTEST = 12  # characters of a passphrase
LONGEST = 1_024
# scrypt: a third of a second and 32 MB, as OWASP has it; what a file asks for beyond is refused
N, R, P = 2**15, 8, 3
MOST_WORK = 2**20 * 8 * 4

_NAME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{6}\.\d{6}Z")


class Refused(Exception):
    """Why a backup cannot be made, read or restored: one line for the person at the terminal."""


class _Lock(msgspec.Struct, frozen=True, kw_only=True):
    """How the passphrase opens the key of the folder."""

    salt: bytes
    n: int
    r: int
    p: int
    sealed: bytes


class _About(msgspec.Struct, frozen=True, kw_only=True):
    """passphrase: None where there is none."""

    secureconnect_backup: int
    passphrase: _Lock | None


@dataclass(frozen=True, slots=True)
class Folder:
    """key: of 32 bytes; None without passphrase."""

    root: Path
    key: bytes | None

    @classmethod
    def make(cls, root: Path, passphrase: bytes | None) -> Folder:
        """The one in `root`, made if there is nothing. Raises Refused, Damaged, OSError."""
        if not (root / ABOUT).exists():
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if any(not each.name.startswith(ABOUT) for each in root.iterdir()):  # drafts of it may be there
                raise Refused(f"{root} holds other things: name an empty folder, or one with backups")
            about = _About(secureconnect_backup=FORMAT, passphrase=_locked(passphrase))
            create_file(root / ABOUT, msgspec.json.encode(about) + b"\n")
        return cls.open(root, passphrase)

    @classmethod
    def open(cls, root: Path, passphrase: bytes | None) -> Folder:
        """Raises Refused, Damaged, OSError."""
        path = root / ABOUT
        try:
            about = msgspec.json.decode(path.read_bytes(), type=_About)
        except (FileNotFoundError, NotADirectoryError):
            raise Refused(f"there are no backups in {root}") from None
        except msgspec.DecodeError:
            raise Damaged(f"{path} is damaged: it cannot be read") from None
        if about.secureconnect_backup != FORMAT:
            raise Refused(f"{root} has backups of a newer program (format {about.secureconnect_backup})")
        if about.passphrase is None:
            if passphrase is not None:
                raise Refused(f"{root} was begun without a passphrase: name another folder")
            return cls(root, None)
        if passphrase is None:
            raise Refused(f"{root} is sealed with a passphrase: give --passphrase-file")
        return cls(root, _unlocked(path, about.passphrase, passphrase))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else writes here meanwhile. What a run that was killed has left is removed, and what this
        one does not finish. Raises Refused."""
        descriptor = os.open(self.root / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._lock(descriptor)
            self._drop_unfinished()
            try:
                yield
            finally:
                self._drop_unfinished()
        finally:
            os.close(descriptor)

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused(f"another backup is being made in {self.root}") from None

    def _drop_unfinished(self) -> None:
        for each in self._folders():
            if not (each / MANIFEST).exists():
                shutil.rmtree(each)

    def backups(self) -> list[Path]:
        """Those that are whole, the oldest first."""
        return [each for each in self._folders() if (each / MANIFEST).exists()]

    def newest(self) -> Path:
        if not (found := self.backups()):
            raise Refused(f"there is no whole backup in {self.root}")
        return found[-1]

    def begin(self, name: str) -> Path:
        """The folder of a new backup."""
        path = self.root / name
        path.mkdir(mode=0o700)
        sync_folder(self.root)
        return path

    def drop(self, backup: Path) -> None:
        """Its manifest first: what is left is none."""
        (backup / MANIFEST).unlink()
        sync_folder(backup)
        shutil.rmtree(backup)
        sync_folder(self.root)

    def name_of(self, key: str) -> str:
        """Under which an object lies here: 64 hexadecimal digits, that tell nobody its key."""
        if self.key is None:
            return hashlib.sha256(key.encode()).hexdigest()
        return hmac.digest(derived(self.key, "names"), key.encode(), "sha256").hex()

    def object(self, name: str) -> Path:
        return self.root / OBJECTS / name[:2] / name

    def _folders(self) -> list[Path]:
        return sorted(each for each in self.root.iterdir() if _NAME.fullmatch(each.name))


def choose(source: Path, passphrase: bytes | None) -> tuple[Folder, Path]:
    """A folder and its newest backup, or the one that `source` itself is. Raises as `Folder.open`."""
    if _NAME.fullmatch(source.absolute().name) and (source.absolute().parent / ABOUT).exists():
        folder = Folder.open(source.absolute().parent, passphrase)
        if not (source / MANIFEST).exists():
            raise Refused(f"{source} is no whole backup: it was never finished")
        return folder, source.absolute()
    folder = Folder.open(source, passphrase)
    return folder, folder.newest()


def read_passphrase(path: Path) -> bytes:
    """The first line of a file that nobody else can read. Raises Refused."""
    try:
        mode, text = path.stat().st_mode & 0o777, path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise Refused(f"the passphrase in {path} cannot be read: {exc}") from None
    if mode & 0o077:
        raise Refused(f"{path} has mode {mode:04o} and is open to others: chmod 600 it")
    line = (text.splitlines() or [""])[0].strip()
    if not SHORTEST <= len(line) <= LONGEST:
        raise Refused(f"the passphrase in {path} must have {SHORTEST} to {LONGEST} characters")
    return line.encode()


def _locked(passphrase: bytes | None) -> _Lock | None:
    """A fresh key under the passphrase."""
    if passphrase is None:
        return None
    salt, nonce = os.urandom(SALT_BYTES), os.urandom(NONCE_BYTES)
    wrapping = Scrypt(salt, KEY_BYTES, N, R, P).derive(passphrase)
    sealed = nonce + AESGCM(wrapping).encrypt(nonce, os.urandom(KEY_BYTES), ABOUT.encode())
    return _Lock(salt=salt, n=N, r=R, p=P, sealed=sealed)


def _unlocked(path: Path, lock: _Lock, passphrase: bytes) -> bytes:
    nonce, sealed = lock.sealed[:NONCE_BYTES], lock.sealed[NONCE_BYTES:]
    if not 0 < lock.n * lock.r * lock.p <= MOST_WORK:
        raise Damaged(f"{path} is damaged: it asks for too much work")
    try:
        wrapping = Scrypt(lock.salt, KEY_BYTES, lock.n, lock.r, lock.p).derive(passphrase)
        return AESGCM(wrapping).decrypt(nonce, sealed, ABOUT.encode())
    except (InvalidTag, ValueError):
        raise Refused("this is not the passphrase of these backups") from None
