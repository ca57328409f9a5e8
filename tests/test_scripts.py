"""The scripts a newcomer meets first: an environment made whole whatever was there, and the changelog."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"

LOCK = "src/secureconnect/web/package-lock.json"

# A project that needs no network to be installed: its build backend lies beside it and needs nothing.
PROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "tiny"
version = "1"
optional-dependencies = { dev = [] }
"""
BACKEND = """\
import pathlib, zipfile

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    about = "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1\\nProvides-Extra: dev\\n"
    with zipfile.ZipFile(pathlib.Path(wheel_directory, "tiny-1-py3-none-any.whl"), "w") as wheel:
        wheel.writestr("tiny-1.dist-info/METADATA", about)
        wheel.writestr("tiny-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nTag: py3-none-any\\n")
        wheel.writestr("tiny-1.dist-info/RECORD", "")
    return "tiny-1-py3-none-any.whl"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "a project"
    shutil.copytree(SCRIPTS, folder / "scripts")
    (folder / "pyproject.toml").write_text(PROJECT)
    (folder / "backend.py").write_text(BACKEND)
    (folder / LOCK).parent.mkdir(parents=True)
    (folder / LOCK).write_text("{}")
    (folder / "scripts" / "probe").write_text('set -eu\n. "$(dirname -- "$0")/setup.sh"\nset_up "$@"\n')
    return folder


NO_PYTHON = "error: Python 3.11 or newer is needed; on Debian 12: apt-get install python3-venv\n"


def set_up(project: Path, *args: str, python: str = "python3") -> str:
    """What it said; if it succeeded, the environment has the project in it afterwards."""
    done = subprocess.run(
        ("sh", "scripts/probe", *args),
        cwd=project,
        env=os.environ | {"PYTHON": python},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == ""
    if done.returncode == 0:
        installed = (project / ".venv/bin/python", "-c", "import importlib.metadata as m; m.version('tiny')")
        subprocess.run(installed, check=True)
    return done.stderr


def test_an_environment_is_made_once_extended_and_made_again_when_it_no_longer_fits(project: Path) -> None:
    (project / ".venv").mkdir()  # what an interrupted `python3 -m venv` leaves
    said = set_up(project)
    assert "setting up .venv" in said
    assert "installing secureconnect and" in said
    assert set_up(project) == ""

    said = set_up(project, "dev")
    assert "setting up .venv" not in said
    assert "installing secureconnect[dev] and" in said
    assert set_up(project, "dev") == ""
    assert set_up(project) == ""

    (project / LOCK).write_text('{"lockfileVersion": 3}')
    said = set_up(project, "dev")
    assert "setting up .venv" not in said
    assert "installing secureconnect[dev] and" in said
    assert set_up(project) == ""

    # Making an environment takes seconds: that it would be made is seen by leaving it no Python to do so.
    assert set_up(project, python="no-such-python") == ""
    (project / "pyproject.toml").write_text(PROJECT + "# changed\n")
    assert set_up(project, python="no-such-python") == NO_PYTHON
    (project / "pyproject.toml").write_text(PROJECT)
    assert set_up(project, python="no-such-python") == ""
    moved = project.rename(project.with_name("moved"))
    assert set_up(moved, python="no-such-python") == NO_PYTHON


def test_an_old_python_is_refused_before_anything_is_made(project: Path) -> None:
    old = project / "old-python"
    old.write_text("#!/bin/sh\nexit 1\n")  # what the version question gets from Python 3.10
    old.chmod(0o755)
    assert set_up(project, python="./old-python") == NO_PYTHON
    assert not (project / ".venv").exists()


# scripts/changelog


@pytest.fixture
def history(tmp_path: Path) -> Path:
    (tmp_path / "CHANGELOG.md").write_text(
        "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- stale\n\n## [0.1.0]\n\n- first\n"
    )
    git(tmp_path, "init", "-q")
    commit(tmp_path, "before the tag", "Changelog: added: long known")
    git(tmp_path, "tag", "v0.1.0")
    return tmp_path


def git(folder: Path, *args: str) -> None:
    who = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(("git", *who, *args), cwd=folder, check=True, timeout=30)


def commit(folder: Path, subject: str, *trailers: str) -> None:
    git(
        folder,
        "commit",
        "-q",
        "--allow-empty",
        "-m",
        subject,
        "-m",
        "Why it was done.",
        "-m",
        "\n".join(trailers),
    )


def gather(folder: Path) -> tuple[str, str]:
    """The changelog, and what was said on stderr."""
    done = subprocess.run(
        (str(SCRIPTS / "changelog"),), cwd=folder, capture_output=True, text=True, timeout=30, check=True
    )
    return (folder / "CHANGELOG.md").read_text(), done.stderr


def test_the_unreleased_section_is_what_commits_since_the_tag_say(history: Path) -> None:
    commit(history, "chat: one", "Changelog: fixed: a slow reader delays nobody: not even itself")
    commit(history, "auth: two", "Changelog: added: sign-in", "Changelog: security: keys rotate")
    commit(history, "nothing to see")
    text, said = gather(history)
    assert text == (
        "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- sign-in\n\n### Fixed\n\n"
        "- a slow reader delays nobody: not even itself\n\n### Security\n\n- keys rotate\n\n"
        "## [0.1.0]\n\n- first\n"
    )
    assert said == ""
    assert gather(history) == (text, "")


def test_a_trailer_of_another_form_is_named(history: Path) -> None:
    commit(history, "chat: one", "Changelog: improved: everything")
    text, said = gather(history)
    assert "everything" not in text
    assert "improved: everything" in said
