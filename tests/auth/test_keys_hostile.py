"""Documents and keys that somebody made who means no good: refused, or harmless to everybody else."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
import trio
import vodozemac as olm

from kit.olm import SIGNED, OlmDevice
from secureconnect.auth.devicekeys.signing import key_of
from secureconnect.clock import DAY_US
from secureconnect.config import KeysConfig
from secureconnect.errors import Problem

from .harness import Node, Site, refused
from .test_devicekeys import SERVER, Signer, claim, device_of, identity_of, pair, send

Json = dict[str, Any]
P = 2**255 - 19
# u of the points of order 8 on Curve25519, and y of those on Ed25519. Source: cr.yp.to/ecdh.html; RFC 8032.
EIGHT_U = (
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
)
EIGHT_Y = (
    2707385501144840649318225287225658788936804267575313519463743609750303402022,
    P - 2707385501144840649318225287225658788936804267575313519463743609750303402022,
)
SIGN = 2**255  # the highest bit: of Ed25519 the sign of x, of Curve25519 nothing


def text(number: int) -> str:
    return base64.b64encode(number.to_bytes(32, "little")).decode()


@pytest.mark.parametrize(
    "number", [0, 1, P - 1, P, P + 1, *EIGHT_U, P + 2, P + 18, 9 + SIGN, SIGN - 1, 2**256 - 1]
)
def test_curve25519_keys_that_are_none(number: int) -> None:
    with refused("VALIDATION"):
        key_of(text(number), "key")


@pytest.mark.parametrize("sign", [0, SIGN])
@pytest.mark.parametrize("number", [0, 1, P - 1, P, P + 1, *EIGHT_Y, P + 3, 2, 7])  # 2 and 7: on no point
def test_ed25519_keys_that_are_none(number: int, sign: int) -> None:
    with refused("VALIDATION"):
        key_of(text(number + sign), "key", is_signing=True)


def test_keys_that_are_some() -> None:
    assert key_of(text(9), "key") == (9).to_bytes(32, "little")
    for _ in range(50):
        account = olm.Account()
        for key, is_signing in ((account.ed25519_key, True), (account.curve25519_key, False)):
            spelled = key.to_base64()
            assert key_of(spelled, "key", is_signing=is_signing) == base64.b64decode(spelled + "=")
            assert key_of(spelled + "=", "key", is_signing=is_signing) == base64.b64decode(spelled + "=")


@pytest.mark.parametrize("spoiled", ["A" * 42, "A" * 44, "A" * 42 + "-", "A" * 42 + "\n", "é" * 43, "", "="])
def test_what_is_no_base64_of_a_key(spoiled: str) -> None:
    with refused("VALIDATION"):
        key_of(spoiled, "key")


def test_a_key_has_one_spelling() -> None:
    """The last letter of 43 has two bits that say nothing."""
    key = olm.Account().curve25519_key.to_base64()
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = key[:-1] + letters[letters.index(key[-1]) + 1]
    with refused("VALIDATION"):
        key_of(other, "key")


WRONG_SIGNATURES = ["x", [], {"@ann": "x"}, {"@ann": {"ed25519:x": 1}}]


async def test_nobody_spoils_what_others_ask_for(node: Node) -> None:
    """A master key is signed later, where its `signatures` stand: what stands there must be some."""
    ann, bob = await pair(node)
    device = device_of(ann)
    await node.ask("POST /v1/e2ee/keys/upload", device.upload(1), as_=ann)
    for signatures in WRONG_SIGNATURES:
        _, body = identity_of(device)
        body["master_key"] |= {"signatures": signatures}
        with refused("VALIDATION", field="master_key"):
            await node.ask("POST /v1/e2ee/signing-keys", body, as_=ann)
    for name in ("self_signing_key", "user_signing_key"):
        spoiled = identity_of(device)[1]
        spoiled[name]["signatures"] |= {"@bob:example.org": "x"}
        with refused("VALIDATION", field=name):
            await node.ask("POST /v1/e2ee/signing-keys", spoiled, as_=ann)
    shown = await node.ask("POST /v1/e2ee/keys/query", {"device_keys": {device.name: []}}, as_=bob)
    assert shown["master_keys"] == {}
    assert list(shown["device_keys"][device.name]) == [ann.device_id]


async def test_numbers_that_signed_documents_may_not_have(node: Node) -> None:
    ann = await node.register()
    for extra in (2**53, -(2**53), 1.0, 0.5, {"deep": [1e3]}):
        body = device_of(ann).upload(1)
        body["device_keys"] |= {"extra": extra}
        with refused("VALIDATION", field="device_keys"):
            await node.ask("POST /v1/e2ee/keys/upload", body, as_=ann)
    assert await node.rows("SELECT * FROM device_keys") == []


async def test_what_else_a_document_says_is_signed_and_kept(node: Node) -> None:
    ann = await node.register()
    device = device_of(ann)
    bare = {name: value for name, value in device.device_keys().items() if name != "signatures"}
    more = {"größe": 'ﬀ\u2028"\\\n\x7f', "\U0001f600": [2**53 - 1, True, None, -0], "ﬀ": {"b": 1, "a": {}}}
    signed = device.signed(bare | more)
    told = {"unsigned": {"device_display_name": "phone"}}
    await node.ask("POST /v1/e2ee/keys/upload", {"device_keys": signed | told}, as_=ann)
    shown = await node.ask("POST /v1/e2ee/keys/query", {"device_keys": {device.name: []}}, as_=ann)
    assert shown["device_keys"][device.name][ann.device_id] == signed
    with refused("KEY_SIGNATURE_WRONG", field="device_keys"):
        await node.ask("POST /v1/e2ee/keys/upload", {"device_keys": signed | {"ﬀ": {}}}, as_=ann)


def _other_algorithm(keys: Json, device: OlmDevice) -> Json:
    return {f"curve25519:{name}": key for name, key in enumerate(keys.values())}


def _no_id(keys: Json, device: OlmDevice) -> Json:
    return {f"{SIGNED}:": key for key in keys.values()}


def _long_id(keys: Json, device: OlmDevice) -> Json:
    return {f"{SIGNED}:{'x' * 65}": key for key in keys.values()}


def _unsigned(keys: Json, device: OlmDevice) -> Json:
    return {name: {"key": key["key"], "fallback": True} for name, key in keys.items()}


def _of_another(keys: Json, device: OlmDevice) -> Json:
    other = OlmDevice(device.name[1:].partition(":")[0], device.device_id, SERVER)
    return {name: other.signed({"key": key["key"], "fallback": True}) for name, key in keys.items()}


def _signed_as_another(keys: Json, device: OlmDevice) -> Json:
    return {
        name: key | {"signatures": {"@" + "0" * 36: next(iter(key["signatures"].values()))}}
        for name, key in keys.items()
    }


def _weak(keys: Json, device: OlmDevice) -> Json:
    return {name: device.signed({"key": text(EIGHT_U[0]), "fallback": True}) for name in keys}


SPOILED = [
    (_other_algorithm, "VALIDATION"),
    (_no_id, "VALIDATION"),
    (_long_id, "VALIDATION"),
    (_unsigned, "VALIDATION"),
    (_signed_as_another, "VALIDATION"),
    (_of_another, "KEY_SIGNATURE_WRONG"),
    (_weak, "VALIDATION"),
]


async def test_keys_that_are_refused(node: Node) -> None:
    ann = await node.register()
    device = device_of(ann)
    for field in ("one_time_keys", "fallback_keys"):
        for spoil, code in SPOILED:
            body = device.upload(1)
            body[field] = spoil(body[field], device)
            with refused(code):
                await node.ask("POST /v1/e2ee/keys/upload", body, as_=ann)
    assert await node.rows("SELECT * FROM device_keys") == []
    assert await node.rows("SELECT * FROM fallback_keys") == []


async def test_a_fallback_key_says_so_and_nothing_else(node: Node) -> None:
    """A bundle shows it without its document, and could not be verified if that said more."""
    ann, bob = await pair(node)
    device = device_of(bob)
    body = device.upload(0)
    ((name, key),) = body["fallback_keys"].items()
    for document in ({"key": key["key"]}, {"key": key["key"], "fallback": True, "more": 1}):
        with refused("VALIDATION", field="fallback_keys"):
            spoiled = body | {"fallback_keys": {name: device.signed(document)}}
            await node.ask("POST /v1/e2ee/keys/upload", spoiled, as_=bob)
    with refused("VALIDATION", field="fallback_keys"):
        two = body | {"fallback_keys": {name: key, f"{SIGNED}:two": key}}
        await node.ask("POST /v1/e2ee/keys/upload", two, as_=bob)
    await node.ask("POST /v1/e2ee/keys/upload", body, as_=bob)
    path = {"user_id": bob.user_id}
    shown = (await node.ask("GET /v1/keys/{user_id}", as_=ann, path=path))["signed_pre_key"]
    assert shown["signature_format"] == "fallback_json"
    covered = json.dumps({"fallback": True, "key": shown["public_key"]}, separators=(",", ":"))
    signer = olm.Ed25519PublicKey.from_base64(device.ed25519)
    signer.verify_signature(covered.encode(), olm.Ed25519Signature.from_base64(shown["signature"]))


async def test_the_keys_of_another_device(node: Node) -> None:
    ann, bob = await pair(node)
    mine, theirs = device_of(ann), device_of(bob)
    other = device_of(await node.login("ann"))
    for device in (theirs, other):
        with refused("VALIDATION", field="device_keys"):
            await node.ask("POST /v1/e2ee/keys/upload", device.upload(1), as_=ann)
    await node.ask("POST /v1/e2ee/keys/upload", mine.upload(1), as_=ann)


async def test_a_curve25519_key_that_changes_is_another_identity(node: Node) -> None:
    ann = await node.register()
    device = device_of(ann)
    await node.ask("POST /v1/e2ee/keys/upload", device.upload(1), as_=ann)
    bare = {name: value for name, value in device.device_keys().items() if name != "signatures"}
    bare["keys"] = bare["keys"] | {f"curve25519:{ann.device_id}": olm.Account().curve25519_key.to_base64()}
    with refused("IDENTITY_KEY_CHANGED"):
        await node.ask("POST /v1/e2ee/keys/upload", {"device_keys": device.signed(bare)}, as_=ann)


async def test_replaced_pre_keys_are_kept_in_bounds(site: Site) -> None:
    node = await site.node(keys=KeysConfig(pre_keys_kept=3))
    bob = await node.register("bob")
    device = device_of(bob)
    first = device.upload(0)
    await node.ask("POST /v1/e2ee/keys/upload", first, as_=bob)
    for _ in range(6):
        node.db.forward(1)
        await node.ask("POST /v1/e2ee/keys/upload", {"fallback_keys": device.fallback_key()}, as_=bob)
    kept = await node.rows("SELECT replaced_at FROM fallback_keys ORDER BY added_at")
    assert [row[0] is None for row in kept] == [False, False, False, True]


async def test_signatures_by_keys_that_were_replaced_are_gone(node: Node) -> None:
    ann, bob = await pair(node)
    mine, theirs = device_of(ann), device_of(bob)
    await node.ask("POST /v1/e2ee/keys/upload", mine.upload(0), as_=ann)
    for person, device in ((ann, mine), (bob, theirs)):
        keys, body = identity_of(device)
        await node.ask("POST /v1/e2ee/signing-keys", body, as_=person)
        if person is ann:
            signers = keys
    bare: Json = {"device_keys": {mine.name: [], theirs.name: []}}
    shown = await node.ask("POST /v1/e2ee/keys/query", bare, as_=ann)
    master = shown["master_keys"][theirs.name]
    public = next(iter(master["keys"].values()))
    device = shown["device_keys"][mine.name][mine.device_id]
    signed = {
        mine.name: {
            mine.device_id: signers[1].signed(device),
            signers[0].public: mine.signed(shown["master_keys"][mine.name]),
        },
        theirs.name: {public: signers[2].signed(master)},
    }
    said = await node.ask("POST /v1/e2ee/signatures", {"signatures": signed}, as_=ann)
    assert said == {"failures": {}}
    count = "SELECT COUNT(*) FROM key_signatures"
    assert await node.rows(count) == [(3,)]
    another = Signer(mine, "self_signing")
    body = {"password": identity_of(mine)[1]["password"], "self_signing_key": another.document(signers[0])}
    await node.ask("POST /v1/e2ee/signing-keys", body, as_=ann)
    assert await node.rows(count) == [(2,)]  # the device's is gone
    await node.ask("POST /v1/e2ee/signing-keys", identity_of(theirs)[1], as_=bob)
    assert await node.rows(count) == [(1,)]  # so is what she had signed of his
    await node.ask("POST /v1/e2ee/signing-keys", identity_of(mine)[1], as_=ann)
    assert await node.rows(count) == [(0,)]


async def test_places_that_no_sync_and_no_list_gave(node: Node) -> None:
    ann = await node.register()
    device = device_of(ann)
    await node.ask("POST /v1/e2ee/keys/upload", device.upload(0), as_=ann)
    for since in ("", "1", "1.", ".1", "-1.1", "1.1.1", "٣.٣", "1" * 19 + ".1", "a.b", "1.1\n"):
        with refused("VALIDATION", field="since"):
            await node.ask("GET /v1/e2ee/sync", as_=ann, query={"since": since})
    for since in ("0.0", "9" * 18 + "." + "9" * 18, "0." + "9" * 18):
        await node.ask("GET /v1/e2ee/sync", as_=ann, query={"since": since})
    made = await node.ask("POST /v1/e2ee/backup/version", {"algorithm": "m.x", "auth_data": {}}, as_=ann)
    which = {"version": made["version"]}
    for cursor in ("", "x", "[]", '["a"]', '["a",1]', r'["\u0000","a"]', r'["a","\u0000"]'):
        with refused("VALIDATION", field="cursor"):
            await node.ask("GET /v1/e2ee/backup/keys", as_=ann, query=which | {"cursor": cursor})
    for version in ("0", "01", "-1", "٣", "x", "1" * 19):
        with refused("NOT_FOUND"):
            await node.ask("GET /v1/e2ee/backup/version/{version}", as_=ann, path={"version": version})


async def test_a_device_that_was_away_for_long_takes_everybody_for_changed(node: Node) -> None:
    """What changed is forgotten after a while: it must not think that nothing has."""
    ann, bob = await pair(node)
    theirs = device_of(bob)
    await node.ask("POST /v1/e2ee/keys/upload", device_of(ann).upload(0), as_=ann)
    await node.ask("POST /v1/e2ee/keys/upload", theirs.upload(0), as_=bob)
    node.db.forward(60)
    since = (await node.ask("GET /v1/e2ee/sync", as_=ann))["next_since"]
    await node.ask("POST /v1/auth/logout", as_=bob)

    async def look(days: int) -> Json:
        node.db.ahead_us += days * DAY_US
        again = await node.login("ann", device_id=ann.device_id, device_secret=ann.device_secret)
        await node.room.device_keys.prune_once()
        told = await node.ask("GET /v1/e2ee/sync", as_=again, query={"since": since})
        lists: Json = told["device_lists"]
        return lists

    near = await look(25)
    assert (theirs.name in near["changed"], "limited" in near) == (True, False)
    far = await look(6)
    assert (theirs.name in far["changed"], far.get("limited")) == (False, True)


async def test_who_is_gone_is_sent_nothing_and_gives_nothing(node: Node) -> None:
    ann, bob = await pair(node)
    device = device_of(bob)
    gone = await node.login("bob")
    await node.ask("POST /v1/e2ee/keys/upload", device.upload(1), as_=bob)
    await send(node, ann, {device.name: {"*": {"n": 0}}}, "1")
    await node.ask("POST /v1/auth/logout", as_=bob)
    everybody: Json = {"*": {}, device.device_id: {}, gone.device_id: {}}
    assert await send(node, ann, {device.name: everybody}, "2") == {
        "undelivered": {device.name: ["*", device.device_id, gone.device_id]}
    }
    assert await node.rows("SELECT * FROM inbox_messages") == []
    assert await claim(node, ann, device) is None


# races


async def test_a_device_that_goes_while_all_is_under_way_goes_whole(site: Site) -> None:
    """Whatever came first, nothing is left of it but what the next pass takes, and nobody saw a fault."""
    nodes = [await site.node(keys=KeysConfig(claims=1_000)) for _ in range(2)]
    node = nodes[0]
    ann, bob = await pair(node)
    device = device_of(bob)
    await node.ask("POST /v1/e2ee/keys/upload", device.upload(10), as_=bob)
    bodies = [{"one_time_keys": device.one_time_keys(5)} for _ in range(6)]
    again = device.upload(5)
    refusals: list[str] = []

    async def tried(ask: Callable[[], Awaitable[object]]) -> None:
        try:
            await ask()
        except Problem as problem:
            refusals.append(problem.code)

    async with trio.open_nursery() as nursery:
        for number in range(8):
            at = nodes[number % 2]
            nursery.start_soon(tried, partial(claim, at, ann, device))
            nursery.start_soon(tried, partial(send, at, ann, {device.name: {"*": {}}}, str(number)))
            if number < len(bodies):
                upload = "POST /v1/e2ee/keys/upload"
                nursery.start_soon(tried, partial(at.ask, upload, bodies[number], as_=bob))
                nursery.start_soon(tried, partial(at.ask, upload, again, as_=bob))
            nursery.start_soon(tried, partial(at.ask, "GET /v1/e2ee/sync", as_=bob))
            if number == 3:
                nursery.start_soon(tried, partial(at.ask, "POST /v1/auth/logout", as_=bob))
    assert set(refusals) <= {"TOKEN_REVOKED", "KEYS_MISSING"}
    tables = ("one_time_keys", "fallback_keys", "inboxes", "inbox_messages")
    for table in tables:
        torn = f"SELECT * FROM {table} WHERE device_id NOT IN (SELECT device_id FROM device_keys)"
        assert await node.rows(torn) == [], table
    await node.room.device_keys.prune_once()
    for table in ("device_keys", *tables):
        assert await node.rows(f"SELECT * FROM {table} WHERE device_id = '{bob.device_id}'") == [], table
