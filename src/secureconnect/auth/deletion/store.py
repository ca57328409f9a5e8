"""The SQL of deletion."""

from __future__ import annotations

from ...deps.contracts import Tx
from ...identity import UserId

DELETED = "deleted user"

_GET = "SELECT delete_at FROM users WHERE user_id = $1 AND erased_at IS NULL"
_SCHEDULE = (
    "UPDATE users SET delete_at = $2, updated_at = $3"
    " WHERE user_id = $1 AND erased_at IS NULL AND (delete_at IS NULL OR delete_at > $2)"
)
_RESTORE = (
    "UPDATE users SET delete_at = NULL, updated_at = $2"
    " WHERE user_id = $1 AND erased_at IS NULL AND delete_at > $2 RETURNING user_id"
)
_DUE = "SELECT user_id FROM users WHERE delete_at <= $1 AND user_id > $2 ORDER BY user_id LIMIT $3"
# no username or address that a person may have folds to these keys
_BLANK = (
    "UPDATE users SET username = 'deleted', username_key = $3, email = '', email_key = $3, display_name = $4,"
    " display_key = '', avatar_url = NULL, role = 'user', password_hash = '', is_searchable = false,"
    " shows_last_seen = false, sends_read_receipts = false,"
    " email_verified_at = NULL, updated_at = $2, erased_at = $2"
    " WHERE user_id = $1 AND delete_at <= $2 AND erased_at IS NULL RETURNING user_id"
)
# everything of this room that belongs to one person: a table made later is named here, too
_ERASE = (
    *(
        f"DELETE FROM {table} WHERE device_id IN (SELECT device_id FROM devices WHERE user_id = $1)"  # noqa: S608
        for table in (
            "one_time_keys",
            "fallback_keys",
            "key_claims",
            "inboxes",
            "inbox_messages",
            "inbox_sendings",
        )
    ),
    "DELETE FROM device_keys WHERE user_id = $1",
    "DELETE FROM key_signatures WHERE user_id = $1 OR signer_id = $1",
    "DELETE FROM cross_signing_keys WHERE user_id = $1",
    "DELETE FROM backup_keys WHERE user_id = $1",
    "DELETE FROM backups WHERE user_id = $1",
    "DELETE FROM refresh_tokens WHERE session_id IN (SELECT session_id FROM sessions WHERE user_id = $1)",
    "DELETE FROM tickets WHERE session_id IN (SELECT session_id FROM sessions WHERE user_id = $1)",
    "DELETE FROM sessions WHERE user_id = $1",
    "DELETE FROM devices WHERE user_id = $1",
    "DELETE FROM totps WHERE user_id = $1",
    "DELETE FROM recovery_codes WHERE user_id = $1",
    "DELETE FROM blocks WHERE user_id = $1 OR blocked_id = $1",
    "DELETE FROM friends WHERE user_id = $1 OR friend_id = $1",
    "DELETE FROM bans WHERE user_id = $1",
    "UPDATE reports SET comment = '' WHERE reporter_id = $1",
    "UPDATE reports SET content = NULL WHERE user_id = $1",
)
_DONE = (
    "UPDATE users SET delete_at = NULL WHERE user_id = $1 AND erased_at IS NOT NULL AND delete_at IS NOT NULL"
    " RETURNING user_id"
)


async def schedule(tx: Tx, user: UserId, delete_us: int, now_us: int) -> int | None:
    """When the account is erased: then, or sooner if that was said before. None: there is none."""
    await tx.run(_SCHEDULE, user, delete_us, now_us)
    row = await tx.one(_GET, user)
    return int(row[0]) if row else None


async def restore(tx: Tx, user: UserId, now_us: int) -> bool:
    """False when nothing was to be taken back."""
    return await tx.one(_RESTORE, user, now_us) is not None


async def due(tx: Tx, now_us: int, after: UserId, limit: int) -> list[UserId]:
    """Whose time is over, by id, from after that one on."""
    return [UserId(row[0]) for row in await tx.all(_DUE, now_us, after, limit)]


async def blank(tx: Tx, user: UserId, now_us: int) -> bool:
    """Take the personal fields out of the account. False: it was done before, or is not due."""
    return await tx.one(_BLANK, user, now_us, f"!{user}", DELETED) is not None


async def erase(tx: Tx, user: UserId) -> None:
    for statement in _ERASE:
        await tx.run(statement, user)


async def done(tx: Tx, user: UserId) -> bool:
    """Nothing of the person is left anywhere. False: somebody has said so before."""
    return await tx.one(_DONE, user) is not None
