"""Pushes: who is woken, when, and when not; over a real push service, which the test opens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import trio

from kit.databases import on_sqlite
from kit.pushservice import Browser, PushService, Says, push_service
from kit.wait import until
from secureconnect.chat import Chat, PushParts
from secureconnect.chat.notifications import push_store
from secureconnect.chat.notifications.preferences import Preferences, QuietHours
from secureconnect.chat.notifications.pushes import Pushes
from secureconnect.chat.store import FOREVER_US, LAST_ID
from secureconnect.clock import HOUR_US, SECOND_US, now_us
from secureconnect.config import BreakerConfig, ChatConfig, PushConfig
from secureconnect.deps.contracts import Database, Tx, WebPushTarget
from secureconnect.deps.guard import Guard
from secureconnect.deps.memory import MemoryBus
from secureconnect.deps.push import PushServices
from secureconnect.errors import Invalid
from secureconnect.identity import DeviceId, NotificationId, Principal, SessionId, UserId, new_id
from secureconnect.node import Secrets

from .rig import dialled, running, say

SECRETS = Secrets(bytes(32))
WAITS = ChatConfig(notify_pass_s=3_600)


@dataclass
class Site:
    """What rooms that push have in common.  signed_in: the devices with a session."""

    db: Database
    bus: MemoryBus
    service: PushService
    nursery: trio.Nursery
    signed_in: dict[UserId, set[DeviceId]] = field(default_factory=dict)

    async def room(self, **settings: Any) -> Chat:
        """Its passes are the test's."""
        private = PushConfig(allow_private=True, ca_file=str(self.service.ca_file), delay_s=0, poll_s=60)
        config = replace(private, **settings)
        pusher = PushServices(config, "mailto:root@example.org", Guard("push", BreakerConfig()))
        parts = PushParts(config, pusher, SECRETS, self._signed_in)

        async def serve(task_status: trio.TaskStatus[Chat]) -> None:
            try:
                async with running(self.db, self.bus, WAITS, push=parts) as room:
                    task_status.started(room)
                    await trio.sleep_forever()
            finally:
                await pusher.close()

        room: Chat = await self.nursery.start(lambda task_status: serve(task_status))
        return room

    async def _signed_in(self, _: Tx, user: UserId, __: int) -> frozenset[DeviceId]:
        return frozenset(self.signed_in.get(user, ()))

    def device(self, user: UserId) -> Principal:
        """One more that they have signed in from."""
        device = DeviceId(new_id())
        self.signed_in.setdefault(user, set()).add(device)
        return Principal(user, SessionId(new_id()), device, "user", now_us() + HOUR_US)

    async def browser(self, room: Chat, owner: Principal, path: str = "/a") -> Browser:
        """One that is registered for a device."""
        browser = Browser(f"{self.service.origin}{path}")
        await pushes_of(room).register(owner, WebPushTarget(browser.endpoint, *browser.keys))
        return browser

    async def registered(self, user: UserId) -> list[DeviceId]:
        return [each.device_id for each in await self.db.read(push_store.registrations, user)]

    async def make_due(self) -> None:
        """What was put off, now."""

        async def hurry(tx: Tx) -> None:
            await tx.run("UPDATE pushes SET due_at = $1", self.db.now_us())

        await self.db.write(hurry)

    async def waiting(self) -> int:
        async def count(tx: Tx) -> int:
            row = await tx.one("SELECT COUNT(*) FROM pushes")
            return int(row[0]) if row else 0

        return await self.db.read(count)


def pushes_of(room: Chat) -> Pushes:
    assert room.pushes is not None
    return room.pushes


async def look(room: Chat) -> None:
    """Make what is to be told, and send what is due."""
    await room.notifier.pass_once()
    await pushes_of(room).pass_once()


@pytest.fixture
async def site(nursery: trio.Nursery, db: Database, bus: MemoryBus, tmp_path: Path) -> AsyncIterator[Site]:
    async with push_service(tmp_path) as service:
        yield Site(db, bus, service, nursery)


async def direct_of(room: Chat, one: UserId, other: UserId) -> str:
    conversation, _ = await room.conversations.create(one, "direct", None, [other], False)
    return conversation


async def test_who_is_away_is_woken_by_ids_alone(site: Site, people: list[UserId]) -> None:
    ann, bob, *_ = people
    room = await site.room()
    browser = await site.browser(room, site.device(bob))
    direct = await direct_of(room, ann, bob)
    await say(room, ann, direct, "a secret")
    await look(room)
    [pushed] = site.service.at("/a")
    [told] = (await room.notifications.page(bob, NotificationId(LAST_ID), 10, only_unread=True)).notifications
    assert browser.open(pushed.body) == {
        "notification_id": told.notification_id,
        "kind": "message",
        "conversation_id": direct,
    }
    assert direct not in pushed.headers["topic"]
    await look(room)
    assert (len(site.service.received), await site.waiting()) == (1, 0)


