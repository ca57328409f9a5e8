"""Whose keys a person may have: of friends, and of people in a conversation; and who learns of changes."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio

from kit.wait import until
from secureconnect.auth import note_departures
from secureconnect.clock import DAY_US
from secureconnect.deps.contracts import Tx
from secureconnect.identity import ConversationId, DeviceId, UserId, new_id

from .harness import PASSWORD, Node, Person, refused
from .test_devicekeys import bring_together, claim, device_of, send

Json = dict[str, Any]


async def befriend(node: Node, one: Person, other: Person) -> None:
    for caller, friend in ((one, other), (other, one)):
        await node.ask("POST /v1/users/{user_id}/friend", as_=caller, path={"user_id": friend.user_id})


async def make_group(node: Node, room: str, kind: str = "group") -> None:
    """The conversation of members that are there; the table is another room's."""
    columns = "conversation_id, created_by, type, created_at, updated_at, touched_at"
    zeros = "last_seq, last_change, first_seq, min_change, message_retention_days"
    flags = "is_e2ee_enabled, recording_enabled, history_visible"

    async def unit(tx: Tx) -> None:
        await tx.run(
            f"INSERT INTO conversations ({columns}, {zeros}, {flags})"
            " VALUES ($1, $1, $2, $3, $3, $3, 0, 0, 0, 0, 0, true, false, true)",
            room,
            kind,
            node.db.now_us(),
        )

    await node.db.write(unit)


async def has(node: Node, person: Person, other: Person) -> bool:
    """Whether `person` is given the keys of `other`, and may send: all ways agree."""
    device = device_of(other)
    found = await node.ask("POST /v1/e2ee/keys/query", {"device_keys": {device.name: []}}, as_=person)
    sent = await send(node, person, {device.name: {"*": {}}}, new_id())
    said = {
        bool(found["device_keys"]),
        await claim(node, person, device) is not None,
        not sent["undelivered"],
    }
    path = {"user_id": other.user_id}
    if said == {True}:
        await node.ask("GET /v1/keys/{user_id}", as_=person, path=path)
    else:
        with refused("NOT_FOUND"):
            await node.ask("GET /v1/keys/{user_id}", as_=person, path=path)
    (answer,) = said
    return answer


async def lists(node: Node, person: Person, since: str) -> tuple[set[str], set[str]]:
    told = await node.ask("GET /v1/e2ee/sync", as_=person, query={"since": since})
    return set(told["device_lists"]["changed"]), set(told["device_lists"]["left"])


@pytest.fixture
async def both(node: Node) -> tuple[Person, Person]:
    """Two strangers with keys, long since."""
    ann, bob = await node.register("ann"), await node.register("bob")
    for person in (ann, bob):
        await node.ask("POST /v1/e2ee/keys/upload", device_of(person).upload(5), as_=person)
    node.db.forward(60)
    return ann, bob


async def test_friends_have_each_others_keys(node: Node, both: tuple[Person, Person]) -> None:
    ann, bob = both
    since = (await node.ask("GET /v1/e2ee/sync", as_=ann))["next_since"]
    assert not await has(node, ann, bob)
    await node.ask("POST /v1/users/{user_id}/friend", as_=ann, path={"user_id": bob.user_id})
    assert not await has(node, ann, bob)
    assert not await has(node, bob, ann), "asking is not being"
    assert await lists(node, ann, since) == (set(), set())
    await node.ask("POST /v1/users/me/friends/{user_id}/accept", as_=bob, path={"user_id": ann.user_id})
    assert await has(node, ann, bob)
    assert await has(node, bob, ann)
    bobs = {device_of(bob).name}
    assert await lists(node, ann, since) == (bobs, set())
    node.db.forward(60)
    since = (await node.ask("GET /v1/e2ee/sync", as_=ann))["next_since"]
    assert await lists(node, ann, since) == (set(), set())
    await node.ask("POST /v1/auth/logout", as_=bob)
    assert await lists(node, ann, since) == (bobs, set())
    bob = await node.login("bob", device_id=bob.device_id, device_secret=bob.device_secret)
    await node.ask("POST /v1/e2ee/keys/upload", device_of(bob).upload(5), as_=bob)
    assert await has(node, ann, bob)
    await node.ask("DELETE /v1/users/me/friends/{user_id}", as_=bob, path={"user_id": ann.user_id})
    assert not await has(node, ann, bob)
    assert not await has(node, bob, ann)
    assert await lists(node, ann, since) == (set(), bobs)


