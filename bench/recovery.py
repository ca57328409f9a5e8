"""A server that is killed while thousands are connected, and how long it takes until all have resumed.

    PYTHONPATH=src .venv/bin/python bench/recovery.py                    # 5,000 sockets of 1,000 people
    PYTHONPATH=src .venv/bin/python bench/recovery.py --people 100 --each 5 --rounds 1

People in groups of ten, each in ten of them; some write. The server is ended by SIGKILL in the middle of
that and started again at once, on its data folder and port, with every limit as it is by default. Clients do
as the web client does: they come back after 0.25 s, half of that to one and a half, twice as long after each
failure; resume from the last change they hold; and send again what was not acknowledged. Whatever was
acknowledged must have reached every socket of every member once: else there is an error and no figure.
"""

from __future__ import annotations

import argparse
import errno
import gc
import heapq
import itertools
import os
import random
import resource
import select
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import msgspec

from report import conditions, middle, table
from secureconnect.bench.people import Person, converse_each, register
from secureconnect.bench.rounds import quantile_s
from secureconnect.bench.talking import said
from secureconnect.bench.wire import (
    BUFFER_BYTES,
    EVENTS,
    Closed,
    Faulty,
    Frames,
    Line,
    Site,
    is_upgraded,
    text,
)
from secureconnect.client.answers import ApiError
from server import CHEAP_PASSWORDS, LOAD_CORE, UNLIMITED, Server, server

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 20.0
OPENED_PER_S = 500  # when all come for the first time
GROUP, GROUPS_OF_EACH = 10, 10
WRITERS = 50
SAY_EVERY_S = 0.5  # each of them
WRITTEN_S = 3.0  # for so long, until the server is killed
LIMIT_S = 60.0
SETTLED_S, SETTLE_LIMIT_S = 1.0, 120.0

dice = random.Random(1)


class Chat(msgspec.Struct):
    conversation_id: str
    change: int
    client_message_id: str


class Standing(msgspec.Struct):
    change: int


class Told(msgspec.Struct):
    """What else is read of a frame."""

    type: str
    ref: int | str = 0  # a notification names what it is about
    status: str = ""
    code: str = ""
    history_id: str = ""
    conversations: dict[str, Standing] = msgspec.field(default_factory=dict)
    more: bool = False


_chat, _told = msgspec.json.Decoder(Chat).decode, msgspec.json.Decoder(Told).decode
_CHAT, _PRESENCE = b'{"type":"chat"', b'{"type":"presence"'
_numbers = itertools.count()


class Client:
    """One socket of a person that comes back whenever it is lost.

    positions: the last change it holds of each conversation.  heard: how often, by client_message_id.
    unacknowledged: by ref.
    """

    def __init__(self, storm: Storm, person: Person) -> None:
        self.person = person
        self.positions: dict[str, int] = {}
        self.heard: Counter[str] = Counter()
        self.unacknowledged: dict[int | str, dict[str, object]] = {}
        self.is_live = False
        self.live_at = 0.0
        self._storm = storm
        self._pause_s = FIRST_PAUSE_S
        self._sock: socket.socket | None = None
        self._frames: Frames | None = None
        self._head = b""

    def come(self) -> None:
        self._sock = sock = socket.socket(self._storm.site.family)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._frames, self._head = None, b""
        sock.connect_ex(self._storm.site.address)
        self._storm.watch(sock, self, select.EPOLLOUT)

    def ready(self, events: int) -> None:
        """Its socket can be read or written."""
        assert self._sock is not None
        try:
            if events & select.EPOLLOUT:
                if number := self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise OSError(number, os.strerror(number))
                self._sock.send(self._storm.site.upgrade("/v1/ws/chat?resume=1", self.person.token))
                self._storm.watch(self._sock, self, select.EPOLLIN)
                return
            data = self._sock.recv(BUFFER_BYTES)
            if not data:
                raise ConnectionResetError(errno.ECONNRESET, "ended")
            for each in self._take(data):
                self._hear(each)
        except OSError as exc:
            self._lose(errno.errorcode.get(exc.errno or 0, "closed"))
        except (ApiError, Closed) as exc:
            self._lose(str(exc.code))

    def say(self, where: str) -> None:
        ref = next(_numbers)
        self.unacknowledged[ref] = said(where, ref=ref)
        self._storm.said.append((where, str(self.unacknowledged[ref]["client_message_id"])))
        self._send(self.unacknowledged[ref])

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()

    def _take(self, data: bytes) -> list[bytes]:
        if self._frames is not None:
            return self._frames.take(data)
        self._head += data
        if not is_upgraded(self._head):
            return []
        assert self._sock is not None
        self._frames = Frames(Line(0, self._sock, self._head))
        return self._frames.take()

    def _hear(self, frame: bytes) -> None:
        if frame.startswith(_CHAT):
            chat = _chat(frame)
            self.positions[chat.conversation_id] = chat.change
            self.heard[chat.client_message_id] += 1
        elif not frame.startswith(_PRESENCE):
            self._deal_with(_told(frame))

    def _deal_with(self, told: Told) -> None:
        if told.type == "hello":
            positions = {"history_id": told.history_id, "conversations": self.positions}
            self._send({"type": "resume", **positions})
        elif told.type == "resumed":
            self.positions |= {name: each.change for name, each in told.conversations.items()}
            if not told.more:
                self._resumed()
        elif told.type == "ack":
            if told.status != "stored":
                raise Faulty(f"a message is {told.status} and not stored")
            del self.unacknowledged[told.ref]
        elif told.type == "gap":
            raise Faulty("something was missed")

    def _resumed(self) -> None:
        self._pause_s = FIRST_PAUSE_S
        self.is_live, self.live_at = True, time.perf_counter()
        self._storm.live += 1
        for each in self.unacknowledged.values():
            self._send(each)

    def _send(self, frame: object) -> None:
        if self._sock is not None:
            self._sock.send(text(msgspec.json.encode(frame)))

    def _lose(self, why: str) -> None:
        self._storm.lost[why] += 1
        self._storm.live -= self.is_live
        self.is_live = False
        assert self._sock is not None
        self._storm.forget(self._sock)
        self._sock = None
        self._storm.at(time.perf_counter() + self._pause_s * (0.5 + dice.random()), self.come)
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)


