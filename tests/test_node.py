"""The master key and what it seals; this node's id and lease."""

from __future__ import annotations

import base64
import hmac
import json
import os
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from auth.harness import Clocked
from kit.databases import on_both, on_sqlite
from kit.wait import until
from secureconnect.clock import SECOND_US
from secureconnect.config import SqliteConfig
from secureconnect.deps import migrate
from secureconnect.deps.contracts import Database, Row, Tx, Value
from secureconnect.deps.sqlite import Sqlite
from secureconnect.identity import new_id
from secureconnect.node import KEY_BYTES, LEASE_S, SNAPSHOT, Node, Secret, SecretDamaged, Secrets
from secureconnect.settings import BadSetting

KEY = base64.b64encode(bytes(range(32))).decode()

pytest_generate_tests = on_both


async def rows(db: Database, sql: str) -> list[Row]:
    async def unit(tx: Tx) -> list[Row]:
        return await tx.all(sql)

    return await db.read(unit)


async def change(db: Database, sql: str, *args: Value) -> None:
    async def unit(tx: Tx) -> None:
        assert await tx.run(sql, *args) > 0

    await db.write(unit)


async def store(db: Database, secrets: Secrets, name: str, version: int, value: bytes) -> bool:
    async def unit(tx: Tx) -> bool:
        return await secrets.add(tx, name, version, value, active_us=5, now_us=3)

    return await db.write(unit)


async def refused(open_it: Callable[[], Awaitable[object]]) -> str:
    """The one line with which opening is refused."""
    with pytest.raises(BadSetting) as caught:
        await open_it()
    line = str(caught.value)
    assert "\n" not in line
    return line


# the master key


async def test_the_key_file_is_made_once_and_private(db: Database, data_dir: Path) -> None:
    first = await Secrets.open(db, data_dir, "")
    path = data_dir / "master.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    content = path.read_bytes()
    assert len(base64.b64decode(content)) == KEY_BYTES
    again = await Secrets.open(db, data_dir, "")
    assert path.read_bytes() == content
    assert again.derive("x") == first.derive("x")
    assert [path.name for path in await trio.Path(data_dir).glob("master*")] == ["master.key"]


async def test_the_content_of_the_file_can_be_the_setting(db: Database, data_dir: Path) -> None:
    first = await Secrets.open(db, data_dir, "")
    text = (data_dir / "master.key").read_text()
    assert (await Secrets.open(db, data_dir, text)).key_id == first.key_id


async def test_the_setting_comes_before_the_file(db: Database, data_dir: Path) -> None:
    secrets = await Secrets.open(db, data_dir, KEY)
    assert not (data_dir / "master.key").exists()
    assert secrets.derive("x") == Secrets(bytes(range(32))).derive("x")


def test_keys_for_different_ends_have_nothing_in_common() -> None:
    one, two = Secrets(bytes(32)), Secrets(bytes(31) + b"\x01")
    derived = {one.derive("audit"), one.derive("secrets"), two.derive("audit"), two.derive("secrets")}
    assert len(derived) == 4
    assert {len(each) for each in derived} == {KEY_BYTES}
    assert one.key_id != two.key_id


def test_keys_are_derived_as_rfc_5869_says() -> None:
    """What is stored today must open with tomorrow's program."""
    extracted = hmac.digest(bytes(32), bytes(range(32)), "sha256")
    expanded = hmac.digest(extracted, b"secureconnect:audit\x01", "sha256")
    assert Secrets(bytes(range(32))).derive("audit") == expanded


@pytest.mark.parametrize("text", ["hush", "aGVsbG8=", KEY[:-4], KEY + KEY, "é" * 43 + "="])
async def test_a_malformed_setting_is_refused_and_not_shown(db: Database, data_dir: Path, text: str) -> None:
    line = await refused(lambda: Secrets.open(db, data_dir, text))
    assert line == "auth.master_key = ******** is not valid: expected 32 bytes in base64"


async def test_a_file_open_to_others_is_refused(db: Database, data_dir: Path) -> None:
    await Secrets.open(db, data_dir, "")
    path = data_dir / "master.key"
    for mode in (0o640, 0o604, 0o620):
        path.chmod(mode)
        line = await refused(lambda: Secrets.open(db, data_dir, ""))
        assert str(path) in line
        assert f"{mode:04o}" in line
    path.chmod(0o400)
    await Secrets.open(db, data_dir, "")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", base64.b64encode(bytes(31)), bytes(range(200, 232))])
async def test_a_damaged_file_is_refused_and_kept(db: Database, data_dir: Path, content: bytes) -> None:
    path = data_dir / "master.key"
    path.write_bytes(content)
    path.chmod(0o600)
    line = await refused(lambda: Secrets.open(db, data_dir, ""))
    assert str(path) in line
    assert path.read_bytes() == content


