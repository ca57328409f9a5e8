"""The systemd unit agrees with the program it starts."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from secureconnect.app import EXIT_MARGIN_S
from secureconnect.cli.start import plain
from secureconnect.config import Config
from secureconnect.config_file import SETTINGS
from secureconnect.systemd import LOOK_S, SILENT_S

UNIT = Path(__file__).parents[1] / "config" / "secureconnect.service"


def service() -> configparser.SectionProxy:
    unit = configparser.ConfigParser(interpolation=None, strict=False)  # a filter has two lines
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(UNIT.read_text())
    return unit["Service"]


def test_the_command_is_one_we_know() -> None:
    program, *options = shlex.split(service()["ExecStart"])
    assert Path(program).name == "secureconnect"
    assert plain(options) == {"config": "/etc/secureconnect.toml", "data_dir": "/var/lib/secureconnect"}
    assert service()["StateDirectory"] == "secureconnect"


def test_a_drain_is_given_its_time() -> None:
    gateway = Config().gateway
    assert int(service()["TimeoutStopSec"]) > gateway.drain_notice_s + gateway.drain_s + EXIT_MARGIN_S


def test_there_are_enough_descriptors() -> None:
    assert int(service()["LimitNOFILE"]) > 2 * Config().gateway.max_connections


def test_it_is_told_more_often_than_it_must_be() -> None:
    assert service()["Type"] == "notify"
    assert int(service()["TimeoutStartSec"]) <= SILENT_S
    assert int(service()["WatchdogSec"]) > 10 * LOOK_S


def test_the_secrets_it_shows_are_settings() -> None:
    named = re.findall(
        r"^#LoadCredential=([\w.]+):/etc/secureconnect/([\w.]+)$", UNIT.read_text(), re.MULTILINE
    )
    assert named
    for name, file in named:
        assert name == file
        assert SETTINGS[name].about["secret"]


def test_systemd_takes_it(tmp_path: Path) -> None:
    """And finds little that it could do beyond its task."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze")
    program = tmp_path / "secureconnect"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    text = UNIT.read_text()
    command = service()["ExecStart"].split()[0]
    assert command in text
    unit = tmp_path / "secureconnect.service"
    unit.write_text(text.replace(command, str(program)).replace("#LoadCredential", "LoadCredential"))
    for arguments in (["verify", "--man=no"], ["security", "--offline=true", "--threshold=15"]):
        done = subprocess.run(
            ["systemd-analyze", *arguments, str(unit)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr == ""


def test_it_has_a_user_of_its_own_and_no_rights() -> None:
    unit = service()
    assert (unit["DynamicUser"], unit["NoNewPrivileges"], unit["CapabilityBoundingSet"]) == ("yes", "yes", "")
    assert (unit["ProtectSystem"], unit["ProtectHome"], unit["PrivateDevices"]) == ("strict", "yes", "yes")
    assert (unit["StateDirectoryMode"], unit["UMask"]) == ("0700", "0077")
