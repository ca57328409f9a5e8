"""Makes a notification, in the transaction of whoever found that there is something to tell."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import get_args

from ... import metrics
from ...deps.contracts import Tx
from ...identity import NotificationId, UserId, new_id
from . import store
from .preferences import Preferences, preferences_from
from .store import Kind, Notification

# kind: message, mention, reply, reaction, added, announcement, missed_call
MADE = metrics.counter("secureconnect_chat_notifications_total", "Notifications made.", ["kind"])
_MADE = {kind: MADE.labels(kind) for kind in get_args(Kind)}

UNMADE = NotificationId("")  # of what has yet to get its id

Push = Callable[[Tx, Notification, int], Awaitable[None]]


async def _push_nothing(_: Tx, __: Notification, ___: int) -> None:
    """Nobody has a device that could be woken."""


class Maker:
    """kept: notifications of one person; the oldest go.  push: takes part in the transaction that makes what
    is to be pushed, too, at the time given."""

    def __init__(self, kept: int, push: Push | None) -> None:
        self._kept = kept
        self._push = push or _push_nothing

    async def make(self, tx: Tx, wanted: Notification) -> Notification | None:
        """None for a kind that its person does not want to know of.  wanted: its id is given here."""
        way = (await preferences_of(tx, wanted.user_id)).kinds.way(wanted.kind)
        if way == "off":
            return None
        made = wanted._replace(notification_id=NotificationId(new_id()))
        await store.add(tx, made, self._kept)
        if way == "push":
            await self._push(tx, made, made.created_us)
        _MADE[made.kind].inc()
        return made


async def preferences_of(tx: Tx, user: UserId) -> Preferences:
    return preferences_from(await store.chosen(tx, user))
