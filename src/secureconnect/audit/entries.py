"""Rows of the log to read: some of them, the newest or the oldest first."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from ..clock import from_iso, to_iso
from ..deps.contracts import Tx
from ..identity import UserId

_SHOWN = "audit_id, recorded_at, action, actor_id, subject, facts, personal, position"
_ASKED = (  # an empty filter takes everything
    "(action = $2 OR $2 IS NULL) AND (actor_id = $3 OR $3 IS NULL) AND (subject = $4 OR $4 IS NULL)"
    " AND (recorded_at >= $5 OR $5 IS NULL) AND (recorded_at < $6 OR $6 IS NULL)"
)
_NEWEST_FIRST = f"SELECT {_SHOWN} FROM audit WHERE audit_id < $1 AND {_ASKED} ORDER BY audit_id DESC LIMIT $7"  # noqa: S608
_OLDEST_FIRST = f"SELECT {_SHOWN} FROM audit WHERE audit_id > $1 AND {_ASKED} ORDER BY audit_id LIMIT $7"  # noqa: S608
_FIRST_US, _LAST_US = from_iso("0001-01-01T00:00:00Z"), from_iso("9999-12-31T23:59:59Z")


class Asked(NamedTuple):
    """Which rows; None is every one.  until_us: those before it."""

    action: str | None = None
    actor: UserId | None = None
    subject: str | None = None
    since_us: int | None = None
    until_us: int | None = None


class Entry(NamedTuple):
    """A row to read.  facts, personal: JSON objects; personal: None without any, or once erased.
    position: None until it is sealed."""

    audit_id: str
    recorded_us: int
    action: str
    actor: UserId | None
    subject: str | None
    facts: str
    personal: str | None
    position: int | None


def json_of(text: str) -> msgspec.Raw:
    """`facts` or `personal` as they were sealed, on one line. What is no JSON object, because somebody has
    changed it, stands as text in one."""
    try:
        msgspec.json.decode(text, type=dict)
        if "\n" not in text and "\r" not in text:
            return msgspec.Raw(text.encode())
    except msgspec.DecodeError:
        pass
    return msgspec.Raw(msgspec.json.encode({"unreadable": text}))


def time_of(recorded_us: int) -> str:
    """What somebody has moved out of the calendar stands at its end."""
    return to_iso(min(max(recorded_us, _FIRST_US), _LAST_US))


async def list_before(tx: Tx, asked: Asked, before: str, limit: int) -> list[Entry]:
    """The newest first, of those whose id comes before that one."""
    return [Entry(*row) for row in await tx.all(_NEWEST_FIRST, before, *asked, limit)]


async def list_after(tx: Tx, asked: Asked, after: str, limit: int) -> list[Entry]:
    """The oldest first, of those whose id comes after that one."""
    return [Entry(*row) for row in await tx.all(_OLDEST_FIRST, after, *asked, limit)]


# by actor and by subject, each on its index; denials of others are not theirs, and what says nothing personal
# of anybody is left out
_ABOUT = (
    f"SELECT {_SHOWN} FROM (SELECT {_SHOWN} FROM audit"  # noqa: S608
    " WHERE actor_id = $1 AND personal IS NOT NULL AND audit_id > $2"
    f" UNION ALL SELECT {_SHOWN} FROM audit WHERE subject = $3 AND personal IS NOT NULL AND audit_id > $2"
    " AND (actor_id IS NULL OR actor_id <> $1) AND action NOT LIKE 'denied:%') found"
    " ORDER BY audit_id LIMIT $4"
)


async def list_about(tx: Tx, user: UserId, after: str, limit: int) -> list[Entry]:
    """What has something personal in it, and was done by or to this person; the oldest first, of those whose
    id comes after that one."""
    return [Entry(*row) for row in await tx.all(_ABOUT, user, after, user, limit)]
