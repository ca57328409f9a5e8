"""Keys of devices: what is taken, what is refused, and to whom each is handed out. On both databases."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
import trio
import vodozemac as olm

from kit.olm import SIGNED, OlmDevice
from secureconnect.auth import note_departures
from secureconnect.auth.devicekeys.signing import signable
from secureconnect.clock import DAY_US
from secureconnect.config import KeysConfig
from secureconnect.deps.contracts import Tx
from secureconnect.identity import ConversationId, Principal, UserId, new_id

from .harness import PASSWORD, Clocked, Node, Person, Site, refused

SERVER = "example.org"
MANY = KeysConfig(claims=1_000)
SMALL = [0, 1, 2**255 - 20, 325606250916557431795983626356110631294008115727848805560023387167927233504]
_MEMBER = (
    "INSERT INTO members (conversation_id, user_id, role, joined_at, visible_from_seq, last_read_seq)"
    " VALUES ($1, $2, 'member', $3, 1, 0)"
)
Json = dict[str, Any]


def device_of(person: Person) -> OlmDevice:
    return OlmDevice(person.user_id, person.device_id, SERVER)


async def bring_together(db: Clocked, *people: Person | Principal, ago_us: int = 0) -> str:
    """A conversation of these people; the table is another room's, so its rows are written here."""
    room = new_id()

    async def unit(tx: Tx) -> None:
        for person in people:
            await tx.run(_MEMBER, room, person.user_id, db.now_us() - ago_us)

    await db.write(unit)
    return room


async def claim(node: Node, as_: Person, device: OlmDevice, key: str | None = None) -> Json | None:
    body = {"one_time_keys": {device.name: {device.device_id: SIGNED}}}
    answer = await node.ask("POST /v1/e2ee/keys/claim", body, as_=as_, idempotency_key=key)
    found: Json | None = answer["one_time_keys"].get(device.name, {}).get(device.device_id)
    return found


async def pair(node: Node) -> tuple[Person, Person]:
    ann, bob = await node.register("ann"), await node.register("bob")
    await bring_together(node.db, ann, bob)
    return ann, bob


async def test_each_key_is_handed_out_once_on_two_nodes(site: Site) -> None:
    node, other = await site.node(keys=MANY), await site.node(keys=MANY)
    ann, bob = await pair(node)
    device = device_of(bob)
    await node.ask("POST /v1/e2ee/keys/upload", device.upload(90), as_=bob)
    given: list[Json | None] = []

    async def take(at: Node) -> None:
        given.append(await claim(at, ann, device))

    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(take, (node, other)[number % 2])
    keys = [next(iter(each.values())) for each in given if each is not None]
    handed = [key["key"] for key in keys if "fallback" not in key]
    assert len(keys) == 100
    assert (len(handed), len(set(handed))) == (90, 90)
    assert len({key["key"] for key in keys}) == 91  # the fallback is the same for all others


async def test_the_same_claim_again_gives_the_same_key(node: Node) -> None:
    ann, bob = await pair(node)
    device = device_of(bob)
    await node.ask("POST /v1/e2ee/keys/upload", device.upload(5), as_=bob)
    first = await claim(node, ann, device, "again")
    assert first == await claim(node, ann, device, "again")
    assert first != await claim(node, ann, device, "other")
    bundle = await node.ask(
        "GET /v1/keys/{user_id}", as_=ann, path={"user_id": bob.user_id}, idempotency_key="bundle"
    )
    again = await node.ask(
        "GET /v1/keys/{user_id}", as_=ann, path={"user_id": bob.user_id}, idempotency_key="bundle"
    )
    assert bundle == again
    with refused("IDEMPOTENCY_KEY_REUSED"):
        await node.ask(
            "GET /v1/keys/{user_id}", as_=ann, path={"user_id": ann.user_id}, idempotency_key="again"
        )
    node.db.forward(601)
    ann = await node.refresh(ann)
    assert first != await claim(node, ann, device, "again")
    counts = await node.ask("GET /v1/e2ee/sync", as_=await node.refresh(bob))
    assert counts["one_time_key_counts"] == {SIGNED: 1}


