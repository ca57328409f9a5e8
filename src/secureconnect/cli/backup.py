"""`secureconnect backup`: a copy of the installation, made while its server runs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..clock import to_iso
from ..config import Config
from .options import ConfigFile, DataDir, Failed, prepare
from .progress import progress

if TYPE_CHECKING:
    from ..backup import Made, Opened
    from ..backup.manifest import Manifest

VERIFY = "verify"

Where = Annotated[
    str,
    typer.Argument(metavar="DEST", help="Folder the backups are in; made if need be. Or the word `verify`."),
]
Source = Annotated[
    Path | None,
    typer.Argument(
        metavar="SRC", help="After `verify`: that folder, for its newest backup, or one backup in it."
    ),
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        metavar="FILE",
        help="File whose first line seals everything, the master key included; readable by its owner alone."
        " Needed again for each backup in that folder, and to restore one.",
    ),
]


Keep = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Backups kept in that folder, the newest; without it, all."),
]


def backup(
    dest: Where,
    source: Source = None,
    passphrase_file: PassphraseFile = None,
    keep: Keep = None,
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Copy everything into a folder, beside the running server: `backup DEST`.

    Files that an earlier backup in that folder has are not copied again. `backup verify SRC` reads every byte
    of a backup and restores it into a scratch file. Exit code 1 if something is wrong.
    """
    if dest == VERIFY:
        if source is None:
            raise typer.BadParameter("verify what? For a folder of that name say ./verify")
        prepare(config_file, data_dir)
        _verify(source, passphrase_file)
    elif source is not None:
        raise typer.BadParameter(f"one folder, not also {source}")
    else:
        _make(prepare(config_file, data_dir), Path(dest), passphrase_file, keep)


def _make(settings: Config, dest: Path, passphrase_file: Path | None, keep: int | None) -> None:
    import trio

    made, removed = trio.run(_made, settings, dest, passphrase_file, keep)
    manifest, files = made.manifest, made.manifest.files
    print(
        f"{made.path}: {manifest.rows} rows in {len(manifest.tables)} tables,"
        f" {files.sheet.rows} files of {size(files.size_bytes)},"
        f" of which {files.copied} of {size(files.copied_bytes)} were copied now"
    )
    print(f"everything acknowledged until {to_iso(manifest.at_us)} is in it")
    if manifest.master_key is not None:
        print(f"it holds the master key {manifest.master_key_id}, under the passphrase")
    else:
        place = "auth.master_key" if settings.auth.master_key else f"{settings.data_dir}/master.key"
        print(
            f"it does not hold the master key {manifest.master_key_id}, without which it cannot be restored:"
            f" keep {place} elsewhere"
        )
    for path in removed:
        print(f"removed: {path}")
    if files.lost:
        raise Failed(
            f"of {files.lost} files the store has no content, or another than it should:"
            " the backup is whole but for these"
        )


async def _made(
    settings: Config, dest: Path, passphrase_file: Path | None, keep: int | None
) -> tuple[Made, list[Path]]:
    import trio

    from .. import backup
    from ..deps.policy import open_database, open_objects, open_snapshot
    from ..node import Secrets

    async def master(key_id: str) -> str:
        secrets = await Secrets.reopen(Path(settings.data_dir), settings.auth.master_key, key_id)
        return secrets.master

    try:
        async with (
            open_database(settings) as db,
            open_objects(settings, reads_only=True) as objects,
        ):
            passphrase = _passphrase(passphrase_file)
            folder = await trio.to_thread.run_sync(backup.Folder.make, dest, passphrase)
            names = (
                "postgres" if settings.postgres.url else "sqlite",
                "s3" if settings.minio.endpoint else "folder",
            )
            source = backup.Source(partial(open_snapshot, settings), db, objects, names, master)
            with folder.held(), progress() as tell:
                made = await backup.make(source, folder, tell)
                return made, backup.prune(folder, keep) if keep is not None else []
    except (backup.Refused, backup.Damaged) as exc:
        raise Failed(str(exc)) from exc


def _verify(source: Path, passphrase_file: Path | None) -> None:
    import trio

    opened, rows = trio.run(_verified, source, passphrase_file)
    told = opened.manifest
    print(f"{opened.path} is whole: {rows} rows in {len(told.tables)} tables, {files_of(told)}")


async def _verified(source: Path, passphrase_file: Path | None) -> tuple[Opened, int]:
    from .. import backup
    from ..deps.migrate import MigrationError

    try:
        opened = await open_backup(source, passphrase_file)
        with progress() as tell:
            return opened, await backup.check(opened, tell)
    except (backup.Refused, backup.Damaged, MigrationError) as exc:
        raise Failed(str(exc)) from exc


async def open_backup(source: Path, passphrase_file: Path | None) -> Opened:
    """Raises what `backup` does."""
    import trio

    from .. import backup

    return await trio.to_thread.run_sync(backup.Opened.find, source, _passphrase(passphrase_file))


def _passphrase(path: Path | None) -> bytes | None:
    from ..backup import read_passphrase

    return None if path is None else read_passphrase(path)


def files_of(manifest: Manifest) -> str:
    """In words."""
    if not manifest.has_files:
        return "and no files: they stay where they are"
    return f"{manifest.files.sheet.rows} files of {size(manifest.files.size_bytes)}"


def size(count: int) -> str:
    """Bytes in words."""
    if count < 1000:
        return f"{count} bytes"
    power = min((len(str(count)) - 1) // 3, 4)
    return f"{count / 1000**power:.1f} {('kB', 'MB', 'GB', 'TB')[power - 1]}"
