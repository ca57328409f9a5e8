"""`secureconnect restore`: an installation from a backup, in the place of none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..clock import to_iso
from ..config import Config
from .backup import PassphraseFile, files_of, open_backup
from .options import ConfigFile, DataDir, Failed, prepare
from .progress import progress

if TYPE_CHECKING:
    from ..backup import Opened, Restored
    from ..deps.contracts import Database
    from ..node import Secrets

UNIT_S = 600.0  # a batch, or a step of the schema; nobody else waits for the database

Source = Annotated[
    Path,
    typer.Argument(metavar="SRC", help="Folder of backups, for the newest of them, or one backup in it."),
]


def restore(
    source: Source,
    passphrase_file: PassphraseFile = None,
    config_file: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Make an installation of a backup: in an empty data folder, or in Postgres and a bucket if the settings
    say so, wherever the backup comes from.

    Everybody signs in again, and clients read everything again. Interrupted, the same command begins anew.
    """
    settings = prepare(config_file, data_dir)
    import trio

    opened, restored = trio.run(_restored, settings, source, passphrase_file)
    manifest = opened.manifest
    print(
        f"restored {opened.path}: {restored.rows} rows in {len(manifest.tables)} tables, {files_of(manifest)}"
    )
    print(f"it is as it was at {to_iso(manifest.at_us)}; the history is now {restored.history_id}")
    if manifest.files.gone:
        print(f"{manifest.files.gone} files were being deleted when the backup was made: they are deleted")
    if manifest.files.lost:
        print(f"of {manifest.files.lost} files the backup has no content: they cannot be fetched")
    print("start the server; everybody signs in again")


async def _restored(settings: Config, source: Path, passphrase_file: Path | None) -> tuple[Opened, Restored]:
    from .. import backup
    from ..deps.policy import DATABASE, hold_folder, open_objects
    from ..errors import Unavailable

    try:
        opened = await open_backup(source, passphrase_file)
        backup.require_known(opened.manifest, "postgres" if settings.postgres.url else "sqlite")
        async with hold_folder(settings), open_objects(settings, reads_only=False) as objects:
            path = Path(settings.data_dir) / DATABASE
            if settings.postgres.url or path.exists():
                async with _database(settings) as db:
                    await backup.require_place(db, objects, Path(settings.data_dir), opened)
            secrets = await _secrets(settings, opened)
            with progress() as tell:
                await backup.read_all(opened, tell)
                if not settings.postgres.url:
                    backup.clear_file(path)
                async with _database(settings) as db:
                    if settings.postgres.url:
                        await backup.clear(db)
                    return opened, await backup.restore(opened, db, objects, secrets, settings, tell)
    except (backup.Refused, backup.Damaged) as exc:
        raise Failed(str(exc)) from exc
    except Unavailable as exc:
        raise Failed(f"interrupted: {exc} The same command begins anew") from exc


@asynccontextmanager
async def _database(settings: Config) -> AsyncIterator[Database]:
    from ..deps.policy import DATABASE

    if not settings.postgres.url:
        from ..deps.sqlite import Sqlite

        config = replace(settings.sqlite, statement_s=UNIT_S, readers=1)
        async with Sqlite.open(Path(settings.data_dir) / DATABASE, config) as file:
            yield file
        return
    from ..deps.asyncio_bridge import open_bridge
    from ..deps.postgres import Postgres

    patient = replace(settings.postgres, statement_s=UNIT_S)
    async with open_bridge() as bridge, Postgres.open(patient, bridge) as db:
        await db.probe()
        yield db


async def _secrets(settings: Config, opened: Opened) -> Secrets:
    """With the master key of the settings, of the data folder, or of the backup, which is put there then."""
    import trio

    from ..node import Secrets, keep_master

    manifest, data_dir = opened.manifest, Path(settings.data_dir)
    if not settings.auth.master_key and not (data_dir / "master.key").exists():
        if manifest.master_key is None:
            raise Failed(
                f"the backup needs the master key {manifest.master_key_id} and does not hold it:"
                f" put master.key into {data_dir} (chmod 600), or set auth.master_key"
            )
        await trio.to_thread.run_sync(keep_master, data_dir, manifest.master_key)
    return await Secrets.reopen(data_dir, settings.auth.master_key, manifest.master_key_id)
