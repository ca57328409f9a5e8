"""`secureconnect doctor` as people and programs call it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from kit import command
from kit.ports import free_port

from .conftest import PASSWORD, QUOTED

SETTINGS = {"GATEWAY__PORT": "0", "GATEWAY__MAX_CONNECTIONS": "200"}


def test_a_line_for_each_check_and_exit_code_0(folder: Path) -> None:
    lines = command.succeeds("doctor", cwd=folder.parent, **SETTINGS).splitlines()
    assert lines[-1] == f"{len(lines) - 1} checks: 0 failed, 0 with a warning"
    assert all(line.startswith("ok       ") for line in lines[:-1])


def test_exit_code_1_and_how_to_mend_it(folder: Path) -> None:
    (folder / "master.key").chmod(0o644)
    done = command.run("doctor", cwd=folder.parent, **SETTINGS)
    assert (done.returncode, done.stderr) == (1, "")
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("failed   master_key ")]
    assert line.endswith("to mend: chmod 600 data/master.key")


def test_warnings_alone_are_exit_code_0(tmp_path: Path) -> None:
    assert "3 with a warning" in command.succeeds("doctor", cwd=tmp_path, **SETTINGS)
    assert list(tmp_path.iterdir()) == []


def test_a_bad_setting_is_exit_code_2(tmp_path: Path) -> None:
    assert "gateway.port" in command.fails(2, "doctor", cwd=tmp_path, GATEWAY__PORT="x")


@pytest.mark.parametrize("kind", ["POSTGRES__URL", "REDIS__URL"])
def test_json_for_programs_without_a_secret(folder: Path, kind: str) -> None:
    scheme = kind.partition("_")[0].lower()
    url = f"{scheme}://u:{QUOTED}@127.0.0.1:{free_port()}/0"
    done = command.run("doctor", "--json", cwd=folder.parent, **SETTINGS, **{kind: url})
    assert (done.returncode, done.stderr) == (1, "")
    told = json.loads(done.stdout)
    assert set(told) == {"checks", "status"}
    assert told["status"] == "failed"
    assert all(set(each) == {"name", "status", "found", "mend"} for each in told["checks"])
    assert [each["name"] for each in told["checks"] if each["status"] == "failed"] == [scheme]
    assert all((each["mend"] is None) == (each["status"] == "ok") for each in told["checks"])
    assert PASSWORD not in done.stdout
    assert QUOTED not in done.stdout


def test_colours_on_a_terminal(folder: Path) -> None:
    ours, theirs = pty.openpty()
    env = os.environ | {f"SECURECONNECT_{key}": value for key, value in SETTINGS.items()} | {"TERM": "xterm"}
    with subprocess.Popen(
        [sys.executable, "-m", "secureconnect", "doctor"], cwd=folder.parent, env=env, stdout=theirs
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 65536):
                shown += part
        except OSError:  # what a terminal says when the other side has gone
            pass
        os.close(ours)
    assert process.returncode == 0
    assert b"\x1b[32mok" in shown
