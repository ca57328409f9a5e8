"""What is asked of one bucket, in the driver's words: runs on the asyncio side, each method in one crossing.

Of the driver's methods those with an underscore are used where its public ones read files, keep an iterator
open over several calls, or start uploads that they clean up after an error but not after a cancellation.
"""

from __future__ import annotations

import hashlib
import hmac
import io
from datetime import datetime
from typing import Any, BinaryIO

import msgspec
import trio
from miniopy_async.api import Minio
from miniopy_async.commonconfig import REPLACE, CopySource
from miniopy_async.credentials.credentials import Credentials
from miniopy_async.datatypes import Part
from miniopy_async.error import S3Error
from miniopy_async.helpers import DictType
from miniopy_async.time import to_amz_date, utcnow

from .. import clock
from .contracts import StoredObject, UploadedPart

PAGE = 1_000
SHA256 = "x-amz-meta-sha256"
INCOMING = "=incoming/"  # names of what is no object yet
MADE_BEFORE = ("BucketAlreadyOwnedByYou", "BucketAlreadyExists")
CONTENT_TYPE = "application/octet-stream"  # of everything: what people call a file's type stands elsewhere


class Silence:
    """Ends a call that moves no byte.  limit_s: how long it may."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self.scope = trio.CancelScope()
        self.heard()

    def heard(self) -> None:
        """A byte has moved. Called on the asyncio side, which has our thread."""
        self._since = trio.current_time()
        self.scope.deadline = self._since + self._limit_s

    def cut_to(self, limit_s: float) -> None:
        """This one silence may last no longer than that."""
        self.scope.deadline = min(self.scope.deadline, self._since + limit_s)


class Body(io.BytesIO):
    """What is sent. Reading it means that what was read before is on its way. It is emptied when it was sent:
    the driver's answers refer to their requests in a circle, and would keep parts until the next collection.

    Make it in a thread: it hashes, which the driver would do in its own time for each call.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.size = len(content)
        self.sha256 = hashlib.sha256(content).hexdigest()
        self._silence: Silence | None = None

    def sent_by(self, silence: Silence) -> Body:
        self._silence = silence
        return self

    def read(self, size: int | None = -1, /) -> bytes:
        if self._silence is not None:
            self._silence.heard()
        return super().read(size)


class Found(msgspec.Struct, frozen=True):
    """An object as the store sees it."""

    etag: str
    size_bytes: int
    sha256: str
    modified_us: int

    def of(self, key: str) -> StoredObject:
        return StoredObject(key, self.size_bytes, self.sha256, self.modified_us, self.version)

    @property
    def version(self) -> str:
        """The checksum where there is one, as that stays the same when an object moves here from a spool."""
        return self.sha256 or self.etag


class Piece(msgspec.Struct, frozen=True):
    """Bytes of an object.  total: its size."""

    content: bytes
    total: int
    etag: str


class Client(Minio):
    """The driver, which signs every body with its checksum, over TLS too; it knows a `Body`'s and needs no
    thread for it."""

    async def _build_headers(
        self,
        host: str,
        headers: Any,
        body: bytes | BinaryIO | None,
        creds: Credentials | None,  # noqa: ARG002
    ) -> tuple[dict[str, str], datetime]:
        made, date = dict(headers or {}), utcnow()
        if isinstance(body, Body):
            size, sha256 = body.size, body.sha256
        else:
            assert body is None or isinstance(body, bytes)
            size, sha256 = len(body or b""), hashlib.sha256(body or b"").hexdigest()
        if body is not None:
            made["Content-Length"] = str(size)
        made |= {
            "Host": host,
            "User-Agent": self._user_agent,
            "x-amz-content-sha256": sha256,
            "x-amz-date": to_amz_date(date),
        }
        return made, date


