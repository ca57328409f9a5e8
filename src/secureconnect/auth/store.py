"""The SQL of this room: users, devices, sessions, refresh tokens, revocations and tickets. What people decide
about themselves and each other has SQL of its own, in the folders beside this file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..deps.contracts import Tx
from ..identity import DeviceId, Role, SessionId, UserId

PRUNE_ROWS = 1_000  # rows deleted in one transaction: the writer is not held longer than a few milliseconds

NO_ID = "00000000-0000-0000-0000-000000000000"  # before every other

USER = (
    "u.user_id, u.username, u.email, u.display_name, u.avatar_url, u.role, u.created_at, u.delete_at,"
    " u.email_verified_at"
)

_ADD_USER = (
    "INSERT INTO users (user_id, username, username_key, email, email_key, display_name, display_key,"
    " avatar_url, role, password_hash, created_at, updated_at)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7, NULL, $10, $8, $9, $9) ON CONFLICT DO NOTHING RETURNING user_id"
)
_EMAIL_TAKEN = "SELECT 1 FROM users WHERE email_key = $1"
_GET_USER = f"SELECT {USER} FROM users u WHERE u.user_id = $1"  # noqa: S608
_BY_EMAIL = "SELECT user_id, password_hash FROM users WHERE email_key = $1"
_BY_USERNAME = "SELECT user_id, password_hash FROM users WHERE username_key = $1"
_BY_ID = "SELECT user_id, password_hash FROM users WHERE user_id = $1"
# what it sets to itself is in no index, for SQLite would write that again; and its RETURNING knows no alias
_LOCK_USER = (
    f"UPDATE users SET role = role WHERE user_id = $1 RETURNING password_hash, {USER.replace('u.', '')}"  # noqa: S608
)
_REHASH = "UPDATE users SET password_hash = $3 WHERE user_id = $1 AND password_hash = $2"
_CHANGE_PASSWORD = "UPDATE users SET password_hash = $2, updated_at = $3 WHERE user_id = $1"  # noqa: S105
# tier: names that begin with the text come before names that contain it
_SEARCH = (
    f"SELECT u.tier, u.username_key, {USER} FROM (SELECT f.*,"  # noqa: S608
    " CASE WHEN username_key LIKE $1 ESCAPE '!' THEN 0 WHEN display_key LIKE $1 ESCAPE '!' THEN 1 ELSE 2 END"
    " AS tier FROM users f"
    " WHERE user_id <> $3 AND (username_key LIKE $2 ESCAPE '!' OR display_key LIKE $2 ESCAPE '!')"
    " AND is_searchable AND delete_at IS NULL AND erased_at IS NULL AND NOT EXISTS (SELECT 1 FROM bans"
    " WHERE bans.user_id = f.user_id AND (bans.until_at IS NULL OR bans.until_at > $7))) AS u"
    " WHERE (u.tier > $4 OR (u.tier = $4 AND u.username_key > $5)) AND NOT EXISTS (SELECT 1 FROM blocks b"
    " WHERE (b.user_id = $3 AND b.blocked_id = u.user_id) OR (b.user_id = u.user_id AND b.blocked_id = $3))"
    " ORDER BY u.tier, u.username_key LIMIT $6"
)
# what auth has of `chat.presence.store.visible`: presence reaches only these
_SEES = (
    "SELECT 1 FROM members mine JOIN members other ON other.conversation_id = mine.conversation_id"
    " WHERE mine.user_id = $1 AND other.user_id = $2 AND NOT EXISTS (SELECT 1 FROM blocks b"
    " WHERE (b.user_id = $1 AND b.blocked_id = $2) OR (b.user_id = $2 AND b.blocked_id = $1)) LIMIT 1"
)

_ADD_DEVICE = (
    "INSERT INTO devices (device_id, user_id, name, secret_hash, created_at) VALUES ($1, $2, $3, $4, $5)"
)
_KNOW_DEVICE = "SELECT secret_hash FROM devices WHERE device_id = $1 AND user_id = $2"
_HAS_ANOTHER_DEVICE = "SELECT 1 FROM devices WHERE user_id = $1 AND device_id <> $2 LIMIT 1"
_RENAME_DEVICE = "UPDATE devices SET name = $2 WHERE device_id = $1"
_LIST_DEVICES = "SELECT device_id, name, created_at FROM devices WHERE user_id = $1 ORDER BY device_id"

_ADD_SESSION = (
    "INSERT INTO sessions (session_id, user_id, device_id, address, user_agent, created_at, last_seen_at,"
    " expires_at, ended_at) VALUES ($1, $2, $3, $4, $5, $6, $6, $7, NULL)"
)
_GET_SESSION = (
    "SELECT s.user_id, s.device_id, u.role, s.ended_at FROM sessions s JOIN users u ON u.user_id = s.user_id"
    " WHERE s.session_id = $1"
)
_LOCK_SESSION = (
    "UPDATE sessions SET session_id = session_id"
    " WHERE session_id = (SELECT session_id FROM refresh_tokens WHERE token_hash = $1)"
    " RETURNING session_id, user_id, device_id, ended_at"
)
_TOUCH_SESSION = (
    "UPDATE sessions SET address = $2, user_agent = $3, last_seen_at = $4, expires_at = $5"
    " WHERE session_id = $1"
)
_LIVE = (
    "SELECT s.session_id, s.device_id, d.name, s.address, s.user_agent, s.created_at, s.last_seen_at,"
    " s.expires_at FROM sessions s JOIN devices d ON d.device_id = s.device_id WHERE s.user_id = $1"
    " AND s.ended_at IS NULL AND s.expires_at > $2"
)
_SIGNED_IN = (
    "SELECT DISTINCT device_id FROM sessions WHERE user_id = $1 AND ended_at IS NULL AND expires_at > $2"
)
_LIST_SESSIONS = f"{_LIVE} AND s.session_id < $3 ORDER BY s.session_id DESC LIMIT $4"
_GET_LIVE = f"{_LIVE} AND s.session_id = $3"
_END_ONE = (
    "UPDATE sessions SET ended_at = $3 WHERE session_id = $1 AND user_id = $2 AND ended_at IS NULL"
    " RETURNING session_id"
)
_END_AGAIN = (
    "UPDATE sessions SET ended_at = $2 WHERE session_id = $1 AND ended_at IS NULL"
    " RETURNING session_id, user_id"
)
_END_UP_TO = (
    "UPDATE sessions SET ended_at = $3 WHERE user_id = $1 AND created_at <= $2 AND ended_at IS NULL"
    " RETURNING session_id, user_id"
)
_END_OF_DEVICE = (
    "UPDATE sessions SET ended_at = $2 WHERE device_id = $1 AND ended_at IS NULL RETURNING session_id"
)
_END_OF_USER = (
    "UPDATE sessions SET ended_at = $2 WHERE user_id = $1 AND ended_at IS NULL RETURNING session_id"
)
_END_ALL = "UPDATE sessions SET ended_at = $1 WHERE ended_at IS NULL"
_DROP_REFRESH_TOKENS = "DELETE FROM refresh_tokens"
_DROP_TICKETS = "DELETE FROM tickets"
_END_OTHERS = (
    "UPDATE sessions SET ended_at = $3 WHERE user_id = $1 AND session_id <> $2 AND ended_at IS NULL"
    " RETURNING session_id"
)

_ADD_REFRESH = (
    "INSERT INTO refresh_tokens (token_hash, session_id, issued_at, expires_at, spent_at)"
    " VALUES ($1, $2, $3, $4, NULL)"
)
_GET_REFRESH = "SELECT expires_at, spent_at FROM refresh_tokens WHERE token_hash = $1"
_SPEND_REFRESH = "UPDATE refresh_tokens SET spent_at = $2 WHERE token_hash = $1"

_REVOKE = (
    "INSERT INTO revocations (session_id, revoked_at, until_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
)
_REVOKED_SINCE = (
    "SELECT session_id, revoked_at, until_at FROM revocations WHERE revoked_at >= $1 AND until_at > $2"
)

_ADD_TICKET = (
    "INSERT INTO tickets (ticket_hash, session_id, expires_at, token_ends_at) VALUES ($1, $2, $3, $4)"
)
_TAKE_TICKET = "DELETE FROM tickets WHERE ticket_hash = $1 RETURNING session_id, expires_at, token_ends_at"

_PRUNE = (
    f"DELETE FROM tickets WHERE ticket_hash IN"  # noqa: S608
    f" (SELECT ticket_hash FROM tickets WHERE expires_at <= $1 LIMIT {PRUNE_ROWS})",
    f"DELETE FROM refresh_tokens WHERE token_hash IN"  # noqa: S608
    f" (SELECT token_hash FROM refresh_tokens WHERE expires_at <= $1 LIMIT {PRUNE_ROWS})",
    # a session goes once nothing can name it: neither its newest refresh token nor an access token
    f"DELETE FROM sessions WHERE session_id IN (SELECT s.session_id FROM sessions s"  # noqa: S608
    f" LEFT JOIN revocations r ON r.session_id = s.session_id AND r.until_at > $1"
    f" WHERE s.expires_at <= $1 AND r.session_id IS NULL LIMIT {PRUNE_ROWS})",
    f"DELETE FROM revocations WHERE session_id IN"  # noqa: S608
    f" (SELECT session_id FROM revocations WHERE until_at <= $1 LIMIT {PRUNE_ROWS})",
)


class User(NamedTuple):
    user_id: UserId
    username: str
    email: str
    display_name: str
    avatar_url: str | None
    role: Role
    created_us: int
    delete_us: int | None = None
    email_verified_us: int | None = None


class Found(NamedTuple):
    """A user found by a search, and where it stands in the answer's order."""

    tier: int
    username_key: str
    user: User


