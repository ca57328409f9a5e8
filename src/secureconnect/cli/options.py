"""What the commands share: two options, what text they take, and the one way to fail."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ..config import Config, LogConfig
from ..config_file import load

ConfigFile = Annotated[
    str | None,
    typer.Option(
        "--config", metavar="FILE", help="Settings file; without it ./secureconnect.toml if there is one."
    ),
]
DataDir = Annotated[
    str | None, typer.Option("--data-dir", metavar="DIR", help="Folder of the database, files and keys.")
]


class Failed(Exception):
    """One line for the person at the terminal; the command ends with exit code 1."""


def as_text(value: str | None) -> str | None:
    """What was typed, for the database: which knows no bytes that are not UTF-8. Raises BadParameter."""
    try:
        (value or "").encode()
    except UnicodeEncodeError:
        raise typer.BadParameter("this is not text in UTF-8") from None
    return value


def prepare(config_file: str | None, data_dir: str | None, level: str = "warning") -> Config:
    """The effective settings; what is logged goes to stderr, so that stdout is the command's answer alone.
    Raises BadSetting."""
    from .. import log

    log.set_up(LogConfig(level=level, format="text"), sys.stderr)
    return load(config_file, flags={"data_dir": data_dir})
