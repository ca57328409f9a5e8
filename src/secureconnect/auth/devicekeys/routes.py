"""What HTTP sees of device keys."""

from __future__ import annotations

import msgspec

from ...clock import to_iso
from ...edge import Audience, Call, Rate, Reply, Route
from ...errors import (
    AccountLocked,
    BackupVersionWrong,
    Conflict,
    IdentityKeyChanged,
    Invalid,
    InvalidCredentials,
    KeyIdReused,
    KeySignatureWrong,
    KeysMissing,
    NotFound,
    TooManyKeys,
    TotpInvalid,
    TotpRequired,
)
from ...idempotency import attempt_of
from ...identity import DeviceId, UserId, is_id
from ..room import Auth
from ..shapes import origin_of
from .backup import key_of_json, version_of
from .backup_store import Backup
from .bundles import Bundle, PreKey
from .inbox import Sync, Undelivered, since_of
from .shapes import (
    BackupCount,
    BackupKey,
    BackupNumber,
    BackupPage,
    BackupPageQuery,
    BackupRoom,
    BackupState,
    BackupVersions,
    ClaimedKeys,
    ClaimKeys,
    Failure,
    GivenBundle,
    GivenPreKey,
    KeyCount,
    KeyCounts,
    KeysKept,
    NewBackup,
    Nothing,
    OneTimePreKey,
    PutBackup,
    QueriedKeys,
    QueryKeys,
    RotatePreKey,
    Signatures,
    Signed,
    SignedPreKey,
    SigningKeys,
    SyncQuery,
    ToDevices,
    UploadBundle,
    UploadKeys,
    WhichBackup,
    WhichDevice,
)

TYPE_CHARS = 128
TXN_CHARS = 128


async def upload_bundle(auth: Auth, call: Call) -> Reply:
    body: UploadBundle = call.body
    waiting = await auth.device_keys.bundles.upload(
        call.caller, body.identity_key, _pre_key(body.signed_pre_key), _pairs(body.one_time_pre_keys)
    )
    return Reply(KeysKept("The keys are published.", waiting))


async def rotate(auth: Auth, call: Call) -> Reply:
    body: RotatePreKey = call.body
    waiting = await auth.device_keys.bundles.rotate(
        call.caller, _pre_key(body.signed_pre_key), _pairs(body.one_time_pre_keys)
    )
    return Reply(KeysKept("The signed pre-key is replaced.", waiting))


async def count(auth: Auth, call: Call) -> Reply:
    stock = await auth.device_keys.bundles.count(call.caller)
    created_at = None if stock.pre_key_us is None else to_iso(stock.pre_key_us)
    return Reply(KeyCount(stock.one_time_keys, created_at, stock.is_stale))


async def get_bundle(auth: Auth, call: Call) -> Reply:
    query: WhichDevice = call.query
    if query.device_id is not None and not is_id(query.device_id):
        raise NotFound
    device = None if query.device_id is None else DeviceId(query.device_id)
    user = UserId(call.path["user_id"])
    bundle = await auth.device_keys.bundles.get(call.caller, user, device, call.idempotency_key)
    return Reply(_bundle(user, bundle))


async def upload_keys(auth: Auth, call: Call) -> Reply:
    body: UploadKeys = call.body
    counts = await auth.device_keys.olm.upload(
        call.caller, body.device_keys, body.one_time_keys or {}, body.fallback_keys or {}
    )
    return Reply(KeyCounts(counts))


async def query_keys(auth: Auth, call: Call) -> Reply:
    body: QueryKeys = call.body
    return Reply(QueriedKeys(**await auth.device_keys.olm.query(call.caller, body.device_keys)))


async def claim_keys(auth: Auth, call: Call) -> Reply:
    body: ClaimKeys = call.body
    claimed = await auth.device_keys.olm.claim(call.caller, body.one_time_keys, call.idempotency_key)
    return Reply(ClaimedKeys(claimed, {}))


