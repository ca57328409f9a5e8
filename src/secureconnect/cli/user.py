"""`secureconnect user`: accounts, without the server or beside it.

Whoever can open the database is in charge: no password is asked for but the one of a new account, and the
audit log notes what was done without naming anybody.
"""

from __future__ import annotations

import getpass
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from ..config import Config
from .options import ConfigFile, DataDir, Failed, as_text, prepare

if TYPE_CHECKING:
    from ..deps.contracts import Database, Tx
    from ..deps.upgrade import CopyTables
    from ..identity import Role, SessionId, UserId

T = TypeVar("T")

user = typer.Typer(
    help="Accounts: make, list, ban, unban, unlock, delete, promote, demote.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Username, or e-mail address.", callback=as_text)]
Email = Annotated[str, typer.Option("--email", metavar="ADDRESS", help="E-mail address.", callback=as_text)]
DisplayName = Annotated[
    str | None,
    typer.Option("--display-name", metavar="NAME", help="What others see.", callback=as_text),
]
AsAdmin = Annotated[bool, typer.Option("--admin", help="Make an administrator.")]
PasswordStdin = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from standard input, its first line.")
]
Reason = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Told to the banned person.", callback=as_text)
]
Hours = Annotated[
    float | None,
    typer.Option("--hours", metavar="N", min=0.01, max=876_000, help="For how long; else for good."),
]
Text = Annotated[
    str,
    typer.Option("--find", metavar="TEXT", help="Part of a name or an e-mail address.", callback=as_text),
]
OnlyAdmins = Annotated[bool, typer.Option("--admins", help="Administrators only.")]
OnlyBanned = Annotated[bool, typer.Option("--banned", help="Banned people only.")]

PAGE = 200


@user.callback()
def _() -> None:
    """Accounts, without the server or beside it."""