async def test_a_friendship_that_ends_leaves_a_conversation(node: Node, both: tuple[Person, Person]) -> None:
    ann, bob = both
    await befriend(node, ann, bob)
    await bring_together(node.db, ann, bob, ago_us=DAY_US)
    node.db.forward(60)
    since = (await node.ask("GET /v1/e2ee/sync", as_=ann))["next_since"]
    await node.ask("DELETE /v1/users/me/friends/{user_id}", as_=ann, path={"user_id": bob.user_id})
    assert await has(node, ann, bob)
    assert await lists(node, ann, since) == ({device_of(bob).name}, set())


@pytest.mark.parametrize("kind", ["friends", "direct", "group"])
@pytest.mark.parametrize("is_ann", [True, False])
async def test_a_block_parts_all_but_the_members_of_a_group(
    node: Node, both: tuple[Person, Person], kind: str, is_ann: bool
) -> None:
    ann, bob = both
    if kind == "friends":
        await befriend(node, ann, bob)
    else:
        await make_group(node, await bring_together(node.db, ann, bob, ago_us=DAY_US), kind)
    assert await has(node, ann, bob)
    node.db.forward(60)
    since = {
        each.user_id: (await node.ask("GET /v1/e2ee/sync", as_=each))["next_since"] for each in (ann, bob)
    }
    blocker, blocked = (ann, bob) if is_ann else (bob, ann)
    path = {"user_id": blocked.user_id}
    await node.ask("POST /v1/users/{user_id}/block", as_=blocker, path=path)
    for one, other in ((ann, bob), (bob, ann)):
        name = {device_of(other).name}
        assert await has(node, one, other) is (kind == "group")
        told = (name, set()) if kind == "group" else (set(), name)
        if one is blocked:  # who is not told of it
            told = (set(), set())
        assert await lists(node, one, since[one.user_id]) == told
    await node.ask("DELETE /v1/users/{user_id}/block", as_=blocker, path=path)
    for one, other in ((ann, bob), (bob, ann)):
        name = {device_of(other).name}
        assert await has(node, one, other) is (kind != "friends"), "a friendship does not come back"
        assert await lists(node, one, since[one.user_id]) == (
            (set(), name) if kind == "friends" else (name, set())
        )


async def test_people_who_are_erased_are_nobody(node: Node, both: tuple[Person, Person]) -> None:
    ann, bob = both
    await befriend(node, ann, bob)
    await node.ask("DELETE /v1/users/me", {"password": PASSWORD}, as_=bob)
    node.db.ahead_us += 400 * DAY_US
    await node.room.deletion.pass_once()
    ann = await node.login("ann", device_id=ann.device_id, device_secret=ann.device_secret)
    assert not await has(node, ann, bob)
    names = [name for (name,) in await node.rows(_TABLES[await node.db.read(_dialect)])]
    assert "device_keys" in names
    left: Json = {}
    for name in names:
        rows = await node.rows(f"SELECT * FROM {name}")
        if any(bob.device_id in map(str, row) for row in rows):
            left[name] = rows
    assert set(left) <= {"audit", "key_changes", "revocations"}


_TABLES = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
    "postgres": "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'",
}


async def _dialect(tx: Tx) -> str:
    return tx.dialect


async def test_of_those_who_left_before_me_i_learn_and_of_nobody_elses_friends(
    node: Node, both: tuple[Person, Person]
) -> None:
    ann, bob = both
    eve = await node.register("eve")
    room = await bring_together(node.db, ann, bob, ago_us=DAY_US)
    since = (await node.ask("GET /v1/e2ee/sync", as_=ann))["next_since"]
    for person in (bob, ann):
        await node.db.write(_leave, room, node.db.now_us(), person)
    assert await lists(node, ann, since) == (set(), {device_of(bob).name})
    node.db.forward(60)
    since = (await node.ask("GET /v1/e2ee/sync", as_=ann))["next_since"]
    for person in (bob, ann):
        await befriend(node, eve, person)
    assert await lists(node, ann, since) == ({device_of(eve).name}, set()), "eve and bob are no news of ann's"


