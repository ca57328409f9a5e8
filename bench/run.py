"""Measures SecureConnect on this machine and prints Markdown tables.

    .venv/bin/python bench/run.py all            # every figure, some minutes
    .venv/bin/python bench/run.py store deliver --seconds 10 --rounds 5

The server has core 0, the load core 1. Variants of a figure take turns, round by round, so that a noisy
machine harms them alike; a table shows the median of the rounds, and the least and greatest beside it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial

import figures
from people import register
from report import Rows, Run, conditions, in_turns, middle, table
from server import CHEAP_PASSWORDS, LOAD_CORE, UNLIMITED, server

SETTLE_S = 3.0  # a server's memory is read this long after it is ready


def rates(runs: dict[str, list[Run]]) -> Rows:
    for name, of in runs.items():
        yield (
            name,
            middle([run.per_s for run in of]),
            middle([run.ms(50) for run in of], 1),
            middle([run.ms(99) for run in of], 1),
            middle([run.cpu_us for run in of]),
        )


def store(rounds: int, seconds: float) -> None:
    with server() as running:
        one, many = figures.Pairs(running, 1), figures.Pairs(running, 64)
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
        people = [register(running.port) for _ in range(1000)]
        variants: dict[str, Callable[[], Run]] = {}
        for members in (20, 100, 1000):
            room = figures.Room(running, people[:members])
            for under_way in (1, 8):
                name = f"{members:,} members, {under_way} under way"
                variants[name] = partial(room.delivered, seconds, under_way)
        columns = ("", "deliveries/s", "p50 ms", "p99 ms", "server CPU µs each")
        table("Messages delivered to a room", columns, rates(in_turns(variants, rounds)))


def login(rounds: int, seconds: float) -> None:
    with server(UNLIMITED) as running:
        people = [register(running.port) for _ in range(16)]
        bare, served = [], []
        for _ in range(rounds):
            bare.append(figures.bare_argon2_per_s(seconds))
            served.append(figures.logins(running, people, clients=8, seconds=seconds))
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
            people = [register(running.port) for _ in range(100)]
            socket_kb.append(figures.kb_per_socket(running, people, each=10))
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
