"""News of keys, told to the sockets of whom it concerns, on whichever node they are.

A hint: what is missed stands in the tables, and a device asks for it when it comes back (`Inboxes.sync`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Literal

import msgspec
import structlog
from msgspec import Struct

from ... import metrics
from ...deps.contracts import Database, Delivery, Signals, Tx
from ...errors import Problem
from ...identity import ConversationId, DeviceId, UserId
from . import company
from .names import Names

log = structlog.get_logger(module="auth")

UNTOLD = metrics.counter(
    "secureconnect_auth_key_news_lost_total", "News of keys that could not be told at once."
)

CHANNEL = "auth.keys"
NAMED = 500  # devices in one signal
PLACES = 10_000  # devices of which is remembered how far they were told

IsHere = Callable[[UserId], bool]
Tell = Callable[[UserId, DeviceId | None, bytes], None]
"""Offers an event to the sockets of a person, or of one of their devices; never waits."""


class _Signal(Struct, array_like=True):
    """stirred: `devices` have something to learn.  changed: keys of `user` did, at `since_us` or later.
    left: `user` left `conversation`.  dissolved: all left it, at `since_us`.
    related: something has changed for `user` between them and `other`."""

    kind: Literal["stirred", "changed", "left", "dissolved", "related"]
    devices: list[tuple[str, str]] = []
    user: str = ""
    since_us: int = 0
    conversation: str = ""
    other: str = ""


class KeyChanged(Struct, tag_field="type", tag="key_changed"):
    """device_id: None for what concerns all devices of the person."""

    user_id: str
    device_id: str | None


_signals = msgspec.msgpack.Decoder(_Signal)
_encoder = msgspec.json.Encoder()


class News:
    def __init__(self, db: Database, signals: Signals, names: Names) -> None:
        self._db = db
        self._signals = signals
        self._names = names
        self._places: OrderedDict[DeviceId, int] = OrderedDict()
        self.is_here: IsHere = _nobody
        self.tell: Tell = _tell_nobody
        self.read: Callable[[DeviceId, int], Awaitable[tuple[Struct, int]]]

    # from the rules; none of these waits

    def stirred(self, devices: Sequence[tuple[UserId, DeviceId]]) -> None:
        """They were sent something, or keys of theirs were handed out."""
        for at in range(0, len(devices), NAMED):
            self._send(_Signal("stirred", [(user, device) for user, device in devices[at : at + NAMED]]))

    def changed(self, user: UserId, since_us: int) -> None:
        """Keys of theirs did, as `store.note_change` has noted."""
        self._send(_Signal("changed", user=user, since_us=since_us))

    def left(self, user: UserId, conversation: ConversationId) -> None:
        self._send(_Signal("left", user=user, conversation=conversation))

    def dissolved(self, conversation: ConversationId, at_us: int) -> None:
        """It was deleted then, as `company.note_departures` has noted."""
        self._send(_Signal("dissolved", conversation=conversation, since_us=at_us))

    def related(self, one: UserId, other: UserId, *, quietly: bool = False) -> None:
        """As `company.note_relation` has noted."""
        self._send(_Signal("related", user=one, other=other))
        if not quietly:
            self._send(_Signal("related", user=other, other=one))

    def synced(self, device: DeviceId, position: int) -> None:
        """It has been told of messages up to there."""
        self._places[device] = position
        self._places.move_to_end(device)
        while len(self._places) > PLACES:
            self._places.popitem(last=False)

    def _send(self, signal: _Signal) -> None:
        try:
            self._signals.send(CHANNEL, msgspec.msgpack.encode(signal))
        except Problem:
            UNTOLD.inc()

    # to the sockets here

    async def tell_forever(self) -> None:
        with self._signals.subscribe([CHANNEL]) as backlog:
            async for delivery in backlog:
                try:
                    await self._take(delivery)
                except Problem as problem:
                    UNTOLD.inc()
                    log.warning("key_news_untold", code=problem.code)

    async def _take(self, delivery: Delivery) -> None:
        try:
            signal = _signals.decode(delivery.payload)
        except msgspec.DecodeError:
            log.warning("key_news_unreadable")
            return
        if signal.kind == "stirred":
            for user, device in signal.devices:
                await self._tell_stirred(UserId(user), DeviceId(device))
        elif signal.kind == "changed":
            await self._tell_changed(UserId(signal.user), signal.since_us)
        elif signal.kind == "left":
            await self._tell_left(UserId(signal.user), ConversationId(signal.conversation))
        elif signal.kind == "dissolved":
            await self._tell_dissolved(ConversationId(signal.conversation), signal.since_us)
        else:
            await self._tell_related(UserId(signal.user), UserId(signal.other))

    async def _tell_stirred(self, user: UserId, device: DeviceId) -> None:
        if not self.is_here(user):
            return
        told, position = await self.read(device, self._places.get(device, 0))
        self.tell(user, device, _event(told))
        self.synced(device, position)

    async def _tell_changed(self, user: UserId, since_us: int) -> None:
        async def unit(tx: Tx) -> tuple[list[str], list[UserId]]:
            changed = await company.changed_devices(tx, user, since_us)
            return changed, await company.company(tx, user) if changed else []

        devices, others = await self._db.read(unit)
        if not devices:
            return
        events = [_encoder.encode(KeyChanged(user, None if each == user else each)) for each in devices]
        self._tell_all([*others, user], [*events, self._lists("changed", user)])

    async def _tell_left(self, user: UserId, conversation: ConversationId) -> None:
        async def unit(tx: Tx) -> tuple[list[UserId], list[UserId]]:
            stayed = await company.company_of(tx, conversation)
            return stayed, await company.company(tx, user)

        stayed, still = await self._db.read(unit)
        strangers = set(stayed) - set(still)
        self._tell_all(stayed, [_encoder.encode(KeyChanged(user, None))])
        self._tell_all(strangers, [self._lists("left", user)])
        if self.is_here(user) and strangers:
            self._tell_all([user], [self._lists("left", *strangers)])

    async def _tell_dissolved(self, conversation: ConversationId, at_us: int) -> None:
        departed = await self._db.read(company.departed, conversation, at_us)
        for user in filter(self.is_here, departed):
            still = await self._db.read(company.company, user)
            if strangers := set(departed) - {user, *still}:
                self._tell_all([user], [self._lists("left", *strangers)])

    async def _tell_related(self, user: UserId, other: UserId) -> None:
        if self.is_here(user):
            meets = await self._db.read(company.meets, user, other)
            self._tell_all([user], [self._lists("changed" if meets else "left", other)])

    def _tell_all(self, people: Iterable[UserId], events: Sequence[bytes]) -> None:
        for each in people:
            if self.is_here(each):
                for event in events:
                    self.tell(each, None, event)

    def _lists(self, what: Literal["changed", "left"], *users: UserId) -> bytes:
        lists: dict[str, list[str]] = {"changed": [], "left": []}
        lists[what] = [self._names.of(user) for user in sorted(users)]
        return _encoder.encode({"type": "e2ee", "to_device": [], "device_lists": lists})


def _event(told: Struct) -> bytes:
    return _encoder.encode({"type": "e2ee"} | msgspec.structs.asdict(told))


def _nobody(_: UserId) -> bool:
    return False


def _tell_nobody(_: UserId, __: DeviceId | None, ___: bytes) -> None:
    """There are no sockets until `connect` says where."""
