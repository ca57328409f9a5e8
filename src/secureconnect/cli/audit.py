"""`secureconnect audit`: whether the audit log is as it was written, and what stands in it."""

from __future__ import annotations

import os
import sys
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import ConfigFile, DataDir, prepare

if TYPE_CHECKING:
    from ..audit import Verdict

TELL_ROWS = 100_000  # between two words of how far the check is

audit = typer.Typer(help="The audit log.", no_args_is_help=True)

HeadFile = Annotated[
    Path | None,
    typer.Option(
        "--head",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        help="A head file kept elsewhere; without it audit.head in the data folder.",
    ),
]


After = Annotated[
    int, typer.Option(metavar="POSITION", min=0, max=2**63 - 1, help="Only rows that come after this one.")
]


@audit.callback()
def _() -> None:
    """The audit log."""


@audit.command()
def verify(config_file: ConfigFile = None, data_dir: DataDir = None, head: HeadFile = None) -> None:
    """Check that no sealed row was changed, removed, inserted or moved, and that the end was not cut.

    Works beside a running server. Exit code 1 if something is wrong.
    """
    settings = prepare(config_file, data_dir)
    import trio

    from ..audit import time_of
    from ..audit import verify as check
    from ..clock import now_us
    from ..deps.policy import open_database
    from ..node import Secrets

    head_file = head or Path(settings.data_dir) / "audit.head"

    said = 0

    def tell(position: int, last: int) -> None:
        nonlocal said
        if position - said >= TELL_ROWS:
            said = position
            print(f"checked up to row {position} of {last}", file=sys.stderr)

    async def main() -> Verdict:
        async with open_database(settings) as db:
            secrets = await Secrets.open(db, Path(settings.data_dir), settings.auth.master_key)
            return await check(db, {secrets.key_id: secrets.derive("audit")}, head_file, tell)

    verdict = trio.run(main)
    erased = f", of {verdict.erased} the personal fields are erased" if verdict.erased else ""
    print(f"sealed rows: {verdict.sealed}{erased}")
    if verdict.cut_us is not None:
        print(
            f"begins after row {verdict.removed}: older ones were removed, the last {time_of(verdict.cut_us)}"
        )
    waiting = f"rows not sealed yet, which prove nothing: {verdict.unsealed}"
    if verdict.oldest_unsealed_us is not None:
        waiting += f", the oldest is {(now_us() - verdict.oldest_unsealed_us) / 1e6:.1f} s old"
    print(waiting)
    if verdict.file is not None:
        older = ", which was removed: a cut end would not show" if verdict.is_file_older else ""
        print(f"head file: names row {verdict.file.count}{older}")
    elif not head_file.exists():
        print(f"no head file at {head_file}: a cut end would not show")
    for finding in verdict.findings:
        print(f"WRONG: {finding}")
    if verdict.faults > len(verdict.findings):
        print(f"WRONG: {verdict.faults - len(verdict.findings)} more like these")
    if not verdict.whole:
        raise typer.Exit(1)
    print("the audit log is whole")


@audit.command()
def export(config_file: ConfigFile = None, data_dir: DataDir = None, after: After = 0) -> None:
    """Write the sealed rows to the standard output, a line of JSON each, in their order.

    Works beside a running server.
    """
    settings = prepare(config_file, data_dir)
    import trio

    from ..audit import export as lines
    from ..deps.policy import open_database

    async def main() -> None:
        async with open_database(settings) as db, aclosing(lines(db, after)) as told:
            async for line in told:
                sys.stdout.buffer.write(line)

    try:
        trio.run(main)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads it has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
