"""Files that come in parts: where each part goes, which are there, and one file made of them.

They go straight into the store, which puts them together; or, into the folder and a spool, through this room
into a draft at the incoming key. The address of a part of the store leads to nothing once the upload has
ended, so it is begun at the key where the file is kept, and nothing is copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import aclosing

import msgspec

from ..clock import SECOND_US
from ..config import StorageConfig
from ..deps.contracts import Database, Division, Drafts, Objects, Presigner, StoredObject, UploadedPart
from ..errors import FileOnAwayNode, NotFound, UploadMismatch, UploadMissing
from ..identity import NodeId
from .addresses import Addresses, Grant
from .arriving import Read, exactly
from .store import File

MB = 1024 * 1024
MOST_PARTS = 10_000


class PartAddress(msgspec.Struct, frozen=True):
    number: int
    url: str


class Parts:
    """presigner: None where files lie in a folder."""

    def __init__(
        self,
        config: StorageConfig,
        db: Database,
        objects: Objects,
        drafts: Drafts,
        presigner: Presigner | None,
        addresses: Addresses,
        node_id: NodeId,
    ) -> None:
        self._config = config
        self._db = db
        self._objects = objects
        self._drafts = drafts
        self._presigner = presigner
        self._addresses = addresses
        self._node_id = node_id

    def size_for(self, file_size: int) -> int | None:
        """Of the parts of a file that is announced now. None: it comes whole."""
        part_size = self._config.part_mb * MB
        if file_size <= part_size:
            return None
        return max(part_size, -(-file_size // (MOST_PARTS * MB)) * MB)

    async def begin(self, file: File) -> str | None:
        """The store's id of the upload; None where the parts come through here."""
        if self._presigner is None or file.node_id is not None:
            return None
        return await self._presigner.begin_parts(file.key)

    # sending

    def addresses(self, file: File, numbers: Iterable[int]) -> list[PartAddress]:
        """Good for `upload_url_s`."""
        return [PartAddress(number, self._address(file, number)) for number in numbers]

    def _address(self, file: File, number: int) -> str:
        size_bytes, expires_s = division_of(file).length(number), self._config.upload_url_s
        if self._presigner is not None and file.upload_id is not None:
            return self._presigner.part_url(file.key, file.upload_id, number, size_bytes, expires_s)
        expires_us = self._db.now_us() + expires_s * SECOND_US
        grant = Grant("PUT", file.file_id, size_bytes, expires_us, file.owner_id, number)
        return self._addresses.of(grant, file.node_id)

    async def receive(self, file: File, grant: Grant, read: Read) -> UploadedPart:
        """Take in one part.  file: one whose content may arrive here."""
        division = division_of(file)
        if grant.part > division.count or grant.size_bytes != division.length(grant.part):
            raise NotFound
        async with aclosing(exactly(read, grant.size_bytes, "part")) as chunks:
            return await self._drafts.put_part(file.incoming_key, division, grant.part, chunks)

    async def done(self, file: File) -> Sequence[UploadedPart]:
        """Those that have arrived, by number. Raises FileOnAwayNode where they arrive elsewhere, NotFound
        when the store knows of no such upload any more."""
        division = division_of(file)
        if self._presigner is not None and file.upload_id is not None:
            return _fitting(division, await self._presigner.list_parts(file.key, file.upload_id))
        if file.node_id not in (None, self._node_id):
            raise FileOnAwayNode
        return await self._drafts.parts(file.incoming_key, division)

    async def missing(self, file: File, said: Sequence[tuple[int, str]]) -> list[int]:
        """Parts that have not arrived, or not as somebody says they have.  said: (number, ETag)."""
        return missing_of(division_of(file), await self.done(file), said)

    # the end

    async def finish(self, file: File) -> StoredObject:
        """The file at its key. Safe to repeat, and to cancel. Raises UploadMissing while a part is, Conflict
        when one has come meanwhile, UploadMismatch when there is nothing any more to make it of."""
        try:
            if file.upload_id is not None and self._presigner is not None:
                return await self._finish_stored(self._presigner, file, file.upload_id)
            return await self._drafts.finish_draft(file.incoming_key, division_of(file), file.key)
        except NotFound:
            return await self._finished_before(file)

    async def _finish_stored(self, presigner: Presigner, file: File, upload_id: str) -> StoredObject:
        division = division_of(file)
        parts = _fitting(division, await presigner.list_parts(file.key, upload_id))
        if missing_of(division, parts):
            raise UploadMissing
        return await presigner.finish_parts(file.key, upload_id, parts)

    async def _finished_before(self, file: File) -> StoredObject:
        """By an attempt that did not live to tell."""
        try:
            return await self._objects.stat(file.key)
        except NotFound:
            if file.upload_id is None:
                raise UploadMissing from None
            raise UploadMismatch from None

    async def abandon(self, file: File) -> None:
        """What has arrived is removed. Idempotent."""
        if self._presigner is not None and file.upload_id is not None:
            await self._presigner.abandon_parts(file.key, file.upload_id)
        else:
            await self._drafts.abandon_draft(file.incoming_key)


def division_of(file: File) -> Division:
    assert file.part_size is not None, "it comes whole"
    return Division(file.file_size, file.part_size)


def _fitting(division: Division, parts: Sequence[UploadedPart]) -> list[UploadedPart]:
    """Without those of another size than they should have: the store takes what comes."""
    return [
        part
        for part in parts
        if part.number <= division.count and part.size_bytes == division.length(part.number)
    ]


def missing_of(
    division: Division, done: Sequence[UploadedPart], said: Sequence[tuple[int, str]] = ()
) -> list[int]:
    # some stores tell of what was replaced, too, and take the newest
    there = {(part.number, part.etag.strip('"')) for part in done}
    differ = {number for number, etag in said if (number, etag.strip('"')) not in there}
    numbers = {number for number, _ in there} - differ
    return [number for number in range(1, division.count + 1) if number not in numbers]
