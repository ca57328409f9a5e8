"""What systemd is told of this service: that it is ready, what it lacks, that it still runs.

Datagrams of `NAME=value` lines go to the socket that $NOTIFY_SOCKET names (sd_notify(3)); without one nothing
is sent. A start may last as long as its database is away, so until the first READY each look asks for more
time: what systemd ends is a start that has fallen silent. WATCHDOG comes from a task of the loop, so a loop
that hangs sends none.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping

import msgspec
import trio

LOOK_S = 0.5  # between two looks at how it stands, at most
SILENT_S = 30  # for which a start may be silent


class Standing(msgspec.Struct, frozen=True):
    """is_ready: /readyz says 200.  is_ending: it drains.  is_alive: nothing that is supervised has lost its
    supervisor.  status: a line for people."""

    is_ready: bool
    is_ending: bool
    is_alive: bool
    status: str


async def keep_told(standing: Callable[[], Standing], env: Mapping[str, str] = os.environ) -> None:
    """Tell it until cancelled."""
    address = env.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    watchdog_s = _watchdog_s(env)
    look_s = LOOK_S if watchdog_s is None else min(LOOK_S, watchdog_s / 2)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.setblocking(False)
        teller = _Teller(channel, address, watchdog_s)
        try:
            while True:
                teller.tell(standing(), trio.current_time())
                await trio.sleep(look_s)
        finally:
            teller.tell(standing(), trio.current_time())  # a drain may be shorter than a look


class _Teller:
    """What was said, so that only news is; what could not be sent is news the next time."""

    def __init__(self, channel: socket.socket, address: str, watchdog_s: float | None) -> None:
        self._channel = channel
        # a name that begins with @ is in no folder (unix(7), abstract)
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watchdog_s = watchdog_s
        self._watched = float("-inf")
        self._said: set[str] = set()

    def tell(self, standing: Standing, now: float) -> None:
        lines = {f"STATUS={standing.status}"}
        if standing.is_ending:
            lines.add("STOPPING=1")
        if standing.is_ready or "READY=1" in self._said:
            lines.add("READY=1")
        news = sorted(lines - self._said)
        if "READY=1" not in lines and not standing.is_ending:
            news.append(f"EXTEND_TIMEOUT_USEC={SILENT_S * 1_000_000}")
        is_due = self._watchdog_s is not None and now - self._watched >= self._watchdog_s / 2
        if is_due and standing.is_alive:
            news.append("WATCHDOG=1")
        if not news:
            return
        try:
            self._channel.sendto("\n".join(news).encode(), self._address)
        except OSError:  # its queue is full, or it restarts: no reason to end or to wait
            return
        self._said = lines
        if news[-1] == "WATCHDOG=1":
            self._watched = now


def _watchdog_s(env: Mapping[str, str]) -> float | None:
    """Seconds of silence after which systemd ends us; None if it does not, or means another process."""
    span, process = env.get("WATCHDOG_USEC", ""), env.get("WATCHDOG_PID", "")
    if not span.isdecimal() or int(span) == 0 or process not in ("", str(os.getpid())):
        return None
    return int(span) / 1_000_000