class Storm:
    """All the clients.  live: how many are.  lost: connections that ended or never began, by why.  said:
    where, and its client_message_id."""

    def __init__(self, site: Site, people: Sequence[Person], each: int) -> None:
        self.site = site
        self.live = 0
        self.lost: Counter[str] = Counter()
        self.said: list[tuple[str, str]] = []
        self.clients = [Client(self, person) for person in people for _ in range(each)]
        self._by_fd: dict[int, Client] = {}
        self._poll = select.epoll()
        self._due: list[tuple[float, int, Callable[[], None]]] = []

    def watch(self, sock: socket.socket, client: Client, events: int) -> None:
        fd = sock.fileno()
        if fd in self._by_fd:
            self._poll.modify(fd, events)
        else:
            self._poll.register(fd, events)
        self._by_fd[fd] = client

    def forget(self, sock: socket.socket) -> None:
        self._by_fd.pop(sock.fileno())
        self._poll.unregister(sock.fileno())
        sock.close()

    def at(self, due: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._due, (due, next(_numbers), act))

    def run(self, is_done: Callable[[], bool], limit_s: float = LIMIT_S) -> None:
        until = time.perf_counter() + limit_s
        while not is_done():
            now = time.perf_counter()
            if now > until:
                raise Faulty(f"after {limit_s:.0f} s {self.live} are live; lost: {dict(self.lost)}")
            wait_s = max(0.0, min(self._due[0][0] - now if self._due else 0.1, 0.1))
            for fd, events in self._poll.poll(wait_s, EVENTS):
                if client := self._by_fd.get(fd):
                    client.ready(events)
            while self._due and self._due[0][0] <= time.perf_counter():
                heapq.heappop(self._due)[2]()

    def all_live(self) -> bool:
        return self.live == len(self.clients)

    def open_all(self) -> None:
        now = time.perf_counter()
        for number, client in enumerate(self.clients):
            self.at(now + number / OPENED_PER_S, client.come)
        self.run(self.all_live)

    def settle(self, running: Server) -> None:
        """Until the server has nothing left to do: everybody is told who else came."""
        until = time.perf_counter() + SETTLE_LIMIT_S
        spent_s = SETTLED_S
        while spent_s >= SETTLED_S / 10 and time.perf_counter() < until:
            before_s, next_look = running.cpu_s(), time.perf_counter() + SETTLED_S
            self.run(lambda due=next_look: time.perf_counter() >= due)  # type: ignore[misc]
            spent_s = running.cpu_s() - before_s

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self._poll.close()

    # what is said

    def write(self, writers: Sequence[tuple[Client, str]], seconds: float) -> None:
        """Each says something every now and then, if it is live."""
        until = time.perf_counter() + seconds

        def say(client: Client, where: str) -> None:
            if time.perf_counter() < until:
                if client.is_live:
                    client.say(where)
                self.at(time.perf_counter() + SAY_EVERY_S, lambda: say(client, where))

        for client, where in writers:
            self.at(time.perf_counter() + SAY_EVERY_S * dice.random(), lambda c=client, w=where: say(c, w))  # type: ignore[misc]
        self.run(lambda: time.perf_counter() >= until)

    def check(self, members: dict[str, set[str]]) -> int:
        """Wait for all that was said. Returns how many deliveries that were. Raises Faulty."""
        self.run(lambda: not any(client.unacknowledged for client in self.clients))
        due: dict[str, set[str]] = {}  # person → what must have reached them
        for where, name in self.said:
            for person in members[where]:
                due.setdefault(person, set()).add(name)
        wanted = sum(len(due.get(client.person.user_id, ())) for client in self.clients)
        self.run(lambda: sum(len(client.heard) for client in self.clients) >= wanted)
        for client in self.clients:
            if client.heard != dict.fromkeys(due.get(client.person.user_id, ()), 1):
                raise Faulty(f"not each message once: {client.heard.most_common(3)}")
            client.heard.clear()
        self.said.clear()
        return wanted


