"""Access tokens and the keys that sign them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import random
import time
from dataclasses import replace
from typing import Any

import jwt
import msgspec
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from kit.wait import until
from secureconnect.auth import keys
from secureconnect.auth.keys import Keyring, SigningKey
from secureconnect.auth.tokens import random_token
from secureconnect.errors import InvalidToken
from secureconnect.identity import new_id

from .harness import CHEAP, Node, Person, Site, refused


async def _key(site: Site) -> SigningKey:
    keyring = Keyring(CHEAP, site.db, site.secrets)
    await keyring.ensure()
    return keyring.current()


def _claims(person: Person, **other: Any) -> dict[str, Any]:
    now_s = int(time.time())
    claims = {
        "iss": "secureconnect",
        "sub": person.user_id,
        "sid": person.session_id,
        "did": person.device_id,
        "iat": now_s,
        "exp": now_s + 900,
    }
    return {name: value for name, value in (claims | other).items() if value is not None}


def _signed(key: SigningKey, claims: dict[str, Any], **header: str) -> str:
    return jwt.encode(claims, key.private, "EdDSA", {"kid": key.kid} | header)


async def test_a_token_is_a_jwt_others_can_verify(node: Node, site: Site) -> None:
    ann = await node.register()
    key = await _key(site)
    assert jwt.get_unverified_header(ann.access_token) == {"alg": "EdDSA", "kid": key.kid, "typ": "JWT"}
    claims = jwt.decode(ann.access_token, key.public, ["EdDSA"], issuer="secureconnect")
    assert claims["exp"] - claims["iat"] == 900
    assert [claims[name] for name in ("sub", "sid", "did")] == [ann.user_id, ann.session_id, ann.device_id]
    assert "role" not in claims
    same = _claims(ann, exp=claims["exp"])
    assert await node.room.authenticate(_signed(key, same)) == await node.who(ann)


async def test_altered_claims_are_refused(node: Node, site: Site) -> None:
    ann, bob = await node.register("ann"), await node.register("bob")
    key = await _key(site)
    for claims, code in (
        (_claims(ann, iss="elsewhere"), "INVALID_TOKEN"),
        (_claims(ann, iss=None), "INVALID_TOKEN"),
        (_claims(ann, exp=None), "INVALID_TOKEN"),
        (_claims(ann, exp="never"), "INVALID_TOKEN"),
        (_claims(ann, exp=int(time.time()) - 1), "TOKEN_EXPIRED"),
        (_claims(ann, sub=bob.user_id), "INVALID_TOKEN"),
        (_claims(ann, did=bob.device_id), "INVALID_TOKEN"),
        (_claims(ann, sid=new_id()), "TOKEN_REVOKED"),
    ):
        with refused(code):
            await node.room.authenticate(_signed(key, claims))


async def test_algorithms_cannot_be_confused(node: Node, site: Site) -> None:
    ann = await node.register()
    key = await _key(site)
    public = key.public
    forms = [
        public.public_bytes_raw(),
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        b"",
    ]
    for secret in forms:
        for name, made in (("HS256", hashlib.sha256), ("HS512", hashlib.sha512)):
            head = _part({"alg": name, "kid": key.kid, "typ": "JWT"}) + "." + _part(_claims(ann))
            mac = hmac.digest(secret, head.encode(), made)
            with refused("INVALID_TOKEN"):
                await node.room.authenticate(f"{head}.{_b64(mac)}")
    _, body, signature = ann.access_token.split(".")
    for name in ("none", "None", "EdDSA", "RS256", "ES256", ""):
        head = _part({"alg": name, "kid": key.kid})
        for forged in (f"{head}.{body}.", f"{head}.{body}.{signature}"):
            with refused("INVALID_TOKEN"):
                await node.room.authenticate(forged)


async def test_another_key_under_our_id_is_refused(node: Node, site: Site) -> None:
    ann = await node.register()
    key = await _key(site)
    foreign = msgspec.structs.replace(key, private=Ed25519PrivateKey.generate())
    with refused("INVALID_TOKEN"):
        await node.room.authenticate(_signed(foreign, _claims(ann)))
    for kid in ("unknown", "", "../" + key.kid):
        with refused("INVALID_TOKEN"):
            await node.room.authenticate(_signed(key, _claims(ann), kid=kid))


async def test_every_flipped_character_is_noticed(node: Node) -> None:
    ann = await node.register()
    token = ann.access_token
    for place in range(0, len(token) - 1, 7):
        other = "A" if token[place] != "A" else "B"
        with pytest.raises(InvalidToken):
            await node.room.authenticate(token[:place] + other + token[place + 1 :])


async def test_tokens_expire_in_and_out_of_the_cache(node: Node, site: Site) -> None:
    ann = await node.register()
    await node.who(ann)
    site.db.forward(CHEAP.access_ttl_s - 5)
    assert node.room.known(ann.access_token)
    site.db.forward(6)
    assert node.room.known(ann.access_token) is None
    with refused("TOKEN_EXPIRED"):
        await node.who(ann)


def test_random_tokens_have_256_bits() -> None:
    made = {random_token() for _ in range(100)}
    assert len(made) == 100
    assert {len(base64.urlsafe_b64decode(each + "=")) for each in made} == {32}


async def test_role_comes_from_the_account(node: Node) -> None:
    ann = await node.register()

    async def promote(tx: Any) -> None:
        await tx.run("UPDATE users SET role = 'admin'")

    await node.db.write(promote)
    assert (await node.who(ann)).role == "admin"


async def test_the_cache_is_bounded_and_keeps_what_is_used(site: Site) -> None:
    node = await site.node(replace(CHEAP, token_cache=16))
    people = [await node.register(f"user{number}") for number in range(17)]
    for person in people[:16]:
        await node.who(person)
    assert node.room.known(people[0].access_token)
    await node.who(people[16])
    assert node.room.known(people[0].access_token)
    assert node.room.known(people[1].access_token) is None


async def test_a_mutilated_token_is_refused_and_nothing_worse(node: Node) -> None:
    token = (await node.register()).access_token
    chance = random.Random(7)
    for _ in range(500):
        forged = list(token)
        for _ in range(chance.randint(1, 4)):
            start = chance.randrange(len(forged) + 1)
            insert = "".join(chance.choices('aZ09-_.=/+ {}"\0é\ud800', k=chance.randint(0, 5)))
            forged[start : start + chance.randint(0, 60)] = insert
        if "".join(forged) != token:
            with pytest.raises(InvalidToken):
                await node.room.authenticate("".join(forged))


# rotation


async def test_a_new_key_is_verified_everywhere_before_it_signs(node: Node, site: Site) -> None:
    other = await site.node()
    ann = await node.register()
    old = _kid(ann)
    assert await keys.rotate(site.db, site.secrets, CHEAP, site.db.now_us()) == 2
    await node.room.poll_once()
    assert _kid(await node.refresh(ann)) == old
    site.db.forward(CHEAP.key_lead_s + 1)
    bob = await node.register("bob")
    assert _kid(bob) != old
    # the other node need not have polled: an unknown key is looked up
    assert (await other.who(bob)).user_id == bob.user_id
    assert (await other.who(ann)).user_id == ann.user_id
    rotated = await node.rows("SELECT facts FROM audit WHERE action = 'auth:key:rotated'")
    assert rotated == [('{"version":2}',)]


async def test_a_running_server_finds_the_new_key_by_itself(node: Node, site: Site) -> None:
    ann = await node.register()
    await keys.rotate(site.db, site.secrets, replace(CHEAP, key_lead_s=0), site.db.now_us())

    async def signs_anew() -> bool:
        return _kid(await node.refresh(ann)) != _kid(ann)

    await until(signs_anew, within_s=1.5)


async def test_an_old_key_is_given_up_when_its_tokens_are_dead(node: Node, site: Site) -> None:
    ann = await node.register()
    old = await _key(site)
    await keys.rotate(site.db, site.secrets, CHEAP, site.db.now_us())
    await node.room.poll_once()
    site.db.forward(CHEAP.key_lead_s + CHEAP.access_ttl_s - 5)
    far = int(time.time()) + 86_400
    await node.room.authenticate(_signed(old, _claims(ann, exp=far)))
    site.db.forward(120)
    with refused("INVALID_TOKEN"):
        await node.room.authenticate(_signed(old, _claims(ann, exp=far + 1)))


async def test_rotating_before_the_first_start_leaves_a_key_that_signs(site: Site) -> None:
    assert await keys.rotate(site.db, site.secrets, CHEAP, site.db.now_us()) == 1
    node = await site.node()
    await node.who(await node.register())


async def test_nodes_that_start_together_share_one_key(site: Site) -> None:
    nodes: list[Node] = []

    async def start() -> None:
        nodes.append(await site.node())

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(start)
    ann = await nodes[0].register()
    for node in nodes:
        await node.who(ann)


def _kid(person: Person) -> str:
    return str(jwt.get_unverified_header(person.access_token)["kid"])


def _part(data: dict[str, Any]) -> str:
    return _b64(msgspec.json.encode(data))


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
