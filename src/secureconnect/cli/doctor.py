"""`secureconnect doctor`: what is wrong with this installation, and how to mend it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from ..config_file import SETTINGS
from ..settings import WEB_URL
from .options import ConfigFile, DataDir, prepare

if TYPE_CHECKING:
    from ..doctor import Finding

STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red"}


class Only(StrEnum):
    TURN = "turn"


What = Annotated[
    Only | None, typer.Argument(help="turn: only the STUN and TURN servers.", show_default=False)
]
Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="URL",
        help="Look from outside at the installation that people reach at https://…; with turn: at this"
        " server, in place of those that are set.",
    ),
]
TokenFile = Annotated[
    typer.FileText | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        help="With --url: an access token, to see that what stands in front keeps silent WebSockets.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, for programs.")]


def doctor(
    only: What = None,
    url: Url = None,
    token_file: TokenFile = None,
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Check settings, data folder, keys, port, TLS, database, Redis, storage, mail and relays, or with --url
    what people reach from outside; say how to mend each.

    Works beside a running server, changes nothing, and ends within minutes whatever is frozen. Exit code 1 if
    a check failed; warnings leave it at 0.
    """
    settings = prepare(config_file, data_dir, level="error")
    if url is not None and only is Only.TURN:
        urls = SETTINGS["turn.urls"].parse([url], "command line")
        settings = replace(settings, turn=replace(settings.turn, urls=urls, stun_urls=()))
    if token_file is not None and (url is None or only is Only.TURN):
        raise typer.BadParameter("--token-file goes with --url https://…")
    import trio

    from ..doctor import examine, examine_from_outside, worst
    from ..doctor.findings import count

    tell = _ignore if as_json else _teller()
    if url is not None and only is None:
        if not WEB_URL.fits(url):
            raise typer.BadParameter(f"a relay's goes with `doctor turn`; else expected {WEB_URL.name}")
        token = "" if token_file is None else token_file.read().strip()
        findings = trio.run(examine_from_outside, url, tell, token)
    else:
        findings = trio.run(examine, settings, tell, only)
    status = worst(findings)
    if as_json:
        print(json.dumps({"checks": [asdict(each) for each in findings], "status": status}, indent=2))
    else:
        failed, warned = (sum(each.status == kind for each in findings) for kind in ("failed", "warning"))
        print(f"{count(len(findings), 'check')}: {failed} failed, {warned} with a warning")
    if status == "failed":
        raise typer.Exit(1)


def _ignore(finding: Finding) -> None:
    pass


def _teller() -> Callable[[Finding], None]:
    """Prints a finding: in colours on a terminal."""
    if not sys.stdout.isatty():
        return _print_plain
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)

    def show(finding: Finding) -> None:
        style = STYLES[finding.status]
        console.print(
            f"[{style}]{finding.status:<8}[/] [bold]{finding.name:<20}[/] {escape(finding.found)}",
            soft_wrap=True,
        )
        if finding.mend:
            console.print(f"{'':<29} [dim]{escape(finding.mend)}[/]", soft_wrap=True)

    return show


def _print_plain(finding: Finding) -> None:
    mend = f"; to mend: {finding.mend}" if finding.mend else ""
    print(f"{finding.status:<8} {finding.name:<20} {finding.found}{mend}", flush=True)