async def test_who_shares_no_conversation_gets_nothing(node: Node) -> None:
    _, bob = await pair(node)
    eve = await node.register("eve")
    device = device_of(bob)
    await node.ask("POST /v1/e2ee/keys/upload", device.upload(1), as_=bob)
    for person in (bob.user_id, new_id()):
        with refused("NOT_FOUND") as caught:
            await node.ask("GET /v1/keys/{user_id}", as_=eve, path={"user_id": person})
        assert (caught.value.denial, caught.value.subject) == ("denied:keys", person)
    assert await claim(node, eve, device) is None
    queried = await node.ask("POST /v1/e2ee/keys/query", {"device_keys": {device.name: []}}, as_=eve)
    assert queried["device_keys"] == {}
    sent = await node.ask(
        "PUT /v1/e2ee/to-device/{type}/{txn}",
        {"messages": {device.name: {"*": {"a": 1}}}},
        as_=eve,
        path={"type": "m.x", "txn": "1"},
    )
    assert sent == {"undelivered": {device.name: ["*"]}}
    assert (await node.ask("GET /v1/e2ee/sync", as_=bob))["to_device"] == []


async def test_claims_are_limited_per_target(site: Site) -> None:
    node = await site.node(keys=KeysConfig(claims=3))
    ann, bob = await pair(node)
    await node.ask("POST /v1/keys/upload", device_of(bob).bundle(20), as_=bob)
    await node.ask("POST /v1/keys/upload", device_of(ann).bundle(20), as_=ann)
    for _ in range(3):
        await node.ask("GET /v1/keys/{user_id}", as_=ann, path={"user_id": bob.user_id})
    with refused("RATE_LIMITED"):
        await node.ask("GET /v1/keys/{user_id}", as_=ann, path={"user_id": bob.user_id})
    await node.ask("GET /v1/keys/{user_id}", as_=ann, path={"user_id": ann.user_id})


def _weak(number: int) -> str:
    return base64.b64encode(number.to_bytes(32, "little")).decode()


def _forged_pre_key(body: Json) -> None:
    body["signed_pre_key"] |= {"public_key": body["one_time_pre_keys"][0]["public_key"]}


def _weak_pre_key(body: Json) -> None:
    body["signed_pre_key"] |= {"public_key": _weak(SMALL[3])}


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (_forged_pre_key, "KEY_SIGNATURE_WRONG"),
        (_weak_pre_key, "VALIDATION"),
        (lambda body: body.update(identity_key=_weak(0)), "VALIDATION"),
        (lambda body: body.update(identity_key=_weak(1)), "VALIDATION"),
        (lambda body: body.update(identity_key="AAAA"), "VALIDATION"),
        (lambda body: body["one_time_pre_keys"][3].update(public_key=_weak(SMALL[2])), "VALIDATION"),
        (lambda body: body["one_time_pre_keys"][3].update(body["one_time_pre_keys"][4]), None),
        (
            lambda body: body["one_time_pre_keys"][3].update(key_id=body["one_time_pre_keys"][4]["key_id"]),
            "KEY_ID_REUSED",
        ),
    ],
)
async def test_bundles_that_are_refused(
    node: Node, spoil: Callable[[Json], object], code: str | None
) -> None:
    ann = await node.register()
    body = device_of(ann).bundle(20)
    spoil(body)
    if code is None:  # the same key twice is one
        assert (await node.ask("POST /v1/keys/upload", body, as_=ann))["one_time_keys"] == 19
        return
    with refused(code):
        await node.ask("POST /v1/keys/upload", body, as_=ann)
    assert await node.rows("SELECT * FROM device_keys") == []
    assert await node.rows("SELECT * FROM one_time_keys") == []


async def test_an_identity_never_changes_silently(node: Node) -> None:
    ann, bob = await pair(node)
    first, second = device_of(bob), device_of(bob)
    body = first.bundle(20)
    await node.ask("POST /v1/keys/upload", body, as_=bob)
    await node.ask("POST /v1/keys/upload", body, as_=bob)
    with refused("IDENTITY_KEY_CHANGED"):
        await node.ask("POST /v1/keys/upload", second.bundle(20), as_=bob)
    with refused("IDENTITY_KEY_CHANGED"):
        await node.ask("POST /v1/e2ee/keys/upload", second.upload(), as_=bob)
    with refused("KEY_SIGNATURE_WRONG"):
        await node.ask("POST /v1/keys/rotate", {"signed_pre_key": second.pre_key()}, as_=bob)
    bundle = await node.ask("GET /v1/keys/{user_id}", as_=ann, path={"user_id": bob.user_id})
    assert (bundle["identity_key"], bundle["device_id"]) == (first.ed25519, bob.device_id)


