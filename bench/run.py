"""Measures SecureConnect on this machine, the whole of it, and prints Markdown tables.

    .venv/bin/python bench/run.py all                         # every figure, about ten minutes
    .venv/bin/python bench/run.py store deliver --seconds 10 --rounds 5
    .venv/bin/python bench/run.py store --store postgres://user@host/empty --cache redis://host

Figures: idle (start and memory), store (SQLite, then Postgres), deliver (beside Node's `ws` without any
persistence), read, resume (sockets that come back), login. Postgres, Redis and an S3 server are started by
the bench unless they are given.

The server has core 0; the load, and the database, core 1. Variants of a figure take turns, round by round, so
that a noisy machine harms them alike; a table shows the median of the rounds, and the least and greatest
beside it. Whoever of server, load and database is near 100 % of its core is what limited a row.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import load
from backends import EMBEDDED, Stand, everything, postgres
from contestants import NODE, contestant, node_version
from report import Rows, conditions, in_turns, middle, others_percent, table
from secureconnect.bench.figures import Pairs, Room, come_back, gets, logins, sockets
from secureconnect.bench.people import Person, converse_each, register
from secureconnect.bench.rounds import Run, Target
from secureconnect.bench.talking import message
from secureconnect.bench.wire import IN_PROGRESS, Site, call_each, is_whole, open_each, rest_of
from secureconnect.config import AuthConfig
from server import CHEAP_PASSWORDS, LOAD_CORE, SERVER_CORE, UNLIMITED, Server, server

SETTLE_S = 3.0  # a server's memory is read this long after it is ready
SYNCED_BYTES = 4096
MEMBERS = 1_000
PACE_PER_S = 50
HELD = 100_000  # messages of the room that is read
LISTED = 50
CONVERSATIONS, NEWEST = 100, 20  # of a first sync
CONNECTIONS = 32
IDLE = 5_000
BACK = 2_000
PER_PERSON = 10  # of these sockets
TURN_S = 1.0  # of sign-ins, and of argon2 alone
LAG = 'secureconnect_loop_lag_seconds_bucket{le="'


@contextmanager
def measured(stand: Stand, settings: Mapping[str, str] = UNLIMITED | CHEAP_PASSWORDS) -> Iterator[Target]:
    with server({**settings, **stand.settings}) as running:
        target = running.target()
        yield Target(target.site, {**target.meters, **stand.meters}, target.settle)


def rates(runs: Mapping[str, Sequence[Run]], digits: int = 1) -> Rows:
    for name, of in runs.items():
        yield (
            name,
            middle([run.per_s for run in of]),
            middle([run.ms(50) for run in of], digits),
            middle([run.ms(99) for run in of], digits),
            middle([run.us("server") for run in of], 1),
            *(percent(of, who) for who in of[0].spent_s if who != "cores"),
        )


def percent(runs: Sequence[Run], who: str) -> str:
    return middle([run.percent(who) for run in runs])


def columns(done: str, also: Sequence[str] = ()) -> tuple[str, ...]:
    """also: whose processor time is told beside that of server and load."""
    spent = (f"{who} CPU %" for who in ("server", "load", *also))
    return ("", f"{done}/s", "p50 ms", "p99 ms", "server CPU µs each", *spent)


# messages stored


def store(asked: argparse.Namespace) -> None:
    _store(EMBEDDED, asked)
    with postgres(asked.store) as stand:
        _store(stand, asked)


def _store(stand: Stand, asked: argparse.Namespace) -> None:
    with measured(stand) as target:
        one = Pairs(target, register(target.site, 2), 1)
        many = Pairs(target, register(target.site, 64), 64)
        variants = {
            f"{SYNCED_BYTES:,} bytes written to the disk, nothing else": partial(synced, target),
            "WebSocket, 1 sender, 1 under way": partial(one.over_websocket, asked.seconds),
            "WebSocket, 64 senders, 1 under way": partial(many.over_websocket, asked.seconds),
            "WebSocket, 64 senders, 8 under way": partial(many.over_websocket, asked.seconds, 8),
            "REST, 1 sender": partial(one.over_rest, asked.seconds),
            "REST, 64 senders": partial(many.over_rest, asked.seconds),
        }
        runs = in_turns(variants, asked.rounds)
        table(f"Messages stored, {stand.name}", columns("stored", [*stand.meters]), rates(runs, 2))


def synced(target: Target) -> Run:
    """How long the disk takes: so many bytes appended to a file, and fdatasync, again and again."""
    run = Run()
    with tempfile.NamedTemporaryFile(prefix="secureconnect-bench-") as file, run.timed(target.meters):
        for _ in range(200):
            began = time.perf_counter()
            os.write(file.fileno(), bytes(SYNCED_BYTES))
            os.fdatasync(file.fileno())
            run.each_s.append(time.perf_counter() - began)
    return run


# messages delivered


def deliver(asked: argparse.Namespace) -> None:
    shares: dict[str, list[float]] = {}
    with measured(EMBEDDED) as target, contestant(NODE, None) as node:
        people = register(target.site, MEMBERS)
        room = Room(target, people)
        size = room.frame_bytes()

        def ours_paced() -> Run:
            run, share = room.paced(asked.seconds, PACE_PER_S)
            shares.setdefault("SecureConnect", []).append(100 * share)
            return run

        def nodes(under_way: int | None) -> Run:
            with load.room(node, MEMBERS, size, writers=1) as crowd:
                if under_way is None:
                    crowd.keep_pace(PACE_PER_S, asked.seconds)
                    shares.setdefault("Node `ws`", []).append(100 * crowd.share)
                else:
                    crowd.keep_under_way(under_way, asked.seconds)
            return crowd.run

        paced = in_turns({"SecureConnect": ours_paced, "Node `ws`": partial(nodes, None)}, asked.rounds)
        smaller = [
            (members, under_way, Room(target, people[:members]))
            for members, under_way in itertools.product((20, 100), (1, 8))
        ]
        variants: dict[str, Callable[[], Run]] = {
            f"{members} members, {under_way} under way": partial(each.saturated, asked.seconds, under_way)
            for members, under_way, each in smaller
        }
        for under_way in (1, 8):
            name = f"{MEMBERS:,} members, {under_way} under way"
            variants[name] = partial(room.saturated, asked.seconds, under_way)
            variants[f"Node `ws`, {name}"] = partial(nodes, under_way)
        runs = in_turns(variants, asked.rounds)
    title = f"{PACE_PER_S} messages/s of {size} bytes to {MEMBERS:,} members"
    rows = ((*row, middle(shares[row[0]], 2, " %")) for row in rates(paced, 2))
    table(title, (*columns("deliveries"), "delivered in time"), rows)
    times = {
        name: statistics.median(
            one.per_s / other.per_s for one, other in zip(of, runs[f"Node `ws`, {name}"], strict=True)
        )
        for name, of in runs.items()
        if f"Node `ws`, {name}" in runs
    }
    rows = ((*row, f"{times[row[0]]:.2f}" if row[0] in times else "") for row in rates(runs, 2))
    table(f"Messages of {size} bytes delivered to a room", (*columns("deliveries"), "× Node"), rows)


# reading


def read(asked: argparse.Namespace) -> None:
    with measured(EMBEDDED) as target:
        both = register(target.site, 2)
        pairs = Pairs(target, both, 1)
        pairs.over_websocket(math.inf, 64, HELD)
        someone = a_full_account(target.site)
        messages = f"/v1/messages?conversation_id={pairs.rooms[0]}&limit={LISTED}"
        sync = "/v1/conversations?first_sync=1&limit=100"
        variants = {
            f"the newest {LISTED} of {HELD:,} messages": partial(gets, target, messages, [both[0].token]),
            "an ordinary route, /v1/users/me": partial(gets, target, "/v1/users/me", [both[0].token]),
            f"first sync of {CONVERSATIONS} conversations": partial(gets, target, sync, [someone.token]),
        }
        both_ways = {
            f"{name}, {connections} connection{'s' if connections > 1 else ''}": partial(
                measure, connections, asked.seconds
            )
            for name, measure in variants.items()
            for connections in (1, CONNECTIONS)
        }
        table("Reading", columns("answers"), rates(in_turns(both_ways, asked.rounds), 2))


def a_full_account(site: Site) -> Person:
    """Somebody with many conversations of three, in each of which somebody else has said something."""
    person, *others = register(site, 22)
    groups = [[person, others[number % 21], others[(number + 1) % 21]] for number in range(CONVERSATIONS)]
    rooms = converse_each(site, groups)
    said = (
        site.request("POST", "/v1/messages", message(room), group[1 + number % 2].token)
        for room, group in zip(rooms, groups, strict=True)
        for number in range(NEWEST)
    )
    for _ in call_each(site, said, CONNECTIONS):
        pass
    return person


# sockets that come back


def resume(asked: argparse.Namespace) -> None:
    with measured(EMBEDDED) as target:
        people = register(target.site, BACK // PER_PERSON)
        converse_each(target.site, [people])
        devices = people * PER_PERSON
        title = f"{BACK:,} sockets come back and resume, {IN_PROGRESS} in progress"
        runs = in_turns({"opened and resumed": partial(come_back, target, devices)}, asked.rounds)
        table(title, columns("sockets"), rates(runs))


# sign-ins


def login(asked: argparse.Namespace) -> None:
    """Both take turns each second, for the core is not as fast in one as in the next."""
    bare: list[Run] = []
    served: list[Run] = []
    lag: dict[float, float] = {}
    with measured(EMBEDDED, UNLIMITED) as target, argon2_alone() as alone:
        people = register(target.site, 16)
        logins(target, people, 8, TURN_S)  # threads that are new have no memory yet
        for number in range(1, asked.rounds + 1):
            turns: list[tuple[Run, Run]] = []
            for _ in range(max(1, round(asked.seconds / TURN_S))):
                hashed, before = alone(TURN_S), loop_lag(target.site)
                turns.append((hashed, logins(target, people, 8, TURN_S)))
                for limit_s, count in loop_lag(target.site).items():
                    lag[limit_s] = lag.get(limit_s, 0) + count - before[limit_s]
            one, other = (Run.of(runs) for runs in zip(*turns, strict=True))
            bare.append(one)
            served.append(other)
            said = f"  sign-ins, round {number} of {asked.rounds}: {other.per_s:,.1f}/s"
            said += f", argon2id {one.per_s:,.1f}/s; others took {others_percent(other):.0f} % of a core"
            print(said, file=sys.stderr, flush=True)
    pairs = list(zip(bare, served, strict=True))
    looked = lag[math.inf]
    late_s = min(limit_s for limit_s, count in lag.items() if count >= 0.99 * looked)
    rows = (
        ("bare argon2id", *(middle(each, 1) for each in _rate_and_ms(bare)), "", "", "", "", ""),
        (
            "sign-ins, 8 under way",
            *(middle(each, 1) for each in _rate_and_ms(served)),
            middle([run.ms(50) for run in served]),
            middle([100 * other.per_s / one.per_s for one, other in pairs], 0, " %"),
            middle([100 * one.us("server") / other.us("server") for one, other in pairs], 0, " %"),
            f"≤ {late_s * 1e3:g} ms of {looked:.0f} looks",
            percent(served, "server"),
        ),
    )
    shares = ("of the bare rate", "the same by CPU ms")
    titles = ("", "per second", "CPU ms each", "p50 ms", *shares, "loop lag p99", "server CPU %")
    table("Sign-ins, all on one core", titles, rows)


def _rate_and_ms(runs: Sequence[Run]) -> tuple[list[float], list[float]]:
    return [run.per_s for run in runs], [run.us("server") / 1e3 for run in runs]


def loop_lag(site: Site) -> dict[float, float]:
    """Seconds → how often the event loop was late by no more, since the start."""
    ((line, _),) = open_each(site, iter([site.request("GET", "/metrics")]), is_whole)
    line.sock.close()
    told = (each for each in rest_of(line.answer).decode().splitlines() if each.startswith(LAG))
    parts = (each.removeprefix(LAG).split('"} ') for each in told)
    return {float(limit_s): float(count) for limit_s, count in parts}


@contextmanager
def argon2_alone() -> Iterator[Callable[[float], Run]]:
    """Verifies for so many seconds on the server's core, with its parameters, as many at once as it would."""
    cost = AuthConfig()
    script = Path(__file__).parent / "references" / "argon2_alone.py"
    with subprocess.Popen(
        (sys.executable, script, str(cost.argon2_time_cost), str(cost.argon2_memory_kib)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}),
    ) as process:
        asking, answers = process.stdin, process.stdout
        assert asking is not None
        assert answers is not None

        def verify(seconds: float) -> Run:
            print(seconds, file=asking, flush=True)
            done, wall_s, spent_s = answers.readline().split()
            return Run(float(wall_s), done=int(done), spent_s={"server": float(spent_s)})

        yield verify


