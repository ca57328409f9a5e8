"""Pushes: a device that nobody looks at is told that there is something, through the push service it names.

A push is written in the transaction of its notification, and judged when it is due: by then most are read, or
their person is connected. It says ids alone: no push service learns what was written.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NamedTuple

import msgspec
import structlog
import trio

from ... import metrics
from ...clock import SECOND_US
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
from ...errors import Invalid, Problem, Unavailable
from ...identity import DeviceId, Principal, UserId, new_id
from ...node import SecretDamaged, Secrets
from ...periodic import every
from . import push_store, store
from .making import preferences_of
from .push_store import Registration, Waiting
from .store import Notification

log = structlog.get_logger(module="chat")

# result: sent; deferred: tried in vain; refused: for good; gone: nobody is there any more; spared: read, or
# the person was connected, or wants none; expired
PUSHES = metrics.counter("secureconnect_pushes_total", "What became of pushes.", ["result"])
_SENT, _DEFERRED, _REFUSED, _GONE, _SPARED, _EXPIRED = (
    PUSHES.labels(each) for each in ("sent", "deferred", "refused", "gone", "spared", "expired")
)

URGENT = frozenset({"message", "mention", "reply"})
CLAIM_MARGIN_S = 30.0  # beyond the longest try: for the note of how it went
PER_PERSON = 2  # under way at a time: nobody's slow endpoints take all places
TURN_US = SECOND_US  # until it is a person's turn again
NOTE_S = 5.0  # for the note of what is sent, at shutdown too
LATEST_DOUBLING = 20
TOPIC_CHARS = 32

Target = FcmTarget | WebPushTarget
SignedIn = Callable[[Tx, UserId, int], Awaitable[frozenset[DeviceId]]]


class PushParts(NamedTuple):
    """What pushes need of the rest of the server.  signed_in: the devices of a person with a session."""

    config: PushConfig
    pusher: Pusher
    secrets: Secrets
    signed_in: SignedIn


class _Due(NamedTuple):
    waiting: Waiting
    registration: Registration
    notification: Notification


class Pushes:
    """is_here: whether somebody is connected, on any node, as far as that is known here."""

    def __init__(self, parts: PushParts, db: Database, is_here: Callable[[UserId], bool]) -> None:
        self._config = parts.config
        self._pusher = parts.pusher
        self._secrets = parts.secrets
        self._signed_in = parts.signed_in
        self._topics = parts.secrets.derive("push:topics")
        self._db = db
        self._is_here = is_here
        self._under_way: Counter[UserId] = Counter()
        self._claim_us = int((parts.config.call_s + CLAIM_MARGIN_S) * SECOND_US)
        self.vapid_public_key: str | None = None

    # where they go

    async def register(self, caller: Principal, target: Target) -> int:
        """For the device the caller's session is of, in the place of what it had. Returns when. Raises
        Invalid."""
        if (field := self._pusher.flaw(target)) is not None:
            raise Invalid("Nothing can be pushed there.", details={"field": field})
        now_us = self._db.now_us()
        is_fcm = isinstance(target, FcmTarget)
        name = target.token if isinstance(target, FcmTarget) else target.endpoint
        await self._db.write(
            push_store.register,
            caller.device_id,
            caller.user_id,
            "fcm" if is_fcm else "webpush",
            target=hashlib.sha256(name.encode()).digest(),
            sealed=self._secrets.seal(_place(caller.device_id), msgspec.json.encode(target)),
            most=self._config.devices,
            now_us=now_us,
        )
        return now_us

    async def unregister(self, caller: Principal) -> None:
        """Nothing is pushed to this device any more. Safe to repeat."""
        await self._db.relieve(push_store.unregister, caller.device_id)

    # when there is something to tell

    async def queue(self, tx: Tx, notification: Notification, now_us: int) -> None:
        """In the transaction that makes it."""
        await push_store.queue(
            tx,
            notification.user_id,
            notification.conversation_id or notification.ref,
            notification.notification_id,
            due_us=now_us + int(self._config.delay_s * SECOND_US),
            expires_us=now_us + self._config.ttl_s * SECOND_US,
        )

    async def pass_forever(self) -> None:
        with suppress(Unavailable):  # the first pass tries again
            await self.prepare()
        await every(self._config.poll_s, self.pass_once, log, "nothing_pushed")

    async def prepare(self) -> None:
        """Know the key that pushes to browsers are signed with, made by the first server of all. Raises
        Unavailable."""
        if self.vapid_public_key is None:
            key = await self._secrets.get_or_make(self._db, "vapid", self._pusher.new_key)
            self.vapid_public_key = self._pusher.identify(key)

    async def pass_once(self) -> None:
        """Send what is due, each once. Raises Unavailable."""
        await self.prepare()
        now_us = self._db.now_us()
        due_us, ends_us = await self._db.read(push_store.next_due)
        if ends_us is not None and ends_us <= now_us:
            while gone := await self._db.relieve(push_store.expire, now_us):
                _EXPIRED.inc(gone)
        if due_us is not None and due_us <= now_us:
            async with trio.open_nursery() as nursery:
                for _ in range(self._config.senders):
                    nursery.start_soon(self._send_due)

    async def _send_due(self) -> None:
        """One after another, until none is due. What keeps one from being noted ends it; the next pass tries
        again."""
        try:
            while (waiting := await self._take()) is not None:
                user, now_us = waiting.user_id, self._db.now_us()
                if self._under_way[user] >= PER_PERSON:
                    due_us = now_us + TURN_US
                    await self._db.relieve(push_store.put_off, waiting, due_us, is_here=waiting.was_here)
                    continue
                self._under_way[user] += 1
                try:
                    due = await self._db.relieve(self._judge, waiting, self._is_here(user), now_us)
                    if due is not None:
                        await self._try(due)
                finally:
                    self._under_way[user] -= 1
                    self._under_way += Counter()  # what is 0 is not kept
        except Problem as problem:
            log.warning("pushes_not_written", code=problem.code)

    async def _take(self) -> Waiting | None:
        now_us = self._db.now_us()
        return await self._db.relieve(push_store.take, new_id(), now_us, now_us + self._claim_us)

    async def _judge(self, tx: Tx, waiting: Waiting, is_here: bool, now_us: int) -> _Due | None:
        """None if it is not to be sent, or not now."""
        user = waiting.user_id
        if waiting.device_id not in await self._signed_in(tx, user, now_us):
            await push_store.unregister(tx, waiting.device_id)
            return None
        registration = await push_store.registration(tx, waiting.device_id, user)
        notification = await store.get(tx, user, waiting.notification_id)
        is_wanted = (
            registration is not None
            and notification is not None
            and notification.read_us is None
            and (await preferences_of(tx, user)).is_pushed(notification.kind, now_us)
        )
        if is_wanted and registration is not None and notification is not None:
            if not is_here:
                return _Due(waiting, registration, notification)
            if not waiting.was_here:  # or so it seems: the connection may be dead
                due_us = now_us + int(self._config.again_s * SECOND_US)
                await push_store.put_off(tx, waiting, due_us, is_here=True)
                return None
        _SPARED.inc()
        await push_store.done(tx, waiting)
        return None

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
            pause_s = max(self._pause_s(waiting.attempts), failure.retry_after_s)
            due_us = self._db.now_us() + int(pause_s * SECOND_US)
            await self._db.relieve(push_store.put_off, waiting, due_us, is_here=False)
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
        waiting, told = due.waiting, due.notification
        kind: type[Target] = FcmTarget if due.registration.service == "fcm" else WebPushTarget
        try:
            opened = self._secrets.unseal(_place(waiting.device_id), due.registration.sealed)
        except SecretDamaged:
            return None
        target = msgspec.json.decode(opened, type=kind)
        data: dict[str, str] = {"notification_id": told.notification_id, "kind": told.kind}
        if told.conversation_id is not None:
            data["conversation_id"] = told.conversation_id
        topic = hmac.digest(self._topics, waiting.topic.encode(), hashlib.sha256).hex()[:TOPIC_CHARS]
        left_s = max(0, (waiting.expires_us - self._db.now_us()) // SECOND_US)
        return Push(target, data, topic, told.kind in URGENT, left_s)

    def _pause_s(self, attempts: int) -> float:
        doubled: float = self._config.retry_s * 2 ** min(attempts - 1, LATEST_DOUBLING)
        return min(doubled, self._config.longest_retry_s)


def _place(device: DeviceId) -> str:
    return f"push_devices/{device}"
