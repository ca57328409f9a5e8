"""The JSON shapes of API.md that REST answers and WebSocket frames share, and how they are made from rows."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from ..clock import from_iso, now_us, to_iso
from ..errors import Invalid
from .notifications.store import Notification
from .polls.store import Poll, PollType
from .store import (
    FOREVER_US,
    Conversation,
    ConversationType,
    Member,
    MemberRole,
    Message,
    Participant,
    Person,
    Reacted,
    Summary,
)

Id = Annotated[
    str,
    Meta(
        pattern="^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
        min_length=36,
        max_length=36,
    ),
]
# `$` alone would let a newline follow
ClientMessageId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:-]+(?!\n)$", min_length=1, max_length=64)]
Seq = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Limit = Annotated[int, Meta(ge=1, le=100)]
Cursor = Annotated[str, Meta(max_length=200)]
# as it was sent: its rule looks at the size before anything is built from it
Metadata = Annotated[Raw, Meta(extra_json_schema={"type": ["object", "null"]})]
MessageType = Literal["text", "image", "video", "audio", "file"]
Status = Literal["online", "away", "busy", "offline"]


def no_metadata() -> Raw:
    return Raw(b"null")


class Reaction(Struct):
    """mine: whether the viewer is among them. Events leave it out, and so does what is told from memory."""

    emoji: str
    count: int
    mine: bool | UnsetType = UNSET


class MessageShape(Struct):
    """content is empty once deleted_at is set.  expires_at: when it disappears."""

    message_id: str
    client_message_id: str
    conversation_id: str
    sender_id: str
    seq: int
    content: str
    message_type: str
    is_encrypted: bool
    reply_to: str | None
    file_ids: list[str]
    metadata: dict[str, Any] | None
    reactions: list[Reaction]
    change: int
    sent_at: str
    edited_at: str | None
    deleted_at: str | None
    expires_at: str | None


class VersionShape(Struct):
    """What a message said from `written_at` on.  version: from 1, what was sent."""

    version: int
    content: str
    is_encrypted: bool
    written_at: str


class NotificationShape(Struct):
    """kind: message, mention, reply, reaction, added, announcement or missed_call.  ref: the message it is
    about; of `added` the conversation, of the last two what they name.  actor_id: whose doing it is."""

    notification_id: str
    kind: str
    ref: str
    conversation_id: str | None
    actor_id: str | None
    created_at: str
    read_at: str | None


class OptionShape(Struct):
    option_id: str
    text: str
    vote_count: int


class PollShape(Struct):
    """total_votes: of all options; voter_count: of people.  change: of what last happened to it.
    expires_at: when it closes by itself.  disappears_at: when it is gone, as messages there are."""

    poll_id: str
    conversation_id: str
    question: str
    poll_type: PollType
    options: list[OptionShape]
    total_votes: int
    voter_count: int
    allow_vote_change: bool
    expires_at: str | None
    closed_at: str | None
    created_by: str
    created_at: str
    change: int
    disappears_at: str | None


class Settings(Struct):
    is_e2ee_enabled: bool
    recording_enabled: bool
    message_retention_days: int
    history_visible: bool
    disappear_after_s: int


class PersonShape(Struct):
    user_id: str
    username: str
    display_name: str
    avatar_url: str | None


class ParticipantShape(PersonShape):
    role: MemberRole
    joined_at: str
    last_read_seq: int
    status: Status


class ConversationShape(Struct):
    """Events leave out what depends on the viewer: my_role, unread_count, unread_mentions, last_message,
    participants, is_muted and muted_until (null: without an end). messages: the newest, in a first sync."""

    conversation_id: str
    type: ConversationType
    title: str | None
    avatar_url: str | None
    created_by: str
    created_at: str
    updated_at: str
    last_seq: int
    first_seq: int
    change: int
    settings: Settings
    my_role: MemberRole | UnsetType = UNSET
    unread_count: int | UnsetType = UNSET
    unread_mentions: int | UnsetType = UNSET
    last_message: MessageShape | UnsetType | None = UNSET
    participants: list[ParticipantShape] | UnsetType = UNSET
    messages: list[MessageShape] | UnsetType = UNSET
    is_muted: bool | UnsetType = UNSET
    muted_until: str | UnsetType | None = UNSET


def iso_or_none(us: int | None) -> str | None:
    return None if us is None else to_iso(us)


def message_fields(message: Message) -> tuple[Any, ...]:
    """The fields of `MessageShape`, in its order. Taken apart at once: a name costs each time it is read."""
    (
        message_id,
        conversation_id,
        seq,
        change,
        sender_id,
        client_message_id,
        message_type,
        content,
        is_encrypted,
        reply_to,
        file_ids,
        metadata,
        sent_us,
        edited_us,
        deleted_us,
        expires_us,
        _,
        reactions,
    ) = message
    return (
        message_id,
        client_message_id,
        conversation_id,
        sender_id,
        seq,
        content,
        message_type,
        is_encrypted,
        reply_to,
        [] if file_ids == "[]" else msgspec.json.decode(file_ids),
        None if metadata is None else msgspec.json.decode(metadata),
        [_reaction(each) for each in reactions] if reactions else [],
        change,
        to_iso(sent_us),
        None if edited_us is None else to_iso(edited_us),
        None if deleted_us is None else to_iso(deleted_us),
        None if expires_us is None else to_iso(expires_us),
    )


def version_shape(version: int, content: str, is_encrypted: bool, written_us: int) -> VersionShape:
    return VersionShape(version, content, is_encrypted, to_iso(written_us))


def _reaction(reacted: Reacted) -> Reaction:
    return Reaction(reacted.emoji, reacted.people, UNSET if reacted.mine is None else reacted.mine)


def message_shape(message: Message) -> MessageShape:
    return MessageShape(*message_fields(message))


def notification_fields(notification: Notification) -> tuple[Any, ...]:
    """The fields of `NotificationShape`, in its order."""
    return (
        notification.notification_id,
        notification.kind,
        notification.ref,
        notification.conversation_id,
        notification.actor_id,
        to_iso(notification.created_us),
        iso_or_none(notification.read_us),
    )


def notification_shape(notification: Notification) -> NotificationShape:
    return NotificationShape(*notification_fields(notification))


ShapeOfPoll = TypeVar("ShapeOfPoll", bound=PollShape)


def poll_shape(poll: Poll, kind: type[ShapeOfPoll]) -> ShapeOfPoll:
    """kind: `PollShape`, or what has more than that."""
    return kind(
        poll.poll_id,
        poll.conversation_id,
        poll.question,
        poll.poll_type,
        [OptionShape(*option) for option in poll.options],
        sum(option.vote_count for option in poll.options),
        poll.voter_count,
        poll.allow_vote_change,
        iso_or_none(poll.expires_us),
        iso_or_none(poll.closed_us),
        poll.created_by,
        to_iso(poll.created_us),
        poll.change,
        iso_or_none(poll.disappears_us),
    )


def person_shape(person: Person) -> PersonShape:
    return PersonShape(*person)


def participant_shape(participant: Participant, status: Status) -> ParticipantShape:
    member: Member = participant.member
    return ParticipantShape(
        *participant.person, member.role, to_iso(member.joined_us), member.last_read_seq, status
    )


def conversation_shape(conversation: Conversation) -> ConversationShape:
    """As events carry it."""
    return ConversationShape(
        conversation_id=conversation.conversation_id,
        type=conversation.type,
        title=conversation.title,
        avatar_url=conversation.avatar_url,
        created_by=conversation.created_by,
        created_at=to_iso(conversation.created_us),
        updated_at=to_iso(conversation.updated_us),
        last_seq=conversation.last_seq,
        first_seq=conversation.first_seq,
        change=conversation.last_change,
        settings=Settings(
            conversation.is_e2ee_enabled,
            conversation.recording_enabled,
            conversation.message_retention_days,
            conversation.history_visible,
            conversation.disappear_after_s,
        ),
    )


def us_of(text: str, field: str) -> int:
    """A time that a client has given. Raises Invalid.  field: where."""
    try:
        at_us = from_iso(text)
    except ValueError:
        raise Invalid("Give a time like 2026-01-19T05:25:00Z.", details={"field": field}) from None
    if at_us >= FOREVER_US:
        raise Invalid("That is too far away.", details={"field": field})
    return at_us


def muted_until(until_us: int | None) -> tuple[bool, str | None]:
    """Whether something is muted now, and when that ends; None: never."""
    if until_us is None or until_us <= now_us():
        return False, None
    return True, None if until_us >= FOREVER_US else to_iso(until_us)


def summary_shape(summary: Summary) -> ConversationShape:
    """As the one it is summed up for sees it."""
    shape = conversation_shape(summary.seat.conversation)
    shape.my_role = summary.seat.member.role
    shape.unread_count = summary.unread_count
    shape.unread_mentions = summary.unread_mentions
    shape.last_message = message_shape(summary.last_message) if summary.last_message else None
    shape.is_muted, shape.muted_until = muted_until(summary.seat.member.muted_until_us)
    return shape
