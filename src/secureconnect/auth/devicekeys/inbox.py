"""Inboxes: what one device sends another, kept until that comes back with a later place; and all else it must
know to go on encrypting: whose keys have changed, how many keys of its own are left."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from ... import metrics
from ...clock import DAY_US, SECOND_US
from ...config import KeysConfig
from ...deps.contracts import Database, Tx
from ...errors import Invalid
from ...identity import DeviceId, Principal, UserId, is_id
from . import company, inbox_store, store
from .inbox_store import Inbox
from .names import Names
from .news import News
from .shelf import SIGNED
from .signing import written

SENT = metrics.counter(
    "secureconnect_auth_device_messages_total",
    "Messages from device to device.",
    ["result"],  # queued, dropped
)
_QUEUED, _DROPPED = SENT.labels("queued"), SENT.labels("dropped")

MIB = 1_048_576
ALL = "*"
CHANGES = 10_000  # people told of at a time, whose keys have changed
# What was noted before a sync may be committed after it: as long as a unit takes at most, with room to spare.
OVERLAP_US = 30 * SECOND_US
_SINCE = re.compile(r"([0-9]{1,18})\.([0-9]{1,18})")

Content = dict[str, Any]


class ToDevice(Struct, frozen=True):
    """position: ascending; one that is not above what a device has seen is no news to it."""

    sender: str
    type: str
    content: Content
    position: str


class DeviceLists(Struct, frozen=True):
    """People whose keys must be asked for again, and those whose keys one may not have any more.
    limited: there are more of them, or some were forgotten; take the keys of everybody for changed."""

    changed: list[str] = []
    left: list[str] = []
    limited: bool | UnsetType = UNSET


class Sync(Struct, frozen=True):
    """more: ask again at once, with `next_since`."""

    to_device: list[ToDevice]
    device_lists: DeviceLists
    one_time_key_counts: dict[str, int]
    unused_fallback_keys: list[str]
    next_since: str
    more: bool


class Undelivered(Struct, frozen=True):
    """Devices that do not exist, cannot be seen, or whose inbox is full, by person."""

    undelivered: dict[str, list[str]]


class Since(Struct, frozen=True):
    """What a device has: messages up to `position`, changes of keys up to `lists_us`."""

    position: int
    lists_us: int

    def __str__(self) -> str:
        return f"{self.position}.{self.lists_us}"


_undelivered = msgspec.json.Decoder(Undelivered)


def since_of(text: str | None) -> Since | None:
    """Raises Invalid."""
    if text is None:
        return None
    found = _SINCE.fullmatch(text)
    if found is None:
        raise Invalid("This place was not given by a sync.", details={"field": "since"})
    return Since(int(found[1]), int(found[2]))


class Inboxes:
    def __init__(self, config: KeysConfig, db: Database, names: Names, news: News) -> None:
        self._config = config
        self._db = db
        self._names = names
        self._news = news

    # sending

    async def send(
        self, caller: Principal, kind: str, txn: str, messages: Mapping[str, Mapping[str, Content]]
    ) -> Undelivered:
        """Queue each content for its device, or for all of a person's (`*`) but the one that sends. The same
        `txn` again sends nothing, and is answered as it was. Raises Invalid."""

        async def unit(tx: Tx) -> tuple[Undelivered, list[tuple[UserId, DeviceId]], int]:
            now_us = self._db.now_us()
            answered = await inbox_store.begin_sending(tx, caller.device_id, txn, now_us)
            if answered:
                return _undelivered.decode(answered), [], 0
            targets, undelivered = await self._targets(tx, caller, wanted)
            if len(targets) > self._config.asked_people:
                raise self._too_many()
            reached: list[tuple[UserId, DeviceId]] = []
            for device, (user, content) in sorted(targets.items()):
                if await self._queue(tx, device, caller.user_id, kind, content, now_us):
                    reached.append((user, device))
                else:
                    undelivered.setdefault(self._names.of(user), []).append(device)
            answer = Undelivered(undelivered)
            await inbox_store.keep_answer(tx, caller.device_id, txn, msgspec.json.encode(answer).decode())
            return answer, reached, sum(map(len, undelivered.values()))

        wanted = self._wanted(messages)
        answer, reached, dropped = await self._db.write(unit)
        _QUEUED.inc(len(reached))
        _DROPPED.inc(dropped)
        self._news.stirred(reached)
        return answer

    def _wanted(self, messages: Mapping[str, Mapping[str, Content]]) -> dict[UserId, dict[str, str]]:
        """The texts by person and device. Raises Invalid."""
        field = "messages"
        if sum(map(len, messages.values())) + len(messages) > self._config.asked_people:
            raise self._too_many()
        wanted: dict[UserId, dict[str, str]] = {}
        for name, devices in messages.items():
            texts = wanted.setdefault(self._names.user(name, field), {})
            for device, content in devices.items():
                if device != ALL and not is_id(device):
                    raise Invalid("A device id is a UUID.", details={"field": field})
                texts[device] = written(content, field)
                if len(texts[device].encode()) > self._config.message_bytes:
                    raise Invalid(
                        f"A message has {self._config.message_bytes} bytes at most.", details={"field": field}
                    )
        return wanted

    def _too_many(self) -> Invalid:
        return Invalid(f"At most {self._config.asked_people} at a time.", details={"field": "messages"})

    async def _targets(
        self, tx: Tx, caller: Principal, wanted: Mapping[UserId, Mapping[str, str]]
    ) -> tuple[dict[DeviceId, tuple[UserId, str]], dict[str, list[str]]]:
        """Whom each text goes to, and who cannot be reached. A text for a device goes before one for all."""
        targets: dict[DeviceId, tuple[UserId, str]] = {}
        missing: dict[str, list[str]] = {}
        for user, texts in wanted.items():
            known: list[DeviceId] = []
            if user == caller.user_id or await company.meets(tx, caller.user_id, user):
                known = [each.device_id for each in await store.devices_of(tx, user)]
            for device in known:
                text = texts.get(device)
                if text is None and device != caller.device_id:
                    text = texts.get(ALL)
                if text is not None:
                    targets[device] = (user, text)
            unknown = [each for each in texts if each not in known and (each != ALL or not known)]
            if unknown:
                missing[self._names.of(user)] = unknown
        return targets, missing

    async def _queue(
        self, tx: Tx, device: DeviceId, sender: UserId, kind: str, content: str, now_us: int
    ) -> bool:
        """False when there is no room, or the device has gone meanwhile."""
        if await store.lock(tx, device) is None:
            return False
        inbox = await inbox_store.open_inbox(tx, device, now_us)
        size = len(content.encode()) + len(kind)
        full = inbox.size_bytes + size > self._config.inbox_mb * MIB
        if full or inbox.messages >= self._config.inbox_messages:
            return False
        position = max(inbox.last_position + 1, now_us)
        await inbox_store.add_messages(tx, device, [(position, sender, kind, content, size)])
        await inbox_store.set_inbox(
            tx, device, Inbox(position, inbox.messages + 1, inbox.size_bytes + size, inbox.lists_us)
        )
        return True

    # learning

    async def sync(self, caller: Principal, since: Since | None) -> Sync:
        """What the caller's device must know since then; with that, messages up to there are deleted."""

        async def unit(tx: Tx) -> Sync:
            now_us = self._db.now_us()
            if await store.lock(tx, caller.device_id) is None:
                return Sync([], DeviceLists(), {SIGNED: 0}, [], str(since or Since(0, now_us)), False)
            inbox = await inbox_store.open_inbox(tx, caller.device_id, now_us)
            after = 0
            lists = DeviceLists()
            if since is not None and since.position <= inbox.last_position:
                after = since.position
                count, size = await inbox_store.drop_up_to(tx, caller.device_id, after)
                inbox = Inbox(
                    inbox.last_position, inbox.messages - count, inbox.size_bytes - size, since.lists_us
                )
                await inbox_store.set_inbox(tx, caller.device_id, inbox)
            if since is not None:
                lists = await self._lists(tx, caller.user_id, since.lists_us, now_us)
            return await self._told(tx, caller.device_id, Since(after, now_us), lists)

        return await self._db.relieve(unit)

    async def news_for(self, device: DeviceId, after: int) -> tuple[Sync, int]:
        """What the device must know beyond `after`, and how far it then is. Nothing is deleted."""

        async def unit(tx: Tx) -> Sync:
            inbox = await inbox_store.get_inbox(tx, device)
            lists_us = self._db.now_us() if inbox is None else inbox.lists_us
            return await self._told(tx, device, Since(after, lists_us), DeviceLists())

        told = await self._db.read(unit)
        return told, int(told.next_since.partition(".")[0])

    async def _told(self, tx: Tx, device: DeviceId, since: Since, lists: DeviceLists) -> Sync:
        limit = self._config.sync_messages
        found = await inbox_store.list_after(tx, device, since.position, limit + 1)
        page = found[:limit]
        unused = sorted(each.algorithm for each in await store.fallbacks(tx, device) if each.used_us is None)
        last = page[-1].position if page else since.position
        return Sync(
            [
                ToDevice(
                    self._names.of(each.sender_id),
                    each.type,
                    msgspec.json.decode(each.content),
                    str(each.position),
                )
                for each in page
            ],
            lists,
            {SIGNED: 0} | await store.count_keys(tx, device),
            unused,
            str(Since(last, since.lists_us)),
            len(found) > limit,
        )

    async def _lists(self, tx: Tx, user: UserId, since_us: int, now_us: int) -> DeviceLists:
        changed = await company.changed(tx, user, since_us - OVERLAP_US, CHANGES)
        left = await company.left(tx, user, since_us - OVERLAP_US, CHANGES)
        is_forgotten = since_us - OVERLAP_US < now_us - self._config.changes_days * DAY_US
        is_limited = is_forgotten or max(len(changed), len(left)) == CHANGES
        return DeviceLists(
            [self._names.of(each) for each in changed],
            [self._names.of(each) for each in left],
            True if is_limited else UNSET,
        )
