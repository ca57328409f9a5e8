"""What HTTP sees of this room: bodies, answers, and the table of routes."""

from __future__ import annotations

import re
from email.utils import formatdate
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from .. import edge
from ..clock import SECOND_US
from ..edge import Audience, Call, Rate, Reply, Route
from ..errors import (
    AddressExpired,
    Conflict,
    DiskFull,
    E2eeRequired,
    FileOnAwayNode,
    FileTooLarge,
    Invalid,
    NotFound,
    QuotaExceeded,
    RangeNotSatisfiable,
    TooManyUploads,
    UploadArrived,
    UploadMismatch,
    UploadMissing,
    UploadOver,
)
from ..idempotency import attempt_of
from ..identity import ConversationId, FileId, is_id
from .files import SENT
from .parts import MB, MOST_PARTS
from .room import Storage
from .serving import ANYTHING, disposition
from .shapes import FileShape, file_shape
from .sharing.sharing import NAMELESS
from .store import File
from .uploads import Announcement, Progress

MOST_BYTES = 1_024 * MB  # of a body, whatever storage.max_file_mb says

# documented here and judged by the rule, which lets nothing through that would break a header
NAME = "^[^\\u0000-\\u001f\\u007f]+$"
CONTENT_TYPE = "^[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+(; ?[A-Za-z0-9-]+=[A-Za-z0-9_.+-]+)*$"
_NAME, _CONTENT_TYPE = re.compile(NAME), re.compile(CONTENT_TYPE)

Id = Annotated[
    str,
    Meta(
        pattern="^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
        min_length=36,
        max_length=36,
    ),
]
FileName = Annotated[str, Meta(min_length=1, max_length=255, extra_json_schema={"pattern": NAME})]
ContentType = Annotated[str, Meta(min_length=3, max_length=200, extra_json_schema={"pattern": CONTENT_TYPE})]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$", min_length=64, max_length=64)]
Size = Annotated[int, Meta(ge=0, le=2**63 - 1)]
MetadataKey = Annotated[str, Meta(min_length=1, max_length=64)]
MetadataText = Annotated[str, Meta(max_length=1_024)]
MetadataNumber = Annotated[int, Meta(ge=-(2**53), le=2**53)]
EncryptionMetadata = Annotated[dict[MetadataKey, MetadataText | MetadataNumber | bool], Meta(max_length=32)]


class NewUpload(Struct, frozen=True):
    """file_name: may be left out where the file is encrypted; in encrypted conversations it is, or it is
    "encrypted".  encryption_metadata: what whoever decrypts the file needs beside the key; kept as it is.
    conversation_id: whose members may read it once it is complete."""

    file_size: Size
    content_type: ContentType
    file_name: FileName | UnsetType = UNSET
    is_encrypted: bool = False
    encryption_metadata: EncryptionMetadata | None = None
    checksum_sha256: Sha256 | None = None
    conversation_id: Id | None = None


class PartToSend(Struct, frozen=True):
    """Its content is to be sent to `upload_url`, without a token."""

    number: int
    upload_url: str


class PartSent(Struct, frozen=True):
    """etag: as the answer to its PUT gave it."""

    number: Annotated[int, Meta(ge=1, le=MOST_PARTS)]
    etag: Annotated[str, Meta(min_length=1, max_length=200)]


class Upload(Struct, frozen=True):
    """The content is to be sent to `upload_url`, without a token. If that is null, in parts of `part_size`
    bytes, the last one of what is left: `parts` tells where the next ones that are missing are to be sent,
    `parts_done` which have arrived.  expires_in: whole seconds in which sending must begin."""

    file_id: str
    upload_url: str | None
    part_size: int | None
    parts: list[PartToSend] | None
    parts_done: list[PartSent] | None
    method: Literal["PUT"]
    expires_in: int
    file: FileShape


class Uploaded(Struct, frozen=True):
    """parts: what the sender knows of them; each is compared with what has arrived."""

    file_id: Id
    parts: Annotated[list[PartSent], Meta(max_length=MOST_PARTS)] | None = None


class Wanted(Struct, frozen=True):
    """after: parts up to this number are left out.  number: of the only part wanted, to send it again."""

    after: Annotated[int, Meta(ge=0, le=MOST_PARTS)] = 0
    number: Annotated[int, Meta(ge=1, le=MOST_PARTS)] | None = None


class Download(Struct, frozen=True):
    """expires_in: whole seconds for which `download_url` is good, without a token."""

    file_id: str
    download_url: str
    expires_in: int


class Page(Struct, frozen=True):
    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    cursor: Annotated[str, Meta(max_length=200)] | None = None


class FilePage(Page, frozen=True):
    """conversation_id: those shared there that the caller may read; without it those of the caller."""

    conversation_id: Id | None = None


