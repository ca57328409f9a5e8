"""`--require-all` turns every kind of skip into an error, and changes nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

SKIPS = {
    "in a test": "import pytest\ndef test_one(): pytest.skip('no server here')\n",
    "in a fixture": """
import pytest
@pytest.fixture
def server(): pytest.skip('no server here')
def test_one(server): pass
""",
    "by a mark": "import pytest\n@pytest.mark.skip(reason='no server here')\ndef test_one(): pass\n",
    "of a module": "import pytest\npytest.skip('no server here', allow_module_level=True)\n",
}


def run_pytest(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (sys.executable, "-m", "pytest", "-p", "require_all", "-p", "no:cacheprovider", *args),
        cwd=folder,
        env={"PYTHONPATH": str(TESTS), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("where", SKIPS)
def test_a_skip_is_an_error(where: str, tmp_path: Path) -> None:
    (tmp_path / "test_skips.py").write_text(SKIPS[where])
    assert run_pytest(tmp_path).returncode in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
    required = run_pytest(tmp_path, "--require-all")
    assert required.returncode in (pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED)
    assert "--require-all is given: " in required.stdout
    assert "no server here" in required.stdout


def test_so_it_is_in_a_parallel_run(tmp_path: Path) -> None:
    for number, content in enumerate(SKIPS.values()):
        (tmp_path / f"test_skips_{number}.py").write_text(content)
    required = run_pytest(tmp_path, "-p", "xdist.plugin", "-n", "2", "--require-all")
    assert required.returncode == pytest.ExitCode.TESTS_FAILED
    assert required.stdout.splitlines()[-1].strip("= ").startswith("1 failed, 3 errors in ")


def test_the_rest_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "test_rest.py").write_text(
        "import pytest\ndef test_ok(): pass\n@pytest.mark.xfail\ndef test_known(): assert False\n"
    )
    done = run_pytest(tmp_path, "--require-all")
    assert done.returncode == pytest.ExitCode.OK, done.stdout
    assert "1 passed, 1 xfailed" in done.stdout
