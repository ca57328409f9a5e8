"""Whether sending and reading stay what they are while what is stored grows.

    PYTHONPATH=src:tests .venv/bin/python bench/growth.py sqlite
    PYTHONPATH=src:tests .venv/bin/python bench/growth.py postgres            # Debian's, started for this
    PYTHONPATH=src:tests .venv/bin/python bench/growth.py sqlite --axis messages --sizes 1000 100000

Each size is a database of its own: one conversation of so many messages, or so many conversations of one
person with 20 messages each, the last said one a minute. All the servers stand at the same time on core 0 and
are asked in turns, one request after the other, so that a noisy machine harms all sizes alike. Indexing for
search and notifying stand still: what they take is measured elsewhere.

Markdown on stdout; `--plot docs/figures` draws each axis into that folder.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import trio

from databases import postgres, postgres_cpu_s
from report import conditions, table
from secureconnect.bench.asking import success
from secureconnect.bench.people import Person, register
from secureconnect.bench.plot import draw_growth
from secureconnect.bench.rounds import Run
from secureconnect.bench.talking import said
from secureconnect.bench.wire import (
    QUIET_LIMIT_S,
    Frames,
    IsAnswered,
    Line,
    Site,
    is_greeted,
    open_each,
    receive,
    send,
    text,
)
from secureconnect.chat import store
from secureconnect.clock import MINUTE_US, SECOND_US, now_us
from secureconnect.deps.contracts import Tx
from secureconnect.identity import ConversationId, UserId
from seed import ROWS, Said, advance, analyse, begin, opened, put
from server import CHEAP_PASSWORDS, LOAD_CORE, UNLIMITED, Server, server

AXES: dict[str, tuple[int, ...]] = {
    "messages": (1_000, 10_000, 100_000, 1_000_000),
    "conversations": (10, 100, 1_000, 10_000),
}
OF_EACH = 20  # messages of each conversation where those are many
PAGE = 50  # messages, and conversations, asked for at once
TALKS = 10  # conversations that are written in and read, so that as many are in memory whatever the size
MISSED = 10  # by a socket that resumes
FRAME = 1_000  # conversations named in one frame of a resume
FIRST_SYNC = 100
UNREAD = 5
ROUND_S = (
    1.0  # of an operation in a round, at most: resuming with 10,000 conversations takes a quarter of that
)
TEXT = "a message of a common length, such as people write them"
STILL = {"CHAT__SEARCH_PASS_S": "3600", "CHAT__NOTIFY_PASS_S": "3600", "CHAT__BACKGROUND_SHARE": "0.001"}

dice = random.Random(1)
_numbers = itertools.count()


class Heard(msgspec.Struct):
    type: str
    ref: int = 0
    history_id: str = ""
    more: bool = False


_decode = msgspec.json.Decoder(Heard).decode


class Socket:
    """An open WebSocket of the chat.  history_id: as it was greeted with."""

    def __init__(self, site: Site, token: str, query: str = "") -> None:
        line = _line(site, site.upgrade(f"/v1/ws/chat{query}", token), is_greeted)
        self.sock = line.sock
        self._frames = Frames(line)
        self._came = deque(self._frames.take())
        self.history_id = self.hear("hello").history_id

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def say(self, frame: object) -> None:
        send(self.sock, text(msgspec.json.encode(frame)))

    def hear(self, what: str) -> Heard:
        """The next frame of that type."""
        while True:
            while self._came:
                heard = _decode(self._came.popleft())
                if heard.type == what:
                    return heard
            self._came.extend(self._frames.take(receive(self.sock)))


def _line(site: Site, request: bytes, is_answered: IsAnswered) -> Line:
    [(line, _)] = open_each(site, iter([request]), is_answered)
    line.sock.settimeout(QUIET_LIMIT_S)
    return line


@dataclass
class Subject:
    """A server with so much in its database.  heads: how far each of the person's conversations is."""

    size: int
    server: Server
    person: Person
    heads: dict[ConversationId, int]

    def __post_init__(self) -> None:
        self.site = self.server.site()
        self._talks = itertools.cycle(dice.sample(list(self.heads), min(TALKS, len(self.heads))))

    @contextmanager
    def connected(self) -> Iterator[None]:
        """With a socket to send through, and a connection to ask through."""
        self._asking = _line(self.site, self._get("/v1/conversations?limit=1"), success)
        with self._asking.sock, Socket(self.site, self.person.token) as self._socket:
            yield

    def send(self) -> None:
        """Until it is stored."""
        where, ref = next(self._talks), next(_numbers)
        self._socket.say(said(where, TEXT, ref))
        while self._socket.hear("ack").ref != ref:
            pass
        self.heads[where] += 1

    def newest(self) -> None:
        self._ask(f"/v1/messages?conversation_id={next(self._talks)}&limit={PAGE}")

    def middle(self) -> None:
        where = next(self._talks)
        before = dice.randint(1, self.heads[where])
        self._ask(f"/v1/messages?conversation_id={where}&limit={PAGE}&before_seq={before}")

    def listed(self) -> None:
        self._ask(f"/v1/conversations?limit={PAGE}")

    def first_sync(self) -> None:
        self._ask(f"/v1/conversations?limit={FIRST_SYNC}&first_sync=1")

    def resume(self) -> None:
        """A new socket that holds everything but what one conversation said last."""
        positions = dict(self.heads)
        positions[next(self._talks)] -= MISSED
        with Socket(self.site, self.person.token, "?resume=1") as socket:
            names = list(positions)
            for start in range(0, len(names), FRAME):
                part = {name: positions[name] for name in names[start : start + FRAME]}
                more = start + FRAME < len(names)
                frame = {"type": "resume", "history_id": socket.history_id, "conversations": part}
                socket.say(frame | {"more": more})
            while socket.hear("resumed").more:
                pass

    def _get(self, path: str) -> bytes:
        return self.site.request("GET", path, token=self.person.token)

    def _ask(self, path: str) -> None:
        send(self._asking.sock, self._get(path))
        answer = b""
        while not success(answer):
            answer += receive(self._asking.sock)


