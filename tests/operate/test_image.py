"""The image: what goes into it, and that it runs. Docker is not needed: the wheel is built from what Docker
would be sent, and the server started with the image's environment where only its volume can be written."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import closing
from fnmatch import fnmatch
from http.client import HTTPConnection
from itertools import takewhile
from pathlib import Path

import pytest

from kit.compose import EMBEDDED, NODES, PRODUCTION, ROOT, services
from kit.keeper import keep
from kit.ports import free_port
from kit.server import SETTINGS, Server
from secureconnect.config_file import load

LIMIT_S = 30.0


def instructions() -> list[tuple[str, str]]:
    """Of the Dockerfile: (name, the rest), lines that go on put together, comments left out."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    whole = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in whole.splitlines() if line)]


def last_stage() -> dict[str, str]:
    """What counts at the end, by instruction; of RUN and COPY the last ones."""
    found: dict[str, str] = {}
    for name, rest in instructions():
        if name == "FROM":
            found = {}
        found[name] = rest
    return found


def environment() -> dict[str, str]:
    return dict(each.split("=", 1) for each in shlex.split(last_stage()["ENV"]))


def sent() -> Iterator[Path]:
    """What `.dockerignore` lets through. It has three forms of lines: `*`, `!this`, and `**/that`."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"
    let_in = [line[1:] for line in lines if line.startswith("!")]
    left_out = [line[3:] for line in lines if line.startswith("**/")]
    assert len(lines) == 1 + len(let_in) + len(left_out)
    for name in let_in:
        path = ROOT / name
        assert path.exists(), name
        for file in [path] if path.is_file() else path.rglob("*"):
            parts = file.relative_to(ROOT).parts
            if file.is_file() and not any(fnmatch(part, each) for part in parts for each in left_out):
                yield file.relative_to(ROOT)


def test_what_docker_is_sent_is_enough_and_no_more(tmp_path: Path) -> None:
    names = {str(path) for path in sent()}
    assert {"pyproject.toml", "README.md", "LICENSE", "scripts/hatch_web.py"} <= names
    assert {name.partition("/")[0] for name in names if "/" in name} == {"migrations", "scripts", "src"}
    assert not [name for name in names if re.search(r"secrets/|\.git/|\.venv|^data/|__pycache__", name)]


def test_it_is_built_on_one_version_and_runs_as_nobody_special() -> None:
    (base,) = (rest.partition("=")[2] for name, rest in instructions() if name == "ARG")
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+", base)
    assert {rest.split()[0] for name, rest in instructions() if name == "FROM"} == {"${PYTHON}"}
    image = last_stage()
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", image["USER"])
    nodes = [(EMBEDDED, "secureconnect"), *((PRODUCTION, node) for node in NODES)]
    folder = image["VOLUME"]
    for file, name in nodes:
        assert services(file)[name]["user"] == image["USER"]
        assert services(file)[name]["volumes"][0].endswith(f":{folder}")
    config = load("/dev/null", environment_of_settings())
    assert (config.data_dir, str(config.gateway.port)) == (folder, image["EXPOSE"])
    assert config.gateway.host == "0.0.0.0"
    assert image["STOPSIGNAL"] == "SIGTERM"
    assert json.loads(image["ENTRYPOINT"]) == ["secureconnect"]


def environment_of_settings() -> dict[str, str]:
    return {key: value for key, value in environment().items() if key.startswith("SECURECONNECT_")}


def health_check(port: int) -> int:
    """The exit status of the image's own look at a server on this port."""
    command = json.loads(last_stage()["HEALTHCHECK"].partition(" CMD ")[2])
    assert command[0] == "python"
    assert "'/readyz'" in command[2]
    code = command[2].replace("8080", str(port))
    assert code != command[2]
    done = subprocess.run(
        [sys.executable, *command[1:-1], code], capture_output=True, timeout=30, check=False
    )
    return done.returncode


def test_its_health_is_what_the_server_says(server: Server) -> None:
    assert health_check(server.port) == 0
    assert health_check(free_port()) != 0


def build(folder: Path) -> Path:
    """What the first stage makes of what it is sent, as it is installed."""
    source, site = folder / "build", folder / "site"
    for path in sent():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, source / path)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=source, capture_output=True, timeout=60, check=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(site)
    return site


class Container:
    """Where nothing can be written but one folder, a program with the image's environment."""

    def __init__(self, site: Path, volume: Path, port: int) -> None:
        alone = 'mount --bind "$1" "$1" && mount -o remount,bind,ro / && cd "$1" && shift && exec "$@"'
        run = f"import secureconnect.cli.main as m; assert {str(site)!r} in m.__file__; m.run()"
        self._command = ["unshare", "--mount", "sh", "-euc", alone, "sh", str(volume)]
        self._command += [sys.executable, "-c", run]
        self._env = {key: value for key, value in os.environ.items() if "SECURECONNECT_" not in key}
        self._env |= {f"SECURECONNECT_{key}": value for key, value in SETTINGS.items()}
        self._env |= environment_of_settings() | {
            "PYTHONPATH": str(site),
            "PYTHONDONTWRITEBYTECODE": environment()["PYTHONDONTWRITEBYTECODE"],
            "SECURECONNECT_DATA_DIR": str(volume),
            "SECURECONNECT_GATEWAY__HOST": "127.0.0.1",
            "SECURECONNECT_GATEWAY__PORT": str(port),
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return keep(
            subprocess.Popen(
                [*self._command, *arguments],
                env=self._env,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        )


def page(port: int) -> str:
    with closing(HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)) as asking:
        asking.request("GET", "/")
        return asking.getresponse().read().decode()


def test_it_serves_where_nothing_but_its_volume_can_be_written(tmp_path: Path) -> None:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("mounts need root")
    volume, port = tmp_path / "volume", free_port()
    volume.mkdir(mode=0o700)
    container = Container(build(tmp_path), volume, port)
    with container.start() as server:
        assert server.stdout is not None
        said = list(takewhile(lambda line: not line.startswith("listening on "), server.stdout))
        try:
            assert server.poll() is None, "".join(said)
            assert health_check(port) == 0
            assert "<html" in page(port)
            with container.start("doctor", "--json") as doctor:
                report, _ = doctor.communicate(timeout=LIMIT_S)
            assert doctor.returncode == 0, report
            found = {each["name"]: each["status"] for each in json.loads(report)["checks"]}
            assert found["data_folder"] == found["disk_sync"] == "ok"
        finally:
            server.terminate()
        rest, _ = server.communicate(timeout=LIMIT_S)
        assert server.returncode == 0, rest
    assert {path.name for path in volume.iterdir()} >= {"secureconnect.db", "master.key", "node.id"}
