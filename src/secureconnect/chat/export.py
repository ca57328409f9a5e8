"""Everything this room keeps of a person, record by record."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec

from ..clock import to_iso
from ..deps.contracts import Database, Tx
from ..identity import ConversationId, MessageId, NotificationId, PollId, UserId
from . import archive, shapes
from .notifications import push_store
from .notifications import store as notifications
from .notifications.making import preferences_of
from .pins import store as pins
from .polls import store as polls
from .presence import store as presence
from .reactions import store as reactions
from .store import LAST_ID, NO_ID, Seat
from .versions import store as versions

PAGE = 200  # rows in memory at a time

Record = dict[str, Any]
R = TypeVar("R")
K = TypeVar("K")


async def records_of(db: Database, user: UserId) -> AsyncIterator[Record]:
    """When they were last here, memberships, messages and what they said before, reactions, polls, votes,
    devices that are woken, notifications and how they want them, and pins."""
    if (seen_us := await db.read(presence.last_seen, user)) is not None:
        yield {"kind": "last_seen", "last_seen": to_iso(seen_us)}

    def seats(tx: Tx, after: ConversationId) -> Awaitable[list[Seat]]:
        return archive.seats_of(tx, user, after, PAGE)

    async for seat in _all(db, seats, ConversationId(NO_ID), lambda seat: seat.conversation.conversation_id):
        yield _membership(seat)
    async for message in _all(
        db,
        lambda tx, after: archive.sent_by(tx, user, after, PAGE, db.now_us()),
        "",
        lambda message: message.client_message_id,
    ):
        yield _record("message", shapes.message_shape(message))
    async for version in _all(
        db,
        lambda tx, after: versions.written_by(tx, user, after, PAGE),
        (MessageId(NO_ID), 0),
        lambda version: version[:2],
    ):
        yield _record("version", shapes.version_shape(*version[1:]), message_id=version.message_id)
    async for reaction in _all(
        db,
        lambda tx, after: reactions.of_user(tx, user, after, PAGE),
        (MessageId(NO_ID), ""),
        lambda reaction: reaction[:2],
    ):
        yield {
            "kind": "reaction",
            "message_id": reaction.message_id,
            "emoji": reaction.emoji,
            "reacted_at": to_iso(reaction.reacted_us),
        }
    async for poll in _all(
        db,
        lambda tx, after: polls.made_by(tx, user, after, PAGE, db.now_us()),
        PollId(NO_ID),
        lambda poll: poll.poll_id,
    ):
        yield _record("poll", shapes.poll_shape(poll, shapes.PollShape))
    async for vote in _all(
        db,
        lambda tx, after: polls.cast_by(tx, user, after, PAGE),
        (PollId(NO_ID), NO_ID),
        lambda vote: vote[:2],
    ):
        yield {
            "kind": "vote",
            "poll_id": vote.poll_id,
            "option_id": vote.option_id,
            "voted_at": to_iso(vote.voted_us),
        }
    for device in await db.read(push_store.registrations, user):
        yield {
            "kind": "push_device",
            "device_id": device.device_id,
            "service": device.service,
            "registered_at": to_iso(device.registered_us),
        }
    async for choice in _all(
        db,
        lambda tx, after: notifications.choices(tx, user, after, PAGE),
        ConversationId(NO_ID),
        lambda choice: choice.conversation_id,
    ):
        yield {"kind": "conversation_notifications", **choice._asdict()}
    yield _record("notification_preferences", await db.read(preferences_of, user))
    async for notification in _all(
        db,
        lambda tx, before: notifications.page(tx, user, before, PAGE, only_unread=False),
        NotificationId(LAST_ID),
        lambda notification: notification.notification_id,
    ):
        told = msgspec.to_builtins(shapes.notification_shape(notification))
        yield {**told, "kind": "notification", "about": told["kind"]}
    async for pin in _all(
        db,
        lambda tx, after: pins.by_user(tx, user, after, PAGE),
        MessageId(NO_ID),
        lambda pin: pin.message_id,
    ):
        yield {"kind": "pin", "message_id": pin.message_id, "pinned_at": to_iso(pin.pinned_us)}


async def _all(
    db: Database, page: Callable[[Tx, K], Awaitable[Sequence[R]]], start: K, key: Callable[[R], K]
) -> AsyncIterator[R]:
    """page: the rows that follow the one with a key, PAGE at most; none once there are no more."""
    while rows := await db.read(page, start):
        for row in rows:
            yield row
        start = key(rows[-1])


def _membership(seat: Seat) -> Record:
    shape = shapes.conversation_shape(seat.conversation)
    shape.my_role = seat.member.role
    return _record(
        "conversation",
        shape,
        joined_at=to_iso(seat.member.joined_us),
        last_read_seq=seat.member.last_read_seq,
        muted_until=shapes.iso_or_none(seat.member.muted_until_us),
    )


def _record(kind: str, shape: Any, **more: Any) -> Record:
    return {"kind": kind, **msgspec.to_builtins(shape), **more}
