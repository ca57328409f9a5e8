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
from collections.abc import Iterator

import msgspec

from people import Person, converse, register
from report import Run, conditions, middle, table
from server import CHEAP_PASSWORDS, LOAD_CORE, UNLIMITED, Server, server
from wire import WebSocket, call, loop

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

    def __init__(self, port: int, person: Person, call_id: str) -> None:
        self.mate = self
        self.peer_id = ""
        self.offered_at = 0.0
        self.took_s: list[float] = []
        self.again_until = 0.0
        self.socket = WebSocket(port, person.token, self._hear, f"/v1/ws/signaling?call_id={call_id}")
        self.socket.send({"type": "join", "instance_id": "bench"})

    def offer(self) -> None:
        self.offered_at = time.perf_counter()
        self.socket.send({"type": "offer", "target_id": self.mate.peer_id, "sealed": SEALED})

    def _hear(self, _: WebSocket, frame: bytes) -> None:
        heard = _decode(frame)
        if heard.type == "peers":
            self.peer_id = heard.peer_id
        elif heard.type == "offer":
            now = time.perf_counter()
            self.mate.took_s.append(now - self.mate.offered_at)
            self.mate.offered_at = 0.0
            if now < self.mate.again_until:
                self.mate.offer()
        elif heard.type == "error":
            raise RuntimeError(frame.decode())


def pairs(port: int, calls: int) -> Iterator[tuple[Person, Person, str]]:
    """People who talk in twos, and their calls, which all have joined."""
    for _ in range(calls):
        one, other = register(port), register(port)
        asked = {"conversation_id": converse(port, [one, other]), "call_type": "audio"}
        call_id = str(call(port, "POST", "/v1/calls/initiate", asked, one.token)["call_id"])
        call(port, "POST", f"/v1/calls/{call_id}/join", {}, other.token)
        yield one, other, call_id


def relayed(running: Server, devices: list[Device], offering: list[Device], seconds: float) -> Run:
    """Each of `offering` has one description under way."""
    run = Run()
    sockets = [device.socket for device in devices]
    with run.timed(running):
        until = time.perf_counter() + seconds
        for device in offering:
            device.took_s.clear()
            device.again_until = until
            device.offer()
        loop(sockets, lambda: not any(device.offered_at for device in offering))
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
        ready = list(pairs(running.port, asked.calls))
        before_kb, began = running.rss_kb(), time.perf_counter()
        devices: list[Device] = []
        for one, other, call_id in ready:
            both = Device(running.port, one, call_id), Device(running.port, other, call_id)
            both[0].mate, both[1].mate = both[1], both[0]
            devices += both
        loop([device.socket for device in devices], lambda: all(device.peer_id for device in devices))
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
            runs = [relayed(running, devices, offering, asked.seconds) for _ in range(asked.rounds)]
            rows.append(
                (
                    name,
                    middle([run.per_s for run in runs]),
                    middle([run.ms(50) for run in runs], 2),
                    middle([run.ms(99) for run in runs], 2),
                    middle([run.cpu_us for run in runs]),
                )
            )
        table("Descriptions of 4 kB", ("", "relayed/s", "p50 ms", "p99 ms", "server CPU µs each"), rows)


if __name__ == "__main__":
    main()
