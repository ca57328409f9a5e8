"""Where the terminal client keeps who is signed in: one file, readable by its owner alone."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import msgspec

from ..client import Credentials


class Remembered:
    """Credentials by server URL, in `$XDG_STATE_HOME/secureconnect/chat.json` (0600)."""

    def __init__(self) -> None:
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        self._path = Path(state) / "secureconnect" / "chat.json"

    def get(self, server: str) -> Credentials | None:
        return self._read().get(server)

    def put(self, server: str, credentials: Credentials | None) -> None:
        """None forgets. Replaced whole: a crash leaves the old file or the new one."""
        kept = self._read()
        kept.pop(server, None)
        if credentials is not None:
            kept[server] = credentials
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self._path.with_suffix(f".{os.getpid()}")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.json.encode({url: asdict(one) for url, one in kept.items()}))
        fresh.replace(self._path)

    def _read(self) -> dict[str, Credentials]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, Credentials])
        except (FileNotFoundError, msgspec.DecodeError):
            return {}
