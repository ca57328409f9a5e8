"""The SQL of administration: bans, roles, the list of people, and what there is how much of."""

from __future__ import annotations

from typing import NamedTuple

from ...deps.contracts import Row, Tx
from ...identity import NodeId, Role, UserId

REASON_CHARS = 500  # of a ban
LAST_ID = UserId("ffffffff-ffff-ffff-ffff-ffffffffffff")  # after every id: where a list begins

_BAN = (
    "INSERT INTO bans (user_id, reason, banned_at, until_at, banned_by) VALUES ($1, $2, $3, $4, $5)"
    " ON CONFLICT (user_id) DO UPDATE SET reason = excluded.reason, banned_at = excluded.banned_at,"
    " until_at = excluded.until_at, banned_by = excluded.banned_by"
)
_UNBAN = "DELETE FROM bans WHERE user_id = $1"
_GET_BAN = (
    "SELECT reason, banned_at, until_at, banned_by FROM bans"
    " WHERE user_id = $1 AND (until_at IS NULL OR until_at > $2)"
)

_ADMINS = "SELECT user_id FROM users WHERE role = 'admin'"
_LOCK = (
    "UPDATE users SET user_id = user_id WHERE user_id = $1 AND erased_at IS NULL RETURNING role, delete_at"
)
_SET_ROLE = "UPDATE users SET role = $2, updated_at = $3 WHERE user_id = $1"
_FIND = "SELECT user_id FROM users WHERE username_key = $1 OR email_key = $1"

# a filter that is empty lets everybody through
_LIST = (
    "SELECT u.user_id, u.username, u.email, u.display_name, u.avatar_url, u.role, u.created_at,"
    " b.reason, b.banned_at, b.until_at, b.banned_by,"
    " (SELECT MAX(s.last_seen_at) FROM sessions s WHERE s.user_id = u.user_id)"
    " FROM users u LEFT JOIN bans b ON b.user_id = u.user_id AND (b.until_at IS NULL OR b.until_at > $1)"
    " WHERE u.user_id < $2 AND u.erased_at IS NULL"
    " AND ($3 = '' OR u.username_key LIKE $3 ESCAPE '!' OR u.display_key LIKE $3 ESCAPE '!'"
    " OR u.email_key LIKE $3 ESCAPE '!')"
    " AND ($4 = '' OR u.role = $4)"
    " AND ($5 = '' OR ($5 = 'yes' AND b.user_id IS NOT NULL) OR ($5 = 'no' AND b.user_id IS NULL))"
    " ORDER BY u.user_id DESC LIMIT $6"
)

_COUNTS = (
    "SELECT (SELECT COUNT(*) FROM users WHERE erased_at IS NULL),"
    " (SELECT COUNT(*) FROM users WHERE role = 'admin'),"
    " (SELECT COUNT(*) FROM bans WHERE until_at IS NULL OR until_at > $1),"
    " (SELECT COUNT(*) FROM sessions WHERE ended_at IS NULL AND expires_at > $1),"
    " (SELECT COUNT(*) FROM conversations),"
    " (SELECT CAST(COALESCE(SUM(last_seq), 0) AS bigint) FROM conversations),"
    " (SELECT COUNT(*) FROM reports WHERE state = 'open')"
)
_NODES = (
    "SELECT node_id, version, started_at, renewed_at FROM nodes WHERE lease_ends_at > $1"
    " ORDER BY started_at LIMIT 1000"
)


class Ban(NamedTuple):
    """until_us: None for good.  banned_by: None from the command line."""

    reason: str
    banned_us: int
    until_us: int | None
    banned_by: UserId | None


class Standing(NamedTuple):
    """is_leaving: the account is to be erased."""

    role: Role
    is_leaving: bool


class Account(NamedTuple):
    """A person as administrators see them.  last_seen_us: when a session of theirs was last refreshed."""

    user_id: UserId
    username: str
    email: str
    display_name: str
    avatar_url: str | None
    role: Role
    created_us: int
    ban: Ban | None
    last_seen_us: int | None


class Counts(NamedTuple):
    """messages: ever sent.  sessions: that live."""

    users: int
    admins: int
    banned: int
    sessions: int
    conversations: int
    messages: int
    open_reports: int


class LiveNode(NamedTuple):
    node_id: NodeId
    version: str
    started_us: int
    renewed_us: int


async def add_ban(tx: Tx, user: UserId, ban: Ban) -> None:
    """In the place of an earlier one."""
    await tx.run(_BAN, user, *ban)


async def delete_ban(tx: Tx, user: UserId) -> bool:
    return await tx.run(_UNBAN, user) > 0


async def get_ban(tx: Tx, user: UserId, now_us: int) -> Ban | None:
    """None for one that is over."""
    row = await tx.one(_GET_BAN, user, now_us)
    return Ban(*row) if row else None


async def list_admins(tx: Tx) -> list[UserId]:
    return [UserId(row[0]) for row in await tx.all(_ADMINS)]


async def lock_user(tx: Tx, user: UserId) -> Standing | None:
    """Hold the account until the end of the transaction. None if there is none."""
    row = await tx.one(_LOCK, user)
    return Standing(row[0], row[1] is not None) if row else None


async def set_role(tx: Tx, user: UserId, role: Role, now_us: int) -> None:
    await tx.run(_SET_ROLE, user, role, now_us)


async def find_user(tx: Tx, key: str) -> UserId | None:
    """key: a username or an e-mail address, folded."""
    row = await tx.one(_FIND, key)
    return UserId(row[0]) if row else None


async def list_accounts(
    tx: Tx, *, text: str, role: str, banned: str, before: UserId, limit: int, now_us: int
) -> list[Account]:
    """The newest first.  text: folded; found anywhere in a name or an e-mail address.  banned: `yes`, `no`.
    An empty filter lets everybody through."""
    escaped = text.replace("!", "!!").replace("%", "!%").replace("_", "!_")
    pattern = f"%{escaped}%" if text else ""
    rows = await tx.all(_LIST, now_us, before, pattern, role, banned, limit)
    return [_account(row) for row in rows]


async def count(tx: Tx, now_us: int) -> Counts:
    row = await tx.one(_COUNTS, now_us)
    if row is None:
        raise RuntimeError("COUNT gave no row")
    return Counts(*row)


async def list_nodes(tx: Tx, now_us: int) -> list[LiveNode]:
    return [LiveNode(*row) for row in await tx.all(_NODES, now_us)]


def _account(row: Row) -> Account:
    ban = None if row[8] is None else Ban(*row[7:11])
    return Account._make((*row[:7], ban, row[11]))
