"""Who and what: identifiers, all hyphenated UUIDv7 strings, and the caller of a request."""

from __future__ import annotations

import secrets
import uuid
from typing import Literal, NewType

import msgspec
from uuid_utils import uuid7

UserId = NewType("UserId", str)
DeviceId = NewType("DeviceId", str)
SessionId = NewType("SessionId", str)
ConversationId = NewType("ConversationId", str)
MessageId = NewType("MessageId", str)
PollId = NewType("PollId", str)
NotificationId = NewType("NotificationId", str)
FileId = NewType("FileId", str)
CallId = NewType("CallId", str)
PeerId = NewType("PeerId", str)
RecordingId = NewType("RecordingId", str)
NodeId = NewType("NodeId", str)

Role = Literal["user", "admin"]


def new_id() -> str:
    """A fresh UUIDv7: time-ordered, so that an index on it grows at its end."""
    return str(uuid7())


def new_id_at(us: int) -> str:
    """The same of a time that is not this machine's: the database's, by which nodes compare.
    Source: RFC 9562, sections 5.7 and 6.2, method 3."""
    milliseconds, micros = divmod(us, 1000)
    time_part = milliseconds << 16 | 0x7000 | micros * 4096 // 1000
    return str(uuid.UUID(int=time_part << 64 | 0b10 << 62 | secrets.randbits(62)))


def time_of(uuid7: str) -> int:
    """When an id was made, microseconds UTC, to the millisecond below."""
    return (uuid.UUID(uuid7).int >> 80) * 1000


def is_id(text: str) -> bool:
    """Whether `text` is a UUID in the one form we write: 36 characters, hyphens, lower case."""
    if len(text) != 36:
        return False
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


class Principal(msgspec.Struct, frozen=True):
    """The signed-in caller.  expires_us: when the access token ends, microseconds UTC."""

    user_id: UserId
    session_id: SessionId
    device_id: DeviceId
    role: Role
    expires_us: int
