"""What docs/backup.md shows is what happens."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import trio

from .rig import Place, a_place

PAGE = (Path(__file__).parents[2] / "docs" / "backup.md").read_text("utf-8")
PROGRAM = 'set -e; secureconnect() { "$PYTHON" -m secureconnect "$@" 2>/dev/null; }\n'
VARIES = (
    r"\d+ (rows|files)|of which \d+|\d[\d.]* ([kM]B|bytes)|\d{4}-\d\d-\d\dT[\d:.]+Z"
    r"|[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{16}"
)


def alike(text: str) -> list[str]:
    return re.sub(VARIES, "…", text).splitlines()


async def made(folder: Path) -> Place:
    async with a_place(folder) as place:
        return place


def test_its_commands_do_what_it_says(tmp_path: Path) -> None:
    place = trio.run(made, tmp_path)
    (tmp_path / "new").mkdir(0o700)
    places = {
        "/backups": place.dest,
        "/srv/sc": place.data,
        "/srv/new": tmp_path / "new",
        "/somewhere/else": place.data,
        "/etc/secureconnect.passphrase": tmp_path / "passphrase",
    }
    first, sealed = re.findall(r"^```\n(\$ .*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for block, dest in ((first, place.dest), (sealed, tmp_path / "sealed")):
        for name, path in (places | {"/backups": dest}).items():
            block = block.replace(name, str(path))
        commands = [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]
        done = subprocess.run(
            ["/bin/sh", "-c", PROGRAM + "\n".join(commands)],
            env={"PYTHON": sys.executable, "PYTHONPATH": ":".join(sys.path)},
            cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        shown = [line for line in block.splitlines() if not line.startswith("$ ")]
        if shown:
            assert alike(done.stdout) == alike("\n".join(shown))