class Password(NamedTuple):
    user_id: UserId
    password_hash: str


class Account(NamedTuple):
    password_hash: str
    user: User


class Session(NamedTuple):
    """What authentication must know.  ended_us: None while it lives."""

    user_id: UserId
    device_id: DeviceId
    role: Role
    ended_us: int | None


class Locked(NamedTuple):
    session_id: SessionId
    user_id: UserId
    device_id: DeviceId
    ended_us: int | None


class DeviceSession(NamedTuple):
    session_id: SessionId
    device_id: DeviceId
    device_name: str | None
    address: str
    user_agent: str
    created_us: int
    last_seen_us: int
    expires_us: int


class Device(NamedTuple):
    device_id: DeviceId
    name: str | None
    created_us: int


class Refresh(NamedTuple):
    expires_us: int
    spent_us: int | None


class Revocation(NamedTuple):
    session_id: SessionId
    revoked_us: int
    until_us: int


class Ticket(NamedTuple):
    session_id: SessionId
    expires_us: int
    token_ends_us: int


async def add_user(
    tx: Tx,
    user: User,
    *,
    username_key: str,
    email_key: str,
    display_key: str,
    password_hash: str,
) -> bool:
    """False when the e-mail address or the username is taken."""
    row = await tx.one(
        _ADD_USER,
        user.user_id,
        user.username,
        username_key,
        user.email,
        email_key,
        user.display_name,
        display_key,
        password_hash,
        user.created_us,
        user.role,
    )
    return row is not None


