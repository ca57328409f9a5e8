"""The commands as typer knows them: all of them for the overview, else only the one that is meant."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import typer

COMMANDS = (
    "serve",
    "chat",
    "config",
    "migrate",
    "doctor",
    "move",
    "backup",
    "restore",
    "user",
    "keys",
    "audit",
    "bench",
    "version",
)
HELP = """SecureConnect: self-hosted secure messaging, calls and files in one light process.

Without a command, it serves. Exit codes: 0 all is well, 1 something is not, 2 wrong usage or settings."""


def run(args: Sequence[str]) -> None:
    """Ends the process (SystemExit), or raises what the command raised."""
    app = typer.Typer(
        rich_markup_mode="markdown",  # which fills paragraphs anew
        help=HELP,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(lambda: None)  # or a lone command would lose its name
    for name in (args[0],) if args[0] in COMMANDS else COMMANDS:
        command = getattr(importlib.import_module(f"{__package__}.{name}"), name)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    app(args, prog_name="secureconnect")
