"""The audit log as lines of JSON, for another system or for keeping."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import msgspec

from ..deps.contracts import Database, Row
from .chain import PAGE_ROWS, page
from .entries import json_of, time_of


async def export(db: Database, after: int = 0) -> AsyncGenerator[bytes, None]:
    """Each sealed row, in order, as one line; those with a position up to `after` are left out.

    What the server has not sealed yet, the last two seconds, is left out too: it proves nothing. Read in
    pages, each its own transaction, so that a long log holds nothing up.
    """
    while rows := await db.read(page, after):
        for row in rows:
            yield _line(row)
        after = rows[-1][7]
        if len(rows) < PAGE_ROWS:
            return


def _line(row: Row) -> bytes:
    """facts and personal are as they were sealed; seal, salt and commitment are hexadecimal."""
    audit_id, recorded_us, action, actor_id, subject, facts, commitment = row[:7]
    position, key_id, seal, salt, personal = row[7:]
    told = {
        "position": position,
        "audit_id": audit_id,
        "recorded_at": time_of(recorded_us),
        "action": action,
        "actor_id": actor_id,
        "subject": subject,
        "facts": json_of(facts),
        "personal": None if personal is None else json_of(personal),
        "salt": _hex(salt),
        "commitment": _hex(commitment),
        "key_id": key_id,
        "seal": _hex(seal),
    }
    return msgspec.json.encode(told) + b"\n"


def _hex(value: bytes | None) -> str | None:
    return None if value is None else value.hex()
