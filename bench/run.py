"""Measures SecureConnect on this machine and prints Markdown tables.

    .venv/bin/python bench/run.py all            # every figure, some minutes
    .venv/bin/python bench/run.py store deliver --seconds 10 --rounds 5

The server has core 0, the load core 1. Variants of a figure take turns, round by round, so that a noisy
machine harms them alike; a table shows the median of the rounds, and the least and greatest beside it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from report import Rows, conditions, in_turns, middle, table
from secureconnect.bench.figures import Pairs, Room, logins, sockets
from secureconnect.bench.people import Person, register
from secureconnect.bench.rounds import Run
from secureconnect.config import AuthConfig
from server import CHEAP_PASSWORDS, LOAD_CORE, SERVER_CORE, UNLIMITED, Server, server

SETTLE_S = 3.0  # a server's memory is read this long after it is ready


def rates(runs: dict[str, list[Run]]) -> Rows:
    for name, of in runs.items():
        yield (
            name,
            middle([run.per_s for run in of]),
            middle([run.ms(50) for run in of], 1),
            middle([run.ms(99) for run in of], 1),
            middle([run.us("server") for run in of]),
        )


def store(rounds: int, seconds: float) -> None:
    with server() as running:
        target = running.target()
        one = Pairs(target, register(target.site, 2), 1)
        many = Pairs(target, register(target.site, 64), 64)
        variants = {
            "WebSocket, 1 sender": partial(one.over_websocket, seconds),
            "WebSocket, 64 senders": partial(many.over_websocket, seconds),
            "REST, 1 sender": partial(one.over_rest, seconds),
            "REST, 64 senders": partial(many.over_rest, seconds),
        }
        columns = ("", "messages stored/s", "p50 ms", "p99 ms", "server CPU µs each")
        table("Messages stored", columns, rates(in_turns(variants, rounds)))


def deliver(rounds: int, seconds: float) -> None:
    with server() as running:
        target = running.target()
        people = register(target.site, 1000)
        variants: dict[str, Callable[[], Run]] = {}
        for members in (20, 100, 1000):
            room = Room(target, people[:members])
            for under_way in (1, 8):
                name = f"{members:,} members, {under_way} under way"
                variants[name] = partial(room.saturated, seconds, under_way)
        columns = ("", "deliveries/s", "p50 ms", "p99 ms", "server CPU µs each")
        table("Messages delivered to a room", columns, rates(in_turns(variants, rounds)))


def login(rounds: int, seconds: float) -> None:
    with server(UNLIMITED) as running:
        target = running.target()
        people = register(target.site, 16)
        bare, served = [], []
        for _ in range(rounds):
            bare.append(bare_argon2_per_s(seconds))
            served.append(logins(target, people, 8, seconds))
        shares = [100 * run.per_s / alone for run, alone in zip(served, bare, strict=True)]
        rows = (
            ("bare argon2id", middle(bare, 1), "", ""),
            (
                "sign-ins, 8 under way",
                middle([run.per_s for run in served], 1),
                middle([run.ms(50) for run in served]),
                middle(shares, 0, " %"),
            ),
        )
        table("Sign-ins, all on one core", ("", "per second", "p50 ms", "of the bare rate"), rows)


def bare_argon2_per_s(seconds: float) -> float:
    """Verifications on the server's core, with its parameters and as many threads as it would use."""
    cost = AuthConfig()
    alone = Path(__file__).parent / "references" / "argon2_alone.py"
    done = subprocess.run(
        (sys.executable, alone, *map(str, (cost.argon2_time_cost, cost.argon2_memory_kib, seconds))),
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}),
    )
    return float(done.stdout)


def kb_per_socket(running: Server, people: Sequence[Person], each: int) -> float:
    """Resident memory of one idle WebSocket: `each` of every person, all of them greeted."""
    target = running.target()
    with sockets(target, people):  # what the first ones cost once is not counted
        pass
    before_kb = running.rss_kb()
    with sockets(target, [person for person in people for _ in range(each)]) as lines:
        return (running.rss_kb() - before_kb) / len(lines)


def idle(rounds: int, seconds: float) -> None:  # noqa: ARG001  (every figure is called alike)
    first, again, rss_mb, socket_kb = [], [], [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="secureconnect-bench-") as data_dir:
            with server({}, data_dir) as running:
                first.append(running.ready_s)
                time.sleep(SETTLE_S)
                rss_mb.append(running.rss_kb() / 1024)
            with server({}, data_dir) as running:
                again.append(running.ready_s)
        with server() as running:
            people = register(running.site(), 100)
            socket_kb.append(kb_per_socket(running, people, each=10))
    rows = (
        ("start to ready, fresh data folder", middle(first, 2, " s")),
        ("start to ready, again", middle(again, 2, " s")),
        ("resident memory, idle", middle(rss_mb, 1, " MB")),
        ("resident memory of an idle WebSocket (1,000 open)", middle(socket_kb, 1, " kB")),
    )
    table("Start and memory", ("", "measured"), rows)


FIGURES: dict[str, Callable[[int, float], None]] = {
    "idle": idle,
    "store": store,
    "deliver": deliver,
    "login": login,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("figures", nargs="+", choices=[*FIGURES, "all"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each round")
    asked = parser.parse_args()
    os.sched_setaffinity(0, {LOAD_CORE})
    changed = ", ".join(f"`{name}={value}`" for name, value in (UNLIMITED | CHEAP_PASSWORDS).items())
    conditions(
        ("trio", "hypercorn", "quart-trio", "msgspec"),
        asked.rounds,
        asked.seconds,
        "server on core 0, load on core 1, loopback; SQLite with synchronous=FULL on this machine's disk",
        f"settings other than the defaults: {changed}",
        "sign-ins: with the default argon2 cost; start and memory: with no setting changed",
    )
    for name, measure in FIGURES.items():
        if name in asked.figures or "all" in asked.figures:
            measure(asked.rounds, asked.seconds)


if __name__ == "__main__":
    main()
