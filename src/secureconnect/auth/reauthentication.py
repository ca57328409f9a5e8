"""Asking somebody who is signed in to prove it again, before what a stolen token must not do."""

from __future__ import annotations

from ..deps.contracts import Database, Tx
from ..errors import TokenRevoked
from ..identity import Principal, UserId
from . import store
from .attempts import counted
from .lockout import Lockout
from .proofs import Claim, Proofs
from .sessions import Origin


class Reauthentication:
    def __init__(self, db: Database, proofs: Proofs, lockout: Lockout) -> None:
        self._db = db
        self._proofs = proofs
        self._lockout = lockout

    async def require(self, user_id: UserId, password: str, totp_code: str | None, origin: Origin) -> None:
        """Before the unit that makes the change, never inside it: it hashes. Failures count on a counter of
        this person's sessions, which nobody without one can fill.

        totp_code: of the app, or a recovery code; used up by this. None is right for who has no second
        factor.  Raises InvalidCredentials (TotpInvalid, if it is the code), TotpRequired, AccountLocked,
        Unavailable.
        """

        async def reserve(tx: Tx) -> Claim:
            held = await store.get_password_of(tx, user_id)
            now_us = self._db.now_us()
            attempt = await self._lockout.reserve_by_session(tx, user_id, origin.address, now_us)
            return Claim(held, attempt)

        with counted("reauthentication"):
            await self._proofs.require(reserve, password, totp_code, origin, _do_nothing)


async def require_open(tx: Tx, caller: Principal) -> None:
    """In the unit of the change, first: hold the account. The session that asks goes on, so what it proved
    before was not overtaken by a new password or the end of the account: they end it.
    Raises TokenRevoked."""
    await store.lock_account(tx, caller.user_id)
    session = await store.get_session(tx, caller.session_id)
    if session is None or session.ended_us is not None:
        raise TokenRevoked


async def _do_nothing(_: Tx, __: store.User) -> None:
    """The change has a unit of its own."""
