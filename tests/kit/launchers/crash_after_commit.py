"""The server, except that it dies after the commit of the Nth append and before anybody hears of it.

usage: crash_after_commit.py N serve …
"""

from __future__ import annotations

import os
import sys
from typing import Any

from secureconnect.chat.append import append
from secureconnect.cli.main import run
from secureconnect.deps.postgres import Postgres
from secureconnect.deps.sqlite import Sqlite

_left = int(sys.argv.pop(1))


def dying(write: Any) -> Any:
    async def write_and_die(self: Any, unit: Any, *args: Any, **kwargs: Any) -> Any:
        global _left
        result = await write(self, unit, *args, **kwargs)
        if unit is append:
            _left -= 1
            if _left == 0:
                os._exit(70)
        return result

    return write_and_die


for database in (Sqlite, Postgres):
    database.write = dying(database.write)  # type: ignore[method-assign]
run()