async def test_a_claimed_key_is_not_taken_again(node: Node) -> None:
    ann, bob = await pair(node)
    device = device_of(bob)
    body = device.upload(2)
    await node.ask("POST /v1/e2ee/keys/upload", body, as_=bob)
    given = [await claim(node, ann, device) for _ in range(2)]
    assert (await node.ask("POST /v1/e2ee/keys/upload", body, as_=bob))["one_time_key_counts"] == {SIGNED: 0}
    spoiled = {name: key for each in given if each for name, key in each.items()}
    (name, _), (__, other) = spoiled.items()
    with refused("KEY_ID_REUSED", key_id=name):
        await node.ask("POST /v1/e2ee/keys/upload", {"one_time_keys": {name: other}}, as_=bob)


async def test_the_fallback_stands_in_and_is_replaced(node: Node) -> None:
    ann, bob = await pair(node)
    device = device_of(bob)
    await node.ask("POST /v1/e2ee/keys/upload", device.upload(1), as_=bob)
    told = await node.ask("GET /v1/e2ee/sync", as_=bob)
    assert (told["one_time_key_counts"], told["unused_fallback_keys"]) == ({SIGNED: 1}, [SIGNED])
    await claim(node, ann, device)
    first = await claim(node, ann, device)
    assert first is not None
    assert first == await claim(node, ann, device)
    assert (await node.ask("GET /v1/e2ee/sync", as_=bob))["unused_fallback_keys"] == []
    await node.ask("POST /v1/e2ee/keys/upload", {"fallback_keys": device.fallback_key()}, as_=bob)
    second = await claim(node, ann, device)
    assert second is not None
    assert first != second
    with refused("KEY_ID_REUSED"):  # what was replaced does not come back
        await node.ask("POST /v1/e2ee/keys/upload", {"fallback_keys": first}, as_=bob)


async def test_a_signed_pre_key_grows_stale_and_is_kept_for_a_month(node: Node) -> None:
    bob = await node.register("bob")
    device = device_of(bob)
    await node.ask("POST /v1/keys/upload", device.bundle(20), as_=bob)
    assert not (await node.ask("GET /v1/keys/count", as_=bob))["signed_pre_key_is_stale"]
    node.db.ahead_us += 7 * DAY_US + 1_000_000
    bob = await node.login("bob", device_id=bob.device_id, device_secret=bob.device_secret)
    told = await node.ask("GET /v1/keys/count", as_=bob)
    assert (told["one_time_keys"], told["signed_pre_key_is_stale"]) == (20, True)
    await node.ask("POST /v1/keys/rotate", {"signed_pre_key": device.pre_key()}, as_=bob)
    assert not (await node.ask("GET /v1/keys/count", as_=bob))["signed_pre_key_is_stale"]
    assert len(await node.rows("SELECT key_id FROM fallback_keys")) == 2
    node.db.ahead_us += 29 * DAY_US
    bob = await node.login("bob", device_id=bob.device_id, device_secret=bob.device_secret)
    await node.room.device_keys.prune_once()
    assert len(await node.rows("SELECT key_id FROM fallback_keys")) == 2
    node.db.ahead_us += 2 * DAY_US
    await node.login("bob", device_id=bob.device_id, device_secret=bob.device_secret)
    await node.room.device_keys.prune_once()
    assert len(await node.rows("SELECT key_id FROM fallback_keys")) == 1


