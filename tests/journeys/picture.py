"""What a client has put together of one conversation, whichever way it came."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from secureconnect.client import Client, Event
from secureconnect.client.held import conversation_of

Fields = dict[str, Any]
KEPT = ("seq", "sender_id", "content", "message_type", "file_ids", "reply_to", "metadata", "edited_at")


@dataclass
class Picture:
    """change: the last that is in it.  people, pins: ids.  messages, polls: what is known of each, by id."""

    room: str
    change: int = 0
    title: str | None = None
    people: set[str] = field(default_factory=set)
    pins: set[str] = field(default_factory=set)
    messages: dict[str, Fields] = field(default_factory=dict)
    polls: dict[str, Fields] = field(default_factory=dict)

    @classmethod
    async def first(cls, client: Client, room: str) -> Picture:
        """Of a device that holds nothing: first sync, and what opening the conversation asks for."""
        picture = cls(room)
        listed = await client.call("GET", "/v1/conversations", query={"first_sync": 1})
        [found] = [each for each in listed["conversations"] if each["conversation_id"] == room]
        picture.change, picture.title = found["change"], found["title"]
        for message in found["messages"]:
            picture._hold(message)
        polls = await client.call("GET", "/v1/polls", query={"conversation_id": room})
        for poll in polls["polls"]:
            picture._ask(poll)
        members = await client.call("GET", f"/v1/conversations/{room}/participants")
        picture.people = {each["user_id"] for each in members["participants"]}
        pins = await client.call("GET", f"/v1/conversations/{room}/pins")
        picture.pins = {each["message"]["message_id"] for each in pins["pins"]}
        return picture

    def take(self, event: Event) -> None:
        """An event of any conversation, live or replayed."""
        if conversation_of(event) != self.room or (event.get("change") or 0) <= self.change:
            return
        self.change = event["change"]
        match event["type"]:
            case "chat" | "message_edited":
                self._hold(event)
            case "message_deleted":
                self.messages[event["message_id"]] = {"deleted_at": event["deleted_at"]}
            case "reaction":
                self._react(event)
            case "message_pinned":
                self.pins.add(event["message_id"])
            case "message_unpinned":
                self.pins.discard(event["message_id"])
            case "poll_created" | "poll_voted" | "poll_closed":
                self._ask(event["poll"])
            case "poll_deleted":
                del self.polls[event["poll_id"]]
            case "user_joined":
                self.people.add(event["user"]["user_id"])
            case "user_left":
                self.people.discard(event["user"]["user_id"])
            case "conversation_updated":
                self.title = event["conversation"]["title"]
            case kind:
                raise AssertionError(f"what is {kind}?")

    def _hold(self, message: Event) -> None:
        held = {"deleted_at": message["deleted_at"]}
        if message["deleted_at"] is None:
            held |= {name: message[name] for name in KEPT}
            held["reactions"] = {each["emoji"]: each["count"] for each in message["reactions"]}
        self.messages[message["message_id"]] = held

    def _react(self, event: Event) -> None:
        counts = self.messages[event["message_id"]]["reactions"]
        counts[event["emoji"]] = event["count"]
        if not event["count"]:
            del counts[event["emoji"]]

    def _ask(self, poll: Event) -> None:
        self.polls[poll["poll_id"]] = {name: poll[name] for name in poll if name != "my_option_ids"}
