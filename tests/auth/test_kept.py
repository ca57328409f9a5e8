"""The files a node keeps its revocations in: whole or not at all, whatever happened to them."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest
import trio
from structlog.testing import capture_logs

from secureconnect.auth import kept
from secureconnect.auth.kept import FORMAT, JOURNAL, SNAPSHOT, Kept, Snapshot, VerifyingKey
from secureconnect.deps.contracts import Revoked
from secureconnect.errors import Unavailable
from secureconnect.identity import new_id


def revoked(at_us: int = 5) -> Revoked:
    return Revoked("session", new_id(), at_us, at_us + 10)


def snapshot(*pending: Revoked) -> Snapshot:
    stored = [Revoked("user", new_id(), 1, 2)]
    return Snapshot(7, 3, [VerifyingKey("kid", bytes(range(32)), None)], stored, list(pending))


async def _names(folder: Path) -> set[str]:
    return {path.name for path in await trio.Path(folder).iterdir()}


async def test_nothing_is_there_at_first(data_dir: Path) -> None:
    found = await Kept(data_dir).load()
    assert (found.snapshot, found.trusted, found.journal) == (None, False, [])


async def test_a_snapshot_comes_back_as_it_was(data_dir: Path) -> None:
    kept, written = Kept(data_dir), snapshot(revoked())
    await kept.save(lambda: written)
    found = await Kept(data_dir).load()
    assert (found.snapshot, found.trusted) == (written, True)
    assert await _names(data_dir) == {SNAPSHOT}
    assert (data_dir / SNAPSHOT).stat().st_mode & 0o777 == 0o600
    assert not kept.may_save


async def test_a_snapshot_covers_the_journal(data_dir: Path) -> None:
    kept, before, after = Kept(data_dir), revoked(), revoked()
    await kept.append([before])
    assert (await kept.load()).journal == [before]
    assert (data_dir / JOURNAL).stat().st_mode & 0o777 == 0o600
    await kept.save(lambda: snapshot(before))
    await kept.append([after])
    found = await Kept(data_dir).load()
    assert found.journal == [after]
    assert found.snapshot is not None
    assert found.snapshot.pending == [before]


async def test_every_cut_of_the_journal_keeps_what_was_whole(data_dir: Path) -> None:
    kept, lines = Kept(data_dir), [revoked(number) for number in range(3)]
    for line in lines:
        await kept.append([line])
    path = data_dir / JOURNAL
    whole = path.read_bytes()
    ends = [at + 1 for at, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with capture_logs():
            found = (await kept.load()).journal
        # a line that lacks nothing but its end is whole
        assert found == lines[: sum(end <= cut + 1 for end in ends)]


async def test_what_follows_a_torn_line_is_read(data_dir: Path) -> None:
    kept, first, torn, last = Kept(data_dir), revoked(1), revoked(2), revoked(3)
    await kept.append([first, torn])
    path = data_dir / JOURNAL
    path.write_bytes(path.read_bytes()[:-10])
    await kept.append([last])
    with capture_logs() as logged:
        found = await kept.load()
    assert found.journal == [first, last]
    assert [line["event"] for line in logged] == ["revocations_journal_line_damaged"]


async def test_a_damaged_snapshot_is_none(data_dir: Path) -> None:
    kept = Kept(data_dir)
    await kept.save(lambda: snapshot(revoked()))
    path = data_dir / SNAPSHOT
    whole = path.read_bytes()
    foreign = b'{"written_us": "yesterday"}'
    others = [
        b"",
        whole[:-1],
        whole[: len(whole) // 2],
        whole.replace(b"session", b"sessiom"),
        whole.replace(FORMAT, b"secureconnect-revocations-2"),
        b"%s %s\n%s" % (FORMAT, hashlib.sha256(foreign).hexdigest().encode(), foreign),
    ]
    for content in others:
        assert content != whole
        path.write_bytes(content)
        with capture_logs() as logged:
            found = await kept.load()
        assert (found.snapshot, found.trusted) == (None, False)
        assert [line["event"] for line in logged] == ["revocations_snapshot_damaged"]


@pytest.mark.parametrize("mode", [0o640, 0o606, 0o644])
async def test_a_snapshot_open_to_others_counts_but_is_not_trusted(data_dir: Path, mode: int) -> None:
    kept, one = Kept(data_dir), revoked()
    await kept.save(lambda: snapshot(one))
    (data_dir / SNAPSHOT).chmod(mode)
    with capture_logs() as logged:
        found = await kept.load()
    assert not found.trusted
    assert found.snapshot is not None
    assert found.snapshot.pending == [one]
    assert [line["event"] for line in logged] == ["revocations_snapshot_open_to_others"]
    await kept.save(lambda: snapshot(one))
    assert (await kept.load()).trusted


async def test_a_draft_that_a_crash_left_is_no_obstacle(data_dir: Path) -> None:
    (data_dir / f"{SNAPSHOT}.new").write_bytes(b"half")
    kept, written = Kept(data_dir), snapshot()
    await kept.save(lambda: written)
    assert (await kept.load()).snapshot == written


async def test_a_folder_that_takes_nothing_is_said(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "missing")
    with pytest.raises(Unavailable):
        await kept.save(snapshot)
    with pytest.raises(Unavailable):
        await kept.append([revoked()])


async def test_a_disk_that_hangs_is_not_waited_for(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "WRITE_S", 0.1)
    released, real = threading.Event(), os.fsync

    def hang(fd: int) -> None:
        released.wait(2)
        real(fd)

    files, late, next_ = Kept(data_dir), revoked(), revoked()
    monkeypatch.setattr(os, "fsync", hang)
    for each in (late, revoked()):
        with pytest.raises(Unavailable):
            await files.append([each])
    released.set()
    monkeypatch.undo()
    await files.append([next_])
    assert (await files.load()).journal == [late, next_]