async def is_email_taken(tx: Tx, email_key: str) -> bool:
    return await tx.one(_EMAIL_TAKEN, email_key) is not None


async def get_user(tx: Tx, user: UserId) -> User | None:
    row = await tx.one(_GET_USER, user)
    return User(*row) if row else None


async def get_password(tx: Tx, email_key: str | None, username_key: str | None) -> Password | None:
    """By e-mail address if given, else by username."""
    if email_key is not None:
        row = await tx.one(_BY_EMAIL, email_key)
    else:
        row = await tx.one(_BY_USERNAME, username_key)
    return Password(*row) if row else None


async def get_password_of(tx: Tx, user: UserId) -> Password | None:
    row = await tx.one(_BY_ID, user)
    return Password(*row) if row else None


async def lock_account(tx: Tx, user: UserId) -> Account | None:
    """Held by this transaction until its end."""
    row = await tx.one(_LOCK_USER, user)
    return Account(row[0], User(*row[1:])) if row else None


async def replace_hash(tx: Tx, user: UserId, old: str, new: str) -> None:
    """Nothing happens when the password was changed meanwhile."""
    await tx.run(_REHASH, user, old, new)


async def change_password(tx: Tx, user: UserId, password_hash: str, now_us: int) -> None:
    await tx.run(_CHANGE_PASSWORD, user, password_hash, now_us)


