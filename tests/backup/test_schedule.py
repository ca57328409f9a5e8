"""Backups that a server makes by itself, how many are kept, and copies from before a change of the schema."""

from __future__ import annotations

import base64
import json
import os
import re
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import trio

from kit.fixtures import StartServer
from kit.objects import keys, put
from kit.people import people, upload
from kit.scrape import value
from kit.wait import until
from kit.worlds import World
from secureconnect.backup import Folder, Opened, Source, check, prune, read_all
from secureconnect.backup.schedule import LEASE_S, Backups
from secureconnect.config import BackupConfig, Config, PostgresConfig
from secureconnect.deps import migrate, upgrade
from secureconnect.deps.asyncio_bridge import open_bridge
from secureconnect.deps.contracts import Database, Snapshot, Tx
from secureconnect.deps.policy import open_database
from secureconnect.deps.postgres import Postgres
from secureconnect.deps.sqlite_snapshot import SqliteSnapshot
from secureconnect.deps.upgrade import COPIES
from secureconnect.identity import NodeId, new_id
from secureconnect.node import BACKUP, change_note, read_note

from .rig import CONTENT, FILE, TIMES, Place, a_place, to_nobody


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with a_place(tmp_path) as place:
        yield place


def backups(
    place: Place,
    config: BackupConfig,
    db: Database | None = None,
    lease_s: float = LEASE_S,
    snapshot: Callable[[], AbstractAsyncContextManager[Snapshot]] | None = None,
) -> Backups:
    """Of a node of its own."""

    async def master(_: str) -> str:
        return place.secrets.master

    path = place.data / "secureconnect.db"
    source = Source(
        snapshot or partial(SqliteSnapshot.open, path),
        db or place.db,
        place.objects,
        ("sqlite", "folder"),
        master,
    )
    return Backups(config, source, NodeId(new_id()), lease_s)


# what is embedded is asked in the same way by the tests below
@pytest.mark.parametrize("world", ["real"], indirect=True)
async def test_a_server_makes_them_and_keeps_the_newest(
    start_server: StartServer, world: World, tmp_path: Path
) -> None:
    dest, phrase = tmp_path / "backups", tmp_path / "passphrase"
    phrase.touch(0o600)
    phrase.write_text("a passphrase for tests\n")
    server = start_server(
        BACKUP__FOLDER=str(dest), BACKUP__EVERY_S="1", BACKUP__KEEP="1", BACKUP__PASSPHRASE_FILE=str(phrase)
    )

    def made() -> list[str]:
        return [each["backup"] for each in server.logs() if each["msg"] == "backup_made"]

    async with people(server.url, "ann") as (ann,):
        await upload(ann, CONTENT)
        before = len(made())
        await until(lambda: len(made()) >= before + 2, 60)
        assert await server.metric("secureconnect_backup_last_success_timestamp_seconds") > 1.7e9
        assert await server.metric("secureconnect_backup_due_timestamp_seconds") > 1.7e9
        assert await server.metric("secureconnect_backup_bytes") > len(CONTENT)
        assert await server.metric("secureconnect_backup_duration_seconds") > 0
        assert await server.metric("secureconnect_backup_files_lost") == 0
        assert await server.metric("secureconnect_backup_failures_total") == 0
    assert server.terminate() == 0
    opened = Opened.find(dest, b"a passphrase for tests")
    assert len(opened.folder.backups()) == 1
    assert opened.path.name in made()
    assert opened.manifest.files.sheet.rows == 1
    await check(opened, to_nobody)


async def test_one_of_several_nodes_makes_it(place: Place) -> None:
    config = BackupConfig(folder=str(place.dest), every_s=3_600)
    nodes = [backups(place, config) for _ in range(3)]
    async with trio.open_nursery() as nursery:
        for each in nodes:
            nursery.start_soon(each.pass_once)
    assert len(place.find().folder.backups()) == 1
    assert await nodes[1].pass_once() is None, "it is not time yet"
    made_us = place.find().manifest.at_us
    assert value("secureconnect_backup_due_timestamp_seconds") == pytest.approx(
        made_us / 1e6 + 3_600, abs=1e-3
    )
    again = [await each.pass_once() for each in (backups(place, replace(config, every_s=0.001)), nodes[0])]
    assert [each is not None for each in again] == [True, False]


@pytest.mark.parametrize("world", ["real"], indirect=True)
async def test_two_servers_with_one_schedule_make_one_between_them(
    start_server: StartServer, world: World, tmp_path: Path
) -> None:
    """Whichever looks first; the other goes on alone."""
    dest = tmp_path / "backups"
    settings = world() | {"BACKUP__FOLDER": str(dest), "BACKUP__EVERY_S": "1", "BACKUP__KEEP": "100"}
    settings["AUTH__MASTER_KEY"] = base64.b64encode(os.urandom(32)).decode()
    servers = [start_server(**settings) for _ in range(2)]

    def made() -> list[str]:
        return sorted(
            each["backup"] for server in servers for each in server.logs() if each["msg"] == "backup_made"
        )

    await until(lambda: len(made()) >= 3, 60)
    assert servers[0].terminate() == 0
    before = len(made())
    await until(lambda: len(made()) > before, 60)
    assert servers[1].terminate() == 0
    names = [path.name for path in Folder.open(dest, None).backups()]
    assert names == made()
    times = [datetime.strptime(name, "%Y-%m-%dT%H%M%S.%fZ") for name in names]
    gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(times)]
    assert min(gaps) > 0.9


