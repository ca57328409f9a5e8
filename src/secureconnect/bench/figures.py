"""The figures: each function measures one thing once, on a running server."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import msgspec

from .asking import keep_asking, success
from .crowd import Crowd
from .people import Person, converse, converse_each, sign_in
from .rounds import Run, Target
from .talking import TEXT, Talk, message, said
from .wire import Faulty, Line, first_text, is_greeted, is_whole, open_each, opened, text

FILLING = 64  # messages under way while a room is filled


def sockets(
    target: Target, people: Iterable[Person], path: str = "/v1/ws/chat"
) -> AbstractContextManager[list[Line]]:
    """One open WebSocket for each of them, that has been greeted."""
    site = target.site
    return opened(site, (site.upgrade(path, person.token) for person in people), is_greeted)


class Pairs:
    """People who talk in rooms of two; the first `writers` of them write."""

    def __init__(self, target: Target, people: Sequence[Person], writers: int, title: str = "bench") -> None:
        self._target, self._people = target, people
        pairs = [people[at : at + 2] for at in range(0, len(people), 2)]
        self.rooms = converse_each(target.site, pairs, title)
        self._room_of = [room for room in self.rooms for _ in range(2)][:writers]

    def over_websocket(self, seconds: float, under_way: int = 1, most: float = math.inf) -> Run:
        """All of them connected, each writer with so many messages not yet acknowledged."""
        with sockets(self._target, self._people) as lines:
            talk = Talk(self._target, lines, self._room_of)
            talk.keep_under_way(1, 0)  # the first message of a conversation is not the one that is measured
            talk.run = Run()
            talk.keep_under_way(under_way, seconds, most)
            return talk.run

    def over_rest(self, seconds: float) -> Run:
        """One keep-alive connection each; nobody listens."""
        writers = [person.token for person, _ in zip(self._people, self._room_of, strict=False)]

        def ask(number: int) -> bytes:
            body = message(self._room_of[number])
            return self._target.site.request("POST", "/v1/messages", body, writers[number])

        return asked(self._target, ask, len(writers), seconds)


class Room:
    """A group whose members are all connected, with sockets for this group alone: the news of a thousand
    people who come online to each other is not what is measured here. The first member writes, but for
    `fill`."""

    def __init__(self, target: Target, people: Sequence[Person], title: str = "bench") -> None:
        self._target, self._people = target, people
        self.conversation = converse(target.site, people, title)

    def saturated(self, seconds: float, under_way: int, most: float = math.inf) -> Run:
        """So many messages not yet delivered to all."""
        with self._crowd() as crowd:
            crowd.keep_under_way(under_way, seconds, most)
        return crowd.run

    def paced(self, seconds: float, per_s: float) -> tuple[Run, float]:
        """So many messages a second; and the share of the deliveries that were made in time."""
        with self._crowd() as crowd:
            crowd.keep_pace(per_s, seconds)
        return crowd.run, crowd.share

    def frame_bytes(self) -> int:
        """Of what a member is sent for a message."""
        with self._crowd() as crowd:
            crowd.keep_under_way(1, 0)
            return crowd.text_bytes

    def fill(self, messages: int) -> None:
        """All members write in turn."""
        with self._crowd(len(self._people)) as crowd:
            crowd.keep_under_way(FILLING, math.inf, messages)

    @contextmanager
    def _crowd(self, writers: int = 1) -> Iterator[Crowd]:
        path = f"/v1/ws/chat?conversation_id={self.conversation}"
        with sockets(self._target, self._people, path) as lines:
            Crowd(self._target, lines, self._make).keep_under_way(1, 0)  # the room's members are read now
            lines = [Line(line.number, line.sock, b"") for line in lines]  # what came with the answer is read
            crowd = Crowd(self._target, lines, self._make, writers)
            yield crowd
            crowd.check(self._number)

    def _make(self, number: int) -> bytes:
        return text(msgspec.json.encode(said(self.conversation, f"{number:09d} {TEXT}")))

    def _number(self, frame: bytes) -> int:
        heard = _decode_heard(frame)
        number, _, rest = heard.content.partition(" ")
        if heard.conversation_id != self.conversation or rest != TEXT:
            raise Faulty(f"a member was sent what nobody said: {frame!r}")
        return int(number)


def come_back(target: Target, people: Iterable[Person]) -> Run:
    """A socket for each of them, which resumes: from its connecting until it is told how its conversations
    stand. They stay open until all have come."""
    run, lines = Run(), []
    site = target.site
    asks = (site.upgrade("/v1/ws/chat?resume=1", person.token) for person in people)
    try:
        with run.timed(target.meters):
            for line, took_s in open_each(site, asks, is_greeted, then=(_resume, _is_resumed)):
                lines.append(line)
                run.each_s.append(took_s)
    finally:
        for line in lines:
            line.sock.close()
    return run


def _resume(answer: bytes) -> bytes:
    hello = msgspec.json.decode(first_text(answer))
    asked = {"type": "resume", "history_id": hello["history_id"], "conversations": {}}
    return text(msgspec.json.encode(asked))


def _is_resumed(answer: bytes) -> bool:
    return b'{"type":"resumed"' in answer


class _Heard(msgspec.Struct):
    conversation_id: str
    content: str


_decode_heard = msgspec.json.Decoder(_Heard).decode


def logins(target: Target, people: Sequence[Person], clients: int, seconds: float) -> Run:
    """Sign-ins of these people, `clients` under way at any time."""
    turn = itertools.cycle(people)

    def ask(_: int) -> bytes:
        person = next(turn)
        return sign_in(target.site, person.username, person.password)

    return asked(target, ask, clients, seconds)


def gets(target: Target, path: str, tokens: Sequence[str], connections: int, seconds: float) -> Run:
    """The same question, by these people in turn."""
    requests = [target.site.request("GET", path, token=token) for token in tokens]
    return asked(target, lambda number: requests[number % len(requests)], connections, seconds)


def asked(target: Target, ask: Callable[[int], bytes], connections: int, seconds: float) -> Run:
    site = target.site
    with opened(site, [site.request("GET", "/livez")] * connections, is_whole) as lines:
        return keep_asking(target, lines, ask, success, seconds)
