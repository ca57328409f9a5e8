"""When people were last here: exactly in memory, and in the table to the minute, for after a restart.

The table is written in passes, so many rows in each at most, those first that wait longest. Somebody who
stays is written again only when what stands there is old, so that little is lost with a node that dies.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from ...clock import MINUTE_US
from ...config import ChatConfig
from ...deps.contracts import Database
from ...identity import UserId
from . import store

ROWS = 200  # written in one transaction
RENEW_US = 5 * MINUTE_US  # after which the row of somebody who is still here is written again


class Sightings:
    def __init__(self, config: ChatConfig, db: Database) -> None:
        self._config = config
        self._db = db
        self._seen: OrderedDict[UserId, int] = OrderedDict()
        self._unsaved: OrderedDict[UserId, int] = OrderedDict()
        self._saved: OrderedDict[UserId, int] = OrderedDict()

    def see(self, user: UserId, at_us: int | None = None) -> None:
        """They were here, just now or then."""
        at_us = max(self._db.now_us() if at_us is None else at_us, self._seen.get(user, 0))
        self._keep(self._seen, user, at_us)
        self._keep(self._unsaved, user, at_us)

    def of(self, user: UserId, stored_us: int | None = None) -> int | None:
        """When they were last here.  stored_us: as the table has it."""
        known = [at_us for at_us in (self._seen.get(user), stored_us) if at_us is not None]
        return max(known, default=None)

    async def save_once(self, here: Iterable[UserId]) -> int:
        """Write what is due.  here: people who are here now. Returns how many rows that were."""
        now_us = self._db.now_us()
        for user in here:
            if self._saved.get(user, 0) <= now_us - RENEW_US:
                self._keep(self._unsaved, user, now_us)
        written = 0
        while self._unsaved and written < self._config.last_seen_rows:
            room = min(ROWS, self._config.last_seen_rows - written)
            page = sorted(list(self._unsaved.items())[:room])  # of two nodes neither waits for the other
            await self._db.write(store.save, [(user, at_us - at_us % MINUTE_US) for user, at_us in page])
            written += len(page)
            for user, at_us in page:
                self._keep(self._saved, user, at_us)
                if self._unsaved.get(user) == at_us:
                    del self._unsaved[user]
        return written

    async def forget(self, user: UserId) -> None:
        """Somebody is erased. Safe to repeat."""
        self._seen.pop(user, None)
        self._unsaved.pop(user, None)
        await self._db.relieve(store.forget, user)

    def _keep(self, where: OrderedDict[UserId, int], user: UserId, at_us: int) -> None:
        """Of the latest people only."""
        where[user] = at_us
        if where is not self._unsaved:  # where who waits longest stays first
            where.move_to_end(user)
        while len(where) > self._config.presence_kept:
            where.popitem(last=False)
