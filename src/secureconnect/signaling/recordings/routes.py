"""What HTTP sees of recordings."""

from __future__ import annotations

from typing import Annotated, Protocol

import trio
from msgspec import Meta, Struct

from ...config import SignalingConfig
from ...edge import Audience, Call, Rate, Reply, Route
from ...errors import (
    CallElsewhere,
    CallNotJoined,
    CallOver,
    Conflict,
    ConsentMissing,
    E2eeRequired,
    Forbidden,
    NotFound,
    Overloaded,
    PartDiffers,
    QuotaExceeded,
    RecordingDisabled,
    RecordingGaps,
    RecordingOver,
    RecordingUnderWay,
    TooLarge,
    TooManyUploads,
    UploadMismatch,
    UploadOver,
)
from ...identity import CallId, RecordingId
from ..shapes import Id
from .recordings import MB, Recordings
from .shapes import MediaType, RecordingShape, recording_shape
from .store import Recording

MOST_BYTES = 16 * MB  # of a part, whatever signaling.recording_part_mb says


class Room(Protocol):
    """What these routes use of the room.  parts_at_once: held by whoever has a part in memory."""

    config: SignalingConfig
    recordings: Recordings
    parts_at_once: trio.Semaphore


class NewRecording(Struct, frozen=True):
    """is_encrypted: the parts are ciphertext, whose key the server never sees; required where the
    conversation is encrypted.  media_type: of what is recorded."""

    media_type: MediaType = "video/webm"
    is_encrypted: bool = False


class ConsentGiven(Struct, frozen=True):
    """consent: False refuses, or takes back what was agreed to; either ends the recording."""

    recording_id: Id
    consent: bool


class WhichRecording(Struct, frozen=True):
    recording_id: Id


class PartQuery(Struct, frozen=True):
    """sha256: of the part, in hexadecimal."""

    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$", min_length=64, max_length=64)]


class AllParts(Struct, frozen=True):
    """parts: how many there are."""

    parts: Annotated[int, Meta(ge=1, le=1_000_000)]


class RecordingList(Struct, frozen=True):
    """The newest first."""

    recordings: list[RecordingShape]


class RecordingAddress(Struct, frozen=True):
    """expires_in: whole seconds for which it is good."""

    recording_id: str
    download_url: str
    expires_in: int


async def start(room: Room, call: Call) -> Reply:
    asked: NewRecording = call.body
    begun = await room.recordings.start(
        call.caller, _call(call), asked.media_type, is_encrypted=asked.is_encrypted
    )
    return await _shown(room, begun)


async def consent(room: Room, call: Call) -> Reply:
    given: ConsentGiven = call.body
    wanted = RecordingId(given.recording_id)
    return await _shown(
        room, await room.recordings.consent(call.caller, _call(call), wanted, agrees=given.consent)
    )


async def stop(room: Room, call: Call) -> Reply:
    asked: WhichRecording = call.body
    wanted = RecordingId(asked.recording_id)
    return await _shown(room, await room.recordings.stop(call.caller.user_id, _call(call), wanted))


async def put_part(room: Room, call: Call) -> Reply:
    query: PartQuery = call.query
    number = call.path["number"]
    if not (number.isascii() and number.isdigit() and len(number) <= 7):
        raise NotFound
    if not 1 <= int(number) <= room.config.recording_parts:
        raise NotFound("A recording has no part of this number.")
    await room.recordings.require_recorder(call.caller.user_id, _call(call), _recording(call))
    try:
        room.parts_at_once.acquire_nowait()
    except trio.WouldBlock:
        raise Overloaded("Too many parts of recordings arrive at once.") from None
    try:
        await room.recordings.take_part(
            call.caller.user_id,
            _call(call),
            _recording(call),
            int(number),
            bytes.fromhex(query.sha256),
            await _body(call, room.config.recording_part_mb * MB),
        )
    finally:
        room.parts_at_once.release()
    return Reply(status=204)


