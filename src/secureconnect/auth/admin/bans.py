"""Banning people, also while the database is away.

Then nobody can sign in anyway; what is to be ended are sessions, which goes the way of sign-outs
(`revocations`). The ban itself waits in `bans.pending` of the data folder until this node has the database
again.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import structlog
import trio

from ...config import AuthConfig
from ...deps.contracts import Database
from ...durable import replace_file
from ...edge import require_admin
from ...errors import Conflict, Invalid, Problem, Unavailable, is_away
from ...identity import Principal, UserId
from ..revocations import Revocations
from . import standing
from .store import Ban

log = structlog.get_logger(module="auth")

PENDING = "bans.pending"
MOST_PENDING = 1_000
WRITE_S = 5.0  # as for a sign-out (`kept`)


class _Waiting(msgspec.Struct, frozen=True):
    user_id: UserId
    ban: Ban
    address: str


_waiting = msgspec.json.Decoder(list[_Waiting])


class Bans:
    def __init__(self, config: AuthConfig, db: Database, revocations: Revocations, folder: Path) -> None:
        self._config = config
        self._db = db
        self._revocations = revocations
        self._file = folder / PENDING
        self._writing = trio.CapacityLimiter(1)
        self._storing = trio.Lock()
        self._pending: dict[UserId, _Waiting] = {}

    async def load(self) -> None:
        """Read what an earlier run could not store."""
        try:
            kept = _waiting.decode(await trio.to_thread.run_sync(self._file.read_bytes))
        except FileNotFoundError:
            return
        except (OSError, msgspec.DecodeError) as exc:
            log.error("bans_pending_unreadable", reason=str(exc))
            return
        self._pending = {each.user_id: each for each in kept}

    async def ban(
        self, caller: Principal, user: UserId, reason: str, until_us: int | None, address: str
    ) -> bool:
        """Their sessions are over, and they cannot sign in until then; None is for good.

        Returns whether every node that reaches the database or the feed knows within a second, as
        `Sessions.end`. Raises Forbidden, Invalid, NotFound, LastAdministrator, and Conflict for oneself.
        """
        require_admin(caller, user)
        if user == caller.user_id:
            raise Conflict("You cannot ban yourself.")
        now_us = self._db.now_us()
        if until_us is not None and until_us <= now_us:
            raise Invalid("A ban ends in the future.", details={"field": "until"})
        waiting = _Waiting(user, Ban(reason, now_us, until_us, caller.user_id), address)
        try:
            await self.store_pending_once()  # or one that waited would take the place of this
            await self._store(waiting)
        except Unavailable as problem:
            if not is_away(problem):
                raise
            return await self._ban_without_database(waiting)
        return True

    async def unban(self, caller: Principal, user: UserId, address: str) -> None:
        """Nothing happens to someone who is not banned. Raises Forbidden, NotFound."""
        require_admin(caller, user)
        await self.store_pending_once()  # or a ban that waited would come after this
        await self._db.write(standing.unban, user, caller.user_id, address, self._db.now_us())

    async def store_pending_once(self) -> None:
        """Store the bans that had to wait. Raises Unavailable."""
        async with self._storing:
            for waiting in tuple(self._pending.values()):
                try:
                    await self._store(waiting)
                except Unavailable:
                    raise
                except Problem as problem:  # no such account, or the last administrator
                    log.warning("ban_refused", user_id=waiting.user_id, code=problem.code)
                if self._pending.get(waiting.user_id) is waiting:
                    del self._pending[waiting.user_id]
                    await self._keep()

    async def _store(self, waiting: _Waiting) -> None:
        now_us = self._db.now_us()
        ended = await self._db.relieve(
            standing.ban, self._config, waiting.user_id, waiting.ban, waiting.address, now_us
        )
        self._revocations.apply(ended)

    async def _ban_without_database(self, waiting: _Waiting) -> bool:
        if len(self._pending) >= MOST_PENDING:
            raise Unavailable
        self._pending[waiting.user_id] = waiting
        is_known = await self._revocations.end_all(waiting.user_id)
        return await self._keep() and is_known

    async def _keep(self) -> bool:
        """Write down what is pending. False if the disk refuses: it is then known to this process alone."""
        text = msgspec.json.encode(list(self._pending.values()))
        with trio.move_on_after(WRITE_S, shield=True):
            try:
                await trio.to_thread.run_sync(
                    replace_file, self._file, text, limiter=self._writing, abandon_on_cancel=True
                )
            except OSError as exc:
                log.warning("bans_pending_not_kept", reason=str(exc))
                return False
            return True
        return False
