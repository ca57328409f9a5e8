"""The server, except that its database is away from SIGUSR1 to SIGUSR2, for calls and for probes."""

from __future__ import annotations

import signal
from typing import Any

from secureconnect.cli.main import run
from secureconnect.deps.postgres import Postgres
from secureconnect.deps.sqlite import Sqlite
from secureconnect.errors import Unavailable

_is_away = False


def move(number: int, _: object) -> None:
    global _is_away
    _is_away = number == signal.SIGUSR1


def interruptible(call: Any) -> Any:
    async def call_or_refuse(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _is_away:
            raise Unavailable
        return await call(self, *args, **kwargs)

    return call_or_refuse


for database in (Sqlite, Postgres):
    for name in ("write", "relieve", "read"):
        setattr(database, name, interruptible(getattr(database, name)))
Postgres.probe = interruptible(Postgres.probe)  # type: ignore[method-assign]
for number in (signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(number, move)
run()
