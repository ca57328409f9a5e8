"""What must be removed is, and what has moved is noted: repeated for ever, and safe to repeat."""

from __future__ import annotations

import structlog
import trio

from .. import audit
from ..clock import HOUR_US, SECOND_US
from ..config import StorageConfig
from ..deps.contracts import Database, Objects, Tx
from ..errors import Problem
from ..identity import FileId, NodeId
from ..metrics import counter
from ..periodic import Trouble, every
from . import store
from .files import Files
from .parts import Parts
from .store import File
from .verifying import EXPIRED

log = structlog.get_logger(module="storage")

BATCH = 100
SPOOLED_PAGE = 500
SETTLE_S = 1.0

# result: removed; kept: the store or the disk refused, and it is tried again
SWEPT = counter("secureconnect_storage_swept_total", "Files whose content was to be removed.", ["result"])
_REMOVED, _KEPT = SWEPT.labels("removed"), SWEPT.labels("kept")


class Sweeper:
    """Every node runs one; what lies in a node's spool is that node's."""

    def __init__(
        self,
        config: StorageConfig,
        db: Database,
        objects: Objects,
        files: Files,
        parts: Parts,
        node_id: NodeId,
    ) -> None:
        self._config = config
        self._db = db
        self._objects = objects
        self._files = files
        self._parts = parts
        self._node_id = node_id
        self._hurried = trio.Event()

    def hurry(self) -> None:
        """There is something to remove now. Never waits."""
        self._hurried.set()

    async def pass_forever(self) -> None:
        trouble = Trouble(log, "sweep_failed")
        while True:
            self._hurried = trio.Event()
            with trouble:
                await self.pass_once()
            with trio.move_on_after(self._config.sweep_s):
                await self._hurried.wait()

    async def pass_once(self) -> None:
        """Give up uploads whose time is over and remove what is to be removed: until nothing is left, or
        something cannot be removed now."""
        while expired := await self._db.read(store.overdue, self._db.now_us(), BATCH):
            for file_id in expired:
                if await self._db.relieve(self._expire, file_id):
                    EXPIRED.inc()
        while due := await self._due():
            for file in due:
                if not await self.remove(file):
                    return

    async def _due(self) -> list[File]:
        """Of nodes that do not come back, too: should one do so, what it brings belongs to no file."""
        now_us = self._db.now_us()
        lost_us = now_us - self._config.orphans_h * HOUR_US
        return await self._db.read(store.due, self._node_id, now_us, lost_us, BATCH)

    async def _expire(self, tx: Tx, file_id: FileId) -> bool:
        now_us = self._db.now_us()
        if not await store.expire(tx, file_id, now_us):
            return False
        await audit.record(tx, action="storage:file:expired", actor=None, subject=file_id, now_us=now_us)
        return True

    async def remove(self, file: File) -> bool:
        """Remove what there is to remove of a file. False: it could not be done now, and waits."""
        try:
            if file.part_size is None:
                await self._objects.delete(file.incoming_key)
            else:
                await self._parts.abandon(file)
            if file.status != "completed":
                await self._objects.delete(file.key)
        except Problem as problem:
            log.info("sweep_waits", code=problem.code)
            _KEPT.inc()
            until_us = self._db.now_us() + int(self._config.sweep_s * SECOND_US)
            await self._db.relieve(store.postpone, file.file_id, until_us)
            return False
        _REMOVED.inc()
        await self._db.relieve(store.swept, file, self._db.now_us())
        return True

    # the spool

    async def settle_forever(self) -> None:
        await every(SETTLE_S, self.settle_once, log, "spooled_files_not_settled")

    async def settle_once(self) -> None:
        """Note which files have moved to the store, if any may lie in this node's spool."""
        if not self._files.may_be_spooled:
            return
        self._files.may_be_spooled = False  # one that comes meanwhile sets it again
        left = True
        try:
            left = await self._settle()
        finally:
            self._files.may_be_spooled |= left

    async def _settle(self) -> bool:
        """Whether something still lies here."""
        left, after = False, store.FIRST_ID
        while page := await self._db.read(store.spooled, self._node_id, after, SPOOLED_PAGE):
            moved = [file.file_id for file in page if self._objects.where(file.key) == "store"]
            left = left or len(moved) < len(page)
            if moved:
                await self._db.relieve(store.moved, moved, self._node_id)
                log.info("spooled_files_moved", files=len(moved))
            after = page[-1].file_id
        return left
