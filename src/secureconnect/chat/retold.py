"""Events told before, read again from their frames: what they say, and how they are to be told now."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import msgspec
from msgspec import Raw, Struct

from ..clock import from_iso
from ..edge import Frame
from ..identity import ConversationId, MessageId, UserId
from . import frames
from .changes import Event, Kind
from .live import Live
from .store import Message, Reacted, as_shown, in_order, tombstone


class Changes(NamedTuple):
    """The last edit of a message that is known, its deletion, and how many react so, by emoji, where somebody
    did or took it back."""

    edited: Live | None = None
    deleted: Live | None = None
    reacted: Mapping[str, int] = MappingProxyType({})

    def then(self, live: Live) -> Changes:
        match live.kind:
            case "message_edited":
                return self._replace(edited=live)
            case "message_deleted":
                return self._replace(deleted=live)
            case _:
                told = _reaction.decode(live.frame.data)
                return self._replace(reacted={**self.reacted, told.emoji: told.count})


CHANGES = ("message_edited", "message_deleted", "reaction")  # kinds of what changes a message
RETOLD = ("chat", "message_edited", "reaction", "message_pinned", "message_unpinned")
"""Kinds of what is told otherwise once its message has changed."""
UNCHANGED = Changes()


class _Reacted(Struct):
    emoji: str
    count: int


class _Message(Struct):
    """A `chat` or `message_edited`."""

    message_id: str
    conversation_id: str
    seq: int
    change: int
    sender_id: str
    client_message_id: str
    message_type: str
    content: str
    is_encrypted: bool
    reply_to: str | None
    file_ids: Raw
    metadata: Raw
    sent_at: str
    edited_at: str | None
    deleted_at: str | None
    expires_at: str | None = None
    reactions: list[_Reacted] = []


class _Deleted(Struct):
    message_id: str
    deleted_at: str | None = None


class _Poll(Struct):
    poll: Raw


class _Conversation(Struct):
    first_seq: int


class _Updated(Struct):
    conversation: _Conversation


_poll = msgspec.json.Decoder(_Poll)
_reaction = msgspec.json.Decoder(_Reacted)
_message = msgspec.json.Decoder(_Message)
_deleted = msgspec.json.Decoder(_Deleted)
_updated = msgspec.json.Decoder(_Updated)


def message_in(live: Live) -> Message:
    """The message of a `chat` or `message_edited`. `change` is the event's."""
    told = _message.decode(live.frame.data)
    metadata = bytes(told.metadata).decode()
    return Message(
        MessageId(told.message_id),
        ConversationId(told.conversation_id),
        told.seq,
        told.change,
        UserId(told.sender_id),
        told.client_message_id,
        told.message_type,
        told.content,
        told.is_encrypted,
        MessageId(told.reply_to) if told.reply_to else None,
        bytes(told.file_ids).decode(),
        None if metadata == "null" else metadata,
        from_iso(told.sent_at),
        _us_or_none(told.edited_at),
        _us_or_none(told.deleted_at),
        _us_or_none(told.expires_at),
        sum(each.count for each in told.reactions),
        tuple(Reacted(each.emoji, each.count) for each in told.reactions),
    )


def first_seq_in(live: Live) -> int:
    """Of a `conversation_updated`."""
    return _updated.decode(live.frame.data).conversation.first_seq


def message_now(first: Live | Message, changes: Changes, now_us: int) -> Message:
    """As the table would have it shown.  first: as it was told or read.

    Where an older program told of the deletion it did not say when: then `deleted_us` is that of the epoch.
    """
    message = first if isinstance(first, Message) else message_in(first)
    if changes.edited is not None:
        message = message_in(changes.edited)._replace(change=message.change)
    if message.reactions or changes.reacted:
        message = _reacted(message, changes.reacted)
    if changes.deleted is not None:
        deleted_us = _us_or_none(_deleted.decode(changes.deleted.frame.data).deleted_at) or 0
        return tombstone(message, deleted_us)
    return as_shown(message, now_us)


def _reacted(message: Message, counts: Mapping[str, int]) -> Message:
    """Nobody's own reactions are told from memory: the same is told to all."""
    now = {each.emoji: each.people for each in message.reactions} | dict(counts)
    reactions = in_order(Reacted(emoji, count) for emoji, count in now.items() if count)
    return message._replace(reaction_count=sum(each.people for each in reactions), reactions=reactions)


def retell(live: Live, changes: Changes, now_us: int) -> Frame:
    """As the table would tell it now.  changes: to the message it is about."""
    if live.expires_us is not None and live.expires_us <= now_us and changes.deleted is None:
        changes = changes._replace(deleted=_expired(live))
    if live.kind not in RETOLD or changes in (UNCHANGED, Changes(live)):
        return live.frame
    if live.kind != "chat" and changes.deleted is not None:
        told = _deleted.decode(changes.deleted.frame.data)
        event = Event(
            "message_deleted",
            live.conversation_id,
            live.change,
            0,
            live.seq,
            MessageId(told.message_id),
            deleted_us=_us_or_none(told.deleted_at),
        )
        return frames.live(event).frame
    if live.kind not in ("chat", "message_edited"):
        return live.frame
    message = message_now(live, changes, now_us)._replace(change=live.change)
    kind: Kind = "chat" if live.kind == "chat" else "message_edited"
    event = Event(
        kind, live.conversation_id, live.change, message.sent_us, live.seq, message.message_id, message
    )
    return frames.live(event).frame


def blotted(live: Live, changes: Changes) -> Live:
    """What is left of it once the message it is about is deleted: told the same, without what was said."""
    kind = "chat" if live.kind == "chat" else "message_deleted"
    return live._replace(kind=kind, frame=retell(live, changes, 0))


def _expired(live: Live) -> Live:
    """The end of the message it is about, as its deletion will tell it."""
    event = Event(
        "message_deleted",
        live.conversation_id,
        live.change,
        0,
        live.seq,
        live.message_id,
        deleted_us=live.expires_us,
    )
    return frames.live(event)


def retell_poll(live: Live, last: Live, now_us: int) -> Frame:
    """As the table would tell it now.  last: what was last told of the same poll."""
    if last.kind == "poll_deleted" or (last.expires_us is not None and last.expires_us <= now_us):
        gone = Event("poll_deleted", live.conversation_id, live.change, 0, live.seq, poll_id=live.poll_id)
        return frames.live(gone).frame
    if live is last:
        return live.frame
    return frames.frame(frames.POLLS[live.kind](poll=_poll.decode(last.frame.data).poll, change=live.change))


def _us_or_none(text: str | None) -> int | None:
    return None if text is None else from_iso(text)
