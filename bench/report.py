"""What every benchmark does alike: rounds in turns, their medians, Markdown tables and the conditions."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from secureconnect.bench.rounds import Run

Rows = Iterable[Sequence[str]]


def in_turns(variants: Mapping[str, Callable[[], Run]], rounds: int) -> dict[str, list[Run]]:
    runs: dict[str, list[Run]] = {name: [] for name in variants}
    for number in range(1, rounds + 1):
        for name, measure in variants.items():
            run = measure()
            said = f"  {name}, round {number} of {rounds}: {run.per_s:,.0f}/s"
            said += f"; others took {others_percent(run):.0f} % of a core"
            print(said, file=sys.stderr, flush=True)
            runs[name].append(run)
    return runs


def others_percent(run: Run) -> float:
    """Of one core. Where it is not near 0, neither side could do what it can."""
    ours = sum(spent_s for who, spent_s in run.spent_s.items() if who != "cores")
    return max(0.0, 100 * (run.spent_s["cores"] - ours) / run.wall_s)


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
    """What a reader must know of this machine and this run.  seconds: 0 where a round takes what it takes.
    facts: lines of the benchmark's own."""
    described = ("git", "describe", "--always", "--dirty")
    commit = subprocess.run(described, capture_output=True, text=True, check=False).stdout.strip()
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    for line in (
        f"commit {commit}, {time.strftime('%Y-%m-%d', time.gmtime())}",
        f"{os.cpu_count()} cores ({_processor()}), Linux {platform.release()}",
        f"Python {platform.python_version()}, {versions}",
        f"{rounds} rounds{f' of {seconds:g} s' if seconds else ''}; shown: **median** (least–greatest)",
        f"load average when it began: {os.getloadavg()[0]:.1f}",
        *facts,
    ):
        print(f"- {line}", flush=True)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
