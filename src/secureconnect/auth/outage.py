"""What the database's absence means for tokens: those valid when it went away stay good for a while.

An outage that begins within `auth.outage_renew_s` of the last one's end is the same outage: nobody could be
sure of a fresh token in between, and the grace is counted from the first moment.
"""

from __future__ import annotations

from collections.abc import Callable

from ..clock import SECOND_US
from ..config import AuthConfig

Since = Callable[[], int | None]


def never_away() -> None:
    """A database that is part of this process."""
    return


class Outage:
    """now_us: the database's time, which goes on without it.

    away_since_us: when, in that time, this node lost the database; None while it is there. Asked for each
    token that is about to end: it must be cheap.
    """

    def __init__(self, config: AuthConfig, now_us: Callable[[], int], away_since_us: Since) -> None:
        self._grace_us = config.outage_grace_s * SECOND_US
        self._renew_us = config.outage_renew_s * SECOND_US
        self._now_us = now_us
        self._away_since_us = away_since_us
        self._is_away = False
        self._began_us: int | None = None  # of this outage, or of the last
        self._last_seen_us = 0  # when the last one was seen to last

    def since_us(self) -> int | None:
        """When the outage began that lasts now."""
        since_us = self._away_since_us()
        if since_us is None:
            if self._is_away:
                self._is_away = False
                self._last_seen_us = self._now_us()
            return None
        if not self._is_away:
            self._is_away = True
            if self._began_us is None or since_us - self._last_seen_us >= self._renew_us:
                self._began_us = since_us
        return self._began_us

    def resume(self, began_us: int, seen_us: int) -> None:
        """Of a process that has ended: when its outage began, and when it was last seen to last."""
        self._began_us, self._last_seen_us = began_us, seen_us

    def accepts(self, expires_us: int) -> bool:
        """Whether the database is away and a token of that end may be taken without it."""
        since_us = self.since_us()
        return since_us is not None and expires_us > since_us and self._now_us() < since_us + self._grace_us

    def left_us(self, expires_us: int) -> tuple[int, bool]:
        """As `edge.Authenticator.left_us`, for a token of that end."""
        now_us, ends_us = self._now_us(), expires_us
        since_us = self.since_us()
        if self._began_us is not None and expires_us > self._began_us:
            grace_ends_us = self._began_us + self._grace_us
            if since_us is not None:
                ends_us = max(ends_us, grace_ends_us)
            elif self._last_seen_us < grace_ends_us:
                ends_us = max(ends_us, self._last_seen_us + self._renew_us)
        return ends_us - now_us, since_us is None
