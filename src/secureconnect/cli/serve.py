"""`secureconnect serve`: the server itself."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import ConfigFile, DataDir
from .start import start

Host = Annotated[
    str | None, typer.Option("--host", metavar="H", help="Address to listen on; 0.0.0.0 for every interface.")
]
# as text: the settings say what is wrong with a bad one, wherever it comes from
Port = Annotated[
    str | None, typer.Option("--port", metavar="P", help="Port to listen on; 0 picks a free one.")
]


def serve(
    config_file: ConfigFile = None, host: Host = None, port: Port = None, data_dir: DataDir = None
) -> None:
    """Serve until SIGTERM or Ctrl-C; a second one ends at once. This is what happens without a command."""
    given = {"config": config_file, "gateway.host": host, "gateway.port": port, "data_dir": data_dir}
    start({key: value for key, value in given.items() if value is not None})
