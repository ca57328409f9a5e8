"""Devices are woken when somebody calls, and told when it rings no more; over a real push service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from chat.pushing import Site, pushes_of
from kit.databases import on_sqlite
from kit.pushservice import Browser, push_service
from kit.wait import until
from secureconnect.chat import Chat
from secureconnect.chat.notifications.preferences import Preferences, QuietHours
from secureconnect.chat.store import FOREVER_US, LAST_ID
from secureconnect.clock import SECOND_US, now_us
from secureconnect.deps.contracts import Database, Tx
from secureconnect.deps.memory import MemoryBus
from secureconnect.identity import ConversationId, NotificationId, Principal

from .rig import Node

QUIET = (QuietHours("00:00", "23:59", "UTC"), QuietHours("12:00", "11:59", "UTC"))  # one of them is now


class Phones:
    """Bob's, by path, and what each was told."""

    def __init__(self, site: Site, room: Chat) -> None:
        self._site = site
        self._room = room
        self._browsers: dict[str, Browser] = {}

    async def add(self, owner: Principal, path: str) -> Principal:
        device = self._site.device(owner.user_id)
        self._browsers[path] = await self._site.browser(self._room, device, path)
        return device

    async def told(self, path: str) -> list[dict[str, Any]]:
        """After another look at what is due."""
        await pushes_of(self._room).pass_once()
        return [self._browsers[path].open(each.body) for each in self._site.service.at(path)]


@pytest.fixture
async def site(db: Database, bus: MemoryBus, nursery: trio.Nursery, tmp_path: Path) -> AsyncIterator[Site]:
    async with push_service(tmp_path) as service:
        yield Site(db, bus, service, nursery)


@pytest.fixture
async def room(site: Site, node: Node) -> Chat:
    """Wakes devices for the calls of the node."""
    room = await site.room()
    node.room.calls.bells = lambda: room.bells
    return room


@pytest.fixture
async def phones(site: Site, room: Chat) -> Phones:
    return Phones(site, room)


async def test_all_devices_ring_and_stop_where_it_is_not_answered(
    node: Node, phones: Phones, pair: ConversationId, people: list[Principal]
) -> None:
    ann, bob, *_ = people
    answering = await phones.add(bob, "/a")
    await phones.add(bob, "/b")
    call = await node.call(ann, pair)
    rings = {"call_id": call.call_id, "kind": "call_incoming", "conversation_id": pair}
    assert await phones.told("/a") == await phones.told("/b") == [rings]
    await node.room.calls.join(answering, call.call_id)
    assert await phones.told("/b") == [rings, {"call_id": call.call_id, "kind": "call_cancelled"}]
    assert await phones.told("/a") == [rings]


async def test_who_missed_a_call_is_notified_and_it_rings_no_more(
    site: Site, node: Node, room: Chat, phones: Phones, pair: ConversationId, people: list[Principal]
) -> None:
    ann, bob, *_ = people
    await phones.add(bob, "/a")
    call = await node.call(ann, pair)
    await phones.told("/a")
    await node.room.calls.leave(ann.user_id, call.call_id)
    _, told = await phones.told("/a")
    [listed] = (await room.notifications.page(bob.user_id, NotificationId(LAST_ID), 9, only_unread=True))[0]
    assert (listed.kind, listed.ref, listed.actor_id) == ("missed_call", call.call_id, ann.user_id)
    assert told == {
        "call_id": call.call_id,
        "notification_id": listed.notification_id,
        "kind": "missed_call",
        "conversation_id": pair,
    }
    [first, second] = site.service.at("/a")
    assert first.headers["topic"] == second.headers["topic"]  # it takes the place of the ringing
    assert (first.headers["urgency"], int(first.headers["ttl"]) <= 60) == ("high", True)


async def test_nothing_rings_for_a_call_that_is_over(
    db: Database, site: Site, node: Node, phones: Phones, pair: ConversationId, people: list[Principal]
) -> None:
    ann, bob, *_ = people
    await phones.add(bob, "/a")
    call = await node.call(ann, pair)
    await node.room.calls.decline(bob.user_id, call.call_id)
    assert await phones.told("/a") == []  # it was not woken yet, and need not be
    assert await site.waiting() == 0
    call = await node.call(ann, pair)

    async def answer_unheard(tx: Tx) -> None:
        await tx.run("UPDATE calls SET ring_until = NULL WHERE call_id = $1", call.call_id)

    await db.write(answer_unheard)
    assert await phones.told("/a") == []


@on_sqlite
async def test_who_wants_no_calls_is_not_woken(
    node: Node, room: Chat, phones: Phones, pair: ConversationId, people: list[Principal]
) -> None:
    ann, bob, *_ = people
    await phones.add(bob, "/a")

    async def wakes() -> bool:
        known = len(await phones.told("/a"))
        call = await node.call(ann, pair)
        woken = len(await phones.told("/a")) > known
        await node.room.calls.leave(ann.user_id, call.call_id)
        return woken

    async def choose(preferences: Preferences) -> None:
        await room.notifications.choose(bob.user_id, preferences)

    quiet = next(each for each in QUIET if each.cover(now_us()) and each.cover(now_us() + 30 * SECOND_US))
    assert await wakes()
    await choose(Preferences(calls="never"))
    assert not await wakes()
    await choose(Preferences(quiet_hours=quiet))
    assert not await wakes()
    await choose(Preferences(quiet_hours=quiet, calls="always"))
    assert await wakes()
    last = (await phones.told("/a"))[-1]
    assert last["kind"] == "call_cancelled"  # that it was missed is listed, for it is quiet
    await room.mutes.set(bob.user_id, pair, FOREVER_US)
    assert not await wakes()
    listed = (await room.notifications.page(bob.user_id, NotificationId(LAST_ID), 9, only_unread=True))[0]
    assert len(listed) == 4  # not of what is muted


async def test_who_is_busy_has_missed_it(
    node: Node, room: Chat, pair: ConversationId, group: ConversationId, people: list[Principal]
) -> None:
    ann, bob, cid, *_ = people
    await node.call(bob, group, cid)
    call = await node.call(ann, pair)
    [listed] = (await room.notifications.page(bob.user_id, NotificationId(LAST_ID), 9, only_unread=True))[0]
    assert (listed.kind, listed.ref) == ("missed_call", call.call_id)
    await until(lambda: node.heard(bob) == ["call_missed"])
