"""What HTTP sees of mutes."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from ...edge import Audience, Call, Rate, Reply, Route
from ...errors import Invalid, NotFound
from ...identity import ConversationId
from ..room import Chat
from ..shapes import muted_until, us_of
from ..store import FOREVER_US

_MUTE = "/v1/conversations/{conversation_id}/mute"


class NewMute(Struct, frozen=True):
    """until: ISO-8601, UTC; without it there is no end."""

    until: Annotated[str, Meta(max_length=40)] | None = None


class MuteShape(Struct, frozen=True):
    """muted_until: null without an end."""

    conversation_id: str
    is_muted: bool
    muted_until: str | None


async def mute(room: Chat, call: Call) -> Reply:
    asked: NewMute = call.body
    until_us = FOREVER_US if asked.until is None else us_of(asked.until, "until")
    return await _set(room, call, until_us)


async def unmute(room: Chat, call: Call) -> Reply:
    return await _set(room, call, None)


async def _set(room: Chat, call: Call, until_us: int | None) -> Reply:
    conversation = ConversationId(call.path["conversation_id"])
    await room.mutes.set(call.caller.user_id, conversation, until_us)
    return Reply(MuteShape(conversation, *muted_until(until_us)))


ROUTES: tuple[Route, ...] = (
    Route(
        "POST", _MUTE, mute, Audience.MEMBER, Rate.WRITE,
        "Mute a conversation, for oneself",
        body=NewMute, answer=MuteShape, errors=(Invalid, NotFound),
    ),
    Route(
        "DELETE", _MUTE, unmute, Audience.MEMBER, Rate.WRITE,
        "Mute it no more",
        answer=MuteShape, errors=(NotFound,),
    ),
)  # fmt: skip
