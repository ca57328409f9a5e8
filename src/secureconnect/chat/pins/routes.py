"""What HTTP sees of pins."""

from __future__ import annotations

from msgspec import Struct

from ...clock import to_iso
from ...edge import Audience, Call, Rate, Reply, Route
from ...errors import AccountDeleted, Conflict, Forbidden, MessageDeleted, NotFound
from ...identity import ConversationId, MessageId, UserId
from ..room import Chat
from ..shapes import MessageShape, message_shape

_PINS = "/v1/conversations/{conversation_id}/pins"


class PinShape(Struct, frozen=True):
    message: MessageShape
    pinned_by: str
    pinned_at: str


class PinList(Struct, frozen=True):
    """The latest pinned first: all of them, on one page."""

    pins: list[PinShape]
    next_cursor: None = None


async def list_pins(room: Chat, call: Call) -> Reply:
    found = await room.pins.list_of(call.caller.user_id, ConversationId(call.path["conversation_id"]))
    return Reply(
        PinList(
            [PinShape(message_shape(each.message), each.pinned_by, to_iso(each.pinned_us)) for each in found]
        )
    )


async def pin(room: Chat, call: Call) -> Reply:
    await room.pins.set(*_asked(call), on=True)
    return Reply()


async def unpin(room: Chat, call: Call) -> Reply:
    await room.pins.set(*_asked(call), on=False)
    return Reply()


def _asked(call: Call) -> tuple[UserId, ConversationId, MessageId]:
    path = call.path
    return call.caller.user_id, ConversationId(path["conversation_id"]), MessageId(path["message_id"])


ROUTES: tuple[Route, ...] = (
    Route(
        "GET", _PINS, list_pins, Audience.MEMBER, Rate.READ,
        "Pinned messages",
        answer=PinList, errors=(NotFound,),
    ),
    Route(
        "POST", f"{_PINS}/{{message_id}}", pin, Audience.MODERATOR, Rate.WRITE,
        "Pin a message",
        errors=(AccountDeleted, Conflict, Forbidden, MessageDeleted, NotFound),
    ),
    Route(
        "DELETE", f"{_PINS}/{{message_id}}", unpin, Audience.MODERATOR, Rate.WRITE,
        "Take a pin away",
        errors=(AccountDeleted, Forbidden, MessageDeleted, NotFound),
    ),
)  # fmt: skip
