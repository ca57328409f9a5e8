"""The SQL of the second factor: tables totps and recovery_codes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ...deps.contracts import Tx
from ...identity import UserId

_BEGIN = (
    "INSERT INTO totps (user_id, sealed, created_at, confirmed_at, last_step) VALUES ($1, $2, $3, NULL, 0)"
    " ON CONFLICT (user_id) DO UPDATE SET sealed = $2, created_at = $3, last_step = 0"
    " WHERE totps.confirmed_at IS NULL RETURNING user_id"
)
_GET = "SELECT sealed, created_at, confirmed_at FROM totps WHERE user_id = $1"
_LOCK = (
    "UPDATE totps SET user_id = user_id WHERE user_id = $1 AND confirmed_at IS NULL"
    " RETURNING sealed, created_at, confirmed_at"
)
_CONFIRM = "UPDATE totps SET confirmed_at = $2, last_step = $3 WHERE user_id = $1"
_USE_STEP = "UPDATE totps SET last_step = $2 WHERE user_id = $1 AND last_step < $2 RETURNING user_id"
_DELETE = "DELETE FROM totps WHERE user_id = $1 RETURNING user_id"
_ADD_CODE = "INSERT INTO recovery_codes (user_id, code_hash) VALUES ($1, $2) ON CONFLICT DO NOTHING"
_USE_CODE = "DELETE FROM recovery_codes WHERE user_id = $1 AND code_hash = $2 RETURNING user_id"
_DELETE_CODES = "DELETE FROM recovery_codes WHERE user_id = $1"
_COUNT_CODES = "SELECT COUNT(*) FROM recovery_codes WHERE user_id = $1"


class Kept(NamedTuple):
    """confirmed_us: None while it is being set up."""

    sealed: bytes
    created_us: int
    confirmed_us: int | None


async def begin(tx: Tx, user: UserId, sealed: bytes, now_us: int) -> bool:
    """Begin to set it up, in the place of what was begun before. False when it is on already."""
    return await tx.one(_BEGIN, user, sealed, now_us) is not None


async def get(tx: Tx, user: UserId) -> Kept | None:
    row = await tx.one(_GET, user)
    return Kept(*row) if row else None


async def lock_begun(tx: Tx, user: UserId) -> Kept | None:
    """What is being set up, held by this transaction until its end."""
    row = await tx.one(_LOCK, user)
    return Kept(*row) if row else None


async def confirm(tx: Tx, user: UserId, now_us: int, step: int) -> None:
    await tx.run(_CONFIRM, user, now_us, step)


async def use_step(tx: Tx, user: UserId, step: int) -> bool:
    """False when this step, or a later one, was used before."""
    return await tx.one(_USE_STEP, user, step) is not None


async def delete(tx: Tx, user: UserId) -> bool:
    """With the recovery codes. False when there was none."""
    await tx.run(_DELETE_CODES, user)
    return await tx.one(_DELETE, user) is not None


async def replace_codes(tx: Tx, user: UserId, code_hashes: Iterable[bytes]) -> None:
    await tx.run(_DELETE_CODES, user)
    await tx.many(_ADD_CODE, [(user, code_hash) for code_hash in code_hashes])


async def use_code(tx: Tx, user: UserId, code_hash: bytes) -> bool:
    """False when there is no such code, or it was used before."""
    return await tx.one(_USE_CODE, user, code_hash) is not None


async def count_codes(tx: Tx, user: UserId) -> int:
    """How many are left."""
    row = await tx.one(_COUNT_CODES, user)
    return int(row[0]) if row else 0
