"""The SQL of the invites: table invites."""

from __future__ import annotations

from typing import NamedTuple

from ...deps.contracts import Tx
from ...identity import UserId

PRUNE_ROWS = 1_000  # as many as auth/store.py deletes in one transaction

_COLUMNS = "invite_id, created_by, created_at, expires_at, max_uses, uses"
_ADD = (
    "INSERT INTO invites (invite_id, code_hash, created_by, created_at, expires_at, max_uses, uses)"
    " VALUES ($1, $2, $3, $4, $5, $6, 0)"
)
_LIST = (
    f"SELECT {_COLUMNS} FROM invites WHERE invite_id < $1 AND expires_at > $2"  # noqa: S608
    " ORDER BY invite_id DESC LIMIT $3"
)
_SPEND = (
    "UPDATE invites SET uses = uses + 1 WHERE code_hash = $1 AND expires_at > $2 AND uses < max_uses"
    " RETURNING invite_id"
)
_GIVE_BACK = "UPDATE invites SET uses = uses - 1 WHERE invite_id = $1 AND uses > 0"
_DELETE = "DELETE FROM invites WHERE invite_id = $1 RETURNING invite_id"
_PRUNE = (
    f"DELETE FROM invites WHERE invite_id IN"  # noqa: S608
    f" (SELECT invite_id FROM invites WHERE expires_at <= $1 LIMIT {PRUNE_ROWS})"
)


class Invite(NamedTuple):
    invite_id: str
    created_by: UserId
    created_us: int
    expires_us: int
    max_uses: int
    uses: int


async def add(tx: Tx, invite: Invite, code_hash: bytes) -> None:
    await tx.run(
        _ADD,
        invite.invite_id,
        code_hash,
        invite.created_by,
        invite.created_us,
        invite.expires_us,
        invite.max_uses,
    )


async def list_live(tx: Tx, *, before: str, limit: int, now_us: int) -> list[Invite]:
    """Those that have not expired, the newest first, those used up too.  before: the last one seen."""
    return [Invite(*row) for row in await tx.all(_LIST, before, now_us, limit)]


async def spend(tx: Tx, code_hash: bytes, now_us: int) -> str | None:
    """Take one use of an invite. Returns its id; None when it is not, or no longer, good."""
    row = await tx.one(_SPEND, code_hash, now_us)
    return str(row[0]) if row else None


async def give_back(tx: Tx, invite: str) -> None:
    """A use that came to nothing. Nothing happens when the invite is gone."""
    await tx.run(_GIVE_BACK, invite)


async def delete(tx: Tx, invite: str) -> bool:
    """False when there is none."""
    return await tx.one(_DELETE, invite) is not None


async def prune(tx: Tx, now_us: int) -> int:
    """Delete up to PRUNE_ROWS invites that have expired. Returns how many."""
    return await tx.run(_PRUNE, now_us)
