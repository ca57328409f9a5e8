"""The compose files in config/ as Compose reads them, and where each file of a container comes from."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "config"
EMBEDDED, PRODUCTION = "docker-compose.yml", "docker-compose.production.yml"
NODES = ("node-a", "node-b")
BROUGHT = {"chat.pem", "turn.crt", "turn.key", "smtp.password"}  # secrets that only the operator has

Document = dict[str, Any]


@cache
def compose(name: str) -> Document:
    """With anchors and merges resolved."""
    document: Document = yaml.safe_load((CONFIG / name).read_text("utf-8"))
    return document


def services(name: str) -> dict[str, Document]:
    found: dict[str, Document] = compose(name)["services"]
    return found


def address(service: str) -> str:
    """On the network that the production nodes are in."""
    return str(services(PRODUCTION)[service]["networks"]["inside"]["ipv4_address"])


def targets(service: str, kind: str) -> dict[str, Path]:
    """kind: `configs` or `secrets`.  Path inside the container → file here."""
    files = compose(PRODUCTION)[kind]
    found = {}
    for each in services(PRODUCTION)[service].get(kind, []):
        source = each if isinstance(each, str) else each["source"]
        target = source if isinstance(each, str) else each["target"]
        inside = target if target.startswith("/") else f"/run/secrets/{target}"
        found[inside] = CONFIG / files[source]["file"]
    return found


def make_secrets(folder: Path) -> None:
    subprocess.run([ROOT / "scripts" / "secrets", folder], check=True, capture_output=True, timeout=30)


def in_shell(script: str) -> str:
    """What the shell gets of a command that Compose reads: it would take `$` for a variable of its own."""
    return script.replace("$$", "$")
