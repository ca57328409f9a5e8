"""What HTTP sees of presence."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from ...edge import Audience, Call, Rate, Reply, Route
from ...errors import Invalid
from ...identity import UserId, is_id
from ..room import Chat
from ..shapes import Status, iso_or_none
from ..store import NO_ID
from .presence import Sight
from .store import PAGE


class NewPresence(Struct, frozen=True):
    """Either of them; `online` is the older form."""

    status: Status | None = None
    online: bool | None = None


class PresenceQuery(Struct, frozen=True):
    """user_ids: at most 100, with commas between them. Without: who is here now, by id, from after `cursor`
    on; a page may be short and not the last."""

    user_ids: Annotated[str, Meta(min_length=1, max_length=37 * PAGE)] | None = None
    limit: Annotated[int, Meta(ge=1, le=PAGE)] = 20
    cursor: Annotated[str, Meta(max_length=200)] | None = None


class PresenceShape(Struct, frozen=True):
    """last_seen: null where it is not known or not shown."""

    user_id: str
    status: Status
    last_seen: str | None


class PresenceList(Struct, frozen=True):
    """People who share no conversation with the caller are left out."""

    presence: list[PresenceShape]
    next_cursor: str | None


async def set_presence(room: Chat, call: Call) -> Reply:
    asked: NewPresence = call.body
    status = asked.status
    if status is None:
        if asked.online is None:
            raise Invalid("Give a status.", details={"field": "status"})
        status = "online" if asked.online else "offline"
    room.presence.choose(call.caller.user_id, call.caller.device_id, status)
    return Reply(_shape(room.presence.own(call.caller.user_id)))


async def list_presence(room: Chat, call: Call) -> Reply:
    asked: PresenceQuery = call.query
    if asked.user_ids is None:
        after = asked.cursor or NO_ID
        if not is_id(after):
            raise Invalid("This cursor is not one of ours.", details={"field": "cursor"})
        found, cursor = await room.presence.here_now(call.caller.user_id, after, asked.limit)
        return Reply(PresenceList([_shape(each) for each in found], cursor))
    users = list(dict.fromkeys(each.strip() for each in asked.user_ids.split(",")))
    if len(users) > PAGE or not all(map(is_id, users)):
        raise Invalid(f"Give up to {PAGE} user ids.", details={"field": "user_ids"})
    seen = await room.presence.look_up(call.caller.user_id, [UserId(each) for each in users])
    return Reply(PresenceList([_shape(each) for each in seen], None))


def _shape(sight: Sight) -> PresenceShape:
    return PresenceShape(sight.user_id, sight.status, iso_or_none(sight.seen_us))


ROUTES: tuple[Route, ...] = (
    Route(
        "POST", "/v1/presence", set_presence, Audience.USER, Rate.WRITE,
        "Say how this device wants to be seen",
        body=NewPresence, answer=PresenceShape,
    ),
    Route(
        "GET", "/v1/presence", list_presence, Audience.USER, Rate.READ,
        "Presence of people one shares a conversation with: those named, or all who are here",
        query=PresenceQuery, answer=PresenceList,
    ),
)  # fmt: skip
