"""The room itself: its parts put together, its periodic work, and what the gateway asks of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import structlog
import trio

from ..clock import DAY_US
from ..config import AuthConfig, KeysConfig
from ..deps.contracts import Bus, Cache, Database, RevocationFeed, Signals, Tx
from ..edge import PeopleSignedOut, SessionsEnded
from ..errors import Unavailable
from ..identity import ConversationId, MessageId, Principal, UserId
from ..node import Secrets
from ..periodic import every
from . import store
from .accounts import Accounts
from .admin.bans import Bans
from .admin.overview import Condition, Figures, Overview
from .admin.removal import Removal
from .admin.rescue import Rescue
from .announcements.announcements import Announcements
from .announcements.store import Announcement
from .blocks.blocks import Blocks, Parted
from .deletion.deletion import Deletion, Forget
from .devicekeys.keys import DeviceKeys
from .devicekeys.news import IsHere, Tell
from .export.export import Export, Records
from .friends.friends import Friends
from .invites import store as invite_store
from .invites.invites import Invites
from .keys import Keyring
from .lockout import Lockout
from .lockout import store as lockout_store
from .outage import Outage, Since, never_away
from .passwords import Passwords
from .profile.profile import Hidden, Profile
from .proofs import Proofs
from .reauthentication import Reauthentication
from .recovery.letters import Letters
from .recovery.recovery import Recovery
from .recovery.registrations import Registrations
from .reports.reports import Reports, Shown
from .revocations import Revocations
from .sessions import Sessions
from .tokens import AccessTokens
from .totp.codes import Codes
from .totp.totp import Totp

log = structlog.get_logger(module="auth")

PRUNE_S = 60.0
LISTEN_AGAIN_S = 0.2


class Auth:
    """An `edge.Authenticator`. Serves once the keys and the revocations are read; without the database, from
    what an earlier run kept in the data folder.

    letters: what people are written.  confirms_email: before an account begins; it needs a mail server.
    folder: the data folder.  server_name: stands in the device keys that clients sign, and in authenticator
    apps.  feed: of revocations, None where there is none; it must raise Unavailable when it cannot reach the
    other nodes, and never fall back to this process's memory.  public_url: of this server, may be empty.
    outage_since_us: when, in the database's time, this node lost the database; None while it is there.
    """

    def __init__(
        self,
        config: AuthConfig,
        db: Database,
        secrets: Secrets,
        folder: Path,
        *,
        cache: Cache,
        signals: Signals,
        server_name: str,
        keys: KeysConfig | None = None,
        letters: Letters,
        confirms_email: bool = False,
        outage_since_us: Since = never_away,
        feed: RevocationFeed | None = None,
        bus: Bus | None = None,
        public_url: str = "",
    ) -> None:
        self._db = db
        self._poll_s = config.revocation_poll_ms / 1000
        self._passwords = Passwords(config)
        self._outage = Outage(config, db.now_us, outage_since_us)
        self._keyring = Keyring(config, db, secrets, self._outage)
        self._revocations = Revocations(config, db, self._outage, folder, feed, bus)
        self._is_prepared = False
        tokens = AccessTokens(config, self._keyring, db.now_us)
        self.device_keys = DeviceKeys(keys or KeysConfig(), db, cache, signals, server_name)
        self.sessions = Sessions(
            config, db, secrets, tokens, self._revocations, self._outage, self.device_keys
        )
        self.lockout = Lockout(config, secrets.derive("lockout"))
        codes = Codes(secrets, letters)
        proofs = Proofs(db, self._passwords, self.lockout, codes)
        self.reauthentication = Reauthentication(db, proofs, self.lockout)
        self.totp = Totp(
            config,
            db,
            codes,
            self.reauthentication,
            self.lockout,
            self.sessions,
            letters,
            issuer=server_name,
        )
        self.invites = Invites(config, db, public_url)
        registrations = Registrations(config, db, letters)
        self.accounts = Accounts(
            config,
            db,
            self._passwords,
            self.sessions,
            self.lockout,
            proofs,
            letters,
            registrations.begin if confirms_email else None,
        )
        self.recovery = Recovery(
            config,
            db,
            self._passwords,
            self.sessions,
            self.reauthentication,
            self.lockout,
            letters,
            registrations,
        )
        self.bans = Bans(config, db, self._revocations, folder)
        self.overview = Overview(db)
        self.reports = Reports(config, db)
        self.announcements = Announcements(db)
        self.profile = Profile(db, self._passwords, self.sessions, self.reauthentication, letters)
        self.friends = Friends(db, config.max_friends, self.device_keys.news)
        self.blocks = Blocks(db, config.max_blocked, self.device_keys.news)
        self.deletion = Deletion(
            db,
            self.sessions,
            self.reauthentication,
            self.recovery.forget,
            config.deletion_grace_days * DAY_US,
        )
        self.removal = Removal(config, db, self._revocations, self.deletion.erase_at_once)
        self.rescue = Rescue(config, db, self.lockout, self._revocations)
        self.export = Export(db, config.exports_at_once)
        self._status_of: Callable[[UserId], str | None] = _nobody_knows

    def connect(
        self,
        *,
        ended: SessionsEnded,
        signed_out: PeopleSignedOut | None = None,
        status_of: Callable[[UserId], str | None] | None = None,
        shown: Callable[[UserId, MessageId], Awaitable[Shown]] | None = None,
        announce: Callable[[Announcement], None] | None = None,
        announced: Callable[[Tx, str, UserId], Awaitable[None]] | None = None,
        figures: Callable[[], Awaitable[Figures]] | None = None,
        condition: Callable[[], Condition] | None = None,
        parted: Parted | None = None,
        hidden: Hidden | None = None,
        forget: Sequence[Forget] = (),
        exports: Mapping[str, Records] | None = None,
        is_here: IsHere | None = None,
        tell: Tell | None = None,
    ) -> None:
        """Before `run`.  ended: closes the sockets of sessions that are over; never waits.
        signed_out: the same for people of whom sessions have ended that only `has_ended` knows.
        status_of: the presence shown with a user; until it is given, `status` is null.
        shown: a message as someone may see it, to be reported; raises NotFound.
        announce: tells every connected client, on every node; never waits.
        announced: in the transaction that makes an announcement, with its id and who makes it.
        figures, condition: what administrators ask about the other rooms and what they stand on.
        parted: is told of two people who must no longer see each other; never waits.
        hidden: in the transaction in which somebody ceases to show when they were last here.
        forget, exports: of the other rooms, what erases a person there, and by name what is kept of one.
        is_here, tell: whether a person has sockets on this node, and what offers them an event."""
        self._revocations.ended = ended
        if signed_out is not None:
            self._revocations.signed_out = signed_out
        if status_of is not None:
            self._status_of = status_of
        if shown is not None:
            self.reports.shown = shown
        if announce is not None:
            self.announcements.tell = announce
        if announced is not None:
            self.announcements.noted = announced
        if figures is not None:
            self.overview.figures = figures
        if condition is not None:
            self.overview.condition = condition
        if parted is not None:
            self.blocks.parted = parted
        if hidden is not None:
            self.profile.hidden = hidden
        self.deletion.forget = forget
        self.export.rooms = exports or {}
        if is_here is not None and tell is not None:
            self.device_keys.connect(is_here, tell)

    def status_of(self, user: UserId) -> str | None:
        """Presence, or None when it is not known: nobody's profile depends on it."""
        try:
            return self._status_of(user)
        except Unavailable:
            return None

    async def statuses_for(self, caller: UserId, users: Sequence[UserId]) -> dict[UserId, str]:
        """Presence of those of `users` whose presence the caller may see, as far as it is known."""
        known = ((user, self.status_of(user)) for user in users)
        statuses = {user: status for user, status in known if status is not None}
        if not statuses:
            return {}
        seen = await self._db.read(store.sees_presence, caller, list(statuses))
        return {user: statuses[user] for user in seen}

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        await self._revocations.load()
        await self.bans.load()
        self._keyring.lend(self._revocations.verifying)
        with suppress(Unavailable):  # its pass says so
            await self.read_feed_once()
        try:
            await self.poll_once()
        except Unavailable as problem:
            log.warning("auth_without_database", code=problem.code, trusted=self._revocations.trusted)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(every, self._poll_s, self.poll_once, log, "auth_poll_failed")
            nursery.start_soon(every, self._poll_s, self.read_feed_once, log, "auth_feed_failed")
            nursery.start_soon(every, self._poll_s, self.save_once, log, "auth_snapshot_failed")
            nursery.start_soon(every, PRUNE_S, self.prune_once, log, "auth_prune_failed")
            nursery.start_soon(every, PRUNE_S, self.deletion.pass_once, log, "auth_deletion_failed")
            nursery.start_soon(every, PRUNE_S, self.device_keys.prune_once, log, "key_prune_failed")
            nursery.start_soon(self._revocations.tell)
            nursery.start_soon(self.device_keys.news.tell_forever)
            nursery.start_soon(every, LISTEN_AGAIN_S, self._revocations.listen, log, "auth_bus_failed")
            task_status.started()

    async def poll_once(self) -> None:
        """Learn which sessions other nodes have ended, and which keys now sign; store what was ended while
        the database was away."""
        self._outage.since_us()  # whoever looks learns when it begins and ends
        if not self._is_prepared:
            await self._keyring.ensure()
            await self.sessions.prepare()
            self._is_prepared = True
        await self._revocations.poll_once()
        await self.bans.store_pending_once()
        await self._keyring.reload()

    async def read_feed_once(self) -> None:
        """Learn what was ended by nodes that had no database, or on which this one has none."""
        await self._revocations.read_feed_once()

    async def save_once(self) -> None:
        """Keep in the data folder what a start without the database needs."""
        await self._revocations.save_once(self._keyring.verifying())

    async def prune_once(self) -> None:
        """Delete what has expired, a bounded transaction at a time."""
        self._revocations.forget_expired()
        for kind in store.PRUNE_KINDS:
            while await self._db.relieve(store.prune, kind, self._db.now_us()) == store.PRUNE_ROWS:
                pass
        for table in (lockout_store, invite_store):
            while await self._db.relieve(table.prune, self._db.now_us()) == table.PRUNE_ROWS:
                pass
        await self.recovery.prune_once()

    async def write_back(self) -> None:
        """After the database went back to an earlier state: end again what had been ended since, and hand out
        no key that may have been handed out."""
        await self._revocations.write_back()
        await self.device_keys.purge()

    def tell_member_left(self, conversation: ConversationId, user: UserId) -> None:
        """After the commit of that (`note_departures`); never waits."""
        self.device_keys.news.left(user, conversation)

    def tell_dissolved(self, conversation: ConversationId, at_us: int) -> None:
        """All have left it, for it is deleted; after the commit of that; never waits."""
        self.device_keys.news.dissolved(conversation, at_us)

    def known(self, token: str, *, outage: bool = False) -> Principal | None:
        return self.sessions.known(token, outage=outage)

    async def authenticate(self, token: str, *, outage: bool = False) -> Principal:
        return await self.sessions.authenticate(token, outage=outage)

    def has_ended(self, principal: Principal) -> bool:
        return self._revocations.covers(principal.session_id, principal.user_id)

    def left_us(self, principal: Principal) -> tuple[int, bool]:
        return self._outage.left_us(principal.expires_us)

    async def redeem(self, ticket: str) -> Principal:
        return await self.sessions.redeem(ticket)


def _nobody_knows(_: UserId) -> None:
    return None
