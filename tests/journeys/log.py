"""What one client has seen of one conversation, and whether that is all of it."""

from __future__ import annotations

from typing import Any

import trio

from secureconnect.client import Event, Stream, StreamEnded


class Tally:
    """A count that can be waited for."""

    def __init__(self) -> None:
        self.count = 0
        self._grew = trio.Event()

    def add(self) -> None:
        self.count += 1
        self._grew.set()
        self._grew = trio.Event()

    async def reaches(self, count: int) -> None:
        while self.count < count:
            await self._grew.wait()


class Log:
    """Follows `room` on a stream.

    changes, keys: those of its events, as they came.  state: content by message_id, None once deleted.
    What is shown before it is stored does not count: where a node waits long for its database, as on a busy
    machine, it comes again.
    """

    def __init__(self, stream: Stream, room: str) -> None:
        self.changes: list[int] = []
        self.state: dict[str, str | None] = {}
        self.keys: list[str] = []
        self.reread = 0
        self.offline: list[str] = []
        self._stream = stream
        self._room = room
        self._grew = trio.Event()

    async def follow(self) -> None:
        try:
            async for event in self._stream:
                self._take(event)
                self._grew.set()
                self._grew = trio.Event()
        except StreamEnded as ended:
            raise AssertionError(f"the stream ended: {ended}") from ended

    async def reaches(self, change: int) -> None:
        while self._stream.positions.changes.get(self._room, 0) < change or self.last < change:
            await self._grew.wait()

    @property
    def last(self) -> int:
        return self.changes[-1] if self.changes else 0

    def _take(self, event: Event) -> None:
        if event["type"] == "offline":
            self.offline.append(event["reason"])
        if event.get("conversation_id") != self._room or event.get("provisional"):
            return
        match event["type"]:
            case "chat" | "message_edited":
                self.state[event["message_id"]] = event["content"]
            case "message_deleted":
                self.state[event["message_id"]] = None
            case "reread":
                self.reread += 1
                self.state = contents(event["messages"])
        if event["type"] == "chat":
            self.keys.append(event["client_message_id"])
        if "change" in event:
            self.changes.append(event["change"])


def contents(messages: list[dict[str, Any]]) -> dict[str, str | None]:
    """As REST tells them: the content by message_id, None once deleted."""
    return {one["message_id"]: None if one["deleted_at"] else one["content"] for one in messages}
