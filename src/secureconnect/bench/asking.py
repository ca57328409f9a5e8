"""Questions and answers: one request under way on each connection that is kept alive."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from .rounds import Run, Target
from .wire import EVENTS, QUIET_LIMIT_S, Faulty, Limited, Line, data_of, is_whole, receive, send, watching

Ask = Callable[[int], bytes]  # number of a line → its next request
IsWhole = Callable[[bytes], bool]  # of the bytes of an answer; raises if it is not the right one


def keep_asking(target: Target, lines: Sequence[Line], ask: Ask, is_whole: IsWhole, seconds: float) -> Run:
    """Each of the lines asks again as soon as it is answered, until the time is over, or a limit reached."""
    run = Run()
    socks = {line.sock.fileno(): line.sock for line in lines}
    number_of = {line.sock.fileno(): number for number, line in enumerate(lines)}
    sent = dict.fromkeys(socks, 0.0)
    parts = dict.fromkeys(socks, b"")
    each_s, poll = run.each_s, watching(socks)
    with run.timed(target.meters):
        until = time.perf_counter() + seconds
        for fd, sock in socks.items():
            sent[fd] = time.perf_counter()
            send(sock, ask(number_of[fd]))
        waiting = len(socks)
        while waiting:
            ready = poll.poll(QUIET_LIMIT_S, EVENTS)
            if not ready:
                raise Faulty(f"nothing arrived for {QUIET_LIMIT_S:.0f} s")
            for fd, _ in ready:
                data = receive(socks[fd])
                if parts[fd]:
                    data = parts[fd] + data
                try:
                    if not is_whole(data):
                        parts[fd] = data
                        continue
                except Limited as limited:
                    run.limit = limited.words
                    waiting -= 1
                    continue
                parts[fd] = b""
                now = time.perf_counter()
                each_s.append(now - sent[fd])
                if now < until:
                    sent[fd] = now
                    send(socks[fd], ask(number_of[fd]))
                else:
                    waiting -= 1
    poll.close()
    return run


def success(answer: bytes) -> bool:
    """A whole answer of 2xx. Raises ApiError, Faulty."""
    if not is_whole(answer):
        return False
    if not answer.startswith(b"HTTP/1.1 2"):
        data_of(answer)
    return True
