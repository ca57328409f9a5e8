"""The SQL of pushes: where they go, and those that wait."""

from __future__ import annotations

from typing import Literal, NamedTuple

from ...deps.contracts import Tx
from ...identity import DeviceId, NotificationId, UserId

EXPIRE_ROWS = 1_000  # deleted in one transaction

Service = Literal["fcm", "webpush"]


class Registration(NamedTuple):
    """sealed: the token or address."""

    device_id: DeviceId
    service: Service
    sealed: bytes
    registered_us: int


class Waiting(NamedTuple):
    """A push that was taken to be sent.  attempts: this one included.  was_here: it was put off before,
    because its person was connected.  claim: whose it is."""

    device_id: DeviceId
    topic: str
    user_id: UserId
    notification_id: NotificationId
    attempts: int
    was_here: bool
    expires_us: int
    claim: str


# where they go

_REGISTER = (
    "INSERT INTO push_devices (device_id, user_id, service, target, sealed, registered_at)"
    " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (device_id) DO UPDATE SET user_id = excluded.user_id,"
    " service = excluded.service, target = excluded.target, sealed = excluded.sealed,"
    " registered_at = excluded.registered_at"
)
_ELSEWHERE = "SELECT device_id FROM push_devices WHERE target = $1 AND device_id <> $2"
_TOO_MANY = (
    "SELECT device_id FROM push_devices WHERE user_id = $1 ORDER BY registered_at DESC, device_id LIMIT 1000"
    " OFFSET $2"
)
_OF_USER = (
    "SELECT device_id, service, sealed, registered_at FROM push_devices WHERE user_id = $1 ORDER BY device_id"
)
_GET = (
    "SELECT device_id, service, sealed, registered_at FROM push_devices WHERE device_id = $1 AND user_id = $2"
)
_UNREGISTER = (
    "DELETE FROM pushes WHERE device_id = $1",
    "DELETE FROM push_devices WHERE device_id = $1",
)
_UNREGISTER_IF = "DELETE FROM push_devices WHERE device_id = $1 AND registered_at = $2"
_FORGET = (
    "DELETE FROM pushes WHERE user_id = $1",
    "DELETE FROM push_devices WHERE user_id = $1",
)


async def register(
    tx: Tx,
    device: DeviceId,
    user: UserId,
    service: Service,
    *,
    target: bytes,
    sealed: bytes,
    most: int,
    now_us: int,
) -> None:
    """In the place of what this device had.  target: whoever else had that has it no more.  most: devices of
    one person; the oldest give way."""
    for row in await tx.all(_ELSEWHERE, target, device):
        await unregister(tx, row[0])
    await tx.run(_REGISTER, device, user, service, target, sealed, now_us)
    for row in await tx.all(_TOO_MANY, user, most):
        await unregister(tx, row[0])


async def unregister(tx: Tx, device: DeviceId) -> None:
    for statement in _UNREGISTER:
        await tx.run(statement, device)


async def unregister_unless_renewed(tx: Tx, known: Registration) -> None:
    """Nobody is there any more, unless the device has said something else meanwhile."""
    await tx.run(_UNREGISTER_IF, known.device_id, known.registered_us)


async def registrations(tx: Tx, user: UserId) -> list[Registration]:
    return [_registration(*row) for row in await tx.all(_OF_USER, user)]


async def registration(tx: Tx, device: DeviceId, user: UserId) -> Registration | None:
    row = await tx.one(_GET, device, user)
    return _registration(*row) if row else None


async def forget(tx: Tx, user: UserId) -> None:
    for statement in _FORGET:
        await tx.run(statement, user)


def _registration(device: DeviceId, service: Service, sealed: bytes, registered_us: int) -> Registration:
    return Registration(device, service, bytes(sealed), registered_us)


# those that wait

_DEVICES = "SELECT device_id FROM push_devices WHERE user_id = $1 ORDER BY device_id"
# one that is tried just now, or was put off because they were connected, is due again for the new one
_QUEUE = (
    "INSERT INTO pushes (device_id, topic, user_id, notification_id, due_at, expires_at)"
    " VALUES ($1, $2, $3, $4, $5, $6)"
    " ON CONFLICT (device_id, topic) DO UPDATE SET notification_id = excluded.notification_id,"
    " due_at = CASE WHEN pushes.was_here OR pushes.claim IS NOT NULL THEN excluded.due_at"
    " ELSE pushes.due_at END, expires_at = excluded.expires_at, was_here = false, claim = NULL"
)
_DUE = "SELECT (SELECT MIN(due_at) FROM pushes), (SELECT MIN(expires_at) FROM pushes)"
_EXPIRE = (
    "DELETE FROM pushes WHERE (device_id, topic) IN"  # noqa: S608
    f" (SELECT device_id, topic FROM pushes WHERE expires_at <= $1 LIMIT {EXPIRE_ROWS})"
)
# two nodes that choose the same row: the second finds, once it has the lock, that it is due no longer
_TAKE = (
    "UPDATE pushes SET claim = $2, due_at = $3, attempts = attempts + 1 WHERE due_at <= $1"
    " AND (device_id, topic) = (SELECT device_id, topic FROM pushes WHERE due_at <= $1 AND expires_at > $1"
    " ORDER BY due_at LIMIT 1)"
    " RETURNING device_id, topic, user_id, notification_id, attempts, was_here, expires_at"
)
_DONE = "DELETE FROM pushes WHERE device_id = $1 AND topic = $2 AND claim = $3"
_PUT_OFF = (
    "UPDATE pushes SET due_at = $4, was_here = $5, claim = NULL"
    " WHERE device_id = $1 AND topic = $2 AND claim = $3"
)


async def queue(
    tx: Tx, user: UserId, topic: str, notification: NotificationId, *, due_us: int, expires_us: int
) -> None:
    """One for each device of theirs."""
    devices = await tx.all(_DEVICES, user)
    await tx.many(_QUEUE, [(row[0], topic, user, notification, due_us, expires_us) for row in devices])


async def next_due(tx: Tx) -> tuple[int | None, int | None]:
    """When the first is due, and when the first is of no use any more."""
    row = await tx.one(_DUE)
    return (row[0], row[1]) if row else (None, None)


async def expire(tx: Tx, now_us: int) -> int:
    """How many of those of no use are gone by this: at most EXPIRE_ROWS."""
    return await tx.run(_EXPIRE, now_us)


async def take(tx: Tx, claim: str, now_us: int, until_us: int) -> Waiting | None:
    """One that is due; nobody else takes it until then."""
    row = await tx.one(_TAKE, now_us, claim, until_us)
    if row is None:
        return None
    return Waiting._make((*row[:5], bool(row[5]), row[6], claim))


async def done(tx: Tx, push: Waiting) -> None:
    """Unless a newer one has taken its place."""
    await tx.run(_DONE, push.device_id, push.topic, push.claim)


async def put_off(tx: Tx, push: Waiting, due_us: int, *, is_here: bool) -> None:
    await tx.run(_PUT_OFF, push.device_id, push.topic, push.claim, due_us, is_here)
