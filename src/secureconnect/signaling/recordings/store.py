"""The SQL of recordings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from ...deps.contracts import Row, Tx
from ...identity import CallId, ConversationId, DeviceId, FileId, RecordingId, UserId

State = Literal["asking", "recording", "stopped", "finishing", "completed", "partial", "dropped", "deleted"]
Reason = Literal[
    "stopped", "refused", "withdrawn", "call_over", "recorder_left", "silent", "too_long", "lost"
]

FIRST_ID = "00000000-0000-0000-0000-000000000000"


class Recording(NamedTuple):
    """states, place, times: as migration 0045 tells.  is_whole: its recorder has said that all has come."""

    recording_id: RecordingId
    call_id: CallId
    conversation_id: ConversationId
    recorder_id: UserId
    device_id: DeviceId
    content_type: str
    is_encrypted: bool
    state: State
    file_id: FileId
    place: str
    started_us: int
    touched_us: int
    begun_us: int | None = None
    ended_us: int | None = None
    end_reason: Reason | None = None
    is_whole: bool = False
    look_us: int | None = None

    @property
    def is_open(self) -> bool:
        return self.state in ("asking", "recording")

    @property
    def is_kept(self) -> bool:
        return self.state in ("completed", "partial")


class Consent(NamedTuple):
    """agrees: None while there is no answer.  device_id: on which it was given."""

    user_id: UserId
    asked_us: int
    agrees: bool | None = None
    device_id: DeviceId | None = None
    answered_us: int | None = None


class Part(NamedTuple):
    """received_us: None while it is on its way to where it is kept."""

    number: int
    sha256: bytes
    size_bytes: int
    received_us: int | None = None


class Terms(NamedTuple):
    """What a conversation says of recordings, and one member of it."""

    is_allowed: bool
    is_e2ee: bool
    role: Literal["owner", "admin", "member"]


_RECORDING = (
    "recording_id, call_id, conversation_id, recorder_id, device_id, content_type, is_encrypted, state,"
    " file_id, place, started_at, touched_at, begun_at, ended_at, end_reason, is_whole, look_at"
)
_CONSENT = "user_id, asked_at, agrees, device_id, answered_at"
_PART = "number, sha256, size_bytes, received_at"

# who may what

_TERMS = (
    "SELECT c.recording_enabled, c.is_e2ee_enabled, m.role FROM members m"
    " JOIN conversations c ON c.conversation_id = m.conversation_id"
    " WHERE m.conversation_id = $1 AND m.user_id = $2"
)
_REACHES = (
    "SELECT 1 FROM members WHERE conversation_id = $1 AND user_id = $2"
    " AND (joined_at <= $3 OR (visible_from_seq <= 1 AND visible_from_change = 0))"
)
_PLACE_EXISTS = "SELECT 1 FROM conversations WHERE conversation_id = $1"


async def terms(tx: Tx, conversation: ConversationId, user: UserId) -> Terms | None:
    """None: they are not in it."""
    row = await tx.one(_TERMS, conversation, user)
    return None if row is None else Terms(bool(row[0]), bool(row[1]), row[2])


async def reaches(tx: Tx, recording: Recording, user: UserId) -> bool:
    """Whether somebody is in the conversation, and sees what was said there at the time."""
    row = await tx.one(_REACHES, recording.conversation_id, user, recording.started_us)
    return row is not None


async def has_conversation(tx: Tx, recording: Recording) -> bool:
    return await tx.one(_PLACE_EXISTS, recording.conversation_id) is not None


# recordings

_ADD = (
    f"INSERT INTO recordings ({_RECORDING})"  # noqa: S608
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)"
)
_SAVE = (
    "UPDATE recordings SET state = $2, touched_at = $3, begun_at = $4, ended_at = $5, end_reason = $6,"
    " is_whole = $7, look_at = $8 WHERE recording_id = $1"
)
_GET = f"SELECT {_RECORDING} FROM recordings WHERE recording_id = $1"  # noqa: S608
_LOCK = f"UPDATE recordings SET state = state WHERE recording_id = $1 RETURNING {_RECORDING}"  # noqa: S608
_OPEN_IN = f"SELECT {_RECORDING} FROM recordings WHERE call_id = $1 AND ended_at IS NULL"  # noqa: S608
_COUNT = "SELECT COUNT(*) FROM recordings WHERE call_id = $1"
_OF_CALL = (
    f"SELECT {_RECORDING} FROM recordings WHERE call_id = $1 AND state <> 'deleted'"  # noqa: S608
    " ORDER BY recording_id DESC LIMIT $2"
)
_OF_RECORDER = (
    f"SELECT {_RECORDING} FROM recordings WHERE recorder_id = $1 AND state <> 'deleted'"  # noqa: S608
    " AND recording_id > $2 ORDER BY recording_id LIMIT $3"
)
_OF_FILE = f"SELECT {_RECORDING} FROM recordings WHERE file_id = $1 AND state IN ('completed', 'partial')"  # noqa: S608
_OPEN = (
    "SELECT recording_id FROM recordings WHERE ended_at IS NULL AND recording_id > $1"
    " ORDER BY recording_id LIMIT $2"
)
_DUE = "SELECT recording_id FROM recordings WHERE look_at <= $1 ORDER BY look_at LIMIT $2"
_AFTER = (
    f"SELECT {_RECORDING} FROM recordings WHERE recording_id > $1 AND ended_at IS NOT NULL"  # noqa: S608
    " AND state <> 'deleted' ORDER BY recording_id LIMIT $2"
)
_FORGET = "DELETE FROM recordings WHERE recording_id = $1"
_FORGET_CONSENTS = "DELETE FROM recording_consents WHERE recording_id = $1"


def _recording(row: Row) -> Recording:
    found = Recording._make(row)
    return found._replace(is_encrypted=bool(found.is_encrypted), is_whole=bool(found.is_whole))


async def add(tx: Tx, new: Recording) -> None:
    """Raises UniqueViolation while another one of the call has not ended."""
    await tx.run(_ADD, *new)


async def save(tx: Tx, recording: Recording) -> None:
    await tx.run(
        _SAVE,
        recording.recording_id,
        recording.state,
        recording.touched_us,
        recording.begun_us,
        recording.ended_us,
        recording.end_reason,
        recording.is_whole,
        recording.look_us,
    )


async def get(tx: Tx, recording: RecordingId) -> Recording | None:
    row = await tx.one(_GET, recording)
    return None if row is None else _recording(row)


async def lock(tx: Tx, recording: RecordingId) -> Recording | None:
    """As `get`; nobody else changes it, its consents or its parts before this transaction ends. Whoever
    holds the call, too, has taken that first."""
    row = await tx.one(_LOCK, recording)
    return None if row is None else _recording(row)


async def open_in(tx: Tx, call: CallId) -> Recording | None:
    row = await tx.one(_OPEN_IN, call)
    return None if row is None else _recording(row)


async def count(tx: Tx, call: CallId) -> int:
    """Those that were deleted count while there is something left of them."""
    row = await tx.one(_COUNT, call)
    return 0 if row is None else row[0]


async def of_call(tx: Tx, call: CallId, limit: int) -> list[Recording]:
    """The newest first."""
    return [_recording(row) for row in await tx.all(_OF_CALL, call, limit)]


async def of_recorder(tx: Tx, user: UserId, after: str, limit: int) -> list[Recording]:
    return [_recording(row) for row in await tx.all(_OF_RECORDER, user, after, limit)]


async def of_file(tx: Tx, file_id: FileId) -> Recording | None:
    row = await tx.one(_OF_FILE, file_id)
    return None if row is None else _recording(row)


async def open_ones(tx: Tx, after: str, limit: int) -> list[RecordingId]:
    return [row[0] for row in await tx.all(_OPEN, after, limit)]


async def due(tx: Tx, now_us: int, limit: int) -> list[RecordingId]:
    """Of those that have ended: about which there is something to do, the longest overdue first."""
    return [row[0] for row in await tx.all(_DUE, now_us, limit)]


async def ended_after(tx: Tx, after: str, limit: int) -> list[Recording]:
    """All that have ended and are not deleted, by id."""
    return [_recording(row) for row in await tx.all(_AFTER, after, limit)]


async def forget(tx: Tx, recording: RecordingId) -> None:
    """What is left of a deleted one without parts."""
    await tx.run(_FORGET_CONSENTS, recording)
    await tx.run(_FORGET, recording)


# consents

_ASK = (
    "INSERT INTO recording_consents (recording_id, user_id, asked_at) VALUES ($1, $2, $3)"
    " ON CONFLICT (recording_id, user_id) DO NOTHING"
)
_UNASK = "DELETE FROM recording_consents WHERE recording_id = $1 AND user_id = $2 AND agrees IS NULL"
_ANSWER = (
    "UPDATE recording_consents SET agrees = $3, device_id = $4, answered_at = $5"
    " WHERE recording_id = $1 AND user_id = $2"
)
_CONSENTS = f"SELECT {_CONSENT} FROM recording_consents WHERE recording_id = $1 ORDER BY user_id"  # noqa: S608
_GIVEN = (
    f"SELECT recording_id, {_CONSENT} FROM recording_consents WHERE user_id = $1 AND recording_id > $2"  # noqa: S608
    " ORDER BY recording_id LIMIT $3"
)
_NAMELESS = "UPDATE recording_consents SET device_id = NULL WHERE user_id = $1"


def _consent(row: Sequence[object]) -> Consent:
    found = Consent(*row)  # type: ignore[arg-type]
    return found._replace(agrees=None if found.agrees is None else bool(found.agrees))


async def ask(tx: Tx, recording: RecordingId, users: Sequence[UserId], now_us: int) -> None:
    """Whoever was asked before is not asked again."""
    await tx.many(_ASK, [(recording, user, now_us) for user in users])


async def unask(tx: Tx, recording: RecordingId, users: Sequence[UserId]) -> None:
    """Nobody waits for them, if they have not answered."""
    await tx.many(_UNASK, [(recording, user) for user in users])


async def answer(tx: Tx, recording: RecordingId, consent: Consent) -> None:
    await tx.run(_ANSWER, recording, consent.user_id, consent.agrees, consent.device_id, consent.answered_us)


async def consents(tx: Tx, recording: RecordingId) -> list[Consent]:
    return [_consent(row) for row in await tx.all(_CONSENTS, recording)]


async def given_by(tx: Tx, user: UserId, after: str, limit: int) -> list[tuple[RecordingId, Consent]]:
    rows = await tx.all(_GIVEN, user, after, limit)
    return [(RecordingId(row[0]), _consent(row[1:])) for row in rows]


async def forget_devices(tx: Tx, user: UserId) -> None:
    """That somebody agreed stays; on which device does not."""
    await tx.run(_NAMELESS, user)


# parts

_PART_OF = f"SELECT {_PART} FROM recording_parts WHERE recording_id = $1 AND number = $2"  # noqa: S608
_PARTS = f"SELECT {_PART} FROM recording_parts WHERE recording_id = $1 ORDER BY number"  # noqa: S608
_ADD_PART = (
    "INSERT INTO recording_parts (recording_id, number, sha256, size_bytes, received_at)"
    " VALUES ($1, $2, $3, $4, NULL)"
)
_RECEIVE = "UPDATE recording_parts SET received_at = $3 WHERE recording_id = $1 AND number = $2"
_TOTALS = (
    "SELECT COUNT(received_at), CAST(COALESCE(SUM(size_bytes), 0) AS bigint) FROM recording_parts"
    " WHERE recording_id = $1"
)
# place, number, size and SHA-256 of all that have arrived
ARRIVED = (
    "SELECT r.place, p.number, p.size_bytes, p.sha256 FROM recording_parts p"
    " JOIN recordings r ON r.recording_id = p.recording_id WHERE p.received_at IS NOT NULL"
)
_DROP_PARTS = "DELETE FROM recording_parts WHERE recording_id = $1"


async def part(tx: Tx, recording: RecordingId, number: int) -> Part | None:
    row = await tx.one(_PART_OF, recording, number)
    return None if row is None else Part(row[0], bytes(row[1]), row[2], row[3])


async def parts(tx: Tx, recording: RecordingId) -> list[Part]:
    """By number."""
    return [Part(row[0], bytes(row[1]), row[2], row[3]) for row in await tx.all(_PARTS, recording)]


async def add_part(tx: Tx, recording: RecordingId, new: Part) -> None:
    await tx.run(_ADD_PART, recording, new.number, new.sha256, new.size_bytes)


async def receive(tx: Tx, recording: RecordingId, number: int, now_us: int) -> bool:
    """It is where it is kept. False: nobody knows of it any more."""
    return await tx.run(_RECEIVE, recording, number, now_us) > 0


async def totals(tx: Tx, recording: RecordingId) -> tuple[int, int]:
    """How many parts have arrived, and how many bytes those and the ones on their way have."""
    row = await tx.one(_TOTALS, recording)
    return (0, 0) if row is None else (row[0], row[1])


async def drop_parts(tx: Tx, recording: RecordingId) -> None:
    await tx.run(_DROP_PARTS, recording)
