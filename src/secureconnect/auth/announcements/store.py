"""The SQL of announcements."""

from __future__ import annotations

from typing import NamedTuple

from ...deps.contracts import Tx
from ...identity import UserId

_ANNOUNCEMENT = "announcement_id, text, created_at, created_by, until_at"
_ADD = f"INSERT INTO announcements ({_ANNOUNCEMENT}) VALUES ($1, $2, $3, $4, $5)"  # noqa: S608
# $2: those that have ended by then are left out; without it they are all there
_LIST = (
    f"SELECT {_ANNOUNCEMENT} FROM announcements WHERE announcement_id < $1"  # noqa: S608
    " AND (until_at > $2 OR until_at IS NULL OR $2 IS NULL) ORDER BY announcement_id DESC LIMIT $3"
)


class Announcement(NamedTuple):
    """until_us: when it ends; None: it stays."""

    announcement_id: str
    text: str
    created_us: int
    created_by: UserId
    until_us: int | None


async def add(tx: Tx, announcement: Announcement) -> None:
    await tx.run(_ADD, *announcement)


async def list_announcements(tx: Tx, before: str, limit: int, now_us: int | None) -> list[Announcement]:
    """The newest first.  now_us: None to list those that have ended, too."""
    return [Announcement(*row) for row in await tx.all(_LIST, before, now_us, limit)]
