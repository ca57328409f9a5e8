"""What is kept in memory of conversations: within its bounds, and never with a hole."""

from __future__ import annotations

import pytest

from secureconnect.chat.live import Live
from secureconnect.chat.recent import Recent
from secureconnect.edge import Frame
from secureconnect.identity import ConversationId, MessageId

TEXT = 1_000
ROOMS = [ConversationId(f"room {number}") for number in range(10)]


def chat(room: ConversationId, change: int) -> Live:
    name = MessageId(f"{room}, {change}")
    return Live("chat", room, change, change, None, None, Frame(b"x" * TEXT), None, name)


def held(recent: Recent, room: ConversationId) -> list[int]:
    past = recent.past(room)
    return [] if past is None else list(past.messages())


@pytest.mark.parametrize("limit", [0, 1, 10_000, 100_000])
def test_the_bytes_are_bounded_and_the_latest_stays(limit: int) -> None:
    recent = Recent(limit, 500)
    for change in range(1, 51):
        for room in ROOMS:
            recent.take(chat(room, change))
    kept = {room: held(recent, room) for room in ROOMS}
    assert sum(map(len, kept.values())) * TEXT <= limit
    assert all(seqs == list(range(51 - len(seqs), 51)) for seqs in kept.values())
    assert (max(map(len, kept.values())) > 0) == (limit >= 10_000)
    for room in ROOMS:
        for change in range(1, 51):
            name = MessageId(f"{room}, {change}")
            assert recent.conversation_of(name) == (room if change in kept[room] else None)


def test_each_conversation_is_bounded() -> None:
    recent = Recent(10_000_000, 20)
    for change in range(1, 51):
        recent.take(chat(ROOMS[0], change))
    assert held(recent, ROOMS[0]) == list(range(31, 51))


def test_after_a_jump_it_begins_anew() -> None:
    recent = Recent(10_000_000, 20)
    for change in (1, 2, 4, 5):
        recent.take(chat(ROOMS[0], change))
    past = recent.past(ROOMS[0])
    assert past is not None
    assert (past.start, past.head, held(recent, ROOMS[0])) == (3, 5, [4, 5])
    assert recent.conversation_of(MessageId("room 0, 2")) is None
