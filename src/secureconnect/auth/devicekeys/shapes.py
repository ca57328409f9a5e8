"""Bodies and answers of the routes of device keys."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from ..shapes import Code, GivenPassword
from .bundles import Format

Document = dict[str, Any]
Text = Annotated[str, Meta(max_length=128)]
KeyId = Annotated[str, Meta(min_length=1, max_length=64)]
Number = Annotated[int, Meta(ge=0, le=2**53 - 1)]

KEYS_AT_ONCE = (20, 100)


# bundles


class SignedPreKey(Struct, frozen=True):
    """signature_format: what is signed: the 32 bytes of the key (`raw`), or the document
    `{"fallback":true,"key":"…"}` as Olm clients sign it (`fallback_json`)."""

    key_id: KeyId
    public_key: Text
    signature: Text
    signature_format: Format = "raw"


class OneTimePreKey(Struct, frozen=True):
    key_id: KeyId
    public_key: Text


class UploadBundle(Struct, frozen=True):
    """identity_key: Ed25519. The others: Curve25519. All in base64."""

    identity_key: Text
    signed_pre_key: SignedPreKey
    one_time_pre_keys: Annotated[
        list[OneTimePreKey], Meta(min_length=KEYS_AT_ONCE[0], max_length=KEYS_AT_ONCE[1])
    ]


class RotatePreKey(Struct, frozen=True):
    signed_pre_key: SignedPreKey
    one_time_pre_keys: Annotated[list[OneTimePreKey], Meta(max_length=KEYS_AT_ONCE[1])] = []


class KeysKept(Struct, frozen=True):
    """one_time_keys: how many wait now."""

    message: str
    one_time_keys: int


class KeyCount(Struct, frozen=True):
    one_time_keys: int
    signed_pre_key_created_at: str | None
    signed_pre_key_is_stale: bool


class GivenPreKey(Struct, frozen=True):
    key_id: str
    public_key: str
    signature: str
    signature_format: str
    created_at: str
    is_stale: bool


class GivenBundle(Struct, frozen=True):
    """devices: all of this person's that have keys.  curve25519_key: of an Olm client."""

    user_id: str
    device_id: str
    devices: list[str]
    identity_key: str
    curve25519_key: str | None
    signed_pre_key: GivenPreKey | None
    one_time_pre_key: OneTimePreKey | None


class WhichDevice(Struct, frozen=True):
    device_id: Annotated[str, Meta(max_length=36)] | None = None


# Olm clients


class UploadKeys(Struct, frozen=True):
    device_keys: Document | None = None
    one_time_keys: dict[str, Document] | None = None
    fallback_keys: dict[str, Document] | None = None


class KeyCounts(Struct, frozen=True):
    one_time_key_counts: dict[str, int]


class QueryKeys(Struct, frozen=True):
    """An empty list: all devices."""

    device_keys: dict[str, list[str]]


class QueriedKeys(Struct, frozen=True):
    device_keys: dict[str, dict[str, Document]]
    failures: Document
    master_keys: dict[str, Document]
    self_signing_keys: dict[str, Document]
    user_signing_keys: dict[str, Document]


class ClaimKeys(Struct, frozen=True):
    """By person and device, the algorithm."""

    one_time_keys: dict[str, dict[str, Annotated[str, Meta(max_length=64)]]]


class ClaimedKeys(Struct, frozen=True):
    one_time_keys: dict[str, dict[str, Document]]
    failures: Document


class ToDevices(Struct, frozen=True):
    """By person, and by device or `*`."""

    messages: dict[str, dict[str, Document]]


class SyncQuery(Struct, frozen=True):
    """since: `next_since` of what has been dealt with."""

    since: Annotated[str, Meta(max_length=40)] | None = None


class SigningKeys(Struct, frozen=True):
    password: GivenPassword
    totp_code: Code | None = None
    master_key: Document | None = None
    self_signing_key: Document | None = None
    user_signing_key: Document | None = None


class Signatures(Struct, frozen=True):
    """By person, and by device or master key: the documents with their signatures."""

    signatures: dict[str, dict[str, Document]]


class Failure(Struct, frozen=True):
    code: str
    message: str


class Signed(Struct, frozen=True):
    failures: dict[str, dict[str, Failure]]


class Nothing(Struct, frozen=True):
    pass


# backups


class NewBackup(Struct, frozen=True):
    algorithm: Annotated[str, Meta(min_length=1, max_length=128)]
    auth_data: Document


class BackupNumber(Struct, frozen=True):
    version: str


class BackupState(Struct, frozen=True):
    """etag: another whenever its keys change."""

    version: str
    algorithm: str
    auth_data: Document
    count: int
    etag: str


class BackupVersions(Struct, frozen=True):
    """The latest first."""

    versions: list[BackupState]


class BackupCount(Struct, frozen=True):
    count: int
    etag: str


class BackupKey(Struct, frozen=True):
    first_message_index: Number
    forwarded_count: Number
    is_verified: bool
    session_data: Document


class BackupRoom(Struct, frozen=True):
    sessions: dict[str, BackupKey]


class PutBackup(Struct, frozen=True):
    rooms: dict[str, BackupRoom]


class WhichBackup(Struct, frozen=True):
    version: Annotated[str, Meta(max_length=18)]


class BackupPageQuery(WhichBackup, frozen=True, kw_only=True):
    """room_id, session_id: both, for the key of this session alone."""

    room_id: Annotated[str, Meta(max_length=255)] | None = None
    session_id: Annotated[str, Meta(max_length=255)] | None = None
    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    cursor: Annotated[str, Meta(max_length=600)] | None = None


class BackupPage(Struct, frozen=True):
    rooms: dict[str, BackupRoom]
    next_cursor: str | None
