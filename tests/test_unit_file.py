"""The systemd unit agrees with the program it starts."""

from __future__ import annotations

import configparser
import shlex
from pathlib import Path

from secureconnect.app import EXIT_MARGIN_S
from secureconnect.cli.start import plain
from secureconnect.config import Config

UNIT = Path(__file__).parents[1] / "config" / "secureconnect.service"


def service() -> configparser.SectionProxy:
    unit = configparser.ConfigParser(interpolation=None)
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


def test_it_has_a_user_of_its_own_and_no_rights() -> None:
    unit = service()
    assert (unit["DynamicUser"], unit["NoNewPrivileges"], unit["CapabilityBoundingSet"]) == ("yes", "yes", "")
    assert (unit["ProtectSystem"], unit["ProtectHome"], unit["PrivateDevices"]) == ("strict", "yes", "yes")
    assert (unit["StateDirectoryMode"], unit["UMask"]) == ("0700", "0077")
