"""Which sessions have ended so lately that tokens of theirs may still be about.

Ending a session writes a row; every node reads the new rows every `auth.revocation_poll_ms`. This set is
what each token is held against, as large as the number of sessions ended within a token's life and its grace.

Nodes that the database does not reach are told through the feed, which every node reads as often. What came
that way, or was ended here while the database was away, is *pending*: each node that has the database again
writes it there, as often as it likes. Everything is kept in the data folder as well (`kept`).

One person's sessions can be ended without knowing them: all those opened up to a moment, as their ids tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Literal

import msgspec
import structlog
import trio

from .. import audit
from ..clock import MINUTE_US, SECOND_US
from ..config import AuthConfig
from ..deps.contracts import Bus, Database, RevocationFeed, Revoked, Tx
from ..edge import PeopleSignedOut, SessionsEnded
from ..errors import Problem, Unavailable
from ..identity import SessionId, UserId, time_of
from ..metrics import gauge
from ..periodic import Trouble
from . import store
from .kept import Kept, Snapshot, VerifyingKey, refresh_us
from .outage import Outage

log = structlog.get_logger(module="auth")

PENDING = gauge("secureconnect_auth_revocations_pending", "Ended sessions the database is not known to have.")

# A row is stamped before its commit: as long as a commit may take, each read must look back. Covers the
# longest wait for the writer, the longest transaction, and the difference of clocks.
OVERLAP_US = 60 * SECOND_US
# Settings for a slow database let a commit take longer than that, though not so long: once a minute a read
# looks back so far.
REACH_US = 15 * MINUTE_US
REACH_EVERY_US = MINUTE_US
CHANNEL = "auth.revoked"
AT_ONCE = 200  # written in one transaction, or told in one call
RETRY_S = 1.0
RETELL_S = 10.0  # the feed may have lost its memory


Lack = Literal["nothing_kept", "kept_too_long_ago"]  # of what an earlier run knew


class _News(msgspec.Struct, frozen=True):
    """What goes over the bus.  stored: in the database, too."""

    stored: bool
    revoked: list[Revoked]


_news = msgspec.json.Decoder(_News)


class Revocations:
    """ended, signed_out: called at once with what this node just learnt to be over.

    trusted: whether this node knows enough to accept any token.
    """

    def __init__(
        self,
        config: AuthConfig,
        db: Database,
        outage: Outage,
        folder: Path,
        feed: RevocationFeed | None,
        bus: Bus | None,
    ) -> None:
        self._db = db
        self._outage = outage
        self._feed = feed
        self._bus = bus
        self._kept = Kept(folder)
        self._kept_us = config.revocations_kept_s * SECOND_US
        self._life_us = config.access_ttl_s * SECOND_US
        self._refresh_us = refresh_us(config.access_ttl_s)
        self._sessions: dict[SessionId, Revoked] = {}
        self._people: dict[UserId, Revoked] = {}
        self._pending: dict[Revoked, None] = {}
        self._untold: dict[Revoked, None] = {}
        self._news: list[Revoked] = []
        self._retell_s = 0.0
        self._told = trio.Event()
        self._since_us = 0
        self._reached_us = 0
        self._fed_us = 0
        self._saved_us = 0
        self._changed = True
        self._checked = False  # what was kept against the database
        self.trusted = False
        self.verifying: Sequence[VerifyingKey] = ()
        self.ended: SessionsEnded = _nobody
        self.signed_out: PeopleSignedOut = _nobody

    def covers(self, session: SessionId, user: UserId) -> bool:
        """Whether this session of this person is over."""
        if session in self._sessions:
            return True
        all_up_to = self._people.get(user)
        return all_up_to is not None and time_of(session) <= all_up_to.at_us

    # ending

    async def write(self, tx: Tx, sessions: frozenset[SessionId], now_us: int) -> None:
        """Tell all nodes, with the transaction that ends the sessions."""
        await store.add_revocations(tx, sessions, now_us=now_us, until_us=now_us + self._kept_us)

    def apply(self, sessions: frozenset[SessionId]) -> None:
        """Effective on this node from here on; called when the transaction is committed. If the caller is
        cancelled in between, the next poll does it."""
        now_us = self._db.now_us()
        revoked = [Revoked("session", each, now_us, now_us + self._kept_us) for each in sorted(sessions)]
        self._announce(self._learn(revoked, pending=False))

    async def end_session(self, session: SessionId) -> bool:
        """While the database is away. As `_end_without_database`."""
        now_us = self._db.now_us()
        return await self._end_without_database(Revoked("session", session, now_us, now_us + self._kept_us))

    async def end_all(self, user: UserId) -> bool:
        """End every session of this person opened until now, while the database is away."""
        now_us = self._db.now_us()
        return await self._end_without_database(Revoked("user", user, now_us, now_us + self._kept_us))

    async def _end_without_database(self, revoked: Revoked) -> bool:
        """Effective here at once. Returns whether it is safe and told to every node that reaches the feed;
        otherwise only this node knows. Raises Unavailable if it could be kept nowhere: then it is over here
        for as long as this process runs."""
        self._announce(self._learn([revoked], pending=True))
        safe = told = False
        try:
            await self._kept.append([revoked])
            safe = True
        except Unavailable:
            log.warning("revocation_not_journalled", exc_info=True)
        if self._feed is not None:
            try:
                await self._feed.add([revoked], self._db.now_us())
                told = True
                self._untold.pop(revoked, None)
            except Unavailable as problem:
                log.info("revocation_not_told", code=problem.code)
        if not safe and not told:
            raise Unavailable
        return safe and told

    # learning

    async def load(self) -> None:
        """Read what an earlier run kept."""
        found = await self._kept.load()
        self._learn(found.journal, pending=True)
        snapshot = found.snapshot
        if snapshot is None:
            return
        self._learn(snapshot.stored, pending=False)
        self._learn(snapshot.pending, pending=True)
        if not found.trusted:
            return
        self.verifying = snapshot.keys
        self.trusted = _is_young(snapshot, self._db.now_us(), self._life_us)
        if snapshot.away_since_us is not None:
            # it may have lasted until the next snapshot was due
            seen_us = min(snapshot.written_us + self._refresh_us, self._db.now_us())
            self._outage.resume(snapshot.away_since_us, seen_us)

    async def poll_once(self) -> None:
        """Read what other nodes have revoked since; then store what is pending."""
        now_us = self._db.now_us()
        since_us, reaches = self._since_us, now_us - self._reached_us >= REACH_EVERY_US
        if reaches:
            since_us = min(since_us, now_us - REACH_US)
        rows = await self._db.read(store.list_revocations, since_us, now_us)
        self._since_us = now_us - OVERLAP_US
        if reaches:
            self._reached_us = now_us
        stored = [Revoked("session", *row) for row in rows]
        if not self._checked:
            self._checked = True
            self._expect({SessionId(each.id) for each in stored})
        self._learn(stored, pending=False)
        self.trusted = True
        await self._store_pending()

    async def read_feed_once(self) -> None:
        if self._feed is None:
            return
        now_us = self._db.now_us()
        revoked = await self._feed.since(self._fed_us)
        self._fed_us = now_us - OVERLAP_US
        self._learn([each for each in revoked if each.until_us > now_us], pending=True, told=True)

    async def listen(self) -> None:
        """Learn from the bus what was ended elsewhere, a moment before the next poll does. Until the
        subscription ends."""
        if self._bus is None:
            await trio.sleep_forever()
        async with self._bus.subscribe([CHANNEL]) as backlog:
            async for delivery in backlog:
                try:
                    news = _news.decode(delivery.payload)
                    self._learn(news.revoked, pending=not news.stored, told=True)
                except msgspec.DecodeError:
                    log.warning("revocations_unreadable", channel=CHANNEL)

    def forget_expired(self) -> None:
        """What is pending stays: the session itself lives on in the database."""
        now_us = self._db.now_us()
        every = [*self._sessions.values(), *self._people.values()]
        for each in [each for each in every if each.until_us <= now_us and each not in self._pending]:
            self._changed = True
            self._untold.pop(each, None)  # whoever could not be told need not be any more
            if each.kind == "session":
                del self._sessions[SessionId(each.id)]
            else:
                del self._people[UserId(each.id)]

    # telling

    async def write_back(self) -> None:
        """The database has gone back to an earlier state: what this node knows to be over is over again."""
        self._pending |= dict.fromkeys([*self._sessions.values(), *self._people.values()])
        await self._store_pending()

    async def tell(self) -> None:
        """Say at once, on the bus and the feed, what this node has learnt; again and again."""
        trouble = Trouble(log, "revocations_not_told")
        while True:
            with trio.move_on_after(RETRY_S if self._untold else RETELL_S):
                await self._told.wait()
            with trouble:
                await self.tell_once()

    async def tell_once(self) -> None:
        self._told = trio.Event()
        await self._publish()
        if self._feed is None:
            self._untold.clear()
            return
        if self._pending and trio.current_time() >= self._retell_s:
            self._retell_s = trio.current_time() + RETELL_S
            self._untold |= self._pending
        while self._untold:
            some = list(islice(self._untold, AT_ONCE))
            await self._feed.add(some, self._db.now_us())
            for revoked in some:
                self._untold.pop(revoked, None)

    async def _publish(self) -> None:
        """A hint: what is lost of it the table and the feed say, too."""
        news, self._news = self._news, []
        if self._bus is None:
            return
        for start in range(0, len(news), AT_ONCE):
            some = news[start : start + AT_ONCE]
            stored = not any(each in self._pending for each in some)
            with suppress(Problem):
                await self._bus.publish(CHANNEL, msgspec.json.encode(_News(stored, some)))

    # keeping

    async def save_once(self, keys: Sequence[VerifyingKey]) -> None:
        """Write the snapshot if it is due: not while this node knows too little to be trusted, which the age
        of the file must go on to tell. Raises Unavailable."""
        is_old = self._db.now_us() - self._saved_us >= self._refresh_us
        if not self.trusted or not self._kept.may_save or not (self._changed or is_old):
            return
        self._changed = False
        try:
            await self._kept.save(lambda: self._snapshot(keys))
        except Unavailable:
            self._changed = True
            raise

    def _snapshot(self, keys: Sequence[VerifyingKey]) -> Snapshot:
        now_us = self._saved_us = self._db.now_us()
        stored = [*self._sessions.values(), *self._people.values()]
        if self._pending:  # seldom; asking for each would be what a large set costs
            stored = [each for each in stored if each not in self._pending]
        return Snapshot(
            written_us=now_us,
            away_since_us=self._outage.since_us(),
            keys=list(keys),
            stored=stored,
            pending=list(self._pending),
        )

    def _learn(self, revoked: Iterable[Revoked], *, pending: bool, told: bool = False) -> list[Revoked]:
        """Hold it against every token from here on. Returns what is new.  pending: the database may not have
        it.  told: the feed has it, or those who know will tell it."""
        sessions: list[Revoked] = []
        people: list[Revoked] = []
        for each in revoked:
            if each.kind == "session":
                known = self._sessions.get(SessionId(each.id))
                if known is None:
                    self._sessions[SessionId(each.id)] = each
                    sessions.append(each)
                elif not pending and known in self._pending:
                    del self._pending[known]  # the database has it
                    self._changed = True
            else:
                known = self._people.get(UserId(each.id))
                if known is None or known.at_us < each.at_us:
                    if known is not None:
                        self._pending.pop(known, None)
                        self._untold.pop(known, None)
                    self._people[UserId(each.id)] = each
                    people.append(each)
        new = [*sessions, *people]
        if not new:
            return new
        self._changed = True
        if pending:
            self._pending |= dict.fromkeys(new)
            PENDING.set(len(self._pending))
        if not told:
            self._untold |= dict.fromkeys(new)
            self._told.set()
        if sessions:
            self.ended(frozenset(SessionId(each.id) for each in sessions))
        if people:
            self.signed_out(frozenset(UserId(each.id) for each in people))
        return new

    def _announce(self, revoked: list[Revoked]) -> None:
        if self._bus is not None and revoked:
            self._news += revoked
            self._told.set()

    def _expect(self, stored: set[SessionId]) -> None:
        """Of what an earlier run kept, the database must have all that was stored there. What it lacks it
        has forgotten: an older copy of it was put back."""
        now_us = self._db.now_us()
        lost = [each for session, each in self._sessions.items() if session not in stored]
        self._pending |= dict.fromkeys(
            each for each in [*lost, *self._people.values()] if each.until_us > now_us
        )

    async def _store_pending(self) -> None:
        PENDING.set(len(self._pending))
        while self._pending:
            some = list(islice(self._pending, AT_ONCE))
            found = await self._db.relieve(self._store, some)
            log.info("revocations_stored", count=len(some))
            for each in some:
                self._pending.pop(each, None)
            PENDING.set(len(self._pending))
            self._changed = True
            self._announce(self._learn(found, pending=False))

    async def _store(self, tx: Tx, revoked: Sequence[Revoked]) -> list[Revoked]:
        """End them in the database, if nobody has. Returns the sessions which that revokes."""
        now_us = self._db.now_us()
        sessions: set[SessionId] = set()
        for each in sorted(revoked, key=lambda each: (each.kind, each.id)):
            if each.kind == "session":
                sessions.add(SessionId(each.id))
                ended = await store.end_session_again(tx, SessionId(each.id), now_us)
            else:
                ended = await store.end_sessions_up_to(tx, UserId(each.id), each.at_us, now_us)
            for session, user in ended:
                sessions.add(session)
                await audit.record(
                    tx, action="auth:session:ended", actor=user, subject=session, now_us=now_us
                )
        await self.write(tx, frozenset(sessions), now_us)
        return [Revoked("session", each, now_us, now_us + self._kept_us) for each in sorted(sessions)]


async def lacking(config: AuthConfig, folder: Path, now_us: int) -> Lack | None:
    """What keeps a start without the database from accepting tokens. None if nothing does."""
    found = await Kept(folder).load()
    if found.snapshot is None or not found.trusted:
        return "nothing_kept"
    return None if _is_young(found.snapshot, now_us, config.access_ttl_s * SECOND_US) else "kept_too_long_ago"


def _is_young(snapshot: Snapshot, now_us: int, life_us: int) -> bool:
    """Whether it knows all that can be over of tokens that live. One from the future tells nothing."""
    return -OVERLAP_US <= now_us - snapshot.written_us < life_us


def _nobody(_: object) -> None:
    """Before the room is connected there are no sockets to close."""
