"""The SQL of recovery: mailed tokens, waiting registrations, and of users what these change."""

from __future__ import annotations

from typing import Literal, NamedTuple

from ...deps.contracts import Tx
from ...identity import UserId

Purpose = Literal["verify", "change", "reset"]
# no tokens and nobody's: marks that an address was written to, which has no account, or has one
Mark = Literal["address", "taken"]

PRUNE_ROWS = 1_000

# no `IS NOT NULL` here: of a column that a migration added, SQLite 3.40 gives it wrong in RETURNING
_ACCOUNT = "user_id, username, email, email_key, email_verified_at"
_LOCK_BY_EMAIL = (
    f"UPDATE users SET user_id = user_id WHERE email_key = $1 AND erased_at IS NULL RETURNING {_ACCOUNT}"  # noqa: S608
)
_LOCK = f"UPDATE users SET user_id = user_id WHERE user_id = $1 RETURNING {_ACCOUNT}"  # noqa: S608
_FIND_BY_EMAIL = f"SELECT {_ACCOUNT} FROM users WHERE email_key = $1"  # noqa: S608
_NAME_TAKEN = "SELECT 1 FROM users WHERE username_key = $1"
_VERIFY = "UPDATE users SET email_verified_at = $2 WHERE user_id = $1 AND email_verified_at IS NULL"
_CHANGE = (
    "UPDATE users SET email = $2, email_key = $3, email_verified_at = $4, updated_at = $4 WHERE user_id = $1"
)
_SET_PASSWORD = "UPDATE users SET password_hash = $2, updated_at = $3 WHERE user_id = $1"  # noqa: S105

_DROP_ALL_TOKENS = "DELETE FROM mail_tokens"
_EXPIRE_REGISTRATIONS = "UPDATE registrations SET expires_at = $1 WHERE expires_at > $1"
_ASKED = "SELECT created_at FROM mail_tokens WHERE user_id = $1 AND purpose = $2"
_PUT = (
    "INSERT INTO mail_tokens (user_id, purpose, token_hash, email, email_key, created_at, expires_at)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (user_id, purpose) DO UPDATE SET"
    " token_hash = excluded.token_hash, email = excluded.email, email_key = excluded.email_key,"
    " created_at = excluded.created_at, expires_at = excluded.expires_at"
)
_MARK = f"{_PUT} WHERE mail_tokens.created_at <= $8 RETURNING user_id"
_OF_TOKEN = "WHERE token_hash = $1 AND purpose = $2 AND expires_at > $3"  # noqa: S105
_GET_TOKEN = f"SELECT user_id, email, email_key FROM mail_tokens {_OF_TOKEN}"  # noqa: S608
_TAKE_TOKEN = f"DELETE FROM mail_tokens {_OF_TOKEN} RETURNING user_id, email, email_key"  # noqa: S608
_DROP_TOKENS = "DELETE FROM mail_tokens WHERE user_id = $1"

_REGISTRATION = "user_id, username, username_key, email, email_key, display_name, password_hash, invite_id"
_FREE_NAME = "DELETE FROM registrations WHERE username_key = $1 AND expires_at <= $2 RETURNING invite_id"
_ADD_REGISTRATION = (
    "INSERT INTO registrations (user_id, username, username_key, email, email_key, display_name,"
    " password_hash, invite_id, token_hash, created_at, mailed_at, expires_at)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10, $11) ON CONFLICT DO NOTHING RETURNING user_id"
)
_LATEST_REGISTRATION = (
    f"SELECT {_REGISTRATION} FROM registrations WHERE email_key = $1 AND expires_at > $2"  # noqa: S608
    " ORDER BY created_at DESC, user_id DESC LIMIT 1"
)
_RENEW_REGISTRATION = (
    "UPDATE registrations SET token_hash = $2, mailed_at = $3, expires_at = $4 WHERE user_id = $1"
)
_TAKE_REGISTRATION = (
    "DELETE FROM registrations WHERE token_hash = $1 AND expires_at > $2"  # noqa: S608
    f" RETURNING {_REGISTRATION}"
)

_PRUNE_TOKENS = (
    "DELETE FROM mail_tokens WHERE token_hash IN"  # noqa: S608
    f" (SELECT token_hash FROM mail_tokens WHERE expires_at <= $1 LIMIT {PRUNE_ROWS})"
)
_PRUNE_REGISTRATIONS = (
    "DELETE FROM registrations WHERE user_id IN"  # noqa: S608
    f" (SELECT user_id FROM registrations WHERE expires_at <= $1 LIMIT {PRUNE_ROWS}) RETURNING invite_id"
)


class Account(NamedTuple):
    user_id: UserId
    username: str
    email: str
    email_key: str
    verified_us: int | None


class Proof(NamedTuple):
    """What a mailed token proves: who asked for it, and the address it went to."""

    user_id: UserId
    email: str
    email_key: str