async def test_signing_out_forgets_the_keys_and_keeps_the_device(node: Node) -> None:
    ann, bob = await pair(node)
    device = device_of(bob)
    await node.ask("POST /v1/e2ee/keys/upload", device.upload(1), as_=bob)
    await send(node, ann, {device.name: {"*": {"a": 1}}}, "1")
    since = (await node.ask("GET /v1/e2ee/sync", as_=ann))["next_since"]
    await node.ask("POST /v1/auth/logout", as_=bob)
    for table in ("device_keys", "one_time_keys", "fallback_keys", "inboxes", "inbox_messages"):
        assert await node.rows(f"SELECT * FROM {table}") == [], table
    await node.ask("POST /v1/e2ee/keys/upload", device_of(ann).upload(1), as_=ann)
    told = await node.ask("GET /v1/e2ee/sync", as_=ann, query={"since": since})
    assert device.name in told["device_lists"]["changed"]
    again = await node.login("bob", device_id=bob.device_id, device_secret=bob.device_secret)
    assert again.device_id == bob.device_id
    await node.ask("POST /v1/e2ee/keys/upload", device_of(again).upload(1), as_=again)


async def test_a_session_that_ends_otherwise_loses_its_keys_too(node: Node) -> None:
    bob = await node.register("bob")
    await node.ask("POST /v1/e2ee/keys/upload", device_of(bob).upload(1), as_=bob)
    await node.room.device_keys.prune_once()
    assert len(await node.rows("SELECT * FROM device_keys")) == 1

    async def end(tx: Tx) -> None:
        await tx.run("UPDATE sessions SET ended_at = $1", node.db.now_us())

    await node.db.write(end)
    await node.room.device_keys.prune_once()
    assert await node.rows("SELECT * FROM device_keys") == []


async def test_after_a_rollback_no_key_is_handed_out_again(node: Node) -> None:
    ann, bob = await pair(node)
    device = device_of(bob)
    body = device.upload(3)
    await node.ask("POST /v1/e2ee/keys/upload", body, as_=bob)
    await node.room.write_back()
    await node.ask("POST /v1/e2ee/keys/upload", body, as_=bob)
    assert (await node.ask("GET /v1/e2ee/sync", as_=bob))["one_time_key_counts"] == {SIGNED: 0}
    given = await claim(node, ann, device)
    assert given is not None
    assert "fallback" in next(iter(given.values()))


# inboxes


async def send(node: Node, as_: Person, messages: Json, txn: str) -> Json:
    answer: Json = await node.ask(
        "PUT /v1/e2ee/to-device/{type}/{txn}",
        {"messages": messages},
        as_=as_,
        path={"type": "m.room.encrypted", "txn": txn},
    )
    return answer


async def test_what_is_sent_waits_until_it_is_acknowledged(node: Node) -> None:
    ann, bob = await pair(node)
    phone, laptop = device_of(bob), device_of(await node.login("bob"))
    await node.ask("POST /v1/e2ee/keys/upload", phone.upload(1), as_=bob)
    await send(node, ann, {phone.name: {phone.device_id: {"n": 1}}}, "1")
    await send(node, ann, {phone.name: {phone.device_id: {"n": 1}}}, "1")
    missing = await send(node, ann, {phone.name: {phone.device_id: {"n": 2}, laptop.device_id: {}}}, "2")
    assert missing == {"undelivered": {phone.name: [laptop.device_id]}}
    first = await node.ask("GET /v1/e2ee/sync", as_=bob)
    assert first == await node.ask("GET /v1/e2ee/sync", as_=bob) | {"next_since": first["next_since"]}
    assert [each["content"]["n"] for each in first["to_device"]] == [1, 2]
    assert {each["sender"] for each in first["to_device"]} == {device_of(ann).name}
    await send(node, ann, {phone.name: {phone.device_id: {"n": 3}}}, "3")
    second = await node.ask("GET /v1/e2ee/sync", as_=bob, query={"since": first["next_since"]})
    assert [each["content"]["n"] for each in second["to_device"]] == [3]
    await node.ask("GET /v1/e2ee/sync", as_=bob, query={"since": second["next_since"]})
    assert await node.rows("SELECT * FROM inbox_messages") == []
    assert await node.rows("SELECT messages, size_bytes FROM inboxes") == [(0, 0)]


