"""Small files: whole whatever happens, on the disk, and nobody else's."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from stat import S_ISDIR

import pytest

from secureconnect.durable import create_file, replace_file

WAYS = pytest.mark.parametrize("write", [replace_file, create_file])


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


@WAYS
def test_it_is_private_and_leaves_no_draft(tmp_path: Path, write: Callable[[Path, bytes], None]) -> None:
    old = os.umask(0)
    try:
        write(tmp_path / "kept", b"new")
    finally:
        os.umask(old)
    assert (tmp_path / "kept").read_bytes() == b"new"
    assert mode_of(tmp_path / "kept") == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["kept"]


def test_what_is_there_is_replaced_or_stays(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.write_bytes(b"old")
    path.chmod(0o644)
    create_file(path, b"new")
    assert path.read_bytes() == b"old"
    replace_file(path, b"new")
    assert (path.read_bytes(), mode_of(path)) == (b"new", 0o600)


def test_what_a_crash_has_left_is_neither_used_nor_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"mine")
    (tmp_path / "kept.new").symlink_to(elsewhere)
    replace_file(tmp_path / "kept", b"new")
    assert elsewhere.read_bytes() == b"mine"
    assert not (tmp_path / "kept").is_symlink()
    assert not (tmp_path / "kept.new").exists()


@WAYS
def test_file_and_name_are_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path, bytes], None]
) -> None:
    """The content before it has its name, the name before it returns."""
    synced: list[tuple[bool, bool]] = []
    sync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append((S_ISDIR(os.fstat(descriptor).st_mode), (tmp_path / "kept").exists()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    write(tmp_path / "kept", b"new")
    assert synced == [(False, False), (True, True)]


def test_a_disk_that_refuses_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kept"
    replace_file(path, b"old")

    def refuse(_: int) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="full"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["kept"]
