"""`secureconnect move`: from the embedded database into Postgres."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..clock import to_iso
from ..config import Config, PostgresConfig
from ..settings import POSTGRES_URL, BadSetting
from .options import ConfigFile, DataDir, Failed, prepare
from .progress import progress

if TYPE_CHECKING:
    from ..deps.asyncio_bridge import Bridge
    from ..move import Difference, Moved
    from .progress import Tell

UNIT_S = 600.0  # a batch, or the schema; nobody else waits for either side

To = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar="URL",
        help="postgres://user:password@host:port/database; without it the setting postgres.url, which nobody"
        " reads in the list of processes.",
    ),
]


def move(to: To = None, config_file: ConfigFile = None, data_dir: DataDir = None) -> None:
    """Carry an embedded installation into Postgres, and its files into MinIO if that is configured.

    The server must be stopped. The folder stays as it is. Interrupted, the same command goes on where it was.
    Exit code 1 if the copy is not equal to the source in the end.
    """
    settings = prepare(config_file, data_dir)
    settings = replace(settings, postgres=_target(settings, to))
    import trio

    from ..deps.policy import DATABASE, NotReady

    if not (Path(settings.data_dir) / DATABASE).exists():
        raise NotReady(f"there is no database in {settings.data_dir}: give --data-dir")
    moved, files = trio.run(_move, settings)
    width = max(map(len, moved.sums))
    for table, each in moved.sums.items():
        print(f"{table:<{width}} {each.rows:>9} rows, checksum {each.checksum[:16]}")
    for difference in moved.differences:
        _print_difference(difference)
    for key in files.wrong:
        print(f"DIFFERS: file {key}")
    if moved.before_us is not None:
        print(f"this was moved already, at {to_iso(moved.before_us)}; nothing was copied again")
        if moved.differences:
            raise Failed("the source was changed after it had been moved: decide which side is to be kept")
    if moved.differences or files.wrong:
        raise Failed("the target is not equal to the source: empty it (dropdb, createdb), and move again")
    rows = sum(each.rows for each in moved.sums.values())
    print(f"moved and compared: {rows} rows in {len(moved.sums)} tables, {files.count} files")
    _say_what_now(settings, to)


def _target(settings: Config, to: str | None) -> PostgresConfig:
    url = to or settings.postgres.url
    if not url:
        raise BadSetting("where to? give --to postgres://…, or set postgres.url")
    if not POSTGRES_URL.fits(url):
        raise BadSetting("--to takes postgres://user:password@host:port/database")
    return replace(settings.postgres, url=url, statement_s=UNIT_S)


async def _move(settings: Config) -> tuple[Moved, _Files]:
    from ..deps.asyncio_bridge import open_bridge
    from ..deps.policy import DATABASE, hold_folder
    from ..deps.postgres import Postgres
    from ..deps.sqlite import Sqlite
    from ..errors import Unavailable
    from ..move import Refused, move

    path = Path(settings.data_dir) / DATABASE
    here = replace(settings.sqlite, statement_s=UNIT_S, readers=1)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(hold_folder(settings))
        await _require_empty_journal(settings)
        bridge = await stack.enter_async_context(open_bridge())
        source = await stack.enter_async_context(Sqlite.open(path, here))
        target = await stack.enter_async_context(Postgres.open(settings.postgres, bridge))
        try:
            await target.probe()
        except Unavailable as exc:
            raise Failed(
                "Postgres cannot be used: set postgres.url to it, and `secureconnect doctor` says why"
            ) from exc
        files = _Files(settings, bridge)
        try:
            with progress() as tell:
                moved = await move(source, target, tell, partial(files.carry, tell))
        except Refused as exc:
            raise Failed(str(exc)) from exc
        except Unavailable as exc:
            raise Failed(f"interrupted: {exc} The same command goes on where it was") from exc
    return moved, files


async def _require_empty_journal(settings: Config) -> None:
    """What was accepted lies in no table yet, and the folder may stay behind."""
    from ..deps.journal import FileJournal
    from ..deps.policy import JOURNAL

    path = Path(settings.data_dir) / JOURNAL
    if not path.exists() or not path.stat().st_size:
        return
    async with FileJournal.open(path, settings.journal) as journal:
        if journal.waiting:
            raise Failed(
                f"{journal.waiting} accepted messages wait in {path}:"
                " start the server until it has stored them, stop it, and move then"
            )


class _Files:
    """count: how many there are.  wrong: those that differ in the end."""

    def __init__(self, settings: Config, bridge: Bridge) -> None:
        self._settings = settings
        self._bridge = bridge
        self.count = 0
        self.wrong: list[str] = []

    async def carry(self, tell: Tell) -> bool:
        """Into MinIO, if that is configured; else they stay in the folder."""
        folder = Path(self._settings.data_dir) / "objects"
        if not self._settings.minio.endpoint or not folder.is_dir():
            return True
        from ..deps.files import FolderObjects
        from ..deps.minio import MinioObjects
        from ..errors import Unavailable
        from ..move import Batch, carry_files

        def tell_files(done: int) -> None:
            tell(Batch("copying", "files", done, done))

        async with MinioObjects.open(self._settings.minio, self._bridge) as target:
            try:
                await target.probe()
            except Unavailable as exc:
                raise Failed("MinIO cannot be used: `secureconnect doctor` says why") from exc
            self.count, self.wrong = await carry_files(FolderObjects(folder), target, tell_files)
        return not self.wrong


def _print_difference(difference: Difference) -> None:
    here, there = difference.source, difference.target
    print(
        f"DIFFERS: {difference.table}: the source has {here.rows} rows, checksum {here.checksum[:16]};"
        f" the target {there.rows}, checksum {there.checksum[:16]}"
    )
    for row in difference.rows:
        print(f"DIFFERS: {difference.table}: {row}")


def _say_what_now(settings: Config, to: str | None) -> None:
    print("now set, and start the server:")
    print("  [postgres]")
    print('  url = "postgres://…"    # the one given here' if to else "  url: as it is set already")
    if settings.auth.master_key:
        print("  auth.master_key: as it is; equal on every node")
    else:
        print(
            f"keep {settings.data_dir}/master.key in the server's data folder: it opens what was moved."
            " On further nodes copy the file there, or set auth.master_key to what is in it"
        )
    if not settings.minio.endpoint:
        print(f"files stay in {settings.data_dir}/objects: one node alone can use them")
    print(f"{settings.data_dir}/secureconnect.db is as it was: put it away once all is well")
