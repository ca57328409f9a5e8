"""What the storage tests work with: a running room on each pair of database and object store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec
import trio

from auth.harness import Clocked
from kit.http import plain
from kit.objects import keys
from secureconnect.clock import SECOND_US
from secureconnect.config import MinioConfig, StorageConfig
from secureconnect.deps.contracts import Drafts, Objects, Place, Presigner, Row, StoredObject, Tx
from secureconnect.deps.files import FolderObjects
from secureconnect.deps.minio import MinioObjects
from secureconnect.deps.spool import SpooledObjects
from secureconnect.errors import Unavailable
from secureconnect.identity import FileId, NodeId, UserId, new_id
from secureconnect.storage import Storage
from secureconnect.storage.parts import PartAddress, division_of
from secureconnect.storage.store import File
from secureconnect.storage.uploads import Announcement, Progress

KEY = b"k" * 32
ADDRESS = "192.0.2.7"
CONTENT = bytes(range(256)) * 3000  # 768 kB
CONFIG = StorageConfig(quota_mb=4, max_unfinished=30)


class Cut:
    """Objects with a switch that takes them away, as a store does that refuses.

    before_copy: somebody else is faster.
    """

    def __init__(self, inner: Objects) -> None:
        self.inner = inner
        self.is_away = False
        self.before_copy: Callable[[], Awaitable[object]] | None = None

    async def put(self, key: str, chunks: AsyncIterator[bytes], *, limit_bytes: int) -> StoredObject:
        self._check()
        return await self.inner.put(key, chunks, limit_bytes=limit_bytes)

    async def get(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        self._check()
        async for chunk in self.inner.get(key, start, end):
            yield chunk

    async def stat(self, key: str) -> StoredObject:
        self._check()
        return await self.inner.stat(key)

    async def copy(self, source: str, target: str, *, version: str | None = None) -> StoredObject:
        self._check()
        if self.before_copy is not None:
            await self.before_copy()
        return await self.inner.copy(source, target, version=version)

    async def delete(self, key: str) -> None:
        self._check()
        await self.inner.delete(key)

    def list(self, prefix: str) -> AsyncIterator[str]:
        return self.inner.list(prefix)

    def path_of(self, key: str) -> Path | None:
        return self.inner.path_of(key)

    def where(self, key: str) -> Place:
        return self.inner.where(key)

    def _check(self) -> None:
        if self.is_away:
            raise Unavailable


@dataclass
class Node:
    """One room.  objects: as it sees them.  before: what lay there before the test."""

    id: NodeId
    room: Storage
    objects: Objects
    db: Clocked
    before: frozenset[str]

    # as a client goes about it

    async def begin(self, owner: UserId, content: bytes = CONTENT, **said: Any) -> tuple[File, str]:
        announced = Announcement("a.bin", len(content), "application/pdf")
        begun = await self.room.uploads.begin(owner, msgspec.structs.replace(announced, **said))
        return begun.file, begun.url or ""

    async def send(self, url: str, content: bytes = CONTENT) -> None:
        """To wherever the address leads."""
        if "://" in url:
            async with plain() as http:
                assert (await http.put(url, content=content)).status_code == 200
        else:
            await self.receive(url, [content[:100_000], content[100_000:]], len(content))

    async def receive(self, url: str, chunks: Sequence[bytes], length: int | None = None) -> str:
        """The ETag, of a part."""
        left = [chunk for chunk in chunks if chunk]

        async def read() -> bytes:
            await trio.lowlevel.checkpoint()
            return left.pop(0) if left else b""

        part = await self.room.uploads.receive(url.rpartition("/")[2], read, length)
        return "" if part is None else part.etag

    async def send_and_complete(self, file: File, url: str, content: bytes) -> File:
        await self.send(url, content)
        return await self.complete(file)

    async def complete(self, file: File) -> File:
        return await self.room.uploads.complete(file.owner_id, file.file_id, ADDRESS)

    async def uploaded(self, owner: UserId, content: bytes = CONTENT, **said: Any) -> File:
        file, url = await self.begin(owner, content, **said)
        return await self.send_and_complete(file, url, content)

    async def address(self, file: File) -> str:
        return await self.room.files.address(file.owner_id, file.file_id, ADDRESS)

    async def fetch(self, url: str) -> bytes:
        """What lies at the address, wherever that leads."""
        if "://" in url:
            async with plain() as http:
                answer = await http.get(url)
            assert answer.status_code == 200, answer.text
            return answer.content
        content = await self.room.files.content(url.rpartition("/")[2], ADDRESS)
        if content.elsewhere is not None:
            return await self.fetch(content.elsewhere)
        assert content.path is not None
        return (await trio.Path(content.path).read_bytes())[: content.file.file_size]

    # in parts

    async def begin_parts(self, owner: UserId, content: bytes, **said: Any) -> Progress:
        announced = Announcement("a.mp4", len(content), "video/mp4")
        return await self.room.uploads.begin(owner, msgspec.structs.replace(announced, **said))

    async def progress(self, file: File, after: int = 0, number: int | None = None) -> Progress:
        return await self.room.uploads.progress(file.owner_id, file.file_id, after, number)

    async def send_parts(self, begun: Progress, content: bytes) -> None:
        """All that `begun` tells the addresses of, the last first."""
        for part in reversed(begun.parts):
            await self.send_part(begun.file, part, content)

    async def send_part(self, file: File, part: PartAddress, content: bytes) -> str:
        """content: of the whole file.  Returns the part's ETag."""
        division = division_of(file)
        start = division.start(part.number)
        mine = content[start : start + division.length(part.number)]
        if "://" not in part.url:
            return await self.receive(part.url, [mine[:100_000], mine[100_000:]], len(mine))
        async with plain() as http:
            answer = await http.put(part.url, content=mine)
        assert answer.status_code == 200, answer.text
        return answer.headers["etag"]

    # what there is

    async def quota(self, owner: UserId) -> tuple[int, int, int]:
        """(used, reserved, uploads)"""
        found = await self.room.files.quota(owner)
        return found.used_bytes, found.reserved_bytes, found.uploads

    async def rows(self, sql: str) -> list[Row]:
        return await self.db.inner.read(_all, sql)

    async def statuses(self) -> list[str]:
        return [row[0] for row in await self.rows("SELECT status FROM files ORDER BY file_id")]

    async def stored(self) -> list[str]:
        return [key for key in await keys(self.objects) if key not in self.before]

    async def is_gone(self, file: File) -> bool:
        return not await self.rows(f"SELECT 1 FROM files WHERE file_id = '{file.file_id}'")

    def forward(self, seconds: float) -> None:
        self.db.forward(seconds)


