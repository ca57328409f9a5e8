"""What a message's metadata says of mentions, and what becomes of them when it is edited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...deps.contracts import Tx
from ...errors import Invalid
from ...identity import UserId, is_id
from ..store import Message, viewers
from . import store

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


async def mention_anew(tx: Tx, message: Message, named: Sequence[UserId]) -> tuple[UserId, ...]:
    """After an edit it names these. Returns those it did not name before; they must be members, or Invalid is
    raised. Whoever it named stays named, also when they have left."""
    conversation, seq = message.conversation_id, message.seq
    known = set(await store.of_message(tx, conversation, seq))
    added = tuple(user for user in named if user not in known)
    if added and not (await viewers(tx, conversation)).keys() >= set(added):
        raise strangers()
    await store.clear(tx, [message])
    await store.add(tx, [(user, conversation, seq) for user in named])
    return added


def strangers() -> Invalid:
    """What a message is told that mentions somebody who cannot see it."""
    return Invalid("Mention members of the conversation only.", details={"field": FIELD})
