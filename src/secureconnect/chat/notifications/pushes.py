"""Pushes: a device that nobody looks at is told that there is something, through the push service it names.

A push is written in the transaction of its notification, and judged when it is due: by then most are read, or
their person is connected. It says ids alone: no push service learns what was written.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import msgspec
import structlog
import trio

from ... import metrics
from ...clock import MINUTE_US, SECOND_US
from ...config import PushConfig
from ...deps.contracts import (
    Database,
    Deferred,
    FcmTarget,
    Push,
    Pusher,
    Tx,
    Undeliverable,
    Unregistered,
    WebPushTarget,
)
from ...errors import Conflict, Invalid, InvalidToken, Problem, Unavailable
from ...identity import CallId, ConversationId, DeviceId, NotificationId, Principal, UserId, new_id
from ...node import SecretDamaged, Secrets
from ...periodic import every
from . import push_store, store
from .making import preferences_of
from .preferences import preferences_from
from .push_store import Listener, Registration, Waiting
from .store import Notification

log = structlog.get_logger(module="chat")

# result: sent; deferred: tried in vain; refused: for good; gone: nobody is there any more; spared: read, or
# the person was connected, or wants none; expired
PUSHES = metrics.counter("secureconnect_pushes_total", "What became of pushes.", ["result"])
_SENT, _DEFERRED, _REFUSED, _GONE, _SPARED, _EXPIRED = (
    PUSHES.labels(each) for each in ("sent", "deferred", "refused", "gone", "spared", "expired")
)

URGENT = frozenset({"message", "mention", "reply", "call_incoming", "call_cancelled", "missed_call"})
CALLS = frozenset({"mention", "reply"})  # what is said by them in a group wakes nobody a second time
CLAIM_MARGIN_S = 30.0  # beyond the longest try: for the note of how it went
PER_PERSON = 2  # under way at a time: nobody's slow endpoints take all places
RESERVED = 4  # one place in so many is for push services that answer: anybody can name some that do not
AHEAD_US = 10 * MINUTE_US  # calls are due so much before what else begins to be due now
TURN_US = SECOND_US  # until it is a person's turn again
NOTE_S = 5.0  # for the note of what is sent, at shutdown too
LATEST_DOUBLING = 20
REGISTERING = 3  # times, while somebody else registers the same
TOPIC_CHARS = 32

Target = FcmTarget | WebPushTarget
Told = dict[str, str]
SignedIn = Callable[[Tx, UserId, int], Awaitable[frozenset[DeviceId]]]
IsCalled = Callable[[Tx, UserId, CallId, int], Awaitable[ConversationId | None]]


async def _nobody_is_called(_: Tx, __: UserId, ___: CallId, ____: int) -> None:
    """There are no calls."""


class PushParts(NamedTuple):
    """What pushes need of the rest of the server.  signed_in: the devices of a person with a session.
    is_called: the conversation of a call that rings for somebody at that time; None: it does not."""

    config: PushConfig
    pusher: Pusher
    secrets: Secrets
    signed_in: SignedIn
    is_called: IsCalled = _nobody_is_called


class _Due(NamedTuple):
    """told: what the device is told."""

    waiting: Waiting
    registration: Registration
    told: Told


class Pushes:
    """is_here: whether somebody is connected, on any node, as far as that is known here."""

    def __init__(self, parts: PushParts, db: Database, is_here: Callable[[UserId], bool]) -> None:
        self._config = parts.config
        self._pusher = parts.pusher
        self._secrets = parts.secrets
        self._signed_in = parts.signed_in
        self._is_called = parts.is_called
        self._topics = parts.secrets.derive("push:topics")
        self._db = db
        self._is_here = is_here
        self._under_way: Counter[str] = Counter()  # by way
        self._under_way_of: Counter[UserId] = Counter()
        self._claim_us = int((parts.config.call_s + CLAIM_MARGIN_S) * SECOND_US)
        self.vapid_public_key: str | None = None

    # where they go

    async def register(self, caller: Principal, target: Target) -> int:
        """For the device the caller's session is of, in the place of what it had. Returns when. Raises
        Invalid, Conflict; InvalidToken if that has ended meanwhile: nobody would take the device away."""
        if (field := self._pusher.flaw(target)) is not None:
            raise Invalid("Nothing can be pushed there.", details={"field": field})

        async def unit(tx: Tx) -> bool:
            if caller.device_id not in await self._signed_in(tx, caller.user_id, now_us):
                raise InvalidToken
            return await push_store.register(
                tx,
                caller.device_id,
                caller.user_id,
                "fcm" if isinstance(target, FcmTarget) else "webpush",
                way=self._pusher.way(target),
                target=hashlib.sha256(name.encode()).digest(),
                sealed=sealed,
                most=self._config.devices,
                now_us=now_us,
            )

        now_us = self._db.now_us()
        name = target.token if isinstance(target, FcmTarget) else target.endpoint
        sealed = self._secrets.seal(_place(caller.device_id), msgspec.json.encode(target))
        for _ in range(REGISTERING):
            if await self._db.write(unit):
                return now_us
        raise Conflict("Another device registers the same just now.")

    async def unregister(self, caller: Principal) -> None:
        """Nothing is pushed to this device any more. Safe to repeat."""
        await self._db.relieve(push_store.unregister, caller.device_id)

    # when there is something to tell

    async def queue(self, tx: Tx, notification: Notification, now_us: int) -> None:
        """In the transaction that makes it."""
        if notification.kind == "missed_call":
            await push_store.ring(
                tx,
                notification.user_id,
                CallId(notification.ref),
                notification.notification_id,
                "missed",
                now_us - AHEAD_US,
                now_us + self._config.ttl_s * SECOND_US,
            )
            return
        conversation, seq = notification.conversation_id, notification.seq
        if conversation is not None and seq is not None and notification.kind in CALLS:
            await push_store.rung(tx, conversation, notification.user_id, seq)
        await push_store.queue(
            tx,
            notification.user_id,
            conversation or notification.ref,
            notification.notification_id,
            None,
            due_us=now_us + int(self._config.delay_s * SECOND_US),
            expires_us=now_us + self._config.ttl_s * SECOND_US,
        )

    async def ring(self, tx: Tx, group: ConversationId, people: Sequence[Listener], now_us: int) -> None:
        """Wake them for what was said there, whoever was not before; they are not connected."""
        for each in people:
            if await push_store.rung(tx, group, each.user_id, each.seq):
                await push_store.queue(
                    tx,
                    each.user_id,
                    group,
                    each.message_id,
                    each.seq,
                    due_us=now_us,
                    expires_us=now_us + self._config.ttl_s * SECOND_US,
                )

    async def pass_forever(self) -> None:
        with suppress(Unavailable):  # the first pass tries again
            await self.prepare()
        async with trio.open_nursery() as nursery:
            await every(self._config.poll_s, partial(self._start_due, nursery), log, "nothing_pushed")

    async def prepare(self) -> None:
        """Know the key that pushes to browsers are signed with, made by the first server of all. Raises
        Unavailable."""
        if self.vapid_public_key is None:
            key = await self._secrets.get_or_make(self._db, "vapid", self._pusher.new_key)
            self.vapid_public_key = self._pusher.identify(key)

    async def pass_once(self) -> None:
        """Send what is due, each once. Raises Unavailable."""
        async with trio.open_nursery() as nursery:
            await self._start_due(nursery)

    async def _start_due(self, nursery: trio.Nursery) -> None:
        """What is slow to go is not waited for: the next pass starts what is due then. Raises Unavailable."""
        await self.prepare()
        now_us = self._db.now_us()
        due_us, ends_us = await self._db.read(push_store.next_due)
        if ends_us is not None and ends_us <= now_us:
            while gone := await self._db.relieve(push_store.expire, now_us):
                _EXPIRED.inc(gone)
        if due_us is not None and due_us <= now_us:
            # half of them at most have no room for more
            for way in await self._db.read(push_store.ways_due, now_us, 2 * self._config.senders):
                if (rest_s := self._pusher.rest_s(way)) > 0:
                    until_us = now_us + int(rest_s * SECOND_US)
                    await self._db.relieve(push_store.leave_alone, way, now_us, until_us)
                for waiting in await self._take(way, self._room_for(way)):
                    self._under_way[way] += 1
                    nursery.start_soon(self._send_on, way, waiting)

    def _room_for(self, way: str) -> int:
        """How many more may be under way there."""
        senders = self._config.senders
        most = senders if self._pusher.is_proven(way) else senders - senders // RESERVED
        return min(self._pusher.room_for(way) - self._under_way[way], most - sum(self._under_way.values()))

    async def _send_on(self, way: str, waiting: Waiting) -> None:
        """This one and, one after another, what is due there, until none is. What keeps one from being noted
        ends it; the next pass tries again."""
        try:
            due = [waiting]
            while due:
                await self._send(due[0])
                due = await self._take(way, min(1, self._room_for(way) + 1))  # its own place is free
        except Problem as problem:
            log.warning("pushes_not_written", code=problem.code)
        finally:
            self._under_way[way] -= 1
            self._under_way += Counter()  # what is 0 is not kept

    async def _take(self, way: str, most: int) -> list[Waiting]:
        if most <= 0:
            return []
        now_us = self._db.now_us()
        return await self._db.relieve(push_store.take, way, new_id(), now_us, now_us + self._claim_us, most)

    async def _send(self, waiting: Waiting) -> None:
        user, now_us = waiting.user_id, self._db.now_us()
        if self._under_way_of[user] >= PER_PERSON:
            await self._db.relieve(push_store.put_off, waiting, now_us + TURN_US)
            return
        self._under_way_of[user] += 1
        try:
            due = await self._db.relieve(self._judge, waiting, self._is_here(user), now_us)
            if due is not None:
                await self._try(due)
        finally:
            self._under_way_of[user] -= 1
            self._under_way_of += Counter()

    async def _judge(self, tx: Tx, waiting: Waiting, is_here: bool, now_us: int) -> _Due | None:
        """None if it is not to be sent, or not now."""
        user = waiting.user_id
        if waiting.device_id not in await self._signed_in(tx, user, now_us):
            await push_store.unregister(tx, waiting.device_id)
            return None
        registration = await push_store.registration(tx, waiting.device_id, user)
        told = await self._told(tx, waiting, now_us)
        if registration is not None and told is not None:
            if not is_here or waiting.ring is not None:  # calls ring wherever their person may be
                return _Due(waiting, registration, told)
            if not waiting.was_here:  # or so it seems: the connection may be dead
                due_us = now_us + int(self._config.again_s * SECOND_US)
                await push_store.put_off(tx, waiting._replace(was_here=True), due_us)
                return None
        _SPARED.inc()
        await push_store.done(tx, waiting)
        return None

    async def _told(self, tx: Tx, waiting: Waiting, now_us: int) -> Told | None:
        if waiting.ring is not None:
            return await self._rung(tx, waiting, now_us)
        if waiting.seq is not None:
            return await _said(tx, waiting, now_us)
        return await _notified(tx, waiting, now_us)

    async def _rung(self, tx: Tx, waiting: Waiting, now_us: int) -> Told | None:
        """Of a call. Nothing rings that is over by now; that it rings no more is told whatever else is."""
        call = {"call_id": waiting.topic}
        conversation = await self._is_called(tx, waiting.user_id, CallId(waiting.topic), now_us)
        if waiting.ring == "incoming":
            if conversation is None:
                return None
            return call | {"kind": "call_incoming", "conversation_id": conversation}
        notified = await _notified(tx, waiting, now_us) if waiting.ring == "missed" else None
        if notified is not None:
            return call | notified
        return None if conversation is not None else call | {"kind": "call_cancelled"}

    async def _try(self, due: _Due) -> None:
        waiting, registration = due.waiting, due.registration
        push = self._push(due)
        if push is None:
            log.error("push_target_damaged", device_id=waiting.device_id)
            await self._db.relieve(push_store.unregister, waiting.device_id)
            return
        try:
            await self._pusher.send(push)
        except Deferred as failure:
            _DEFERRED.inc()
            log.info("push_put_off", device_id=waiting.device_id, reason=str(failure))
            tried = waiting._replace(attempts=waiting.attempts + 1, was_here=False)
            pause_s = max(self._pause_s(tried.attempts), failure.retry_after_s)
            due_us = self._db.now_us() + int(pause_s * SECOND_US)
            await self._db.relieve(push_store.put_off, tried, due_us)
            return
        except Unregistered:
            _GONE.inc()
            log.info("push_device_gone", device_id=waiting.device_id, service=registration.service)
            await self._db.relieve(push_store.unregister_unless_renewed, registration)
        except Undeliverable as refusal:
            _REFUSED.inc()
            log.info("push_refused", device_id=waiting.device_id, reason=str(refusal))
        else:
            _SENT.inc()
        with trio.move_on_after(NOTE_S, shield=True):  # or it is sent again
            await self._db.relieve(push_store.done, waiting)

    def _push(self, due: _Due) -> Push | None:
        """None when what is stored of the device does not open."""
        waiting = due.waiting
        kind: type[Target] = FcmTarget if due.registration.service == "fcm" else WebPushTarget
        try:
            opened = self._secrets.unseal(_place(waiting.device_id), due.registration.sealed)
        except SecretDamaged:
            return None
        target = msgspec.json.decode(opened, type=kind)
        topic = hmac.digest(self._topics, waiting.topic.encode(), hashlib.sha256).hex()[:TOPIC_CHARS]
        left_s = max(0, (waiting.expires_us - self._db.now_us()) // SECOND_US)
        return Push(target, due.told, topic, due.told["kind"] in URGENT, left_s)

    def _pause_s(self, attempts: int) -> float:
        doubled: float = self._config.retry_s * 2 ** min(attempts - 1, LATEST_DOUBLING)
        return min(doubled, self._config.longest_retry_s)


async def _notified(tx: Tx, waiting: Waiting, now_us: int) -> Told | None:
    """Of a notification. None for one that is read or gone, and where none is wanted now."""
    user = waiting.user_id
    notification = await store.get(tx, user, NotificationId(waiting.about))
    if notification is None or notification.read_us is not None:
        return None
    if not (await preferences_of(tx, user)).is_pushed(notification.kind, now_us):
        return None
    told: Told = {"notification_id": notification.notification_id, "kind": notification.kind}
    conversation = notification.conversation_id
    if conversation is None:
        return told
    reader = await store.reader(tx, conversation, user)
    if reader is None or not reader.wants(notification.kind, now_us):  # as it is by now
        return None
    return told | {"conversation_id": conversation}


async def _said(tx: Tx, waiting: Waiting, now_us: int) -> Told | None:
    """Of what was said in a group. None for what is read or gone, and where none is wanted now."""
    listener = await push_store.listener(tx, waiting.topic, waiting.user_id, now_us)
    if listener is None or not preferences_from(listener.chosen).is_rung(listener.notify, now_us):
        return None
    return {"message_id": listener.message_id, "kind": "message", "conversation_id": waiting.topic}


def _place(device: DeviceId) -> str:
    return f"push_devices/{device}"
