"""Measures the signaling of calls on one node and prints Markdown tables.

    .venv/bin/python bench/calls.py                # 500 calls of two: 1,000 sockets
    .venv/bin/python bench/calls.py --calls 50 --seconds 2

How fast devices come, what each socket costs in memory, and how long a description of 4 kB takes from one
device to the other: in one call, with the others silent, and in all calls at once.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator, Sequence

import msgspec

from report import conditions, middle, table
from secureconnect.bench.people import Person, converse_each, register
from secureconnect.bench.rounds import Run, Target
from secureconnect.bench.wire import (
    EVENTS,
    QUIET_LIMIT_S,
    Faulty,
    Frames,
    Line,
    Site,
    call,
    is_upgraded,
    open_each,
    receive,
    send,
    text,
    watching,
)
from server import CHEAP_PASSWORDS, LOAD_CORE, UNLIMITED, server

SEALED = "x" * 4_000
SETTINGS = (
    UNLIMITED
    | CHEAP_PASSWORDS
    | {
        "SIGNALING__FRAMES_PER_10S": "10000",
        "SIGNALING__BYTES_PER_10S": "104857600",
        "LOG__LEVEL": "error",  # at the end a thousand devices are lost
    }
)


class Heard(msgspec.Struct):
    type: str
    peer_id: str = ""


_decode = msgspec.json.Decoder(Heard).decode


class Device:
    """One in a call.  mate: the other one."""

    def __init__(self, line: Line) -> None:
        self.mate = self
        self.peer_id = ""
        self.offered_at = 0.0
        self.took_s: list[float] = []
        self.again_until = 0.0
        self.sock = line.sock
        self._frames = Frames(line)
        self._send({"type": "join", "instance_id": "bench"})

    def offer(self) -> None:
        self.offered_at = time.perf_counter()
        self._send({"type": "offer", "target_id": self.mate.peer_id, "sealed": SEALED})

    def hear(self) -> None:
        for frame in self._frames.take(receive(self.sock)):
            heard = _decode(frame)
            if heard.type == "peers":
                self.peer_id = heard.peer_id
            elif heard.type == "offer":
                now = time.perf_counter()
                self.mate.took_s.append(now - self.mate.offered_at)
                self.mate.offered_at = 0.0
                if now < self.mate.again_until:
                    self.mate.offer()

    def _send(self, frame: object) -> None:
        send(self.sock, text(msgspec.json.encode(frame)))


def listen(devices: Sequence[Device], done: Callable[[], bool]) -> None:
    by_fd = {device.sock.fileno(): device for device in devices}
    poll = watching(by_fd)
    while not done():
        ready = poll.poll(QUIET_LIMIT_S, EVENTS)
        if not ready:
            raise Faulty(f"nothing arrived for {QUIET_LIMIT_S:.0f} s")
        for fd, _ in ready:
            by_fd[fd].hear()
    poll.close()


def begin(site: Site, calls: int) -> Iterator[tuple[Person, str]]:
    """People in calls of two, neighbours with each other, and their calls, which all have joined."""
    people = register(site, 2 * calls)
    pairs = [(people[at], people[at + 1]) for at in range(0, len(people), 2)]
    for (one, other), room in zip(pairs, converse_each(site, pairs), strict=True):
        asked = {"conversation_id": room, "call_type": "audio"}
        call_id = str(call(site, "POST", "/v1/calls/initiate", asked, one.token)["call_id"])
        call(site, "POST", f"/v1/calls/{call_id}/join", {}, other.token)
        yield from ((one, call_id), (other, call_id))


def relayed(target: Target, devices: Sequence[Device], offering: Sequence[Device], seconds: float) -> Run:
    """Each of `offering` has one description under way."""
    run = Run()
    with run.timed(target.meters):
        until = time.perf_counter() + seconds
        for device in offering:
            device.took_s.clear()
            device.again_until = until
            device.offer()
        listen(devices, lambda: not any(device.offered_at for device in offering))
    for device in offering:
        run.each_s += device.took_s
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each round")
    asked = parser.parse_args()
    os.sched_setaffinity(0, {LOAD_CORE})
    conditions(
        ("trio", "msgspec"), asked.rounds, asked.seconds, "server on core 0, load on core 1, loopback; SQLite"
    )
    sockets = str(2 * asked.calls)
    with server(SETTINGS | {"SIGNALING__SOCKETS": sockets}) as running:
        target = running.target()
        ready = list(begin(target.site, asked.calls))
        before_kb, began = running.rss_kb(), time.perf_counter()
        asks = (
            target.site.upgrade(f"/v1/ws/signaling?call_id={call_id}", person.token)
            for person, call_id in ready
        )
        lines = [line for line, _ in open_each(target.site, asks, is_upgraded)]
        devices = [Device(line) for line in sorted(lines, key=lambda line: line.number)]
        for one, other in zip(devices[::2], devices[1::2], strict=True):
            one.mate, other.mate = other, one
        listen(devices, lambda: all(device.peer_id for device in devices))
        took_s, grown_kb = time.perf_counter() - began, running.rss_kb() - before_kb
        table(
            "Devices in calls",
            ("", "measured"),
            (
                ("sockets", sockets),
                ("opened and joined", f"{len(devices) / took_s:.0f}/s"),
                ("resident memory of each", f"{grown_kb / len(devices):.1f} kB"),
            ),
        )
        rows = []
        for name, offering in (("1 call", devices[:1]), (f"{asked.calls} calls", devices[::2])):
            runs = [relayed(target, devices, offering, asked.seconds) for _ in range(asked.rounds)]
            rows.append(
                (
                    name,
                    middle([run.per_s for run in runs]),
                    middle([run.ms(50) for run in runs], 2),
                    middle([run.ms(99) for run in runs], 2),
                    middle([run.us("server") for run in runs]),
                )
            )
        table("Descriptions of 4 kB", ("", "relayed/s", "p50 ms", "p99 ms", "server CPU µs each"), rows)


if __name__ == "__main__":
    main()
