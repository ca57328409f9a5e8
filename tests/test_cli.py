"""The command line as people and scripts meet it: a process, its output and its exit code."""

from __future__ import annotations

import re
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Protocol

import pytest

from kit.command import fails, run, succeeds
from secureconnect import __version__
from secureconnect.cli import commands, main, start
from secureconnect.config import Config
from secureconnect.config_file import render

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    run("migrate", cwd=folder)
    assert succeeds("keys", "rotate", cwd=folder) == "signing key 1 is made and will sign in 60 s\n"
    return folder


@pytest.fixture
def installed(template: Path, tmp_path: Path) -> Path:
    """A folder with a database in `data`, as `migrate` and one rotation leave it."""
    return Path(shutil.copytree(template, tmp_path / "installed"))


class Here(Protocol):
    def __call__(self, *args: str) -> tuple[int, str]: ...


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """Exit code and output of the command line run in this process: for what only prints."""

    def run_here(*args: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["secureconnect", *args])
        with pytest.raises(SystemExit) as ended:
            main.run()
        code = ended.value.code
        assert isinstance(code, int)
        done = capsys.readouterr()
        return code, done.out + done.err

    monkeypatch.setenv("COLUMNS", "100")
    return run_here


def test_help_names_every_command(here: Here) -> None:
    for flag in ("--help", "-h"):
        code, text = here(flag)
        assert code == 0
        for command in commands.COMMANDS:
            assert re.search(rf"^\W+{command} ", text, re.MULTILINE), command


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("serve", ["--config", "--host", "--port", "--data-dir"]),
        ("config", ["--config", "--data-dir", "--defaults"]),
        ("migrate", ["--config", "--data-dir"]),
        ("doctor", ["--config", "--data-dir", "--json"]),
        ("chat", ["--server", "--no-remember", "--invite"]),
        ("move", ["--config", "--data-dir", "--to"]),
        ("keys rotate", ["--config", "--data-dir"]),
        ("audit verify", ["--config", "--data-dir", "--head"]),
        ("audit export", ["--config", "--data-dir", "--after"]),
        ("user create", ["--config", "--data-dir", "--admin", "--password-stdin"]),
        ("user list", ["--config", "--data-dir", "--find"]),
        ("user ban", ["--config", "--data-dir", "--reason", "--hours"]),
    ],
)
def test_help_of_a_command(here: Here, command: str, options: list[str]) -> None:
    code, text = here(*command.split(), "--help")
    assert code == 0
    assert f"Usage: secureconnect {command}" in text
    for option in options:
        assert option in text


def test_version(here: Here) -> None:
    assert here("version") == here("--version") == (0, f"secureconnect {__version__}\n")


@pytest.mark.parametrize(
    "args", [["dance"], ["config", "--nonsense"], ["serve", "again"], ["--port"], ["keys"], ["keys", "x"]]
)
def test_wrong_usage(here: Here, args: list[str]) -> None:
    code, text = here(*args)
    assert code == 2
    assert re.search("Usage|Error", text)


@pytest.mark.parametrize(
    ("args", "values"),
    [
        ([], {}),
        (["--port", "0", "--data-dir", "d"], {"gateway.port": "0", "data_dir": "d"}),
        (
            ["--port=0", "--config=a=b", "--host", "::1"],
            {"gateway.port": "0", "config": "a=b", "gateway.host": "::1"},
        ),
        (["--port", "-1"], {"gateway.port": "-1"}),
        (["--host="], {"gateway.host": ""}),
        (["--port"], None),
        (["--port", "--host", "::1"], None),
        (["--help"], None),
        (["--prot", "1"], None),
        (["extra"], None),
    ],
)
def test_options_of_serve_as_pairs(args: list[str], values: dict[str, str] | None) -> None:
    assert start.plain(args) == values


@pytest.mark.parametrize("args", [["serve", "--port", "70000"], ["--host", "::1", "--port=70000"]])
def test_serve_is_what_happens_without_a_command(tmp_path: Path, args: list[str]) -> None:
    """And its options reach it: a bad one is named."""
    line = fails(2, *args, cwd=tmp_path)
    assert line == "gateway.port = '70000' (command line) is not valid: expected 0..65535"
    assert list(tmp_path.iterdir()) == [], "a start that is refused leaves nothing behind"


def test_a_bad_setting_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    line = fails(2, "config", cwd=tmp_path, GATEWAY__PORT="x")
    assert line == "gateway.port = 'x' (SECURECONNECT_GATEWAY__PORT) is not valid: expected 0..65535"
    assert "does not exist" in fails(2, "--config", "nowhere.toml", cwd=tmp_path)
    (tmp_path / "secureconnect.toml").write_text("[gateway]\nprot = 1\n")
    assert "gateway.prot" in fails(2, cwd=tmp_path)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1"])
def test_an_address_that_is_not_here_is_one_line_and_exit_code_2(tmp_path: Path, host: str) -> None:
    line = fails(2, "serve", "--port", "0", "--host", host, cwd=tmp_path)
    assert line.startswith(f"gateway.host = {host!r}, gateway.port = 0: ")


