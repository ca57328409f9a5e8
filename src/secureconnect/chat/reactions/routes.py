"""What HTTP sees of reactions."""

from __future__ import annotations

from ...edge import Audience, Call, Rate, Reply, Route
from ...errors import AccountDeleted, Conflict, Forbidden, Invalid, MessageDeleted, NotFound
from ...identity import MessageId
from ..room import Chat

_REACTION = "/v1/messages/{message_id}/reactions/{emoji}"


async def react(room: Chat, call: Call) -> Reply:
    await room.reactions.set(call.caller.user_id, *_asked(call), on=True)
    return Reply()


async def take_back(room: Chat, call: Call) -> Reply:
    await room.reactions.set(call.caller.user_id, *_asked(call), on=False)
    return Reply()


def _asked(call: Call) -> tuple[MessageId, str]:
    return MessageId(call.path["message_id"]), call.path["emoji"]


ROUTES: tuple[Route, ...] = (
    Route(
        "PUT", _REACTION, react, Audience.MEMBER, Rate.WRITE,
        "React to a message",
        errors=(AccountDeleted, Conflict, Forbidden, Invalid, MessageDeleted, NotFound),
    ),
    Route(
        "DELETE", _REACTION, take_back, Audience.MEMBER, Rate.WRITE,
        "Take a reaction back",
        errors=(AccountDeleted, Forbidden, Invalid, MessageDeleted, NotFound),
    ),
)  # fmt: skip