async def send_to_devices(auth: Auth, call: Call) -> Reply:
    body: ToDevices = call.body
    kind, txn = _named(call, "type", TYPE_CHARS), _named(call, "txn", TXN_CHARS)
    return Reply(await auth.device_keys.inboxes.send(call.caller, kind, txn, body.messages))


async def sync(auth: Auth, call: Call) -> Reply:
    query: SyncQuery = call.query
    return Reply(await auth.device_keys.sync(call.caller, since_of(query.since)))


async def publish_signing_keys(auth: Auth, call: Call) -> Reply:
    body: SigningKeys = call.body
    given = {
        "master": body.master_key,
        "self_signing": body.self_signing_key,
        "user_signing": body.user_signing_key,
    }
    await auth.reauthentication.require(call.caller.user_id, body.password, body.totp_code, origin_of(call))
    keys = {usage: document for usage, document in given.items() if document is not None}
    await auth.device_keys.cross_signing.publish(call.caller, keys, call.address)
    return Reply(Nothing())


async def sign(auth: Auth, call: Call) -> Reply:
    body: Signatures = call.body
    failures = await auth.device_keys.cross_signing.sign(call.caller, body.signatures)
    return Reply(
        Signed(
            {
                name: {target: Failure(each.code, each.message) for target, each in found.items()}
                for name, found in failures.items()
            }
        )
    )


async def begin_backup(auth: Auth, call: Call) -> Reply:
    body: NewBackup = call.body
    version = await auth.device_keys.backups.begin(
        call.caller.user_id, body.algorithm, body.auth_data, attempt_of(call)
    )
    return Reply(BackupNumber(str(version)))


async def get_latest_backup(auth: Auth, call: Call) -> Reply:
    return Reply(_backup(await auth.device_keys.backups.get(call.caller.user_id, None)))


async def list_backups(auth: Auth, call: Call) -> Reply:
    held = await auth.device_keys.backups.all_of(call.caller.user_id)
    return Reply(BackupVersions([_backup(each) for each in held]))


async def get_backup(auth: Auth, call: Call) -> Reply:
    version = version_of(call.path["version"])
    return Reply(_backup(await auth.device_keys.backups.get(call.caller.user_id, version)))


async def describe_backup(auth: Auth, call: Call) -> Reply:
    body: NewBackup = call.body
    version = version_of(call.path["version"])
    await auth.device_keys.backups.describe(call.caller.user_id, version, body.algorithm, body.auth_data)
    return Reply(Nothing())


async def end_backup(auth: Auth, call: Call) -> Reply:
    await auth.device_keys.backups.end(call.caller.user_id, version_of(call.path["version"]))
    return Reply(Nothing())


async def put_backup_keys(auth: Auth, call: Call) -> Reply:
    body: PutBackup = call.body
    query: WhichBackup = call.query
    sessions = {
        room: {
            session: key_of_json(room, session, msgspec.structs.asdict(key))
            for session, key in given.sessions.items()
        }
        for room, given in body.rooms.items()
    }
    held = await auth.device_keys.backups.put(call.caller.user_id, version_of(query.version), sessions)
    return Reply(BackupCount(held.keys, str(held.etag)))


async def list_backup_keys(auth: Auth, call: Call) -> Reply:
    query: BackupPageQuery = call.query
    backups, version = auth.device_keys.backups, version_of(query.version)
    if query.room_id is not None and query.session_id is not None:
        found = await backups.one(call.caller.user_id, version, query.room_id, query.session_id)
    else:
        found = await backups.page(call.caller.user_id, version, _place(query.cursor), query.limit)
    rooms: dict[str, BackupRoom] = {}
    for key in found[: query.limit]:
        sessions = rooms.setdefault(key.room_id, BackupRoom({})).sessions
        sessions[key.session_id] = BackupKey(
            key.first_message_index,
            key.forwarded_count,
            bool(key.is_verified),
            msgspec.json.decode(key.session_data),
        )
    last = found[query.limit - 1] if len(found) > query.limit else None
    cursor = None if last is None else msgspec.json.encode((last.room_id, last.session_id)).decode()
    return Reply(BackupPage(rooms, cursor))


