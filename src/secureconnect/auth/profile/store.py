"""The SQL for what people say of themselves. The columns are in the published table users: other rooms read
there what a person does not want to be shown."""

from __future__ import annotations

from typing import NamedTuple

from ...deps.contracts import Tx
from ...identity import UserId


class Privacy(NamedTuple):
    """searchable: found by others.  last_seen: shown when last online.  read_receipts: others are told how
    far this person has read."""

    searchable: bool
    last_seen: bool
    read_receipts: bool


_CHANGE = (
    "UPDATE users SET username = $2, username_key = $3, display_name = $4, display_key = $5, avatar_url = $6,"
    " updated_at = $7 WHERE user_id = $1"
)
_LOCK = "UPDATE users SET user_id = user_id WHERE user_id = $1 AND erased_at IS NULL RETURNING user_id"
_PRIVACY = "SELECT is_searchable, shows_last_seen, sends_read_receipts FROM users WHERE user_id = $1"
_SET_PRIVACY = (
    "UPDATE users SET is_searchable = $2, shows_last_seen = $3, sends_read_receipts = $4, updated_at = $5"
    " WHERE user_id = $1"
)


async def lock(tx: Tx, user: UserId) -> bool:
    """Hold the account's row until the transaction ends. False: there is no such account any more."""
    return await tx.one(_LOCK, user) is not None


async def change(
    tx: Tx,
    user: UserId,
    *,
    username: str,
    username_key: str,
    display_name: str,
    display_key: str,
    avatar_url: str | None,
    now_us: int,
) -> None:
    """Raises UniqueViolation when the username is taken."""
    await tx.run(_CHANGE, user, username, username_key, display_name, display_key, avatar_url, now_us)


async def get_privacy(tx: Tx, user: UserId) -> Privacy | None:
    row = await tx.one(_PRIVACY, user)
    return Privacy(*map(bool, row)) if row else None


async def set_privacy(tx: Tx, user: UserId, privacy: Privacy, now_us: int) -> None:
    await tx.run(_SET_PRIVACY, user, *privacy, now_us)
