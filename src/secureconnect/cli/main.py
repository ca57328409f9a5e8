"""The front of the command line: which command is meant, and how its failures look.

Only the command that is meant is imported: `serve` is to start fast and stay small.
"""

from __future__ import annotations

import importlib
import sys

import typer

from ..config import BadSetting
from .options import Failed

COMMANDS = ("serve", "chat", "config", "migrate", "keys", "audit", "version")
HELP = """SecureConnect: self-hosted secure messaging, calls and files in one light process.

Without a command, it serves. Exit codes: 0 all is well, 1 something is not, 2 wrong usage or settings."""


def run() -> None:
    """The console script. Ends the process with its exit code."""
    args = sys.argv[1:]
    if args[:1] == ["--version"]:
        args = ["version"]
    elif not args or (args[0].startswith("-") and args[0] not in ("-h", "--help")):
        # said here: a default command of typer's would silently drop the options before it
        args = ["serve", *args]
    try:
        _app(args[0])(args, prog_name="secureconnect")
    except Exception as exc:
        cause = _lone(exc)
        if not isinstance(cause, _expected()):
            raise
        print(f"secureconnect: {cause}", file=sys.stderr)
        sys.exit(2 if isinstance(cause, BadSetting) else 1)


def _app(chosen: str) -> typer.Typer:
    app = typer.Typer(
        help=HELP,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(lambda: None)  # or a lone command would lose its name
    for name in (chosen,) if chosen in COMMANDS else COMMANDS:
        command = getattr(importlib.import_module(f"{__package__}.{name}"), name)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name)(command)
    return app


def _lone(exc: BaseException) -> BaseException:
    """The failure that nurseries wrapped, if it was the only one."""
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return exc


def _expected() -> tuple[type[Exception], ...]:
    """What is said in one line; anything else is a bug and shows its traceback."""
    from ..deps.migrate import MigrationError
    from ..deps.policy import DataFolderBusy, NotReady
    from ..errors import Problem

    return (BadSetting, Failed, NotReady, DataFolderBusy, MigrationError, Problem, OSError)
