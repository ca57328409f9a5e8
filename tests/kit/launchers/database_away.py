"""The server, except that its database is away from SIGUSR1 to SIGUSR2, as if a breaker were open."""

from __future__ import annotations

import signal
from typing import Any

from secureconnect.cli.main import run
from secureconnect.deps.sqlite import Sqlite
from secureconnect.errors import Unavailable

_is_away = False
_calls = {name: getattr(Sqlite, name) for name in ("write", "relieve", "read")}


def move(number: int, _: object) -> None:
    global _is_away
    _is_away = number == signal.SIGUSR1


def guarded(name: str) -> Any:
    async def call(self: Sqlite, unit: Any, *args: Any, **kwargs: Any) -> Any:
        if _is_away:
            raise Unavailable
        return await _calls[name](self, unit, *args, **kwargs)

    return call


for name in _calls:
    setattr(Sqlite, name, guarded(name))
for number in (signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, move)
run()
