"""The command line as a process of its own: `python -m secureconnect …`, its output and exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import trio

from kit.server import Server

LIMIT_S = 30


def run(*args: str | Path, cwd: Path, typed: str = "", **settings: str) -> subprocess.CompletedProcess[str]:
    """typed: its standard input.  settings: like AUTH__MASTER_KEY="…", through the environment."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("SECURECONNECT_")}
    env |= {f"SECURECONNECT_{key}": value for key, value in settings.items()}
    return subprocess.run(
        [sys.executable, "-m", "secureconnect", *map(str, args)],
        cwd=cwd,
        env=env | {"COLUMNS": "100"},
        input=typed,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )


def succeeds(*args: str | Path, cwd: Path, typed: str = "", **settings: str) -> str:
    done = run(*args, cwd=cwd, typed=typed, **settings)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


async def beside(server: Server, *args: str, typed: str = "") -> str:
    """What it prints when it works on the data of a server, which may run."""

    def act() -> str:
        where = ("--data-dir", server.data_dir)
        return succeeds(*args, *where, cwd=server.data_dir.parent, typed=typed, **server.settings)

    return await trio.to_thread.run_sync(act)


def fails(code: int, *args: str | Path, cwd: Path, typed: str = "", **settings: str) -> str:
    """The one line on stderr."""
    done = run(*args, cwd=cwd, typed=typed, **settings)
    assert done.returncode == code, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("secureconnect: ")
    return line.removeprefix("secureconnect: ")
