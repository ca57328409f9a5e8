"""`secureconnect config`: the settings, as a file that `--config` takes."""

from __future__ import annotations

from typing import Annotated

import typer

from ..config import Config
from ..config_file import render
from .options import ConfigFile, DataDir, prepare


def config(
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
    defaults: Annotated[bool, typer.Option("--defaults", help="What holds when nothing is set.")] = False,
) -> None:
    """Print every setting with its value, range and meaning; secrets are masked."""
    print(render(Config() if defaults else prepare(config_file, data_dir)), end="")
