"""Sessions: what a sign-in opens, keeps alive and ends.

A session belongs to one device. Its refresh token is spent at each use and answered with a successor. The
spent one, shown again within `auth.refresh_grace_s` while its successor is unspent, gets that same successor
(a lost answer, two tabs), since it is computed from the spent one; later it is theft and ends the session.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os

import msgspec
import structlog

from .. import audit
from ..clock import SECOND_US
from ..config import AuthConfig
from ..deps.contracts import Database, Tx
from ..errors import InvalidToken, NotFound, TokenExpired, TokenRevoked, Unavailable, is_away
from ..identity import DeviceId, Principal, SessionId, UserId, new_id_at
from ..node import Secrets
from . import devices, store
from .attempts import TokenStolen, counted
from .devicekeys.keys import DeviceKeys
from .devices import DeviceClaim
from .outage import Outage
from .revocations import Revocations
from .tokens import AccessTokens, Claims, digest, random_token

log = structlog.get_logger(module="auth")

NEWEST = SessionId("ffffffff-ffff-ffff-ffff-ffffffffffff")  # after every session id: where a list begins


class Origin(msgspec.Struct, frozen=True):
    """Where a request came from.  language: the Accept-Language it sent."""

    address: str
    user_agent: str
    language: str = ""


class Opened(msgspec.Struct, frozen=True):
    """What a transaction did for a session; worth something once it is committed.

    device_secret: for a new device.  ended: sessions that this one took the place of.
    """

    user_id: UserId
    session_id: SessionId
    device_id: DeviceId
    refresh_token: str
    device_secret: str | None = None
    ended: frozenset[SessionId] = frozenset()


class Closed(msgspec.Struct, frozen=True):
    """Sessions of a person that a transaction has ended, at `at_us`."""

    user_id: UserId
    ended: frozenset[SessionId]
    at_us: int


class Grant(msgspec.Struct, frozen=True):
    """What the client is given."""

    user_id: UserId
    session_id: SessionId
    device_id: DeviceId
    device_secret: str | None
    access_token: str
    refresh_token: str
    expires_in_s: int


class Sessions:
    def __init__(
        self,
        config: AuthConfig,
        db: Database,
        secrets: Secrets,
        tokens: AccessTokens,
        revocations: Revocations,
        outage: Outage,
        device_keys: DeviceKeys,
    ) -> None:
        self._config = config
        self._db = db
        self._secrets = secrets
        self._tokens = tokens
        self._revocations = revocations
        self._outage = outage
        self._device_keys = device_keys
        self._refresh_secret: bytes | None = None

    async def prepare(self) -> None:
        """Load the secret that successors of refresh tokens are computed with."""
        self._refresh_secret = await self._secrets.get_or_make(self._db, "refresh", lambda: os.urandom(32))

    # opening and keeping

    async def open(self, tx: Tx, user: UserId, claim: DeviceClaim, origin: Origin, now_us: int) -> Opened:
        """Open a session in the caller's transaction; after the commit `grant` makes it known."""
        device = await devices.recognise(tx, user, claim, now_us)
        ended: frozenset[SessionId] = frozenset()
        if device.secret is None:  # a new one has none
            ended = await store.end_sessions_of_device(tx, device.device_id, now_us)
            await self._revocations.write(tx, ended, now_us)
        # its id tells when it was opened, by the clock that all nodes share (`Revocations.covers`)
        session, refresh_token = SessionId(new_id_at(now_us)), random_token()
        expires_us = now_us + self._config.refresh_ttl_s * SECOND_US
        await store.add_session(
            tx,
            session,
            user,
            device.device_id,
            address=origin.address,
            user_agent=origin.user_agent,
            now_us=now_us,
            expires_us=expires_us,
        )
        await store.add_refresh(tx, digest(refresh_token), session, now_us=now_us, expires_us=expires_us)
        await audit.record(
            tx,
            action="auth:session:opened",
            actor=user,
            subject=session,
            address=origin.address,
            facts={"device_id": device.device_id, "new_device": device.secret is not None},
            now_us=now_us,
        )
        return Opened(user, session, device.device_id, refresh_token, device.secret, ended)

    def grant(self, opened: Opened) -> Grant:
        """What was opened or kept alive, as the client gets it."""
        self._revocations.apply(opened.ended)
        return Grant(
            opened.user_id,
            opened.session_id,
            opened.device_id,
            opened.device_secret,
            self._tokens.issue(opened.user_id, opened.session_id, opened.device_id),
            opened.refresh_token,
            self._config.access_ttl_s,
        )

    async def refresh(self, token: str, origin: Origin) -> Grant:
        """Raises InvalidToken, TokenExpired, TokenRevoked."""
        with counted("refresh"):
            rotated = await self._db.write(self._rotate, token, origin, self._db.now_us())
            if isinstance(rotated, Opened):
                return self.grant(rotated)
            self.closed(rotated)
            log.warning("refresh_token_stolen", session_ids=sorted(rotated.ended))
            raise TokenStolen

    async def _rotate(self, tx: Tx, token: str, origin: Origin, now_us: int) -> Opened | Closed:
        """The session with its next refresh token; or, after a theft, what ended by it."""
        spent = digest(token)
        session = await store.lock_session(tx, spent)
        held = await store.get_refresh(tx, spent)
        if session is None or held is None:
            raise InvalidToken
        # what was ended without the database may not stand there yet
        if session.ended_us is not None or self._revocations.covers(session.session_id, session.user_id):
            raise TokenRevoked
        if held.expires_us <= now_us:
            raise TokenExpired
        successor = self._successor(token)
        if held.spent_us is None:
            expires_us = now_us + self._config.refresh_ttl_s * SECOND_US
            await store.spend_refresh(tx, spent, now_us)
            await store.add_refresh(
                tx, digest(successor), session.session_id, now_us=now_us, expires_us=expires_us
            )
            await store.touch_session(
                tx,
                session.session_id,
                address=origin.address,
                user_agent=origin.user_agent,
                now_us=now_us,
                expires_us=expires_us,
            )
        elif not await self._may_repeat(tx, held.spent_us, successor, now_us):
            return await self._end(
                tx,
                await store.end_session(tx, session.session_id, session.user_id, now_us),
                action="auth:session:stolen",
                user=session.user_id,
                address=origin.address,
                now_us=now_us,
            )
        return Opened(session.user_id, session.session_id, session.device_id, successor)

    async def _may_repeat(self, tx: Tx, spent_us: int, successor: str, now_us: int) -> bool:
        if now_us - spent_us >= self._config.refresh_grace_s * SECOND_US:
            return False
        after = await store.get_refresh(tx, digest(successor))
        return after is not None and after.spent_us is None

    def _successor(self, token: str) -> str:
        """43 URL-safe characters, the same each time for the same token."""
        if self._refresh_secret is None:
            raise Unavailable
        made = hmac.digest(self._refresh_secret, token.encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(made).rstrip(b"=").decode()

    # proving

    def known(self, token: str, *, outage: bool) -> Principal | None:
        principal = self._tokens.known(token)
        if principal is None or principal.expires_us <= self._db.now_us():
            principal = self._known_in_outage(token, principal) if outage else None
        if principal is None or self._revocations.covers(principal.session_id, principal.user_id):
            return None
        return principal

    def _known_in_outage(self, token: str, read: Principal | None) -> Principal | None:
        """read: as it was before, if it was."""
        since_us = self._outage.since_us()
        if since_us is None:
            return None
        principal = read or self._tokens.known_unread(token, since_us)
        return principal if principal and self._outage.accepts(principal.expires_us) else None

    async def authenticate(self, token: str, *, outage: bool) -> Principal:
        known = self.known(token, outage=outage)
        if known is not None:
            return known
        if not self._revocations.trusted:
            raise Unavailable
        since_us = self._outage.since_us()
        claims = await self._tokens.verify(token, self._db.now_us() if since_us is None else since_us)
        self._require_not_over(claims)
        if since_us is not None:
            return self._take_unread(token, claims, since_us, outage=outage)
        try:
            return await self._read(token, claims)
        except Unavailable as problem:
            if not outage or not is_away(problem):
                raise
        self._require_not_over(claims)
        since_us = self._outage.since_us()
        if since_us is None:  # nobody has found out yet that it is away
            return self._tokens.unread(claims)
        return self._take_unread(token, claims, since_us, outage=True)

    def _require_not_over(self, claims: Claims) -> None:
        if self._revocations.covers(claims.sid, claims.sub):
            raise TokenRevoked

    def _take_unread(self, token: str, claims: Claims, since_us: int, *, outage: bool) -> Principal:
        """Without its session, which the outage that began then keeps from us."""
        if self._outage.accepts(claims.exp * SECOND_US):
            if outage:
                return self._tokens.remember_unread(token, claims, since_us)
        elif claims.exp * SECOND_US <= self._db.now_us():
            raise TokenExpired
        raise Unavailable

    async def _read(self, token: str, claims: Claims) -> Principal:
        session = await self._db.read(store.get_session, claims.sid)
        self._require_not_over(claims)  # it may have been revoked while the row was read
        if session is None or session.ended_us is not None:
            raise TokenRevoked
        if (session.user_id, session.device_id) != (claims.sub, claims.did):
            raise InvalidToken
        principal = Principal(claims.sub, claims.sid, claims.did, session.role, claims.exp * SECOND_US)
        self._tokens.remember(token, principal)
        return principal

    async def add_ticket(self, caller: Principal) -> tuple[str, int]:
        """A ticket for one WebSocket, and the whole seconds it lives; never longer than the token it stands
        for, whose end becomes the socket's."""
        ticket, now_us = random_token(), self._db.now_us()
        expires_us = min(now_us + self._config.ticket_ttl_s * SECOND_US, caller.expires_us)
        await self._db.write(
            store.add_ticket,
            digest(ticket),
            caller.session_id,
            expires_us=expires_us,
            token_ends_us=caller.expires_us,
        )
        return ticket, (expires_us - now_us) // SECOND_US

    async def redeem(self, ticket: str) -> Principal:
        with counted("ticket"):
            taken, session = await self._db.write(_take_ticket, digest(ticket))
            if taken is None or session is None:
                raise InvalidToken
            if taken.expires_us <= self._db.now_us():
                raise InvalidToken("The ticket has expired.")
            over = self._revocations.covers(taken.session_id, session.user_id)
            if session.ended_us is not None or over:
                raise InvalidToken("The session of this ticket has ended.")
            return Principal(
                session.user_id, taken.session_id, session.device_id, session.role, taken.token_ends_us
            )

    # looking and ending

    async def list(
        self, caller: Principal, cursor: SessionId | None, limit: int
    ) -> list[store.DeviceSession]:
        """One more than `limit` if there are more."""
        return await self._db.read(
            store.list_sessions,
            caller.user_id,
            before=cursor or NEWEST,
            limit=limit + 1,
            now_us=self._db.now_us(),
        )

    async def rename(self, caller: Principal, session: SessionId, name: str) -> store.DeviceSession:
        """Name the device of a session. Raises NotFound."""
        return await self._db.write(_rename, caller.user_id, session, name, self._db.now_us())

    async def end(self, caller: Principal, session: SessionId, address: str) -> bool:
        """Whether every node that reaches the database or the feed refuses it within a second; if not, this
        one does, and the others once it can tell them.

        Raises NotFound unless it is a live session of the caller's, or the one that asks: two logouts at the
        same moment both succeed. Without the database only the one that asks is known to be the caller's.
        """

        async def unit(tx: Tx) -> Closed:
            ended = await store.end_session(tx, session, caller.user_id, now_us)
            if not ended and session != caller.session_id:
                raise NotFound(denial="denied:session", subject=session)
            return await self._end(
                tx,
                ended,
                action="auth:session:ended",
                user=caller.user_id,
                address=address,
                now_us=now_us,
            )

        now_us = self._db.now_us()
        try:
            self.closed(await self._db.relieve(unit))
        except Unavailable:
            if session != caller.session_id:
                raise
            return await self._revocations.end_session(session)
        return True

    async def end_all(self, caller: Principal, address: str) -> bool:
        """End every session of the caller's, this one too. Returns as `end` does."""

        try:
            self.closed(await self._db.relieve(self.close, caller.user_id, address, self._db.now_us()))
        except Unavailable:
            return await self._revocations.end_all(caller.user_id)
        return True

    async def close(
        self, tx: Tx, user: UserId, address: str, now_us: int, *, but: SessionId | None = None
    ) -> Closed:
        """End every session of this person in the caller's transaction; after the commit `closed` makes it
        effective here.  but: one that goes on."""
        return await self._end(
            tx,
            await store.end_sessions_of_user(tx, user, now_us)
            if but is None
            else await store.end_other_sessions(tx, user, but, now_us),
            action="auth:session:ended",
            user=user,
            address=address,
            now_us=now_us,
        )

    def closed(self, closed: Closed) -> None:
        """After the commit: their tokens are refused, and who shares a conversation learns of the keys."""
        self._revocations.apply(closed.ended)
        if closed.ended:
            self._device_keys.news.changed(closed.user_id, closed.at_us)

    async def _end(
        self,
        tx: Tx,
        ended: frozenset[SessionId],
        *,
        action: str,
        user: UserId,
        address: str,
        now_us: int,
    ) -> Closed:
        """Revoke and audit sessions that this transaction has ended; the keys of their devices go."""
        await self._revocations.write(tx, ended, now_us)
        await self._device_keys.forget(tx, ended, now_us)
        for session in sorted(ended):
            await audit.record(tx, action=action, actor=user, subject=session, address=address, now_us=now_us)
        return Closed(user, ended, now_us)


async def _take_ticket(tx: Tx, ticket_hash: bytes) -> tuple[store.Ticket | None, store.Session | None]:
    taken = await store.take_ticket(tx, ticket_hash)
    return taken, await store.get_session(tx, taken.session_id) if taken else None


async def _rename(tx: Tx, user: UserId, session: SessionId, name: str, now_us: int) -> store.DeviceSession:
    live = await store.get_live_session(tx, user, session, now_us)
    if live is None:
        raise NotFound(denial="denied:session", subject=session)
    await store.rename_device(tx, live.device_id, name)
    return live._replace(device_name=name)
