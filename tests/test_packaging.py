"""What `pip install secureconnect` brings: built through the source distribution, as packagers do."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import secureconnect

ROOT = Path(__file__).parent.parent
NAME = f"secureconnect-{secureconnect.__version__}"
WEB = Path("src/secureconnect/web")
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
    of_the_build = re.compile(r"\.pyc$|/package-lock\.json$|/tsconfig[^/]*$|\.npmrc$")
    assert not [name for name in names if of_the_build.search(name)]
    vendor = (ROOT / WEB / "vendor").rglob("*")
    assert names >= {f"secureconnect/web/{path.relative_to(ROOT / WEB)}" for path in vendor if path.is_file()}


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


def test_the_wheel_has_a_web_client_that_can_be_served(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    made = "from secureconnect.gateway import web; assert web.edition_of(web.FOLDER, '').page"
    done = subprocess.run(
        (sys.executable, "-c", made),
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


# what the build fetches for the web client


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """As it is before its first build."""
    for name in (
        "scripts/hatch_web.py",
        *(f"{WEB}/{name}" for name in ("package.json", "package-lock.json", ".npmrc")),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def fetch(checkout: Path, **env: str) -> str:
    """What it says on its way out."""
    done = subprocess.run(
        (sys.executable, "scripts/hatch_web.py"),
        cwd=checkout,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode == 0) == (done.stderr == ""), done.stderr
    return done.stderr


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_there_is_what_the_lock_names(checkout: Path) -> None:
    """npm holds what it fetches against the hash in the lock."""
    assert fetch(checkout) == ""
    fetched = files_in(checkout / WEB / "vendor")
    assert fetched == files_in(ROOT / WEB / "vendor"), "run scripts/hatch_web.py"
    wasm = next(name for name in fetched if name.endswith(".wasm"))
    assert fetched[wasm].startswith(b"\0asm")
    assert gzip.decompress(fetched[f"{wasm}.gz"]) == fetched[wasm]
    assert fetch(checkout, npm_config_registry="http://127.0.0.1:9") == "", "nothing is left to fetch"


def test_other_bytes_than_those_the_lock_names_are_refused(checkout: Path) -> None:
    lock = checkout / WEB / "package-lock.json"
    named = json.loads(lock.read_text())
    (package,) = (each for name, each in named["packages"].items() if name)
    package["integrity"] = f"sha512-{'A' * 86}=="
    lock.write_text(json.dumps(named))
    assert "EINTEGRITY" in fetch(checkout)
    assert not (checkout / WEB / "vendor").exists()


def test_without_a_registry_one_sentence_says_what_to_do(checkout: Path) -> None:
    said = fetch(checkout, npm_config_registry="http://127.0.0.1:9", npm_config_cache=str(checkout / "cache"))
    assert said.count("\n") == 1
    assert "ECONNREFUSED" in said
    assert "SECURECONNECT_NO_WEB_VENDOR=1" in said
