"""The other end of a call that is no browser: drives `launchers/aiortc_device.py`."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from kit.keeper import keep
from kit.people import PASSWORD, unique

PROGRAM = Path(__file__).parent / "launchers" / "aiortc_device.py"
WITHIN_S = 20.0
STOP_S = 10.0


class AiortcDevice:
    """user_id: of its account."""

    user_id = ""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._said: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def register(self, server: str) -> None:
        self.tell(server=server, username=unique("aiortc"), password=PASSWORD)
        self.user_id = self.hears("user_id")

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._said.put(json.loads(line))

    def tell(self, **what: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()

    def hears(self, what: str) -> Any:
        """The next of these; others are passed over."""
        while True:
            try:
                said = self._said.get(timeout=WITHIN_S)
            except queue.Empty as exc:
                raise AssertionError(f"aiortc has not said {what} within {WITHIN_S} s") from exc
            if what in said:
                return said[what]

    def end(self) -> None:
        """Returns once it has ended, as it does when nobody speaks to it any more."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_S)
        self._reader.join(STOP_S)
        self._process.stdout.close()


@contextmanager
def aiortc_device(server: str) -> Iterator[AiortcDevice]:
    """With an account on this server."""
    pipe = subprocess.PIPE
    process = keep(subprocess.Popen([sys.executable, PROGRAM], stdin=pipe, stdout=pipe, text=True))
    with ExitStack() as stack:
        device = AiortcDevice(process)
        stack.callback(device.end)
        device.register(server)
        yield device
