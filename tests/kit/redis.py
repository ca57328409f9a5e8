"""A private redis-server, which can be killed, frozen and started again on the same port."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import redis

from .freeze import freeze
from .keeper import keep
from .ports import free_port

PROGRAM = "redis-server"
START_S = 10.0
STOP_S = 10.0


class RedisServer:
    """Keeps nothing on the disk: after `kill` and `start` it is empty.

    options: further ones of its command line.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        found = shutil.which(PROGRAM)
        if found is None:
            pytest.skip(f"no {PROGRAM}")
        self._program = found
        self._folder = folder
        self._options = options
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Returns when it answers."""
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        command = [self._program, *options, *self._options, "--dir", str(self._folder)]
        self._process = keep(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        give_up = time.monotonic() + START_S
        while True:
            try:
                with self.client() as client:
                    client.ping()
                return
            except redis.ConnectionError:
                assert self.is_running, f"{PROGRAM} ended at once"
                assert time.monotonic() < give_up, f"{PROGRAM} does not answer"
                time.sleep(0.01)

    def client(self) -> redis.Redis:
        """A blocking one, to look into the server and to prepare it."""
        return redis.Redis(port=self.port, socket_timeout=STOP_S)

    def kill(self) -> None:
        """SIGKILL: as when the power goes."""
        self._send(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(STOP_S)

    def freeze(self) -> None:
        """SIGSTOP: it accepts connections, and answers nobody."""
        if self._process is not None and self.is_running:
            freeze(self._process.pid)

    def thaw(self) -> None:
        self._send(signal.SIGCONT)

    def restore(self) -> None:
        """As new, whatever was done to it."""
        self.thaw()
        if not self.is_running:
            self.start()
        with self.client() as client:
            client.flushall()
            client.script_flush()
            client.config_set("maxmemory", 0)
            client.config_resetstat()

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None and self.is_running:
            self._process.send_signal(number)