async def _leave(tx: Tx, room: str, now_us: int, *people: Person) -> None:
    for person in people:
        await tx.run("DELETE FROM members WHERE conversation_id = $1 AND user_id = $2", room, person.user_id)
    await note_departures(tx, ConversationId(room), [UserId(person.user_id) for person in people], now_us)


# at once, to those who are here


class Told:
    """What the sockets of these people are told."""

    def __init__(self, node: Node, *people: Person) -> None:
        self.events: list[tuple[str, Json]] = []
        here = {each.user_id for each in people}
        node.room.device_keys.connect(lambda user: user in here, self._take)

    def _take(self, user: UserId, device: DeviceId | None, event: bytes) -> None:
        self.events.append((user, json.loads(event)))

    async def hears(self, user: Person, **wanted: Any) -> None:
        async def has_heard() -> bool:
            return any(to == user.user_id and wanted.items() <= event.items() for to, event in self.events)

        await until(has_heard)


async def test_friends_hear_of_each_other_and_nobody_of_a_block(
    node: Node, both: tuple[Person, Person]
) -> None:
    ann, bob = both
    told = Told(node, ann, bob)
    await befriend(node, ann, bob)
    for one, other in ((ann, bob), (bob, ann)):
        await told.hears(one, type="e2ee", device_lists={"changed": [device_of(other).name], "left": []})
    told.events.clear()
    await node.ask("POST /v1/users/{user_id}/block", as_=bob, path={"user_id": ann.user_id})
    await told.hears(bob, type="e2ee", device_lists={"changed": [], "left": [device_of(ann).name]})
    await node.ask("POST /v1/auth/logout", as_=ann)  # of which she hears, after all that came before
    await told.hears(ann, type="key_changed", user_id=ann.user_id)
    names = [
        event["device_lists"] for to, event in told.events if to == ann.user_id and "device_lists" in event
    ]
    assert all(lists["left"] == [] for lists in names), "nobody is told of a block"


@pytest.mark.parametrize("how", ["logout", "logout-all", "password", "leave"])
async def test_however_a_session_ends_its_company_hears_of_it(
    node: Node, both: tuple[Person, Person], how: str
) -> None:
    ann, bob = both
    await befriend(node, ann, bob)
    told = Told(node, ann)
    other = await node.login("bob") if how == "password" else bob
    if how == "password":
        new = {"password": PASSWORD, "new_password": "another horse battery"}
        await node.ask("POST /v1/users/me/password", new, as_=other)
    elif how == "leave":
        await node.ask("DELETE /v1/users/me", {"password": PASSWORD}, as_=bob)
    else:
        await node.ask(f"POST /v1/auth/{how}", as_=bob)
    with trio.fail_after(5):
        await told.hears(ann, type="key_changed", user_id=bob.user_id, device_id=bob.device_id)
        await told.hears(ann, type="e2ee", device_lists={"changed": [device_of(bob).name], "left": []})


async def test_who_was_in_a_group_that_is_deleted_learns_whose_keys_are_no_longer_theirs(
    node: Node, both: tuple[Person, Person]
) -> None:
    ann, bob = both
    cid = await node.register("cid")
    await befriend(node, ann, cid)
    room = await bring_together(node.db, ann, bob, cid, ago_us=DAY_US)
    node.db.forward(60)
    since = (await node.ask("GET /v1/e2ee/sync", as_=ann))["next_since"]
    told, at_us = Told(node, ann, bob), node.db.now_us()
    await node.db.write(_leave, room, at_us, ann, bob, cid)
    node.room.tell_dissolved(ConversationId(room), at_us)
    names = [device_of(person).name for person in (ann, bob, cid)]
    await told.hears(ann, type="e2ee", device_lists={"changed": [], "left": [names[1]]})
    await told.hears(bob, type="e2ee", device_lists={"changed": [], "left": sorted([names[0], names[2]])})
    assert await lists(node, ann, since) == (set(), {names[1]}), "and cid is a friend"
