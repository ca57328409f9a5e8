"""The closed list: each tag is written somewhere, and nothing else is."""

from __future__ import annotations

import re
from pathlib import Path

import secureconnect
from secureconnect.audit import ACTIONS

SRC = Path(secureconnect.__file__).parent
WRITTEN = re.compile(r'"(denied:[a-z_]+|(?:admin|audit|auth|chat|signaling|storage):[a-z_]+:[a-z_]+)"')


def test_each_tag_is_written_and_no_other() -> None:
    written = set()
    for path in SRC.rglob("*.py"):
        text = path.read_text("utf-8")
        if path == SRC / "audit" / "log.py":  # the list itself, and the one that the log writes of itself
            text = text[text.index("# facts that say something") :]
        written |= set(WRITTEN.findall(text))
    assert written == ACTIONS
