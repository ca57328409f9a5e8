"""Looking at the whole server: its people, how much there is of everything, how it is, and who did what."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import NamedTuple

import msgspec

from ... import audit
from ...audit import Asked, Entry
from ...deps.contracts import Database, DependencyStatus, Tx
from ...edge import require_admin
from ...identity import Principal, UserId, is_id
from . import store
from .store import Account, Counts, LiveNode

EXPORT_ROWS = 500  # of the audit log in memory at once, while it is written out
FIRST_ID = "00000000-0000-0000-0000-000000000000"


class Figures(NamedTuple):
    """Of other rooms.  sockets: open on this node.  files, bytes: that are stored."""

    sockets: int
    files: int
    file_bytes: int


class Condition(NamedTuple):
    """modules: the state of each room.  places: where each dependency is, by its name; never a password."""

    modules: Mapping[str, str]
    dependencies: list[DependencyStatus]
    places: Mapping[str, str]


async def _no_figures() -> Figures:
    return Figures(0, 0, 0)


def _no_condition() -> Condition:
    return Condition({}, [], {})


class Overview:
    """figures, condition: what this room cannot know, told by whoever `Auth.connect` names."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.figures: Callable[[], Awaitable[Figures]] = _no_figures
        self.condition: Callable[[], Condition] = _no_condition

    async def list_accounts(
        self, caller: Principal, *, text: str, role: str, banned: str, before: UserId, limit: int
    ) -> list[Account]:
        """The newest first; one more than `limit` if there are more.  text: folded.  Raises Forbidden."""
        require_admin(caller, "users")
        return await self._db.read(
            store.list_accounts,
            text=text,
            role=role,
            banned=banned,
            before=before,
            limit=limit + 1,
            now_us=self._db.now_us(),
        )

    async def count(self, caller: Principal) -> tuple[Counts, Figures]:
        require_admin(caller, "stats")
        return await self._db.read(store.count, self._db.now_us()), await self.figures()

    async def look(self, caller: Principal) -> tuple[Condition, list[LiveNode]]:
        """Raises Forbidden, and Unavailable while the database, which knows the nodes, is away."""
        require_admin(caller, "health")
        return self.condition(), await self._db.read(store.list_nodes, self._db.now_us())

    async def list_audit(self, caller: Principal, asked: Asked, before: str, limit: int) -> list[Entry]:
        """The newest first; one more than `limit` if there are more. Looking is itself noted, each page: no
        place to begin from gets around that."""

        async def unit(tx: Tx) -> list[Entry]:
            await _note(tx, "admin:audit:read", caller, asked, self._db.now_us())
            return await audit.list_before(tx, asked, before, limit + 1)

        require_admin(caller, "audit")
        return await self._db.write(unit)

    async def export_audit(
        self, caller: Principal, asked: Asked, after: str | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Lines of JSON, the oldest row first, of those whose id comes after that one; never more than
        EXPORT_ROWS of them in memory."""
        require_admin(caller, "audit")
        await self._db.write(_note, "admin:audit:exported", caller, asked, self._db.now_us())
        return self._lines(asked, after or FIRST_ID)

    async def _lines(self, asked: Asked, after: str) -> AsyncGenerator[bytes, None]:
        while page := await self._db.read(audit.list_after, asked, after, EXPORT_ROWS):
            yield b"".join(map(_line, page))
            if len(page) < EXPORT_ROWS:
                return
            after = page[-1].audit_id


async def _note(tx: Tx, action: str, caller: Principal, asked: Asked, now_us: int) -> None:
    """Of a subject that is no id, which could be anybody's name, only that it was asked for."""
    facts = {key: value for key, value in asked._asdict().items() if value is not None}
    if asked.subject is not None and not is_id(asked.subject):
        facts["subject"] = "no id"
    await audit.record(tx, action=action, actor=caller.user_id, facts=facts, now_us=now_us)


def _line(entry: Entry) -> bytes:
    row = entry._asdict()
    row["recorded_at"] = audit.time_of(row.pop("recorded_us"))
    row["actor_id"] = row.pop("actor")
    row["facts"] = audit.json_of(entry.facts)
    row["personal"] = None if entry.personal is None else audit.json_of(entry.personal)
    return msgspec.json.encode(row) + b"\n"