class FileList(Struct, frozen=True):
    files: list[FileShape]
    next_cursor: str | None


class QuotaShape(Struct, frozen=True):
    """What is being uploaded counts: it is `reserved_bytes`.  file_bytes: of one file at most."""

    quota_bytes: int
    used_bytes: int
    reserved_bytes: int
    available_bytes: int
    file_bytes: int
    max_files: int
    max_unfinished: int


async def begin_upload(room: Storage, call: Call) -> Reply:
    progress = await room.uploads.begin(
        call.caller.user_id, _announced(call.body), call.address, attempt_of(call)
    )
    return _upload(room, progress)


async def get_upload(room: Storage, call: Call) -> Reply:
    wanted: Wanted = call.query
    file_id = FileId(call.path["file_id"])
    progress = await room.uploads.progress(call.caller.user_id, file_id, wanted.after, wanted.number)
    return _upload(room, progress)


def _upload(room: Storage, progress: Progress) -> Reply:
    file, is_whole = progress.file, progress.file.part_size is None
    return Reply(
        Upload(
            file.file_id,
            progress.url,
            file.part_size,
            None if is_whole else [PartToSend(part.number, part.url) for part in progress.parts],
            None if is_whole else [PartSent(part.number, part.etag) for part in progress.done],
            "PUT",
            room.config.upload_url_s,
            file_shape(file),
        )
    )


async def complete_upload(room: Storage, call: Call) -> Reply:
    asked: Uploaded = call.body
    said = [(part.number, part.etag) for part in asked.parts or ()]
    file = await room.uploads.complete(call.caller.user_id, FileId(asked.file_id), call.address, said)
    return Reply(file_shape(file), status=200 if file.status == "completed" else 202)


async def get_download_url(room: Storage, call: Call) -> Reply:
    file_id = FileId(call.path["file_id"])
    url = await room.files.address(call.caller.user_id, file_id, call.address)
    return Reply(Download(file_id, url, room.config.download_url_s))


async def list_files(room: Storage, call: Call) -> Reply:
    page: FilePage = call.query
    if page.cursor is not None and not is_id(page.cursor):
        raise Invalid("This cursor was not given by this list.", details={"field": "cursor"})
    caller = call.caller.user_id
    if page.conversation_id is None:
        found = await room.files.list_of(caller, page.cursor, page.limit)
    else:
        place = ConversationId(page.conversation_id)
        found = await room.files.list_shared(caller, place, page.cursor, page.limit)
    shown = found[: page.limit]
    following = shown[-1].file_id if len(found) > len(shown) else None
    return Reply(FileList([file_shape(each) for each in shown], following))


async def get_file(room: Storage, call: Call) -> Reply:
    file_id = FileId(call.path["file_id"])
    return Reply(file_shape(await room.files.visible(call.caller.user_id, file_id)))


async def delete_file(room: Storage, call: Call) -> Reply:
    file = await room.delete(call.caller.user_id, FileId(call.path["file_id"]), call.address)
    return Reply(file_shape(file))


async def get_quota(room: Storage, call: Call) -> Reply:
    config, quota = room.config, await room.files.quota(call.caller.user_id)
    whole = config.quota_mb * MB
    available = max(0, whole - quota.used_bytes - quota.reserved_bytes)
    return Reply(
        QuotaShape(
            quota_bytes=whole,
            used_bytes=quota.used_bytes,
            reserved_bytes=quota.reserved_bytes,
            available_bytes=available,
            file_bytes=config.max_file_mb * MB,
            max_files=config.max_files,
            max_unfinished=config.max_unfinished,
        )
    )


async def put_content(room: Storage, call: Call) -> Reply:
    assert call.read is not None
    part = await room.uploads.receive(call.path["token"], call.read, call.length)
    return Reply(status=204, headers={} if part is None else {"etag": f'"{part.etag}"'})


async def get_content(room: Storage, call: Call) -> Reply:
    content = await room.files.content(call.path["token"], call.address)
    if content.elsewhere is not None:
        return Reply(status=307, headers={"location": content.elsewhere}, body=b"")
    assert content.path is not None
    body = edge.File(content.path, content.file.file_size, sent=SENT.inc)
    return Reply(headers=_headers(content.file), body=body)


