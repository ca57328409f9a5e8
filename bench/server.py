"""A server of its own for a figure: on core 0, in a fresh data folder, and its limits out of the way."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from ssl import SSLContext
from typing import IO

from secureconnect.bench.rounds import Target
from secureconnect.bench.wire import QUIET_LIMIT_S, Site

SERVER_CORE = 0
LOAD_CORE = 1
STOP_LIMIT_S = 20.0

# What stands between a load generator and a figure, and nothing else. argon2 is as cheap as it gets, because
# most figures need hundreds of accounts; the figure of logins takes the defaults (`passwords="default"`).
UNLIMITED = {
    "RATE_LIMITS__ENABLED": "false",
    "GATEWAY__WS_FRAMES_PER_10S": "1000000",
    "AUTH__ACCESS_TTL_S": "86400",
    "CHAT__MAX_MEMBERS": "2000",
    "LOG__LEVEL": "warning",
}
CHEAP_PASSWORDS = {"AUTH__ARGON2_TIME_COST": "1", "AUTH__ARGON2_MEMORY_KIB": "64"}

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
QUIET_S = 0.2


@dataclass(frozen=True, slots=True)
class Server:
    """pid, port: of the running process.  ready_s: from its start to the line `listening on …`."""

    pid: int
    port: int
    ready_s: float

    def rss_kb(self) -> int:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise RuntimeError("the server has no VmRSS: it is gone")

    def cpu_s(self) -> float:
        return cpu_s(self.pid)

    def site(self, tls: SSLContext | None = None) -> Site:
        """tls: how to speak to it, or None for plain TCP."""
        return Site.reach(f"{'http' if tls is None else 'https'}://127.0.0.1:{self.port}", tls)

    def target(self, tls: SSLContext | None = None) -> Target:
        meters = {"server": self.cpu_s, "load": time.process_time, "cores": _cores_cpu_s}
        return Target(self.site(tls), meters, self._settle)

    def _settle(self) -> None:
        until = time.perf_counter() + QUIET_LIMIT_S
        before = self.cpu_s()
        while time.perf_counter() < until:
            time.sleep(QUIET_S)
            before, spent = self.cpu_s(), self.cpu_s() - before
            if spent < QUIET_S / 10:
                return
        raise TimeoutError(f"the server was still busy after {QUIET_LIMIT_S:.0f} s")


def cpu_s(pid: int) -> float:
    """Processor time spent so far, user and system, of all threads, and of children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS_PER_S


def _cores_cpu_s() -> float:
    """Processor time spent on the two cores by whatever runs there, the machine's other guests included."""
    ticks = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name in (f"cpu{SERVER_CORE}", f"cpu{LOAD_CORE}"):
            user, nice, system, _, _, _, _, steal = map(int, fields[:8])
            ticks += user + nice + system + steal
    return ticks / TICKS_PER_S


@contextmanager
def server(
    settings: Mapping[str, str] = UNLIMITED | CHEAP_PASSWORDS,
    data_dir: str | None = None,
    port: int = 0,
    cores: Iterable[int] = (SERVER_CORE,),
) -> Iterator[Server]:
    """A running server; ended with SIGTERM.

    settings: by their environment names without prefix.  data_dir: None for a fresh folder.
    port: 0 for a free one.
    """
    with tempfile.TemporaryDirectory(prefix="secureconnect-bench-") as fresh:
        env = {name: text for name, text in os.environ.items() if not name.startswith("SECURECONNECT_")}
        env |= {f"SECURECONNECT_{name}": text for name, text in settings.items()}
        command = (
            sys.executable,
            "-m",
            "secureconnect",
            "--port",
            str(port),
            "--data-dir",
            data_dir or fresh,
        )
        # in a folder of its own, so that no secureconnect.toml of somebody's is read
        with launched(command, env=env, cwd=fresh, cores=cores) as running:
            yield running


@contextmanager
def launched(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    quiet: bool = False,
    cores: Iterable[int] = (SERVER_CORE,),
) -> Iterator[Server]:
    """A process on the server's core that says `listening on …` when it is ready; ended with SIGTERM.

    quiet: it says so on stderr, and its stdout, where its log goes, is thrown away.
    """
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL if quiet else subprocess.PIPE,
        stderr=subprocess.PIPE if quiet else None,
        env=env,
        cwd=cwd,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    said = process.stderr if quiet else process.stdout
    assert said is not None
    try:
        port = _wait_until_ready(process, said)
        ready_s = time.perf_counter() - began
        threading.Thread(target=_show_the_rest, args=(said,), daemon=True).start()
        yield Server(process.pid, port, ready_s)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def _wait_until_ready(process: subprocess.Popen[bytes], lines: IO[bytes]) -> int:
    """The port. A server that cannot start ends, and what it says with it."""
    for line in lines:
        said = line.decode(errors="replace").strip()
        if said.startswith("listening on "):
            return int(said.rpartition(":")[2])
        print(said, file=sys.stderr)
    raise RuntimeError(f"the server ended with {process.wait()} before it was ready")


def _show_the_rest(lines: IO[bytes]) -> None:
    """Its warnings, so that errors are not taken for a figure, and so that its pipe never fills."""
    shutil.copyfileobj(lines, sys.stderr.buffer)