async def drop_backup_keys(auth: Auth, call: Call) -> Reply:
    query: WhichBackup = call.query
    held = await auth.device_keys.backups.drop(call.caller.user_id, version_of(query.version))
    return Reply(BackupCount(held.keys, str(held.etag)))


def _pre_key(given: SignedPreKey) -> PreKey:
    return PreKey(given.key_id, given.public_key, given.signature, given.signature_format)


def _pairs(given: list[OneTimePreKey]) -> list[tuple[str, str]]:
    return [(each.key_id, each.public_key) for each in given]


def _bundle(user: UserId, found: Bundle) -> GivenBundle:
    signed = found.signed_pre_key
    return GivenBundle(
        user,
        found.device_id,
        found.devices,
        found.identity_key,
        found.curve25519_key,
        None
        if signed is None
        else GivenPreKey(
            signed.key_id,
            signed.public_key,
            signed.signature,
            signed.signature_format,
            to_iso(signed.created_us),
            signed.is_stale,
        ),
        None if found.one_time_pre_key is None else OneTimePreKey(*found.one_time_pre_key),
    )


def _backup(held: Backup) -> BackupState:
    auth_data = msgspec.json.decode(held.auth_data)
    return BackupState(str(held.version), held.algorithm, auth_data, held.keys, str(held.etag))


def _named(call: Call, name: str, limit: int) -> str:
    text = call.path[name]
    if len(text) > limit or not text.isprintable():
        raise Invalid(f"At most {limit} printable characters.", details={"field": name})
    return text


def _place(cursor: str | None) -> tuple[str, str]:
    """Raises Invalid."""
    if cursor is None:
        return "", ""
    try:
        room, session = msgspec.json.decode(cursor, type=tuple[str, str])
    except msgspec.DecodeError:
        room = session = "\0"
    if "\0" in room + session:  # which the database has no form for
        raise Invalid("This cursor was not given by this list.", details={"field": "cursor"})
    return room, session


