"""What the tests of recordings work with: a room that goes on by hand, with files in a folder."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable

import pytest
import trio

from auth.harness import Clocked
from secureconnect.deps.contracts import Database, Objects, Tx
from secureconnect.errors import Problem
from secureconnect.identity import CallId, ConversationId, Principal, RecordingId
from secureconnect.signaling.recordings.store import Recording
from secureconnect.storage import Storage

from .rig import Node

Act = Callable[[], Awaitable[object]]
MB = 1024 * 1024
WEBM = b"\x1a\x45\xdf\xa3"
PIECES = [WEBM + b"one" * 1000, b"two" * 2000, b"three" * 500]


class Studio:
    """A room that is called to go on by hand, with shelves in a folder.  is_away: whether the store is."""

    def __init__(self, node: Node, clocked: Clocked, objects: Objects, storage: Storage) -> None:
        self.node = node
        self.db = clocked
        self.objects = objects
        self.storage = storage
        self.rules = node.room.recordings
        self.is_away = False

    async def call(self, where: ConversationId, ann: Principal, *others: Principal) -> CallId:
        call = await self.node.call(ann, where, *others)
        for each in others:
            await self.node.room.calls.join(each, call.call_id)
        return call.call_id

    async def recorded(self, call: CallId, ann: Principal, *others: Principal) -> RecordingId:
        """Asked for by Ann; the others have agreed."""
        begun = await self.rules.start(ann, call, "video/webm", is_encrypted=False)
        for each in others:
            begun = await self.rules.consent(each, call, begun.recording_id, agrees=True)
        return begun.recording_id

    async def send(self, ann: Principal, call: CallId, to: RecordingId, number: int, content: bytes) -> None:
        digest = hashlib.sha256(content).digest()
        await self.rules.take_part(ann.user_id, call, to, number, digest, content)

    async def get(self, call: CallId, wanted: RecordingId, by: Principal) -> Recording:
        found = [each.recording for each in await self.rules.list_of(by.user_id, call)]
        return next(each for each in found if each.recording_id == wanted)

    async def watch(self) -> None:
        await self.node.room.finisher.watch_once()

    async def finish(self) -> None:
        await self.node.room.finisher.finish_once()

    async def content(self, url: str) -> bytes:
        found = await self.storage.files.content(url.rpartition("/")[2], "192.0.2.7")
        assert found.path is not None
        return (await trio.Path(found.path).read_bytes())[: found.file.file_size]  # its digest follows

    async def used(self, user: Principal) -> tuple[int, int]:
        quota = await self.storage.files.quota(user.user_id)
        return quota.used_bytes, quota.reserved_bytes


async def refused(kind: type[Problem], act: Act) -> Problem:
    with pytest.raises(kind) as refusal:
        await act()
    return refusal.value


async def rows(db: Database, table: str) -> int:
    async def count(tx: Tx) -> int:
        row = await tx.one(f"SELECT COUNT(*) FROM {table}")
        assert row is not None
        return int(row[0])

    return await db.read(count)


async def audited(db: Database) -> list[str]:
    async def read(tx: Tx) -> list[str]:
        found = await tx.all("SELECT action FROM audit WHERE action LIKE 'signaling:recording:%'")
        return [str(row[0]).rpartition(":")[2] for row in found]

    return await db.read(read)


async def change(db: Database, text: str, *values: str | int | bool) -> None:
    async def run(tx: Tx) -> None:
        await tx.run(text, *values)

    await db.write(run)