def _headers(file: File) -> dict[str, str]:
    """Whatever it is, a browser saves it, and shows or runs nothing of it on our origin. Under its id content
    never changes."""
    return {
        "content-type": file.media_type or ANYTHING,
        "content-disposition": disposition(file.file_name),
        "content-security-policy": "sandbox; default-src 'none'; frame-ancestors 'none'",
        "etag": f'"{file.file_id}"',
        "last-modified": formatdate(file.created_us // SECOND_US, usegmt=True),
    }


def _announced(asked: NewUpload) -> Announcement:
    if asked.file_name is UNSET and not asked.is_encrypted:
        raise Invalid("A file has a name.", details={"field": "file_name"})
    file_name = NAMELESS if asked.file_name is UNSET else asked.file_name
    if not _NAME.fullmatch(file_name):
        raise Invalid("A file's name has no control characters.", details={"field": "file_name"})
    if not _CONTENT_TYPE.fullmatch(asked.content_type):
        raise Invalid("A content type is like image/png.", details={"field": "content_type"})
    metadata = asked.encryption_metadata
    return Announcement(
        file_name,
        asked.file_size,
        asked.content_type,
        asked.is_encrypted,
        None if metadata is None else msgspec.json.encode(metadata).decode(),
        asked.checksum_sha256,
        ConversationId(asked.conversation_id) if asked.conversation_id else None,
    )


_STORAGE = "/v1/storage"
_FILE = f"{_STORAGE}/files/{{file_id}}"
_OBJECT = f"{_STORAGE}/objects/{{token}}"
_SPOOLED = f"{_STORAGE}/spool/{{node_id}}/{{token}}"
_PUT_ERRORS = (
    AddressExpired,
    Conflict,
    DiskFull,
    FileOnAwayNode,
    UploadArrived,
    UploadMismatch,
    UploadMissing,
    UploadOver,
)
_GET_ERRORS = (AddressExpired, FileOnAwayNode, RangeNotSatisfiable)

ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        f"{_STORAGE}/upload-url",
        begin_upload,
        Audience.USER,
        Rate.WRITE,
        "Announce a file, and learn where its content is to be sent",
        body=NewUpload,
        answer=Upload,
        errors=(
            DiskFull,
            E2eeRequired,
            FileTooLarge,
            NotFound,
            QuotaExceeded,
            TooManyUploads,
            UploadArrived,
            UploadOver,
        ),
        repeats=True,
    ),
    Route(
        "POST",
        f"{_STORAGE}/upload-complete",
        complete_upload,
        Audience.OWNER,
        Rate.WRITE,
        "Say that the content was sent; it is verified",
        body=Uploaded,
        answer=FileShape,
        also=(202,),
        errors=(Conflict, DiskFull, NotFound, UploadMismatch, UploadMissing, UploadOver),
    ),
    Route(
        "GET",
        f"{_STORAGE}/uploads/{{file_id}}",
        get_upload,
        Audience.OWNER,
        Rate.READ,
        "How far an upload is, and where to send what is missing",
        query=Wanted,
        answer=Upload,
        errors=(FileOnAwayNode, UploadArrived, UploadOver),
    ),
    Route(
        "GET",
        f"{_STORAGE}/download-url/{{file_id}}",
        get_download_url,
        Audience.MEMBER,
        Rate.READ,
        "Where the content of a file is to be had",
        answer=Download,
        errors=(FileOnAwayNode, UploadMissing),
    ),
    Route(
        "GET",
        f"{_STORAGE}/files",
        list_files,
        Audience.USER,
        Rate.READ,
        "My files, or those of a conversation, the newest first",
        query=FilePage,
        answer=FileList,
        errors=(NotFound,),
    ),
    Route("GET", _FILE, get_file, Audience.MEMBER, Rate.READ, "One file", answer=FileShape),
    Route("DELETE", _FILE, delete_file, Audience.OWNER, Rate.WRITE, "Delete a file", answer=FileShape),
    Route(
        "GET",
        f"{_STORAGE}/quota",
        get_quota,
        Audience.USER,
        Rate.READ,
        "How much room my files take, and how much there is",
        answer=QuotaShape,
    ),
    Route(
        "PUT",
        _OBJECT,
        put_content,
        Audience.ANYONE,
        Rate.PUBLIC,
        "Send the content of a file, at the address that was given for it",
        status=204,
        errors=_PUT_ERRORS,
        stream=MOST_BYTES,
    ),
    Route(
        "GET",
        _OBJECT,
        get_content,
        Audience.ANYONE,
        Rate.PUBLIC,
        "The content of a file, at the address that was given for it",
        also=(206, 304, 307),
        errors=_GET_ERRORS,
        stream=0,
        media="*/*",
    ),
    Route(
        "PUT",
        _SPOOLED,
        put_content,
        Audience.ANYONE,
        Rate.PUBLIC,
        "Send the content of a file while the file store is away",
        status=204,
        errors=_PUT_ERRORS,
        stream=MOST_BYTES,
    ),
    Route(
        "GET",
        _SPOOLED,
        get_content,
        Audience.ANYONE,
        Rate.PUBLIC,
        "The content of a file that was sent while the file store was away",
        also=(206, 304, 307),
        errors=_GET_ERRORS,
        stream=0,
        media="*/*",
    ),
)
