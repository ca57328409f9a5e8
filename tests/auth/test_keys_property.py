"""Whatever devices do in whatever order: no key is handed out twice, and signed JSON has one form."""

from __future__ import annotations

import base64
import json
import random
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.databases import open_sqlite
from kit.olm import SIGNED, OlmDevice
from secureconnect.auth.devicekeys.signing import SAFE, key_of, signable, text_of
from secureconnect.config import KeysConfig
from secureconnect.errors import Invalid
from secureconnect.identity import new_id
from secureconnect.node import Secrets

from .harness import Clocked, Node, Person, Site, refused
from .test_devicekeys import bring_together, claim, device_of

Json = dict[str, Any]
Step = tuple[str, int]

MOST = 100  # one-time keys that may wait
ACTS = ("upload", "upload", "again", "reuse", "too many", "fallback", "fallback again", "purge", "sign out")
CLAIMS = ("claim", "claim", "claim", "claim again")


class Model:
    """What a server must know of one device, and say of it.

    waiting: in the order in which they are handed out.  known: documents by name, also of those handed out.
    """

    def __init__(self, device: OlmDevice) -> None:
        self.device = device
        self.waiting: list[str] = []
        self.known: dict[str, Json] = {}
        self.fallback: tuple[str, Json] | None = None
        self.is_used = False
        self.replaced: dict[str, Json] = {}

    def takes(self, keys: dict[str, Json]) -> None:
        self.known |= keys
        self.waiting += sorted(keys)

    def replaces(self, fallback: dict[str, Json]) -> None:
        if self.fallback is not None:
            self.replaced[self.fallback[0]] = self.fallback[1]
        ((name, key),) = fallback.items()
        self.fallback, self.is_used = (name, key), False

    def hands_out(self) -> Json | None:
        if self.waiting:
            name = self.waiting.pop(0)
            return {name: self.known[name]}
        if self.fallback is None:
            return None
        self.is_used = True
        return dict([self.fallback])


class Play:
    """One device of bob's, of whose keys ann and carl take."""

    def __init__(self, node: Node, bob: Person, others: list[Person]) -> None:
        self.node = node
        self.bob = bob
        self.others = others
        self.model = Model(device_of(bob))
        self.handed: list[str] = []
        self.last: dict[str, tuple[str, Json | None]] = {}

    async def begin(self) -> None:
        body = self.model.device.upload(2)
        await self._upload(body)
        self.model.takes(body["one_time_keys"])
        self.model.replaces(body["fallback_keys"])

    async def _upload(self, body: Json) -> None:
        self.node.db.ahead_us += 1
        await self.node.ask("POST /v1/e2ee/keys/upload", body, as_=self.bob)

    async def act(self, act: str, number: int) -> None:
        device, model = self.model.device, self.model
        match act:
            case "upload":
                keys = device.one_time_keys(number % 4)
                await self._upload({"one_time_keys": keys})
                model.takes(keys)
            case "again":
                await self._upload({"one_time_keys": model.known})
            case "reuse":
                name = sorted(model.known)[number % len(model.known)]
                (other,) = device.one_time_keys(1).values()
                fresh = device.one_time_keys(1)
                with refused("KEY_ID_REUSED"):
                    await self._upload({"one_time_keys": {name: other} | fresh})
            case "too many":
                with refused("TOO_MANY_KEYS"):
                    await self._upload({"one_time_keys": device.one_time_keys(MOST + 1 - len(model.waiting))})
            case "fallback":
                key = device.fallback_key()
                await self._upload({"fallback_keys": key})
                model.replaces(key)
            case "fallback again":
                assert model.fallback is not None
                await self._upload({"fallback_keys": dict([model.fallback])})
                for name, key in model.replaced.items():
                    with refused("KEY_ID_REUSED"):
                        await self._upload({"fallback_keys": {name: key}})
            case "purge":
                await self.node.room.device_keys.purge()
                model.waiting.clear()
            case "sign out":
                await self.node.ask("POST /v1/auth/logout", as_=self.bob)
                assert await claim(self.node, self.others[0], device) is None
                self.bob = await self.node.login(
                    self.bob.username, device_id=self.bob.device_id, device_secret=self.bob.device_secret
                )
                self.model = Model(device_of(self.bob))
                self.last.clear()
                await self.begin()

    async def claim(self, act: str, number: int) -> None:
        who = self.others[number % len(self.others)]
        if act == "claim again" and who.user_id in self.last:
            key, before = self.last[who.user_id]
            assert await claim(self.node, who, self.model.device, key) == before
            return
        key = new_id()
        expected = self.model.hands_out()
        given = await claim(self.node, who, self.model.device, key)
        assert given == expected
        self.last[who.user_id] = (key, given)
        self.handed += [each["key"] for each in (given or {}).values() if "fallback" not in each]

    async def check(self) -> None:
        told = await self.node.ask("GET /v1/e2ee/sync", as_=self.bob)
        assert told["one_time_key_counts"] == {SIGNED: len(self.model.waiting)}
        assert told["unused_fallback_keys"] == ([] if self.model.is_used else [SIGNED])
        assert len(set(self.handed)) == len(self.handed)


