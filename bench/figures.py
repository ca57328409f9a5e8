"""The figures: each function measures one thing once, on a running server, and returns numbers."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import msgspec

from people import PASSWORD, Person, converse, register
from report import Run
from secureconnect.config import AuthConfig
from server import SERVER_CORE, Server
from wire import Requests, WebSocket, loop

TEXT = "x" * 100  # what a message says


class Heard(msgspec.Struct):
    """What the figures read of a frame."""

    type: str
    content: str = ""
    ref: str = ""


_decode = msgspec.json.Decoder(Heard).decode


@contextmanager
def sockets(
    server: Server,
    people: Iterable[Person],
    heard: Callable[[WebSocket, Heard], None],
    only: str | None = None,
) -> Iterator[list[WebSocket]]:
    """One open WebSocket for each of them, that has been greeted.  only: the conversation it carries."""
    greeted = 0

    def listen(socket: WebSocket, frame: bytes) -> None:
        nonlocal greeted
        event = _decode(frame)
        if event.type == "hello":
            greeted += 1
        elif event.type == "error":
            raise RuntimeError(frame.decode())
        else:
            heard(socket, event)

    path = "/v1/ws/chat" if only is None else f"/v1/ws/chat?conversation_id={only}"
    opened: list[WebSocket] = []
    try:
        for person in people:
            opened.append(WebSocket(server.port, person.token, listen, path))
        loop(opened, lambda: greeted == len(opened))
        yield opened
    finally:
        for socket in opened:
            socket.close()


class Pairs:
    """People who talk in twos; the first `writers` of them write, one message under way each."""

    def __init__(self, server: Server, writers: int) -> None:
        self._server = server
        self._people = [register(server.port) for _ in range(max(2, writers))]
        self._talks: list[str] = []  # of each writer
        for pair in zip(self._people[::2], self._people[1::2], strict=True):
            self._talks += [converse(server.port, list(pair))] * 2
        del self._talks[writers:]
        self._ids = (f"bench-{os.getpid()}-{number}" for number in itertools.count())

    def over_websocket(self, seconds: float) -> Run:
        """All of them connected; the clock of a message stops at its ack."""
        run = Run()
        sent: dict[str, float] = {}
        until = 0.0

        def say(socket: WebSocket) -> None:
            message_id = next(self._ids)
            sent[message_id] = time.perf_counter()
            message = self._message(talk_of[socket], message_id)
            socket.send({"type": "chat", "ref": message_id, **message})

        def heard(socket: WebSocket, event: Heard) -> None:
            if event.type == "ack":
                now = time.perf_counter()
                run.each_s.append(now - sent.pop(event.ref))
                if now < until:
                    say(socket)

        def volley() -> None:
            for socket in talk_of:
                say(socket)
            loop(opened, lambda: not sent)

        with sockets(self._server, self._people, heard) as opened:
            talk_of = dict(zip(opened, self._talks, strict=False))
            volley()  # the first message of a conversation is not the one that is measured
            run.each_s.clear()
            with run.timed(self._server):
                until = time.perf_counter() + seconds
                volley()
        return run

    def over_rest(self, seconds: float) -> Run:
        """One keep-alive connection each; nobody listens."""
        askers = [
            (person.token, lambda talk=talk: self._message(talk, next(self._ids)))
            for person, talk in zip(self._people, self._talks, strict=False)
        ]
        return posts(self._server, "/v1/messages", askers, status=201, seconds=seconds)

    def _message(self, talk: str, message_id: str) -> dict[str, str]:
        return {
            "conversation_id": talk,
            "client_message_id": message_id,
            "content": TEXT,
            "message_type": "text",
        }


def logins(server: Server, people: Sequence[Person], clients: int, seconds: float) -> Run:
    """Sign-ins of these people, `clients` under way at any time."""
    turn = itertools.cycle(people)

    def login() -> object:
        return {"username": next(turn).username, "password": PASSWORD}

    return posts(server, "/v1/auth/login", [(None, login)] * clients, status=200, seconds=seconds)


def posts(
    server: Server,
    path: str,
    askers: Sequence[tuple[str | None, Callable[[], object]]],
    *,
    status: int,
    seconds: float,
) -> Run:
    """Each asker (its token, and what makes its next body) asks again as soon as it is answered."""
    run = Run()
    until = 0.0

    def while_time(body: Callable[[], object]) -> Callable[[], object | None]:
        return lambda: body() if time.perf_counter() < until else None

    connections = [
        Requests(server.port, path, token, while_time(body), run.each_s.append, status)
        for token, body in askers
    ]
    with run.timed(server):
        until = time.perf_counter() + seconds
        for connection in connections:
            connection.ask()
        loop(connections, lambda: all(connection.idle for connection in connections))
    for connection in connections:
        connection.close()
    return run


class Room:
    """A group whose members are all connected, with sockets for this group alone: the news of a thousand
    people who come online to each other is not what is measured here."""

    def __init__(self, server: Server, people: list[Person]) -> None:
        self._server, self._people = server, people
        self._talk = converse(server.port, people)

    def delivered(self, seconds: float, under_way: int) -> Run:
        """The first member writes, with so many messages not yet delivered to all; an operation is one
        message reaching one member, from its sending on."""
        run = Run()
        missing: dict[int, int] = {}  # number of a message → members it has not reached
        sent: list[float] = []
        until = 0.0

        def say() -> None:
            number = len(sent)
            missing[number] = len(self._people)
            sent.append(time.perf_counter())
            opened[0].send(
                {
                    "type": "chat",
                    "conversation_id": self._talk,
                    "client_message_id": f"bench-{os.getpid()}-{next(_numbers)}",
                    "content": f"{number} {TEXT}",
                    "message_type": "text",
                }
            )

        def heard(_: WebSocket, event: Heard) -> None:
            if event.type != "chat":
                return
            number = int(event.content.partition(" ")[0])
            now = time.perf_counter()
            run.each_s.append(now - sent[number])
            missing[number] -= 1
            if not missing[number]:
                del missing[number]
                if now < until:
                    say()

        with sockets(self._server, self._people, heard, self._talk) as opened:
            say()
            loop(opened, lambda: not missing)  # the room's members are read now, and not when it counts
            run.each_s.clear()
            with run.timed(self._server):
                until = time.perf_counter() + seconds
                for _ in range(under_way):
                    say()
                loop(opened, lambda: not missing)
        return run


_numbers = itertools.count()


def kb_per_socket(server: Server, people: Sequence[Person], each: int) -> float:
    """Resident memory of one idle WebSocket: `each` of every person, all of them greeted."""
    with sockets(server, people, lambda *_: None):  # what the first ones cost once is not counted
        pass
    before_kb = server.rss_kb()
    with sockets(server, [person for person in people for _ in range(each)], lambda *_: None) as opened:
        return (server.rss_kb() - before_kb) / len(opened)


_BARE = """
import os, sys, threading, time
import argon2
hasher = argon2.PasswordHasher(time_cost=int(sys.argv[1]), memory_cost=int(sys.argv[2]), parallelism=1)
known = hasher.hash("correct horse battery staple")
began, done = time.perf_counter(), []
def verify():
    while time.perf_counter() - began < float(sys.argv[3]):
        hasher.verify(known, "correct horse battery staple")
        done.append(1)
threads = [threading.Thread(target=verify) for _ in range(os.cpu_count())]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(done) / (time.perf_counter() - began))
"""


def bare_argon2_per_s(seconds: float) -> float:
    """Verifications on the server's core, with its parameters and as many threads as it would use."""
    cost = AuthConfig()
    arguments = (str(cost.argon2_time_cost), str(cost.argon2_memory_kib), str(seconds))
    done = subprocess.run(
        (sys.executable, "-c", _BARE, *arguments),
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}),
    )
    return float(done.stdout)
