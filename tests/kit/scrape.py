"""What servers say at /metrics, and deeds that must show there."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Generic, TypeVar

import trio

from kit.http import plain
from kit.server import METRICS_S, Server
from kit.wait import LOOK_S
from secureconnect import metrics

LINE = re.compile(r"(?P<name>\w+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
OTHERS = re.compile(r"(process|python)_.*|.*_created")
MOVED_S = 30.0  # a machine may be busy

Samples = dict[str, float]
S = TypeVar("S")


def declared() -> set[str]:
    """Names of all metrics there can be, without those of `prometheus_client` itself."""
    import secureconnect.app
    import secureconnect.deps.redis
    import secureconnect.deps.signals  # noqa: F401  (each declares its own; the last two where they are used)

    named = re.findall(r"^# TYPE (\w+) ", metrics.exposition().decode(), re.MULTILINE)
    return {name for name in named if not OTHERS.fullmatch(name)}


def value(name: str, **labels: str) -> float:
    """Of a metric of this process; 0 before anything has moved it."""
    return metrics.REGISTRY.get_sample_value(name, labels) or 0.0


async def exposition(server: Server) -> str:
    async with plain(timeout=METRICS_S) as http:
        answer = await http.get(f"{server.url}/metrics")
    answer.raise_for_status()
    return answer.text


async def scrape(*servers: Server) -> Samples:
    """Sums over all labels by name, and each sample by name and labels as they stand in the text; those of
    several servers are added."""
    found: Samples = {}
    for server in servers:
        for line in (await exposition(server)).splitlines():
            if match := LINE.fullmatch(line):
                name, labels, value = match["name"], match["labels"], float(match["value"])
                found[name] = found.get(name, 0.0) + value
                if labels:
                    whole = f"{name}{{{labels}}}"
                    found[whole] = found.get(whole, 0.0) + value
    return found


class Deeds(Generic[S]):
    """A table of what can be done on a scene, and of what that moves."""

    def __init__(self) -> None:
        self._table: list[tuple[Callable[[S], AbstractAsyncContextManager[None]], tuple[str, ...]]] = []

    def moves(self, *samples: str) -> Callable[[Callable[[S], AsyncIterator[None]]], None]:
        """For a function that does it, yields while it shows, and ends it.

        samples: names, or names with labels as they stand in the text.
        """

        def enter(act: Callable[[S], AsyncIterator[None]]) -> None:
            self._table.append((asynccontextmanager(act), samples))

        return enter

    def names(self) -> set[str]:
        """Of all metrics that are moved; of a histogram also without what is added to its name."""
        named = {sample.partition("{")[0] for _, samples in self._table for sample in samples}
        return named | {name.removesuffix("_count") for name in named}

    async def each_shows(self, scene: S, *servers: Server) -> None:
        """Look, do, look again: as many times as there are deeds, in their order."""
        for act, samples in self._table:
            before = await scrape(*servers)
            still = set(samples)
            async with act(scene):
                with trio.move_on_after(MOVED_S):
                    while still:
                        now = await scrape(*servers)
                        still -= {each for each in still if now.get(each, 0.0) != before.get(each, 0.0)}
                        await trio.sleep(LOOK_S)
                assert not still, f"{getattr(act, '__name__', act)} does not move {still}"