async def search_users(
    tx: Tx, text: str, *, without: UserId, after: tuple[int, str], limit: int, now_us: int
) -> list[Found]:
    """text: folded; found anywhere in a username or display name.  after: place of the last one seen."""
    escaped = text.replace("!", "!!").replace("%", "!%").replace("_", "!_")
    rows = await tx.all(_SEARCH, f"{escaped}%", f"%{escaped}%", without, *after, limit, now_us)
    return [Found(tier, key, User(*user)) for tier, key, *user in rows]


async def sees_presence(tx: Tx, caller: UserId, users: Sequence[UserId]) -> list[UserId]:
    """Those of `users` whose presence the caller may see."""
    return [user for user in users if user == caller or await tx.one(_SEES, caller, user) is not None]


async def add_device(
    tx: Tx, device: DeviceId, user: UserId, name: str | None, secret_hash: bytes, now_us: int
) -> None:
    await tx.run(_ADD_DEVICE, device, user, name, secret_hash, now_us)


async def get_device_secret(tx: Tx, device: str, user: UserId) -> bytes | None:
    """The secret's hash; None when this is no device of this user."""
    row = await tx.one(_KNOW_DEVICE, device, user)
    return bytes(row[0]) if row else None


async def has_another_device(tx: Tx, user: UserId, device: DeviceId) -> bool:
    """Whether they have ever signed in from another one."""
    return await tx.one(_HAS_ANOTHER_DEVICE, user, device) is not None


async def rename_device(tx: Tx, device: DeviceId, name: str) -> None:
    await tx.run(_RENAME_DEVICE, device, name)


async def list_devices(tx: Tx, user: UserId) -> list[Device]:
    return [Device(*row) for row in await tx.all(_LIST_DEVICES, user)]


async def add_session(
    tx: Tx,
    session: SessionId,
    user: UserId,
    device: DeviceId,
    *,
    address: str,
    user_agent: str,
    now_us: int,
    expires_us: int,
) -> None:
    await tx.run(_ADD_SESSION, session, user, device, address, user_agent, now_us, expires_us)


async def get_session(tx: Tx, session: SessionId) -> Session | None:
    row = await tx.one(_GET_SESSION, session)
    return Session(*row) if row else None


async def lock_session(tx: Tx, token_hash: bytes) -> Locked | None:
    """The session of a refresh token, held by this transaction until its end."""
    row = await tx.one(_LOCK_SESSION, token_hash)
    return Locked(*row) if row else None


async def touch_session(
    tx: Tx, session: SessionId, *, address: str, user_agent: str, now_us: int, expires_us: int
) -> None:
    await tx.run(_TOUCH_SESSION, session, address, user_agent, now_us, expires_us)


async def list_sessions(
    tx: Tx, user: UserId, *, before: SessionId, limit: int, now_us: int
) -> list[DeviceSession]:
    """Live sessions, the newest first.  before: the last one seen."""
    return [DeviceSession(*row) for row in await tx.all(_LIST_SESSIONS, user, now_us, before, limit)]


async def signed_in(tx: Tx, user: UserId, now_us: int) -> frozenset[DeviceId]:
    """Their devices that have a session."""
    return frozenset(DeviceId(row[0]) for row in await tx.all(_SIGNED_IN, user, now_us))


