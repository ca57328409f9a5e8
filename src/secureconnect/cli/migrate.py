"""`secureconnect migrate`: bring the schema up to date without starting the server, which does it too."""

from __future__ import annotations

from .options import ConfigFile, DataDir, prepare


def migrate(config_file: ConfigFile = None, data_dir: DataDir = None) -> None:
    """Bring the database up to date, and make it if there is none."""
    settings = prepare(config_file, data_dir, level="info")
    import trio

    from ..backup.upgrade import copy_tables
    from ..deps.policy import open_database

    async def main() -> None:
        async with open_database(settings, bring_up_to_date=True, copy_tables=copy_tables):
            print(f"the database in {settings.data_dir} is up to date")

    trio.run(main)