async def test_a_long_queue_comes_in_pages_and_a_full_one_takes_no_more(node: Node) -> None:
    ann, bob = await pair(node)
    device = device_of(bob)
    await node.ask("POST /v1/e2ee/keys/upload", device.upload(1), as_=bob)
    for number in range(102):
        await send(node, ann, {device.name: {"*": {"n": number}}}, str(number))

    async def fill(tx: Tx) -> None:
        await tx.run("UPDATE inboxes SET messages = 10000")

    page = await node.ask("GET /v1/e2ee/sync", as_=bob)
    assert (len(page["to_device"]), page["more"]) == (100, True)
    rest = await node.ask("GET /v1/e2ee/sync", as_=bob, query={"since": page["next_since"]})
    assert ([each["content"]["n"] for each in rest["to_device"]], rest["more"]) == ([100, 101], False)
    await node.db.write(fill)
    assert await send(node, ann, {device.name: {"*": {}}}, "x") == {
        "undelivered": {device.name: [device.device_id]}
    }


async def test_whose_keys_have_changed_and_who_has_gone(node: Node) -> None:
    ann, bob = await node.register("ann"), await node.register("bob")
    eve = await node.register("eve")
    room = await bring_together(node.db, ann, bob, ago_us=DAY_US)
    mine, theirs = device_of(ann), device_of(bob)
    await node.ask("POST /v1/e2ee/keys/upload", mine.upload(1), as_=ann)
    node.db.forward(60)
    since = (await node.ask("GET /v1/e2ee/sync", as_=ann))["next_since"]
    quiet = await node.ask("GET /v1/e2ee/sync", as_=ann, query={"since": since})
    assert quiet["device_lists"] == {"changed": [], "left": []}
    await node.ask("POST /v1/e2ee/keys/upload", theirs.upload(1), as_=bob)
    await node.ask("POST /v1/e2ee/keys/upload", device_of(eve).upload(1), as_=eve)
    told = await node.ask("GET /v1/e2ee/sync", as_=ann, query={"since": since})
    assert told["device_lists"] == {"changed": [theirs.name], "left": []}

    async def leave(tx: Tx) -> None:
        await tx.run("DELETE FROM members WHERE conversation_id = $1 AND user_id = $2", room, bob.user_id)
        await note_departures(tx, ConversationId(room), [UserId(bob.user_id)], node.db.now_us())

    await node.db.write(leave)
    told = await node.ask("GET /v1/e2ee/sync", as_=ann, query={"since": since})
    assert told["device_lists"] == {"changed": [], "left": [theirs.name]}
    await node.ask("POST /v1/e2ee/keys/upload", theirs.upload(0), as_=bob)
    told = await node.ask("GET /v1/e2ee/sync", as_=bob, query={"since": since})
    assert mine.name in told["device_lists"]["left"]


async def test_what_nobody_could_read_is_not_queued(node: Node) -> None:
    ann, bob = await pair(node)
    device = device_of(bob)
    await node.ask("POST /v1/e2ee/keys/upload", device.upload(1), as_=bob)
    deep: Json = {}
    for _ in range(40):
        deep = {"a": deep}
    with refused("VALIDATION", field="messages"):
        await send(node, ann, {device.name: {"*": deep}}, "1")
    with refused("VALIDATION", field="messages"):
        await send(node, ann, {device.name: {"*": {"a": "x" * 65_536}}}, "1")
    assert await node.rows("SELECT * FROM inbox_sendings") == []


async def test_a_person_has_so_many_devices_with_keys(site: Site) -> None:
    node = await site.node(keys=KeysConfig(devices=1))
    bob = await node.register("bob")
    other = await node.login("bob")
    await node.ask("POST /v1/e2ee/keys/upload", device_of(bob).upload(1), as_=bob)
    with refused("TOO_MANY_KEYS", limit=1):
        await node.ask("POST /v1/keys/upload", device_of(other).bundle(20), as_=other)
    await node.ask("POST /v1/auth/logout", as_=bob)
    await node.ask("POST /v1/keys/upload", device_of(other).bundle(20), as_=other)


# backups