async def get_live_session(tx: Tx, user: UserId, session: SessionId, now_us: int) -> DeviceSession | None:
    row = await tx.one(_GET_LIVE, user, now_us, session)
    return DeviceSession(*row) if row else None


async def end_session(tx: Tx, session: SessionId, user: UserId, now_us: int) -> frozenset[SessionId]:
    """Empty when this user has no such live session."""
    return _ids(await tx.all(_END_ONE, session, user, now_us))


async def end_session_again(tx: Tx, session: SessionId, now_us: int) -> list[tuple[SessionId, UserId]]:
    """Whoever's it is. Empty when it does not live."""
    return [(SessionId(row[0]), UserId(row[1])) for row in await tx.all(_END_AGAIN, session, now_us)]


async def end_sessions_up_to(
    tx: Tx, user: UserId, opened_us: int, now_us: int
) -> list[tuple[SessionId, UserId]]:
    """Those opened until then that live."""
    rows = await tx.all(_END_UP_TO, user, opened_us, now_us)
    return [(SessionId(row[0]), UserId(row[1])) for row in rows]


async def end_sessions_of_device(tx: Tx, device: DeviceId, now_us: int) -> frozenset[SessionId]:
    return _ids(await tx.all(_END_OF_DEVICE, device, now_us))


async def end_sessions_of_user(tx: Tx, user: UserId, now_us: int) -> frozenset[SessionId]:
    return _ids(await tx.all(_END_OF_USER, user, now_us))


async def end_other_sessions(tx: Tx, user: UserId, kept: SessionId, now_us: int) -> frozenset[SessionId]:
    return _ids(await tx.all(_END_OTHERS, user, kept, now_us))


async def add_refresh(tx: Tx, token_hash: bytes, session: SessionId, *, now_us: int, expires_us: int) -> None:
    await tx.run(_ADD_REFRESH, token_hash, session, now_us, expires_us)


async def get_refresh(tx: Tx, token_hash: bytes) -> Refresh | None:
    row = await tx.one(_GET_REFRESH, token_hash)
    return Refresh(*row) if row else None


async def spend_refresh(tx: Tx, token_hash: bytes, now_us: int) -> None:
    await tx.run(_SPEND_REFRESH, token_hash, now_us)


async def add_revocations(tx: Tx, sessions: frozenset[SessionId], *, now_us: int, until_us: int) -> None:
    await tx.many(_REVOKE, [(session, now_us, until_us) for session in sorted(sessions)])


async def list_revocations(tx: Tx, since_us: int, now_us: int) -> list[Revocation]:
    return [Revocation(*row) for row in await tx.all(_REVOKED_SINCE, since_us, now_us)]


async def add_ticket(
    tx: Tx, ticket_hash: bytes, session: SessionId, *, expires_us: int, token_ends_us: int
) -> None:
    await tx.run(_ADD_TICKET, ticket_hash, session, expires_us, token_ends_us)


async def take_ticket(tx: Tx, ticket_hash: bytes) -> Ticket | None:
    """The ticket, which is gone with that."""
    row = await tx.one(_TAKE_TICKET, ticket_hash)
    return Ticket(*row) if row else None


async def prune(tx: Tx, kind: int, now_us: int) -> int:
    """Delete up to PRUNE_ROWS expired rows of one kind. Returns how many."""
    return await tx.run(_PRUNE[kind], now_us)


PRUNE_KINDS = range(len(_PRUNE))


def _ids(rows: Sequence[tuple[Any, ...]]) -> frozenset[SessionId]:
    return frozenset(SessionId(row[0]) for row in rows)


async def end_all(tx: Tx, now_us: int) -> None:
    """Every session of everybody, and what would open or prolong one."""
    await tx.run(_END_ALL, now_us)
    await tx.run(_DROP_REFRESH_TOKENS)
    await tx.run(_DROP_TICKETS)
