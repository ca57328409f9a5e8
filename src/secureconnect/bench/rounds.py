"""One round of load: what was done in which time, and what it took of the processor."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from .wire import Site

Meters = Mapping[str, Callable[[], float]]  # who spends processor time → seconds spent so far


def _at_once() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Target:
    """A running server.  settle: returns once it has nothing left to do."""

    site: Site
    meters: Meters = field(default_factory=dict)
    settle: Callable[[], None] = _at_once


@dataclass(slots=True)
class Run:
    """each_s: how long operations took.  done: how many there were, if that holds a sample of them only.
    spent_s: processor time, by the names of the meters, during `wall_s`.  limit: why the server did no more,
    if that was a limit of its own.
    """

    wall_s: float = 0.0
    each_s: list[float] = field(default_factory=list)
    done: int | None = None
    spent_s: dict[str, float] = field(default_factory=dict)
    limit: str = ""

    @classmethod
    def of(cls, parts: Sequence[Run]) -> Run:
        """What was done in parts, as one round."""
        return cls(
            sum(part.wall_s for part in parts),
            [each_s for part in parts for each_s in part.each_s],
            sum(part.count for part in parts),
            {who: sum(part.spent_s[who] for part in parts) for who in parts[0].spent_s},
        )

    @property
    def count(self) -> int:
        return len(self.each_s) if self.done is None else self.done

    @property
    def per_s(self) -> float:
        return self.count / self.wall_s

    def us(self, who: str) -> float:
        """Of the processor, for one operation."""
        return self.spent_s[who] * 1e6 / self.count

    def percent(self, who: str) -> float:
        """Of one core."""
        return 100 * self.spent_s[who] / self.wall_s

    def ms(self, percent: int) -> float:
        return quantile_s(self.each_s, percent) * 1e3

    @contextmanager
    def timed(self, meters: Meters) -> Iterator[None]:
        before = {name: meter() for name, meter in meters.items()}
        began = time.perf_counter()
        yield
        self.wall_s = time.perf_counter() - began
        self.spent_s = {name: meter() - before[name] for name, meter in meters.items()}


def quantile_s(values: list[float], percent: int) -> float:
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
