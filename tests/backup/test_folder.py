"""Folders of backups: what is refused, what is shared, and what is no backup."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kit.objects import whole
from secureconnect.backup import Damaged, Folder, Refused, check, read_all, read_passphrase, restore
from secureconnect.backup.folder import MANIFEST
from secureconnect.deps.contracts import Tx
from secureconnect.storage.store import get

from .rig import CONTENT, MESSAGES, PASSPHRASE, Place, a_place, empty_place, to_nobody


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with a_place(tmp_path) as place:
        yield place


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def remove(path: Path) -> None:
    path.unlink()


SAID = "is damaged|ends too early|is missing|no whole backup"
PARTS = ("2*/table messages.rows", "2*/table polls.rows", "2*/files.rows", "objects/*/*", "2*/" + MANIFEST)


@pytest.mark.parametrize("passphrase", [None, PASSPHRASE], ids=["plain", "sealed"])
async def test_whatever_is_damaged_is_found_and_named(place: Place, passphrase: bytes | None) -> None:
    await place.make(passphrase)
    backup = place.find(passphrase)
    assert await check(backup, to_nobody) > MESSAGES
    for part in PARTS:
        for damage in (flip, cut, remove):
            (path,) = place.dest.glob(part)
            kept = path.read_bytes()
            damage(path)
            with pytest.raises(
                (Damaged, Refused), match=r"damaged|ends too early|missing|no whole backup"
            ) as said:
                await read_all(place.find(passphrase) if part.endswith(MANIFEST) else backup, to_nobody)
            assert str(path) in str(said.value) or (part.endswith(MANIFEST) and damage is remove)
            path.write_bytes(kept)
    await read_all(backup, to_nobody)


async def test_what_was_sealed_is_not_to_be_read_without_the_passphrase(place: Place) -> None:
    await place.make(PASSPHRASE)
    with pytest.raises(Refused, match="give --passphrase-file"):
        place.find()
    with pytest.raises(Refused, match="this is not the passphrase"):
        place.find(b"another passphrase")
    written = b"".join(path.read_bytes() for path in place.dest.rglob("*") if path.is_file())
    names = " ".join(str(path) for path in place.dest.rglob("*"))
    for secret in (CONTENT[:64], place.secrets.key_id.encode(), b"chat.example.org", place.place.encode()):
        assert secret not in written
    assert place.place not in names
    assert place.find(PASSPHRASE).manifest.master_key == place.secrets.master


async def test_a_file_is_not_taken_for_another(place: Place) -> None:
    """Whoever can write into the folder can swap files whose seals are right."""
    await place.make(PASSPHRASE)
    backup = place.find(PASSPHRASE)
    (backup.path / "table messages.rows").replace(backup.path / "table changes.rows")
    with pytest.raises(Damaged, match=r"table changes\.rows is damaged"):
        await read_all(backup, to_nobody)


async def test_without_a_passphrase_the_master_key_is_named_and_not_there(place: Place) -> None:
    await place.make()
    manifest = place.find().manifest
    assert (manifest.master_key_id, manifest.master_key) == (place.secrets.key_id, None)
    with pytest.raises(Refused, match="begun without a passphrase"):
        await place.make(PASSPHRASE)


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [
        ("short\n", 0o600, "12 to 1024"),
        ("long enough for it\n", 0o644, "open to others"),
        ("", 0o600, "12 to"),
    ],
)
def test_passphrases_that_are_none(tmp_path: Path, text: str, mode: int, why: str) -> None:
    path = tmp_path / "passphrase"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(Refused, match=why):
        read_passphrase(path)


async def test_a_torn_backup_is_none_and_goes_with_the_next(place: Place) -> None:
    torn = (await place.make()).path
    (torn / MANIFEST).unlink()
    with pytest.raises(Refused, match="no whole backup"):
        place.find()
    made = (await place.make()).path
    assert place.find().path == made
    assert not torn.exists()
    with Folder.open(place.dest, None).held(), pytest.raises(Refused, match="another backup is being made"):
        await place.make()


async def test_a_folder_of_other_things_is_left_alone(place: Place) -> None:
    place.dest.mkdir()
    (place.dest / "letters").mkdir()
    with pytest.raises(Refused, match="holds other things"):
        await place.make()
    with pytest.raises(Refused, match="there are no backups"):
        place.find()


async def test_files_are_shared_and_copied_once(place: Place) -> None:
    first, second = await place.make(), await place.make()
    assert [each.manifest.files.copied for each in (first, second)] == [1, 0]
    assert second.manifest.files.sheet.rows == 1
    (path,) = place.dest.glob("objects/*/*")
    flip(path)  # damaged at its end it is copied again; else `verify` says so
    cut(path)
    assert (await place.make()).manifest.files.copied == 1
    await read_all(place.find(), to_nobody)


async def deleted(place: Place, *, its_row: bool) -> None:
    async def unit(tx: Tx) -> None:
        await tx.run("UPDATE files SET status = 'deleted' WHERE file_id = $1", place.file_id)

    if its_row:
        await place.db.write(unit)
    await place.objects.delete(place.key)


@pytest.mark.parametrize("its_row", [True, False], ids=["deleted", "lost"])
async def test_a_file_that_goes_while_the_backup_is_made(place: Place, tmp_path: Path, its_row: bool) -> None:
    """Deleted by its owner it comes back deleted, and its room is free; else it is told of."""
    made = await place.make(meanwhile=lambda: deleted(place, its_row=its_row))
    assert (made.manifest.files.gone, made.manifest.files.lost) == (its_row, not its_row)
    async with empty_place(tmp_path / "fresh") as (db, objects, config):
        await restore(place.find(), db, objects, place.secrets, config, to_nobody)
        file = await db.read(get, place.file_id)
        assert file is not None
        assert file.status == ("deleted" if its_row else "completed")
        assert await db.read(_used) == (0 if its_row else len(CONTENT))


async def _used(tx: Tx) -> int:
    row = await tx.one("SELECT used_bytes FROM quotas")
    assert row is not None
    return int(row[0])


async def test_content_that_is_not_what_its_row_says_is_not_taken_for_it(place: Place) -> None:
    path = place.objects.path_of(place.key)
    assert path is not None
    flip(path)
    made = await place.make()
    assert (made.manifest.files.sheet.rows, made.manifest.files.lost) == (0, 1)


async def test_one_backup_of_several_is_restored(place: Place, tmp_path: Path) -> None:
    first = await place.make()

    async def unit(tx: Tx) -> None:
        await tx.run("DELETE FROM messages")

    await place.db.write(unit)
    await place.make()
    async with empty_place(tmp_path / "fresh") as (db, objects, config):
        opened = type(place.find()).find(first.path, None)
        await restore(opened, db, objects, place.secrets, config, to_nobody)
        assert await db.read(_messages) == MESSAGES
        assert await whole(objects, place.key) == CONTENT


async def _messages(tx: Tx) -> int:
    row = await tx.one("SELECT COUNT(*) FROM messages")
    assert row is not None
    return int(row[0])
