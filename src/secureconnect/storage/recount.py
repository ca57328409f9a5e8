"""What each account's counter says is compared with its files now and then. The two change together; if they
ever differed, nobody could set it right from outside."""

from __future__ import annotations

import structlog
import trio

from ..config import StorageConfig
from ..deps.contracts import Database
from ..metrics import counter
from ..periodic import every
from . import store

log = structlog.get_logger(module="storage")

BATCH = 200
PAUSE_S = 0.05  # between two batches: nobody waits for this

CORRECTED = counter(
    "secureconnect_storage_quotas_corrected_total", "Quotas that differed from the files they count."
)


class Recount:
    def __init__(self, config: StorageConfig, db: Database) -> None:
        self._config = config
        self._db = db

    async def pass_forever(self) -> None:
        await every(self._config.recount_s, self.pass_once, log, "quotas_not_recounted")

    async def pass_once(self) -> None:
        """All accounts once. Safe to repeat, and on every node."""
        after = store.FIRST_ID
        while page := await self._db.read(store.accounts, after, BATCH):
            for user in page:
                if await self._db.read(store.differs, user):
                    log.error("quota_differed", user_id=user)
                    await self._db.relieve(store.recount, user)
                    CORRECTED.inc()
            after = page[-1]
            await trio.sleep(PAUSE_S)
