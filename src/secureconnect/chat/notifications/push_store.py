"""The SQL of pushes: where they go, and those that wait."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from ...deps.contracts import Tx
from ...identity import CallId, ConversationId, DeviceId, MessageId, NotificationId, UserId
from .store import Notify

EXPIRE_ROWS = 1_000  # deleted in one transaction

Service = Literal["fcm", "webpush"]
Ring = Literal["incoming", "cancelled", "missed"]


class Registration(NamedTuple):
    """sealed: the token or address."""

    device_id: DeviceId
    service: Service
    sealed: bytes
    registered_us: int


class Waiting(NamedTuple):
    """A push that was taken to be sent.  about: the notification, or, where there is a seq, the message of a
    group; the call that rings, or does no more.  ring: of a call, and missed of the notification of one.
    attempts: made in vain.  was_here: it was put off before, because its person was connected.  claim: whose
    it is."""

    device_id: DeviceId
    topic: str
    user_id: UserId
    about: str
    seq: int | None
    ring: Ring | None
    attempts: int
    was_here: bool
    expires_us: int
    claim: str


class Listener(NamedTuple):
    """A member of a group whom something concerns that was said there, and its last message that they have
    not read.  notify: what they chose for it.  chosen: their preferences, JSON; None: as for everybody."""

    user_id: UserId
    notify: Notify | None
    chosen: str | None
    message_id: MessageId
    seq: int


# where they go

_REGISTER = (
    "INSERT INTO push_devices (device_id, user_id, service, way, target, sealed, registered_at)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING RETURNING device_id"
)
_REPLACED = "DELETE FROM push_devices WHERE device_id = $1"
_GO_THERE = "UPDATE pushes SET way = $2 WHERE device_id = $1"
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
    way: str,
    target: bytes,
    sealed: bytes,
    most: int,
    now_us: int,
) -> bool:
    """In the place of what this device had.  way: the push service.  target: whoever else had that has it no
    more.  most: devices of one person; the oldest give way.  False when somebody registers the same at the
    same time: try again."""
    for row in await tx.all(_ELSEWHERE, target, device):
        await unregister(tx, row[0])
    await tx.run(_REPLACED, device)
    if await tx.one(_REGISTER, device, user, service, way, target, sealed, now_us) is None:
        return False
    await tx.run(_GO_THERE, device, way)
    for row in await tx.all(_TOO_MANY, user, most):
        await unregister(tx, row[0])
    return True


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

_DEVICES = "SELECT device_id, way FROM push_devices WHERE user_id = $1 ORDER BY device_id"
# one that is tried just now, or was put off because they were connected, is due again for the new one
_QUEUE = (
    "INSERT INTO pushes (device_id, way, topic, user_id, notification_id, seq, due_at, expires_at)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
    " ON CONFLICT (device_id, topic) DO UPDATE SET notification_id = excluded.notification_id,"
    " seq = excluded.seq, way = excluded.way, ring = NULL,"
    " due_at = CASE WHEN pushes.was_here OR pushes.claim IS NOT NULL THEN excluded.due_at"
    " ELSE pushes.due_at END, expires_at = excluded.expires_at, was_here = false, claim = NULL"
)
_RING = (
    "INSERT INTO pushes (device_id, way, topic, user_id, notification_id, ring, due_at, expires_at)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
    " ON CONFLICT (device_id, topic) DO UPDATE SET notification_id = excluded.notification_id,"
    " seq = NULL, way = excluded.way, ring = excluded.ring, due_at = excluded.due_at,"
    " expires_at = excluded.expires_at, was_here = false, claim = NULL, attempts = 0"
)
_UNRING = (
    "DELETE FROM pushes WHERE user_id = $1 AND topic = $2 AND ring = 'incoming' AND claim IS NULL"
    " AND attempts = 0 RETURNING device_id"
)
_DUE = "SELECT (SELECT MIN(due_at) FROM pushes), (SELECT MIN(expires_at) FROM pushes)"
_WAYS_DUE = "SELECT way FROM pushes WHERE due_at <= $1 GROUP BY way ORDER BY MIN(due_at) LIMIT $2"
_EXPIRE = (
    "DELETE FROM pushes WHERE (device_id, topic) IN"  # noqa: S608
    f" (SELECT device_id, topic FROM pushes WHERE expires_at <= $1 LIMIT {EXPIRE_ROWS})"
)
# two nodes that choose the same row: the second finds, once it has the lock, that it is due no longer
_TAKE = (
    "UPDATE pushes SET claim = $3, due_at = $4 WHERE due_at <= $2"
    " AND (device_id, topic) IN (SELECT device_id, topic FROM pushes"
    " WHERE way = $1 AND due_at <= $2 AND expires_at > $2 ORDER BY due_at LIMIT $5)"
    " RETURNING device_id, topic, user_id, notification_id, seq, ring, attempts, was_here, expires_at"
)
_LEAVE_ALONE = "UPDATE pushes SET due_at = $3 WHERE way = $1 AND due_at <= $2"
_DONE = "DELETE FROM pushes WHERE device_id = $1 AND topic = $2 AND claim = $3"
_PUT_OFF = (
    "UPDATE pushes SET due_at = $4, was_here = $5, attempts = $6, claim = NULL"
    " WHERE device_id = $1 AND topic = $2 AND claim = $3"
)


async def queue(
    tx: Tx,
    user: UserId,
    topic: str,
    about: NotificationId | MessageId,
    seq: int | None,
    *,
    due_us: int,
    expires_us: int,
) -> None:
    """One for each device of theirs.  about, seq: of `Waiting`."""
    devices = await tx.all(_DEVICES, user)
    await tx.many(_QUEUE, [(*row, topic, user, about, seq, due_us, expires_us) for row in devices])


async def ring(
    tx: Tx,
    user: UserId,
    call: CallId,
    about: CallId | NotificationId,
    ring: Ring,
    due_us: int,
    expires_us: int,
    spared: Sequence[DeviceId] = (),
) -> None:
    """One about a call, in the place of an earlier one, for each device of theirs but those spared."""
    devices = [row for row in await tx.all(_DEVICES, user) if row[0] not in spared]
    await tx.many(_RING, [(*row, call, user, about, ring, due_us, expires_us) for row in devices])


async def unring(tx: Tx, user: UserId, call: CallId) -> list[DeviceId]:
    """The devices that were about to be woken for a call, and are not."""
    return [row[0] for row in await tx.all(_UNRING, user, call)]


async def next_due(tx: Tx) -> tuple[int | None, int | None]:
    """When the first is due, and when the first is of no use any more."""
    row = await tx.one(_DUE)
    return (row[0], row[1]) if row else (None, None)


async def ways_due(tx: Tx, now_us: int, limit: int) -> list[str]:
    """The push services for which something is due, that for which something waits longest first."""
    return [row[0] for row in await tx.all(_WAYS_DUE, now_us, limit)]


async def expire(tx: Tx, now_us: int) -> int:
    """How many of those of no use are gone by this: at most EXPIRE_ROWS."""
    return await tx.run(_EXPIRE, now_us)


async def take(tx: Tx, way: str, claim: str, now_us: int, until_us: int, most: int) -> list[Waiting]:
    """Some that are due; nobody else takes them until then."""
    rows = await tx.all(_TAKE, way, now_us, claim, until_us, most)
    return [Waiting._make((*row[:7], bool(row[7]), row[8], claim)) for row in rows]


async def leave_alone(tx: Tx, way: str, now_us: int, until_us: int) -> None:
    """What is due for a push service that is away is due then."""
    await tx.run(_LEAVE_ALONE, way, now_us, until_us)


async def done(tx: Tx, push: Waiting) -> None:
    """Unless a newer one has taken its place."""
    await tx.run(_DONE, push.device_id, push.topic, push.claim)


async def put_off(tx: Tx, push: Waiting, due_us: int) -> None:
    """What else it says of `push` is written, too."""
    await tx.run(_PUT_OFF, push.device_id, push.topic, push.claim, due_us, push.was_here, push.attempts)


# what is said in groups


def _concerned(rung: str, who: str) -> str:
    """The last message of others that members have not read.  rung: those up to it do not count.  who: which
    members."""
    return (
        "SELECT k.user_id, k.notify, k.chosen, g.message_id, g.seq"  # noqa: S608
        " FROM (SELECT m.user_id, m.notify, p.chosen, (SELECT g.message_id FROM messages g"
        " WHERE g.conversation_id = m.conversation_id"
        # one bound, or SQLite reads all that is unread
        f" AND g.seq > CASE WHEN {rung} > m.last_read_seq THEN {rung} ELSE m.last_read_seq END"
        " AND g.seq >= m.visible_from_seq"
        " AND g.sender_id <> m.user_id AND g.deleted_at IS NULL AND g.message_type <> 'system'"
        " AND (g.expires_at IS NULL OR g.expires_at > $2) AND NOT EXISTS (SELECT 1 FROM blocks b"
        " WHERE (b.user_id = m.user_id AND b.blocked_id = g.sender_id)"
        " OR (b.user_id = g.sender_id AND b.blocked_id = m.user_id))"
        " ORDER BY g.seq DESC LIMIT 1) AS message_id"
        " FROM members m LEFT JOIN notification_preferences p ON p.user_id = m.user_id"
        f" WHERE m.conversation_id = $1 AND {who} AND (m.muted_until IS NULL OR m.muted_until <= $2)) k"
        " JOIN messages g ON g.message_id = k.message_id ORDER BY k.user_id"
    )


_LISTENERS = _concerned(
    "m.rung_seq",
    "EXISTS (SELECT 1 FROM conversations c WHERE c.conversation_id = $1 AND c.type = 'group')"
    " AND EXISTS (SELECT 1 FROM push_devices d WHERE d.user_id = m.user_id)",
)
_LISTENER = _concerned("m.rung_seq - 1", "m.user_id = $3")
_RUNG = (
    "UPDATE members SET rung_seq = $3 WHERE conversation_id = $1 AND user_id = $2 AND rung_seq < $3"
    " RETURNING user_id"
)
_UNRUNG = (
    "SELECT c.conversation_id FROM conversations c WHERE c.touched_at >= $1 AND c.type = 'group'"
    " AND EXISTS (SELECT 1 FROM members m JOIN push_devices d ON d.user_id = m.user_id"
    " WHERE m.conversation_id = c.conversation_id AND m.last_read_seq < c.last_seq"
    " AND m.rung_seq < c.last_seq) ORDER BY c.touched_at LIMIT $2"
)


async def listeners(tx: Tx, group: ConversationId, now_us: int) -> list[Listener]:
    """Members with a device whom something concerns for which it was not woken yet, by id. Not who has muted
    it; nobody where it is no group."""
    return [Listener._make(row) for row in await tx.all(_LISTENERS, group, now_us)]


async def listener(tx: Tx, group: str, user: UserId, now_us: int) -> Listener | None:
    """The same of one for whom theirs were to be woken. None: not any more."""
    row = await tx.one(_LISTENER, group, now_us, user)
    return Listener._make(row) if row else None


async def rung(tx: Tx, conversation: ConversationId, user: UserId, seq: int) -> bool:
    """Up to that message their devices are woken by whoever asks this. False: they were before."""
    return await tx.one(_RUNG, conversation, user, seq) is not None


async def unrung(tx: Tx, since_us: int, limit: int) -> list[ConversationId]:
    """Groups touched since in which somebody may be left to wake, the longest ago first."""
    return [row[0] for row in await tx.all(_UNRUNG, since_us, limit)]