async def test_a_backup_keeps_the_better_key(node: Node) -> None:
    ann = await node.register()
    made = await node.ask(
        "POST /v1/e2ee/backup/version", {"algorithm": "m.x", "auth_data": {"k": "v"}}, as_=ann
    )
    which = {"version": made["version"]}

    async def put(index: int, data: str, *, version: str | None = None) -> Json:
        key = {
            "first_message_index": index,
            "forwarded_count": 0,
            "is_verified": True,
            "session_data": {"sealed": data},
        }
        body = {"rooms": {"!room": {"sessions": {"s": key}}}}
        query = {"version": version or which["version"]}
        answer: Json = await node.ask("PUT /v1/e2ee/backup/keys", body, as_=ann, query=query)
        return answer

    first = await put(5, "first")
    assert first["count"] == 1
    assert await put(7, "worse") == first
    assert (await put(1, "better"))["etag"] != first["etag"]
    page = await node.ask("GET /v1/e2ee/backup/keys", as_=ann, query=which)
    assert page["rooms"]["!room"]["sessions"]["s"]["session_data"] == {"sealed": "better"}
    assert page["next_cursor"] is None
    one = which | {"room_id": "!room", "session_id": "s"}
    assert await node.ask("GET /v1/e2ee/backup/keys", as_=ann, query=one) == page
    other_one = one | {"session_id": "t"}
    assert (await node.ask("GET /v1/e2ee/backup/keys", as_=ann, query=other_one))["rooms"] == {}
    latest = await node.ask("GET /v1/e2ee/backup/version", as_=ann)
    assert (latest["version"], latest["count"], latest["auth_data"]) == (made["version"], 1, {"k": "v"})
    other = await node.ask("POST /v1/e2ee/backup/version", {"algorithm": "m.x", "auth_data": {}}, as_=ann)
    with refused("BACKUP_VERSION_WRONG", current_version=other["version"]):
        await put(0, "late")
    listed = (await node.ask("GET /v1/e2ee/backup/versions", as_=ann))["versions"]
    assert [each["version"] for each in listed] == [other["version"], made["version"]]
    path = {"version": other["version"]}
    await node.ask("DELETE /v1/e2ee/backup/version/{version}", as_=ann, path=path)
    assert (await node.ask("GET /v1/e2ee/backup/versions", as_=ann))["versions"] == listed[1:]
    third = await node.ask("POST /v1/e2ee/backup/version", {"algorithm": "m.x", "auth_data": {}}, as_=ann)
    assert int(third["version"]) > int(other["version"])
    bob = await node.register("bob")
    with refused("NOT_FOUND"):
        await node.ask("GET /v1/e2ee/backup/keys", as_=bob, query=which)


async def test_a_backup_counts_right_however_many_write_at_once(site: Site) -> None:
    node, other = await site.node(), await site.node()
    ann = await node.register()
    made = await node.ask("POST /v1/e2ee/backup/version", {"algorithm": "m.x", "auth_data": {}}, as_=ann)
    which = {"version": made["version"]}
    counts: list[Json] = []

    async def put(at: Node, number: int) -> None:
        """Ten keys, five of them those of the one before, from an earlier message."""
        key = {"forwarded_count": 0, "is_verified": False, "session_data": {}}
        sessions = {str(5 * number + n): key | {"first_message_index": 100 - number} for n in range(10)}
        body = {"rooms": {"!room": {"sessions": sessions}}}
        counts.append(await at.ask("PUT /v1/e2ee/backup/keys", body, as_=ann, query=which))

    async with trio.open_nursery() as nursery:
        for number in range(12):
            nursery.start_soon(put, (node, other)[number % 2], number)
    latest = await node.ask("GET /v1/e2ee/backup/version", as_=ann)
    assert (latest["count"], latest["etag"]) == (65, max((each["etag"] for each in counts), key=int))
    assert len({each["etag"] for each in counts}) == 12
    assert await node.rows("SELECT COUNT(*) FROM backup_keys") == [(65,)]
    dropped = await node.ask("DELETE /v1/e2ee/backup/keys", as_=ann, query=which)
    assert (dropped["count"], int(dropped["etag"])) == (0, int(latest["etag"]) + 1)
    await node.ask("DELETE /v1/e2ee/backup/version/{version}", as_=ann, path=which)
    with refused("NOT_FOUND"):
        await put(node, 0)
    assert await node.rows("SELECT * FROM backup_keys") == []


# cross-signing


class Signer:
    """A key of a person that signs others."""

    def __init__(self, device: OlmDevice, usage: str) -> None:
        self.key = olm.Account()
        self.name = device.name
        self.usage = usage
        self.public = self.key.ed25519_key.to_base64()

    def document(self, master: Signer | None = None) -> Json:
        bare = {"user_id": self.name, "usage": [self.usage], "keys": {f"ed25519:{self.public}": self.public}}
        return bare if master is None else master.signed(bare)

    def signed(self, document: Json) -> Json:
        signature = self.key.sign(signable(document, "")).to_base64()
        return document | {"signatures": {self.name: {f"ed25519:{self.public}": signature}}}


