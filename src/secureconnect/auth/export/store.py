"""The SQL of the export: what this room holds of one person, in lists that are read a page at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from ...clock import to_iso
from ...deps.contracts import Tx
from ...identity import UserId

Json = dict[str, Any]


class Listed(NamedTuple):
    """Rows of a list in `account.json`, which may come from several of these.  sql: takes the person, the
    place after which to go on, and how many.  fields: names of its columns, of which the first is the place;
    `…_at` are times, `document` is JSON."""

    name: str
    sql: str
    fields: tuple[str, ...]


LISTS = (
    Listed(
        "devices",
        "SELECT device_id, name, created_at FROM devices WHERE user_id = $1 AND device_id > $2"
        " ORDER BY device_id LIMIT $3",
        ("device_id", "name", "created_at"),
    ),
    Listed(
        "sessions",
        "SELECT session_id, device_id, address, user_agent, created_at, last_seen_at, ended_at FROM sessions"
        " WHERE user_id = $1 AND session_id > $2 ORDER BY session_id LIMIT $3",
        ("session_id", "device_id", "address", "user_agent", "created_at", "last_seen_at", "ended_at"),
    ),
    Listed(
        "blocked",
        "SELECT blocked_id, created_at FROM blocks WHERE user_id = $1 AND blocked_id > $2"
        " ORDER BY blocked_id LIMIT $3",
        ("user_id", "created_at"),
    ),
    Listed(
        "friend_requests",
        "SELECT friend_id, 'outgoing', created_at FROM friends WHERE user_id = $1 AND friend_id > $2"
        " ORDER BY friend_id LIMIT $3",
        ("user_id", "direction", "created_at"),
    ),
    Listed(
        "friend_requests",
        "SELECT user_id, 'incoming', created_at FROM friends WHERE friend_id = $1 AND user_id > $2"
        " ORDER BY user_id LIMIT $3",
        ("user_id", "direction", "created_at"),
    ),
    Listed(
        "device_keys",
        "SELECT device_id, identity_key, document FROM device_keys WHERE user_id = $1 AND device_id > $2"
        " ORDER BY device_id LIMIT $3",
        ("device_id", "identity_key", "document"),
    ),
    Listed(
        "reports",
        "SELECT report_id, user_id, message_id, conversation_id, reason, comment, state, created_at"
        " FROM reports WHERE reporter_id = $1 AND report_id > $2 ORDER BY report_id LIMIT $3",
        (
            *("report_id", "user_id", "message_id", "conversation_id"),
            *("reason", "comment", "state", "created_at"),
        ),
    ),
)


async def page(tx: Tx, listed: Listed, user: UserId, after: str, limit: int) -> list[Json]:
    rows = await tx.all(listed.sql, user, after, limit)
    return [
        {field: _told(field, value) for field, value in zip(listed.fields, row, strict=True)} for row in rows
    ]


def _told(field: str, value: Any) -> Any:
    if value is None:
        return None
    if field.endswith("_at"):
        return to_iso(value)
    return msgspec.Raw(value.encode()) if field == "document" else value
