"""What happened in a conversation: the durable events, how each is numbered, kept, and read again.

A new message keeps its number in its own row; everything else is a row of `changes`, which never holds what
was said: that is read from the message when the event is told again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec

from ..deps.contracts import Row, Tx
from ..identity import ConversationId, MessageId, PollId, UserId
from . import store
from .polls import store as polls
from .polls.store import Poll
from .reactions import store as reactions
from .store import MESSAGE, PERSON, Conversation, MemberRole, Message, Person, Reacted, message_of

Kind = Literal[
    "chat",
    "message_edited",
    "message_deleted",
    "reaction",
    "message_pinned",
    "message_unpinned",
    "poll_created",
    "poll_voted",
    "poll_closed",
    "poll_deleted",
    "user_joined",
    "user_left",
    "conversation_updated",
    "conversation_deleted",
    "member_updated",
]


class Event(NamedTuple):
    """One durable change, with what is needed to tell of it.

    seq, message_id: of the message it is about; `message` is None when that is deleted or gone. seq: of a
    poll its `seen_from`.
    deleted_us: when it was deleted; None for one that is gone.
    mentioned: whom an edit names that the message did not name before.
    actor_id: who reacted or pinned.  on: or took it back.  people: how many react so after that.
    expires_us: when the message disappears that is not told with it, or the poll.
    poll_id, poll: what it is about; `poll` is None when that is deleted.
    user: who joined, left or got another role.  visible_from_seq: of the one who joined.
    trace: traceparent of what it came from, if that is traced.
    """

    kind: Kind
    conversation_id: ConversationId
    change: int
    stored_us: int
    seq: int | None = None
    message_id: MessageId | None = None
    message: Message | None = None
    conversation: Conversation | None = None
    user: Person | None = None
    role: MemberRole | None = None
    visible_from_seq: int | None = None
    deleted_us: int | None = None
    actor_id: UserId | None = None
    emoji: str | None = None
    on: bool | None = None
    people: int | None = None
    poll_id: PollId | None = None
    poll: Poll | None = None
    expires_us: int | None = None
    mentioned: tuple[UserId, ...] | None = None
    trace: str | None = None


_FACTS = ("role", "visible_from_seq", "emoji", "on", "people", "mentioned")  # of an event, kept as they are

# Writing

_NUMBER = (
    "UPDATE conversations SET last_change = last_change + $3, touched_at = $2 WHERE conversation_id = $1"
    " RETURNING last_change"
)
_RECORD = (
    "INSERT INTO changes (conversation_id, change, kind, ref, seq, actor_id, data, stored_at)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
)


async def number(tx: Tx, conversation: ConversationId, now_us: int, count: int = 1) -> int:
    """Take the next `change`, or so many, of which this is the last."""
    row = await tx.one(_NUMBER, conversation, now_us, count)
    assert row is not None
    return int(row[0])


async def record(tx: Tx, event: Event, actor: UserId | None) -> None:
    """Write the row from which the event is told again."""
    await tx.run(_RECORD, *_row_of(event, actor))


async def record_all(tx: Tx, events: Sequence[Event], actor: UserId | None) -> None:
    await tx.many(_RECORD, [_row_of(event, actor) for event in events])


def _row_of(event: Event, actor: UserId | None) -> Row:
    ref = event.message_id or event.poll_id or (event.user.user_id if event.user else None)
    facts = {name: value for name in _FACTS if (value := getattr(event, name)) is not None}
    data = msgspec.json.encode(facts).decode() if facts else None
    return (
        *(event.conversation_id, event.change, event.kind, ref, event.seq),
        *(actor, data, event.stored_us),
    )


# Reading

_MESSAGES_AFTER = (
    f"SELECT {MESSAGE} FROM messages g WHERE g.conversation_id = $1 AND g.change > $2"  # noqa: S608
    " ORDER BY g.change LIMIT $3"
)
_CHANGES_AFTER = (
    "SELECT h.change, h.kind, h.stored_at, h.seq, h.ref, h.actor_id, h.data,"  # noqa: S608
    f" {PERSON}, {MESSAGE} FROM changes h"
    " LEFT JOIN users u ON u.user_id = h.ref LEFT JOIN messages g ON g.message_id = h.ref"
    " WHERE h.conversation_id = $1 AND h.change > $2 ORDER BY h.change LIMIT $3"
)
_LAST_BEFORE = (
    "SELECT COALESCE((SELECT change FROM messages WHERE conversation_id = $1 AND change > $2 AND sent_at < $3"
    " ORDER BY change DESC LIMIT 1), $2), COALESCE((SELECT change FROM changes WHERE conversation_id = $1"
    " AND change > $2 AND stored_at < $3 ORDER BY change DESC LIMIT 1), $2)"
)
_PERSON = 7  # columns before that
_MESSAGE = _PERSON + len(Person._fields)
_REACH = 10_000  # changes looked back for the last old one


async def events(tx: Tx, conversation: ConversationId, after: int, limit: int, now_us: int) -> list[Event]:
    """What happened after change `after`, at most `limit`, in order, as it is to be told now."""
    said = await tx.all(_MESSAGES_AFTER, conversation, after, limit)
    found = [
        Event("chat", g.conversation_id, g.change, g.sent_us, g.seq, g.message_id, g)
        for g in (message_of(row, now_us) for row in said)
    ]
    rows = await tx.all(_CHANGES_AFTER, conversation, after, limit)
    if rows:
        found += [_event(row, conversation, now_us) for row in rows]
        found.sort(key=_by_change)
    found = found[:limit]
    if any(each.kind == "conversation_updated" for each in found):
        now = await store.get(tx, conversation)
        found = [_with_conversation(each, now) for each in found]
    if any(each.poll_id for each in found):
        found = await _with_polls(tx, found, now_us)
    reacted = await reactions.reacted_to(tx, [each.message for each in found if each.message is not None])
    if reacted:
        found = [_with_reactions(each, reacted) for each in found]
    return found


def _with_conversation(event: Event, now: Conversation | None) -> Event:
    return event._replace(conversation=now) if event.kind == "conversation_updated" else event


def _with_reactions(event: Event, reacted: dict[MessageId, tuple[Reacted, ...]]) -> Event:
    if event.message is None or event.message.message_id not in reacted:
        return event
    return event._replace(message=event.message._replace(reactions=reacted[event.message.message_id]))


async def _with_polls(tx: Tx, events: list[Event], now_us: int) -> list[Event]:
    """Each poll as it is now; of one that is gone it is told only that."""
    asked = dict.fromkeys(each.poll_id for each in events if each.poll_id)
    now = {poll: await polls.get(tx, poll, now_us) for poll in asked}
    return [_with_poll(each, now[each.poll_id]) if each.poll_id else each for each in events]


def _with_poll(event: Event, poll: Poll | None) -> Event:
    if poll is None:
        return event._replace(kind="poll_deleted")
    return event._replace(poll=poll, expires_us=poll.disappears_us)


def _by_change(event: Event) -> int:
    return event.change


def _event(row: Row, conversation: ConversationId, now_us: int) -> Event:
    change, kind, stored_us, seq, ref, actor, data = row[:_PERSON]
    event = Event(kind, conversation, change, stored_us, seq)
    facts = msgspec.json.decode(data) if data else {}
    match kind:
        case "message_edited" | "message_deleted" | "reaction" | "message_pinned" | "message_unpinned":
            message = message_of(row[_MESSAGE:], now_us) if row[_MESSAGE] is not None else None
            event = event._replace(message_id=ref)
            if kind == "message_deleted" or message is None or message.deleted_us is not None:
                deleted_us = message and message.deleted_us
                return event._replace(kind="message_deleted", deleted_us=deleted_us)
            if kind != "message_edited":
                return event._replace(actor_id=actor, expires_us=message.expires_us, **facts)
            return event._replace(message=message._replace(change=change))
        case "poll_created" | "poll_voted" | "poll_closed" | "poll_deleted":
            return event._replace(poll_id=ref)
        case "conversation_deleted" | "conversation_updated":
            return event
        case _:
            known = row[_PERSON] is not None
            user = Person._make(row[_PERSON:_MESSAGE]) if known else Person(ref, "", "", None)
            return event._replace(user=user, **facts)


async def last_before(tx: Tx, conversation: Conversation, before_us: int) -> int:
    """The last change stored before, or the one before the latest ten thousand."""
    reach = max(conversation.last_change - _REACH, 0)
    row = await tx.one(_LAST_BEFORE, conversation.conversation_id, reach, before_us)
    assert row is not None
    return int(max(row))