OPERATIONS: dict[str, tuple[Callable[[Subject], None], int]] = {  # and conversations that each is to answer
    "send a message": (Subject.send, 1),
    f"the newest {PAGE} messages": (Subject.newest, 1),
    f"{PAGE} messages before any": (Subject.middle, 1),
    f"the first {PAGE} conversations": (Subject.listed, PAGE),
    f"first sync, {FIRST_SYNC} conversations": (Subject.first_sync, FIRST_SYNC),
    f"resume, {MISSED} missed": (Subject.resume, 1),
}


async def fill(
    url: str | None, folder: Path, axis: str, size: int, pair: list[UserId]
) -> dict[ConversationId, int]:
    """How far each conversation of the first of them is. All but the last few messages are read."""
    count, messages = (1, size) if axis == "messages" else (size, OF_EACH)
    now, at_once = now_us(), max(1, ROWS // messages)
    heads: dict[ConversationId, int] = {}
    async with opened(url, folder) as db:
        for first in range(0, count, at_once):
            numbers = range(first, min(first + at_once, count))
            places = await db.write(
                start_some, pair, [now - number * MINUTE_US for number in numbers], messages
            )
            for start in range(0, messages, ROWS):
                said = range(start + 1, min(start + ROWS, messages) + 1)
                await db.write(
                    put,
                    [
                        Said(where, seq, pair[seq % 2], TEXT, last_us - (messages - seq) * SECOND_US)
                        for where, last_us in places.items()
                        for seq in said
                    ],
                )
            await db.write(end, places, messages, pair[0])
            heads |= dict.fromkeys(places, messages)
        await db.write(analyse)
    return heads


async def start_some(
    tx: Tx, pair: list[UserId], last_us: list[int], messages: int
) -> dict[ConversationId, int]:
    """When the last is said in each."""
    return {await begin(tx, "group", pair, each - messages * SECOND_US): each for each in last_us}


async def end(tx: Tx, places: Mapping[ConversationId, int], messages: int, reader: UserId) -> None:
    for where, last_us in places.items():
        await advance(tx, where, messages, last_us)
        await store.mark_read(tx, where, reader, messages - UNREAD)


@contextmanager
def subject(url: str | None, axis: str, size: int) -> Iterator[Subject]:
    """A server that was filled before its start.  url: of an empty Postgres database."""
    settings = UNLIMITED | CHEAP_PASSWORDS | STILL | ({} if url is None else {"POSTGRES__URL": url})
    with tempfile.TemporaryDirectory(prefix="secureconnect-bench-") as folder:
        with server(settings, folder) as running:
            person, friend = register(running.site(), 2)
        began = time.perf_counter()
        pair = [UserId(person.user_id), UserId(friend.user_id)]
        heads = trio.run(fill, url, Path(folder), axis, size, pair)
        print(f"  {size:,} {axis} put in: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
        with server(settings, folder) as running:
            yield Subject(size, running, person, heads)


def measure(
    subjects: Sequence[Subject], rounds: int, times: int, database_s: Callable[[], float]
) -> dict[str, list[Run]]:
    """By operation, what it took with each subject, all rounds together; what the database's processes spent
    is counted with the server's."""
    runs = {name: [Run() for _ in subjects] for name in OPERATIONS}
    for number in range(rounds + 1):
        for name, (act, _) in OPERATIONS.items():
            for each, run in zip(subjects, runs[name], strict=True):
                once = Run()
                with each.connected(), once.timed({"server": each.server.cpu_s, "database": database_s}):
                    while len(once.each_s) < (times if number else TALKS) and sum(once.each_s) < ROUND_S:
                        began = time.perf_counter()
                        act(each)
                        once.each_s.append(time.perf_counter() - began)
                if number:  # the first was for what is read once
                    run.each_s += once.each_s
                    run.spent_s = {"all": run.spent_s.get("all", 0.0) + sum(once.spent_s.values())}
        print(f"  round {number} of {rounds}", file=sys.stderr, flush=True)
    return runs


def print_table(axis: str, sizes: Sequence[int], runs: Mapping[str, Sequence[Run]]) -> None:
    columns = ("p50, p99; CPU, ms", *(f"{size:,}" for size in sizes), "growth: p50, p99; CPU")
    rows = []
    for name, of in runs.items():
        cells = [f"{run.ms(50):.2f}, {run.ms(99):.2f}; {run.us('all') / 1e3:.2f}" for run in of]
        full = OPERATIONS[name][1] if axis == "conversations" else 1
        first, last = next(run for size, run in zip(sizes, of, strict=True) if size >= full), of[-1]
        half, most = (last.ms(percent) / first.ms(percent) for percent in (50, 99))
        rows.append((name, *cells, f"{half:.2f}, {most:.2f}; {last.us('all') / max(first.us('all'), 1):.2f}"))
    table(f"{axis.capitalize()}; growth from the first that fill the answer", columns, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("database", choices=("sqlite", "postgres"))
    parser.add_argument("--axis", choices=[*AXES], action="append", help="one of them; may be repeated")
    parser.add_argument("--sizes", type=int, nargs="+", help="in place of the axis' own")
    parser.add_argument("--plot", type=Path, metavar="FOLDER", help="for a drawing of each axis, in SVG")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--times", type=int, default=40, help="that each is asked in a round")
    asked = parser.parse_args()
    os.sched_setaffinity(0, {LOAD_CORE})
    with ExitStack() as stack:
        beside = stack.enter_context(postgres()) if asked.database == "postgres" else None
        conditions(
            ("trio", "msgspec"),
            asked.rounds,
            0,
            f"{asked.times} times in each round, or as often as there is time for in a second",
            "server on core 0, load on core 1, loopback; "
            + ("Postgres 15 on core 1, its processor time in CPU" if beside else "SQLite, synchronous=FULL"),
        )
        for axis in asked.axis or AXES:
            sizes = asked.sizes or AXES[axis]
            with ExitStack() as servers:
                subjects = [
                    servers.enter_context(
                        subject(beside.url(beside.create()) if beside else None, axis, size)
                    )
                    for size in sizes
                ]
                spent = partial(postgres_cpu_s, beside) if beside else lambda: 0.0
                runs = measure(subjects, asked.rounds, asked.times, spent)
            print_table(axis, sizes, runs)
            if asked.plot is not None:
                taken = {name: [(run.ms(50), run.ms(99)) for run in of] for name, of in runs.items()}
                drawn = draw_growth(f"{axis.capitalize()}, on {asked.database}", sizes, taken)
                (asked.plot / f"growth-{axis}-{asked.database}.svg").write_text(drawn, "utf-8")


if __name__ == "__main__":
    main()
