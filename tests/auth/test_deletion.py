"""The end of an account: asked for, taken back, carried out."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import trio

from kit.olm import SIGNED, OlmDevice
from secureconnect.auth.deletion import deletion
from secureconnect.auth.deletion.store import _ERASE, DELETED
from secureconnect.auth.devicekeys.inbox_store import open_inbox
from secureconnect.deps import migrate
from secureconnect.deps.contracts import P, T, Unit
from secureconnect.errors import Unavailable
from secureconnect.identity import DeviceId, UserId

from .harness import CHEAP, PASSWORD, Clocked, Node, Person, Site, refused

DAY_S = 86_400
# Tables with people in them from which the account is not simply deleted, and what is done instead.
ELSEWHERE = {
    "users": "the row is emptied, and stays",
    "members": "chat has them leave their groups",
    "reactions": "they stay with what was said, as those of somebody unknown",
    "last_seen": "chat deletes it",
    "poll_votes": "they count, as those of somebody unknown",
    "notifications": "chat forgets them",
    "notification_preferences": "chat forgets them",
    "pushes": "chat forgets them",
    "push_devices": "chat forgets them",
    "call_people": "that somebody was in calls stays with these, as of somebody unknown",
    "recording_consents": "what somebody agreed to stays with the recording, as of somebody unknown",
    "call_peers": "signaling has them leave their call",
    "deleted_members": "they go with the conversation that is being deleted",
    "mentions": "chat forgets that somebody was mentioned",
    "files": "storage deletes them, and the sweeper what they hold",
    "quotas": "storage takes it away with the files",
    "mail_tokens": "recovery forgets what was mailed",
    "outbox": "its owner forgets what is to be mailed",
    "registrations": "nobody's yet, and gone with the time of their token",
    "idempotency": "its owner forgets what the person has made",
    "reports": "what they wrote or are quoted with is emptied; that something was reported stays",
    "key_changes": "others learn of it that the keys are gone; pruned after keys.changes_days",
    "key_departures": "others learn of it who has gone; pruned after keys.changes_days",
}
PERSON = re.compile(r"^    (user_id|owner_id) uuid\b", re.MULTILINE)
TABLE = re.compile(r"^CREATE TABLE (\w+) \((.*?)^\);", re.MULTILINE | re.DOTALL)


def tables_of_people() -> set[str]:
    texts = [path.read_text("utf-8") for path in migrate.folder().glob("*.sql")]
    return {name for text in texts for name, columns in TABLE.findall(text) if PERSON.search(columns)}


def test_no_table_is_forgotten() -> None:
    """A table of people that somebody adds is to be erased from, too."""
    erased = {statement.split()[2] for statement in _ERASE}
    assert {"sessions", "friends", "files"} <= tables_of_people()
    assert tables_of_people() <= erased | set(ELSEWHERE)


async def leave(node: Node, who: Person, password: str = PASSWORD) -> str:
    data = await node.ask("DELETE /v1/users/me", {"password": password}, as_=who)
    return str(data["delete_at"])


async def profile(node: Node, who: Person, of: Person) -> dict[str, Any]:
    seen = await node.ask("GET /v1/users/{user_id}", as_=who, path={"user_id": of.user_id})
    assert isinstance(seen, dict)
    return seen


async def actions(node: Node, like: str = "auth:user:%") -> list[str]:
    rows = await node.rows(f"SELECT action FROM audit WHERE action LIKE '{like}' ORDER BY audit_id")
    return [row[0] for row in rows]


async def acquaint(node: Node, ann: Person, *others: Person) -> None:
    """Ann has asked the first, and blocked and reported the second."""
    friend, foe = others
    await node.ask("POST /v1/users/{user_id}/friend", as_=ann, path={"user_id": friend.user_id})
    await node.ask("POST /v1/users/{user_id}/block", as_=ann, path={"user_id": foe.user_id})
    body = {"user_id": foe.user_id, "reason": "spam", "comment": f"says {ann.username}"}
    await node.ask("POST /v1/reports", body, as_=ann, status=201)


async def publish(node: Node, who: Person) -> None:
    """Keys, of which one is claimed, a backup, and something sent."""
    device = OlmDevice(who.user_id, who.device_id, "example.org")
    await node.ask("POST /v1/e2ee/keys/upload", device.upload(2), as_=who)
    body: dict[str, Any] = {"one_time_keys": {device.name: {device.device_id: SIGNED}}}
    await node.ask("POST /v1/e2ee/keys/claim", body, as_=who, idempotency_key="once")
    await node.ask("POST /v1/e2ee/backup/version", {"algorithm": "m.x", "auth_data": {}}, as_=who)
    await node.ask(
        "PUT /v1/e2ee/to-device/{type}/{txn}",
        {"messages": {device.name: {"*": {"a": 1}}}},
        as_=who,
        path={"type": "m.x", "txn": "1"},
    )


async def test_whoever_leaves_is_signed_out_and_may_come_back(node: Node) -> None:
    ann, bob = await node.register("ann"), await node.register("bob")
    phone = await node.login()
    with refused("INVALID_CREDENTIALS"):
        await leave(node, phone, "wrong password")
    delete_at = await leave(node, phone)
    assert set(node.closed) == {ann.session_id, phone.session_id}
    for gone in (ann, phone):
        with refused("TOKEN_REVOKED"):
            await node.who(gone)
    data = await node.ask("GET /v1/users/search", as_=bob, query={"q": "ann"})
    assert data["users"] == []

    back = await node.login()
    assert (await node.ask("GET /v1/users/me", as_=back))["delete_at"] == delete_at
    assert await leave(node, back) == delete_at  # asked twice, it is not put off
    back = await node.login()
    me = await node.ask("POST /v1/users/me/restore", as_=back)
    assert "delete_at" not in me
    node.db.forward(31 * DAY_S)
    await node.room.deletion.pass_once()
    assert (await profile(node, await node.login("bob"), ann))["username"] == "ann"
    assert await actions(node) == [
        *["auth:user:registered"] * 2,
        *["auth:user:leaving"] * 2,
        "auth:user:restored",
    ]


async def test_after_the_grace_nothing_personal_is_left(node: Node) -> None:
    ann, bob, cid = [await node.register(name) for name in ("ann", "bob", "cid")]
    await acquaint(node, ann, bob, cid)
    await acquaint(node, bob, ann, cid)
    for person in (ann, bob):
        await publish(node, person)
    forgotten: list[str] = []

    async def forget(user: UserId) -> None:
        forgotten.append(user)

    node.room.deletion.forget = (forget,)
    await leave(node, ann)
    node.db.forward(30 * DAY_S - 60)
    await node.room.deletion.pass_once()
    assert forgotten == []
    late = await node.login()
    for device in (ann.device_id, bob.device_id):  # of sessions long forgotten
        await node.db.write(open_inbox, DeviceId(device), node.db.now_us())
    node.db.forward(61)
    await node.room.deletion.pass_once()
    await node.room.deletion.pass_once()
    assert forgotten == [ann.user_id]
    with refused("TOKEN_REVOKED"):
        await node.who(late)
    with refused("INVALID_CREDENTIALS"):
        await node.login()
    seen = await profile(node, await node.login("bob"), ann)
    assert (seen["username"], seen["display_name"], seen["avatar_url"]) == ("deleted", DELETED, None)

    user = await node.rows(f"SELECT * FROM users WHERE user_id = '{ann.user_id}'")
    assert "ann@" not in repr(user)
    assert "argon2" not in repr(user)
    told = {"key_changes", "key_departures", "reports"}  # see ELSEWHERE
    for table in tables_of_people() - {"users", "files"} - told:
        assert await node.rows(f"SELECT 1 FROM {table} WHERE user_id = '{ann.user_id}'") == [], table
    assert await node.rows(f"SELECT 1 FROM blocks WHERE blocked_id = '{ann.user_id}'") == []
    assert await node.rows(f"SELECT 1 FROM friends WHERE friend_id = '{ann.user_id}'") == []
    for table in ("one_time_keys", "inboxes", "inbox_sendings", "key_claims"):
        assert await node.rows(f"SELECT 1 FROM {table} WHERE device_id = '{ann.device_id}'") == [], table
        assert await node.rows(f"SELECT 1 FROM {table} WHERE device_id = '{bob.device_id}'") != [], table
    comments = "SELECT comment FROM reports WHERE reporter_id = '{}'"
    assert await node.rows(comments.format(ann.user_id)) == [("",)]
    assert await node.rows(comments.format(bob.user_id)) == [("says bob",)]
    about = f"(actor_id = '{ann.user_id}' OR subject = '{ann.user_id}')"
    assert await node.rows(f"SELECT 1 FROM audit WHERE {about} AND personal IS NOT NULL") == []
    assert (await actions(node))[-1] == "auth:user:erased"
    for other in ("bob", "cid"):  # and nobody else's
        await node.login(other)
    assert await node.rows("SELECT COUNT(*) FROM blocks") == [(1,)]

    again = await node.register("ann")  # the names are free
    assert again.user_id != ann.user_id


async def test_a_room_that_is_away_forgets_later(node: Node) -> None:
    ann, bob = await node.register("ann"), await node.register("bob")
    is_away = True
    forgotten: list[str] = []

    async def forget(user: UserId) -> None:
        if is_away and user == ann.user_id:
            raise Unavailable
        forgotten.append(user)

    node.room.deletion.forget = (forget,)
    for who in (ann, bob):
        await leave(node, who)
    node.db.forward(31 * DAY_S)
    await node.room.deletion.pass_once()
    assert forgotten == [bob.user_id]  # one account does not hold up the others
    assert (await actions(node)).count("auth:user:erased") == 1
    assert await node.rows(f"SELECT username FROM users WHERE user_id = '{ann.user_id}'") == [("deleted",)]
    is_away = False
    await node.room.deletion.pass_once()
    assert forgotten == [bob.user_id, ann.user_id]
    assert (await actions(node)).count("auth:user:erased") == 2


class Breaking(Clocked):
    """Ends a task after so many things it has done: as a crash would, just after the commit."""

    def __init__(self, site: Site, after: int) -> None:
        super().__init__(site.db.inner)
        self.ahead_us = site.db.ahead_us
        self.after = after
        self.scope = trio.CancelScope()

    async def relieve(self, unit: Unit[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        done = await super().relieve(unit, *args, **kwargs)
        self.after -= 1
        if self.after == 0:
            self.scope.cancel()
            await trio.lowlevel.checkpoint()
        return done


async def test_what_breaks_off_goes_on_on_another_node(site: Site) -> None:
    node = await site.node()
    bob, cid = await node.register("bob"), await node.register("cid")
    for step in range(1, 10):
        ann = await node.register(f"ann{step}")
        await acquaint(node, ann, bob, cid)
        await publish(node, ann)
        await leave(node, ann)
        site.db.forward(30 * DAY_S + 1)
        bob, cid = await node.login("bob"), await node.login("cid")
        breaking = Breaking(site, step)
        with breaking.scope:
            await (await site.node(db=breaking)).room.deletion.pass_once()
        await node.room.deletion.pass_once()
        left = await site.rows(
            f"SELECT username, email, password_hash, delete_at FROM users WHERE user_id = '{ann.user_id}'"
        )
        assert left == [("deleted", "", "", None)], step
        for table in ("sessions", "devices", "friends", "blocks", "device_keys", "backups", "idempotency"):
            rows = await site.rows(f"SELECT 1 FROM {table} WHERE user_id = '{ann.user_id}'")
            assert rows == [], (step, table)
        about = f"(actor_id = '{ann.user_id}' OR subject = '{ann.user_id}')"
        assert await site.rows(f"SELECT 1 FROM audit WHERE {about} AND personal IS NOT NULL") == [], step
        assert (await actions(node)).count("auth:user:erased") == step
        if not breaking.scope.cancelled_caught:
            break
    assert step > 3


async def test_whoever_is_being_erased_cannot_come_back(site: Site) -> None:
    """Restoring and erasing at the same moment: one of the two happens, whole."""
    nodes = [await site.node(), await site.node()]
    for number in range(6):
        name = f"ann{number}"
        ann = await nodes[0].register(name)
        await leave(nodes[0], ann)
        back = await nodes[0].login(name)
        caller = await nodes[0].who(back)
        site.db.forward(30 * DAY_S - number % 2 * 60)

        async def restore(user: UserId = caller.user_id) -> None:
            await nodes[1].room.deletion.restore(user, "192.0.2.1")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(nodes[0].room.deletion.pass_once)
            nursery.start_soon(restore)
            nursery.start_soon(nodes[1].room.deletion.pass_once)
        [(username, deleting, erased)] = await site.rows(
            f"SELECT username, delete_at, erased_at FROM users WHERE user_id = '{ann.user_id}'"
        )
        assert deleting is None
        assert (username == "deleted") == (erased is not None) == (number % 2 == 0)
    assert len(await site.rows("SELECT 1 FROM audit WHERE action = 'auth:user:erased'")) == 3


async def test_whoever_asks_does_not_wait_for_a_slow_room(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletion, "AT_ONCE_S", 0.2)
    node = await site.node(replace(CHEAP, deletion_grace_days=0))
    ann, is_slow = await node.register("ann"), True

    async def forget(_: UserId) -> None:
        if is_slow:
            await trio.sleep_forever()

    node.room.deletion.forget = (forget,)
    with trio.fail_after(10):
        await leave(node, ann)
    assert "auth:user:erased" not in await actions(node)
    is_slow = False
    await node.room.deletion.pass_once()
    assert (await actions(node))[-1] == "auth:user:erased"


async def test_without_grace_it_is_erased_at_once(site: Site) -> None:
    node = await site.node(replace(CHEAP, deletion_grace_days=0))
    ann, bob = await node.register("ann"), await node.register("bob")
    await leave(node, ann)
    assert (await profile(node, bob, ann))["display_name"] == DELETED
    with refused("TOKEN_REVOKED"):
        await node.who(ann)
