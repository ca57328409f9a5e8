"""What HTTP sees of notifications."""

from __future__ import annotations

import base64
from typing import Annotated

from msgspec import Meta, Struct

from ...clock import to_iso
from ...deps.contracts import FcmTarget, WebPushTarget
from ...edge import Audience, Call, Rate, Reply, Route
from ...errors import Invalid, NotFound
from ...identity import ConversationId, NotificationId, is_id
from ..room import Chat
from ..shapes import Id, NotificationShape, notification_shape
from ..store import LAST_ID
from .preferences import Preferences
from .push_store import Service
from .pushes import Target
from .store import Notify

_VISIBLE = r"^[!-~]+(?!\n)$"  # `$` alone would let a newline follow


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


class NotifyShape(Struct, frozen=True):
    """Of one conversation: all, mentions (answers and reactions, too), or none; null: as everywhere."""

    notify: Notify | None


class NewPushDevice(Struct, frozen=True):
    """token: of FCM.  endpoint, p256dh, auth: of a Web Push subscription, the keys in base64url."""

    service: Service
    token: Annotated[str, Meta(min_length=1, max_length=4_096, pattern=_VISIBLE)] | None = None
    endpoint: Annotated[str, Meta(min_length=1, max_length=2_048, pattern=_VISIBLE)] | None = None
    p256dh: Annotated[str, Meta(max_length=100)] | None = None
    auth: Annotated[str, Meta(max_length=100)] | None = None


class PushDevice(Struct, frozen=True):
    """device_id: the caller's own."""

    device_id: str
    service: Service
    registered_at: str


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


async def register(room: Chat, call: Call) -> Reply:
    asked: NewPushDevice = call.body
    if room.pushes is None:
        raise Invalid("This server wakes no devices.", details={"field": "service"})
    registered_us = await room.pushes.register(call.caller, _target(asked))
    return Reply(PushDevice(call.caller.device_id, asked.service, to_iso(registered_us)))


def _target(asked: NewPushDevice) -> Target:
    if asked.service == "fcm":
        if asked.token is None:
            raise Invalid("FCM needs a token.", details={"field": "token"})
        return FcmTarget(asked.token)
    if asked.endpoint is None:
        raise Invalid("Web Push needs an endpoint.", details={"field": "endpoint"})
    return WebPushTarget(asked.endpoint, _bytes("p256dh", asked.p256dh), _bytes("auth", asked.auth))


def _bytes(field: str, text: str | None) -> bytes:
    """What browsers write in base64url, with or without its padding."""
    bare = (text or "").rstrip("=")
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise Invalid("Give the subscription's key in base64url.", details={"field": field}) from None


async def unregister(room: Chat, call: Call) -> Reply:
    if room.pushes is not None:
        await room.pushes.unregister(call.caller)
    return Reply()


async def get_preferences(room: Chat, call: Call) -> Reply:
    return Reply(await room.notifications.preferences(call.caller.user_id))


async def put_preferences(room: Chat, call: Call) -> Reply:
    await room.notifications.choose(call.caller.user_id, call.body)
    return Reply(call.body)


async def get_notify(room: Chat, call: Call) -> Reply:
    conversation = ConversationId(call.path["conversation_id"])
    found = await room.notifications.notify(call.caller.user_id, conversation)
    return Reply(NotifyShape(found.notify))


async def put_notify(room: Chat, call: Call) -> Reply:
    asked: NotifyShape = call.body
    conversation = ConversationId(call.path["conversation_id"])
    await room.notifications.set_notify(call.caller.user_id, conversation, asked.notify)
    return Reply(asked)


_NOTIFICATIONS = "/v1/notifications"
_NOTIFY = "/v1/conversations/{conversation_id}/notifications"

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
    Route(
        "POST", f"{_NOTIFICATIONS}/devices", register, Audience.USER, Rate.WRITE,
        "Have this device woken when there is something to tell; what it had before is replaced",
        body=NewPushDevice, answer=PushDevice, errors=(Invalid,),
    ),
    Route(
        "DELETE", f"{_NOTIFICATIONS}/devices", unregister, Audience.USER, Rate.WRITE,
        "Have this device woken no more",
    ),
    Route(
        "GET", _NOTIFY, get_notify, Audience.MEMBER, Rate.READ,
        "What one is told of a conversation",
        answer=NotifyShape, errors=(NotFound,),
    ),
    Route(
        "PUT", _NOTIFY, put_notify, Audience.MEMBER, Rate.WRITE,
        "Choose what one is told of a conversation, for oneself",
        body=NotifyShape, answer=NotifyShape, errors=(NotFound,),
    ),
)  # fmt: skip