async def _all(tx: Tx, sql: str) -> list[Row]:
    return await tx.all(sql)


@dataclass
class World:
    """A database and a store; any number of nodes on them.

    before: the keys of earlier tests.  minio: None where the store is a folder.  is_away: whether nodes think
    that it is.
    """

    kind: Literal["embedded", "servers"]
    db: Clocked
    store: Cut
    folder: Path
    minio: MinioObjects | None
    nursery: trio.Nursery
    before: frozenset[str]
    is_away: bool = False
    people: list[UserId] = field(default_factory=lambda: [UserId(new_id()) for _ in range(3)])

    async def node(
        self,
        config: StorageConfig = CONFIG,
        *,
        folder: str = "a",
        node_id: NodeId | None = None,
        spool_mb: int = 1_024,
    ) -> Node:
        """On the servers with a spool of its own.  folder, node_id: whose node it is, again."""
        node_id = node_id or NodeId(new_id())
        home = self.folder / folder
        home.mkdir(exist_ok=True)
        objects: Objects = self.store
        drafts: Drafts
        if self.minio is not None:
            objects = drafts = await SpooledObjects.open(
                self.store, home / "spool", self._is_away, MinioConfig(spool_mb=spool_mb)
            )
        else:
            assert isinstance(self.store.inner, FolderObjects)
            drafts = self.store.inner
        presigner: Presigner | None = self.minio
        room = Storage(
            config,
            self.db,
            objects,
            node_id,
            key=KEY,
            drafts=drafts,
            presigner=presigner,
            is_store_away=self._is_away,
        )
        await self.nursery.start(lambda task_status: room.run(task_status=task_status))
        return Node(node_id, room, objects, self.db, self.before)

    def take_store_away(self) -> None:
        self.is_away = self.store.is_away = True

    def bring_store_back(self) -> None:
        self.is_away = self.store.is_away = False

    async def settled(self, node: Node) -> None:
        """What waited in the node's spool has moved, and the rows say so."""
        assert isinstance(node.objects, SpooledObjects)
        await node.objects.pass_once()
        assert node.objects.waiting == 0
        await node.room.sweeper.settle_once()

    def _is_away(self) -> bool:
        return self.is_away

    async def renew(self, node: Node, seconds: float) -> None:
        """A lease of the node, as node.py writes it."""
        now_us = self.db.now_us()
        await self.db.inner.write(_renew, node.id, now_us, now_us + int(seconds * SECOND_US))


async def _renew(tx: Tx, node_id: NodeId, now_us: int, until_us: int) -> None:
    await tx.run("DELETE FROM nodes WHERE node_id = $1", node_id)
    await tx.run("INSERT INTO nodes VALUES ($1, '0', $2, $2, $3)", node_id, now_us, until_us)


def unknown() -> FileId:
    return FileId(new_id())
