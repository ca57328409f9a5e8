"""What HTTP sees of this room: bodies, answers, and the table of routes."""

from __future__ import annotations

import base64
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from ..edge import Audience, Call, Rate, Reply, Route
from ..errors import (
    AccountDeleted,
    ClientMessageIdReused,
    Conflict,
    E2eeRequired,
    Forbidden,
    Invalid,
    LastAdmin,
    MessageDeleted,
    NotFound,
    Unavailable,
)
from ..idempotency import attempt_of
from ..identity import ConversationId, MessageId, UserId, is_id
from .deletion.routes import ROUTES as DELETION_ROUTES
from .forwards.routes import ROUTES as FORWARD_ROUTES
from .mutes.routes import ROUTES as MUTE_ROUTES
from .notifications.routes import ROUTES as NOTIFICATION_ROUTES
from .pages import Asked, MessageList, encoded
from .pins.routes import ROUTES as PIN_ROUTES
from .pledges import Accepted
from .polls.routes import ROUTES as POLL_ROUTES
from .presence.routes import ROUTES as PRESENCE_ROUTES
from .reactions.routes import ROUTES as REACTION_ROUTES
from .room import Chat
from .search.routes import ROUTES as SEARCH_ROUTES
from .shapes import (
    ClientMessageId,
    ConversationShape,
    Cursor,
    Id,
    Limit,
    MessageShape,
    MessageType,
    Metadata,
    ParticipantShape,
    Seq,
    message_shape,
    no_metadata,
    participant_shape,
    summary_shape,
)
from .sockets import SOCKETS
from .store import NO_ID, TOP, ConversationType, MemberRole, Participant, Place
from .versions.routes import ROUTES as VERSION_ROUTES

__all__ = ["ROUTES", "SOCKETS"]


Title = Annotated[str, Meta(min_length=1, max_length=200)]
AvatarUrl = Annotated[str, Meta(max_length=2_048, pattern="^(https?://|/)")]


# Conversations


class NewConversation(Struct, frozen=True):
    """name: another name of `title`.  participant_ids: the caller is added."""

    type: ConversationType
    participant_ids: Annotated[list[Id], Meta(max_length=100_000)]
    title: Title | None = None
    name: Title | None = None
    is_e2ee_enabled: bool = False


class Description(Struct, frozen=True):
    """What is left out stays; null takes away."""

    title: Title | UnsetType | None = UNSET
    name: Title | UnsetType | None = UNSET
    avatar_url: AvatarUrl | UnsetType | None = UNSET


class NewSettings(Struct, frozen=True):
    """What is left out stays. Encryption is never switched off again; 0 days keep messages as long as the
    server does; history_visible shows those who join from then on what was said before; messages sent
    while disappear_after_s is not 0 are gone after so many seconds."""

    is_e2ee_enabled: bool | UnsetType = UNSET
    recording_enabled: bool | UnsetType = UNSET
    message_retention_days: Annotated[int, Meta(ge=0, le=3_650)] | UnsetType = UNSET
    history_visible: bool | UnsetType = UNSET
    disappear_after_s: Annotated[int, Meta(ge=0, le=31_536_000)] | UnsetType = UNSET


class NewParticipant(Struct, frozen=True):
    user_id: Id
    role: MemberRole = "member"


class NewRole(Struct, frozen=True):
    role: MemberRole


class ReadUpTo(Struct, frozen=True):
    seq: Seq


class Page(Struct, frozen=True):
    limit: Limit = 20
    cursor: Cursor | None = None


class Listed(Page, frozen=True):
    """first_sync: the top ones come with their newest messages."""

    first_sync: bool = False


class ConversationList(Struct, frozen=True):
    conversations: list[ConversationShape]
    next_cursor: str | None


class ParticipantList(Struct, frozen=True):
    participants: list[ParticipantShape]
    next_cursor: str | None


class ReadState(Struct, frozen=True):
    conversation_id: str
    last_read_seq: int
    unread_count: int


class Left(Struct, frozen=True):
    conversation_id: str
    user_id: str


async def create_conversation(room: Chat, call: Call) -> Reply:
    asked: NewConversation = call.body
    conversation, is_new = await room.conversations.create(
        call.caller.user_id,
        asked.type,
        asked.title or asked.name,
        [UserId(each) for each in asked.participant_ids],
        asked.is_e2ee_enabled,
        attempt_of(call),
    )
    return Reply(await _whole(room, call, conversation), status=201 if is_new else 200)


