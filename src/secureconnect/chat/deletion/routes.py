"""What HTTP sees of deleting a conversation."""

from __future__ import annotations

from msgspec import Struct

from ...edge import Audience, Call, Rate, Reply, Route
from ...errors import Conflict, Forbidden, NotFound
from ...identity import ConversationId
from ..room import Chat


class Gone(Struct, frozen=True):
    conversation_id: str


async def delete(room: Chat, call: Call) -> Reply:
    conversation = ConversationId(call.path["conversation_id"])
    await room.deletion.delete(call.caller.user_id, conversation)
    return Reply(Gone(conversation))


ROUTES: tuple[Route, ...] = (
    Route(
        "DELETE", "/v1/conversations/{conversation_id}", delete, Audience.MODERATOR, Rate.WRITE,
        "Delete a group, for all, as its owner",
        answer=Gone, errors=(Conflict, Forbidden, NotFound),
    ),
)  # fmt: skip
