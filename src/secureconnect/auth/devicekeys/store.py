"""The SQL of device keys, and of what is signed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from ...deps.contracts import Tx
from ...identity import DeviceId, SessionId, UserId

PRUNE_ROWS = 1_000
FORGOTTEN_AT_ONCE = 100

# the update changes nothing: it locks the device's keys for this transaction
_PUBLISH = (
    "INSERT INTO device_keys (device_id, user_id, identity_key, document, published_at)"
    " VALUES ($1, $2, $3, $4, $5) ON CONFLICT (device_id) DO UPDATE SET device_id = excluded.device_id"
    " RETURNING identity_key, document, published_at"
)
_LOCK = (
    "UPDATE device_keys SET device_id = device_id WHERE device_id = $1"
    " RETURNING identity_key, document, published_at"
)
_COUNT_DEVICES = "SELECT COUNT(*) FROM device_keys WHERE user_id = $1"
_GET_PUBLISHED = "SELECT identity_key, document, published_at FROM device_keys WHERE device_id = $1"
_REPLACE_DOCUMENT = "UPDATE device_keys SET document = $2 WHERE device_id = $1"
_DEVICES_OF = (
    "SELECT device_id, identity_key, document FROM device_keys WHERE user_id = $1"
    " ORDER BY published_at DESC, device_id"
)

_GET_KEY = "SELECT document FROM one_time_keys WHERE device_id = $1 AND algorithm = $2 AND key_id = $3"
_ADD_KEY = (
    "INSERT INTO one_time_keys (device_id, algorithm, key_id, document, added_at, claimed_at)"
    " VALUES ($1, $2, $3, $4, $5, NULL)"
)
_COUNT_KEYS = (
    "SELECT algorithm, COUNT(*) FROM one_time_keys WHERE device_id = $1 AND claimed_at IS NULL"
    " GROUP BY algorithm ORDER BY algorithm"
)
_FIRST_KEY = (
    "SELECT key_id FROM one_time_keys WHERE device_id = $1 AND algorithm = $2 AND claimed_at IS NULL"
    " ORDER BY added_at, key_id LIMIT 1"
)
_CLAIM = {
    "sqlite": (
        "UPDATE one_time_keys SET claimed_at = $3 WHERE device_id = $1 AND algorithm = $2"  # noqa: S608
        f" AND key_id = ({_FIRST_KEY}) RETURNING key_id, document"
    ),
    # who claims at the same moment takes the next one, without waiting
    "postgres": (
        "UPDATE one_time_keys SET claimed_at = $3 WHERE device_id = $1 AND algorithm = $2"  # noqa: S608
        f" AND key_id = ({_FIRST_KEY} FOR UPDATE SKIP LOCKED) AND claimed_at IS NULL"
        " RETURNING key_id, document"
    ),
}
_PURGE = "UPDATE one_time_keys SET claimed_at = $1 WHERE claimed_at IS NULL"

_GET_FALLBACK = (
    "SELECT algorithm, key_id, document, added_at, used_at FROM fallback_keys"
    " WHERE device_id = $1 AND replaced_at IS NULL ORDER BY algorithm"
)
_USE_FALLBACK = (
    "UPDATE fallback_keys SET used_at = COALESCE(used_at, $3)"
    " WHERE device_id = $1 AND algorithm = $2 AND replaced_at IS NULL RETURNING key_id, document"
)
_RETIRE_FALLBACK = (
    "UPDATE fallback_keys SET replaced_at = $4"
    " WHERE device_id = $1 AND algorithm = $2 AND key_id <> $3 AND replaced_at IS NULL"
)
_DROP_RETIRED = (
    "DELETE FROM fallback_keys WHERE device_id = $1 AND algorithm = $2 AND key_id IN"  # noqa: S608
    " (SELECT key_id FROM fallback_keys WHERE device_id = $1 AND algorithm = $2 AND replaced_at IS NOT NULL"
    f" ORDER BY replaced_at DESC, key_id LIMIT {PRUNE_ROWS} OFFSET $3)"
)
_HELD_FALLBACK = (
    "SELECT document, replaced_at FROM fallback_keys WHERE device_id = $1 AND algorithm = $2 AND key_id = $3"
)
_ADD_FALLBACK = (
    "INSERT INTO fallback_keys (device_id, algorithm, key_id, document, added_at, used_at, replaced_at)"
    " VALUES ($1, $2, $3, $4, $5, NULL, NULL)"
)

_KEEP_CLAIM = (
    "INSERT INTO key_claims (device_id, claim_key, asked, answer, claimed_at) VALUES ($1, $2, $3, '', $4)"
    " ON CONFLICT (device_id, claim_key) DO UPDATE SET"
    " answer = CASE WHEN key_claims.claimed_at > $5 THEN key_claims.answer ELSE '' END,"
    " asked = CASE WHEN key_claims.claimed_at > $5 THEN key_claims.asked ELSE excluded.asked END,"
    " claimed_at = CASE WHEN key_claims.claimed_at > $5 THEN key_claims.claimed_at"
    " ELSE excluded.claimed_at END RETURNING asked, answer"
)
_ANSWER_CLAIM = "UPDATE key_claims SET answer = $3 WHERE device_id = $1 AND claim_key = $2"

_DEVICE_OF_SESSION = "SELECT device_id, user_id FROM sessions WHERE session_id = $1"
_ORPHANS = (
    f"SELECT k.device_id, k.user_id FROM device_keys k WHERE NOT EXISTS"  # noqa: S608
    f" (SELECT 1 FROM sessions s WHERE s.device_id = k.device_id AND s.ended_at IS NULL)"
    f" ORDER BY k.device_id LIMIT {FORGOTTEN_AT_ONCE}"
)
_FORGET = (
    "DELETE FROM one_time_keys WHERE device_id = $1",
    "DELETE FROM fallback_keys WHERE device_id = $1",
    "DELETE FROM key_claims WHERE device_id = $1",
    "DELETE FROM inbox_messages WHERE device_id = $1",
    "DELETE FROM inbox_sendings WHERE device_id = $1",
    "DELETE FROM inboxes WHERE device_id = $1",
)
_FORGET_DEVICE = "DELETE FROM device_keys WHERE device_id = $1 RETURNING user_id"
_FORGET_SIGNATURES = "DELETE FROM key_signatures WHERE user_id = $1 AND target = $2"
_PRUNE = (
    f"DELETE FROM one_time_keys WHERE (device_id, algorithm, key_id) IN (SELECT device_id, algorithm, key_id"  # noqa: S608
    f" FROM one_time_keys WHERE claimed_at IS NOT NULL AND claimed_at < $1 LIMIT {PRUNE_ROWS})",
    f"DELETE FROM fallback_keys WHERE (device_id, algorithm, key_id) IN (SELECT device_id, algorithm, key_id"  # noqa: S608
    f" FROM fallback_keys WHERE replaced_at IS NOT NULL AND replaced_at < $1 LIMIT {PRUNE_ROWS})",
    f"DELETE FROM key_claims WHERE (device_id, claim_key) IN (SELECT device_id, claim_key"  # noqa: S608
    f" FROM key_claims WHERE claimed_at < $1 LIMIT {PRUNE_ROWS})",
    f"DELETE FROM key_changes WHERE device_id IN (SELECT device_id"  # noqa: S608
    f" FROM key_changes WHERE changed_at < $1 LIMIT {PRUNE_ROWS})",
    f"DELETE FROM key_departures WHERE (conversation_id, user_id) IN (SELECT conversation_id, user_id"  # noqa: S608
    f" FROM key_departures WHERE left_at < $1 LIMIT {PRUNE_ROWS})",
    f"DELETE FROM inbox_sendings WHERE (device_id, txn) IN (SELECT device_id, txn"  # noqa: S608
    f" FROM inbox_sendings WHERE sent_at < $1 LIMIT {PRUNE_ROWS})",
)

# the update locks: whoever changes a person's keys or signatures does so one after the other
_LOCK_USER = "UPDATE users SET user_id = user_id WHERE user_id = $1 RETURNING user_id"
_PUT_CROSS = (
    "INSERT INTO cross_signing_keys (user_id, usage, public_key, document) VALUES ($1, $2, $3, $4)"
    " ON CONFLICT (user_id, usage) DO UPDATE SET public_key = excluded.public_key,"
    " document = excluded.document"
)
_CROSS_OF = "SELECT usage, public_key, document FROM cross_signing_keys WHERE user_id = $1"
_PUT_SIGNATURE = (
    "INSERT INTO key_signatures (signer_id, user_id, target, signing_key, signature)"
    " VALUES ($1, $2, $3, $4, $5) ON CONFLICT (signer_id, user_id, target, signing_key)"
    " DO UPDATE SET signature = excluded.signature"
)
_SIGNATURES_FOR = (
    "SELECT target, signer_id, signing_key, signature FROM key_signatures"
    " WHERE user_id = $1 AND signer_id IN ($1, $2)"
)
_DROP_SIGNATURES = (
    "DELETE FROM key_signatures WHERE (signer_id = $1 AND signing_key = $3) OR (user_id = $1 AND target = $2)"
)


class Published(NamedTuple):
    """document: None of a device that only knows bundles."""

    identity_key: str
    document: str | None
    published_us: int


class DeviceKeys(NamedTuple):
    device_id: DeviceId
    identity_key: str
    document: str | None


class Fallback(NamedTuple):
    algorithm: str
    key_id: str
    document: str
    added_us: int
    used_us: int | None


class Handed(NamedTuple):
    key_id: str
    document: str


class CrossKey(NamedTuple):
    usage: Literal["master", "self_signing", "user_signing"]
    public_key: str
    document: str


class Signature(NamedTuple):
    target: str
    signer_id: UserId
    signing_key: str
    signature: str


async def publish(
    tx: Tx, device: DeviceId, user: UserId, identity_key: str, document: str | None, now_us: int
) -> Published:
    """What is published of the device, held by this transaction: this, unless there was something."""
    row = await tx.one(_PUBLISH, device, user, identity_key, document, now_us)
    assert row is not None
    return Published(*row)


async def lock(tx: Tx, device: DeviceId) -> Published | None:
    row = await tx.one(_LOCK, device)
    return Published(*row) if row else None


async def published(tx: Tx, device: DeviceId) -> Published | None:
    row = await tx.one(_GET_PUBLISHED, device)
    return Published(*row) if row else None


async def count_devices(tx: Tx, user: UserId) -> int:
    row = await tx.one(_COUNT_DEVICES, user)
    assert row is not None
    return int(row[0])


async def replace_document(tx: Tx, device: DeviceId, document: str) -> None:
    await tx.run(_REPLACE_DOCUMENT, device, document)


async def devices_of(tx: Tx, user: UserId) -> list[DeviceKeys]:
    """The newest first."""
    return [DeviceKeys(*row) for row in await tx.all(_DEVICES_OF, user)]


async def get_one_time_key(tx: Tx, device: DeviceId, algorithm: str, key_id: str) -> str | None:
    row = await tx.one(_GET_KEY, device, algorithm, key_id)
    return row[0] if row else None


async def add_one_time_keys(
    tx: Tx, device: DeviceId, keys: Sequence[tuple[str, str, str]], now_us: int
) -> None:
    """keys: algorithm, id, document."""
    await tx.many(_ADD_KEY, [(device, *key, now_us) for key in keys])


async def count_keys(tx: Tx, device: DeviceId) -> dict[str, int]:
    """By algorithm; those of which there is none are missing."""
    return dict(await tx.all(_COUNT_KEYS, device))


async def claim(tx: Tx, device: DeviceId, algorithm: str, now_us: int) -> Handed | None:
    """The oldest one-time key, which nobody else is given."""
    row = await tx.one(_CLAIM[tx.dialect], device, algorithm, now_us)
    return Handed(*row) if row else None


async def purge(tx: Tx, now_us: int) -> int:
    """None of the one-time keys there are is handed out any more."""
    return await tx.run(_PURGE, now_us)


async def fallbacks(tx: Tx, device: DeviceId) -> list[Fallback]:
    return [Fallback(*row) for row in await tx.all(_GET_FALLBACK, device)]


async def use_fallback(tx: Tx, device: DeviceId, algorithm: str, now_us: int) -> Handed | None:
    row = await tx.one(_USE_FALLBACK, device, algorithm, now_us)
    return Handed(*row) if row else None


async def held_fallback(
    tx: Tx, device: DeviceId, algorithm: str, key_id: str
) -> tuple[str, int | None] | None:
    """The document of this or an earlier one, and when it was replaced."""
    row = await tx.one(_HELD_FALLBACK, device, algorithm, key_id)
    return (row[0], row[1]) if row else None


async def put_fallback(
    tx: Tx, device: DeviceId, algorithm: str, key_id: str, document: str, *, now_us: int, kept: int
) -> None:
    """From now on this one is handed out. Of those it replaces, so many of the latest are kept."""
    await tx.run(_RETIRE_FALLBACK, device, algorithm, key_id, now_us)
    await tx.run(_DROP_RETIRED, device, algorithm, kept)
    await tx.run(_ADD_FALLBACK, device, algorithm, key_id, document, now_us)


async def begin_claim(
    tx: Tx, device: DeviceId, claim_key: str, asked: bytes, *, now_us: int, since_us: int
) -> tuple[bytes, str]:
    """What was asked under this key since then, and its answer; held by this transaction. An empty answer:
    nothing was, and the answer to this is to be kept."""
    row = await tx.one(_KEEP_CLAIM, device, claim_key, asked, now_us, since_us)
    assert row is not None
    return bytes(row[0]), row[1]


async def keep_answer(tx: Tx, device: DeviceId, claim_key: str, answer: str) -> None:
    await tx.run(_ANSWER_CLAIM, device, claim_key, answer)


async def device_of_session(tx: Tx, session: SessionId) -> tuple[DeviceId, UserId] | None:
    row = await tx.one(_DEVICE_OF_SESSION, session)
    return (DeviceId(row[0]), UserId(row[1])) if row else None


async def orphans(tx: Tx) -> list[tuple[DeviceId, UserId]]:
    """Devices with keys and without a session, at most `FORGOTTEN_AT_ONCE`."""
    return [(DeviceId(row[0]), UserId(row[1])) for row in await tx.all(_ORPHANS)]


async def forget(tx: Tx, device: DeviceId) -> bool:
    """Delete the device's keys, and what waits for it. False when it had none."""
    row = await tx.one(_FORGET_DEVICE, device)
    for statement in _FORGET:
        await tx.run(statement, device)
    if row is not None:
        await tx.run(_FORGET_SIGNATURES, row[0], device)
    return row is not None


