"""SIGSTOP, and the wait for it: a process with many threads runs on for a moment after the signal."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

STOPPED_S = 5.0


def freeze(pid: int) -> None:
    """Returns when no thread of it runs. One that has ended is left alone."""
    try:
        os.kill(pid, signal.SIGSTOP)
        give_up = time.monotonic() + STOPPED_S
        while any(_state(task) not in "TtZX" for task in Path(f"/proc/{pid}/task").iterdir()):
            assert time.monotonic() < give_up, "it does not stop"
            time.sleep(0.001)
    except (ProcessLookupError, FileNotFoundError):
        pass


def _state(task: Path) -> str:
    return (task / "stat").read_text().rpartition(")")[2].split()[0]
