"""Starting the server without the libraries of the command line.

typer loads pydantic as it reads arguments: 8 MB that a server would carry for nothing. So
options of `serve` given as plain pairs are read here, and all else (help, mistakes) is left to typer.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence

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


def start(values: dict[str, str]) -> int:
    """Serve until told to stop. Returns the exit code; raises BadSetting."""
    flags = {key: value for key, value in values.items() if key != "config"}
    settings = config_file.load(values.get("config"), flags=flags)
    # structlog loads rich where it finds it, for tracebacks that log.py does not want: 3 MB and 60 ms
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]
    gc.disable()  # what modules make stays: to look through it while they load takes a tenth of the start
    import trio

    from .. import app

    gc.enable()
    try:
        return trio.run(app.main, settings)
    except KeyboardInterrupt:  # before the server listens to signals
        return 130