async def test_what_is_read_by_then_wakes_nobody(site: Site, people: list[UserId]) -> None:
    ann, bob, *_ = people
    room = await site.room()
    await site.browser(room, site.device(bob))
    direct = await direct_of(room, ann, bob)
    sent = await say(room, ann, direct, "one")
    await room.notifier.pass_once()
    assert await site.waiting() == 1
    await room.conversations.mark_read(bob, sent.message.conversation_id, 1)
    await look(room)
    gone = await say(room, ann, direct, "two")
    await room.notifier.pass_once()
    await room.messages.delete(ann, gone.message.message_id)
    await look(room)
    assert (site.service.received, await site.waiting()) == ([], 0)


@on_sqlite
async def test_nor_who_is_connected_unless_that_was_an_illusion(
    nursery: trio.Nursery, site: Site, people: list[UserId]
) -> None:
    ann, bob, *_ = people
    room = await site.room()
    await site.browser(room, site.device(bob))
    direct = await direct_of(room, ann, bob)
    screen = await dialled(nursery, room, bob)
    for text in ("one", "two"):
        await say(room, ann, direct, text)
        await look(room)
        assert (site.service.received, await site.waiting()) == ([], 1), "put off"
        if text == "two":
            screen.tell_raw(b"leave")
            await screen.wait_closed()
            await until(lambda: not room.hub.is_connected(bob))
        await site.make_due()
        await look(room)
        assert await site.waiting() == 0
    assert len(site.service.received) == 1


async def looked(room: Chat, site: Site, waiting: int) -> bool:
    await look(room)
    return await site.waiting() == waiting


@on_sqlite
async def test_who_is_on_another_node_is_there_and_who_has_just_left_is_not(
    nursery: trio.Nursery, site: Site, people: list[UserId]
) -> None:
    ann, bob, cid, _ = people
    here, there = await site.room(), await site.room()
    await site.browser(here, site.device(bob), "/bob")
    await site.browser(here, site.device(cid), "/cid")
    await dialled(nursery, there, bob)
    left = await dialled(nursery, here, cid)
    await until(lambda: here.presence.status_of(bob) == here.presence.status_of(cid) == "online")
    left.tell_raw(b"leave")
    await until(lambda: not here.hub.is_connected(cid))
    assert here.presence.status_of(cid) == "online", "for a grace"
    for other in (bob, cid):
        await say(here, ann, await direct_of(here, ann, other), "hello")
    await look(here)
    assert [each.path for each in site.service.received] == ["/cid"]
    assert await site.waiting() == 1


@on_sqlite
async def test_slow_devices_of_one_person_hold_up_nobody_else(
    nursery: trio.Nursery, site: Site, people: list[UserId]
) -> None:
    ann, eve, bob, _ = people
    room = await site.room(senders=4)
    for number in range(5):
        site.service.said[f"/{number}"] = Says(freeze=True)
        await site.browser(room, site.device(eve), f"/{number}")
    await say(room, ann, await direct_of(room, ann, eve), "hello")
    await room.notifier.pass_once()
    nursery.start_soon(pushes_of(room).pass_once)
    await until(lambda: len(site.service.received) == 2)
    await site.browser(room, site.device(bob), "/bob")
    await say(room, ann, await direct_of(room, ann, bob), "hello")
    await look(room)
    assert len(site.service.at("/bob")) == 1


@on_sqlite
async def test_quiet_hours_and_mutes(site: Site, people: list[UserId]) -> None:
    ann, bob, *_ = people
    room = await site.room()
    await site.browser(room, site.device(bob))
    direct = await direct_of(room, ann, bob)
    day = QuietHours("00:00", "23:59", "UTC"), QuietHours("12:00", "11:59", "UTC")
    for hours in day:  # one of them is now, but for a minute a day
        await room.notifications.choose(bob, Preferences(quiet_hours=hours))
        if not hours.cover(now_us()):
            continue
        await say(room, ann, direct, "sleep well")
        await look(room)
    await room.notifications.choose(bob, Preferences())
    await room.mutes.set(bob, (await say(room, ann, direct, "!")).message.conversation_id, FOREVER_US)
    await look(room)
    assert (site.service.received, await site.waiting()) == ([], 0)