def test_config_prints_what_holds_and_masks_secrets(tmp_path: Path) -> None:
    assert succeeds("config", "--defaults", cwd=tmp_path, GATEWAY__PORT="1") == render(Config())
    (tmp_path / "mine.toml").write_text("[gateway]\nhost = '::1'\n")
    text = succeeds(
        "config", "--config", "mine.toml", "--data-dir", "there", cwd=tmp_path, AUTH__MASTER_KEY=KEY
    )
    assert 'host = "::1"' in text
    assert 'data_dir = "there"' in text
    assert 'master_key = "********"' in text
    assert KEY not in text


def test_migrate_makes_the_database_and_can_be_repeated(tmp_path: Path) -> None:
    for _ in range(2):
        done = run("migrate", "--data-dir", "there", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (0, "the database in there is up to date\n")
    assert (tmp_path / "there" / "secureconnect.db").exists()


@pytest.mark.parametrize("command", ["keys rotate", "audit verify", "audit export"])
def test_without_a_database_nothing_is_made(tmp_path: Path, command: str) -> None:
    line = fails(1, *command.split(), "--data-dir", "there", cwd=tmp_path)
    assert line == "there is no database in there: start the server once, or give --data-dir"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["serve", "migrate"])
@pytest.mark.parametrize(
    ("folder", "why"),
    [
        ("file", "file exists (file)"),
        ("file/below", "not a directory (file/below)"),
        ("/proc/data", "no such file or directory (/proc/data)"),  # as good as read-only, for root too
    ],
)
def test_a_data_folder_that_cannot_be_used(tmp_path: Path, command: str, folder: str, why: str) -> None:
    (tmp_path / "file").touch()
    line = fails(2, command, "--data-dir", folder, cwd=tmp_path)
    assert line == f"data_dir = {folder!r} cannot be used: {why}"


def test_a_database_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "data" / "secureconnect.db").mkdir(parents=True)
    assert "data/secureconnect.db cannot be opened" in fails(1, "migrate", cwd=tmp_path)


def test_keys_rotate_adds_a_version(installed: Path) -> None:
    text = succeeds("keys", "rotate", cwd=installed, AUTH__KEY_LEAD_S="7")
    assert text == "signing key 2 is made and will sign in 7 s\n"
    with closing(sqlite3.connect(installed / "data" / "secureconnect.db")) as file:
        versions = file.execute("SELECT version FROM secrets WHERE name = 'jwt' ORDER BY 1").fetchall()
        actions = file.execute("SELECT action FROM audit").fetchall()
    assert versions == [(1,), (2,)]
    assert actions == [("auth:key:rotated",)] * 2


def test_the_wrong_master_key_is_refused(installed: Path) -> None:
    line = fails(2, "audit", "verify", cwd=installed, AUTH__MASTER_KEY=KEY)
    assert "is not the one that sealed" in line
    assert KEY not in line
    line = fails(2, "keys", "rotate", cwd=installed, AUTH__MASTER_KEY="hush")
    assert line == "auth.master_key = ******** is not valid: expected 32 bytes in base64"


def test_audit_verify_states_what_it_could_not_check(installed: Path) -> None:
    lines = succeeds("audit", "verify", cwd=installed).splitlines()
    assert lines[0] == "sealed rows: 0"
    assert re.fullmatch(r"rows not sealed yet, which prove nothing: 1, the oldest is \d+\.\d s old", lines[1])
    assert lines[2] == "no head file at data/audit.head: a cut end would not show"
    assert lines[3] == "the audit log is whole"


def test_another_head_file_must_be_there(installed: Path) -> None:
    assert run("audit", "verify", "--head", "nowhere", cwd=installed).returncode == 2


def test_accounts_on_a_stopped_server(tmp_path: Path) -> None:
    """The first administrator is made before the first start; no password stands on the command line."""
    make = ("user", "create", "--email", "root@example.org", "root", "--password-stdin")
    made = succeeds(*make, "--admin", cwd=tmp_path, typed="correct horse battery\n")
    assert re.fullmatch(r"root is made, an administrator: [0-9a-f-]{36}\n", made)
    assert fails(1, *make, cwd=tmp_path, typed="correct horse battery\n") == (
        "This e-mail address already has an account."
    )
    assert fails(1, "user", "demote", "ROOT", cwd=tmp_path).startswith("This is the server's last")
    assert fails(1, "user", "ban", "root", "--reason", "x" * 501, cwd=tmp_path) == (
        "A reason has at most 500 characters."
    )
    assert "not text in UTF-8" in run("user", "ban", "r\udcffot", cwd=tmp_path).stderr
    assert re.search("root .* root@example.org .* admin\n", succeeds("user", "list", cwd=tmp_path))
    assert succeeds("user", "unlock", "Root", cwd=tmp_path) == "Root may try again\n"
    assert fails(1, "user", "unlock", "nobody", cwd=tmp_path) == "there is no account nobody"
    assert succeeds("user", "remove-totp", "root", cwd=tmp_path) == "root has no second factor\n"
    with closing(sqlite3.connect(tmp_path / "data" / "secureconnect.db")) as db:
        (found,) = db.execute("SELECT role, password_hash FROM users").fetchall()
        noted = db.execute("SELECT action, actor_id FROM audit").fetchall()
    assert found[0] == "admin"
    assert found[1].startswith("$argon2id$")
    assert noted == [("admin:user:created", None), ("admin:user:unlocked", None)]
