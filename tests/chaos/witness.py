"""What one client has seen of the conversations it follows."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

import trio

from secureconnect.client import Event, Stream, StreamEnded
from secureconnect.client.held import conversation_of

Key = tuple[str, str]  # of a message: sender_id, client_message_id


class Seen:
    """One conversation.

    changes: as they came.  content: of each stored message, None once deleted.  rereads: how often the past
    was read afresh, after which `changes` may have a hole.
    reactions: how many there are, by message.
    provisional: messages shown before they were stored, and not yet stored or withdrawn.
    """

    def __init__(self, change: int) -> None:
        self.first = change
        self.changes: list[int] = []
        self.content: dict[Key, str | None] = {}
        self.reactions: dict[str, int] = {}
        self.provisional: dict[Key, str] = {}
        self.provisionals = 0
        self.rereads = 0
        self._keys: dict[str, Key] = {}

    def take(self, event: Event) -> None:
        match event["type"]:
            case "chat" if event.get("provisional"):
                self.provisional[_key(event)] = event["message_id"]
                self.provisionals += 1
                return
            case "chat" | "message_edited":
                self._hold(event)
            case "reaction":
                self.reactions[event["message_id"]] = event["count"]
            case "message_deleted":
                # a message unknown here was read afresh later, already deleted
                if (key := self._keys.get(event["message_id"])) is not None:
                    self.content[key] = None
            case "message_withdrawn":
                gone = [key for key, name in self.provisional.items() if name == event["message_id"]]
                for key in gone:
                    del self.provisional[key]
            case "reread":
                self.rereads += 1
                self.content.clear()
                for message in event["messages"]:
                    self._hold(message)
        if event.get("change"):
            self.changes.append(event["change"])

    def _hold(self, message: Mapping[str, Any]) -> None:
        key = _key(message)
        self._keys[message["message_id"]] = key
        self.provisional.pop(key, None)
        self.content[key] = None if message["deleted_at"] else message["content"]
        self.reactions[message["message_id"]] = sum(each["count"] for each in message["reactions"])


class Witness:
    """Follows a stream; heads: the change of each conversation when it began.

    heard: when each message of another came, stored or not, on the wall clock.
    """

    def __init__(self, name: str, user_id: str, stream: Stream, heads: Mapping[str, int]) -> None:
        self.name = name
        self.user_id = user_id
        self.stream = stream
        self.rooms = {room: Seen(change) for room, change in heads.items()}
        self.offline: list[str] = []
        self.degraded: list[Event] = []
        self.heard: list[float] = []
        self._grew = trio.Event()

    async def follow(self) -> None:
        """Until cancelled. Being sent away for good fails the test: nobody signed this client out."""
        try:
            async for event in self.stream:
                self._take(event)
                self._grew.set()
                self._grew = trio.Event()
        except StreamEnded as ended:
            raise AssertionError(f"{self.name} was sent away: {ended}") from ended

    async def reaches(self, heads: Mapping[str, int]) -> None:
        """Wait until these changes have been seen."""
        while any(self.stream.positions.changes.get(room, 0) < head for room, head in heads.items()) or any(
            self.rooms[room].changes[-1:] < [head]
            for room, head in heads.items()
            if head > self.rooms[room].first and not self.rooms[room].rereads
        ):
            await self._grew.wait()

    async def clears(self) -> None:
        """Wait until nothing is shown that is not stored."""
        while any(seen.provisional for seen in self.rooms.values()):
            await self._grew.wait()

    def _take(self, event: Event) -> None:
        match event["type"]:
            case "offline":
                self.offline.append(event["reason"])
                for seen in self.rooms.values():  # they return stored, or never
                    seen.provisional.clear()
            case "degraded" | "recovered":
                self.degraded.append(event)
            case _:
                seen_in = self.rooms.get(str(conversation_of(event)))
                if seen_in is not None:
                    seen_in.take(event)
                    if event["type"] == "chat" and event["sender_id"] != self.user_id:
                        self.heard.append(time.time())


def longest_pause(stamps: Iterable[float], start: float, end: float) -> float:
    """The longest time without one of these, between two moments."""
    last, longest = start, 0.0
    for stamp in sorted(stamps):
        if start < stamp <= end:
            longest = max(longest, stamp - last)
            last = stamp
    return max(longest, end - last)


def _key(message: Mapping[str, Any]) -> Key:
    return (str(message["sender_id"]), str(message["client_message_id"]))
