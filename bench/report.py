"""What every benchmark does alike: rounds in turns, their medians, Markdown tables and the conditions."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from server import LOAD_CORE, SERVER_CORE, TICKS_PER_S, Server

Rows = Iterable[Sequence[str]]


@dataclass(slots=True)
class Run:
    """One round of load.

    each_s: how long operations took.  done: how many there were, if `each_s` holds a sample of them only.
    cpu_s, load_cpu_s, other_cpu_s: of the server, of the load, and what was taken from their cores by others,
    during `wall_s`.
    """

    wall_s: float = 0.0
    cpu_s: float = 0.0
    load_cpu_s: float = 0.0
    other_cpu_s: float = 0.0
    each_s: list[float] = field(default_factory=list)
    done: int | None = None

    @property
    def count(self) -> int:
        return len(self.each_s) if self.done is None else self.done

    @property
    def per_s(self) -> float:
        return self.count / self.wall_s

    @property
    def cpu_us(self) -> float:
        """Of the server, for one operation."""
        return self.cpu_s * 1e6 / self.count

    @property
    def cpu_percent(self) -> float:
        return 100 * self.cpu_s / self.wall_s

    @property
    def load_percent(self) -> float:
        return 100 * self.load_cpu_s / self.wall_s

    @property
    def other_percent(self) -> float:
        """Of one core. Where it is not near 0, neither side could do what it can."""
        return 100 * self.other_cpu_s / self.wall_s

    def ms(self, percent: int) -> float:
        return statistics.quantiles(self.each_s, n=100, method="inclusive")[percent - 1] * 1e3

    @contextmanager
    def timed(self, server: Server) -> Iterator[None]:
        cpu_s, load_cpu_s, all_cpu_s = server.cpu_s(), time.process_time(), _cores_cpu_s()
        began = time.perf_counter()
        yield
        self.wall_s = time.perf_counter() - began
        self.load_cpu_s = time.process_time() - load_cpu_s
        self.cpu_s = server.cpu_s() - cpu_s
        self.other_cpu_s = max(0.0, _cores_cpu_s() - all_cpu_s - self.cpu_s - self.load_cpu_s)


def in_turns(variants: Mapping[str, Callable[[], Run]], rounds: int) -> dict[str, list[Run]]:
    runs: dict[str, list[Run]] = {name: [] for name in variants}
    for number in range(1, rounds + 1):
        for name, measure in variants.items():
            run = measure()
            said = f"  {name}, round {number} of {rounds}: {run.per_s:,.0f}/s"
            said += f"; others took {run.other_percent:.0f} % of a core"
            print(said, file=sys.stderr, flush=True)
            runs[name].append(run)
    return runs


def middle(values: Sequence[float], digits: int = 0, unit: str = "") -> str:
    """`median (least–greatest)`."""
    median, least, most = (
        f"{value:,.{digits}f}" for value in (statistics.median(values), min(values), max(values))
    )
    return f"**{median}{unit}** ({least}–{most})"


def table(title: str, columns: Sequence[str], rows: Rows) -> None:
    print(f"\n### {title}\n")
    print("| " + " | ".join(columns) + " |")
    print("|" + "|".join([" --- "] + [" ---: "] * (len(columns) - 1)) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)


def conditions(packages: Sequence[str], rounds: int, seconds: float, *facts: str) -> None:
    """What a reader must know of this machine and this run.  facts: lines of the benchmark's own."""
    described = ("git", "describe", "--always", "--dirty")
    commit = subprocess.run(described, capture_output=True, text=True, check=False).stdout.strip()
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    for line in (
        f"commit {commit}, {time.strftime('%Y-%m-%d', time.gmtime())}",
        f"{os.cpu_count()} cores ({_processor()}), Linux {platform.release()}",
        f"Python {platform.python_version()}, {versions}",
        f"{rounds} rounds of {seconds:g} s; shown: **median** (least–greatest)",
        f"load average when it began: {os.getloadavg()[0]:.1f}",
        *facts,
    ):
        print(f"- {line}", flush=True)


def _cores_cpu_s() -> float:
    """Processor time spent on the two cores by whatever runs there, the machine's other guests included."""
    ticks = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name in (f"cpu{SERVER_CORE}", f"cpu{LOAD_CORE}"):
            user, nice, system, _, _, _, _, steal = map(int, fields[:8])
            ticks += user + nice + system + steal
    return ticks / TICKS_PER_S


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