async def list_conversations(room: Chat, call: Call) -> Reply:
    asked: Listed = call.query
    below = _read_cursor(asked.cursor)
    found = await room.listing.page(call.caller.user_id, below, asked.limit, first_sync=asked.first_sync)
    shapes = []
    for line in found:
        shape = summary_shape(line.summary)
        if line.people is not None:
            shape.participants = _participants(room, line.people)
        if line.newest is not None:
            shape.messages = [message_shape(each) for each in line.newest]
        shapes.append(shape)
    cursor = _write_cursor(found[-1].summary.place) if len(found) == asked.limit else None
    return Reply(ConversationList(shapes, cursor))


async def get_conversation(room: Chat, call: Call) -> Reply:
    return Reply(await _whole(room, call, _conversation(call)))


async def describe_conversation(room: Chat, call: Call) -> Reply:
    asked: Description = call.body
    changes: dict[str, str | None] = {}
    title = asked.name if asked.title is UNSET else asked.title
    if title is not UNSET:
        changes["title"] = title
    if asked.avatar_url is not UNSET:
        changes["avatar_url"] = asked.avatar_url
    await room.conversations.describe(call.caller.user_id, _conversation(call), changes)
    return Reply(await _whole(room, call, _conversation(call)))


async def configure_conversation(room: Chat, call: Call) -> Reply:
    asked: NewSettings = call.body
    given = ((name, getattr(asked, name)) for name in asked.__struct_fields__)
    changes = {name: value for name, value in given if value is not UNSET}
    await room.conversations.configure(call.caller.user_id, _conversation(call), changes)
    return Reply(await _whole(room, call, _conversation(call)))


async def list_participants(room: Chat, call: Call) -> Reply:
    page: Page = call.query
    after = page.cursor or NO_ID
    if not is_id(after):
        raise Invalid("This cursor is not one of ours.", details={"field": "cursor"})
    found = await room.conversations.participants(call.caller.user_id, _conversation(call), after, page.limit)
    cursor = found[-1].person.user_id if len(found) == page.limit else None
    return Reply(ParticipantList(_participants(room, found), cursor))


async def add_participant(room: Chat, call: Call) -> Reply:
    asked: NewParticipant = call.body
    participant, is_new = await room.conversations.add(
        call.caller.user_id, _conversation(call), UserId(asked.user_id), asked.role, attempt_of(call)
    )
    return Reply(_participants(room, [participant])[0], status=201 if is_new else 200)


async def remove_participant(room: Chat, call: Call) -> Reply:
    user = UserId(call.path["user_id"])
    await room.conversations.remove(call.caller.user_id, _conversation(call), user)
    return Reply(Left(_conversation(call), user))


async def set_participant_role(room: Chat, call: Call) -> Reply:
    asked: NewRole = call.body
    participant = await room.conversations.set_role(
        call.caller.user_id, _conversation(call), UserId(call.path["user_id"]), asked.role
    )
    return Reply(_participants(room, [participant])[0])


async def mark_read(room: Chat, call: Call) -> Reply:
    asked: ReadUpTo = call.body
    await room.conversations.mark_read(call.caller.user_id, _conversation(call), asked.seq)
    summary = await room.conversations.summary(call.caller.user_id, _conversation(call))
    return Reply(ReadState(_conversation(call), summary.seat.member.last_read_seq, summary.unread_count))


async def _whole(room: Chat, call: Call, conversation: ConversationId) -> ConversationShape:
    summary, people = await room.conversations.get(call.caller.user_id, conversation)
    shape = summary_shape(summary)
    shape.participants = _participants(room, people)
    return shape


def _participants(room: Chat, people: list[Participant]) -> list[ParticipantShape]:
    return [
        participant_shape(each, "offline" if each.is_apart else room.status_of(each.person.user_id))
        for each in people
    ]


def _conversation(call: Call) -> ConversationId:
    return ConversationId(call.path["conversation_id"])


def _write_cursor(last: Place) -> str:
    return base64.urlsafe_b64encode(":".join(map(str, last)).encode()).decode()


