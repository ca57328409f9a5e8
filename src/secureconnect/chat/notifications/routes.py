"""What HTTP sees of notifications."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from ...edge import Audience, Call, Rate, Reply, Route
from ...errors import Invalid, NotFound
from ...identity import NotificationId, is_id
from ..room import Chat
from ..shapes import Id, NotificationShape, notification_shape
from .preferences import Preferences

LAST_ID = NotificationId("ffffffff-ffff-ffff-ffff-ffffffffffff")


class NotificationQuery(Struct, frozen=True):
    """unread: those alone."""

    unread: bool = False
    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    cursor: Annotated[str, Meta(max_length=200)] | None = None


class NotificationList(Struct, frozen=True):
    """The newest first.  unread_count: of all of them, not of this page."""

    notifications: list[NotificationShape]
    unread_count: int
    next_cursor: str | None


class UpTo(Struct, frozen=True):
    """up_to: the newest one that was seen; left out: all there are."""

    up_to: Id | None = None


class ReadCount(Struct, frozen=True):
    """read: how many became read by this."""

    read: int


async def list_notifications(room: Chat, call: Call) -> Reply:
    asked: NotificationQuery = call.query
    before = asked.cursor or LAST_ID
    if not is_id(before):
        raise Invalid("This cursor is not one of ours.", details={"field": "cursor"})
    found, unread = await room.notifications.page(
        call.caller.user_id, NotificationId(before), asked.limit, only_unread=asked.unread
    )
    cursor = found[-1].notification_id if len(found) == asked.limit else None
    return Reply(NotificationList([notification_shape(each) for each in found], unread, cursor))


async def read(room: Chat, call: Call) -> Reply:
    notification = NotificationId(call.path["notification_id"])
    return Reply(notification_shape(await room.notifications.read(call.caller.user_id, notification)))


async def read_all(room: Chat, call: Call) -> Reply:
    asked: UpTo = call.body
    up_to = NotificationId(asked.up_to or LAST_ID)
    return Reply(ReadCount(await room.notifications.read_all(call.caller.user_id, up_to)))


async def get_preferences(room: Chat, call: Call) -> Reply:
    return Reply(await room.notifications.preferences(call.caller.user_id))


async def put_preferences(room: Chat, call: Call) -> Reply:
    await room.notifications.choose(call.caller.user_id, call.body)
    return Reply(call.body)


_NOTIFICATIONS = "/v1/notifications"

ROUTES: tuple[Route, ...] = (
    Route(
        "GET", _NOTIFICATIONS, list_notifications, Audience.USER, Rate.READ,
        "One's notifications",
        query=NotificationQuery, answer=NotificationList,
    ),
    Route(
        "POST", f"{_NOTIFICATIONS}/{{notification_id}}/read", read, Audience.OWNER, Rate.WRITE,
        "Mark one of them as read",
        answer=NotificationShape, errors=(NotFound,),
    ),
    Route(
        "POST", f"{_NOTIFICATIONS}/read-all", read_all, Audience.USER, Rate.WRITE,
        "Mark all of them as read",
        body=UpTo, answer=ReadCount,
    ),
    Route(
        "GET", f"{_NOTIFICATIONS}/preferences", get_preferences, Audience.USER, Rate.READ,
        "What one is notified of",
        answer=Preferences,
    ),
    Route(
        "PUT", f"{_NOTIFICATIONS}/preferences", put_preferences, Audience.USER, Rate.WRITE,
        "Choose what one is notified of; what is left out is as for everybody",
        body=Preferences, answer=Preferences, errors=(Invalid,),
    ),
)  # fmt: skip
