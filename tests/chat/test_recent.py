"""What is kept in memory of conversations: within its bounds, and never with a hole."""

from __future__ import annotations

import pytest

from secureconnect.chat.live import Live
from secureconnect.chat.recent import Recent
from secureconnect.chat.store import NO_ID, Conversation, Message
from secureconnect.edge import Frame
from secureconnect.identity import ConversationId, MessageId, UserId

TEXT = 1_000
ROOMS = [ConversationId(f"room {number}") for number in range(10)]


def chat(room: ConversationId, change: int) -> Live:
    name = MessageId(f"{room}, {change}")
    return Live("chat", room, change, change, None, None, Frame(b"x" * TEXT), None, name)


def message(room: ConversationId, seq: int) -> Message:
    name, user = MessageId(f"{room}, {seq}"), UserId(NO_ID)
    return Message(name, room, seq, seq, user, "", "text", "", False, None, "[]", None, 1, None, None)


def conversation(room: ConversationId, head: int) -> Conversation:
    user = UserId(NO_ID)
    return Conversation(room, "group", None, None, user, 1, 1, head, head, 1, 1, 0, False, False, 0, False)


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


def test_what_was_read_is_kept_as_far_as_there_is_room() -> None:
    recent, [room, other, *_] = Recent(10_000_000, 20), ROOMS
    now = conversation(room, 50)
    assert recent.lacks(now, 41, 50)
    recent.keep(now, [message(room, seq) for seq in range(41, 51)])
    assert held(recent, room) == list(range(41, 51))
    assert not recent.lacks(now, 41, 50)
    assert not recent.lacks(now, 30, 39), "there would be a hole"
    assert not recent.lacks(conversation(room, 60), 41, 60), "more has happened than was told"
    assert recent.lacks(now, 1, 40)
    recent.keep(now, [message(room, seq) for seq in range(1, 41)])
    assert held(recent, room) == list(range(31, 51))
    assert not recent.lacks(now, 1, 40)
    for change in range(51, 71):
        recent.take(chat(room, change))
    assert not recent.lacks(conversation(room, 70), 41, 70), "there is no room beside what has happened"
    assert recent.lacks(conversation(other, 1), 1, 1)
    assert not Recent(0, 20).lacks(conversation(other, 1), 1, 1)
