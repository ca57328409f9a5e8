"""What a check found, and how it is said without a secret."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

from ..config import Config
from ..settings import MASK

Status = Literal["ok", "warning", "failed"]
_ORDER: tuple[Status, ...] = ("ok", "warning", "failed")
_PASSWORD = re.compile(r"//[^/]*?:(.*)@", re.DOTALL)  # up to the last @: a password may have one unquoted
SAID_CHARS = 200
_UNITS = ("kB", "MB", "GB", "TB")


@dataclass(frozen=True, slots=True)
class Finding:
    """One line.  name: `postgres.version`.  mend: one sentence; None when all is well."""

    name: str
    status: Status
    found: str
    mend: str | None = None


def worst(findings: Iterable[Finding]) -> Status:
    return max((each.status for each in findings), key=_ORDER.index, default="ok")


class Report:
    """Collects the findings, and tells each at once: a check that hangs must not hide what came before.

    The texts given here are ours; words of others go through `said`.  nodes: that share the database, as far
    as it was asked.
    """

    def __init__(self, config: Config, tell: Callable[[Finding], None]) -> None:
        self.findings: list[Finding] = []
        self.nodes = 1
        self._tell = tell
        self._secrets = _secrets(config)

    def ok(self, name: str, found: str) -> None:
        self._add(Finding(name, "ok", found))

    def warn(self, name: str, found: str, mend: str) -> None:
        self._add(Finding(name, "warning", found, mend))

    def fail(self, name: str, found: str, mend: str) -> None:
        self._add(Finding(name, "failed", found, mend))

    def said(self, words: object) -> str:
        """What a driver or the system said, in one short line and without our secrets."""
        text = " ".join(str(words).split()) or type(words).__name__
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text if len(text) <= SAID_CHARS else f"{text[:SAID_CHARS]}…"

    def _add(self, finding: Finding) -> None:
        self.findings.append(finding)
        self._tell(finding)


def _secrets(config: Config) -> list[str]:
    """Every text that must not be repeated, longest first: a part of one may be one as well."""
    found = {config.auth.master_key, config.minio.secret_key, config.turn.secret}
    for url in (config.postgres.url, config.redis.url, config.smtp.url):
        found.add(url)
        if match := _PASSWORD.search(url):
            found |= {match[1], unquote(match[1])}
    return sorted(found - {""}, key=len, reverse=True)


def count(number: int, thing: str) -> str:
    """`1 file`, `2 files`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def size(size_bytes: float) -> str:
    """`12.3 MB`."""
    if size_bytes < 1000:
        return f"{size_bytes:.0f} bytes"
    power = min((len(str(int(size_bytes))) - 1) // 3, len(_UNITS))
    return f"{size_bytes / 1000**power:.1f} {_UNITS[power - 1]}"


def latency(times_s: list[float]) -> str:
    """`p50 0.31 ms, longest 1.20 ms`."""
    ordered = sorted(times_s)
    return f"p50 {ordered[len(ordered) // 2] * 1e3:.2f} ms, longest {ordered[-1] * 1e3:.2f} ms"
