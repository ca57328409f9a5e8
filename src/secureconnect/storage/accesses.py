"""Who has fetched what just now: the pieces of one download are one line of the audit log."""

from __future__ import annotations

from collections import OrderedDict

from ..clock import MINUTE_US
from ..identity import FileId, UserId


class Accesses:
    """most: remembered; beyond that the oldest are forgotten, and noted again."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._until_us: OrderedDict[tuple[UserId, FileId], int] = OrderedDict()

    def is_news(self, user: UserId, file_id: FileId, now_us: int) -> bool:
        """Whether this is the first in a minute."""
        pair = user, file_id
        if now_us < self._until_us.get(pair, now_us):
            return False
        self._until_us[pair] = now_us + MINUTE_US
        self._until_us.move_to_end(pair)
        if len(self._until_us) > self._most:
            self._until_us.popitem(last=False)
        return True