@user.command()
def create(
    username: Annotated[
        str, typer.Argument(metavar="USERNAME", help="3 to 50 letters, digits, '_', '.', '-'.")
    ],
    email: Email,
    display_name: DisplayName = None,
    admin: AsAdmin = False,
    password_stdin: PasswordStdin = False,
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Make an account, whoever may register; also before the first start of the server."""
    settings = prepare(config_file, data_dir)
    from ..auth.accounts import add_account, checked_account, checked_password
    from ..auth.passwords import Passwords
    from ..backup.upgrade import copy_tables

    password = checked_password(_password(password_stdin))

    async def make(db: Database) -> UserId:
        from .. import audit

        now_us = db.now_us()
        role: Role = "admin" if admin else "user"
        made = checked_account(email, username, display_name, now_us, role)
        password_hash = await Passwords(settings.auth).hash(password)

        async def unit(tx: Tx) -> None:
            await add_account(tx, made, password_hash)
            facts = {"role": role}
            await audit.record(
                tx, action="admin:user:created", actor=None, subject=made.user_id, facts=facts, now_us=now_us
            )

        await db.write(unit)
        return made.user_id

    made = _on_database(settings, make, copy_tables)
    print(f"{username} is made{', an administrator' if admin else ''}: {made}")


@user.command("list")
def list_(
    find: Text = "",
    admins: OnlyAdmins = False,
    banned: OnlyBanned = False,
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Everybody, the newest first: id, username, e-mail address, role, and the end of a ban."""
    settings = prepare(config_file, data_dir)
    from ..auth.accounts import fold
    from ..auth.admin import store
    from ..clock import to_iso

    async def show(db: Database) -> None:
        before, page = store.LAST_ID, None
        while page is None or len(page) == PAGE:
            page = await db.read(
                store.list_accounts,
                text=fold(find.strip()),
                role="admin" if admins else "",
                banned="yes" if banned else "",
                before=before,
                limit=PAGE,
                now_us=db.now_us(),
            )
            for each in page:
                ban = each.ban
                until = "" if ban is None else to_iso(ban.until_us) if ban.until_us else "for good"
                state = f"  banned {until}" if ban is not None else ""
                print(f"{each.user_id}  {each.username:<20}  {each.email:<30}  {each.role}{state}")
            before = page[-1].user_id if page else before

    _on_database(settings, show)


@user.command()
def ban(
    name: Name,
    reason: Reason = "",
    hours: Hours = None,
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """End every session of someone and keep them from signing in. Running servers know within a second."""
    settings = prepare(config_file, data_dir)
    from ..auth.admin import standing
    from ..auth.admin.store import Ban
    from ..clock import HOUR_US

    async def act(db: Database) -> int:
        now_us = db.now_us()
        until_us = None if hours is None else now_us + int(hours * HOUR_US)
        terms = Ban(reason, now_us, until_us, None)
        who = await _find(db, name)
        return len(await db.write(standing.ban, settings.auth, who, terms, None, now_us))

    ended = _on_database(settings, act)
    print(f"{name} is banned {'for good' if hours is None else f'for {hours:g} h'}; sessions ended: {ended}")


@user.command()
def unban(name: Name, config_file: ConfigFile = None, data_dir: DataDir = None) -> None:
    """Let someone sign in again."""
    settings = prepare(config_file, data_dir)
    from ..auth.admin import standing

    async def act(db: Database) -> bool:
        return await db.write(standing.unban, await _find(db, name), None, None, db.now_us())

    print(f"{name} {'may sign in again' if _on_database(settings, act) else 'was not banned'}")


@user.command()
def unlock(name: Name, config_file: ConfigFile = None, data_dir: DataDir = None) -> None:
    """Let someone try again who has failed to sign in too often."""
    settings = prepare(config_file, data_dir)
    from ..auth.admin import standing
    from ..auth.lockout import Lockout
    from ..node import Secrets

    async def act(db: Database) -> None:
        secrets = await Secrets.open(db, Path(settings.data_dir), settings.auth.master_key)
        lockout = Lockout(settings.auth, secrets.derive("lockout"))
        await db.write(standing.unlock, lockout, await _find(db, name), None, None, db.now_us())

    _on_database(settings, act)
    print(f"{name} may try again")


@user.command("remove-totp")
def remove_totp(name: Name, config_file: ConfigFile = None, data_dir: DataDir = None) -> None:
    """Take away the second factor of someone who has lost it, and end their sessions."""
    settings = prepare(config_file, data_dir)
    from ..auth.admin import standing

    async def act(db: Database) -> frozenset[SessionId] | None:
        who = await _find(db, name)
        return await db.write(standing.remove_totp, settings.auth, who, None, None, db.now_us())

    ended = _on_database(settings, act)
    print(
        f"{name} has no second factor"
        if ended is None
        else f"{name} signs in with the password alone; sessions ended: {len(ended)}"
    )


@user.command()
def delete(name: Name, config_file: ConfigFile = None, data_dir: DataDir = None) -> None:
    """Delete an account for good. A running server erases it within a minute, a stopped one later."""
    settings = prepare(config_file, data_dir)
    from ..auth.admin import standing

    async def act(db: Database) -> int:
        who = await _find(db, name)
        return len(await db.write(standing.remove, settings.auth, who, None, None, db.now_us()))

    print(f"{name} is to be erased; sessions ended: {_on_database(settings, act)}")


@user.command()
def promote(name: Name, config_file: ConfigFile = None, data_dir: DataDir = None) -> None:
    """Make someone an administrator. Their sessions end: the next one has the role."""
    _change_role(name, "admin", prepare(config_file, data_dir))


@user.command()
def demote(name: Name, config_file: ConfigFile = None, data_dir: DataDir = None) -> None:
    """Make an administrator an ordinary user, at once: their sessions end."""
    _change_role(name, "user", prepare(config_file, data_dir))


def _change_role(name: str, role: Role, settings: Config) -> None:
    from ..auth.admin import standing

    async def act(db: Database) -> int:
        who = await _find(db, name)
        return len(await db.write(standing.set_role, settings.auth, who, role, None, db.now_us()))

    ended = _on_database(settings, act)
    print(
        f"{name} is {'an administrator' if role == 'admin' else 'an ordinary user'}; sessions ended: {ended}"
    )


async def _find(db: Database, name: str) -> UserId:
    from ..auth.accounts import fold
    from ..auth.admin import store

    found = await db.read(store.find_user, fold(name))
    if found is None:
        raise Failed(f"there is no account {name}")
    return found


def _password(from_stdin: bool) -> str:
    """Never from the command line, which other users of the machine can read."""
    if from_stdin:
        try:
            return sys.stdin.buffer.readline().decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise Failed("the password is not text in UTF-8") from None
    if not sys.stdin.isatty():
        raise Failed("there is no terminal to ask for the password at: give it with --password-stdin")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise Failed("the two are not the same")
    return password


def _on_database(
    settings: Config, act: Callable[[Database], Awaitable[T]], copy_tables: CopyTables | None = None
) -> T:
    """copy_tables: what does so before the database is brought up to date; None: it is not."""
    import trio

    from ..deps.policy import open_database

    async def main() -> T:
        make = copy_tables is not None
        async with open_database(settings, bring_up_to_date=make, copy_tables=copy_tables) as db:
            return await act(db)

    return trio.run(main)
