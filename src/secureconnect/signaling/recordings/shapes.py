"""The JSON shapes of recordings, and what devices in the call are told of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from msgspec import Struct

from ...clock import to_iso
from ..frames import Out
from .store import Consent, Reason, Recording, State

MediaType = Literal["video/webm", "audio/webm", "video/mp4", "audio/mp4"]


class ConsentShape(Struct):
    """consent: None while there is no answer.  device_id: on which it was given."""

    user_id: str
    consent: bool | None
    device_id: str | None
    answered_at: str | None


class RecordingShape(Struct):
    """started_at: when it was asked for.  begun_at: since when all had agreed.  end_reason: why it ended.
    parts: that have arrived.  size_bytes: of what has come of it.  file_id: of what is kept."""

    recording_id: str
    call_id: str
    conversation_id: str
    recorded_by: str
    media_type: str
    is_encrypted: bool
    state: State
    started_at: str
    begun_at: str | None
    ended_at: str | None
    end_reason: Reason | None
    parts: int
    size_bytes: int
    file_id: str | None
    consents: list[ConsentShape]


class Seen(NamedTuple):
    """A recording as it is shown.  parts, size_bytes: 0 once they are one file."""

    recording: Recording
    consents: Sequence[Consent]
    parts: int = 0
    size_bytes: int = 0


def recording_shape(seen: Seen) -> RecordingShape:
    recording = seen.recording
    return RecordingShape(
        recording.recording_id,
        recording.call_id,
        recording.conversation_id,
        recording.recorder_id,
        recording.content_type,
        recording.is_encrypted,
        recording.state,
        to_iso(recording.started_us),
        _iso_or_none(recording.begun_us),
        _iso_or_none(recording.ended_us),
        recording.end_reason,
        seen.parts,
        seen.size_bytes,
        recording.file_id if recording.is_kept else None,
        [consent_shape(each) for each in seen.consents],
    )


def consent_shape(consent: Consent) -> ConsentShape:
    return ConsentShape(consent.user_id, consent.agrees, consent.device_id, _iso_or_none(consent.answered_us))


def _iso_or_none(us: int | None) -> str | None:
    return None if us is None else to_iso(us)


class Requested(Out, tag="recording_requested"):
    """Whoever has not answered is asked.  by: who wants to record."""

    recording_id: str
    by: str
    epoch: int


class Answered(Out, tag="recording_consent"):
    recording_id: str
    user_id: str
    consent: bool
    epoch: int


class Started(Out, tag="recording_started"):
    """All in the call have agreed: it is recorded from now on, or again."""

    recording_id: str
    by: str
    epoch: int


class Stopped(Out, tag="recording_stopped"):
    recording_id: str
    reason: Reason
    epoch: int


def requested(recording: Recording, epoch: int) -> Requested:
    return Requested(recording_id=recording.recording_id, by=recording.recorder_id, epoch=epoch)


def started(recording: Recording, epoch: int) -> Started:
    return Started(recording_id=recording.recording_id, by=recording.recorder_id, epoch=epoch)
