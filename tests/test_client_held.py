"""What a client holds: no event twice, none lost, whatever the order of cuts and answers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secureconnect.client.held import PROVISIONAL_KEPT, RESUME_POSITIONS, Outbox, OutboxFull, Positions


def chat(change: int, *, conversation: str = "c", sender: str = "ann", key: str = "") -> dict[str, Any]:
    return {
        "type": "chat",
        "conversation_id": conversation,
        "sender_id": sender,
        "client_message_id": key or f"m{change}",
        "change": change,
    }


def provisional(key: str, sender: str = "ann") -> dict[str, Any]:
    message = chat(0, key=key, sender=sender)
    return message | {"message_id": f"id-{key}", "change": None, "seq": None, "provisional": True}


def withdrawn(key: str) -> dict[str, Any]:
    return {"type": "message_withdrawn", "conversation_id": "c", "message_id": f"id-{key}"}


def frame(key: str) -> dict[str, Any]:
    return {"type": "chat", "ref": key, "client_message_id": key}


def stored(key: str) -> dict[str, Any]:
    return {"type": "ack", "ref": key, "client_message_id": key, "status": "stored"}


@given(st.lists(st.integers(1, 20)))
def test_each_change_is_news_once(arrivals: list[int]) -> None:
    positions = Positions()
    news = [change for change in arrivals if positions.admit(chat(change))]
    assert news == sorted(set(news))
    assert positions.changes.get("c", 0) == max(arrivals, default=0)


def test_conversations_are_counted_apart() -> None:
    positions = Positions()
    assert positions.admit(chat(5, conversation="a"))
    assert positions.admit(chat(3, conversation="b"))
    assert positions.changes == {"a": 5, "b": 3}


def test_events_without_a_change_are_always_news() -> None:
    positions = Positions()
    typing = {"type": "typing", "conversation_id": "c", "user_id": "ann", "is_typing": True}
    assert positions.admit(typing)
    assert positions.admit(typing)
    assert positions.changes == {}


def test_the_conversation_may_stand_inside_the_event() -> None:
    positions = Positions()
    event = {"type": "conversation_updated", "conversation": {"conversation_id": "c"}, "change": 4}
    assert positions.admit(event)
    assert not positions.admit(event)


def test_a_provisional_message_gives_way_to_the_stored_one() -> None:
    positions = Positions()
    assert positions.admit(provisional("k"))
    assert not positions.admit(provisional("k")), "it is held"
    assert positions.admit(chat(1, key="k"))
    assert not positions.admit(provisional("k"))
    assert not positions.admit(withdrawn("k")), "it is stored"
    assert positions.discard("me") == []


def test_a_withdrawn_message_is_taken_away_once() -> None:
    positions = Positions()
    positions.admit(provisional("k"))
    assert positions.admit(withdrawn("k"))
    assert not positions.admit(withdrawn("k"))
    assert positions.admit(provisional("k")), "accepted once more, elsewhere"
    assert positions.take_away("ann", "k") == withdrawn("k")
    assert positions.take_away("ann", "k") is None


def test_provisional_messages_of_others_go_at_a_reconnect() -> None:
    positions = Positions()
    for key, sender in (("a", "ann"), ("b", "me"), ("c", "bob")):
        positions.admit(provisional(key, sender))
    assert positions.discard("me") == [withdrawn("a"), withdrawn("c")]
    assert positions.discard("me") == []
    assert not positions.admit(provisional("b", "me")), "ours is still held"


def test_provisional_messages_go_with_their_conversation() -> None:
    positions = Positions()
    positions.admit(provisional("a"))
    positions.forget("c")
    assert positions.discard("me") == []


def test_provisional_messages_held_are_bounded() -> None:
    positions = Positions()
    for number in range(PROVISIONAL_KEPT + 5):
        positions.admit(provisional(str(number)))
    assert len(positions.discard("me")) == PROVISIONAL_KEPT


def test_after_a_gap_only_what_is_newer_is_news() -> None:
    positions = Positions("h", {"c": 3})
    positions.reset("c", 10, [chat(9), chat(11)])
    assert not positions.admit(chat(10))
    assert not positions.admit(chat(11)), "it was among the messages read again"
    assert positions.admit(chat(12))


def test_resume_names_every_position_in_frames_of_bounded_size() -> None:
    held = {f"c{number}": number + 1 for number in range(RESUME_POSITIONS * 2 + 1)}
    frames = Positions("h", held).resume("h")
    assert [len(one["conversations"]) for one in frames] == [RESUME_POSITIONS, RESUME_POSITIONS, 1]
    assert [one["more"] for one in frames] == [True, True, False]
    assert {key: value for one in frames for key, value in one["conversations"].items()} == held


def test_the_first_resume_takes_the_history_of_the_server() -> None:
    [first] = Positions().resume("h")
    assert first == {"type": "resume", "history_id": "h", "conversations": {}, "more": False}


def test_positions_belong_to_the_old_history_until_all_gaps_are_dealt_with() -> None:
    positions = Positions("old", {"c": 3})
    assert positions.resume("new")[0]["history_id"] == "old"
    positions.reset("c", 1, [])
    assert positions.resume("new")[0]["history_id"] == "old", "cut before `resumed`"
    positions.resumed({"conversations": {"c": {"change": 1}}}, whole=True)
    assert positions.resume("new")[0]["history_id"] == "new"


def test_resumed_tells_what_is_lost_only_with_its_last_frame() -> None:
    positions = Positions("h", {"kept": 3, "lost": 5})
    positions.resume("h")
    head = {"change": 7}
    assert positions.resumed({"conversations": {"kept": head}, "more": True}, whole=True) == []
    assert positions.resumed({"conversations": {"joined": head}}, whole=True) == ["lost"]
    assert positions.changes == {"kept": 7, "joined": 7}


def test_a_socket_of_one_conversation_loses_no_other() -> None:
    positions = Positions("h", {"one": 3, "other": 5})
    positions.resume("h")
    assert positions.resumed({"conversations": {"one": {"change": 3}}}, whole=False) == []
    assert "other" in positions.changes


def test_the_outbox_is_bounded_and_in_order() -> None:
    outbox = Outbox(2)
    first, second = outbox.add(frame("a")), outbox.add(frame("b"))
    with pytest.raises(OutboxFull):
        outbox.add(frame("c"))
    assert outbox.next() is first
    first.sent = True
    assert outbox.next() is second
    assert outbox.settle(stored("a")) is first
    outbox.add(frame("c"))


def test_a_new_connection_sends_the_unacknowledged_before_anything_new() -> None:
    outbox = Outbox(10)
    old = [outbox.add(frame("a")), outbox.add(frame("b"))]
    for each in old:
        each.sent = True
    outbox.send_again()
    outbox.add(frame("c"))
    sent = []
    while (entry := outbox.next()) is not None:
        entry.sent = True
        sent.append(entry.client_message_id)
    assert sent == ["a", "b", "c"]


def test_accepted_is_kept_until_stored_or_rejected() -> None:
    outbox = Outbox(10)
    entries = [outbox.add(frame("a")), outbox.add(frame("b"))]
    for key in "ab":
        assert outbox.settle(stored(key) | {"status": "accepted"}) is None
    assert outbox.settle({"type": "stored", "client_message_id": "a"}) is entries[0]
    assert outbox.settle({"type": "rejected", "client_message_id": "b", "code": "FORBIDDEN"}) is entries[1]
    assert len(outbox) == 0


def test_a_busy_server_is_asked_again_and_a_refusal_is_final() -> None:
    outbox = Outbox(10)
    first, second = outbox.add(frame("a")), outbox.add(frame("b"))
    first.sent = second.sent = True
    assert outbox.settle({"type": "error", "ref": "a", "code": "UNAVAILABLE"}) is None
    assert outbox.next() is first
    assert not second.sent, "what came after it goes after it again"
    assert outbox.settle({"type": "error", "ref": "a", "code": "FORBIDDEN"}) is first
    assert outbox.settle({"type": "error", "ref": "nobody", "code": "FORBIDDEN"}) is None


def test_the_same_message_cannot_wait_twice() -> None:
    outbox = Outbox(10)
    outbox.add(frame("a"))
    with pytest.raises(ValueError, match="in the outbox already"):
        outbox.add(frame("a"))
