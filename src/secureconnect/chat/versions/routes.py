"""What HTTP sees of versions."""

from __future__ import annotations

from msgspec import Struct

from ...edge import Audience, Call, Rate, Reply, Route
from ...errors import Invalid, MessageDeleted, NotFound
from ...identity import MessageId
from ..room import Chat
from ..shapes import Cursor, Limit, VersionShape, version_shape


class VersionQuery(Struct, frozen=True):
    limit: Limit = 20
    cursor: Cursor | None = None


class VersionList(Struct, frozen=True):
    """Ascending; the last of all is what the message says now."""

    versions: list[VersionShape]
    next_cursor: str | None


async def list_versions(room: Chat, call: Call) -> Reply:
    asked: VersionQuery = call.query
    after = asked.cursor or "0"
    if not (after.isascii() and after.isdigit() and len(after) < 19):
        raise Invalid("This cursor is not one of ours.", details={"field": "cursor"})
    message = MessageId(call.path["message_id"])
    found = await room.versions.page(call.caller.user_id, message, int(after), asked.limit)
    shapes = [version_shape(*each[1:]) for each in found]
    cursor = str(found[-1].version) if len(found) == asked.limit else None
    return Reply(VersionList(shapes, cursor))


ROUTES: tuple[Route, ...] = (
    Route(
        "GET", "/v1/messages/{message_id}/history", list_versions, Audience.MEMBER, Rate.READ,
        "What a message said before it was edited",
        query=VersionQuery, answer=VersionList, errors=(MessageDeleted, NotFound),
    ),
)  # fmt: skip
