"""Two nodes on one Postgres and one Redis: how long a message is on its way from one to the other.

    PYTHONPATH=src:tests .venv/bin/python bench/nodes.py
    PYTHONPATH=src:tests .venv/bin/python bench/nodes.py --rounds 5 --seconds 5

Postgres and Redis are Debian's, started for this, as careful as they are by default. Everything shares the
two cores, the load too: what the clock says is the worse for it, so read the processor's time of each
process, less what they take while nobody is connected. Each figure stands beside the same on one node, with
the other one idle; they take turns.
"""

from __future__ import annotations

import argparse
import base64
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from databases import objects, postgres, postgres_cpu_s, redis
from report import Rows, conditions, in_turns, middle, table
from secureconnect.bench.crowd import Crowd
from secureconnect.bench.people import Person, converse, register
from secureconnect.bench.rounds import Run, Target
from secureconnect.bench.talking import TEXT, said
from secureconnect.bench.wire import Line, Site, is_greeted, opened, text
from server import CHEAP_PASSWORDS, UNLIMITED, Server, server

MEMBERS = 1_000
PACE_PER_S = 50
ROOM_PACE_PER_S = 10


@dataclass(frozen=True, slots=True)
class Cluster:
    """nodes: both.  target: the first, and who spends processor time."""

    nodes: tuple[Server, Server]
    target: Target

    def site(self, number: int) -> Site:
        return self.nodes[number].site()


@contextmanager
def cluster() -> Iterator[Cluster]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="secureconnect-bench-")))
        database, bus = stack.enter_context(postgres()), stack.enter_context(redis(folder))
        settings = UNLIMITED | CHEAP_PASSWORDS | stack.enter_context(objects(folder))
        settings |= {
            "POSTGRES__URL": database.url(database.create()),
            "REDIS__URL": bus.url,
            "AUTH__MASTER_KEY": base64.b64encode(os.urandom(32)).decode(),
        }
        cores = range(os.cpu_count() or 1)
        one, other = (stack.enter_context(server(settings, cores=cores)) for _ in range(2))
        first = one.target()
        meters: dict[str, Callable[[], float]] = {
            "node A": one.cpu_s,
            "node B": other.cpu_s,
            "Postgres": partial(postgres_cpu_s, database),
            "Redis": bus.cpu_s,
            "load": first.meters["load"],
            "cores": first.meters["cores"],
        }
        yield Cluster((one, other), Target(first.site, meters, first.settle))


class Room:
    """A group whose first member, on the first node, writes.  split: of the others, those of the second half
    are on the second node."""

    def __init__(self, of: Cluster, people: Sequence[Person], *, split: bool) -> None:
        self._cluster, self._people = of, people
        self._here = (len(people) + 1) // 2 if split else len(people)
        self._name = converse(of.site(0), people)

    def paced(self, per_s: float, seconds: float) -> Run:
        with self._crowd() as crowd:
            crowd.keep_pace(per_s, seconds)
            if crowd.share < 1:
                raise RuntimeError(f"only {crowd.share:.0%} were delivered in time")
        return crowd.run

    def saturated(self, under_way: int, seconds: float) -> Run:
        with self._crowd() as crowd:
            crowd.keep_under_way(under_way, seconds)
        return crowd.run

    @contextmanager
    def _crowd(self) -> Iterator[Crowd]:
        """All of them connected, and reached once."""
        target = self._cluster.target
        with (
            self._lines(0, self._people[: self._here]) as here,
            self._lines(1, self._people[self._here :]) as there,
        ):
            Crowd(target, [*here, *there], self._make).keep_under_way(1, 0)
            lines = [Line(number, line.sock, b"") for number, line in enumerate([*here, *there])]
            yield Crowd(target, lines, self._make)

    @contextmanager
    def _lines(self, node: int, people: Sequence[Person]) -> Iterator[list[Line]]:
        site, path = self._cluster.site(node), f"/v1/ws/chat?conversation_id={self._name}"
        with opened(site, [site.upgrade(path, each.token) for each in people], is_greeted) as lines:
            yield lines

    def _make(self, number: int) -> bytes:
        return text(msgspec.json.encode(said(self._name, f"{number:09d} {TEXT}")))


def idle(of: Cluster, seconds: float) -> Run:
    """Nobody is connected."""
    run = Run(done=1)
    of.target.settle()
    with run.timed(of.target.meters):
        time.sleep(seconds)
    return run


WHO = ("node A", "node B", "Postgres", "Redis", "load")


def rows(runs: dict[str, list[Run]]) -> Rows:
    for name, of in runs.items():
        yield (
            name,
            middle([run.per_s for run in of]),
            middle([run.ms(50) for run in of], 2),
            middle([run.ms(99) for run in of], 2),
            *(middle([run.us(who) for run in of], 1) for who in WHO),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--members", type=int, default=MEMBERS, help="of the large room")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each round")
    asked = parser.parse_args()
    with cluster() as both:
        conditions(
            ("trio", "msgspec", "redis"),
            asked.rounds,
            asked.seconds,
            "two nodes, Postgres, Redis and the load on the same cores, loopback; every message is on the"
            " disk before it is acknowledged",
        )
        people = register(both.site(0), asked.members)
        still = [idle(both, asked.seconds) for _ in range(asked.rounds)]
        spent = [middle([run.percent(who) for run in still], 1, " %") for who in WHO]
        table("While nobody is connected, of a core", WHO, [spent])
        columns = ("", "deliveries/s", "p50 ms", "p99 ms", *(f"{who}, CPU µs each" for who in WHO))
        variants: dict[str, Callable[[], Run]] = {}
        for where, split in (("the other node", True), ("the same node", False)):
            pair = Room(both, people[:2], split=split)
            variants[f"to {where}, {PACE_PER_S} a second"] = partial(pair.paced, PACE_PER_S, asked.seconds)
            for under_way in (1, 8):
                variants[f"to {where}, {under_way} under way"] = partial(
                    pair.saturated, under_way, asked.seconds
                )
        table("From one person to another", columns, rows(in_turns(variants, asked.rounds)))
        variants.clear()
        for where, split in (("500 on each node", True), ("all on one", False)):
            room = Room(both, people, split=split)
            variants[f"{where}, {ROOM_PACE_PER_S} a second"] = partial(
                room.paced, ROOM_PACE_PER_S, asked.seconds
            )
            for under_way in (1, 8):
                variants[f"{where}, {under_way} under way"] = partial(
                    room.saturated, under_way, asked.seconds
                )
        table(f"Into a room of {asked.members:,}", columns, rows(in_turns(variants, asked.rounds)))


if __name__ == "__main__":
    main()
