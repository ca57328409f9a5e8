"""Proving once more who asks, before what cannot be undone."""

from __future__ import annotations

from ..deps.contracts import Database, Tx
from ..errors import InvalidCredentials
from ..identity import UserId
from . import store
from .passwords import Passwords
from .sessions import Origin


class Reauthentication:
    def __init__(self, db: Database, passwords: Passwords) -> None:
        self._db = db
        self._passwords = passwords

    async def require(
        self,
        user_id: UserId,
        password: str,
        totp_code: str | None,  # noqa: ARG002  (of accounts that have a second factor)
        origin: Origin,  # noqa: ARG002  (of the refusal)
    ) -> None:
        """Raises InvalidCredentials, and Unavailable when too many wait for their password to be checked."""
        password_hash = await self._db.read(_hash_of, user_id)
        if not await self._passwords.verify(password_hash, password):
            raise InvalidCredentials(denial="auth:session:refused", subject=user_id)


async def _hash_of(tx: Tx, user: UserId) -> str | None:
    return await store.get_hash(tx, user)
