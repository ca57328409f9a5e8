"""What a client holds of the conversations it follows. Pure state: no I/O, no clock.

`Positions` says of each incoming event whether it is news, and writes the resume frames. `Outbox` keeps each
message of ours, in order, until the server has said `stored` or refused it for good.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import TABLE

Event = Mapping[str, Any]

RESUME_POSITIONS = 1_000  # in one resume frame (DATA §5)
PROVISIONAL_KEPT = 10_000  # provisional messages of others remembered, to take them away again
KEYS_KEPT = 1_000  # message keys remembered per conversation, to know a message that comes a second way


class OutboxFull(Exception):
    """As many messages as may wait are waiting."""


def conversation_of(event: Event) -> str | None:
    """The conversation an event is about, if it is about one."""
    for holder in (event, event.get("conversation"), event.get("poll")):
        if isinstance(holder, Mapping) and "conversation_id" in holder:
            return str(holder["conversation_id"])
    return None


def is_retryable(code: str) -> bool:
    """Whether the same frame may succeed later: the service was busy or away, nothing was wrong with it."""
    known = TABLE.get(code)
    return known is not None and known.status in (429, 503)


class Positions:
    """The last `change` held of each conversation, in the history `history_id` ("" before any hello)."""

    def __init__(self, history_id: str = "", changes: Mapping[str, int] | None = None) -> None:
        self.history_id = history_id
        self.changes: dict[str, int] = dict(changes or {})
        self._keys: dict[str, OrderedDict[tuple[str, str], None]] = {}
        self._provisional: OrderedDict[tuple[str, str], Event] = OrderedDict()
        self._provisional_ids: dict[str, tuple[str, str]] = {}
        self._named: set[str] = set()
        self._next_history_id = history_id

    def admit(self, event: Event) -> bool:
        """Whether `event` is news; if it is, it counts as held from now on.

        An event with a `change` is news once. A message is news once whichever way it comes: live, replayed,
        or read again after a gap; a provisional one until it is stored. What has no `change` (typing, read,
        presence) is always news.
        """
        conversation = conversation_of(event)
        if conversation is None:
            return True
        change = event.get("change")
        if change is not None:
            if change <= self.changes.get(conversation, 0):
                return False
            self.changes[conversation] = change
        if event["type"] == "message_withdrawn":
            return self._let_go(self._provisional_ids.get(event["message_id"])) is not None
        if event["type"] != "chat":
            return True
        if event.get("provisional"):
            return self._hold(conversation, event)
        return self._remember(conversation, event)

    def discard(self, me: str) -> list[Event]:
        """At every reconnect: forget the provisional messages of others than `me`, which come back stored or
        never. Returns the events that take them away; ours wait in the outbox."""
        others = [key for key in self._provisional if key[0] != me]
        return [withdrawn for key in others if (withdrawn := self.take_away(*key)) is not None]

    def take_away(self, sender: str, client_message_id: str) -> Event | None:
        """Forget a provisional message. Returns the event that takes it away, if it was held."""
        held = self._let_go((sender, client_message_id))
        if held is None:
            return None
        return {
            "type": "message_withdrawn",
            "conversation_id": held["conversation_id"],
            "message_id": held["message_id"],
        }

    def reset(self, conversation: str, change: int, messages: Iterable[Event]) -> None:
        """After a gap: nothing is held but `messages`, and live goes on from `change`."""
        self.changes[conversation] = change
        self._keys.pop(conversation, None)
        for message in messages:
            self._remember(conversation, message)

    def forget(self, conversation: str) -> None:
        self.changes.pop(conversation, None)
        self._keys.pop(conversation, None)
        for key, held in tuple(self._provisional.items()):
            if held["conversation_id"] == conversation:
                self._let_go(key)

    def resume(self, history_id: str) -> list[dict[str, Any]]:
        """The frames that tell the server what we hold; `history_id` is the one its hello named.

        They carry the history our positions belong to: another one than the server's brings a gap for each
        conversation, and only when all of those are dealt with are our positions of the new history.
        """
        named = list(self.changes.items())
        self._next_history_id = history_id
        ours = self.history_id or history_id
        self._named.clear()
        frames: list[dict[str, Any]] = []
        for start in range(0, max(len(named), 1), RESUME_POSITIONS):
            part = dict(named[start : start + RESUME_POSITIONS])
            more = start + RESUME_POSITIONS < len(named)
            frames.append({"type": "resume", "history_id": ours, "conversations": part, "more": more})
        return frames

    def resumed(self, frame: Event, *, whole: bool) -> list[str]:
        """Take over the heads a `resumed` frame names: what came before them has been replayed.

        whole: the socket carries all conversations of the caller, so that one the frames do not name is lost.
        Returns the conversations lost, known with the last frame.
        """
        for conversation, head in frame["conversations"].items():
            self._named.add(conversation)
            self.changes[conversation] = max(head["change"], self.changes.get(conversation, 0))
        if frame.get("more"):
            return []
        self.history_id = self._next_history_id
        if not whole:
            return []
        lost = [conversation for conversation in self.changes if conversation not in self._named]
        for conversation in lost:
            self.forget(conversation)
        return lost

    def _hold(self, conversation: str, message: Event) -> bool:
        """Keep a provisional message; False if it is held, or stored already."""
        key = _key(message)
        if key in self._provisional or key in self._keys.get(conversation, ()):
            return False
        self._provisional[key] = message
        self._provisional_ids[message["message_id"]] = key
        if len(self._provisional) > PROVISIONAL_KEPT:
            self._let_go(next(iter(self._provisional)))
        return True

    def _let_go(self, key: tuple[str, str] | None) -> Event | None:
        """The provisional message that was held under this key."""
        held = None if key is None else self._provisional.pop(key, None)
        if held is not None:
            del self._provisional_ids[held["message_id"]]
        return held

    def _remember(self, conversation: str, message: Event) -> bool:
        """Keep the message's key; False if it was there."""
        keys = self._keys.setdefault(conversation, OrderedDict())
        key = _key(message)
        self._let_go(key)
        if key in keys:
            return False
        keys[key] = None
        if len(keys) > KEYS_KEPT:
            keys.popitem(last=False)
        return True


