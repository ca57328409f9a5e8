"""How much is looked at in one second, and how much of it from one address."""

from __future__ import annotations

import ipaddress
from collections import Counter


class Pace:
    """Seconds are counted one by one, each with a table of its own: it cannot grow beyond what is read in
    one."""

    def __init__(self, all_per_s: int, one_per_s: int) -> None:
        self._all_per_s = all_per_s
        self._one_per_s = one_per_s
        self._ends = float("-inf")
        self._seen = 0
        self._of: Counter[str] = Counter()

    def rest_s(self, now: float) -> float:
        """For how long nothing more may be read.  now: a monotonic clock, seconds."""
        if now >= self._ends:
            self._ends = now + 1
            self._seen = 0
            self._of = Counter()
        return self._ends - now if self._seen >= self._all_per_s else 0

    def admits(self, host: str) -> bool:
        """Count what was read; whether it is to be looked at."""
        self._seen += 1
        whose = _network(host) if ":" in host else host
        self._of[whose] += 1
        return self._of[whose] <= self._one_per_s


def _network(host: str) -> str:
    """The /64 of an IPv6 address, which is one customer at least."""
    return ipaddress.IPv6Address(host.partition("%")[0]).packed[:8].hex()
