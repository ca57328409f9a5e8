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
        """Whether none was noted in the minute before."""
        return now_us >= self._until_us.get((user, file_id), now_us)

    def note(self, user: UserId, file_id: FileId, now_us: int) -> None:
        """It is in the audit log."""
        self._until_us[user, file_id] = now_us + MINUTE_US
        self._until_us.move_to_end((user, file_id))
        if len(self._until_us) > self._most:
            self._until_us.popitem(last=False)
