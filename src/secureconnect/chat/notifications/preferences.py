"""What a person wants to be told, and when to be left alone."""

from __future__ import annotations

from datetime import UTC, datetime, time
from functools import lru_cache
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from msgspec import Meta, Struct, json

from ...clock import SECOND_US
from ...errors import Invalid
from .store import Kind, Notify

Way = Literal["push", "list", "off"]
TimeOfDay = Annotated[str, Meta(pattern="^([01][0-9]|2[0-3]):[0-5][0-9]$", max_length=5)]


_NO_ZONE = (KeyError, ValueError, OSError)  # unknown; no name at all; a folder of names


class QuietHours(Struct, frozen=True):
    """start, end: as a clock on the wall of `time_zone` shows them; from 22:00 to 07:00 is over midnight."""

    start: TimeOfDay
    end: TimeOfDay
    time_zone: Annotated[str, Meta(min_length=1, max_length=64)]

    def cover(self, at_us: int) -> bool:
        """Never where this machine has lost the time zone."""
        try:
            zone = _zone(self.time_zone)
        except _NO_ZONE:
            return False
        now = datetime.fromtimestamp(at_us // SECOND_US, UTC).astimezone(zone).time()
        start, end = time.fromisoformat(self.start), time.fromisoformat(self.end)
        return start <= now < end if start <= end else now >= start or now < end


class Kinds(Struct, frozen=True):
    """push: told to devices, too.  list: listed alone.  off: neither."""

    message: Way = "push"
    mention: Way = "push"
    reply: Way = "push"
    reaction: Way = "list"
    added: Way = "push"
    announcement: Way = "list"
    missed_call: Way = "push"

    def way(self, kind: Kind) -> Way:
        found: Way = getattr(self, kind)
        return found


class Preferences(Struct, frozen=True):
    """quiet_hours: when nothing is pushed; what happens then is listed all the same.  groups: whether devices
    are woken for every message of the groups for which nothing else was chosen.  calls: whether devices are
    woken when somebody calls: in quiet hours, too (always), not then, or never."""

    kinds: Kinds = Kinds()
    quiet_hours: QuietHours | None = None
    groups: Literal["all", "mentions"] = "all"
    calls: Literal["always", "outside_quiet_hours", "never"] = "outside_quiet_hours"

    def is_pushed(self, kind: Kind, at_us: int) -> bool:
        return self.kinds.way(kind) == "push" and not self._is_quiet(at_us)

    def is_rung(self, notify: Notify | None, at_us: int) -> bool:
        """Whether devices are woken for what is said in a group.  notify: what was chosen for it."""
        return (notify or self.groups) == "all" and not self._is_quiet(at_us)

    def is_called(self, at_us: int) -> bool:
        """Whether devices are woken when somebody calls."""
        return self.calls == "always" or (self.calls != "never" and not self._is_quiet(at_us))

    def _is_quiet(self, at_us: int) -> bool:
        return self.quiet_hours is not None and self.quiet_hours.cover(at_us)


def preferences_from(chosen: str | None) -> Preferences:
    """chosen: as it is stored; None: nothing was."""
    return Preferences() if chosen is None else json.decode(chosen, type=Preferences)


def require_zone(name: str) -> None:
    """Raises Invalid for what is no time zone of the IANA's."""
    try:
        _zone(name)
    except _NO_ZONE:
        raise Invalid(
            "Give a time zone like Europe/Berlin.", details={"field": "quiet_hours.time_zone"}
        ) from None


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)
