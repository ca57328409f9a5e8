"""Proving who one is, by password and second factor, counted by the lock-out.

Three steps, since a unit of work waits for nothing but the database: the attempt is reserved; the password is
looked at; and one unit accepts, in which the second factor is used up, the attempt given back and whatever
was to be done is done. An unknown name takes the same steps.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NamedTuple, TypeVar

from ..deps.contracts import Database, Tx
from ..errors import InvalidCredentials, Problem, TotpInvalid, Unavailable
from . import store
from .lockout import Attempt, Lockout
from .passwords import Passwords
from .sessions import Origin
from .totp.codes import Codes

T = TypeVar("T")


class Claim(NamedTuple):
    """held: of the account that is claimed, None if there is none."""

    held: store.Password | None
    attempt: Attempt


class Proofs:
    def __init__(self, db: Database, passwords: Passwords, lockout: Lockout, codes: Codes) -> None:
        self._db = db
        self._passwords = passwords
        self._lockout = lockout
        self._codes = codes

    async def require(
        self,
        reserve: Callable[[Tx], Awaitable[Claim]],
        password: str,
        totp_code: str | None,
        origin: Origin,
        accept: Callable[[Tx, store.User], Awaitable[T]],
    ) -> T:
        """What `accept` returns, done in the unit that accepts.

        reserve: the unit that finds the account and reserves the attempt.  accept: in a transaction that
        holds the account; may refuse, too; that is not counted.
        Raises InvalidCredentials (TotpInvalid, if it is the code), TotpRequired, AccountLocked, Unavailable.
        """
        claim = await self._db.write(reserve)
        try:
            outcome = await self._judge(claim, password, totp_code, origin, accept)
        except Problem:  # it failed for another reason
            with suppress(Unavailable):  # then it stays counted, for a while
                await self._db.write(self._lockout.refund, claim.attempt)
            raise
        if isinstance(outcome, Problem):
            raise outcome
        return outcome

    async def _judge(
        self,
        claim: Claim,
        password: str,
        totp_code: str | None,
        origin: Origin,
        accept: Callable[[Tx, store.User], Awaitable[T]],
    ) -> T | Problem:
        """What is returned as a refusal has been counted; what is raised has not."""
        held = claim.held
        right = await self._passwords.verify(held and held.password_hash, password)
        if held is None or not right:
            await self._db.write(self._lockout.fail, claim.attempt)
            return InvalidCredentials(denial="auth:session:refused", subject=claim.attempt.user)
        renewed: str | None = None
        if self._passwords.is_outdated(held.password_hash):
            with suppress(Unavailable):  # too busy: the next time renews it
                renewed = await self._passwords.hash(password)

        async def unit(tx: Tx) -> T | Problem:
            account = await store.lock_account(tx, held.user_id)
            if account is None or account.password_hash != held.password_hash:
                raise Unavailable("The password was changed at this moment; try again.", retry_after_s=1)
            refusal = await self._codes.check(tx, held.user_id, totp_code, origin, self._db.now_us())
            if isinstance(refusal, TotpInvalid):
                await self._lockout.fail(tx, claim.attempt)
                return refusal
            if refusal is not None:
                raise refusal
            await self._lockout.refund(tx, claim.attempt)
            if renewed is not None:
                await store.replace_hash(tx, held.user_id, held.password_hash, renewed)
            return await accept(tx, account.user)

        return await self._db.write(unit)
