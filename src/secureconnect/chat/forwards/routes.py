"""What HTTP sees of forwards."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from ...edge import Audience, Call, Rate, Reply, Route
from ...errors import AccountDeleted, E2eeRequired, Forbidden, Invalid, MessageDeleted, NotFound
from ...identity import ConversationId, MessageId, new_id
from ..room import Chat
from ..shapes import ClientMessageId, Id, MessageShape, message_shape

TARGETS = 20


class NewForward(Struct, frozen=True):
    """client_message_id: from it one for each conversation is made, always the same."""

    conversation_ids: Annotated[list[Id], Meta(min_length=1, max_length=TARGETS)]
    client_message_id: ClientMessageId | None = None


class Forwarded(Struct, frozen=True):
    """In the order of `conversation_ids`."""

    messages: list[MessageShape]


async def forward(room: Chat, call: Call) -> Reply:
    asked: NewForward = call.body
    if len(set(asked.conversation_ids)) < len(asked.conversation_ids):
        raise Invalid("Name each conversation once.", details={"field": "conversation_ids"})
    sent = await room.forwards.send(
        call.caller.user_id,
        MessageId(call.path["message_id"]),
        [ConversationId(each) for each in asked.conversation_ids],
        asked.client_message_id or new_id(),
    )
    told = Forwarded([message_shape(each.message) for each in sent])
    return Reply(told, status=201 if any(each.fresh for each in sent) else 200)


ROUTES: tuple[Route, ...] = (
    Route(
        "POST", "/v1/messages/{message_id}/forward", forward, Audience.MEMBER, Rate.WRITE,
        "Say again elsewhere what one can read; the same client_message_id again gives the first",
        body=NewForward, answer=Forwarded, status=201, also=(200,),
        errors=(AccountDeleted, E2eeRequired, Forbidden, MessageDeleted, NotFound),
    ),
)  # fmt: skip
