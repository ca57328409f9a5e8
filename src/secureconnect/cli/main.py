"""The front of the command line: what is meant, and how failures look."""

from __future__ import annotations

import sys

from ..settings import BadSetting
from .start import plain, start


def run() -> None:
    """The console script. Ends the process with its exit code."""
    args = sys.argv[1:]
    if args[:1] == ["--version"]:
        args = ["version"]
    elif not args or (args[0].startswith("-") and args[0] not in ("-h", "--help")):
        # said here: a default command of typer's would silently drop the options before it
        args = ["serve", *args]
    try:
        values = plain(args[1:]) if args[0] == "serve" else None
        if values is not None:
            start(values)
        from . import commands

        commands.run(args)
    except Exception as exc:
        cause = _lone(exc)
        if not isinstance(cause, _expected()):
            raise
        print(f"secureconnect: {cause}", file=sys.stderr)
        sys.exit(2 if isinstance(cause, BadSetting) else 1)


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
    from .options import Failed

    return (BadSetting, Failed, NotReady, DataFolderBusy, MigrationError, Problem, OSError)
