"""A private Prometheus on the files of config/, which scrapes and judges many times a second."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from kit.balancer import ADDRESSES, CONFIG, fill_in
from kit.http import plain
from kit.keeper import keep
from kit.ports import free_port
from kit.wait import until

PROGRAM = "prometheus"
START_S = 30.0
SCRAPE = "1s"  # instead of 15 s; one that takes longer has failed
JUDGE = "500ms"
FOR = "1s"  # instead of minutes; nothing else of the rules is changed
ALERTING = re.compile(r"^alerting:\n(?: .*\n)+", re.MULTILINE)  # there is nobody to tell
PENDING = re.compile(r"^( +for:) \w+$", re.MULTILINE)
SCRAPING = re.compile(r"^( +(?:scrape_interval|scrape_timeout):) \w+$", re.MULTILINE)
JUDGING = re.compile(r"^( +evaluation_interval:) \w+$", re.MULTILINE)


class Prometheus:
    def __init__(self, folder: Path) -> None:
        found = shutil.which(PROGRAM)
        if found is None:
            pytest.skip(f"no {PROGRAM}")
        self._program = found
        self._folder = folder
        self.url = f"http://127.0.0.1:{free_port()}"
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self, nodes: Sequence[str]) -> None:
        """Returns when it is ready.  nodes: their addresses, in the place of those in prometheus.yml."""
        self._folder.mkdir()
        rules = (CONFIG / "alerts.yml").read_text("utf-8")
        config = (CONFIG / "prometheus.yml").read_text("utf-8")
        config = fill_in(ALERTING.sub("", config), dict(zip(ADDRESSES, nodes, strict=True)))
        (self._folder / "alerts.yml").write_text(PENDING.sub(rf"\1 {FOR}", rules))
        config = JUDGING.sub(rf"\1 {JUDGE}", SCRAPING.sub(rf"\1 {SCRAPE}", config))
        (self._folder / "prometheus.yml").write_text(config)
        self._spawn()
        await until(self._is_ready, START_S)

    def _spawn(self) -> None:
        self._process = keep(
            subprocess.Popen(
                [
                    self._program,
                    f"--config.file={self._folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self._folder / 'data'}",
                    f"--web.listen-address={self.url.removeprefix('http://')}",
                    "--log.level=error",
                ]
            )
        )

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def ask(self, path: str, **query: str) -> Any:
        """`data` of the answer; what it refuses is told."""
        async with plain(timeout=10) as http:
            answer = (await http.get(f"{self.url}/api/v1/{path}", params=query)).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    async def firing(self, name: str) -> list[dict[str, Any]]:
        alerts = (await self.ask("alerts"))["alerts"]
        return [each for each in alerts if each["labels"]["alertname"] == name and each["state"] == "firing"]

    async def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"{PROGRAM} ended at once"
        try:
            async with plain() as http:
                return (await http.get(f"{self.url}/-/ready")).is_success
        except httpx.TransportError:
            return False
