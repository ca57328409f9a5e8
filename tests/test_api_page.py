"""What docs/api.md tells to type does what it says."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from kit.fixtures import StartServer

PAGE = Path(__file__).parent.parent / "docs" / "api.md"
STEP = re.compile(r"```sh\n(?P<typed>.*?)```\n```json\n(?P<answer>.*?)```", re.DOTALL)
MARK = "\x1e"
LIMIT_S = 60


def test_every_command_answers_as_it_stands_there(start_server: StartServer, tmp_path: Path) -> None:
    if shutil.which("jq") is None:
        pytest.skip("no jq")
    page = PAGE.read_text("utf-8")
    steps = STEP.findall(page)
    assert len(steps) == page.count("```sh")
    script = "\n".join(["set -euo pipefail", *(f"{typed}\nprintf '{MARK}'" for typed, _ in steps)])
    ran = subprocess.run(
        ["bash", "-c", script],
        env={"PATH": "/usr/bin:/bin", "URL": start_server().url},
        cwd=tmp_path,
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout.decode()[-2_000:]
    answers = ran.stdout.decode().split(MARK)[:-1]
    for (typed, expected), answer in zip(steps, answers, strict=True):
        pattern = re.escape(expected).replace("…", ".*")
        assert re.fullmatch(pattern, answer), f"{typed}\nanswers\n{answer}\nand not\n{expected}"
