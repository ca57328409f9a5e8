"""What the documentation names exists, and it names all there is: links, settings, metrics, close codes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kit.scrape import declared
from secureconnect.audit import ACTIONS
from secureconnect.config_file import SETTINGS
from secureconnect.edge import Close
from secureconnect.signaling.frames import FLAGS, TARGETED, Out
from secureconnect.signaling.steps import LEGAL

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
SECTIONS = {key.partition(".")[0] for key in SETTINGS if "." in key}
FILES = {
    "journal.py",
    "chat.json",
    "storage.json",
    "audit.head",
    "audit.py",
    "breaker.py",
    "log.py",
    "tracing.py",
}  # look like settings


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8"))
    for link in links:
        if "://" not in link:
            assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_exist(page: Path) -> None:
    named = re.findall(rf"`((?:{'|'.join(SECTIONS)})\.[a-z0-9_]+)\b", page.read_text("utf-8"))
    assert set(named) - FILES <= set(SETTINGS)


def test_every_metric_is_explained() -> None:
    page = (ROOT / "docs" / "operate.md").read_text("utf-8")
    named = set(re.findall(r"`((?:[a-z]+_)+[a-z]+)`", page[page.index("## Metrics") :]))
    assert declared() <= named


def test_every_close_code_is_explained() -> None:
    page = (ROOT / "docs" / "protocol.md").read_text("utf-8")
    told = set(map(int, re.findall(r"\b([14]\d{3})\b", page[page.index("## How a socket ends") :])))
    assert {int(code) for code in Close} - {Close.NORMAL} <= told


def test_the_life_of_a_call_is_told_as_it_is() -> None:
    page = (ROOT / "docs" / "calls.md").read_text("utf-8")
    told = re.findall(r"^\| `(\w+)` \| `(\w+)`: .* \| `(\w+)` \|$", page, re.MULTILINE)
    assert {(state, step): after for state, step, after in told} == LEGAL


def test_every_frame_of_a_call_is_explained() -> None:
    page = (ROOT / "docs" / "protocol.md").read_text("utf-8")
    section = page[page.index("## A call") : page.index("## How a socket ends")]
    told = {str(kind.__struct_config__.tag) for kind in Out.__subclasses__()}
    named = set(re.findall(r"`([a-z_]+)", section))
    assert named >= told | TARGETED | FLAGS.keys() | {"resumed"}


def test_every_decision_has_its_number() -> None:
    names = [page.name for page in sorted((ROOT / "docs" / "decisions").glob("*.md"))]
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))


def test_every_audit_tag_is_explained() -> None:
    page = (ROOT / "docs" / "audit.md").read_text("utf-8")
    assert sorted(re.findall(r"^\| `([a-z_:]+)` \|", page, re.MULTILINE)) == sorted(ACTIONS)
