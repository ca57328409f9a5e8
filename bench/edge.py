"""Measures the edge against references that it starts itself, and prints Markdown tables.

    .venv/bin/python -m pip install -e '.[bench]'    # once
    .venv/bin/python bench/edge.py all               # every figure, some minutes
    .venv/bin/python bench/edge.py fanout rest --tls --rounds 5 --seconds 5

Servers: the gateway alone with a room of its own (edge_server.py), Node with `http` and `ws`, FastAPI on
uvicorn with uvloop and httptools, Quart on Hypercorn's Trio worker. Each is one process on core 0; the load
is on core 1. They take turns, round by round, so that a noisy machine harms them alike; a table shows the
median of the rounds, and the least and greatest beside it; a ratio is the median of the rounds' ratios. All
give answers of the same content and size, and every answer is checked.

`load CPU %` near 100 means that the row shows what the load could do, and the server might do more. Rounds in
which others took much of the two cores, as the progress on stderr tells, are not worth keeping.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import resource
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import load
from contestants import (
    HYPERCORN,
    NODE,
    NODE_REFERENCE,
    Certificate,
    all_contestants,
    contestant,
    make_certificate,
    names,
    node_version,
)
from report import Rows, conditions, in_turns, middle, table
from secureconnect.bench.rounds import Run
from secureconnect.bench.wire import IN_PROGRESS, IsAnswered, Site, is_upgraded
from server import LOAD_CORE

ECHO_SOCKETS = 64
REST_CONNECTIONS = 32
MEMBERS = 1_000
PACE_PER_S = 50
IDLE = (1_000, 5_000)
STORM = 5_000  # connections opened in a round, at most


def compare(title: str, operation: str, runs: Mapping[str, Sequence[Run]]) -> None:
    columns = ("", f"{operation}/s", "p50 ms", "p99 ms", "server CPU µs each", "server CPU %", "load CPU %")
    table(title, (*columns, f"× {NODE}", f"× {HYPERCORN}"), _compared(runs))


def _compared(runs: Mapping[str, Sequence[Run]]) -> Rows:
    for name, of in runs.items():
        yield (
            name,
            middle([run.per_s for run in of]),
            middle([run.ms(50) for run in of], 2),
            middle([run.ms(99) for run in of], 2),
            middle([run.us("server") for run in of], 1),
            middle([run.percent("server") for run in of]),
            middle([run.percent("load") for run in of]),
            *(_times(of, runs[reference]) for reference in (NODE, HYPERCORN)),
        )


def _times(runs: Sequence[Run], reference: Sequence[Run]) -> str:
    ratios = (one.per_s / other.per_s for one, other in zip(runs, reference, strict=True))
    return f"{statistics.median(ratios):.2f}"


def echo(rounds: int, seconds: float, certificate: Certificate | None) -> None:
    with all_contestants(certificate) as targets:
        variants = {name: partial(load.echo, to, ECHO_SOCKETS, seconds) for name, to in targets.items()}
        title = f"WebSocket echo, {ECHO_SOCKETS} sockets, one message under way each"
        compare(title, "round trips", in_turns(variants, rounds))


def fanout(rounds: int, seconds: float, certificate: Certificate | None) -> None:
    with all_contestants(certificate) as targets:
        for under_way in (1, 8):

            def measure(to: load.Contestant, under_way: int = under_way) -> Run:
                with load.room(to, MEMBERS) as room:
                    room.keep_under_way(under_way, seconds)
                return room.run

            variants = {name: partial(measure, target) for name, target in targets.items()}
            title = f"Broadcasts into a room of {MEMBERS:,}, {under_way} under way"
            compare(title, "deliveries", in_turns(variants, rounds))
        _paced(targets, rounds, seconds)


def _paced(targets: Mapping[str, load.Contestant], rounds: int, seconds: float) -> None:
    shares: dict[str, list[float]] = {name: [] for name in targets}

    def measure(name: str) -> Run:
        with load.room(targets[name], MEMBERS) as room:
            room.keep_pace(PACE_PER_S, seconds)
        shares[name].append(100 * room.share)
        return room.run

    runs = in_turns({name: partial(measure, name) for name in targets}, rounds)
    rows = (
        (
            name,
            middle(shares[name], 0, " %"),
            middle([run.ms(50) for run in of], 2),
            middle([run.ms(99) for run in of], 2),
            middle([run.us("server") for run in of], 1),
            middle([run.percent("server") for run in of]),
            middle([run.percent("load") for run in of]),
        )
        for name, of in runs.items()
    )
    columns = (
        "",
        "delivered in time",
        "p50 ms",
        "p99 ms",
        "server CPU µs each",
        "server CPU %",
        "load CPU %",
    )
    due = PACE_PER_S * MEMBERS
    table(f"{PACE_PER_S} broadcasts a second into a room of {MEMBERS:,}: {due:,} deliveries/s", columns, rows)


def rest(rounds: int, seconds: float, certificate: Certificate | None) -> None:
    with all_contestants(certificate) as targets:
        for exchange in (load.PING, load.NOTE):
            variants = {
                name: partial(load.ask, target, exchange, REST_CONNECTIONS, seconds)
                for name, target in targets.items()
            }
            title = f"{exchange.method}, {REST_CONNECTIONS} keep-alive connections"
            compare(title, "requests", in_turns(variants, rounds))


def idle(rounds: int, seconds: float, certificate: Certificate | None) -> None:  # noqa: ARG001  (called alike)
    kinds: dict[str, tuple[Callable[[Site, int], bytes], IsAnswered]] = {
        "WebSockets": (lambda site, number: load.upgrade(site, "/v1/ws/echo", number), is_upgraded),
        "keep-alive": (lambda site, _: load.PING.request(site), load.PING.is_answered),
    }
    kb: dict[str, list[list[float]]] = {name: [[] for _ in kinds for _ in IDLE] for name in names()}
    for number, (name, of) in itertools.product(range(1, rounds + 1), kb.items()):
        each: list[float] = []
        for request, is_answered in kinds.values():
            with contestant(name, certificate) as to:  # a fresh one: memory once used stays
                each += load.kb_each(to, partial(request, to.target.site), is_answered, IDLE)
        print(f"  {name}, round {number} of {rounds}: {each[0]:.1f} kB", file=sys.stderr, flush=True)
        for values, value in zip(of, each, strict=True):
            values.append(value)
    rows = ((name, *(middle(values, 1) for values in of)) for name, of in kb.items())
    columns = ("", *(f"{count:,} {kind}" for kind in kinds for count in IDLE))
    table("Resident memory of the server for each idle connection, kB", columns, rows)


def accept(rounds: int, seconds: float, certificate: Certificate | None) -> None:
    def sockets(to: load.Contestant) -> Run:
        requests = load.upgrades(to, "/v1/ws/echo", range(STORM))
        return load.opened_in(to, requests, is_upgraded, seconds, keep=True)

    def requests(to: load.Contestant) -> Run:
        requests = itertools.repeat(load.PING.request(to.target.site), STORM)
        return load.opened_in(to, requests, load.PING.is_answered, seconds, keep=False)

    titles = {
        "WebSockets opened": sockets,
        "Connections opened for one GET": requests,
    }
    with all_contestants(certificate) as targets:
        for what, measure in titles.items():
            variants = {name: partial(measure, target) for name, target in targets.items()}
            title = f"{what}; {IN_PROGRESS} in progress, at most {STORM:,}"
            compare(title, "connections", in_turns(variants, rounds))


FIGURES: dict[str, Callable[[int, float, Certificate | None], None]] = {
    "echo": echo,
    "fanout": fanout,
    "rest": rest,
    "idle": idle,
    "accept": accept,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("figures", nargs="+", choices=[*FIGURES, "all"])
    parser.add_argument("--tls", action="store_true", help="all of it through TLS 1.3 instead of plain TCP")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each round")
    asked = parser.parse_args()
    os.sched_setaffinity(0, {LOAD_CORE})
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # the servers inherit it
    gc.disable()  # the load makes no cycles worth a pause
    through = "TLS 1.3" if asked.tls else "plain TCP"
    ws = json.loads((NODE_REFERENCE / "package.json").read_text())["dependencies"]["ws"]
    conditions(
        ("trio", "msgspec", "uvicorn", "uvloop", "fastapi", "hypercorn", "quart-trio"),
        asked.rounds,
        asked.seconds,
        f"Node {node_version()} with ws {ws}",
        f"each server one process on core 0, load on core 1, loopback, {through}",
        "messages are JSON of 200 bytes; no compression, no pings",
        "SecureConnect writes its access line for each request and socket, as it does by default; the "
        "references write none",
    )
    with tempfile.TemporaryDirectory(prefix="secureconnect-bench-") as folder:
        certificate = make_certificate(Path(folder)) if asked.tls else None
        for name, measure in FIGURES.items():
            if name in asked.figures or "all" in asked.figures:
                print(f"{name} ...", file=sys.stderr, flush=True)
                measure(asked.rounds, asked.seconds, certificate)


if __name__ == "__main__":
    main()