_KEYS = "/v1/keys"
_E2EE = "/v1/e2ee"
_USER = Audience.USER

ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        f"{_KEYS}/upload",
        upload_bundle,
        _USER,
        Rate.WRITE,
        "Publish the keys of this device",
        body=UploadBundle,
        answer=KeysKept,
        status=201,
        errors=(KeySignatureWrong, IdentityKeyChanged, KeyIdReused, TooManyKeys),
    ),
    Route(
        "POST",
        f"{_KEYS}/rotate",
        rotate,
        _USER,
        Rate.WRITE,
        "Replace the signed pre-key of this device, and add one-time keys",
        body=RotatePreKey,
        answer=KeysKept,
        errors=(KeySignatureWrong, KeysMissing, KeyIdReused, TooManyKeys),
    ),
    Route(
        "GET",
        f"{_KEYS}/count",
        count,
        _USER,
        Rate.READ,
        "How many one-time keys of this device are left, and how old its signed pre-key is",
        answer=KeyCount,
    ),
    Route(
        "GET",
        f"{_KEYS}/{{user_id}}",
        get_bundle,
        Audience.MEMBER,
        Rate.WRITE,
        "A bundle of keys to begin with a device of this person; its one-time key is gone with that",
        query=WhichDevice,
        answer=GivenBundle,
        errors=(NotFound,),
        repeats=True,
    ),
    Route(
        "POST",
        f"{_E2EE}/keys/upload",
        upload_keys,
        _USER,
        Rate.WRITE,
        "Publish the keys of this device as Olm clients make them",
        body=UploadKeys,
        answer=KeyCounts,
        errors=(KeySignatureWrong, IdentityKeyChanged, KeyIdReused, TooManyKeys, KeysMissing),
    ),
    Route(
        "POST",
        f"{_E2EE}/keys/query",
        query_keys,
        _USER,
        Rate.READ,
        "The devices and signing keys of friends and people I share a conversation with",
        body=QueryKeys,
        answer=QueriedKeys,
    ),
    Route(
        "POST",
        f"{_E2EE}/keys/claim",
        claim_keys,
        _USER,
        Rate.WRITE,
        "One key of each of these devices, to begin with them",
        body=ClaimKeys,
        answer=ClaimedKeys,
        repeats=True,
    ),
    Route(
        "PUT",
        f"{_E2EE}/to-device/{{type}}/{{txn}}",
        send_to_devices,
        _USER,
        Rate.WRITE,
        "Send something to devices, once however often it is asked",
        body=ToDevices,
        answer=Undelivered,
    ),
    Route(
        "GET",
        f"{_E2EE}/sync",
        sync,
        _USER,
        Rate.READ,
        "What this device was sent, and what it must know to go on encrypting",
        query=SyncQuery,
        answer=Sync,
    ),
    Route(
        "POST",
        f"{_E2EE}/signing-keys",
        publish_signing_keys,
        _USER,
        Rate.LOGIN,
        "Publish my cross-signing keys",
        body=SigningKeys,
        answer=Nothing,
        errors=(AccountLocked, Conflict, InvalidCredentials, KeySignatureWrong, TotpInvalid, TotpRequired),
    ),
    Route(
        "POST",
        f"{_E2EE}/signatures",
        sign,
        _USER,
        Rate.WRITE,
        "Publish my signatures of keys",
        body=Signatures,
        answer=Signed,
    ),
    Route(
        "POST",
        f"{_E2EE}/backup/version",
        begin_backup,
        _USER,
        Rate.WRITE,
        "Begin a new version of my sealed backup of keys",
        body=NewBackup,
        answer=BackupNumber,
        status=201,
        errors=(TooManyKeys,),
        repeats=True,
    ),
    Route(
        "GET",
        f"{_E2EE}/backup/version",
        get_latest_backup,
        _USER,
        Rate.READ,
        "The latest version of my backup",
        answer=BackupState,
        errors=(NotFound,),
    ),
    Route(
        "GET",
        f"{_E2EE}/backup/versions",
        list_backups,
        _USER,
        Rate.READ,
        "The versions of my backup there are, the latest first",
        answer=BackupVersions,
    ),
    Route(
        "GET",
        f"{_E2EE}/backup/version/{{version}}",
        get_backup,
        _USER,
        Rate.READ,
        "One version of my backup",
        answer=BackupState,
        errors=(NotFound,),
    ),
    Route(
        "PUT",
        f"{_E2EE}/backup/version/{{version}}",
        describe_backup,
        _USER,
        Rate.WRITE,
        "Replace what tells how a version is sealed",
        body=NewBackup,
        answer=Nothing,
        errors=(NotFound,),
    ),
    Route(
        "DELETE",
        f"{_E2EE}/backup/version/{{version}}",
        end_backup,
        _USER,
        Rate.WRITE,
        "Delete a version of my backup with its keys",
        answer=Nothing,
        errors=(NotFound,),
    ),
    Route(
        "PUT",
        f"{_E2EE}/backup/keys",
        put_backup_keys,
        _USER,
        Rate.WRITE,
        "Put keys into the latest version of my backup",
        body=PutBackup,
        query=WhichBackup,
        answer=BackupCount,
        errors=(NotFound, BackupVersionWrong, TooManyKeys),
    ),
    Route(
        "GET",
        f"{_E2EE}/backup/keys",
        list_backup_keys,
        _USER,
        Rate.READ,
        "The keys in a version of my backup",
        query=BackupPageQuery,
        answer=BackupPage,
        errors=(NotFound,),
    ),
    Route(
        "DELETE",
        f"{_E2EE}/backup/keys",
        drop_backup_keys,
        _USER,
        Rate.WRITE,
        "Delete the keys in a version of my backup",
        query=WhichBackup,
        answer=BackupCount,
        errors=(NotFound,),
    ),
)
