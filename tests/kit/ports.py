"""Ports for servers that are told theirs, or that come back on the same one."""

from __future__ import annotations

import random
import socket

# Below those that the kernel gives to whoever asks for any: what a server has left for a moment, to be
# started again, nobody takes meanwhile.
FIRST, LAST = 12_000, 32_000

_given: set[int] = set()
_left: list[int] = []


def free_port() -> int:
    """A port of the loopback that nobody listens on, and that was not given out before."""
    while True:
        port = random.SystemRandom().randrange(FIRST, LAST)
        if port in _given:
            continue
        _given.add(port)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def lend_port() -> int:
    """A free one; rather one that was lent before, whose pages browsers have in their caches."""
    return _left.pop() if _left else free_port()


def give_back(port: int) -> None:
    _left.append(port)
