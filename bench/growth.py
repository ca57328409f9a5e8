"""Whether sending and reading stay what they are while what is stored grows.

    PYTHONPATH=src:tests .venv/bin/python bench/growth.py sqlite
    PYTHONPATH=src:tests .venv/bin/python bench/growth.py postgres            # Debian's, started for this
    PYTHONPATH=src:tests .venv/bin/python bench/growth.py sqlite --axis messages --sizes 1000 100000

Each size is a database of its own: one conversation of so many messages, or so many conversations of one
person with 20 messages each, the last said one a minute. All the servers stand at the same time on core 0 and
are asked in turns, one request after the other, so that a noisy machine harms all sizes alike. Indexing for
search and notifying stand still: what they take is measured elsewhere.

Markdown on stdout; `--plot` names a folder for a picture of each axis.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import trio

from databases import postgres, postgres_cpu_s
from people import Person, register
from report import Run, conditions, table
from secureconnect.chat import store
from secureconnect.clock import MINUTE_US, SECOND_US, now_us
from secureconnect.deps.contracts import Tx
from secureconnect.identity import ConversationId, UserId
from seed import ROWS, Line, advance, analyse, begin, opened, put
from server import CHEAP_PASSWORDS, LOAD_CORE, UNLIMITED, Server, server
from wire import QUIET_LIMIT_S, WebSocket, headers_with, loop

AXES: dict[str, tuple[int, ...]] = {
    "messages": (1_000, 10_000, 100_000, 1_000_000),
    "conversations": (10, 100, 1_000, 10_000),
}
OF_EACH = 20  # messages of each conversation where those are many
PAGE = 50  # messages, and conversations, asked for at once
MISSED = 10  # by a socket that resumes
FRAME = 1_000  # conversations named in one frame of a resume
UNREAD = 5
TEXT = "a message of a common length, such as people write them"
STILL = {"CHAT__SEARCH_PASS_S": "3600", "CHAT__NOTIFY_PASS_S": "3600", "CHAT__BACKGROUND_SHARE": "0.001"}

dice = random.Random(1)
_numbers = itertools.count()


class Heard(msgspec.Struct):
    type: str
    ref: str = ""
    history_id: str = ""
    more: bool = False


_decode = msgspec.json.Decoder(Heard).decode


@dataclass
class Subject:
    """A server with so much in its database.  heads: how far each of the person's conversations is."""

    size: int
    server: Server
    person: Person
    heads: dict[ConversationId, int]

    def __post_init__(self) -> None:
        self.talks = list(self.heads)
        self._http = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=QUIET_LIMIT_S)
        self._acked = self._history = ""
        self._resumed = True

    @contextmanager
    def connected(self) -> Iterator[None]:
        """With a socket to send through."""
        self._history = ""
        self._socket = self._connect("")
        try:
            loop([self._socket], lambda: bool(self._history))
            yield
        finally:
            self._socket.close()
            self._http.close()

    def send(self) -> None:
        """Until it is stored."""
        where, ref = dice.choice(self.talks), f"bench-{os.getpid()}-{next(_numbers)}"
        self._socket.send(
            {"type": "chat", "ref": ref, "client_message_id": ref, "conversation_id": where, "content": TEXT}
            | {"message_type": "text"}
        )
        loop([self._socket], lambda: self._acked == ref)
        self.heads[where] += 1

    def newest(self) -> None:
        self._get(f"/v1/messages?conversation_id={dice.choice(self.talks)}&limit={PAGE}")

    def middle(self) -> None:
        where = dice.choice(self.talks)
        before = dice.randint(1, self.heads[where])
        self._get(f"/v1/messages?conversation_id={where}&limit={PAGE}&before_seq={before}")

    def listed(self) -> None:
        self._get(f"/v1/conversations?limit={PAGE}")

    def first_sync(self) -> None:
        self._get("/v1/conversations?limit=100&first_sync=1")

    def resume(self) -> None:
        """A new socket that holds everything but what one conversation said last."""
        positions = dict(self.heads)
        positions[dice.choice(self.talks)] -= MISSED
        self._resumed = False
        socket = self._connect("?resume=1")
        for start in range(0, len(positions), FRAME):
            part = dict(list(positions.items())[start : start + FRAME])
            more = start + FRAME < len(positions)
            socket.send({"type": "resume", "history_id": self._history, "conversations": part, "more": more})
        loop([socket], lambda: self._resumed)
        socket.close()

    def _connect(self, query: str) -> WebSocket:
        return WebSocket(self.server.port, self.person.token, self._hear, f"/v1/ws/chat{query}")

    def _hear(self, _: WebSocket, frame: bytes) -> None:
        heard = _decode(frame)
        if heard.type == "hello":
            self._history = heard.history_id
        elif heard.type == "ack":
            self._acked = heard.ref
        elif heard.type == "resumed":
            self._resumed = not heard.more
        elif heard.type in ("error", "gap"):
            raise RuntimeError(frame.decode())

    def _get(self, path: str) -> None:
        self._http.request("GET", path, headers=headers_with(self.person.token))
        answer = self._http.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {body.decode()}")


