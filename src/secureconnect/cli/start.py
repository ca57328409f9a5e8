"""Starting the server without the libraries of the command line.

typer loads pydantic as it reads arguments: 8 MB that a server would carry for nothing. So
options of `serve` given as plain pairs are read here, and all else (help, mistakes) is left to typer.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from .. import config_file

OPTIONS = {
    "--config": "config",
    "--host": "gateway.host",
    "--port": "gateway.port",
    "--data-dir": "data_dir",
}


def plain(args: Sequence[str]) -> dict[str, str] | None:
    """Values by key of OPTIONS, from `--port 0` or `--port=0`; None unless the arguments are that alone."""
    values = {}
    rest = iter(args)
    for each in rest:
        name, has_value, value = each.partition("=")
        if name not in OPTIONS:
            return None
        if not has_value:
            following = next(rest, None)
            if following is None or following.startswith("--"):
                return None
            value = following
        values[OPTIONS[name]] = value
    return values


def start(values: dict[str, str]) -> NoReturn:
    """Serve until told to stop, and end the process. Raises BadSetting, and what ends the server."""
    gc.disable()  # what modules make stays: to look through it while they load takes a tenth of the start
    flags = {key: value for key, value in values.items() if key != "config"}
    settings = config_file.load(values.get("config"), flags=flags)
    # structlog loads rich where it finds it, for tracebacks that log.py does not want: 3 MB and 60 ms
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]
    import trio

    from .. import app

    gc.freeze()
    gc.enable()
    try:
        code = trio.run(app.main, settings)
    except KeyboardInterrupt:  # before the server listens to signals
        code = 130
    with suppress(OSError):  # a reader that has left
        sys.stdout.flush()
    # all is closed and stored; to take apart what is in memory would take longer than the whole drain
    os._exit(code)
