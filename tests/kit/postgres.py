"""A PostgreSQL server of the tests' own, on a free port of the loopback."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from .freeze import freeze
from .keeper import keep, keep_files
from .ports import free_port

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)  # where Debian puts them
START_S = 30.0
USER = "sc"
PSQL = ("-XAtq", "-v", "ON_ERROR_STOP=1")
ANSWERED = "= answered ="
# nothing here outlives the tests; those of durability set their own
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class PostgresServer:
    """One data folder and the server on it; the port stays the same over restarts.

    As root it runs as the user postgres: a server refuses to be root. settings: those of postgresql.conf.
    environment: of the server, beside that of the tests.
    """

    def __init__(self, **settings: str) -> None:
        self.environment: dict[str, str] = {}
        self._binaries = _binaries()
        self._as: dict[str, Any] = (
            {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        )
        self._settings = FAST | {"max_connections": "100", "shared_buffers": "64MB"} | settings
        # beside pytest's folders, which user postgres cannot enter
        self._folder = Path(tempfile.mkdtemp(prefix="secureconnect-postgres-"))
        keep_files(self._folder)
        self._folder.chmod(0o755)
        if self._as:
            shutil.chown(self._folder, "postgres", "postgres")
        self._numbers = itertools.count()
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._run("initdb", "-D", self._data, "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8",
                  "--no-sync", "--no-instructions", **self._as)  # fmt: skip

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def url(self, database: str = "postgres", port: int | None = None) -> str:
        return f"postgres://{USER}@127.0.0.1:{port or self.port}/{database}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server was not started"
        return self._process.pid

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Returns when it takes connections."""
        settings = self._settings | {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self._folder),
        }
        options = [each for name, value in settings.items() for each in ("-c", f"{name}={value}")]
        deadline = time.monotonic() + START_S
        while True:
            with (self._folder / "log").open("ab") as log:
                self._process = keep(subprocess.Popen(
                    [str(self._binaries / "postgres"), "-D", str(self._data), *options],
                    cwd=self._folder, stdout=log, stderr=log, env=os.environ | self.environment, **self._as,
                ))  # fmt: skip
            while self._process.poll() is None:
                if self._accepts():
                    return
                self._not_after(deadline)
            self._not_after(deadline)  # killed before: what it left behind may take a moment to end

    def stop(self, number: signal.Signals = signal.SIGQUIT) -> None:
        """SIGQUIT: at once, as a crash that leaves no process behind.  SIGINT: in order.  SIGKILL: all its
        processes."""
        if self._process is not None and self.runs:
            children = self.children()
            for pid in [self.pid, *children]:
                _signal(pid, signal.SIGCONT)
            self._process.send_signal(number)
            for pid in children if number == signal.SIGKILL else ():
                _signal(pid, number)
            self._process.wait(START_S)

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._folder)

    def children(self) -> list[int]:
        """Process ids of the server's processes, one of them for each connection."""
        listed = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text("ascii")
        return [int(pid) for pid in listed.split()]

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Accepts connections and answers nothing, for as long as the block lasts."""
        stopped = [self.pid, *self.children()]
        for pid in stopped:
            freeze(pid)
        try:
            yield
        finally:
            for pid in stopped:
                _signal(pid, signal.SIGCONT)

    def create(self, template: str = "template0") -> str:
        """Name of a fresh database."""
        name = f"test_{next(self._numbers)}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop(self, database: str) -> None:
        self.sql(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")

    def sql(self, statement: str, database: str = "postgres") -> str:
        """What psql prints for it, run as who asks: to become another costs a copy of our page tables."""
        return self._run("psql", *PSQL, "-d", self.url(database), "-c", statement)

    def console(self, database: str) -> Console:
        """For who asks often: `sql` takes ten times as long, most of it to begin."""
        return Console(self._binaries / "psql", self.url(database))

    def _accepts(self) -> bool:
        """Waits a moment if it does not."""
        ready = [str(self._binaries / "pg_isready"), "-q", "-t", "1", "-d", self.url()]
        if subprocess.run(ready, check=False, cwd="/").returncode == 0:
            return True
        time.sleep(0.02)
        return False

    def _run(self, program: str, *arguments: str | Path, **options: Any) -> str:
        """options: of subprocess."""
        done: subprocess.CompletedProcess[str] = subprocess.run(
            [str(self._binaries / program), *map(str, arguments)],
            cwd=self._folder, capture_output=True, text=True, check=False, timeout=START_S, **options,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def _not_after(self, deadline: float) -> None:
        log = (self._folder / "log").read_text("utf-8")
        assert time.monotonic() < deadline, f"postgres did not start:\n{log}"


class Console:
    """A psql that goes on: its connection, and what that knows of the tables, is kept."""

    def __init__(self, program: Path, url: str) -> None:
        self._process = keep(
            subprocess.Popen(
                [str(program), *PSQL, "-d", url],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd="/",
                text=True,
            )
        )

    def sql(self, statements: str) -> str:
        """What is printed for them."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{statements};\n\\echo {ANSWERED}\n")
        self._process.stdin.flush()
        printed: list[str] = []
        for line in self._process.stdout:
            if line.rstrip() == ANSWERED:
                return "".join(printed).strip()
            printed.append(line)
        raise AssertionError("".join(printed))  # it has ended

    def close(self) -> None:
        with self._process:
            self._process.terminate()


def _binaries() -> Path:
    if not BINARIES:
        pytest.skip("no postgres")
    return BINARIES[0]


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # a connection that ended meanwhile
        os.kill(pid, number)
