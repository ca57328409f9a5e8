"""What a restore makes of a backup: in either database, of any age, and only where there is room for it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import trio
from msgspec import structs

from kit import command
from kit.objects import put
from secureconnect import audit, node
from secureconnect.auth.keys import rotate
from secureconnect.backup import (
    Folder,
    Refused,
    Source,
    clear,
    make,
    require_known,
    require_place,
    restore,
)  # fmt: skip
from secureconnect.backup.load import load
from secureconnect.config import AuthConfig, PostgresConfig, SqliteConfig
from secureconnect.deps import migrate
from secureconnect.deps.asyncio_bridge import open_bridge
from secureconnect.deps.contracts import Row, Tx
from secureconnect.deps.files import FolderObjects
from secureconnect.deps.postgres import Postgres
from secureconnect.deps.postgres_snapshot import PostgresSnapshot
from secureconnect.deps.sqlite import Sqlite
from secureconnect.identity import new_id
from secureconnect.move.tables import read_tables
from secureconnect.settings import BadSetting

from .rig import ANOTHER, CONTENT, FILE, TIMES, Place, a_place, empty_place, private, sums, to_nobody

BEFORE_RECORDINGS = 44  # a migration
FILES = 60  # so that what is killed is not done yet


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with a_place(tmp_path) as place:
        yield place


async def test_from_one_database_into_the_other_and_back(
    place: Place, tmp_path: Path, postgres_url: str
) -> None:
    """Row by row the same at the end, whatever the two call their types."""
    await place.make()

    async def nobody(_: str) -> str:
        raise AssertionError("it is not sealed")

    async with open_bridge() as bridge, Postgres.open(PostgresConfig(url=postgres_url), bridge) as there:
        await load(place.find(), there, to_nobody)
        with pytest.raises(BadSetting, match="not whole"):
            await node.Node.open(there, place.data, "", "x")
        source = Source(
            lambda: PostgresSnapshot.open(there, bridge), there, place.objects, ("postgres", "folder"), nobody
        )
        folder = Folder.make(tmp_path / "others", None)
        with folder.held():
            await make(source, folder, to_nobody)
        tables = await there.read(read_tables)
        nothing = FolderObjects(private(tmp_path / "nothing") / "objects")
        await require_place(there, nothing, tmp_path / "nothing", place.find())
        await there.write(_forget_mark)
        with pytest.raises(Refused, match="there is an installation here"):
            await require_place(there, nothing, tmp_path / "nothing", place.find())
        await clear(there)
        assert "meta" not in await there.read(read_tables)
    back = type(place.find()).find(tmp_path / "others", None)
    assert back.manifest.database == "postgres"
    async with Sqlite.open(tmp_path / "back.db", SqliteConfig()) as db:
        await load(back, db, to_nobody)
        await db.write(_forget_mark)
        assert await sums(db, tables) == await sums(place.db, tables)


async def _forget_mark(tx: Tx) -> None:
    await tx.run("DELETE FROM meta WHERE key = 'restore'")


async def test_a_backup_of_an_earlier_program_is_brought_up_to_date(tmp_path: Path) -> None:
    async with a_place(tmp_path, BEFORE_RECORDINGS) as place:
        await place.make_of_tables()
    backup = place.find()
    assert not [name for name in backup.manifest.tables if name.startswith("recording")]
    async with Sqlite.open(tmp_path / "back.db", SqliteConfig()) as db:
        await load(backup, db, to_nobody)
        assert await migrate.missing(db) == []
        assert "recordings" in await db.read(read_tables)


async def test_a_schema_that_a_server_changes_meanwhile_is_noticed(tmp_path: Path) -> None:
    """Its step would have been made on a part of the rows."""
    async with a_place(tmp_path, BEFORE_RECORDINGS) as place:
        await place.make_of_tables()
    backup = place.find()
    begun = trio.Event()

    async def change() -> None:
        await begun.wait()
        await migrate.apply(db)

    async with (
        Sqlite.open(tmp_path / "back.db", SqliteConfig()) as db,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(change)
        with pytest.raises(Refused, match="changed the schema meanwhile"):
            await load(backup, db, lambda _: begun.set())


async def test_a_backup_of_a_later_program_is_refused(place: Place) -> None:
    await place.make()
    known = place.find().manifest
    later = structs.replace(known, program="9.0.0", migrations=[*known.migrations, (9_999, "9999_moods")])
    for dialect in ("sqlite", "postgres"):
        require_known(known, dialect)
        with pytest.raises(Refused, match=r"newer program \(9\.0\.0\).*9999_moods"):
            require_known(later, dialect)


async def test_where_there_is_something_nothing_is_restored(place: Place, tmp_path: Path) -> None:
    await place.make()
    backup = place.find()
    async with empty_place(tmp_path / "fresh") as (db, objects, config):
        folder = Path(config.data_dir)
        await require_place(db, objects, folder, backup)
        await put(objects, "files/1", b"abc")
        with pytest.raises(Refused, match="files in the store already"):
            await require_place(db, objects, folder, backup)
        await objects.delete("files/1")
        (folder / "journal").write_bytes(b"something accepted")
        with pytest.raises(Refused, match="accepted and not stored yet"):
            await require_place(db, objects, folder, backup)
        (folder / "journal").unlink()
        await load(backup, db, to_nobody)
        await require_place(db, objects, folder, backup)
        other = replace(backup, manifest=structs.replace(backup.manifest, backup_id="another"))
        with pytest.raises(Refused, match="the restore of another backup"):
            await require_place(db, objects, folder, other)
        await db.write(_forget_mark)
        with pytest.raises(Refused, match="there is an installation here"):
            await require_place(db, objects, folder, backup)


async def test_what_was_restored_is_another_history_and_its_log_names_the_end_of_the_old_one(
    place: Place, tmp_path: Path
) -> None:
    made = await place.make()
    async with empty_place(tmp_path / "fresh") as (db, objects, config):
        done = await restore(place.find(), db, objects, place.secrets, config, to_nobody)
        assert done.history_id == await db.read(node.read_history_id) != made.manifest.history_id
        assert await db.read(node.read_restore) is None
        (old,) = await place.db.read(place.secrets.list, "jwt")
        (new,) = await db.read(place.secrets.list, "jwt")
        assert (new.version, new.value == old.value) == (old.version + 1, False)
        keys = {place.secrets.key_id: place.secrets.derive("audit")}
        head_file = Path(config.data_dir) / "audit.head"
        verdict = await audit.verify(db, keys, head_file)
        assert (verdict.whole, verdict.sealed) == (True, 2)


async def test_what_stood_before_a_restore_cannot_be_exchanged_for_the_log_of_another(
    place: Place, tmp_path: Path
) -> None:
    """Of two restores of the same installation each log is sealed with the same key."""
    keys = {place.secrets.key_id: place.secrets.derive("audit")}
    nowhere = tmp_path / "none"
    await place.make()
    async with empty_place(tmp_path / "one") as (db, objects, config):
        await restore(place.find(), db, objects, place.secrets, config, to_nobody)
        other = await db.read(_second)
    await rotate(place.db, place.secrets, AuthConfig(), place.db.now_us())
    await place.make()
    async with empty_place(tmp_path / "two") as (db, objects, config):
        await restore(place.find(), db, objects, place.secrets, config, to_nobody)
        verdict = await audit.verify(db, keys, nowhere)
        assert (verdict.whole, verdict.sealed) == (True, 3)
        await db.write(_exchange, other)
        verdict = await audit.verify(db, keys, nowhere)
        assert verdict.findings == ["row 3 says that another log was restored than stands before it"]


async def _second(tx: Tx) -> Row:
    row = await tx.one("SELECT * FROM audit WHERE position = 2")
    assert row is not None
    return row


async def _exchange(tx: Tx, row: Row) -> None:
    await tx.run("DELETE FROM audit WHERE position = 2")
    values = ", ".join(f"${number}" for number in range(1, len(row) + 1))
    await tx.run(f"INSERT INTO audit VALUES ({values})", *row)


# killed


def begun(*args: str | Path, until: str, **settings: str) -> int:
    """Run the command, and kill it once it says that. Returns its exit code."""
    process = subprocess.Popen(
        [sys.executable, "-m", "secureconnect", *map(str, args)],
        env=os.environ | {f"SECURECONNECT_{key}": value for key, value in settings.items()},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    with process.stderr as said:
        for line in said:
            if line.startswith(until):
                process.send_signal(signal.SIGKILL)
    return process.wait()


async def more_files(place: Place) -> None:
    async def unit(tx: Tx) -> None:
        for at in range(FILES):
            name = f"{at:032x}"
            await tx.run(
                FILE,
                new_id(),
                place.user,
                len(CONTENT),
                None,
                name,
                *TIMES,
            )

    for at in range(FILES):
        await put(place.objects, f"files/{at:032x}", CONTENT)
    await place.db.write(unit)


async def test_killed_in_the_middle_it_is_seen_and_begun_again(tmp_path: Path) -> None:
    async with a_place(tmp_path) as place:
        await more_files(place)
    trio_thread = trio.to_thread.run_sync
    backup = ("backup", place.dest, "--data-dir", place.data)
    assert await trio_thread(partial(begun, *backup, until="copying messages")) == -signal.SIGKILL
    with pytest.raises(Refused, match="there is no whole backup"):
        place.find()
    assert (await trio_thread(partial(command.run, *backup, cwd=tmp_path))).returncode == 0
    assert len(place.find().folder.backups()) == 1

    fresh = tmp_path / "fresh"
    private(fresh)
    shutil.copy(place.data / "master.key", fresh)
    again = ("restore", place.dest, "--data-dir", fresh)
    assert await trio_thread(partial(begun, *again, until="restoring messages")) == -signal.SIGKILL
    serve = partial(command.fails, 2, "serve", "--port", "0", "--data-dir", fresh, cwd=tmp_path)
    assert "is not whole: a backup is being restored into it" in await trio_thread(serve)
    done = await trio_thread(partial(command.run, *again, cwd=tmp_path))
    assert done.returncode == 0, done.stderr
    assert f"{FILES + 1} files of " in done.stdout
    async with Sqlite.open(fresh / "secureconnect.db", SqliteConfig()) as db:
        assert await db.read(node.read_restore) is None


async def test_killed_again_and_again_it_comes_out_whole_in_postgres(
    tmp_path: Path, postgres_url: str
) -> None:
    """Among the tables, and among the files."""
    async with a_place(tmp_path) as place:
        await more_files(place)
        await place.make()
    fresh = private(tmp_path / "fresh")
    shutil.copy(place.data / "master.key", fresh)
    again = ("restore", place.dest, "--data-dir", fresh)
    for last in ("restoring messages", "restoring users"):
        kill = partial(begun, *again, until=last, POSTGRES__URL=postgres_url)
        assert await trio.to_thread.run_sync(kill) == -signal.SIGKILL
        async with open_bridge() as bridge, Postgres.open(PostgresConfig(url=postgres_url), bridge) as db:
            with pytest.raises(BadSetting, match="not whole"):
                await node.Node.open(db, fresh, "", "x")
    restore = partial(command.run, *again, cwd=tmp_path, POSTGRES__URL=postgres_url)
    done = await trio.to_thread.run_sync(restore)
    assert done.returncode == 0, done.stderr
    assert f"{FILES + 1} files of " in done.stdout
    async with open_bridge() as bridge, Postgres.open(PostgresConfig(url=postgres_url), bridge) as db:
        assert await db.read(node.read_restore) is None
        tables = await db.read(read_tables)
        back = await sums(db, tables)
    async with Sqlite.open(place.data / "secureconnect.db", SqliteConfig()) as source:
        there = await sums(source, tables)
    assert {name for name in there if back[name] != there[name]} == ANOTHER
    assert len([key async for key in FolderObjects(fresh / "objects").list("")]) == FILES + 1
