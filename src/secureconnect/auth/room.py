"""The room itself: its parts put together, its periodic work, and what the gateway asks of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import structlog
import trio

from ..config import AuthConfig
from ..deps.contracts import Database
from ..edge import SessionsEnded
from ..errors import Problem, Unavailable
from ..identity import Principal, SessionId, UserId
from ..node import Secrets
from . import store
from .accounts import Accounts
from .keys import Keyring
from .passwords import Passwords
from .revocations import Revocations
from .sessions import Sessions
from .tokens import AccessTokens

log = structlog.get_logger(module="auth")

PRUNE_S = 60.0


class Auth:
    """An `edge.Authenticator`. Serves once the keys and the revocations are read."""

    def __init__(self, config: AuthConfig, db: Database, secrets: Secrets) -> None:
        self._db = db
        self._poll_s = config.revocation_poll_ms / 1000
        self._passwords = Passwords(config)
        self._keyring = Keyring(config, db, secrets)
        self._revocations = Revocations(config, db)
        tokens = AccessTokens(config, self._keyring, db.now_us)
        self.sessions = Sessions(config, db, secrets, tokens, self._revocations)
        self.accounts = Accounts(config, db, self._passwords, self.sessions)
        self._status_of: Callable[[UserId], str | None] = _nobody_knows

    def connect(
        self, *, ended: SessionsEnded, status_of: Callable[[UserId], str | None] | None = None
    ) -> None:
        """Before `run`.  ended: closes the sockets of sessions that are over; never waits.
        status_of: the presence shown with a user; until it is given, `status` is null."""
        self._revocations.ended = ended
        if status_of is not None:
            self._status_of = status_of

    def status_of(self, user: UserId) -> str | None:
        """Presence, or None when it is not known: nobody's profile depends on it."""
        try:
            return self._status_of(user)
        except Unavailable:
            return None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await self._passwords.prepare()
        await self._keyring.ensure()
        await self.sessions.prepare()
        await self.poll_once()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_every, self._poll_s, "auth_poll_failed", self.poll_once)
            nursery.start_soon(_every, PRUNE_S, "auth_prune_failed", self.prune_once)
            task_status.started()

    async def poll_once(self) -> None:
        """Learn which sessions other nodes have ended, and which keys now sign."""
        await self._revocations.poll_once()
        await self._keyring.reload()

    async def prune_once(self) -> None:
        """Delete what has expired, a bounded transaction at a time."""
        self._revocations.forget_expired()
        for kind in store.PRUNE_KINDS:
            while await self._db.relieve(store.prune, kind, self._db.now_us()) == store.PRUNE_ROWS:
                pass

    async def write_back(self) -> None:
        """After the database went back to an earlier state: end again what had been ended since."""
        await self._revocations.write_back()

    def known(self, token: str) -> Principal | None:
        return self.sessions.known(token)

    async def authenticate(self, token: str) -> Principal:
        return await self.sessions.authenticate(token)

    def has_ended(self, session: SessionId) -> bool:
        return session in self._revocations

    async def redeem(self, ticket: str) -> Principal:
        return await self.sessions.redeem(ticket)

    async def export_of(self, user: UserId) -> dict[str, Any]:
        return await self.accounts.export_of(user)


async def _every(period_s: float, failed: str, pass_once: Callable[[], Awaitable[None]]) -> None:
    """Repeat for ever. What the database refuses is said once and tried again at the next turn."""
    failing = False
    while True:
        await trio.sleep(period_s)
        try:
            await pass_once()
        except Problem as problem:
            if not failing:
                log.warning(failed, code=problem.code)
            failing = True
        else:
            failing = False


def _nobody_knows(_: UserId) -> None:
    return None