def _key(message: Event) -> tuple[str, str]:
    return (message["sender_id"] or "", message["client_message_id"])


@dataclass(slots=True)
class Entry:
    """A message of ours on its way.  answer: the frame that settled it."""

    frame: dict[str, Any]
    sent: bool = False
    answer: Event | None = None

    @property
    def client_message_id(self) -> str:
        return str(self.frame["client_message_id"])


class Outbox:
    """Our messages that are not settled yet, in the order they were given. At most `limit`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: dict[str, Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def is_full(self) -> bool:
        return len(self._entries) >= self._limit

    def add(self, frame: dict[str, Any]) -> Entry:
        """frame: a `chat` frame whose `ref` is its `client_message_id`. Raises OutboxFull."""
        if self.is_full:
            raise OutboxFull
        entry = Entry(frame)
        if entry.client_message_id in self._entries:
            raise ValueError("this client_message_id is in the outbox already")
        self._entries[entry.client_message_id] = entry
        return entry

    def next(self) -> Entry | None:
        """The oldest entry that has not been sent on this connection."""
        return next((entry for entry in self._entries.values() if not entry.sent), None)

    def send_again(self, since: Entry | None = None) -> None:
        """Send everything again, or all from `since` on: the server drops what it has already."""
        found = since is None
        for entry in self._entries.values():
            found = found or entry is since
            if found:
                entry.sent = False

    def settle(self, frame: Event) -> Entry | None:
        """Take an `ack`, `stored`, `rejected` or `error` frame. Returns the entry it settles for good.

        `accepted` does not: the message stays until it is stored or rejected. Nor does an error that may
        pass: it is sent again.
        """
        entry = self._entries.get(frame.get("client_message_id") or frame.get("ref") or "")
        if entry is None:
            return None
        if frame["type"] == "ack" and frame["status"] == "accepted":
            return None
        if frame["type"] == "error" and is_retryable(frame["code"]):
            self.send_again(since=entry)
            return None
        entry.answer = frame
        del self._entries[entry.client_message_id]
        return entry
