"""The rules of deletion, and the pass that carries it out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import structlog
import trio

from ... import audit, idempotency, metrics
from ...deps.contracts import Database, Tx
from ...errors import NotFound, Problem
from ...identity import Principal, UserId
from ..admin.standing import require_another
from ..reauthentication import Reauthentication, require_open
from ..sessions import Closed, Origin, Sessions
from ..store import NO_ID
from . import store

log = structlog.get_logger(module="auth")

ERASED = metrics.counter("secureconnect_auth_erased_total", "Accounts erased.")

PAGE = 100
AT_ONCE_S = 5.0  # that whoever asks for an erasure waits for it

Forget = Callable[[UserId], Awaitable[None]]


class Deletion:
    """grace_us: between the request and the erasure; 0 erases at once.  forget: of the other rooms, safe to
    repeat; each returns when nothing personal is left there, and may raise Unavailable.
    forget_mail: in the unit that ends the account, what was or is to be mailed to it."""

    def __init__(
        self,
        db: Database,
        sessions: Sessions,
        reauthentication: Reauthentication,
        forget_mail: Callable[[Tx, UserId], Awaitable[None]],
        grace_us: int,
    ) -> None:
        self._forget_mail = forget_mail
        self._db = db
        self._sessions = sessions
        self._reauthentication = reauthentication
        self._grace_us = grace_us
        self.forget: Sequence[Forget] = ()

    async def request(self, caller: Principal, password: str, totp_code: str | None, origin: Origin) -> int:
        """Returns when the account is erased. Every session ends, this one too. Raises LastAdministrator, and
        as `Reauthentication.require` does."""

        async def unit(tx: Tx) -> tuple[int, Closed]:
            now_us = self._db.now_us()
            await require_another(tx, caller.user_id, now_us)
            delete_us = await store.schedule(tx, caller.user_id, now_us + self._grace_us, now_us)
            await require_open(tx, caller)
            if delete_us is None:
                raise NotFound
            await self._note(tx, "auth:user:leaving", caller.user_id, caller.user_id, origin.address)
            return delete_us, await self._sessions.close(tx, caller.user_id, origin.address, now_us)

        await self._reauthentication.require(caller.user_id, password, totp_code, origin)
        delete_us, closed = await self._db.write(unit)
        self._sessions.closed(closed)
        if self._grace_us == 0:
            await self.erase_at_once(caller.user_id)
        return delete_us

    async def restore(self, caller: UserId, address: str) -> None:
        """Take the request back. Nothing happens when there was none."""

        async def unit(tx: Tx) -> None:
            if await store.restore(tx, caller, self._db.now_us()):
                await self._note(tx, "auth:user:restored", caller, caller, address)

        await self._db.write(unit)

    async def erase_at_once(self, user: UserId) -> None:
        """An account whose time is over. What takes longer, or cannot be done now, a later pass does."""
        with trio.move_on_after(AT_ONCE_S):
            await self._try_erase(user)

    async def pass_once(self) -> None:
        """Erase every account whose time is over. What fails is tried again in the next pass."""
        after = UserId(NO_ID)
        while page := await self._db.read(store.due, self._db.now_us(), after, PAGE):
            for user in page:
                await self._try_erase(user)
            after = page[-1]

    async def _try_erase(self, user: UserId) -> None:
        try:
            await self._erase(user)
        except Problem as problem:
            log.warning("account_not_erased", user_id=user, code=problem.code)

    async def _erase(self, user: UserId) -> None:
        """In this order: nobody can sign in or come back any more, then each room forgets, and the account
        counts as done once all have. A crash in between is made up for by the next pass."""
        closed = await self._db.relieve(self._blank, user)
        if closed is not None:
            self._sessions.closed(closed)
        for forget in self.forget:
            await forget(user)
        while await self._db.relieve(audit.forget, user):
            pass
        if await self._db.relieve(self._finish, user):
            ERASED.inc()
            log.info("account_erased", user_id=user)

    async def _blank(self, tx: Tx, user: UserId) -> Closed | None:
        """None when that has been done."""
        now_us = self._db.now_us()
        if not await store.blank(tx, user, now_us):
            return None
        closed = await self._sessions.close(tx, user, "", now_us)
        await store.erase(tx, user)
        await idempotency.forget(tx, user)
        await self._forget_mail(tx, user)
        return closed

    async def _finish(self, tx: Tx, user: UserId) -> bool:
        if not await store.done(tx, user):
            return False
        await self._note(tx, "auth:user:erased", None, user, "")
        return True

    async def _note(self, tx: Tx, action: str, actor: UserId | None, user: UserId, address: str) -> None:
        await audit.record(
            tx, action=action, actor=actor, subject=user, address=address, now_us=self._db.now_us()
        )