async def test_a_key_that_did_not_seal_what_is_stored_is_refused(db: Database, data_dir: Path) -> None:
    secrets = await Secrets.open(db, data_dir, "")
    await store(db, secrets, "signing", 1, b"precious")
    line = await refused(lambda: Secrets.open(db, data_dir, KEY))
    assert secrets.key_id in line
    assert len(await rows(db, "SELECT * FROM secrets")) == 1


async def test_a_lost_key_file_is_not_replaced_by_a_new_one(db: Database, data_dir: Path) -> None:
    secrets = await Secrets.open(db, data_dir, "")
    await store(db, secrets, "signing", 1, b"precious")
    path = data_dir / "master.key"
    path.rename(data_dir / "elsewhere")
    line = await refused(lambda: Secrets.open(db, data_dir, ""))
    assert "missing" in line
    assert not path.exists()
    (data_dir / "elsewhere").rename(path)
    await Secrets.open(db, data_dir, "")


# stored secrets


async def test_a_secret_is_sealed_and_comes_back(db: Database, data_dir: Path) -> None:
    secrets = await Secrets.open(db, data_dir, "")
    assert await store(db, secrets, "signing", 1, b"precious")
    assert await store(db, secrets, "signing", 2, b"more precious")
    assert await store(db, secrets, "cursor", 1, b"other")
    assert not await store(db, secrets, "signing", 2, b"another node was first")
    reopened = await Secrets.open(db, data_dir, "")
    assert await db.read(reopened.list, "signing") == [
        Secret(1, b"precious", 3, 5),
        Secret(2, b"more precious", 3, 5),
    ]
    assert await db.read(reopened.list, "nothing") == []
    stored = await rows(db, "SELECT sealed, key_id FROM secrets")
    assert all(b"precious" not in sealed for sealed, _ in stored)
    assert {key_id for _, key_id in stored} == {secrets.key_id}


@on_sqlite
async def test_a_secret_is_not_in_the_file(db: Database, data_dir: Path) -> None:
    assert await store(db, await Secrets.open(db, data_dir, ""), "signing", 1, b"precious")
    async with await trio.open_file(data_dir / "secureconnect.db-wal", "rb") as wal:
        assert b"precious" not in await wal.read()


def test_the_same_is_never_sealed_the_same_way() -> None:
    secrets = Secrets(bytes(32))
    assert len({secrets.seal("here", b"precious") for _ in range(100)}) == 100


async def test_sealed_rows_cannot_be_swapped_or_changed(db: Database, data_dir: Path) -> None:
    secrets = await Secrets.open(db, data_dir, "")
    await store(db, secrets, "signing", 1, b"precious")
    await store(db, secrets, "signing", 2, b"other")
    await change(
        db, "UPDATE secrets SET sealed = (SELECT sealed FROM secrets WHERE version = 1) WHERE version = 2"
    )
    with pytest.raises(SecretDamaged, match="signing version 2"):
        await db.read(secrets.list, "signing")
    assert "signing version 2" in await refused(lambda: Secrets.open(db, data_dir, ""))
    await change(db, "UPDATE secrets SET sealed = $1 WHERE version = 2", b"\0")
    assert "signing version 2" in await refused(lambda: Secrets.open(db, data_dir, ""))


async def test_racing_makers_get_the_same_secret(db: Database, data_dir: Path) -> None:
    nodes = [await Secrets.open(db, data_dir, "") for _ in range(8)]
    got: list[bytes] = []

    async def ask(secrets: Secrets) -> None:
        got.append(await secrets.get_or_make(db, "cursor", lambda: os.urandom(16)))

    async with trio.open_nursery() as nursery:
        for secrets in nodes:
            nursery.start_soon(ask, secrets)
    assert len(got) == 8
    assert len(set(got)) == 1
    assert await nodes[0].get_or_make(db, "cursor", bytes) == got[0]


# the node


async def test_a_node_is_recognised_at_its_next_start(db: Database, data_dir: Path) -> None:
    first = await Node.open(db, data_dir, "", "chat.example.org")
    again = await Node.open(db, data_dir, "", "other.example.org")
    assert again.id == first.id
    assert again.history_id == first.history_id
    assert (first.server_name, again.server_name) == ("chat.example.org", "chat.example.org")
    (data_dir / "node.id").unlink()
    other = await Node.open(db, data_dir, "", "other.example.org")
    assert other.id != first.id
    assert other.history_id == first.history_id


async def test_what_it_keeps_is_enough_to_be_the_same_without_a_database(
    db: Database, data_dir: Path
) -> None:
    assert await Node.reopen(db, data_dir, "") is None
    node = await Node.open(db, data_dir, "", "here.test")
    await node.keep(data_dir)
    assert stat.S_IMODE((data_dir / SNAPSHOT).stat().st_mode) == 0o600
    again = await Node.reopen(db, data_dir, "")
    assert again is not None
    assert (again.id, again.history_id, again.server_name) == (node.id, node.history_id, "here.test")
    assert again.secrets.derive("audit") == node.secrets.derive("audit")
    await node.begin_history(node.history_id)
    await node.keep(data_dir)
    assert not again.take_over(again)
    assert again.take_over(node)
    assert again.history_id == node.history_id
    newest = await Node.reopen(db, data_dir, "")
    assert newest is not None
    assert newest.history_id == node.history_id