async def test_a_node_that_has_lost_its_turn_leaves_off(place: Place) -> None:
    """It was frozen, and another one has begun."""
    begun = trio.Event()

    @asynccontextmanager
    async def slowly() -> AsyncIterator[Snapshot]:
        async with SqliteSnapshot.open(place.data / "secureconnect.db") as held:
            begun.set()
            await trio.Event().wait()
            yield held

    node = backups(place, BackupConfig(folder=str(place.dest)), lease_s=0.4, snapshot=slowly)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.pass_once)
        await begun.wait()
        other = json.dumps({"holder": new_id(), "until_us": 2**60})

        async def take(tx: Tx) -> None:
            assert await change_note(tx, BACKUP, await read_note(tx, BACKUP), other)

        await place.db.write(take)

    async def turn(tx: Tx) -> str | None:
        return await read_note(tx, BACKUP)

    assert await place.db.read(turn) == other, "it is the other one's"


async def test_nodes_on_postgres_do_not_take_the_same_turn(place: Place, migrated_url: str) -> None:
    config = BackupConfig(folder=str(place.dest), every_s=3_600)
    taken = []
    async with (
        open_bridge() as bridge,
        Postgres.open(PostgresConfig(url=migrated_url), bridge) as db,
        trio.open_nursery() as nursery,
    ):

        async def take(node: Backups) -> None:
            if await db.write(node._take) is not None:
                taken.append(node)

        for _ in range(8):
            nursery.start_soon(take, backups(place, config, db))
    assert len(taken) == 1


async def test_what_goes_wrong_is_told_and_ends_nothing(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.dest.mkdir()
    (place.dest / "letters").mkdir()
    node = backups(place, BackupConfig(folder=str(place.dest), every_s=3_600))
    failed = value("secureconnect_backup_failures_total")
    began_us = place.db.now_us()
    assert await node.pass_once() is None
    due = value("secureconnect_backup_due_timestamp_seconds")
    assert began_us <= due * 1e6 <= place.db.now_us(), "none was ever made"
    assert value("secureconnect_backup_failures_total") == failed + 1
    (place.dest / "letters").rmdir()
    assert await node.pass_once() is None, "it is tried again after a while, not at once"
    other = backups(place, BackupConfig(folder=str(place.dest), every_s=0.001))
    assert await other.pass_once() is None, "by no node"
    assert value("secureconnect_backup_due_timestamp_seconds") == due


async def test_content_that_the_store_has_not_is_told_of(place: Place) -> None:
    await place.objects.delete(place.key)
    assert await backups(place, BackupConfig(folder=str(place.dest))).pass_once() is not None
    assert value("secureconnect_backup_files_lost") == 1


async def more(place: Place, name: str) -> None:
    async def unit(tx: Tx) -> None:
        await tx.run(FILE, new_id(), place.user, len(CONTENT), None, name, *TIMES)

    await put(place.objects, f"files/{name}", CONTENT)
    await place.db.write(unit)


async def test_what_is_too_many_goes_with_what_only_it_needed(place: Place) -> None:
    await place.make()

    async def forget(tx: Tx) -> None:
        await tx.run("DELETE FROM files")

    await place.db.write(forget)
    for number in range(3):
        await more(place, f"{number:032x}")
        await place.make()
    folder = Folder.open(place.dest, None)
    draft = folder.object("ab" * 32).with_suffix(".new")
    draft.parent.mkdir(exist_ok=True)
    draft.touch()
    first, *rest = folder.backups()
    assert len(list(place.dest.glob("objects/*/*"))) == 5
    with folder.held():
        assert prune(folder, 3) == [first]
        assert prune(folder, 3) == []
    assert folder.backups() == rest
    there = {path.name for path in place.dest.glob("objects/*/*")}
    assert there == {folder.name_of(f"files/{number:032x}") for number in range(3)}
    for path in rest:
        await read_all(Opened.find(path, None), to_nobody)
    assert len(await keys(place.objects)) == 4


async def test_before_the_schema_changes_the_file_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A few of these are kept, and none is made of a new file."""
    monkeypatch.setattr(upgrade, "SAY_EVERY_S", 0)
    data = tmp_path / "data"
    config = Config(data_dir=str(data))
    async with open_database(config, bring_up_to_date=True) as db:
        applied = await db.read(migrate.applied)
    assert not (data / COPIES).exists()
    for number, _ in reversed(applied[-3:]):
        with closing(sqlite3.connect(data / "secureconnect.db")) as file, file:
            file.execute("DELETE FROM schema_migrations WHERE number >= ?", (number,))
        # it is only as if it were behind
        with pytest.raises(RuntimeError, match=r"already exists|duplicate column"):
            async with open_database(config, bring_up_to_date=True):
                pass
    copies = sorted((data / COPIES).iterdir())
    before = [number for number, _ in applied[-4:-1]]
    assert [path.name for path in copies] == [f"{number:04}.db" for number in before[:2]]
    assert {path.stat().st_mode & 0o777 for path in copies} == {0o600}
    said = capsys.readouterr().out
    assert re.search(r"database_copying .*part=pages", said)
    assert re.search(rf"database_copied .*copy={copies[0]}", said)
    with closing(sqlite3.connect(copies[0])) as file:
        assert file.execute("SELECT MAX(number) FROM schema_migrations").fetchone() == (before[0],)
    (data / COPIES / "new").mkdir()
    with pytest.raises(migrate.MigrationError, match="no copy of the database could be made before"):
        async with open_database(config, bring_up_to_date=True):
            pass
