"""A real server: `python -m secureconnect serve` as a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kit.http import plain
from kit.keeper import keep
from kit.ports import give_back, lend_port
from secureconnect.config import Config
from secureconnect.config_file import load

START_S = 20.0
STOP_S = 20.0
METRICS_S = 30.0  # they may wait behind thousands of abandoned requests

SETTINGS = {
    "AUTH__ARGON2_MEMORY_KIB": "64",
    "AUTH__ARGON2_TIME_COST": "1",
    "LOG__FORMAT": "json",
    "RATE_LIMITS__ENABLED": "false",
}
PROGRAM = ("-m", "secureconnect")


class Server:
    """One data folder and the process that serves it; the port stays the same over restarts.

    settings: like `GATEWAY__DRAIN_S="1"`, over those of `SETTINGS`.
    program: arguments of the interpreter up to the subcommand.
    """

    def __init__(self, data_dir: Path, program: Sequence[str] = PROGRAM, **settings: str) -> None:
        self.data_dir = data_dir
        self.program = tuple(program)
        self.url = ""
        self.port = 0
        self._has_borrowed = False
        self.output: list[str] = []
        self.settings = SETTINGS | settings
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._grew = threading.Condition()
        self._expected: set[str] = set()
        self._checked = 0

    @property
    def config(self) -> Config:
        """As the server has read it."""
        settings = {f"SECURECONNECT_{key}": value for key, value in self.settings.items()}
        return load(None, settings, {"data_dir": str(self.data_dir)})

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def _running(self) -> subprocess.Popen[str]:
        assert self._process is not None, "the server was not started"
        return self._process

    def start(self) -> None:
        """Returns when it listens."""
        if not self.port:
            self.port, self._has_borrowed = lend_port(), True
        env = {key: value for key, value in os.environ.items() if not key.startswith("SECURECONNECT_")}
        env |= {f"SECURECONNECT_{key}": value for key, value in self.settings.items()}
        serve = ["serve", "--port", str(self.port), "--data-dir", str(self.data_dir)]
        before = len(self.output)
        self._process = keep(
            subprocess.Popen(
                [sys.executable, *self.program, *serve],
                env=env,
                cwd=self.data_dir.parent,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()
        line = self.wait_for_line(r"listening on (http://\S+)", START_S, since=before)
        self.url = line.group(1)

    def wait_for_line(self, pattern: str, limit_s: float, since: int = 0) -> re.Match[str]:
        """The first output line from number `since` on that matches."""
        found: re.Match[str] | None = None

        def arrived() -> bool:
            nonlocal found
            found = next((hit for line in self.output[since:] if (hit := re.search(pattern, line))), None)
            return found is not None or not self.is_running

        with self._grew:
            self._grew.wait_for(arrived, limit_s)
        if found is None:
            raise AssertionError(
                f"no line like {pattern!r} within {limit_s} s:\n" + "\n".join(self.output[since:])
            )
        return found

    @property
    def is_running(self) -> bool:
        return self._running.poll() is None or (self._reader is not None and self._reader.is_alive())

    def kill(self) -> None:
        """SIGKILL: as when the power goes."""
        self._running.kill()
        self.wait()

    def terminate(self) -> int:
        """SIGTERM, and the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def signal(self, number: signal.Signals) -> None:
        self._running.send_signal(number)

    def wait(self, limit_s: float = STOP_S) -> int:
        """The exit code, once it has ended."""
        code = self._running.wait(limit_s)
        assert self._reader is not None
        self._reader.join(limit_s)
        return code

    def restart(self, program: Sequence[str] | None = None) -> None:
        """Start again on the same folder and port, after an orderly end if it still runs."""
        if self.is_running:
            assert self.terminate() == 0
        self.program = tuple(program or self.program)
        self.start()

    def logs(self, since: int = 0) -> list[dict[str, Any]]:
        """The JSON log lines so far, from output line number `since` on."""
        return list(self._parsed(self.output[since:]))

    async def metric(self, name: str) -> float:
        """The value of a metric without labels, or the sum over all its labels."""
        async with plain(timeout=METRICS_S) as http:
            lines = (await http.get(f"{self.url}/metrics")).text.splitlines()
        found = [line for line in lines if re.match(rf"{name}(\{{.*\}})? ", line)]
        assert found, f"there is no metric {name}"
        return sum(float(line.rpartition(" ")[2]) for line in found)

    def expect_error(self, msg: str) -> None:
        """Error lines with this event name are part of the test."""
        self._expected.add(msg)

    def check(self) -> None:
        """No error was logged that the test did not ask for, nor anything but JSON; since the last check."""
        fresh, self._checked = self.output[self._checked :], len(self.output)
        wrong = [
            line
            for line in self._parsed(fresh)
            if line.get("level") in ("error", "critical") and line["msg"] not in self._expected
        ]
        loose = [line for line in fresh if not line.startswith(("{", "listening on "))]
        assert not wrong, f"errors in the log: {json.dumps(wrong, indent=2)}"
        assert not loose, "output beside the log:\n" + "\n".join(loose)

    def close(self) -> None:
        if self._process is not None and self.is_running:
            self.kill()
        if self._has_borrowed:
            give_back(self.port)
            self._has_borrowed = False

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                with self._grew:
                    self.output.append(line.rstrip("\n"))
                    self._grew.notify_all()
        with self._grew:
            self._grew.notify_all()

    def _parsed(self, lines: Sequence[str]) -> Iterator[dict[str, Any]]:
        for line in lines:
            if line.startswith("{"):
                yield json.loads(line)
