"""Where recordings are kept: what this room needs of its neighbour."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ...deps.contracts import Tx
from ...errors import Unavailable
from ...identity import FileId, UserId


class Shelf(Protocol):
    """Files that grow by parts, counted in their owner's quota from the first byte."""

    async def open(
        self, tx: Tx, owner: UserId, file_name: str, content_type: str, *, is_encrypted: bool, hours: int
    ) -> tuple[FileId, str]:
        """A file, and the place of its parts.  hours: after which it is given up. Raises QuotaExceeded,
        TooManyUploads."""
        ...

    async def resize(self, tx: Tx, file_id: FileId, size_bytes: int) -> None:
        """It has so many bytes now. Raises QuotaExceeded; UploadOver for what was given up or deleted."""
        ...

    async def put_part(self, place: str, number: int, content: bytes) -> None:
        """Durable once it returns, and safe to repeat. Raises Unavailable."""
        ...

    async def finish(self, file_id: FileId, numbers: Sequence[int]) -> bool:
        """Make the file of these parts; safe to repeat. False: it was given up or deleted. Raises NotFound
        and UploadMismatch when the parts are not what they were."""
        ...

    async def discard(self, tx: Tx, file_id: FileId) -> None:
        """Idempotent."""
        ...

    async def drop_parts(self, place: str, numbers: Sequence[int]) -> None:
        """Idempotent."""
        ...

    async def is_there(self, tx: Tx, file_id: FileId) -> bool: ...

    async def address(self, caller: UserId, file_id: FileId, client: str) -> tuple[str, int]:
        """Where its content is to be had, and for how many seconds.  client: whose network address is
        audited."""
        ...


FindShelf = Callable[[], Shelf]
"""Raises Unavailable while the neighbour restarts."""


def no_shelf() -> Shelf:
    raise Unavailable
