"""Deleting somebody's account: at once and for good, where the owner would have a time of grace."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ...config import AuthConfig
from ...deps.contracts import Database
from ...edge import require_admin
from ...errors import Conflict
from ...identity import Principal, UserId
from ..revocations import Revocations
from . import standing

Erase = Callable[[UserId], Awaitable[None]]


class Removal:
    """erase: an account that is due; what it cannot do now is done later."""

    def __init__(self, config: AuthConfig, db: Database, revocations: Revocations, erase: Erase) -> None:
        self._config = config
        self._db = db
        self._revocations = revocations
        self._erase = erase

    async def remove(self, caller: Principal, user: UserId, address: str) -> None:
        """Their sessions end with the answer. Raises Forbidden, NotFound, LastAdministrator, and Conflict for
        oneself."""
        require_admin(caller, user)
        if user == caller.user_id:
            raise Conflict("You cannot delete yourself here: leave as everybody does.")
        now_us = self._db.now_us()
        ended = await self._db.write(standing.remove, self._config, user, caller.user_id, address, now_us)
        self._revocations.apply(ended)
        await self._erase(user)