OPERATIONS: dict[str, Callable[[Subject], None]] = {
    "send a message": Subject.send,
    f"the newest {PAGE} messages": Subject.newest,
    f"{PAGE} messages before any": Subject.middle,
    f"the first {PAGE} conversations": Subject.listed,
    "first sync, 100 conversations": Subject.first_sync,
    f"resume, {MISSED} missed": Subject.resume,
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
            places = {
                await db.write(begin, "group", pair, last_us - messages * SECOND_US): last_us
                for last_us in (
                    now - number * MINUTE_US for number in range(first, min(first + at_once, count))
                )
            }
            for start in range(0, messages, ROWS):
                said = range(start + 1, min(start + ROWS, messages) + 1)
                await db.write(
                    put,
                    [
                        Line(where, seq, pair[seq % 2], TEXT, last_us - (messages - seq) * SECOND_US)
                        for where, last_us in places.items()
                        for seq in said
                    ],
                )
            await db.write(end, places, messages, pair[0])
            heads |= dict.fromkeys(places, messages)
        await db.write(analyse)
    return heads


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
            person, friend = register(running.port), register(running.port)
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
        for name, act in OPERATIONS.items():
            for each, run in zip(subjects, runs[name], strict=True):
                once, before_s = Run(), database_s()
                with each.connected(), once.timed(each.server):
                    for _ in range(times if number else 2):
                        began = time.perf_counter()
                        act(each)
                        once.each_s.append(time.perf_counter() - began)
                if number:  # the first was for what is read once
                    run.each_s += once.each_s
                    run.cpu_s += once.cpu_s + database_s() - before_s
        print(f"  round {number} of {rounds}", file=sys.stderr, flush=True)
    return runs


def print_table(axis: str, sizes: Sequence[int], runs: Mapping[str, Sequence[Run]]) -> None:
    columns = ("p50, p99; CPU, ms", *(f"{size:,}" for size in sizes), "last ÷ first: p50, p99; CPU")
    rows = []
    for name, of in runs.items():
        cells = [f"{run.ms(50):.2f}, {run.ms(99):.2f}; {run.cpu_us / 1e3:.2f}" for run in of]
        first, last = of[0], of[-1]
        half, most = (last.ms(percent) / first.ms(percent) for percent in (50, 99))
        rows.append((name, *cells, f"{half:.2f}, {most:.2f}; {last.cpu_us / first.cpu_us:.2f}"))
    table(f"{axis.capitalize()}", columns, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("database", choices=("sqlite", "postgres"))
    parser.add_argument("--axis", choices=[*AXES], action="append", help="one of them; may be repeated")
    parser.add_argument("--sizes", type=int, nargs="+", help="in place of the axis' own")
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
            f"{asked.times} times in each round",
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
                print_table(axis, sizes, measure(subjects, asked.rounds, asked.times, spent))


if __name__ == "__main__":
    main()
