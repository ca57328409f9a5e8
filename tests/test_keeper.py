"""Servers of tests that are interrupted do not stay behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kit.freeze import freeze
from kit.wait import until

SLEEP = "import time; time.sleep(600)"
SERVER = f"""
import subprocess, sys, time
print(subprocess.Popen([sys.executable, "-c", {SLEEP!r}]).pid, flush=True)
time.sleep(600)
"""
TESTS = f"""
import signal, subprocess, sys, time
from pathlib import Path
from kit.keeper import keep, keep_files
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
keep_files(Path(sys.argv[1]))
server = keep(subprocess.Popen([sys.executable, "-c", {SERVER!r}], stdout=subprocess.PIPE, text=True))
print(server.pid, server.stdout.readline(), flush=True)
time.sleep(600)
"""


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
async def test_what_was_started_ends_with_who_started_it(tmp_path: Path, number: signal.Signals) -> None:
    """Its children, too, and what does not run at the moment."""
    folder = tmp_path / "made-1"
    folder.mkdir()
    (folder / "file").touch()
    with subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", TESTS, str(tmp_path / "made-*")],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=Path(__file__).parent,
    ) as tests:  # fmt: skip
        assert tests.stdout is not None
        server, child = map(int, tests.stdout.readline().split())
        assert runs(server)
        assert runs(child)
        freeze(server)
        tests.send_signal(number)
    await until(lambda: not (runs(server) or runs(child) or folder.exists()))
