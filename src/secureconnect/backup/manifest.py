"""What a backup says of itself: one JSON document, written last, whole or not at all."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ..durable import replace_file
from .folder import FORMAT, MANIFEST, NONCE_BYTES, Refused
from .streams import Damaged, derived


class Sheet(msgspec.Struct, frozen=True):
    """A file of rows.  size_bytes, sha256: of its content."""

    rows: int
    size_bytes: int
    sha256: str


class Table(msgspec.Struct, frozen=True):
    columns: list[str]
    sheet: Sheet


class Head(msgspec.Struct, frozen=True):
    """The end of the audit chain."""

    count: int
    seal: str


class Files(msgspec.Struct, frozen=True):
    """sheet: one row for each: key, size, SHA-256, name in `objects/`.  size_bytes: of all of them.  copied,
    copied_bytes: those that were not there yet.  absent: one row for each that was not to be had: key, id of
    the file or null, and whether it is `gone`, deleted while the backup was made, or `lost`: then the store
    has not what it should have."""

    sheet: Sheet
    size_bytes: int
    copied: int
    copied_bytes: int
    absent: Sheet
    gone: int
    lost: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """at_us: what was acknowledged until then is in it.  database, objects: where it was taken from; no
    objects: it is of the tables alone, and their files stay where they are.
    migrations: number and name of each in the schema.  master_key_id: of the key that opens its secrets.
    master_key: that key; None unless all is under a passphrase."""

    backup_id: str
    program: str
    at_us: int
    database: str
    objects: str
    migrations: list[tuple[int, str]]
    history_id: str
    server_name: str
    master_key_id: str
    audit: Head
    tables: dict[str, Table]
    files: Files
    master_key: str | None = None

    @property
    def has_files(self) -> bool:
        return bool(self.objects)

    @property
    def rows(self) -> int:
        return sum(each.sheet.rows for each in self.tables.values())


class _Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """sha256: of `manifest` as it stands here.  sealed: the same under the key of the folder."""

    secureconnect_backup: int
    manifest: msgspec.Raw = msgspec.Raw(b"null")
    sha256: str | None = None
    sealed: bytes | None = None


def write(backup: Path, key: bytes | None, manifest: Manifest) -> None:
    """From now on it is a backup."""
    body = msgspec.json.encode(manifest)
    if key is None:
        envelope = _Envelope(
            secureconnect_backup=FORMAT,
            manifest=msgspec.Raw(body),
            sha256=hashlib.sha256(body).hexdigest(),
        )
    else:
        nonce = os.urandom(NONCE_BYTES)
        sealed = nonce + _cipher(key, backup).encrypt(nonce, body, None)
        envelope = _Envelope(secureconnect_backup=FORMAT, sealed=sealed)
    replace_file(backup / MANIFEST, msgspec.json.encode(envelope) + b"\n")


def read(backup: Path, key: bytes | None) -> Manifest:
    """Raises Damaged, Refused, OSError."""
    path = backup / MANIFEST
    damaged = Damaged(f"{path} is damaged: it is not what was written")
    try:
        envelope = msgspec.json.decode(path.read_bytes(), type=_Envelope)
        if envelope.secureconnect_backup != FORMAT:
            raise Refused(f"{path} is of a newer program (format {envelope.secureconnect_backup})")
        if key is not None:
            if envelope.sealed is None:
                raise damaged
            nonce, sealed = envelope.sealed[:NONCE_BYTES], envelope.sealed[NONCE_BYTES:]
            body = _cipher(key, backup).decrypt(nonce, sealed, None)
        else:
            body = bytes(envelope.manifest)
            if hashlib.sha256(body).hexdigest() != envelope.sha256:
                raise damaged
        return msgspec.json.decode(body, type=Manifest)
    except FileNotFoundError:
        raise Refused(f"{backup} is no whole backup: it was never finished") from None
    except (msgspec.DecodeError, InvalidTag, ValueError):
        raise damaged from None


def _cipher(key: bytes, backup: Path) -> AESGCM:
    """With its name in the key: one manifest is not taken for another's."""
    return AESGCM(derived(key, f"manifest {backup.name}"))