def recover(
    storm: Storm, running: Server, restart: Callable[[], Server], writers: list[tuple[Client, str]]
) -> tuple[Server, dict[str, float]]:
    """Kill it while they write, and start it again."""
    storm.write(writers, WRITTEN_S)
    storm.lost.clear()
    for client, where in writers:
        client.say(where)  # on their way when it dies
    killed = time.perf_counter()
    os.kill(running.pid, signal.SIGKILL)
    with ThreadPoolExecutor(1) as beside:
        starting = beside.submit(restart)
        storm.run(starting.done)
        running, ready = starting.result(), time.perf_counter()
        before_s, load_s = running.cpu_s(), time.process_time()
        storm.run(storm.all_live)
    back = [client.live_at - killed for client in storm.clients]
    spent_s, load_s = running.cpu_s() - before_s, time.process_time() - load_s
    return running, {
        "ready": ready - killed,
        "half": quantile_s(back, 50),
        "last": max(back),
        "cpu_us": spent_s * 1e6 / len(back),
        "load": 100 * load_s / (max(back) - (ready - killed)),
        "refused": float(storm.lost["ECONNREFUSED"]),
        "else": float(sum(storm.lost.values()) - storm.lost["ECONNREFUSED"] - len(back)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--people", type=int, default=1_000)
    parser.add_argument("--each", type=int, default=5, help="sockets of each")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    os.sched_setaffinity(0, {LOAD_CORE})
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # the server inherits it
    gc.disable()  # the load makes no cycles worth a pause
    with tempfile.TemporaryDirectory(prefix="secureconnect-bench-") as folder, ExitStack() as stack:
        with server(UNLIMITED | CHEAP_PASSWORDS, folder) as running:
            site, port = running.site(), running.port
            people = register(site, asked.people)
            groups = [
                mixed[start : start + GROUP]
                for mixed in (dice.sample(people, len(people)) for _ in range(GROUPS_OF_EACH))
                for start in range(0, len(people), GROUP)
            ]
            names = converse_each(site, groups)
        members = {name: {each.user_id for each in group} for name, group in zip(names, groups, strict=True)}
        measure(stack, folder, port, people, members, asked.each, asked.rounds)


def measure(
    stack: ExitStack,
    folder: str,
    port: int,
    people: list[Person],
    members: dict[str, set[str]],
    each: int,
    rounds: int,
) -> None:
    def start() -> Server:
        return stack.enter_context(server({"LOG__LEVEL": "warning"}, folder, port))

    running = start()
    storm = Storm(running.site(), people, each)
    stack.callback(storm.close)
    before_kb = running.rss_kb()
    storm.open_all()
    storm.settle(running)
    socket_kb = (running.rss_kb() - before_kb) / len(storm.clients)
    print(f"  {storm.live} sockets open, {socket_kb:.1f} kB each", file=sys.stderr, flush=True)
    conditions(
        ("trio", "msgspec"),
        rounds,
        0,
        "server on core 0, load on core 1, loopback; SQLite; every setting but the log's as it is by default",
        f"{len(people):,} people in {len(members):,} groups of {GROUP}; {WRITERS} of them write every"
        f" {SAY_EVERY_S:g} s",
    )
    first = {person: client for client in storm.clients for person in (client.person.user_id,)}
    writers = [(first[next(iter(of))], where) for where, of in itertools.islice(members.items(), WRITERS)]
    told: list[dict[str, float]] = []
    deliveries = 0
    for number in range(1, rounds + 1):
        running, figures = recover(storm, running, start, writers)
        deliveries += storm.check(members)
        storm.settle(running)
        print(f"  round {number} of {rounds}: {figures}", file=sys.stderr, flush=True)
        told.append(figures)

    def row(what: str, figure: str, digits: int = 0, unit: str = "") -> tuple[str, str]:
        return what, middle([each[figure] for each in told], digits, unit)

    table(
        f"{len(storm.clients):,} sockets, and a server that is killed",
        ("", "measured"),
        (
            ("resident memory of an idle socket", f"{socket_kb:.1f} kB"),
            row("killed to ready again", "ready", 2, " s"),
            row("killed to half of them resumed", "half", 2, " s"),
            row("killed to all of them resumed", "last", 2, " s"),
            row("server CPU for each that resumed", "cpu_us", 0, " µs"),
            row("load CPU meanwhile, of its core", "load", 0, " %"),
            row("connections refused while there was no server", "refused"),
            row("connections that failed otherwise", "else"),
            ("deliveries of what was acknowledged, each once", f"{deliveries:,}"),
        ),
    )


if __name__ == "__main__":
    main()
