"""Letting in again who has locked themselves out: by too many failures, or with a second factor they lost."""

from __future__ import annotations

from ...config import AuthConfig
from ...deps.contracts import Database
from ...edge import require_admin
from ...errors import Conflict
from ...identity import Principal, UserId
from ..lockout import Lockout
from ..revocations import Revocations
from . import standing


class Rescue:
    def __init__(self, config: AuthConfig, db: Database, lockout: Lockout, revocations: Revocations) -> None:
        self._config = config
        self._db = db
        self._lockout = lockout
        self._revocations = revocations

    async def unlock(self, caller: Principal, user: UserId, address: str) -> None:
        """Raises Forbidden, NotFound, and Conflict for oneself."""
        self._require_other(caller, user)
        now_us = self._db.now_us()
        await self._db.write(standing.unlock, self._lockout, user, caller.user_id, address, now_us)

    async def remove_totp(self, caller: Principal, user: UserId, address: str) -> None:
        """Their sessions end with the answer; nothing happens where there is no second factor. Raises as
        `unlock`."""
        self._require_other(caller, user)
        now_us = self._db.now_us()
        ended = await self._db.write(
            standing.remove_totp, self._config, user, caller.user_id, address, now_us
        )
        self._revocations.apply(ended or frozenset())

    @staticmethod
    def _require_other(caller: Principal, user: UserId) -> None:
        """A stolen token must not guess at its owner's password for ever, nor do without their codes."""
        require_admin(caller, user)
        if user == caller.user_id:
            raise Conflict("Another administrator must do this for you.")
