"""Turning the second factor on and off, and its recovery codes."""

from __future__ import annotations

import msgspec
import pyotp

from ... import audit
from ...clock import SECOND_US
from ...config import AuthConfig
from ...deps.contracts import Database, Tx
from ...errors import NotFound, TotpEnabled, TotpInvalid
from ...identity import Principal, UserId
from .. import store as accounts
from ..lockout import Lockout
from ..reauthentication import Reauthentication, require_open
from ..recovery.letters import Kind, Letters
from ..sessions import Closed, Origin, Sessions
from . import store
from .codes import DIGITS, STEP_S, Codes

SECRET_CHARS = 32  # of base32: 160 bits, as RFC 4226 recommends


class Begun(msgspec.Struct, frozen=True):
    """secret: base32, to be typed.  uri: `otpauth://…`, to be scanned."""

    secret: str
    uri: str


class Totp:
    """issuer: what an authenticator app shows beside the name."""

    def __init__(
        self,
        config: AuthConfig,
        db: Database,
        codes: Codes,
        reauthentication: Reauthentication,
        lockout: Lockout,
        sessions: Sessions,
        letters: Letters,
        *,
        issuer: str,
    ) -> None:
        self._setup_us = config.totp_setup_s * SECOND_US
        self._recovery_codes = config.recovery_codes
        self._db = db
        self._codes = codes
        self._reauthentication = reauthentication
        self._lockout = lockout
        self._sessions = sessions
        self._letters = letters
        self._issuer = issuer

    async def recovery_codes_left(self, user: UserId) -> int | None:
        """None while the second factor is off."""

        async def unit(tx: Tx) -> int | None:
            kept = await store.get(tx, user)
            is_on = kept is not None and kept.confirmed_us is not None
            return await store.count_codes(tx, user) if is_on else None

        return await self._db.read(unit)

    async def enroll(self, caller: Principal, password: str, totp_code: str | None, origin: Origin) -> Begun:
        """Begin; it counts once it is confirmed. What was begun before is forgotten.
        Raises TotpEnabled, and what Reauthentication does."""

        async def unit(tx: Tx) -> str:
            await require_open(tx, caller)
            if not await store.begin(tx, caller.user_id, sealed, self._db.now_us()):
                raise TotpEnabled
            return (await _account(tx, caller)).username

        await self._reauthentication.require(caller.user_id, password, totp_code, origin)
        secret = pyotp.random_base32(SECRET_CHARS)
        sealed = self._codes.seal(caller.user_id, secret)
        username = await self._db.write(unit)
        app = pyotp.TOTP(secret, digits=DIGITS, interval=STEP_S)
        return Begun(secret, app.provisioning_uri(name=username, issuer_name=self._issuer))

    async def confirm(self, caller: Principal, code: str, origin: Origin) -> list[str]:
        """Turn it on, with a first code of the app; every other session ends, for it was opened without.
        Returns the recovery codes, which are told this once.
        Raises NotFound when nothing was begun or too long ago; TotpInvalid, counted like a wrong password;
        AccountLocked."""
        shown, hashes = self._codes.recovery(caller.user_id, self._recovery_codes)
        closed = await self._db.write(self._confirm, caller, code, hashes, origin)
        if closed is None:
            raise TotpInvalid(denial="auth:session:refused", subject=caller.user_id)
        self._sessions.closed(closed)
        return shown

    async def _confirm(
        self, tx: Tx, caller: Principal, code: str, hashes: list[bytes], origin: Origin
    ) -> Closed | None:
        """None when the code is wrong, which has been counted."""
        await require_open(tx, caller)
        user, now_us = caller.user_id, self._db.now_us()
        begun = await store.lock_begun(tx, user)
        if begun is None or begun.created_us + self._setup_us <= now_us:
            raise NotFound("Begin to set up the second factor first.")
        attempt = await self._lockout.reserve_by_session(tx, user, origin.address, now_us)
        step = self._codes.step_of(user, begun.sealed, code, now_us)
        if step is None:
            await self._lockout.fail(tx, attempt)
            return None
        await self._lockout.refund(tx, attempt)
        await store.confirm(tx, user, now_us, step)
        await store.replace_codes(tx, user, hashes)
        await self._note(tx, caller, "auth:totp:enabled", "totp_on", origin, now_us)
        return await self._sessions.close(tx, user, origin.address, now_us, but=caller.session_id)

    async def renew_codes(
        self, caller: Principal, password: str, totp_code: str | None, origin: Origin
    ) -> list[str]:
        """Recovery codes in the place of those there were, told this once.
        Raises NotFound when the second factor is off, and what Reauthentication does."""

        async def unit(tx: Tx) -> None:
            await require_open(tx, caller)
            kept = await store.get(tx, caller.user_id)
            if kept is None or kept.confirmed_us is None:
                raise NotFound("The second factor is off.")
            await store.replace_codes(tx, caller.user_id, hashes)
            now_us = self._db.now_us()
            await self._note(tx, caller, "auth:totp:codes_renewed", "codes_renewed", origin, now_us)

        await self._reauthentication.require(caller.user_id, password, totp_code, origin)
        shown, hashes = self._codes.recovery(caller.user_id, self._recovery_codes)
        await self._db.write(unit)
        return shown

    async def disable(self, caller: Principal, password: str, totp_code: str | None, origin: Origin) -> None:
        """Nothing happens when it is off. Raises what Reauthentication does."""

        async def unit(tx: Tx) -> None:
            await require_open(tx, caller)
            if await store.delete(tx, caller.user_id):
                await self._note(tx, caller, "auth:totp:disabled", "totp_off", origin, self._db.now_us())

        await self._reauthentication.require(caller.user_id, password, totp_code, origin)
        await self._db.write(unit)

    async def _note(
        self, tx: Tx, caller: Principal, action: str, letter: Kind, origin: Origin, now_us: int
    ) -> None:
        await audit.record(
            tx,
            action=action,
            actor=caller.user_id,
            subject=caller.user_id,
            address=origin.address,
            now_us=now_us,
        )
        await self._letters.warn(tx, await _account(tx, caller), letter, origin, now_us)


async def _account(tx: Tx, caller: Principal) -> accounts.User:
    found = await accounts.get_user(tx, caller.user_id)
    if found is None:
        raise NotFound
    return found
