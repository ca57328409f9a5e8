"""Which sessions have ended so lately that tokens of theirs may still be about.

Ending a session writes a row; every node reads the new rows every `auth.revocation_poll_ms`. This set is
what each token is held against, as large as the number of sessions ended within a token's life.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..clock import HOUR_US, SECOND_US
from ..config import AuthConfig
from ..deps.contracts import Database, Tx
from ..edge import SessionsEnded
from ..identity import SessionId
from . import store

# A row is stamped before its commit: as long as a commit may take, each read must look back. Covers the
# longest wait for the writer, the longest transaction, and the difference of clocks.
OVERLAP_US = 60 * SECOND_US


class Revocations:
    """ended: called at once with the sessions this node just learnt to be over."""

    def __init__(self, config: AuthConfig, db: Database) -> None:
        self._db = db
        self._kept_us = config.access_ttl_s * SECOND_US + HOUR_US
        self._until: dict[SessionId, int] = {}
        self._since_us = 0
        self.ended: SessionsEnded = _nobody

    def __contains__(self, session: SessionId) -> bool:
        return session in self._until

    async def write(self, tx: Tx, sessions: frozenset[SessionId], now_us: int) -> None:
        """Tell all nodes, with the transaction that ends the sessions."""
        await store.add_revocations(tx, sessions, now_us=now_us, until_us=now_us + self._kept_us)

    async def write_back(self) -> None:
        """The database has gone back to an earlier state: what this node knows to be over is over again."""
        await self._db.relieve(self._write_back, frozenset(self._until))

    async def _write_back(self, tx: Tx, sessions: frozenset[SessionId]) -> None:
        now_us = self._db.now_us()
        await store.end_sessions_again(tx, sessions, now_us)
        await self.write(tx, sessions, now_us)

    def apply(self, sessions: frozenset[SessionId]) -> None:
        """Effective on this node from here on; called when the transaction is committed. If the caller is
        cancelled in between, the next poll does it."""
        self._add((session, self._db.now_us() + self._kept_us) for session in sessions)

    async def poll_once(self) -> None:
        """Read what other nodes have revoked since."""
        now_us = self._db.now_us()
        revoked = await self._db.read(store.list_revocations, self._since_us, now_us)
        self._since_us = now_us - OVERLAP_US
        self._add(revoked)

    def forget_expired(self) -> None:
        now_us = self._db.now_us()
        for session in [session for session, until_us in self._until.items() if until_us <= now_us]:
            del self._until[session]

    def _add(self, revoked: Iterable[tuple[SessionId, int]]) -> None:
        new = {session: until_us for session, until_us in revoked if session not in self._until}
        if new:
            self._until.update(new)
            self.ended(frozenset(new))


def _nobody(_: frozenset[SessionId]) -> None:
    """Before the room is connected there are no sockets to close."""
