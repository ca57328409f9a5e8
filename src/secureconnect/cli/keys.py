"""`secureconnect keys`: the keys that sign access tokens."""

from __future__ import annotations

from pathlib import Path

import typer

from .options import ConfigFile, DataDir, prepare

keys = typer.Typer(help="The keys that sign access tokens.", no_args_is_help=True)


@keys.callback()
def _() -> None:
    """The keys that sign access tokens."""


@keys.command()
def rotate(config_file: ConfigFile = None, data_dir: DataDir = None) -> None:
    """Make a new signing key. Running servers take it up by themselves and nobody is signed out."""
    settings = prepare(config_file, data_dir)
    import trio

    from ..auth.keys import rotate as add_key
    from ..deps.policy import open_database
    from ..node import Secrets

    async def main() -> None:
        async with open_database(settings) as db:
            secrets = await Secrets.open(db, Path(settings.data_dir), settings.auth.master_key)
            version = await add_key(db, secrets, settings.auth, db.now_us())
        print(f"signing key {version} is made and will sign in {settings.auth.key_lead_s} s")

    trio.run(main)
