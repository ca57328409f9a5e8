"""What `pip install secureconnect` brings: built through the source distribution, as packagers do."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import secureconnect

ROOT = Path(__file__).parent.parent
NAME = f"secureconnect-{secureconnect.__version__}"
MIGRATIONS = {f"secureconnect/migrations/{path.name}" for path in (ROOT / "migrations").glob("*.sql")}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel built from the unpacked source distribution."""
    made = tmp_path_factory.mktemp("made")
    build("sdist", ROOT, made)
    subprocess.run(("tar", "-xzf", f"{NAME}.tar.gz"), cwd=made, timeout=60, check=True)
    build("wheel", made / NAME, made)
    return made / f"{NAME}-py3-none-any.whl"


def build(kind: str, source: Path, target: Path) -> None:
    command = (sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", target)
    subprocess.run(command, cwd=source, capture_output=True, timeout=60, check=True)


def test_the_wheel_has_what_the_server_needs_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert MIGRATIONS
    assert names >= MIGRATIONS | {"secureconnect/py.typed", "secureconnect/__main__.py"}
    assert {name.partition("/")[0] for name in names} == {"secureconnect", f"{NAME}.dist-info"}
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.endswith(".pyc")]


def test_the_wheel_finds_its_migrations(wheel: Path, tmp_path: Path) -> None:
    """Away from the repository, as it is installed."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    done = subprocess.run(
        (sys.executable, "-m", "secureconnect", "migrate", "--data-dir", tmp_path / "data"),
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for name in MIGRATIONS:
        number_and_name, *dialect = Path(name).stem.split(".")
        assert f"name={number_and_name}\n" in done.stderr or dialect == ["postgres"]
