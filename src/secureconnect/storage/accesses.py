"""Who has fetched what from where just now: the pieces of one download are one line of the audit log."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from ..clock import MINUTE_US
from ..identity import FileId, UserId


class Access(NamedTuple):
    """client: its network address. Whoever got an address of a file may have passed it on."""

    user: UserId
    file_id: FileId
    client: str


class Accesses:
    """most: remembered; beyond that the oldest are forgotten, and noted again."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._until_us: OrderedDict[Access, int] = OrderedDict()

    def is_news(self, access: Access, now_us: int) -> bool:
        """Whether none was noted in the minute before."""
        return now_us >= self._until_us.get(access, now_us)

    def note(self, access: Access, now_us: int) -> None:
        """It is in the audit log."""
        self._until_us[access] = now_us + MINUTE_US
        self._until_us.move_to_end(access)
        if len(self._until_us) > self._most:
            self._until_us.popitem(last=False)