acts = st.tuples(st.sampled_from(ACTS + CLAIMS), st.integers(0, 1000))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.lists(acts, min_size=5, max_size=25))
def test_a_model_of_one_device(steps: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trio.run(_play_on_sqlite, Path(folder), steps)


async def _play_on_sqlite(folder: Path, steps: list[Step]) -> None:
    async with open_sqlite(folder) as db, trio.open_nursery() as nursery:
        secrets = await Secrets.open(db, folder, "")
        await _play(Site(Clocked(db), secrets, nursery, folder), steps)
        nursery.cancel_scope.cancel()


async def test_the_same_on_both_databases(site: Site) -> None:
    chance = random.Random(5)
    await _play(site, [(chance.choice(ACTS + CLAIMS), chance.randrange(1000)) for _ in range(80)])


async def _play(site: Site, steps: list[Step]) -> None:
    node = await site.node(keys=KeysConfig(claims=1_000_000, one_time_keys=MOST))
    bob, *others = [await node.register(name) for name in ("bob", "ann", "carl")]
    await bring_together(node.db, bob, *others)
    play = Play(node, bob, others)
    await play.begin()
    for act, number in steps:
        await (play.claim if act in CLAIMS else play.act)(act, number)
        await play.check()


# canonical JSON

words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)
documents = st.dictionaries(
    words,
    st.recursive(
        st.none() | st.booleans() | st.integers(-SAFE, SAFE) | words,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=5,
)
_ESCAPED = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


def canonical(value: Any) -> str:
    """As the Matrix specification tells it, letter by letter."""
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: [ord(letter) for letter in name])
        return "{" + ",".join(f"{canonical(name)}:{canonical(value[name])}" for name in names) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    if isinstance(value, str):
        letters = (
            _ESCAPED.get(each, each) if each >= " " or each in _ESCAPED else f"\\u{ord(each):04x}"
            for each in value
        )
        return '"' + "".join(letters) + '"'
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


@settings(derandomize=True, deadline=None)
@given(documents, st.randoms(use_true_random=False))
def test_signed_json_has_one_form(document: Json, chance: Any) -> None:
    document = {name: value for name, value in document.items() if name not in ("signatures", "unsigned")}
    covered = signable(document, "")
    assert covered.decode() == canonical(document)
    assert json.loads(covered) == document
    # however it comes over the wire, the same is covered
    names = list(document)
    chance.shuffle(names)
    shuffled = {name: document[name] for name in names}
    signed = shuffled | {"signatures": {"@a:b": {"ed25519:x": "y"}}, "unsigned": {"n": 1.5}}
    for text in (json.dumps(signed), json.dumps(signed, indent=1, ensure_ascii=False)):
        assert signable(msgspec.json.decode(text), "") == covered


raw = st.binary(min_size=32, max_size=32).map(lambda key: base64.b64encode(key).decode())


@settings(derandomize=True, deadline=None)
@given(raw | st.text(max_size=50), st.booleans())
def test_a_text_is_a_key_in_its_one_form_or_refused(text: str, is_signing: bool) -> None:
    with suppress(Invalid):
        assert text_of(key_of(text, "key", is_signing=is_signing)) == text.rstrip("=")
