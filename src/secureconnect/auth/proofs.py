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
        accept: Callable[[Tx, store.Password], Awaitable[T]],
    ) -> T:
        """What `accept` returns, done in the unit that accepts.

        reserve: the unit that finds the account and reserves the attempt.
        Raises InvalidCredentials (TotpInvalid, if it is the code), TotpRequired, AccountLocked, Unavailable.
        """
        claim = await self._db.write(reserve)
        try:
            right = await self._passwords.verify(claim.held and claim.held.password_hash, password)
        except Unavailable:
            with suppress(Unavailable):  # then it stays counted, for a while
                await self._db.write(self._lockout.refund, claim.attempt)
            raise
        if claim.held is None or not right:
            await self._db.write(self._lockout.fail, claim.attempt)
            raise InvalidCredentials(denial="auth:session:refused", subject=claim.attempt.user)
        renewed: str | None = None
        if self._passwords.is_outdated(claim.held.password_hash):
            with suppress(Unavailable):  # too busy: the next time renews it
                renewed = await self._passwords.hash(password)
        outcome = await self._db.write(self._accept, claim.held, claim.attempt, renewed, totp_code, accept)
        if isinstance(outcome, Problem):
            raise outcome
        return outcome

    async def _accept(
        self,
        tx: Tx,
        held: store.Password,
        attempt: Attempt,
        renewed: str | None,
        totp_code: str | None,
        accept: Callable[[Tx, store.Password], Awaitable[T]],
    ) -> T | Problem:
        """A refusal is returned where what was counted must stay: an exception would undo it."""
        now_hash = await store.lock_password(tx, held.user_id)
        if now_hash != held.password_hash:
            await self._lockout.refund(tx, attempt)
            return Unavailable("The password was changed at this moment; try again.", retry_after_s=1)
        refusal = await self._codes.check(tx, held.user_id, totp_code, attempt.address, self._db.now_us())
        if isinstance(refusal, TotpInvalid):
            await self._lockout.fail(tx, attempt)
            return refusal
        await self._lockout.refund(tx, attempt)
        if refusal is not None:
            return refusal
        if renewed is not None:
            await store.replace_hash(tx, held.user_id, held.password_hash, renewed)
        return await accept(tx, held)
