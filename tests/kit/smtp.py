"""A private mail server, which can be killed, frozen and started again on the same port."""

from __future__ import annotations

import email
import email.policy
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path

from .freeze import freeze
from .keeper import keep
from .ports import free_port

PROGRAM = Path(__file__).parent / "launchers" / "smtp_server.py"
STOP_S = 10.0


@dataclass(frozen=True)
class Received:
    """tls: whether it came over TLS.  user: who had signed in."""

    sender: str
    recipients: list[str]
    content: str
    tls: bool
    user: str | None

    @property
    def message(self) -> EmailMessage:
        return email.message_from_bytes(self.content.encode(), policy=email.policy.default)

    @property
    def text(self) -> str:
        body = self.message.get_body(("plain",))
        assert body is not None
        return str(body.get_content())


class SmtpServer:
    """options: how it is spoken to, as its program says."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)
        self._options = options
        self.port = free_port()
        self.url = f"smtp://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Returns when it listens."""
        command = [sys.executable, "-W", "ignore", str(PROGRAM), str(self._folder), str(self.port)]
        self._process = keep(subprocess.Popen([*command, *self._options], stdout=subprocess.PIPE, text=True))
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def mails(self) -> list[Received]:
        """What it has taken, in order."""
        return [Received(**json.loads(each.read_text())) for each in sorted(self._folder.glob("*.json"))]

    def freeze(self) -> None:
        assert self._process is not None
        freeze(self._process.pid)

    def thaw(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_S)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None
