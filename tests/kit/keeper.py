"""What tests start ends with them, however they end: a Ctrl-C, a kill, a process of xdist that is let go.

A program beside them, the keeper, reads from a pipe what was started and which files were made. The pipe ends
when the tests do; what is left then goes.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

Process = TypeVar("Process", bound="subprocess.Popen[Any]")

_keeper: subprocess.Popen[bytes] | None = None
_one_keeper = threading.Lock()


def keep(process: Process) -> Process:
    """It and its children are killed when the tests have ended."""
    _tell(f"{process.pid} {_born(process.pid)}")
    return process


def keep_files(path: Path) -> None:
    """A file or a folder, removed when the tests have ended; `*` in its name stands for anything."""
    _tell(str(path))


def _tell(line: str) -> None:
    global _keeper
    with _one_keeper:
        if _keeper is None:
            _keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,  # a Ctrl-C is not for it
            )
        assert _keeper.stdin is not None
        _keeper.stdin.write(f"{line}\n".encode())
        _keeper.stdin.flush()


def _born(pid: int) -> str:
    """When it was started, in ticks; empty once it has ended. The same number may be another's later."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return ""


def _clear(lines: Iterable[str]) -> None:
    kept = dict.fromkeys(line.rstrip("\n") for line in lines)
    for each in kept:
        if not each.startswith("/"):
            pid, _, born = each.partition(" ")
            if born and _born(int(pid)) == born:
                _kill([*_tree(int(pid))])
    for each in kept:
        if each.startswith("/"):
            for path in Path(each).parent.glob(Path(each).name):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def _tree(pid: int) -> Iterator[int]:
    """It and what it has started, and so on."""
    yield pid
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in listed.read_text().split():
                yield from _tree(int(child))


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    _clear(sys.stdin)