def identity_of(device: OlmDevice) -> tuple[list[Signer], Json]:
    """Its three keys, and the body that publishes them."""
    keys = [Signer(device, usage) for usage in ("master", "self_signing", "user_signing")]
    master = keys[0]
    documents = {f"{key.usage}_key": key.document(None if key is master else master) for key in keys}
    return keys, {"password": PASSWORD, **documents}


async def test_signing_keys_are_published_by_whoever_knows_the_password(node: Node) -> None:
    ann = await node.register()
    device = device_of(ann)
    _, body = identity_of(device)
    with refused("INVALID_CREDENTIALS"):
        await node.ask("POST /v1/e2ee/signing-keys", body | {"password": "another one"}, as_=ann)
    forged = identity_of(device)[1]["self_signing_key"]
    with refused("VALIDATION", field="self_signing_key"):  # not signed by this master key
        await node.ask("POST /v1/e2ee/signing-keys", body | {"self_signing_key": forged}, as_=ann)
    assert await node.rows("SELECT * FROM cross_signing_keys") == []
    await node.ask("POST /v1/e2ee/signing-keys", body, as_=ann)
    _, other = identity_of(device)
    with refused("CONFLICT"):
        master_alone = {"password": PASSWORD, "master_key": other["master_key"]}
        await node.ask("POST /v1/e2ee/signing-keys", master_alone, as_=ann)
    await node.ask("POST /v1/e2ee/signing-keys", other, as_=ann)
    noted = await node.rows("SELECT actor_id FROM audit WHERE action = 'auth:signing_keys:published'")
    assert noted == [(ann.user_id,)] * 2
    shown = await node.ask("POST /v1/e2ee/keys/query", {"device_keys": {device.name: []}}, as_=ann)
    assert shown["user_signing_keys"][device.name] == other["user_signing_key"]


async def test_signatures_are_verified_and_shown_to_whom_they_concern(node: Node) -> None:
    ann, bob = await pair(node)
    mine, theirs = device_of(ann), device_of(bob)
    keys, body = identity_of(mine)
    await node.ask("POST /v1/e2ee/signing-keys", body, as_=ann)
    await node.ask("POST /v1/e2ee/signing-keys", identity_of(theirs)[1], as_=bob)
    await node.ask("POST /v1/e2ee/keys/upload", mine.upload(1), as_=ann)
    bare: Json = {"device_keys": {mine.name: [], theirs.name: []}}
    shown = await node.ask("POST /v1/e2ee/keys/query", bare, as_=ann)
    ((public, _),) = ((name[8:], key) for name, key in shown["master_keys"][theirs.name]["keys"].items())
    device, master = shown["device_keys"][mine.name][mine.device_id], shown["master_keys"][theirs.name]
    wrong = keys[2].signed(master)
    wrong["signatures"][mine.name][f"ed25519:{keys[2].public}"] = base64.b64encode(bytes(64)).decode()
    said = await node.ask(
        "POST /v1/e2ee/signatures",
        {"signatures": {mine.name: {mine.device_id: keys[1].signed(device)}, theirs.name: {public: wrong}}},
        as_=ann,
    )
    assert {target: each["code"] for target, each in said["failures"][theirs.name].items()} == {
        public: "KEY_SIGNATURE_WRONG"
    }
    signed = {"signatures": {theirs.name: {public: keys[2].signed(master)}}}
    assert await node.ask("POST /v1/e2ee/signatures", signed, as_=ann) == {"failures": {}}
    for viewer, sees in ((ann, True), (bob, False)):
        shown = await node.ask("POST /v1/e2ee/keys/query", bare, as_=viewer)
        names = shown["device_keys"][mine.name][mine.device_id]["signatures"][mine.name]
        assert f"ed25519:{keys[1].public}" in names
        assert (mine.name in shown["master_keys"][theirs.name].get("signatures", {})) is sees
        assert (mine.name in shown["user_signing_keys"]) is (viewer is ann)