def _read_cursor(cursor: str | None) -> Place:
    if cursor is None:
        return TOP
    try:
        hour, active_us, conversation = base64.urlsafe_b64decode(cursor).decode("ascii").split(":")
        place = Place(int(hour), int(active_us), ConversationId(conversation))
        if not (
            is_id(conversation) and 0 <= place.hour <= TOP.hour and 0 <= place.active_us <= TOP.active_us
        ):
            raise ValueError(cursor)
        return place
    except ValueError:
        raise Invalid("This cursor is not one of ours.", details={"field": "cursor"}) from None


# Messages


class NewMessage(Struct, frozen=True):
    conversation_id: Id
    content: str
    message_type: MessageType = "text"
    client_message_id: ClientMessageId | None = None
    is_encrypted: bool = False
    reply_to: Id | None = None
    file_ids: Annotated[list[Id], Meta(max_length=100)] = []
    metadata: Metadata = field(default_factory=no_metadata)


class AcceptedShape(Struct, frozen=True):
    """While the database is away. The same request again tells what has become of it."""

    status: Literal["accepted"]
    message_id: str
    client_message_id: str
    seq: None = None


class NewContent(Struct, frozen=True):
    """What is left out stays; null takes the metadata away."""

    content: str
    is_encrypted: bool | None = None
    metadata: Metadata | UnsetType = UNSET


class History(Struct, frozen=True):
    """Without a bound: the newest. cursor: `next_cursor` of the answer before, in place of a bound."""

    conversation_id: Id
    limit: Limit = 20
    before_seq: Seq | None = None
    after_seq: Seq | None = None
    cursor: Cursor | None = None


async def send_message(room: Chat, call: Call) -> Reply:
    asked: NewMessage = call.body
    answer = await room.messages.send(
        room.messages.draft(
            call.caller.user_id,
            asked.conversation_id,
            asked.content,
            message_type=asked.message_type,
            client_message_id=asked.client_message_id,
            is_encrypted=asked.is_encrypted,
            reply_to=asked.reply_to,
            file_ids=asked.file_ids,
            metadata=asked.metadata,
        )
    )
    if isinstance(answer, Accepted):
        told = AcceptedShape("accepted", answer.message_id, answer.client_message_id)
        return Reply(told, status=202)
    return Reply(message_shape(answer.message), status=201 if answer.fresh else 200)


async def list_messages(room: Chat, call: Call) -> Reply:
    asked: History = call.query
    before, after = asked.before_seq, asked.after_seq
    if asked.cursor is not None:
        way, _, seq = asked.cursor.partition(":")
        if way not in ("before", "after") or not (seq.isascii() and seq.isdigit() and len(seq) < 19):
            raise Invalid("This cursor is not one of ours.", details={"field": "cursor"})
        before, after = (int(seq), None) if way == "before" else (None, int(seq))
    if before is not None and after is not None:
        raise Invalid("Give one bound, not both.", details={"field": "after_seq"})
    wanted = Asked(ConversationId(asked.conversation_id), asked.limit, before, after)
    caller, as_of_us = call.caller.user_id, None
    try:
        told = await room.messages.page(caller, wanted)
    except Unavailable as away:
        told = encoded(wanted, room.recall.page(away, caller, *wanted))
        as_of_us = room.recall.as_of_us()
    return Reply(told, as_of_us=as_of_us)


async def get_message(room: Chat, call: Call) -> Reply:
    caller, message, as_of_us = call.caller.user_id, _message(call), None
    try:
        found = await room.messages.get(caller, message)
    except Unavailable as away:
        found, as_of_us = room.recall.message(away, caller, message), room.recall.as_of_us()
    return Reply(message_shape(found), as_of_us=as_of_us)


async def edit_message(room: Chat, call: Call) -> Reply:
    asked: NewContent = call.body
    metadata = None if asked.metadata is UNSET else asked.metadata
    edited = await room.messages.edit(
        call.caller.user_id, _message(call), asked.content, asked.is_encrypted, metadata
    )
    return Reply(message_shape(edited))


async def delete_message(room: Chat, call: Call) -> Reply:
    return Reply(message_shape(await room.messages.delete(call.caller.user_id, _message(call))))


def _message(call: Call) -> MessageId:
    return MessageId(call.path["message_id"])


_CONVERSATION = "/v1/conversations/{conversation_id}"
_PARTICIPANT = f"{_CONVERSATION}/participants/{{user_id}}"
_MESSAGE = "/v1/messages/{message_id}"

