"""Rules for reports."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from ... import audit
from ...config import AuthConfig
from ...deps.contracts import Database, Tx
from ...edge import require_admin
from ...errors import Invalid, NotFound, TooManyReports, Unavailable
from ...idempotency import Attempt, once
from ...identity import ConversationId, MessageId, Principal, UserId, new_id
from . import store
from .store import Reason, Report, State


class Shown(NamedTuple):
    """A message as someone may see it.  content: None for what only its readers can decipher."""

    sender_id: UserId
    conversation_id: ConversationId
    content: str | None


class Made(NamedTuple):
    """is_new: whether it was not there before, open."""

    report_id: str
    created_us: int
    is_new: bool


async def _nobody_knows(_: UserId, __: MessageId) -> Shown:
    raise Unavailable


class Reports:
    """shown: a message as this person may see it; raises NotFound. Told by whoever `Auth.connect` names."""

    def __init__(self, config: AuthConfig, db: Database) -> None:
        self._most = config.open_reports
        self._db = db
        self.shown: Callable[[UserId, MessageId], Awaitable[Shown]] = _nobody_knows

    async def make(
        self,
        caller: Principal,
        *,
        user: UserId | None,
        message: MessageId | None,
        reason: Reason,
        comment: str,
        address: str,
        attempt: Attempt | None,
    ) -> Made:
        """About a person, or a message and with it its sender. The same one again, while it is open, is not
        new.

        Raises Invalid about oneself, NotFound, TooManyReports.
        """
        seen = None
        if message is not None:
            seen = await self.shown(caller.user_id, message)
            user = seen.sender_id
        if user is None:
            raise Invalid("Say whom or what this is about.", details={"field": "user_id"})
        if user == caller.user_id:
            raise Invalid("You cannot report yourself.", details={"field": "user_id"})
        now_us = self._db.now_us()
        report = Report(
            report_id=new_id(),
            reporter_id=caller.user_id,
            user_id=user,
            message_id=message,
            conversation_id=seen.conversation_id if seen else None,
            reason=reason,
            comment=comment,
            content=seen.content if seen else None,
            state="open",
            note="",
            created_us=now_us,
            updated_us=now_us,
            updated_by=None,
        )
        return await once(self._db, attempt, Made, self._add, report, address)

    async def _add(self, tx: Tx, report: Report, address: str) -> Made:
        await store.lock_reporter(tx, report.reporter_id)
        if report.message_id is None and not await store.has_user(tx, report.user_id):
            raise NotFound
        known = await store.get_open(tx, report.reporter_id, report.user_id, report.message_id)
        if known is not None:
            return Made(known.report_id, known.created_us, is_new=False)
        if await store.count_open(tx, report.reporter_id) >= self._most:
            raise TooManyReports
        await store.add(tx, report)
        await audit.record(
            tx,
            action="auth:report:made",
            actor=report.reporter_id,
            subject=report.report_id,
            address=address,
            facts={"user_id": report.user_id, "message_id": report.message_id},
            now_us=report.created_us,
        )
        return Made(report.report_id, report.created_us, is_new=True)

    async def list(self, caller: Principal, state: State | None, before: str, limit: int) -> list[Report]:
        """The newest first; one more than `limit` if there are more. Raises Forbidden."""
        require_admin(caller, "reports")
        return await self._db.read(store.list_reports, state, before, limit + 1)

    async def update(
        self, caller: Principal, report_id: str, state: State | None, note: str | None, address: str
    ) -> Report:
        """What is None stays. Raises Forbidden, NotFound."""

        async def unit(tx: Tx) -> Report:
            updated = await store.update(tx, report_id, state, note, caller.user_id, now_us)
            if updated is None:
                raise NotFound
            await audit.record(
                tx,
                action="admin:report:updated",
                actor=caller.user_id,
                subject=report_id,
                address=address,
                facts={"state": updated.state},
                now_us=now_us,
            )
            return updated

        require_admin(caller, report_id)
        now_us = self._db.now_us()
        return await self._db.write(unit)