async def test_nothing_secret_is_in_what_it_keeps(db: Database, data_dir: Path) -> None:
    node = await Node.open(db, data_dir, "", "here.test")
    await node.secrets.get_or_make(db, "cursor", lambda: b"c" * 32)
    await node.keep(data_dir)
    body = json.loads((data_dir / SNAPSHOT).read_bytes().partition(b"\n")[2])
    assert body == {
        "key_id": node.secrets.key_id,
        "history_id": node.history_id,
        "server_name": "here.test",
    }


async def test_what_it_kept_is_taken_whole_and_private_or_not_at_all(db: Database, data_dir: Path) -> None:
    await (await Node.open(db, data_dir, "", "here.test")).keep(data_dir)
    path = data_dir / SNAPSHOT
    whole = path.read_bytes()
    for damaged in (b"", whole[:-1], whole.replace(b"here.test", b"their.test"), b"\xff" + whole):
        path.write_bytes(damaged)
        assert await Node.reopen(db, data_dir, "") is None
    path.write_bytes(whole)
    path.chmod(0o640)
    assert await Node.reopen(db, data_dir, "") is None
    path.chmod(0o600)
    assert "is not the one that sealed" in await refused(lambda: Node.reopen(db, data_dir, KEY))
    (data_dir / "master.key").unlink()
    assert "master.key is missing" in await refused(lambda: Node.reopen(db, data_dir, ""))


async def test_a_folder_that_takes_nothing_stops_nothing(db: Database, data_dir: Path) -> None:
    node = await Node.open(db, data_dir, "", "here.test")
    with capture_logs() as lines:
        await node.keep(data_dir / "gone")
    assert [line["event"] for line in lines] == ["node_not_kept"]


async def test_a_node_runs_though_its_lease_cannot_be_renewed(db: Database, data_dir: Path) -> None:
    away = Clocked(db)
    node = await Node.open(db, data_dir, "", "x", later=away)
    away.take_away()
    with capture_logs() as lines:
        async with trio.open_nursery() as nursery:
            await nursery.start(node.run)
            away.bring_back()
            await until(lambda: any(line["event"] == "lease_renewed" for line in lines))
            nursery.cancel_scope.cancel()
    assert [line["event"] for line in lines] == ["lease_not_renewed", "lease_renewed"]
    assert len(await rows(db, "SELECT node_id FROM nodes")) == 1


async def test_a_node_can_be_given_its_id(db: Database, data_dir: Path) -> None:
    given, other = new_id(), new_id()
    assert (await Node.open(db, data_dir, "", "x", given)).id == given
    assert (await Node.open(db, data_dir, "", "x", given)).id == given
    assert (await Node.open(db, data_dir, "", "x")).id == given
    line = await refused(lambda: Node.open(db, data_dir, "", "x", other))
    assert given in line
    assert other in line


async def test_a_damaged_node_id_is_refused(db: Database, data_dir: Path) -> None:
    (data_dir / "node.id").write_text("me")
    assert "node.id" in await refused(lambda: Node.open(db, data_dir, "", "x"))


async def test_two_databases_have_different_histories(db: Database, data_dir: Path, tmp_path: Path) -> None:
    other_dir = tmp_path / "other"
    other_dir.mkdir()
    async with Sqlite.open(other_dir / "secureconnect.db", SqliteConfig()) as other:
        await migrate.apply(other)
        mine, theirs = await Node.open(db, data_dir, "", "x"), await Node.open(other, other_dir, "", "x")
        assert mine.history_id != theirs.history_id
        assert mine.id != theirs.id


async def test_the_lease_is_held_while_running_and_given_back(db: Database, data_dir: Path) -> None:
    node = await Node.open(db, data_dir, "", "x")
    lease = "SELECT node_id, started_at, renewed_at, lease_ends_at FROM nodes"
    assert await rows(db, lease) == []
    async with trio.open_nursery() as nursery:
        await nursery.start(node.run)
        ((node_id, started, renewed, ends),) = await rows(db, lease)
        assert node_id == node.id
        assert ends - renewed == LEASE_S * SECOND_US

        async def renewed_since() -> bool:
            ((_, _, again, _),) = await rows(db, lease)
            return bool(again > renewed)

        await until(renewed_since)
        nursery.cancel_scope.cancel()
    ((_, again, renewed, ends),) = await rows(db, lease)
    assert again == started
    assert ends == renewed <= db.now_us()


async def test_a_lost_history_is_replaced_once_whoever_says_so(db: Database, data_dir: Path) -> None:
    one = await Node.open(db, data_dir, "", "here.test")
    other = await Node.open(db, data_dir, "", "here.test")
    lost = one.history_id
    await one.begin_history(lost)
    await other.begin_history(lost)
    assert one.history_id == other.history_id != lost
