"""`secureconnect serve`: the server itself."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import config
from .options import ConfigFile, DataDir

Host = Annotated[
    str | None, typer.Option("--host", metavar="H", help="Address to listen on; 0.0.0.0 for every interface.")
]
# as text: config.py says what is wrong with a bad one, whatever it comes from
Port = Annotated[
    str | None, typer.Option("--port", metavar="P", help="Port to listen on; 0 picks a free one.")
]


def serve(
    config_file: ConfigFile = None, host: Host = None, port: Port = None, data_dir: DataDir = None
) -> None:
    """Serve until SIGTERM or Ctrl-C; a second one ends at once. This is what happens without a command."""
    flags = {"gateway.host": host, "gateway.port": port, "data_dir": data_dir}
    settings = config.load(config_file, flags=flags)
    import trio

    from .. import app

    try:
        code = trio.run(app.main, settings)
    except KeyboardInterrupt:  # before the server listens to signals
        code = 130
    raise typer.Exit(code)
