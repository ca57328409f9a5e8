"""Counting failures and locking what has too many.

Where an attempt counts: with a known device, which has proved its secret, on that device; else on the
account, or on the name that was given if it has none. So whoever does not have the device cannot lock its
owner out of it. Re-authentication of somebody who is signed in counts on a third counter, which needs a
session to reach. Attempts without a known device count on the address, too, with a looser limit.

An attempt is reserved before the password is looked at and given back if it was right: however many guess at
once and on however many nodes, no more of them get a verdict than the limit.
"""

from __future__ import annotations

import hashlib
import hmac

import msgspec

from ... import audit
from ...clock import SECOND_US
from ...config import AuthConfig
from ...deps.contracts import Tx
from ...edge import subscriber_of
from ...errors import AccountLocked
from ...identity import DeviceId, UserId
from .. import store as accounts
from . import store


class Attempt(msgspec.Struct, frozen=True):
    """One that is reserved, at that time.  user: whose account it is about, if there is one.
    by_address: whether its failure counts on the address, too."""

    counter: bytes
    at_us: int
    user: UserId | None
    address: str
    by_address: bool


class Lockout:
    """key: counters are an HMAC with it, equal on every node."""

    def __init__(self, config: AuthConfig, key: bytes) -> None:
        self._key = key
        self._limit = config.lockout_failures
        self._address_limit = config.lockout_address_failures
        self._window_us = config.lockout_window_s * SECOND_US
        self._lasts_us = config.lockout_s * SECOND_US

    # what is counted for; each reserves one attempt or raises AccountLocked

    async def reserve_by_device(
        self, tx: Tx, user: UserId, device: DeviceId, address: str, now_us: int
    ) -> Attempt:
        """A sign-in from a device that has proved its secret."""
        return await self._reserve(
            tx, Attempt(self._counter("device", device), now_us, user, address, by_address=False)
        )

    async def reserve_by_account(self, tx: Tx, user: UserId, address: str, now_us: int) -> Attempt:
        """A sign-in from anywhere else."""
        return await self._reserve(
            tx, Attempt(self._counter("account", user), now_us, user, address, by_address=True)
        )

    async def reserve_by_name(self, tx: Tx, name: str, address: str, now_us: int) -> Attempt:
        """A sign-in with a name that has no account.  name: folded, and unlike any of another kind."""
        return await self._reserve(
            tx, Attempt(self._counter("name", name), now_us, None, address, by_address=True)
        )

    async def reserve_by_session(self, tx: Tx, user: UserId, address: str, now_us: int) -> Attempt:
        """Somebody who is signed in proves it again."""
        return await self._reserve(
            tx, Attempt(self._counter("session", user), now_us, user, address, by_address=False)
        )

    # how it ended

    async def refund(self, tx: Tx, attempt: Attempt) -> None:
        """It was right, or nobody has looked."""
        if await store.end(tx, attempt.counter, attempt.at_us):
            return
        failures = await store.lock(tx, attempt.counter, attempt.at_us)
        if attempt.at_us in failures:
            failures.remove(attempt.at_us)
        await store.put(tx, attempt.counter, failures, self._expires_us(max(failures, default=0)))

    async def fail(self, tx: Tx, attempt: Attempt) -> None:
        """It was wrong: it stays counted, and counts on the address."""
        if attempt.by_address:
            counter = self._counter("address", subscriber_of(attempt.address))
            known = await store.lock(tx, counter, attempt.at_us)
            await self._add(tx, counter, known, self._address_limit, attempt.at_us)
        failures = await store.get(tx, attempt.counter)
        if len(failures) >= self._limit and attempt.at_us == failures[-1]:  # of those at once, one says so
            await audit.record(
                tx,
                action="auth:account:locked",
                actor=None,
                subject=attempt.user,
                address=attempt.address,
                now_us=attempt.at_us,
            )

    async def clear(self, tx: Tx, user: UserId) -> None:
        """Forget every failure of a person, on all their devices: for who has proved it in another way."""
        devices = await accounts.list_devices(tx, user)
        counters = [self._counter("device", each.device_id) for each in devices]
        await store.delete(tx, [self._counter("account", user), self._counter("session", user), *counters])

    async def _reserve(self, tx: Tx, attempt: Attempt) -> Attempt:
        if attempt.by_address:
            counter = self._counter("address", subscriber_of(attempt.address))
            self._require_open(await store.get(tx, counter), self._address_limit, attempt)
        if await store.begin(tx, attempt.counter, attempt.at_us, self._expires_us(attempt.at_us)):
            return attempt
        failures = await store.lock(tx, attempt.counter, attempt.at_us)
        self._require_open(failures, self._limit, attempt)
        await self._add(tx, attempt.counter, failures, self._limit, attempt.at_us)
        return attempt

    def _require_open(self, failures: list[int], limit: int, attempt: Attempt) -> None:
        left_us = self._left_us(failures, limit, attempt.at_us)
        if left_us > 0:
            whole_s = -(-left_us // SECOND_US)
            raise AccountLocked(retry_after_s=whole_s, denial="auth:session:refused", subject=attempt.user)

    def _left_us(self, failures: list[int], limit: int, now_us: int) -> int:
        """How long it is locked: from the failure that was one too many."""
        return failures[-1] + self._lasts_us - now_us if len(failures) >= limit else 0

    async def _add(self, tx: Tx, counter: bytes, failures: list[int], limit: int, now_us: int) -> None:
        """One more, after which those too old to count are forgotten; and all, once a lock is over."""
        if self._left_us(failures, limit, now_us) > 0:
            return  # others have failed while this one was looked at
        recent = [each for each in failures if each > now_us - self._window_us]
        if len(failures) >= limit:
            recent = []
        await store.put(tx, counter, sorted([*recent, now_us]), self._expires_us(now_us))

    def _expires_us(self, newest_us: int) -> int:
        """When a counter means nothing any more, after its newest failure."""
        return newest_us + max(self._window_us, self._lasts_us)

    def _counter(self, kind: str, what: str) -> bytes:
        return hmac.digest(self._key, f"{kind}:{what}".encode(), hashlib.sha256)
