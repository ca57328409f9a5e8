"""Content that belongs to no file: what came after its row had gone, or was left by a database put back to an
earlier day. Looked for now and then, a few keys at a time, and removed once it is old.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import cast

import structlog
import trio

from ..clock import HOUR_US
from ..config import StorageConfig
from ..deps.contracts import Database, Drafts, Objects
from ..errors import NotFound
from ..metrics import counter
from ..periodic import every
from . import store

log = structlog.get_logger(module="storage")

BATCH = 200
PAUSE_S = 0.05  # between two batches: nobody waits for this
FEW = 10  # of a batch may be unknown, however small it is; more than half of it may not

REMOVED = counter("secureconnect_storage_orphans_removed_total", "Objects removed that belonged to no file.")


class Orphans:
    """Every node looks: at the store, which they share, and at what lies with it alone."""

    def __init__(self, config: StorageConfig, db: Database, objects: Objects, drafts: Drafts) -> None:
        self._config = config
        self._db = db
        self._objects = objects
        self._drafts = drafts

    async def pass_forever(self) -> None:
        await every(self._config.orphans_s, self.pass_once, log, "orphans_not_looked_for")

    async def pass_once(self) -> None:
        """All keys once; safe to repeat and to cancel. Ends early where the table knows less than half of
        what lies there: it is more likely the wrong table than so many orphans."""
        for prefix in ("files/", "incoming/", "recordings/"):
            async with aclosing(_batches(self._objects.list(prefix))) as batches:
                async for keys in batches:
                    unknown = await self._db.read(store.unknown, keys)
                    if len(unknown) > max(FEW, len(keys) // 2):
                        log.error("store_of_other_files", unknown=len(unknown), looked_at=len(keys))
                        return
                    for key in unknown:
                        await self._remove_if_old(key)
                    await trio.sleep(PAUSE_S)
        drafts = list(await self._drafts.drafts())
        for start in range(0, len(drafts), BATCH):
            for key in await self._db.read(store.unknown, drafts[start : start + BATCH]):
                await self._drafts.abandon_draft(key)

    async def _remove_if_old(self, key: str) -> None:
        try:
            found = await self._objects.stat(key)
        except NotFound:
            return
        if found.modified_us <= self._db.now_us() - self._config.orphans_h * HOUR_US:
            await self._objects.delete(key)
            REMOVED.inc()
            log.info("orphan_removed", size_bytes=found.size_bytes)


async def _batches(keys: AsyncIterator[str]) -> AsyncGenerator[list[str], None]:
    """Of keys as this room makes them; others are left out, and alone."""
    batch: list[str] = []
    async with aclosing(cast("AsyncGenerator[str, None]", keys)) as each:
        async for key in each:
            if store.is_key(key):
                batch.append(key)
            if len(batch) == BATCH:
                yield batch
                batch = []
    if batch:
        yield batch