class Registration(NamedTuple):
    """invite_id: the invite a use was taken of, None where none was needed."""

    user_id: UserId
    username: str
    username_key: str
    email: str
    email_key: str
    display_name: str
    password_hash: str
    invite_id: str | None = None


async def lock_by_email(tx: Tx, email_key: str) -> Account | None:
    """The account, held by this transaction until its end."""
    row = await tx.one(_LOCK_BY_EMAIL, email_key)
    return Account(*row) if row else None


async def lock(tx: Tx, user: UserId) -> Account | None:
    row = await tx.one(_LOCK, user)
    return Account(*row) if row else None


async def find_by_email(tx: Tx, email_key: str) -> Account | None:
    row = await tx.one(_FIND_BY_EMAIL, email_key)
    return Account(*row) if row else None


async def is_name_taken(tx: Tx, username_key: str) -> bool:
    return await tx.one(_NAME_TAKEN, username_key) is not None


async def mark_verified(tx: Tx, user: UserId, now_us: int) -> None:
    await tx.run(_VERIFY, user, now_us)


async def change_email(tx: Tx, user: UserId, email: str, email_key: str, now_us: int) -> None:
    """To an address that is confirmed."""
    await tx.run(_CHANGE, user, email, email_key, now_us)


async def set_password(tx: Tx, user: UserId, password_hash: str, now_us: int) -> None:
    await tx.run(_SET_PASSWORD, user, password_hash, now_us)


async def asked_us(tx: Tx, user: UserId, purpose: Purpose) -> int | None:
    """When the token of this purpose was made that still stands there."""
    row = await tx.one(_ASKED, user, purpose)
    return int(row[0]) if row else None


async def put_token(
    tx: Tx, proof: Proof, purpose: Purpose, token_hash: bytes, *, now_us: int, expires_us: int
) -> None:
    """In the place of the one there was."""
    await tx.run(_PUT, proof.user_id, purpose, token_hash, proof.email, proof.email_key, now_us, expires_us)


async def mark_address(
    tx: Tx, address: UserId, mark: Mark, chance: bytes, *, now_us: int, pause_us: int, expires_us: int
) -> bool:
    """Whether nobody has done so within the pause; of several at once, one.  chance: what no other mark or
    token has.  address: stands for it, and is no person's id."""
    values = (address, mark, chance, "", "", now_us, expires_us, now_us - pause_us)
    return await tx.one(_MARK, *values) is not None


async def get_token(tx: Tx, token_hash: bytes, purpose: Purpose, now_us: int) -> Proof | None:
    row = await tx.one(_GET_TOKEN, token_hash, purpose, now_us)
    return Proof(*row) if row else None


async def take_token(tx: Tx, token_hash: bytes, purpose: Purpose, now_us: int) -> Proof | None:
    """What it proves; with that it is used."""
    row = await tx.one(_TAKE_TOKEN, token_hash, purpose, now_us)
    return Proof(*row) if row else None


async def drop_tokens(tx: Tx, user: UserId) -> None:
    await tx.run(_DROP_TOKENS, user)


async def add_registration(
    tx: Tx, new: Registration, token_hash: bytes, *, now_us: int, expires_us: int
) -> bool:
    """False when another one holds the username."""
    return await tx.one(_ADD_REGISTRATION, *new, token_hash, now_us, expires_us) is not None


async def free_name(tx: Tx, username_key: str, now_us: int) -> list[str | None]:
    """Delete the registration that holds this name and has expired, if there is one. Returns its invite."""
    return [row[0] for row in await tx.all(_FREE_NAME, username_key, now_us)]


async def get_latest_registration(tx: Tx, email_key: str, now_us: int) -> Registration | None:
    row = await tx.one(_LATEST_REGISTRATION, email_key, now_us)
    return Registration(*row) if row else None


async def renew_registration(
    tx: Tx, registration: UserId, token_hash: bytes, *, now_us: int, expires_us: int
) -> None:
    await tx.run(_RENEW_REGISTRATION, registration, token_hash, now_us, expires_us)


async def take_registration(tx: Tx, token_hash: bytes, now_us: int) -> Registration | None:
    """The registration, which is gone with that."""
    row = await tx.one(_TAKE_REGISTRATION, token_hash, now_us)
    return Registration(*row) if row else None


async def prune_tokens(tx: Tx, now_us: int) -> int:
    """Delete up to PRUNE_ROWS that have expired. Returns how many."""
    return await tx.run(_PRUNE_TOKENS, now_us)


async def prune_registrations(tx: Tx, now_us: int) -> list[str | None]:
    """Delete up to PRUNE_ROWS that have expired. Returns the invite of each."""
    return [row[0] for row in await tx.all(_PRUNE_REGISTRATIONS, now_us)]


async def end_all(tx: Tx, now_us: int) -> None:
    """Nothing that was mailed works any more. Registrations end as others do, and give back their invites."""
    await tx.run(_DROP_ALL_TOKENS)
    await tx.run(_EXPIRE_REGISTRATIONS, now_us)
