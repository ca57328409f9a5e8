"""The SQL of backups: keys of conversations, sealed by whoever keeps them here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...deps.contracts import Tx
from ...identity import UserId

_LATEST = "SELECT COALESCE(MAX(version), 0) FROM backups WHERE user_id = $1"
_COUNT = "SELECT COUNT(*) FROM backups WHERE user_id = $1 AND deleted_at IS NULL"
_ADD = (
    "INSERT INTO backups (user_id, version, algorithm, auth_data, keys, etag, deleted_at)"
    " VALUES ($1, $2, $3, $4, 0, 0, NULL)"
)
_FORGET = "DELETE FROM backups WHERE user_id = $1 AND version < $2 AND deleted_at IS NOT NULL"
_GET = (
    "SELECT version, algorithm, auth_data, keys, etag FROM backups"
    " WHERE user_id = $1 AND version = $2 AND deleted_at IS NULL"
)
_GET_LATEST = (
    "SELECT version, algorithm, auth_data, keys, etag FROM backups"
    " WHERE user_id = $1 AND deleted_at IS NULL ORDER BY version DESC LIMIT 1"
)
_LIST = (
    "SELECT version, algorithm, auth_data, keys, etag FROM backups"
    " WHERE user_id = $1 AND deleted_at IS NULL ORDER BY version DESC"
)
_LOCK = (
    "UPDATE backups SET version = version WHERE user_id = $1 AND version = $2 AND deleted_at IS NULL"
    " RETURNING version, algorithm, auth_data, keys, etag"
)
_SET_AUTH = "UPDATE backups SET auth_data = $3 WHERE user_id = $1 AND version = $2"
_SET_KEYS = "UPDATE backups SET keys = $3, etag = $4 WHERE user_id = $1 AND version = $2"
_END = "UPDATE backups SET deleted_at = $3, keys = 0 WHERE user_id = $1 AND version = $2"

_COLUMNS = "room_id, session_id, first_message_index, forwarded_count, is_verified, session_data"
_HELD = (
    f"SELECT {_COLUMNS} FROM backup_keys"  # noqa: S608
    " WHERE user_id = $1 AND version = $2 AND room_id = $3 AND session_id = $4"
)
_PUT = (
    f"INSERT INTO backup_keys (user_id, version, {_COLUMNS})"  # noqa: S608
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
    " ON CONFLICT (user_id, version, room_id, session_id) DO UPDATE SET"
    " first_message_index = excluded.first_message_index, forwarded_count = excluded.forwarded_count,"
    " is_verified = excluded.is_verified, session_data = excluded.session_data"
)
_PAGE = (
    f"SELECT {_COLUMNS} FROM backup_keys WHERE user_id = $1 AND version = $2"  # noqa: S608
    " AND (room_id, session_id) > ($3, $4) ORDER BY room_id, session_id LIMIT $5"
)
_DROP = "DELETE FROM backup_keys WHERE user_id = $1 AND version = $2"


class Backup(NamedTuple):
    """keys: how many are in it.  etag: another whenever they change."""

    version: int
    algorithm: str
    auth_data: str
    keys: int
    etag: int


class Key(NamedTuple):
    room_id: str
    session_id: str
    first_message_index: int
    forwarded_count: int
    is_verified: bool
    session_data: str


async def latest_number(tx: Tx, user: UserId) -> int:
    """Of a deleted one too; 0 before the first."""
    row = await tx.one(_LATEST, user)
    assert row is not None
    return int(row[0])


async def count(tx: Tx, user: UserId) -> int:
    row = await tx.one(_COUNT, user)
    assert row is not None
    return int(row[0])


async def add(tx: Tx, user: UserId, version: int, algorithm: str, auth_data: str) -> None:
    await tx.run(_ADD, user, version, algorithm, auth_data)
    await tx.run(_FORGET, user, version)


async def get(tx: Tx, user: UserId, version: int | None) -> Backup | None:
    """version: None for the latest."""
    row = await (tx.one(_GET_LATEST, user) if version is None else tx.one(_GET, user, version))
    return Backup(*row) if row else None


async def all_of(tx: Tx, user: UserId) -> list[Backup]:
    """The latest first."""
    return [Backup(*row) for row in await tx.all(_LIST, user)]


async def lock(tx: Tx, user: UserId, version: int) -> Backup | None:
    row = await tx.one(_LOCK, user, version)
    return Backup(*row) if row else None


async def set_auth(tx: Tx, user: UserId, version: int, auth_data: str) -> None:
    await tx.run(_SET_AUTH, user, version, auth_data)


async def set_keys(tx: Tx, user: UserId, version: int, *, keys: int, etag: int) -> None:
    await tx.run(_SET_KEYS, user, version, keys, etag)


async def end(tx: Tx, user: UserId, version: int, now_us: int) -> None:
    """It is gone; its number is never given again."""
    await tx.run(_END, user, version, now_us)
    await tx.run(_DROP, user, version)


async def held(tx: Tx, user: UserId, version: int, room: str, session: str) -> Key | None:
    row = await tx.one(_HELD, user, version, room, session)
    return Key(*row) if row else None


async def put(tx: Tx, user: UserId, version: int, keys: Sequence[Key]) -> None:
    await tx.many(_PUT, [(user, version, *key) for key in keys])


async def page(tx: Tx, user: UserId, version: int, after: tuple[str, str], limit: int) -> list[Key]:
    return [Key(*row) for row in await tx.all(_PAGE, user, version, *after, limit)]


async def drop(tx: Tx, user: UserId, version: int) -> None:
    await tx.run(_DROP, user, version)
