"""The command line as a process of its own: `python -m secureconnect …`, its output and exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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


def fails(code: int, *args: str | Path, cwd: Path, typed: str = "", **settings: str) -> str:
    """The one line on stderr."""
    done = run(*args, cwd=cwd, typed=typed, **settings)
    assert done.returncode == code, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("secureconnect: ")
    return line.removeprefix("secureconnect: ")
