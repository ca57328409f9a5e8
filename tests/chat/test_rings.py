"""Rings: whose devices are woken for what is said in a group, and how often."""

from __future__ import annotations

import msgspec
import pytest
import trio

from kit.databases import on_sqlite
from kit.wait import until
from secureconnect.chat import Chat
from secureconnect.chat.notifications.preferences import Preferences
from secureconnect.chat.notifications.rings import Rings
from secureconnect.chat.notifications.store import Notification
from secureconnect.chat.store import FOREVER_US, LAST_ID
from secureconnect.errors import NotFound
from secureconnect.identity import ConversationId, NotificationId, UserId, new_id

from .pushing import Site, look, pushes_of
from .rig import block, dialled, make_group, say, store


def rings_of(room: Chat) -> Rings:
    assert room.rings is not None
    return room.rings


async def ring(room: Chat) -> None:
    """Look where something was said, and send what that makes."""
    await rings_of(room).pass_once()
    await look(room)


async def group_of(room: Chat, site: Site, owner: UserId, *members: UserId) -> ConversationId:
    """One that they are in, each with a device at `/` and their id."""
    group = await make_group(room, owner, *members)
    await room.notifier.pass_once()
    for member in members:
        await site.browser(room, site.device(member), f"/{member}")
    return group


def woken(site: Site) -> list[str]:
    """Since the last time this was asked."""
    paths = sorted(each.path[1:] for each in site.service.received)
    site.service.received.clear()
    return paths


async def test_who_wants_it_and_is_away_is_woken_once_for_what_is_said(
    site: Site, people: list[UserId]
) -> None:
    ann, bob, cid, dee = people
    room = await site.room(group_every_s=0)
    group = await group_of(room, site, ann, cid, dee)
    await room.conversations.add(ann, group, bob, "member")
    await room.notifier.pass_once()
    phone = await site.browser(room, site.device(bob), f"/{bob}")
    await room.notifications.set_notify(cid, group, "mentions")
    await room.mutes.set(dee, group, FOREVER_US)
    said = await say(room, ann, group, "a secret")
    await ring(room)
    [pushed] = site.service.received
    assert phone.open(pushed.body) == {
        "message_id": said.message.message_id,
        "kind": "message",
        "conversation_id": group,
    }
    assert pushed.headers["urgency"] == "high"
    assert woken(site) == [bob]
    assert [each.kind for each in await listed(room, bob)] == ["added"], "nothing is listed"
    await say(room, dee, group, "and more")
    await ring(room)
    await ring(room)
    assert (woken(site), await site.waiting()) == ([bob], 0)
    await room.notifications.choose(bob, Preferences(groups="mentions"))
    await room.notifications.set_notify(cid, group, "all")
    await say(room, ann, group, "yet more")
    await ring(room)
    assert woken(site) == [cid]


async def test_what_is_read_gone_or_left_by_then_wakes_nobody(site: Site, people: list[UserId]) -> None:
    ann, bob, cid, dee = people
    room = await site.room(group_every_s=0)
    group = await group_of(room, site, ann, bob, cid, dee)
    await block(site.db, dee, ann)
    said = (await say(room, ann, group, "hello")).message
    await rings_of(room).pass_once()
    assert await site.waiting() == 2
    await room.conversations.mark_read(bob, group, said.seq)
    await room.conversations.remove(cid, group, cid)
    await look(room)
    assert (woken(site), await site.waiting()) == ([], 0)
    said = (await say(room, ann, group, "wrong group")).message
    await rings_of(room).pass_once()
    await room.messages.delete(ann, said.message_id)
    await look(room)
    assert (woken(site), await site.waiting()) == ([], 0)


@on_sqlite
async def test_what_calls_somebody_by_name_wakes_them_once(site: Site, people: list[UserId]) -> None:
    ann, bob, cid, _ = people
    room = await site.room()
    group = await group_of(room, site, ann, bob, cid)
    await room.notifications.set_notify(cid, group, "none")
    metadata = msgspec.Raw(msgspec.json.encode({"mentions": [bob, cid]}))
    await store(room, room.messages.draft(ann, group, "look", metadata=metadata))
    await look(room)
    await ring(room)
    assert woken(site) == [bob]
    assert [each.kind for each in (await listed(room, cid))] == ["added"]


@on_sqlite
async def test_a_direct_message_wakes_them_once(site: Site, people: list[UserId]) -> None:
    ann, bob, *_ = people
    room = await site.room()
    await site.browser(room, site.device(bob), f"/{bob}")
    direct, _ = await room.conversations.create(ann, "direct", None, [bob], False)
    await say(room, ann, direct, "hello")
    await look(room)
    await ring(room)
    assert woken(site) == [bob]


async def listed(room: Chat, user: UserId) -> list[Notification]:
    page = await room.notifications.page(user, NotificationId(LAST_ID), 10, only_unread=False)
    return page.notifications


async def test_a_node_that_dies_and_a_screen_that_is_put_away(
    nursery: trio.Nursery, site: Site, people: list[UserId]
) -> None:
    ann, bob, cid, _ = people
    here = await site.room(group_every_s=0)
    group = await group_of(here, site, ann, bob, cid)
    screen = await dialled(nursery, here, cid)
    await until(lambda: here.hub.is_connected(cid))
    await say(here, ann, group, "hello")
    there = await site.room()
    async with trio.open_nursery() as both:
        both.start_soon(rings_of(there).pass_once)
        both.start_soon(rings_of(here).pass_once)
    await look(here)
    assert bob in woken(site)
    assert (await site.waiting()) <= 1, "the other is looking, as far as the one node knows"
    screen.tell_raw(b"leave")
    await until(lambda: not here.hub.is_connected(cid))
    await rings_of(here).sweep_once()
    await ring(here)
    await site.make_due()
    await ring(here)
    assert (woken(site), await site.waiting()) == ([cid], 0)


@on_sqlite
async def test_a_group_that_talks_all_day_wakes_people_from_time_to_time(
    site: Site, people: list[UserId]
) -> None:
    ann, bob, *_ = people
    room = await site.room(group_every_s=3_600)
    group, other = [await group_of(room, site, ann, bob) for _ in range(2)]
    for _ in range(3):
        await say(room, ann, group, "hello")
        await ring(room)
    assert woken(site) == [bob]
    await say(room, ann, other, "hello")
    await ring(room)
    assert woken(site) == [bob]


@on_sqlite
async def test_one_is_asked_and_exported_and_strangers_have_none(site: Site, people: list[UserId]) -> None:
    ann, bob, *_ = people
    room = await site.room()
    group = await make_group(room, ann)
    assert (await room.notifications.notify(ann, group)).notify is None
    await room.notifications.set_notify(ann, group, "none")
    assert (await room.notifications.notify(ann, group)).notify == "none"
    exported = [each async for each in room.export_of(ann)]
    assert {"kind": "conversation_notifications", "conversation_id": group, "notify": "none"} in exported
    for nowhere in (group, ConversationId(new_id())):
        with pytest.raises(NotFound):
            await room.notifications.notify(bob, nowhere)
        with pytest.raises(NotFound):
            await room.notifications.set_notify(bob, nowhere, "all")
    await pushes_of(room).pass_once()