async def test_a_device_that_is_gone_is_forgotten(site: Site, people: list[UserId]) -> None:
    ann, bob, *_ = people
    room = await site.room()
    dead, signed_out, fine = (site.device(bob) for _ in range(3))
    for owner, path in ((dead, "/dead"), (signed_out, "/out"), (fine, "/fine")):
        await site.browser(room, owner, path)
    site.service.said["/dead"] = Says(410)
    site.signed_in[bob].discard(signed_out.device_id)
    await say(room, ann, await direct_of(room, ann, bob), "hello")
    await until(lambda: looked(room, site, 0))
    assert await site.registered(bob) == [fine.device_id]
    assert [each.path for each in site.service.received if each.path != "/dead"] == ["/fine"]
    await pushes_of(room).unregister(fine)
    assert await site.registered(bob) == []


@on_sqlite
async def test_it_is_tried_again_when_the_service_asks_for_that(site: Site, people: list[UserId]) -> None:
    ann, bob, *_ = people
    room = await site.room(retry_s=0.05, first_pause_s=0.05)
    await site.browser(room, site.device(bob))
    site.service.said["/a"] = Says(503)
    direct = await direct_of(room, ann, bob)
    await say(room, ann, direct, "one")
    await look(room)
    assert (len(site.service.received), await site.waiting()) == (1, 1)
    site.service.said["/a"] = Says(429, {"retry-after": "2000"})
    await until(lambda: has_come(site, room, 2))
    await say(room, ann, direct, "two")
    await look(room)
    due_us, _ = await site.db.read(push_store.next_due)
    assert due_us is not None
    assert due_us > site.db.now_us() + 1_000 * SECOND_US, "not for a newer one either"
    assert (len(site.service.received), await site.waiting()) == (2, 1)


async def has_come(site: Site, room: Chat, count: int) -> bool:
    await look(room)
    return len(site.service.received) == count


async def test_what_waits_gives_way_to_the_next_of_its_conversation(site: Site, people: list[UserId]) -> None:
    ann, bob, cid, _ = people
    room = await site.room(delay_s=0.1)
    browser = await site.browser(room, site.device(bob))
    first, second = await direct_of(room, ann, bob), await direct_of(room, cid, bob)
    for text in ("one", "two"):
        await say(room, ann, first, text)
        await room.notifier.pass_once()
    await say(room, cid, second, "three")
    await room.notifier.pass_once()
    assert await site.waiting() == 2
    await until(lambda: looked(room, site, 0))
    told = sorted(browser.open(each.body)["conversation_id"] for each in site.service.received)
    assert told == [first, second], "in any order: they are sent side by side"
    assert len({each.headers["topic"] for each in site.service.received}) == 2


async def test_past_its_time_it_is_dropped(site: Site, people: list[UserId]) -> None:
    ann, bob, *_ = people
    room = await site.room(ttl_s=0)
    await site.browser(room, site.device(bob))
    await say(room, ann, await direct_of(room, ann, bob), "too late")
    await look(room)
    assert (site.service.received, await site.waiting()) == ([], 0)


async def test_two_nodes_send_each_once(site: Site, people: list[UserId]) -> None:
    ann, bob, cid, dee = people
    here, there = await site.room(), await site.room()
    for each in (bob, cid, dee):
        await site.browser(here, site.device(each), f"/{each}")
        await say(here, ann, await direct_of(here, ann, each), "hello")
    await here.notifier.pass_once()
    async with trio.open_nursery() as both:
        both.start_soon(pushes_of(here).pass_once)
        both.start_soon(pushes_of(there).pass_once)
    assert sorted(each.path for each in site.service.received) == sorted(
        f"/{each}" for each in (bob, cid, dee)
    )
    assert await site.waiting() == 0


async def test_a_phone_that_changes_hands_and_one_too_many(site: Site, people: list[UserId]) -> None:
    ann, bob, *_ = people
    room = await site.room(devices=2)
    anns, bobs = site.device(ann), site.device(bob)
    await site.browser(room, anns)
    await site.browser(room, bobs)
    assert (await site.registered(ann), await site.registered(bob)) == ([], [bobs.device_id])
    more = [site.device(bob) for _ in range(2)]
    for number, each in enumerate(more):
        await site.browser(room, each, f"/{number}")
    assert await site.registered(bob) == sorted(each.device_id for each in more)
    with pytest.raises(Invalid):
        await pushes_of(room).register(bobs, WebPushTarget("https://example.org/", b"", b""))
    records = [each async for each in room.export_of(bob)]
    assert [each["service"] for each in records if each["kind"] == "push_device"] == ["webpush"] * 2
    await room.forget(bob)
    assert await site.registered(bob) == []