# start and memory


def idle(asked: argparse.Namespace) -> None:
    first: list[float] = []
    again: list[float] = []
    rss_mb: list[float] = []
    socket_kb: list[float] = []
    for _ in range(asked.rounds):
        with tempfile.TemporaryDirectory(prefix="secureconnect-bench-") as data_dir:
            with server({}, data_dir) as running:
                first.append(running.ready_s)
                time.sleep(SETTLE_S)
                rss_mb.append(running.rss_kb() / 1024)
            with server({}, data_dir) as running:
                again.append(running.ready_s)
        with server(UNLIMITED | CHEAP_PASSWORDS | {"GATEWAY__MAX_CONNECTIONS": "20000"}) as running:
            people = register(running.site(), IDLE // PER_PERSON)
            socket_kb.append(kb_per_socket(running, people, PER_PERSON))
    rows = [
        ("start to ready, fresh data folder", middle(first, 2, " s")),
        ("start to ready, again", middle(again, 2, " s")),
        ("resident memory, idle", middle(rss_mb, 1, " MB")),
        (f"resident memory of an idle WebSocket ({IDLE:,} open)", middle(socket_kb, 1, " kB")),
    ]
    with (
        everything(asked.store, asked.cache) as stand,
        tempfile.TemporaryDirectory(prefix="secureconnect-bench-") as data_dir,  # the database knows its key
    ):
        ready_s: list[float] = []
        all_mb: list[float] = []
        with server(stand.settings, data_dir):
            pass  # makes the schema
        for _ in range(asked.rounds):
            with server(stand.settings, data_dir) as running:
                ready_s.append(running.ready_s)
                time.sleep(SETTLE_S)
                all_mb.append(running.rss_kb() / 1024)
        rows += [
            (f"start to ready, again, on {stand.name}", middle(ready_s, 2, " s")),
            (f"resident memory, idle, on {stand.name}", middle(all_mb, 1, " MB")),
        ]
    table("Start and memory", ("", "measured"), rows)


def kb_per_socket(running: Server, people: Sequence[Person], each: int) -> float:
    """Resident memory of one idle WebSocket: `each` of every person, all of them greeted."""
    target = running.target()
    with sockets(target, people):  # what the first ones cost once is not counted
        pass
    before_kb = running.rss_kb()
    with sockets(target, [person for person in people for _ in range(each)]) as lines:
        target.settle()
        return (running.rss_kb() - before_kb) / len(lines)


FIGURES: dict[str, Callable[[argparse.Namespace], None]] = {
    "idle": idle,
    "store": store,
    "deliver": deliver,
    "read": read,
    "resume": resume,
    "login": login,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("figures", nargs="+", choices=[*FIGURES, "all"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each round")
    parser.add_argument(
        "--store", metavar="URL", help="of an empty Postgres database, instead of starting one"
    )
    parser.add_argument("--cache", metavar="URL", help="of a Redis, instead of starting one")
    asked = parser.parse_args()
    os.sched_setaffinity(0, {LOAD_CORE})
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # the servers inherit it
    gc.disable()  # the load makes no cycles worth a pause
    changed = ", ".join(f"`{name}={value}`" for name, value in (UNLIMITED | CHEAP_PASSWORDS).items())
    conditions(
        ("trio", "hypercorn", "quart-trio", "msgspec"),
        asked.rounds,
        asked.seconds,
        "server on core 0, load and database on core 1, loopback",
        "SQLite with synchronous=FULL, Postgres with fsync and synchronous_commit, on this machine's disk",
        f"Node {node_version()}, `ws`: one process that sends everybody what it was sent, and keeps nothing",
        f"settings other than the defaults: {changed}",
        "sign-ins: with the default argon2 cost; start and memory: with no setting changed",
    )
    for name, measure in FIGURES.items():
        if name in asked.figures or "all" in asked.figures:
            measure(asked)


if __name__ == "__main__":
    main()