async def _body(call: Call, most: int) -> bytes:
    assert call.read is not None
    content = bytearray()
    while data := await call.read():
        content += data
        if len(content) > most:
            raise TooLarge("A part of a recording is smaller.", details={"limit_bytes": most})
    return bytes(content)


async def complete(room: Room, call: Call) -> Reply:
    asked: AllParts = call.body
    recording = await room.recordings.complete(
        call.caller.user_id, _call(call), _recording(call), asked.parts
    )
    return await _shown(room, recording)


async def list_recordings(room: Room, call: Call) -> Reply:
    found = await room.recordings.list_of(call.caller.user_id, _call(call))
    return Reply(RecordingList([recording_shape(each) for each in found]))


async def get_address(room: Room, call: Call) -> Reply:
    wanted = _recording(call)
    url, expires_s = await room.recordings.address(call.caller.user_id, _call(call), wanted, call.address)
    return Reply(RecordingAddress(wanted, url, expires_s))


async def delete(room: Room, call: Call) -> Reply:
    deleted = await room.recordings.delete(call.caller.user_id, _call(call), _recording(call))
    return await _shown(room, deleted)


def _call(call: Call) -> CallId:
    return CallId(call.path["call_id"])


def _recording(call: Call) -> RecordingId:
    return RecordingId(call.path["recording_id"])


async def _shown(room: Room, recording: Recording) -> Reply:
    return Reply(recording_shape(await room.recordings.see(recording)))


_CALL = "/v1/calls/{call_id}"
_ONE = f"{_CALL}/recordings/{{recording_id}}"

ROUTES: tuple[Route, ...] = (
    Route(
        "POST", f"{_CALL}/recording/start", start, Audience.MEMBER, Rate.WRITE,
        "Ask everybody in the call whether it may be recorded",
        body=NewRecording, answer=RecordingShape,
        errors=(
            CallElsewhere, CallNotJoined, CallOver, Conflict, E2eeRequired, NotFound, QuotaExceeded,
            RecordingDisabled, RecordingUnderWay, TooManyUploads,
        ),
    ),
    Route(
        "POST", f"{_CALL}/recording/consent", consent, Audience.MEMBER, Rate.WRITE,
        "Agree to a recording, refuse it, or take back that one has agreed",
        body=ConsentGiven, answer=RecordingShape, errors=(CallNotJoined, NotFound, RecordingOver),
    ),
    Route(
        "POST", f"{_CALL}/recording/stop", stop, Audience.MODERATOR, Rate.WRITE,
        "Stop a recording",
        body=WhichRecording, answer=RecordingShape, errors=(Forbidden, NotFound),
    ),
    Route(
        "GET", f"{_CALL}/recordings", list_recordings, Audience.MEMBER, Rate.READ,
        "The recordings of a call, and who has agreed to them",
        answer=RecordingList, errors=(NotFound,),
    ),
    Route(
        "PUT", f"{_ONE}/parts/{{number}}", put_part, Audience.AUTHOR, Rate.WRITE,
        "Send a part of a recording",
        query=PartQuery, status=204, stream=MOST_BYTES,
        errors=(
            ConsentMissing, E2eeRequired, Forbidden, NotFound, Overloaded, PartDiffers, QuotaExceeded,
            RecordingOver, TooLarge, UploadMismatch, UploadOver,
        ),
    ),
    Route(
        "POST", f"{_ONE}/complete", complete, Audience.AUTHOR, Rate.WRITE,
        "All parts of a recording have been sent",
        body=AllParts, answer=RecordingShape,
        errors=(Conflict, Forbidden, NotFound, RecordingGaps, RecordingOver),
    ),
    Route(
        "GET", f"{_ONE}/download-url", get_address, Audience.MEMBER, Rate.READ,
        "Where a recording is to be had for a while",
        answer=RecordingAddress, errors=(Conflict, NotFound, RecordingOver),
    ),
    Route(
        "DELETE", _ONE, delete, Audience.MODERATOR, Rate.WRITE,
        "Delete a recording",
        answer=RecordingShape, errors=(Forbidden, NotFound),
    ),
)  # fmt: skip
