"""`secureconnect bench`: how fast an installation is, asked of it from outside."""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import __version__
from ..clock import SECOND_US, from_iso, now_us, to_iso
from ..settings import WEB_URL
from .options import Failed

if TYPE_CHECKING:
    from ..bench.course import Figure
    from ..bench.guests import Guests
    from ..bench.installation import Installation

LONGEST_S = 60.0  # of one figure
MOST_PEOPLE = 1_000
SOON_US = 60 * SECOND_US  # what is erased by then need not be told
_NUMBER = re.compile(r"\d+ (of|s:)")
ACCOUNT_LINE = re.compile(r"(\S+)\s+(\S.*)")


class Which(StrEnum):
    LOGIN = "login"
    STORE = "store"
    DELIVER = "deliver"
    READ = "read"
    RESUME = "resume"


Figures = Annotated[
    list[Which] | None,
    typer.Argument(
        help="login: sign-ins. store: messages stored. deliver: messages reaching everybody of a room."
        " read: messages, an ordinary route, first sync. resume: sockets that come back. Without one: all.",
        show_default=False,
    ),
]
Server = Annotated[str, typer.Option("--server", metavar="URL", help="The installation: http(s)://….")]
Seconds = Annotated[
    float, typer.Option("--seconds", min=0.1, max=LONGEST_S, help="How long each figure is measured.")
]
People = Annotated[
    int,
    typer.Option("--people", min=2, max=MOST_PEOPLE, help="Accounts registered, and members of the room."),
]
Accounts = Annotated[
    Path | None,
    typer.Option(
        "--accounts",
        metavar="FILE",
        envvar="BENCH_ACCOUNTS",
        exists=True,
        dir_okay=False,
        help="Accounts to use instead of registering any: a line for each, its name and its password. They"
        " stay; their bench conversations go.",
    ),
]
Invite = Annotated[
    str,
    typer.Option(
        "--invite",
        metavar="CODE",
        envvar="BENCH_INVITE",
        help="An invite for so many people, where one is needed to register: its code or its link.",
    ),
]
JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", help="Write the figures there, for programs.")
]
PlotFile = Annotated[
    Path | None, typer.Option("--plot", metavar="FILE", help="Draw the latencies there, as SVG.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before writing into the installation.")]


def bench(
    server: Server,
    figures: Figures = None,
    seconds: Seconds = 3.0,
    people: People = 16,
    accounts: Accounts = None,
    invite: Invite = "",
    json_file: JsonFile = None,
    plot_file: PlotFile = None,
    yes: Yes = False,
) -> None:
    """Measure an installation from outside: messages stored and delivered, reading, signing in.

    It registers accounts of its own, writes messages into conversations of theirs, and deletes all of it in
    the end, also when interrupted. It stays within the limits of the installation, and says beside a figure
    which of them shortened it. The table goes to stdout, in Markdown; everything else to stderr. Latencies
    hold the way to the server and back, which is told, too.

    Exit code 1 if the server could not be measured or did something wrong; 130 when interrupted.
    """
    if not WEB_URL.fits(server):
        raise typer.BadParameter(f"--server: expected {WEB_URL.name}, like https://chat.example.org")
    given = [] if accounts is None else _read_accounts(accounts)
    from ..bench.course import FIGURES
    from ..bench.installation import Installation, NotThere

    try:
        at = Installation.look(server)
    except NotThere as exc:
        raise Failed(str(exc)) from exc
    names = [name for name in FIGURES if not figures or name in figures]
    people = min(people, at.group_members)
    _require_way_in(at, given, invite)
    _announce(at, names, seconds, people, given, yes=yes)
    try:
        with _ended_alike():
            found = _measure(at, names, seconds, people, given, invite.rpartition("#code=")[2])
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    _show(at, found)
    if json_file is not None:
        json_file.write_text(json.dumps(_document(at, seconds, found), indent=2) + "\n", "utf-8")
    if plot_file is not None:
        from ..bench.plot import draw

        title = f"SecureConnect {at.version} at {at.site.authority}, {time.strftime('%Y-%m-%d')}"
        plot_file.write_text(draw(title, found), "utf-8")


def _read_accounts(path: Path) -> list[tuple[str, str]]:
    found = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        parts = ACCOUNT_LINE.fullmatch(line.strip())
        if parts is None:
            raise typer.BadParameter(f"{path}, line {number}: expected a name, a space and a password")
        found.append((parts[1], parts[2]))
    return found


def _require_way_in(at: Installation, given: Sequence[object], invite: str) -> None:
    """Raises Failed, with what to do."""
    from ..bench.guests import GIVE_ACCOUNTS as make

    if given:
        return
    if at.registration == "closed":
        raise Failed(f"nobody can register at {at.url}, so accounts are needed: {make}")
    if at.sends_mail:
        raise Failed(f"accounts at {at.url} begin with an address that is confirmed by mail: {make}")
    if at.registration == "invite" and not invite:
        raise Failed(
            f"{at.url} asks for an invite: have an administrator make one for as many people as --people,"
            f" and give it with --invite CODE; or {make}"
        )


