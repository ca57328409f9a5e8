"""What a message's metadata says of mentions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...errors import Invalid
from ...identity import UserId, is_id

MOST = 50
FIELD = "metadata.mentions"


def mentioned(metadata: Mapping[str, Any], sender: UserId) -> tuple[UserId, ...]:
    """Whom it names, each once and without its sender, whom nothing of their own concerns. Raises Invalid."""
    named = metadata.get("mentions")
    if named is None:
        return ()
    if not isinstance(named, list) or len(named) > MOST or not all(map(_is_id, named)):
        raise Invalid(f"Mentions are at most {MOST} user ids.", details={"field": FIELD})
    return tuple(UserId(each) for each in dict.fromkeys(named) if each != sender)


def _is_id(value: object) -> bool:
    return isinstance(value, str) and is_id(value)


def strangers() -> Invalid:
    """What a message is told that mentions somebody who cannot see it."""
    return Invalid("Mention members of the conversation only.", details={"field": FIELD})