ROUTES = (
    Route(
        "POST", "/v1/conversations", create_conversation, Audience.USER, Rate.WRITE,
        "Open a conversation; a second direct one with the same person is the first",
        body=NewConversation, answer=ConversationShape, status=201, also=(200,), errors=(Forbidden, NotFound),
        repeats=True,
    ),
    Route(
        "GET", "/v1/conversations", list_conversations, Audience.USER, Rate.READ,
        "One's conversations, the latest active first; for a first sync with messages",
        query=Listed, answer=ConversationList, outage=True,
    ),
    Route(
        "GET", _CONVERSATION, get_conversation, Audience.MEMBER, Rate.READ,
        "A conversation with its participants",
        answer=ConversationShape, errors=(NotFound,), outage=True,
    ),
    Route(
        "PATCH", _CONVERSATION, describe_conversation, Audience.MODERATOR, Rate.WRITE,
        "Change title and picture",
        body=Description, answer=ConversationShape, errors=(Forbidden, NotFound),
    ),
    Route(
        "PUT", f"{_CONVERSATION}/settings", configure_conversation, Audience.MODERATOR, Rate.WRITE,
        "Change settings",
        body=NewSettings, answer=ConversationShape, errors=(Conflict, Forbidden, NotFound),
    ),
    Route(
        "GET", f"{_CONVERSATION}/participants", list_participants, Audience.MEMBER, Rate.READ,
        "Who is in a conversation",
        query=Page, answer=ParticipantList, errors=(NotFound,), outage=True,
    ),
    Route(
        "POST", f"{_CONVERSATION}/participants", add_participant, Audience.MODERATOR, Rate.WRITE,
        "Add somebody to a group",
        body=NewParticipant, answer=ParticipantShape, status=201, also=(200,), repeats=True,
        errors=(Conflict, Forbidden, NotFound),
    ),
    Route(
        "DELETE", _PARTICIPANT, remove_participant, Audience.MEMBER, Rate.WRITE,
        "Remove somebody from a group, or leave it",
        answer=Left, errors=(Conflict, Forbidden, LastAdmin, NotFound),
    ),
    Route(
        "PATCH", _PARTICIPANT, set_participant_role, Audience.MODERATOR, Rate.WRITE,
        "Change somebody's role",
        body=NewRole, answer=ParticipantShape, errors=(Conflict, Forbidden, LastAdmin, NotFound),
    ),
    Route(
        "POST", f"{_CONVERSATION}/read", mark_read, Audience.MEMBER, Rate.WRITE,
        "Mark as read up to a message",
        body=ReadUpTo, answer=ReadState, errors=(NotFound,),
    ),
    Route(
        "POST", "/v1/messages", send_message, Audience.MEMBER, Rate.WRITE,
        "Send a message; the same client_message_id again gives the first",
        body=NewMessage, answer=MessageShape, status=201, also=(200, 202), other={202: AcceptedShape},
        errors=(AccountDeleted, ClientMessageIdReused, E2eeRequired, Forbidden, NotFound), outage=True,
    ),
    Route(
        "GET", "/v1/messages", list_messages, Audience.MEMBER, Rate.READ,
        "Messages of a conversation",
        query=History, answer=MessageList, errors=(NotFound,), outage=True,
    ),
    Route(
        "GET", _MESSAGE, get_message, Audience.MEMBER, Rate.READ,
        "A message",
        answer=MessageShape, errors=(NotFound,), outage=True,
    ),
    Route(
        "PATCH", _MESSAGE, edit_message, Audience.AUTHOR, Rate.WRITE,
        "Edit a message of one's own",
        body=NewContent, answer=MessageShape,
        errors=(AccountDeleted, E2eeRequired, Forbidden, MessageDeleted, NotFound),
    ),
    Route(
        "DELETE", _MESSAGE, delete_message, Audience.AUTHOR, Rate.WRITE,
        "Delete a message of one's own, or any as moderator of its group",
        answer=MessageShape, errors=(Forbidden, NotFound),
    ),
    *PRESENCE_ROUTES,
    *VERSION_ROUTES,
    *FORWARD_ROUTES,
    *REACTION_ROUTES,
    *POLL_ROUTES,
    *NOTIFICATION_ROUTES,
    *SEARCH_ROUTES,
    *PIN_ROUTES,
    *MUTE_ROUTES,
    *DELETION_ROUTES,
)  # fmt: skip
