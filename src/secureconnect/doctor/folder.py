"""The data folder and the master key in it."""

from __future__ import annotations

import base64
import binascii
import os
import stat
import time
from pathlib import Path

import trio

from ..config import Config
from ..node import KEY_BYTES
from .findings import Report, latency, size

FSYNCS = 8
SLOW_FSYNC_S = 0.05
MB = 1024 * 1024
CROWDED = 4  # times the reserve: from here on it is worth a word


async def check_folder(config: Config, report: Report) -> None:
    await trio.to_thread.run_sync(_look, config, report, abandon_on_cancel=True)


async def check_master_key(config: Config, report: Report) -> None:
    await trio.to_thread.run_sync(_look_at_key, config, report, abandon_on_cancel=True)


def _look(config: Config, report: Report) -> None:
    folder, name = Path(config.data_dir), "data_folder"
    try:
        found = folder.stat()
    except FileNotFoundError:
        report.warn(
            name, f"{folder} does not exist", "start the server once: it makes the folder; or give --data-dir"
        )
        return
    except OSError as exc:
        report.fail(name, f"{folder}: {exc.strerror}", "set data_dir to a folder that this user can use")
        return
    if not stat.S_ISDIR(found.st_mode):
        report.fail(name, f"{folder} is not a folder", "set data_dir to a folder")
        return
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        report.warn(name, f"{folder} has mode {mode:04o} and is open to others", f"chmod 700 {folder}")
    try:
        times = _fsyncs(folder)
    except OSError as exc:
        report.fail(
            name,
            f"{folder} cannot be written: {exc.strerror}",
            f"let the user that runs the server own it: chown -R USER {folder}",
        )
        return
    report.ok(name, f"{folder}, mode {mode:04o}, can be written")
    disk = os.statvfs(folder)
    free, reserve = disk.f_bavail * disk.f_frsize, config.sqlite.disk_reserve_mb * MB
    told = f"{size(free)} free, sqlite.disk_reserve_mb keeps {size(reserve)}"
    if free < reserve:
        report.fail("disk_space", told, "free space on this disk: nothing new is stored until then")
    elif free < CROWDED * reserve:
        report.warn("disk_space", told, "free space on this disk soon")
    else:
        report.ok("disk_space", told)
    told = f"a write is on the disk after {latency(times)}"
    if sorted(times)[FSYNCS // 2] > SLOW_FSYNC_S:
        report.warn("disk_sync", told, "put the data folder on a faster disk: each commit waits for it")
    else:
        report.ok("disk_sync", told)


def _fsyncs(folder: Path) -> list[float]:
    """How long each took, of a small file that is gone afterwards."""
    trial = folder / f"doctor.{os.getpid()}"
    file = os.open(trial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        times = []
        for _ in range(FSYNCS):
            began = time.perf_counter()
            os.write(file, bytes(4096))
            os.fsync(file)
            times.append(time.perf_counter() - began)
        return times
    finally:
        os.close(file)
        trial.unlink()


def _look_at_key(config: Config, report: Report) -> None:
    name = "master_key"
    if config.auth.master_key:
        if _is_key(config.auth.master_key):
            report.ok(name, "auth.master_key is set")
        else:
            report.fail(
                name,
                f"auth.master_key is not {KEY_BYTES} bytes in base64",
                "set it to what the first node has in master.key, or make one: openssl rand -base64 32",
            )
        return
    path = Path(config.data_dir) / "master.key"
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text("ascii")
    except FileNotFoundError:
        report.warn(
            name,
            f"{path} does not exist",
            "of a new installation the first start makes it; of an old one restore the file from a backup",
        )
        return
    except (OSError, UnicodeDecodeError) as exc:
        report.fail(name, f"{path} cannot be read: {report.said(exc)}", f"restore {path} from a backup")
        return
    if mode & 0o077:
        report.fail(name, f"{path} has mode {mode:04o} and is open to others", f"chmod 600 {path}")
    elif not _is_key(text):
        report.fail(name, f"{path} is not {KEY_BYTES} bytes in base64", f"restore {path} from a backup")
    else:
        report.ok(name, f"{path}, mode {mode:04o}; keep a copy of it elsewhere")


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text.strip(), validate=True)) == KEY_BYTES
    except (binascii.Error, ValueError):
        return False
