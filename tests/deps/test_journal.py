"""The journal's file: torn tails, turned bytes, full and failing disks, and a process that is killed."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secureconnect.config import JournalConfig
from secureconnect.deps.journal import DEAD_BYTES, FileJournal
from secureconnect.errors import DiskFull, OutcomeUnknown, Unavailable
from secureconnect.metrics import REGISTRY

CONFIG = JournalConfig()


async def kept(path: Path) -> list[bytes]:
    """What a fresh start finds, and finds again afterwards."""
    found: list[list[bytes]] = []
    for _ in range(2):
        async with FileJournal.open(path, CONFIG) as journal:
            found.append([record.payload for record in await journal.read("chat", 0, 1_000_000)])
    assert found[0] == found[1]
    return found[0]


async def written(path: Path, *payloads: bytes) -> list[int]:
    """Sizes of the file after each record."""
    sizes: list[int] = []
    async with FileJournal.open(path, CONFIG) as journal:
        for payload in payloads:
            await journal.append("chat", [payload])
            sizes.append(look(path).st_size)
    return sizes


def look(path: Path) -> os.stat_result:
    return path.stat()


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


@contextmanager
def lines() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as captured:
        yield captured


async def test_the_file_is_private_and_for_one_process(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    async with FileJournal.open(path, CONFIG):
        assert (await trio.Path(path).stat()).st_mode & 0o777 == 0o600
        with pytest.raises(BlockingIOError):
            async with FileJournal.open(path, CONFIG):
                pass


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payloads=st.lists(st.binary(max_size=200), min_size=1, max_size=8), data=st.data())
def test_a_torn_tail_is_cut_off_and_all_before_it_kept(
    tmp_path: Path, payloads: list[bytes], data: st.DataObject
) -> None:
    path = tmp_path / "journal"
    path.unlink(missing_ok=True)
    sizes = trio.run(written, path, *payloads)
    length = data.draw(st.integers(0, sizes[-1]))
    os.truncate(path, length)
    with lines():
        assert trio.run(kept, path) == payloads[: sum(size <= length for size in sizes)]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payloads=st.lists(st.binary(max_size=200), min_size=1, max_size=8), data=st.data())
def test_a_turned_byte_costs_the_record_it_stands_in(
    tmp_path: Path, payloads: list[bytes], data: st.DataObject
) -> None:
    path = tmp_path / "journal"
    path.unlink(missing_ok=True)
    sizes = trio.run(written, path, *payloads)
    at = data.draw(st.integers(0, sizes[-1] - 1))
    content = bytearray(path.read_bytes())
    content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    hit = sum(size <= at for size in sizes)
    with lines():
        assert trio.run(kept, path) == payloads[:hit] + payloads[hit + 1 :]


async def test_a_damaged_file_is_kept_aside_for_a_person_to_look_at(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    sizes = await written(path, b"one", b"two", b"three")
    content = bytearray(await trio.Path(path).read_bytes())
    content[sizes[0] + 20] ^= 0xFF
    await trio.Path(path).write_bytes(content)
    with lines() as logged:
        assert await kept(path) == [b"one", b"three"]
    assert [line["event"] for line in logged] == ["journal_damaged"]
    [aside] = [each for each in await trio.Path(tmp_path).iterdir() if "damaged" in each.name]
    assert await aside.read_bytes() == bytes(content)
    assert (await aside.stat()).st_mode & 0o777 == 0o600


@pytest.mark.parametrize("found_by", ["reading", "writing anew"])
async def test_a_byte_that_turns_while_it_runs_costs_its_record_alone(tmp_path: Path, found_by: str) -> None:
    path = tmp_path / "journal"
    async with FileJournal.open(path, CONFIG) as journal:
        numbers = [(await journal.append("chat", [payload]))[0] for payload in (b"one", b"two", b"three")]
        size = look(path).st_size
        big = await journal.append("chat", [bytes(DEAD_BYTES)] * 2)
        with path.open("r+b") as file:
            file.seek(size // 2)
            file.write(b"\xff\xff")
        with lines() as logged:
            if found_by == "writing anew":
                await journal.done(big)
            records = await journal.read("chat", 0, 2)
        assert [record.number for record in records] == [numbers[0], numbers[2]]
        assert [line["event"] for line in logged] == ["journal_damaged"]
        await journal.append("chat", [b"four"])
        await journal.done(big)
    with lines() as logged:
        assert await kept(path) == [b"one", b"three", b"four"]
    assert logged == []
    assert len([name for name in names(tmp_path) if "damaged" in name]) == 1


async def test_after_a_torn_tail_it_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    await written(path, b"one", b"two")
    with path.open("ab") as file:
        file.write(b"\xc1\xfe\xc1\xff\x10\0\0\0half of a rec")
    with lines() as logged:
        assert await written(path, b"three")
    assert [line["event"] for line in logged] == ["journal_tail_cut"]
    assert await kept(path) == [b"one", b"two", b"three"]


async def test_the_file_is_emptied_and_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    async with FileJournal.open(path, CONFIG) as journal:
        numbers = await journal.append("chat", [b"x" * 10_000] * 300)
        grown = look(path).st_size
        await journal.done(numbers[:250])
        assert look(path).st_size < grown / 4
        assert [record.number for record in await journal.read("chat", 0, 100)] == numbers[250:]
        more = await journal.append("chat", [b"more"])
        await journal.done(numbers[250:])
        assert look(path).st_size < DEAD_BYTES
        await journal.done(more)
        assert look(path).st_size == 0
        await journal.append("chat", [b"last"])
    assert await kept(path) == [b"last"]
    assert names(tmp_path) == ["journal"]


async def test_too_old_ones_let_no_more_in_and_are_not_dropped(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    async with FileJournal.open(path, CONFIG) as journal:
        await journal.append("chat", [b"old"])
    async with FileJournal.open(path, JournalConfig(age_s=0)) as journal:
        with pytest.raises(Unavailable):
            await journal.append("chat", [b"new"])
        [record] = await journal.read("chat", 0, 10)
        assert record.payload == b"old"
        await journal.done([record.number])
        await journal.append("chat", [b"new"])


async def test_it_is_measured(tmp_path: Path) -> None:
    def of(name: str) -> float:
        return REGISTRY.get_sample_value(f"secureconnect_journal_{name}") or 0.0

    async with FileJournal.open(tmp_path / "journal", CONFIG) as journal:
        assert (of("records"), of("bytes"), of("oldest_age_seconds")) == (0, 0, 0)
        numbers = await journal.append("chat", [b"x" * 100, b"y" * 100])
        assert of("records") == 2
        assert 200 < of("bytes") < 400
        assert 0 < of("oldest_age_seconds") < 60
        await journal.done(numbers)
        assert (of("records"), of("bytes"), of("oldest_age_seconds")) == (0, 0, 0)


# disks that fail


class Disk:
    """What the disk says to the next calls of these functions of `os`; a number is an errno."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.faults: dict[str, int] = {}
        self.syncs = 0
        self.before_sync: Callable[[], None] = lambda: None
        for name in ("pwrite", "fdatasync", "fsync", "ftruncate"):
            monkeypatch.setattr(os, name, self._faulty(name, getattr(os, name)))

    def _faulty(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            if name == "fdatasync":
                self.syncs += 1
                self.before_sync()
            if fault := self.faults.get(name):
                if name == "pwrite":
                    real(args[0], bytes(args[1])[:7], args[2])  # as much as there was room for
                raise OSError(fault, "as asked")
            return real(*args)

        return call


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


async def test_many_appends_share_a_sync(tmp_path: Path, disk: Disk) -> None:
    async with FileJournal.open(tmp_path / "journal", CONFIG) as journal, trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(journal.append, "chat", [b"%d" % number])
    assert 1 <= disk.syncs <= 3


async def test_a_full_disk_refuses_and_leaves_nothing_behind(tmp_path: Path, disk: Disk) -> None:
    path = tmp_path / "journal"
    async with FileJournal.open(path, CONFIG) as journal:
        await journal.append("chat", [b"one"])
        size = look(path).st_size
        disk.faults["pwrite"] = errno.ENOSPC
        for _ in range(2):
            with pytest.raises(DiskFull):
                await journal.append("chat", [b"two"])
        assert look(path).st_size == size
        disk.faults.clear()
        await journal.append("chat", [b"three"])
    assert await kept(path) == [b"one", b"three"]


async def test_what_is_done_is_done_though_the_disk_is_full(tmp_path: Path, disk: Disk) -> None:
    path = tmp_path / "journal"
    async with FileJournal.open(path, CONFIG) as journal:
        numbers = await journal.append("chat", [b"one", b"two", b"three"])
        disk.faults["pwrite"] = errno.ENOSPC
        with lines() as logged:
            await journal.done(numbers[:1])
        assert [line["event"] for line in logged] == ["journal_not_noted"]
        assert [record.payload for record in await journal.read("chat", 0, 9)] == [b"two", b"three"]
        disk.faults.clear()
        await journal.append("chat", [b"four"])
    assert await kept(path) == [b"two", b"three", b"four"], "noted with the next write"


@pytest.mark.parametrize("call", ["pwrite", "fdatasync"])
async def test_after_a_failed_write_the_file_is_written_anew(tmp_path: Path, disk: Disk, call: str) -> None:
    """A sync that failed says nothing of what it was to sync, nor does the next one."""
    path = tmp_path / "journal"
    async with FileJournal.open(path, CONFIG) as journal:
        await journal.append("chat", [b"one"])
        before = look(path).st_ino
        disk.faults[call] = errno.EIO
        with lines() as logged, pytest.raises(Unavailable):
            await journal.append("chat", [b"two"])
        assert [line["event"] for line in logged] == ["journal_failed"]
        disk.faults.clear()
        await journal.append("chat", [b"three"])
        assert look(path).st_ino != before
    assert await kept(path) == [b"one", b"three"]


async def test_a_disk_that_hangs_is_not_waited_for(tmp_path: Path, disk: Disk) -> None:
    path = tmp_path / "journal"
    released = trio.Event()
    token = trio.lowlevel.current_trio_token()

    async with FileJournal.open(path, JournalConfig(write_s=0.1)) as journal:
        disk.before_sync = lambda: trio.from_thread.run(released.wait, trio_token=token)
        with lines() as logged:
            with pytest.raises(OutcomeUnknown):
                await journal.append("chat", [b"one"])
            with pytest.raises(Unavailable):
                await journal.append("chat", [b"two"])
        assert [line["event"] for line in logged] == ["journal_stuck"]
        disk.before_sync = lambda: None
        released.set()
        with trio.fail_after(5):
            while True:
                try:
                    await journal.append("chat", [b"three"])
                    break
                except Unavailable:
                    await trio.lowlevel.checkpoint()
    assert await kept(path) == [b"one", b"three"]


# a process that is killed

WRITER = """
import sys, trio
from pathlib import Path
from secureconnect.config import JournalConfig
from secureconnect.deps.journal import FileJournal

async def main():
    async with FileJournal.open(Path(sys.argv[1]), JournalConfig()) as journal:
        done = []
        while True:
            numbers = await journal.append("chat", [b"%d" % len(done) * 500] * 3)
            print(*numbers, flush=True)
            done += numbers
            if len(done) > 30:
                await journal.done(done[:20])
                print("done", *done[:20], flush=True)
                del done[:20]

trio.run(main)
"""


@pytest.mark.parametrize("seed", range(3))
async def test_what_a_killed_process_was_told_is_kept(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "journal"
    lines_wanted = random.Random(seed).randrange(50, 400)

    def write_and_die() -> list[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        with process.stdout as told:
            heard = [told.readline() for _ in range(lines_wanted)]
            process.kill()
            heard += told.readlines()
        process.wait()
        return [line for line in heard if line.endswith("\n")]

    heard = await trio.to_thread.run_sync(write_and_die)
    assert len(heard) >= lines_wanted
    appended = {int(number) for line in heard if "done" not in line for number in line.split()}
    gone = {int(number) for line in heard if "done" in line for number in line.split()[1:]}
    with lines():
        async with FileJournal.open(path, CONFIG) as journal:
            found = [record.number for record in await journal.read("chat", 0, 1_000_000)]
    assert found == sorted(found)
    assert not gone & set(found), "what was noted as done stays done"
    unsaid = len(appended - gone - set(found))
    assert unsaid in (0, 20), "but for those whose word `done` was cut off"
