"""Device keys as a whole: the parts put together, and what becomes of keys whose session has ended."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from ...clock import DAY_US, SECOND_US
from ...config import KeysConfig
from ...deps.contracts import Cache, Database, Signals, Tx
from ...identity import DeviceId, Principal, SessionId, UserId
from . import company, store
from .backup import Backups
from .bundles import Bundles
from .claims import Claims
from .crosssigning import CrossSigning
from .inbox import Inboxes, Since, Sync
from .names import Names
from .news import IsHere, News, Tell
from .olm import OlmKeys

log = structlog.get_logger(module="auth")


class DeviceKeys:
    def __init__(
        self, config: KeysConfig, db: Database, cache: Cache, signals: Signals, server_name: str
    ) -> None:
        self._config = config
        self._db = db
        self.names = Names(server_name)
        self.news = News(db, signals, self.names)
        claims = Claims(config, cache)
        self.bundles = Bundles(config, db, self.names, claims, self.news)
        self.olm = OlmKeys(config, db, self.names, claims, self.news)
        self.inboxes = Inboxes(config, db, self.names, self.news)
        self.cross_signing = CrossSigning(config, db, self.names, self.news)
        self.backups = Backups(config, db)
        self.news.read = self.inboxes.news_for

    def connect(self, is_here: IsHere, tell: Tell) -> None:
        """Where the sockets of people are."""
        self.news.is_here = is_here
        self.news.tell = tell

    async def sync(self, caller: Principal, since: Since | None) -> Sync:
        told = await self.inboxes.sync(caller, since)
        self.news.synced(caller.device_id, int(told.next_since.partition(".")[0]))
        return told

    # what has ended

    async def forget(self, tx: Tx, sessions: Iterable[SessionId], now_us: int) -> None:
        """In the unit that ends these sessions: their devices stay, without keys."""
        found = [await store.device_of_session(tx, session) for session in sessions]
        for device, user in sorted(each for each in found if each is not None):  # as `Inboxes.send` does
            await self._forget(tx, device, user, now_us)

    async def _forget(self, tx: Tx, device: DeviceId, user: UserId, now_us: int) -> None:
        if await store.forget(tx, device):
            await company.note_change(tx, device, user, now_us)

    async def purge(self) -> None:
        """Hand out none of the one-time keys there are: some may have been, before the database went back to
        an earlier state. Devices see that none is left, and lay out others."""
        log.warning("one_time_keys_purged", count=await self._db.relieve(store.purge, self._db.now_us()))

    async def prune_once(self) -> None:
        """Forget devices without a session, however that ended, and what is too old to matter."""
        while ended := await self._db.relieve(self._forget_orphans, self._db.now_us()):
            for user, since_us in ended.items():
                self.news.changed(user, since_us)
        now_us, config = self._db.now_us(), self._config
        kept_us = now_us - config.pre_key_kept_days * DAY_US
        changed_us = now_us - config.changes_days * DAY_US
        for kind, before_us in enumerate(
            (
                kept_us,
                kept_us,
                now_us - config.claim_repeat_s * SECOND_US,
                changed_us,
                changed_us,
                now_us - config.sending_kept_s * SECOND_US,
            )
        ):
            while await self._db.relieve(store.prune, kind, before_us) == store.PRUNE_ROWS:
                pass

    async def _forget_orphans(self, tx: Tx, now_us: int) -> dict[UserId, int]:
        """Whose they were, and when."""
        found = await store.orphans(tx)
        for device, user in found:
            await self._forget(tx, device, user, now_us)
        return {user: now_us for _, user in found}
