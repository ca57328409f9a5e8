"""`scripts/chaos --seed N --minutes M`: one fault after another until the time is up, then a table of them.

usage: python -m chaos [--seed N] [--minutes M] [--only WORDS]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from statistics import median

import trio

from chaos.harness import HOLD_S, Round, under_load
from chaos.plan import endless
from kit.cluster import cluster, in_thread
from kit.postgres import PostgresServer
from kit.store import ObjectStore

DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
LOOKED_AT = 10_000  # faults, before one asked for by name is said not to be there
HEAD = (
    "fault",
    "times",
    "noticed s",
    "back s",
    "nothing heard for s",
    "nothing stored for s",
    "all held it after s",
    "shown before stored",
    "returned",
    "reconnects",
)


async def run(seed: int, minutes: float, hold_s: float, only: str, rounds: list[Round]) -> None:
    """Raises whatever was not as promised. Each round is told on stderr as it ends.  rounds: gets them."""
    faults = (fault for fault in endless(seed) if only in fault.name)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="secureconnect-chaos-")))
        (folder / "store").mkdir()
        store, postgres = ObjectStore(folder / "store"), PostgresServer(**DURABLE)
        for server in (store, postgres):
            stack.callback(server.close)
            await in_thread(server.start)
        async with cluster(folder, postgres, store) as nodes, under_load(nodes, seed) as chaos:
            until = trio.current_time() + minutes * 60
            while trio.current_time() < until:
                fault = next(faults)
                sys.stderr.write(f"{fault.name} …\n")
                rounds.append(await chaos.strike(fault, hold_s))
                sys.stderr.write(f"{rounds[-1]}\n")


def table(rounds: list[Round]) -> str:
    """Markdown: the slowest of each fault, and the median over all in the last row."""
    by_name: dict[str, list[Round]] = {}
    for each in rounds:
        by_name.setdefault(each.fault, []).append(each)
    lines = [HEAD, ["---"] * len(HEAD), *(_row(name, those) for name, those in sorted(by_name.items()))]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _row(name: str, rounds: list[Round]) -> list[str]:
    return [
        name,
        str(len(rounds)),
        _slowest([each.degrade_s for each in rounds]),
        _slowest([each.recover_s for each in rounds]),
        f"{max(each.silence_s for each in rounds):.1f}",
        f"{max(each.unstored_s for each in rounds):.1f}",
        f"{max(each.settled_s for each in rounds):.1f}",
        str(sum(each.provisional for each in rounds)),
        str(sum(each.returned for each in rounds)),
        f"{median(each.reconnects for each in rounds):.0f}",
    ]


def _slowest(times: list[dict[str, float]]) -> str:
    names = sorted({name for each in times for name in each})
    worst = {name: max(each[name] for each in times if name in each) for name in names}
    if not worst:
        return "–"
    return ", ".join(
        f"{took:.2f}" if len(worst) == 1 else f"{name} {took:.2f}" for name, took in worst.items()
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--hold", type=float, default=HOLD_S, help="seconds that a fault lasts")
    parser.add_argument("--only", default="", help="only faults whose name contains this")
    given = parser.parse_args()
    if not any(given.only in fault.name for fault in islice(endless(given.seed), LOOKED_AT)):
        parser.error(f"no fault has {given.only!r} in its name")
    rounds: list[Round] = []
    try:
        trio.run(run, given.seed, given.minutes, given.hold, given.only, rounds)
    finally:  # also what went well before something did not
        sys.stdout.write(table(rounds))


if __name__ == "__main__":
    main()
