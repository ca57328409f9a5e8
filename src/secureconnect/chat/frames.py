"""WebSocket frames: what clients are told, encoded once for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from ..clock import to_iso
from ..edge import Frame, Weight
from ..errors import Problem
from ..identity import ConversationId, UserId
from .append import Outcome, Stored
from .changes import Event
from .inbound import Ref
from .live import PRIVATE, PROVISIONAL, SETTLED, WITHDRAWN, Live
from .notifications.store import Notification
from .pledges import Accepted, Pledge
from .shapes import (
    ConversationShape,
    MessageShape,
    NotificationShape,
    PersonShape,
    PollShape,
    Reaction,
    Status,
    conversation_shape,
    iso_or_none,
    message_fields,
    muted_until,
    notification_fields,
    person_shape,
    poll_shape,
)
from .store import Message


class Out(Struct, tag_field="type", kw_only=True):
    pass


class Hello(Out, tag="hello"):
    session_id: str
    history_id: str
    server_time: str
    heartbeat_s: float


class Ack(Out, tag="ack", kw_only=True):
    ref: Ref
    client_message_id: str | UnsetType = UNSET
    conversation_id: str | UnsetType = UNSET
    status: str
    message_id: str | UnsetType = UNSET
    seq: int | UnsetType | None = UNSET
    sent_at: str | UnsetType = UNSET


class StoredOut(Out, tag="stored"):
    """What an accepted message has become."""

    client_message_id: str
    conversation_id: str
    status: str
    message_id: str
    seq: int
    sent_at: str


class RejectedOut(Out, tag="rejected"):
    """What an accepted message has not become."""

    client_message_id: str
    conversation_id: str
    code: str
    message: str


class Error(Out, tag="error", kw_only=True):
    ref: Ref | UnsetType = UNSET
    code: str
    message: str
    details: dict[str, Any] | UnsetType = UNSET


class Pong(Out, tag="pong"):
    ref: Ref | UnsetType = UNSET


class ChatOut(MessageShape, tag="chat", tag_field="type"):
    pass


class ProvisionalOut(Out, tag="chat", kw_only=True):
    """An accepted message: a `chat` that has no place in the conversation yet, and may never get one."""

    message_id: str
    client_message_id: str
    conversation_id: str
    sender_id: str
    seq: int | None = None
    content: str
    message_type: str
    is_encrypted: bool
    reply_to: str | None
    file_ids: list[str]
    metadata: dict[str, Any] | None
    reactions: list[Reaction]
    change: int | None = None
    sent_at: str
    edited_at: str | None = None
    deleted_at: str | None = None
    expires_at: str | None = None
    provisional: bool = True


class WithdrawnOut(Out, tag="message_withdrawn"):
    conversation_id: str
    message_id: str


class EditedOut(MessageShape, tag="message_edited", tag_field="type"):
    pass


class DeletedOut(Out, tag="message_deleted"):
    conversation_id: str
    message_id: str
    seq: int
    change: int
    deleted_at: str | None


class ReactionOut(Out, tag="reaction"):
    """count: of those who react so, after this."""

    conversation_id: str
    message_id: str
    emoji: str
    user_id: str
    on: bool
    count: int
    change: int


class PinnedOut(Out, tag="message_pinned"):
    conversation_id: str
    message_id: str
    user_id: str
    change: int


class UnpinnedOut(Out, tag="message_unpinned"):
    conversation_id: str
    message_id: str
    user_id: str
    change: int


class PollCreatedOut(Out, tag="poll_created"):
    poll: PollShape | msgspec.Raw
    change: int


class PollVotedOut(Out, tag="poll_voted"):
    poll: PollShape | msgspec.Raw
    change: int


class PollClosedOut(Out, tag="poll_closed"):
    poll: PollShape | msgspec.Raw
    change: int


class PollDeletedOut(Out, tag="poll_deleted"):
    poll_id: str
    conversation_id: str
    change: int


class JoinedOut(Out, tag="user_joined"):
    conversation_id: str
    user: PersonShape
    change: int


class LeftOut(Out, tag="user_left"):
    conversation_id: str
    user: PersonShape
    change: int


class UpdatedOut(Out, tag="conversation_updated"):
    conversation: ConversationShape
    change: int


class ConversationDeletedOut(Out, tag="conversation_deleted"):
    conversation_id: str
    change: int


class MemberOut(Out, tag="member_updated"):
    conversation_id: str
    user_id: str
    role: str
    change: int


class ReadOut(Out, tag="read"):
    conversation_id: str
    user_id: str
    seq: int


class MutedOut(Out, tag="muted"):
    """For the sockets of who did it.  muted_until: null without an end."""

    conversation_id: str
    is_muted: bool
    muted_until: str | None


class TypingOut(Out, tag="typing"):
    conversation_id: str
    user_id: str
    is_typing: bool


class PresenceOut(Out, tag="presence"):
    user_id: str
    status: Status
    last_seen: str | None


class Standing(Struct, omit_defaults=True):
    """unread_mentions, is_muted, muted_until: left out where there are none and nothing is muted; null:
    without an end."""

    seq: int
    change: int
    first_seq: int
    last_read_seq: int
    unread_count: int
    unread_mentions: int = 0
    is_muted: bool = False
    muted_until: str | None = None


class Resumed(Out, tag="resumed"):
    conversations: Mapping[str, Standing]
    more: bool | UnsetType = UNSET


class Resuming(Out, tag="resuming"):
    """The database is away: these conversations are live, each from its change on; the others, and `resumed`,
    follow when it is back."""

    conversations: Mapping[ConversationId, int]


class Gap(Out, tag="gap"):
    conversation_id: str
    from_seq: int
    to_seq: int
    change: int


class Degraded(Out, tag="degraded"):
    """dependencies: what each that is away affects."""

    dependencies: Mapping[str, Sequence[str]]


class Recovered(Out, tag="recovered"):
    pass


class AnnouncementOut(Out, tag="announcement"):
    """until: when it ends; null: it stays."""

    announcement_id: str
    text: str
    created_at: str
    until: str | None


class NotificationOut(NotificationShape, tag="notification", tag_field="type"):
    pass


class NotificationsReadOut(Out, tag="notifications_read"):
    """All up to this one are."""

    up_to: str
    read_at: str


_encoder = msgspec.json.Encoder()


def frame(out: Struct, weight: Weight = Weight.DURABLE) -> Frame:
    return Frame(_encoder.encode(out), weight)


def health(away: Mapping[str, Sequence[str]]) -> Frame:
    """How the server is: what is away, and what that affects."""
    return frame(Degraded(dependencies=away) if away else Recovered())


def ack(ref: Ref, answer: Stored | Accepted) -> Frame:
    if isinstance(answer, Accepted):
        return frame(
            Ack(
                ref=ref,
                client_message_id=answer.client_message_id,
                conversation_id=answer.conversation_id,
                status="accepted",
                message_id=answer.message_id,
                seq=None,
                sent_at=to_iso(answer.sent_us),
            )
        )
    message = answer.message
    return frame(
        Ack(
            ref=ref,
            client_message_id=message.client_message_id,
            conversation_id=message.conversation_id,
            status="stored",
            message_id=message.message_id,
            seq=message.seq,
            sent_at=to_iso(message.sent_us),
        )
    )


def error(ref: Ref | None, problem: Problem) -> Frame:
    return frame(
        Error(
            ref=UNSET if ref is None else ref,
            code=problem.code,
            message=problem.message,
            details=problem.details or UNSET,
        )
    )


def live(event: Event) -> Live:
    """The event, encoded, with what the hub must know of it."""
    user_id = event.user.user_id if event.user else None
    return Live(
        event.kind,
        event.conversation_id,
        event.change,
        event.seq,
        user_id,
        event.visible_from_seq,
        frame(_told(event)),
        event.conversation.is_e2ee_enabled if event.conversation else None,
        event.message_id,
        event.poll_id,
        event.message.expires_us if event.message else event.expires_us,
        event.trace,
    )


def provisional(pledge: Pledge) -> Live:
    """An accepted message, for everybody in its conversation."""
    draft = pledge.draft
    told = ProvisionalOut(
        message_id=draft.message_id,
        client_message_id=draft.client_message_id,
        conversation_id=draft.conversation_id,
        sender_id=draft.sender_id,
        content=draft.content,
        message_type=draft.message_type,
        is_encrypted=draft.is_encrypted,
        reply_to=draft.reply_to,
        file_ids=msgspec.json.decode(draft.file_ids),
        metadata=None if draft.metadata is None else msgspec.json.decode(draft.metadata),
        reactions=[],
        sent_at=to_iso(pledge.accepted_us),
    )
    return Live(PROVISIONAL, draft.conversation_id, 0, None, None, None, frame(told))


def withdrawn(pledge: Pledge) -> Live:
    """The message that was shown is not going to be stored."""
    draft = pledge.draft
    told = WithdrawnOut(conversation_id=draft.conversation_id, message_id=draft.message_id)
    return Live(WITHDRAWN, draft.conversation_id, 0, None, None, None, frame(told))


def settled(pledge: Pledge, outcome: Outcome) -> Live:
    """What has become of an accepted message, for its sender."""
    draft = pledge.draft
    if isinstance(outcome, Stored):
        message = outcome.message
        told: Out = StoredOut(
            client_message_id=message.client_message_id,
            conversation_id=message.conversation_id,
            status="stored",
            message_id=message.message_id,
            seq=message.seq,
            sent_at=to_iso(message.sent_us),
        )
    else:
        told = RejectedOut(
            client_message_id=draft.client_message_id,
            conversation_id=draft.conversation_id,
            code=outcome.code,
            message=outcome.message,
        )
    return Live(SETTLED, draft.conversation_id, 0, None, None, None, frame(told))


def read_mark(conversation: ConversationId, user: UserId, seq: int, is_private: bool) -> Live:
    told = frame(ReadOut(conversation_id=conversation, user_id=user, seq=seq))
    if is_private:
        return Live(PRIVATE, conversation, 0, None, user, None, told)
    return Live("read", conversation, 0, None, None, None, told)


def notification(told: Notification) -> Live:
    """For its person alone: that there is one, or that it is read."""
    about = told.conversation_id or ConversationId("")
    return Live(
        PRIVATE, about, 0, None, told.user_id, None, frame(NotificationOut(*notification_fields(told)))
    )


def notifications_read(user: UserId, up_to: str, read_us: int) -> Live:
    told = frame(NotificationsReadOut(up_to=up_to, read_at=to_iso(read_us)))
    return Live(PRIVATE, ConversationId(""), 0, None, user, None, told)


def mute_mark(conversation: ConversationId, user: UserId, until_us: int | None) -> Live:
    is_muted, until = muted_until(until_us)
    told = frame(MutedOut(conversation_id=conversation, is_muted=is_muted, muted_until=until))
    return Live(PRIVATE, conversation, 0, None, user, None, told)


def gone(user: UserId) -> Frame:
    """Somebody is shown no more."""
    return frame(PresenceOut(user_id=user, status="offline", last_seen=None), Weight.PRESENCE)


def typing_mark(conversation: ConversationId, user: UserId, is_typing: bool) -> Live:
    told = frame(TypingOut(conversation_id=conversation, user_id=user, is_typing=is_typing), Weight.TYPING)
    return Live("typing", conversation, 0, None, None, None, told)


PINS: dict[str, type[PinnedOut | UnpinnedOut]] = {
    "message_pinned": PinnedOut,
    "message_unpinned": UnpinnedOut,
}
POLLS: dict[str, type[PollCreatedOut | PollVotedOut | PollClosedOut]] = {
    "poll_created": PollCreatedOut,
    "poll_voted": PollVotedOut,
    "poll_closed": PollClosedOut,
}


def _for_all(message: Message) -> Message:
    """Without what depends on who looks."""
    if not message.reactions:
        return message
    return message._replace(reactions=tuple(each._replace(mine=None) for each in message.reactions))


def _told(event: Event) -> Struct:
    if event.kind == "chat":
        assert event.message is not None
        return ChatOut(*message_fields(_for_all(event.message)))
    if event.kind == "message_edited":
        assert event.message is not None
        return EditedOut(*message_fields(_for_all(event.message)))
    if event.kind == "message_deleted":
        return DeletedOut(
            conversation_id=event.conversation_id,
            message_id=event.message_id or "",
            seq=event.seq or 0,
            change=event.change,
            deleted_at=iso_or_none(event.deleted_us),
        )
    if event.kind == "reaction":
        return ReactionOut(
            conversation_id=event.conversation_id,
            message_id=event.message_id or "",
            emoji=event.emoji or "",
            user_id=event.actor_id or "",
            on=bool(event.on),
            count=event.people or 0,
            change=event.change,
        )
    if event.kind in PINS:
        return PINS[event.kind](
            conversation_id=event.conversation_id,
            message_id=event.message_id or "",
            user_id=event.actor_id or "",
            change=event.change,
        )
    if event.kind == "poll_deleted":
        return PollDeletedOut(
            poll_id=event.poll_id or "", conversation_id=event.conversation_id, change=event.change
        )
    if event.kind in POLLS:
        assert event.poll is not None
        return POLLS[event.kind](poll=poll_shape(event.poll, PollShape), change=event.change)
    if event.kind == "conversation_deleted":
        return ConversationDeletedOut(conversation_id=event.conversation_id, change=event.change)
    if event.kind == "conversation_updated":
        assert event.conversation is not None
        shape = conversation_shape(event.conversation)
        return UpdatedOut(conversation=shape, change=event.change)
    assert event.user is not None
    if event.kind == "member_updated":
        return MemberOut(
            conversation_id=event.conversation_id,
            user_id=event.user.user_id,
            role=event.role or "member",
            change=event.change,
        )
    kind = JoinedOut if event.kind == "user_joined" else LeftOut
    return kind(conversation_id=event.conversation_id, user=person_shape(event.user), change=event.change)