def _announce(
    at: Installation, names: Sequence[str], seconds: float, people: int, given: Sequence[object], *, yes: bool
) -> None:
    """What is going to happen; asks whether it may. Raises Failed, Exit."""
    who = f"signs in {len(given)} accounts" if given else f"registers up to {people} accounts, bench-…"
    print(
        f"{at.url}: SecureConnect {at.version}, {at.pings.ms(50):.2g} ms away\n"
        f"This {who}, and writes messages into conversations of theirs, as fast as the server takes them for"
        f" {seconds:g} s each: {', '.join(names)}.\n"
        "Whoever else uses the server meanwhile may notice. In the end "
        + ("the conversations are deleted." if given else "the conversations and accounts are deleted."),
        file=sys.stderr,
    )
    if yes:
        return
    if not sys.stdin.isatty():
        raise Failed("there is no terminal to ask at whether this may be done: say --yes")
    if not typer.confirm("Go on?", err=True):
        raise typer.Exit(1)


def _measure(
    at: Installation,
    names: Sequence[str],
    seconds: float,
    people: int,
    given: Sequence[tuple[str, str]],
    invite: str,
) -> list[Figure]:
    """Raises Failed, and KeyboardInterrupt, once everything is taken away again."""
    from ..bench.course import Course
    from ..bench.guests import CannotBegin, Guests
    from ..bench.wire import Faulty
    from ..client import ApiError

    with _line() as tell:
        guests = Guests(at.site, tell)
        course = Course(at, guests, seconds, tell)
        try:
            if given:
                guests.sign_in(given)
            else:
                guests.register(people, invite)
            return list(course.run(names))
        except CannotBegin as exc:
            raise Failed(str(exc)) from exc
        except Faulty as exc:
            raise Failed(f"no figures: {exc}") from exc
        except ApiError as exc:
            raise Failed(f"no figures: the server refused what it was asked: {exc.message}") from exc
        except OSError as exc:
            raise Failed(f"no figures: the connection failed: {exc}") from exc
        finally:
            _leave(guests, [f"no figure: {each}" for each in course.missing])


def _leave(guests: Guests, remarks: list[str]) -> None:
    """Take away what was made, and say what the figures do not."""
    if guests.few and len(guests.people) > 1:
        remarks.append(f"measured with {len(guests.people)} people: {guests.few}")
    remarks += [f"left behind: {each}" for each in guests.leave()]
    if guests.erased_at and from_iso(guests.erased_at) > now_us() + SOON_US:
        remarks.append(
            f"the accounts are deleted, and erased at {guests.erased_at};"
            " `secureconnect user delete` erases one at once"
        )
    for remark in remarks:
        _say(remark)


def _show(at: Installation, figures: Sequence[Figure]) -> None:
    print(f"SecureConnect {at.version} at {at.url}; a round trip without work: ", end="")
    print(f"p50 {at.pings.ms(50):.2f} ms, p99 {at.pings.ms(99):.2f} ms\n")
    print("|  | per second | p50 ms | p90 ms | p99 ms |  |")
    print("| --- | ---: | ---: | ---: | ---: | --- |")
    for each in figures:
        middle, late, last = (f"{each.ms(percent):,.1f}" for percent in (50, 90, 99))
        print(f"| {each.what} | {each.per_s:,.0f} | {middle} | {late} | {last} | {each.remark} |")


def _document(at: Installation, seconds: float, figures: Sequence[Figure]) -> dict[str, Any]:
    return {
        "server": {"url": at.url, "version": at.version},
        "bench": {"version": __version__, "seconds": seconds, "at": to_iso(now_us())},
        "ping_ms": {"p50": round(at.pings.ms(50), 3), "p99": round(at.pings.ms(99), 3)},
        "figures": [each.as_json() for each in figures],
    }


@contextmanager
def _line() -> Iterator[Callable[[str], None]]:
    """Says how far it is: in one line that moves on a terminal, else once for each kind of step."""
    moves = sys.stderr.isatty()
    told: set[str] = set()

    def tell(text: str) -> None:
        if moves:
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
        elif (kind := _NUMBER.sub("", text)) not in told:
            told.add(kind)
            print(text, file=sys.stderr, flush=True)

    try:
        yield tell
    finally:
        if moves:
            tell("")


def _say(text: str) -> None:
    print(f"\r\033[K{text}" if sys.stderr.isatty() else text, file=sys.stderr, flush=True)


@contextmanager
def _ended_alike() -> Iterator[None]:
    """SIGTERM takes away what was made, as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
