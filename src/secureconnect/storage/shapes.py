"""The JSON shape of a file (API.md), and how it is made from a row."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Struct

from ..clock import to_iso
from .store import File


class FileShape(Struct, frozen=True):
    """checksum_sha256: as announced, and once completed as verified; null if it is not known."""

    file_id: str
    file_name: str
    file_size: int
    content_type: str
    status: Literal["uploading", "verifying", "completed", "deleted", "failed"]
    is_encrypted: bool
    encryption_metadata: dict[str, Any] | None
    checksum_sha256: str | None
    owner_id: str
    created_at: str


def file_shape(file: File) -> FileShape:
    return FileShape(
        file.file_id,
        file.file_name,
        file.file_size,
        file.content_type,
        file.status,
        file.is_encrypted,
        None if file.encryption_metadata is None else msgspec.json.decode(file.encryption_metadata),
        file.checksum_sha256,
        file.owner_id,
        to_iso(file.created_us),
    )


class FileUpdated(Struct, tag_field="type", tag="file_updated"):
    """What sockets are told."""

    file: FileShape


_encode = msgspec.json.Encoder().encode


def file_updated(file: File) -> bytes:
    return _encode(FileUpdated(file_shape(file)))