async def prune(tx: Tx, kind: int, before_us: int) -> int:
    """Delete up to PRUNE_ROWS rows of one kind that are older. Returns how many.
    kind: claimed keys, replaced fallback keys, claims, changes, departures, sendings."""
    return await tx.run(_PRUNE[kind], before_us)


async def lock_user(tx: Tx, user: UserId) -> None:
    await tx.one(_LOCK_USER, user)


async def put_cross_key(tx: Tx, user: UserId, key: CrossKey) -> None:
    await tx.run(_PUT_CROSS, user, *key)


async def cross_keys(tx: Tx, user: UserId) -> dict[str, CrossKey]:
    """By usage."""
    found = [CrossKey(*row) for row in await tx.all(_CROSS_OF, user)]
    return {each.usage: each for each in found}


async def put_signature(tx: Tx, user: UserId, given: Signature) -> None:
    """user: whose key is signed."""
    await tx.run(_PUT_SIGNATURE, given.signer_id, user, given.target, given.signing_key, given.signature)


async def signatures_for(tx: Tx, user: UserId, viewer: UserId) -> list[Signature]:
    """Of the keys of `user`: by themselves, and by whoever looks."""
    rows: list[tuple[Any, ...]] = await tx.all(_SIGNATURES_FOR, user, viewer)
    return [Signature(*row) for row in rows]


async def drop_signatures(tx: Tx, user: UserId, public_key: str) -> None:
    """Those made by this key of the person, and those of it."""
    await tx.run(_DROP_SIGNATURES, user, public_key, f"ed25519:{public_key}")