class Bucket:
    """secret: nobody's who may put into the store."""

    def __init__(self, client: Minio, name: str, secret: str) -> None:
        self._client = client
        self._bucket = name
        self._seal = hmac.digest(secret.encode(), b"checksums of objects", "sha256")

    async def make(self, silence: Silence) -> None:
        """Unless it is there."""
        if await self._client.bucket_exists(self._bucket):
            return
        silence.heard()
        try:
            await self._client.make_bucket(self._bucket)
        except S3Error as exc:
            if exc.code not in MADE_BEFORE:
                raise

    async def put(self, silence: Silence, name: str, body: Body) -> Found:
        headers: DictType = {SHA256: self._sealed(name, body.sha256), "Content-Type": CONTENT_TYPE}
        with body.sent_by(silence):
            result = await self._client._put_object(self._bucket, name, body, headers)
        silence.heard()
        etag = _told(result.etag)
        found = await self.stat(silence, name)
        if found.sha256 == body.sha256:
            return found
        # another put has come since: ours was whole all the same
        return Found(etag, body.size, body.sha256, clock.now_us())

    async def stat(self, silence: Silence, name: str) -> Found:
        seen = await self._client.stat_object(self._bucket, name)
        silence.heard()
        headers = {header.lower(): value for header, value in dict(seen.metadata or {}).items()}
        sha256 = self._unsealed(name, headers.get(SHA256, ""))
        return Found(_told(seen.etag), seen.size or 0, sha256, _us(seen.last_modified))

    async def range(self, silence: Silence, name: str, start: int, length: int, etag: str | None) -> Piece:
        headers: DictType = {"If-Match": f'"{etag}"'} if etag else {}
        response = await self._client.get_object(self._bucket, name, start, length, request_headers=headers)
        async with response:
            content = bytearray()
            async for chunk in response.content.iter_any():
                silence.heard()
                content += chunk
                if len(content) > length:
                    raise ValueError("more than was asked for")
            if response.status == 206:
                total = int(response.headers.get("Content-Range", "").rpartition("/")[2])
            elif start == 0:
                total = len(content)
            else:
                raise ValueError("not the range that was asked for")
            return Piece(bytes(content), total, _told(response.headers.get("ETag")).strip('"'))

    async def copy(self, silence: Silence, old: str, new: str, etag: str, sha256: str) -> Found:
        source = CopySource(self._bucket, old, match_etag=etag)
        metadata: DictType = {"Content-Type": CONTENT_TYPE}
        if sha256:
            metadata[SHA256] = self._sealed(new, sha256)
        await self._client.copy_object(
            self._bucket, new, source, metadata=metadata, metadata_directive=REPLACE
        )
        silence.heard()
        return await self.stat(silence, new)

    async def delete(self, _: Silence, name: str) -> None:
        await self._client.remove_object(self._bucket, name)

    def _sealed(self, name: str, sha256: str) -> str:
        """As it stands beside the object. Whoever sends one to a signed address may say of it what he likes:
        what we have said is known by this."""
        return f"{sha256}.{hmac.digest(self._seal, f'{name} {sha256}'.encode(), 'sha256').hex()}"

    def _unsealed(self, name: str, sealed: str) -> str:
        """Empty if it is not ours."""
        sha256 = sealed.partition(".")[0]
        return sha256 if hmac.compare_digest(sealed.encode(), self._sealed(name, sha256).encode()) else ""

    async def page(self, silence: Silence, prefix: str, after: str | None) -> list[tuple[str, int]]:
        """Name and last change, in microseconds, of the first `PAGE` whose names begin with `prefix` and come
        after `after`."""
        objects = self._client._list_objects(
            self._bucket, encoding_type="url", max_keys=PAGE, prefix=prefix, start_after=after
        )
        page: list[tuple[str, int]] = []
        try:
            async for each in objects:
                silence.heard()
                page.append((each.object_name or "", _us(each.last_modified)))
                if len(page) == PAGE:
                    break
        finally:
            await objects.aclose()
        return page

    async def begin(self, _: Silence, name: str) -> str:
        return await self._client._create_multipart_upload(self._bucket, name, {"Content-Type": CONTENT_TYPE})

    async def put_part(self, silence: Silence, name: str, upload_id: str, number: int, body: Body) -> Part:
        with body.sent_by(silence):
            etag = await self._client._upload_part(self._bucket, name, body, None, upload_id, number)
        return Part(number, etag)

    async def parts(self, _: Silence, name: str, upload_id: str, after: int) -> list[UploadedPart]:
        page = await self._client._list_parts(
            self._bucket, name, upload_id, max_parts=PAGE, part_number_marker=str(after) if after else None
        )
        return [UploadedPart(part.part_number, part.etag, part.size or 0) for part in page.parts]

    async def finish(self, _: Silence, name: str, upload_id: str, parts: list[Part]) -> None:
        result = await self._client._complete_multipart_upload(self._bucket, name, upload_id, parts)
        _told(result.etag)  # there is none after a failure that came after the 200 of the answer's first line

    async def abort(self, _: Silence, name: str, upload_id: str) -> None:
        await self._client._abort_multipart_upload(self._bucket, name, upload_id)

    async def unfinished(self, silence: Silence, before_us: int) -> tuple[list[str], list[tuple[str, str]]]:
        """Names of temporary objects, and uploads in parts, that began before then."""
        objects = [name for name, made_us in await self.page(silence, INCOMING, None) if made_us < before_us]
        result = await self._client._list_multipart_uploads(self._bucket, max_uploads=PAGE)
        uploads = [
            (each.object_name, each.upload_id)
            for each in result.uploads
            if each.upload_id and _us(each.initiated_time) < before_us
        ]
        return objects, uploads


def _told(etag: str | None) -> str:
    """What every S3 server says of an object it has; who says yes without it has none."""
    if not etag:
        raise ValueError("an answer without an ETag")
    return etag


def _us(moment: datetime | None) -> int:
    return int(moment.timestamp()) * clock.SECOND_US if moment else 0
