"""Pushes: who is woken, when, and when not; over a real push service, which the test opens."""

from __future__ import annotations

import pytest
import trio

from kit.databases import on_sqlite
from kit.pushservice import Says
from kit.wait import until
from secureconnect.chat import Chat
from secureconnect.chat.notifications import push_store
from secureconnect.chat.notifications.preferences import Preferences, QuietHours
from secureconnect.chat.store import FOREVER_US, LAST_ID
from secureconnect.clock import SECOND_US, now_us
from secureconnect.deps.contracts import Tx, WebPushTarget
from secureconnect.errors import Invalid, InvalidToken
from secureconnect.identity import NotificationId, UserId

from .pushing import Site, look, pushes_of
from .rig import dialled, say


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
    muted = await say(room, ann, direct, "three")
    await room.notifier.pass_once()
    await room.mutes.set(bob, muted.message.conversation_id, FOREVER_US)
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
async def test_a_turn_that_is_waited_for_is_no_try(
    nursery: trio.Nursery, site: Site, people: list[UserId]
) -> None:
    ann, eve, *_ = people
    room = await site.room()
    for number in range(3):
        site.service.said[f"/{number}"] = Says(freeze=True)
        await site.browser(room, site.device(eve), f"/{number}")
    await say(room, ann, await direct_of(room, ann, eve), "hello")
    await room.notifier.pass_once()
    nursery.start_soon(pushes_of(room).pass_once)
    await until(lambda: len(site.service.received) == 2)

    async def put_off(tx: Tx) -> list[int]:
        return [row[0] for row in await tx.all("SELECT attempts FROM pushes WHERE claim IS NULL")]

    async def is_put_off() -> bool:
        return len(await site.db.read(put_off)) == 1

    await until(is_put_off)
    assert await site.db.read(put_off) == [0]


@on_sqlite
async def test_a_service_that_hangs_holds_up_no_other(site: Site, people: list[UserId]) -> None:
    """By the room's own passes."""
    ann, bob, cid, dee = people
    room = await site.room(poll_s=0.05, senders=4, senders_each=2, call_s=60.0)
    frozen = site.service.origin.replace("127.0.0.1", "localhost")
    for owner in (cid, dee):
        for number in range(2):
            path = f"/{owner}/{number}"
            site.service.said[path] = Says(freeze=True)
            await site.browser(room, site.device(owner), path, frozen)
        await say(room, ann, await direct_of(room, ann, owner), "hello")
    await room.notifier.pass_once()
    await until(lambda: len(site.service.received) == 2)
    await site.browser(room, site.device(bob), "/bob")
    await say(room, ann, await direct_of(room, ann, bob), "hello")
    await room.notifier.pass_once()
    await site.service.wait_for("/bob")
    assert len(site.service.received) == 3, "two at a time"


async def test_several_are_sent_side_by_side(nursery: trio.Nursery, site: Site, people: list[UserId]) -> None:
    ann, *others = people
    room = await site.room()
    for each in others:
        site.service.said[f"/{each}"] = Says(freeze=True)
        await site.browser(room, site.device(each), f"/{each}")
        await say(room, ann, await direct_of(room, ann, each), "hello")
    await room.notifier.pass_once()
    nursery.start_soon(pushes_of(room).pass_once)
    await until(lambda: len(site.service.received) == len(others))


@on_sqlite
async def test_services_that_never_answered_leave_room_for_one_that_did(
    site: Site, people: list[UserId]
) -> None:
    ann, bob, cid, dee = people
    room = await site.room(poll_s=0.05, senders=4, call_s=60.0)
    await site.browser(room, site.device(bob), "/bob")
    await say(room, ann, await direct_of(room, ann, bob), "hello")
    await room.notifier.pass_once()
    await site.service.wait_for("/bob")
    frozen = site.service.origin.replace("127.0.0.1", "localhost")
    for owner in (cid, dee):
        for number in range(2):
            path = f"/{owner}/{number}"
            site.service.said[path] = Says(freeze=True)
            await site.browser(room, site.device(owner), path, frozen)
        await say(room, ann, await direct_of(room, ann, owner), "hello")
    await room.notifier.pass_once()
    await until(lambda: len(site.service.received) >= 4)
    await say(room, ann, await direct_of(room, ann, bob), "still there?")
    await room.notifier.pass_once()
    await site.service.wait_for("/bob", 2)


@on_sqlite
async def test_services_that_are_dead_take_no_room(site: Site, people: list[UserId]) -> None:
    """More of them than there are senders, each with pushes that wait."""
    ann, bob, cid, _ = people
    room = await site.room(senders=1, first_pause_s=60.0, retry_s=0.05, longest_retry_s=0.05)
    for number in range(3):
        await site.browser(room, site.device(cid), "/", f"https://127.0.0.1:{number + 1}")
    await say(room, ann, await direct_of(room, ann, cid), "hello")
    for _ in range(3):
        await look(room)
        await site.make_due()
    await site.browser(room, site.device(bob), "/bob")
    await say(room, ann, await direct_of(room, ann, bob), "hello")
    await until(lambda: has_come(site, room, 1))


async def test_devices_that_register_the_same_at_once(site: Site, people: list[UserId]) -> None:
    room = await site.room()
    async with trio.open_nursery() as all_at_once:
        for user in people[:2]:
            all_at_once.start_soon(site.browser, room, site.device(user))
    assert sum([len(await site.registered(user)) for user in people]) == 1


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
    room = await site.room(retry_s=600, first_pause_s=0.05)
    await site.browser(room, site.device(bob))
    site.service.said["/a"] = Says(503)
    direct = await direct_of(room, ann, bob)
    await say(room, ann, direct, "one")
    await look(room)
    assert (len(site.service.received), await site.waiting()) == (1, 1)
    site.service.said["/a"] = Says(429, {"retry-after": "2000"})

    async def is_tried_again() -> bool:
        await site.make_due()
        return await has_come(site, room, 2)

    await until(is_tried_again)
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
    late = site.device(ann)
    site.signed_in[ann].discard(late.device_id)
    with pytest.raises(InvalidToken):
        await site.browser(room, late)
    assert await site.registered(ann) == []
    with pytest.raises(Invalid):
        await pushes_of(room).register(bobs, WebPushTarget("https://example.org/", b"", b""))
    records = [each async for each in room.export_of(bob)]
    assert [each["service"] for each in records if each["kind"] == "push_device"] == ["webpush"] * 2
    await room.forget(bob)
    assert await site.registered(bob) == []
