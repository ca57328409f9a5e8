"""The SQL of reports."""

from __future__ import annotations

from typing import Literal, NamedTuple

from ...deps.contracts import Tx
from ...identity import ConversationId, MessageId, UserId

State = Literal["open", "resolved", "dismissed"]
Reason = Literal["spam", "harassment", "violence", "illegal", "impersonation", "other"]

_REPORT = (
    "report_id, reporter_id, user_id, message_id, conversation_id, reason, comment, content, state, note,"
    " created_at, updated_at, updated_by"
)
_LOCK_REPORTER = "UPDATE users SET user_id = user_id WHERE user_id = $1"
_HAS_USER = "SELECT 1 FROM users WHERE user_id = $1 AND erased_at IS NULL"
_OPEN_ALREADY = (
    f"SELECT {_REPORT} FROM reports WHERE reporter_id = $1 AND state = 'open'"  # noqa: S608
    " AND user_id = $2 AND (message_id = $3 OR (message_id IS NULL AND $3 IS NULL))"
)
_COUNT_OPEN = "SELECT COUNT(*) FROM reports WHERE reporter_id = $1 AND state = 'open'"
_ADD = (
    f"INSERT INTO reports ({_REPORT}) VALUES"  # noqa: S608
    " ($1, $2, $3, $4, $5, $6, $7, $8, 'open', '', $9, $9, NULL)"
)
_LIST = (
    f"SELECT {_REPORT} FROM reports WHERE report_id < $1"  # noqa: S608
    " AND (state = $2 OR $2 IS NULL) ORDER BY report_id DESC LIMIT $3"
)
_UPDATE = (
    "UPDATE reports SET state = COALESCE($2, state), note = COALESCE($3, note), updated_at = $4,"  # noqa: S608
    f" updated_by = $5 WHERE report_id = $1 RETURNING {_REPORT}"
)


class Report(NamedTuple):
    """user_id: who it is about.  content: of the message; None where there is none to read.
    updated_by: the administrator who did so last."""

    report_id: str
    reporter_id: UserId
    user_id: UserId
    message_id: MessageId | None
    conversation_id: ConversationId | None
    reason: Reason
    comment: str
    content: str | None
    state: State
    note: str
    created_us: int
    updated_us: int
    updated_by: UserId | None


async def lock_reporter(tx: Tx, reporter: UserId) -> None:
    """One after the other: what was reported already is seen."""
    await tx.run(_LOCK_REPORTER, reporter)


async def has_user(tx: Tx, user: UserId) -> bool:
    return await tx.one(_HAS_USER, user) is not None


async def get_open(tx: Tx, reporter: UserId, user: UserId, message: MessageId | None) -> Report | None:
    """What they have reported about the same already."""
    row = await tx.one(_OPEN_ALREADY, reporter, user, message)
    return Report(*row) if row else None


async def count_open(tx: Tx, reporter: UserId) -> int:
    row = await tx.one(_COUNT_OPEN, reporter)
    return int(row[0]) if row else 0


async def add(tx: Tx, report: Report) -> None:
    """A new one: open, without a note."""
    await tx.run(_ADD, *report[:8], report.created_us)


async def list_reports(tx: Tx, state: State | None, before: str, limit: int) -> list[Report]:
    """The newest first."""
    return [Report(*row) for row in await tx.all(_LIST, before, state, limit)]


async def update(
    tx: Tx, report_id: str, state: State | None, note: str | None, actor: UserId, now_us: int
) -> Report | None:
    """What is None stays."""
    row = await tx.one(_UPDATE, report_id, state, note, now_us, actor)
    return Report(*row) if row else None
