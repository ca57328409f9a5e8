"""The keys of Olm clients: documents their libraries make and check, taken and given as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import trio

from ...config import KeysConfig
from ...deps.contracts import Database, Tx
from ...errors import IdentityKeyChanged, Invalid, KeysMissing, TooManyKeys
from ...identity import DeviceId, Principal, UserId, is_id
from . import company, shelf, store
from .claims import Claims
from .names import Names
from .news import News
from .shelf import SIGNED, KeyName
from .signing import key_of, require_signed_document, text_of, written

Document = dict[str, Any]
KEY_ID_CHARS = 64


class OlmKeys:
    def __init__(self, config: KeysConfig, db: Database, names: Names, claims: Claims, news: News) -> None:
        self._config = config
        self._db = db
        self._names = names
        self._claims = claims
        self._news = news

    async def upload(
        self,
        caller: Principal,
        device_keys: Document | None,
        one_time_keys: Mapping[str, Document],
        fallback_keys: Mapping[str, Document],
    ) -> dict[str, int]:
        """Publish the caller's device, or lay out further keys of it. Returns how many one-time keys wait.

        Raises Invalid, KeySignatureWrong, IdentityKeyChanged, KeyIdReused, TooManyKeys, KeysMissing.
        """

        async def unit(tx: Tx) -> tuple[dict[str, int], bool]:
            is_changed = device_keys is not None and await self._publish(
                tx, caller, identity, device_keys, now_us
            )
            held = await store.lock(tx, caller.device_id)
            if held is None or held.identity_key != text_of(identity):
                raise KeysMissing
            for name, document in fallbacks.items():
                await shelf.put_fallback(tx, self._config, caller.device_id, name, document, now_us)
            await shelf.add_one_time_keys(tx, self._config, caller.device_id, keys, now_us)
            return await store.count_keys(tx, caller.device_id), is_changed

        whose = await self._whose(caller, device_keys)
        if whose is None:
            if one_time_keys or fallback_keys:
                raise KeysMissing
            return {SIGNED: 0}
        identity = whose
        _require_fallbacks(fallback_keys)
        fallbacks = await self._checked(caller, identity, fallback_keys, "fallback_keys")
        keys = await self._checked(caller, identity, one_time_keys, "one_time_keys")
        now_us = self._db.now_us()
        counts, is_changed = await self._db.write(unit)
        if is_changed:
            self._news.changed(caller.user_id, now_us)
        return {SIGNED: 0} | counts

    async def _whose(self, caller: Principal, device_keys: Document | None) -> bytes | None:
        """The identity that must have signed: the one given, else the one published."""
        if device_keys is not None:
            return self._identity(caller, device_keys)
        held = await self._db.read(store.published, caller.device_id)
        return None if held is None else key_of(held.identity_key, "device_keys", is_signing=True)

    async def _publish(
        self, tx: Tx, caller: Principal, identity: bytes, document: Document, now_us: int
    ) -> bool:
        """Whether that is news to others."""
        device, text = caller.device_id, self._bounded(document, "device_keys")
        held = await shelf.publish(tx, self._config, caller, text_of(identity), text, now_us)
        if held.document == text and held.published_us != now_us:
            return False
        if held.document is not None:
            curve = f"curve25519:{device}"
            if msgspec.json.decode(held.document)["keys"][curve] != document["keys"][curve]:
                raise IdentityKeyChanged
        await store.replace_document(tx, device, text)
        await company.note_change(tx, device, caller.user_id, now_us)
        return True

    def _identity(self, caller: Principal, document: Document) -> bytes:
        """The Ed25519 key of a device that describes itself. Raises Invalid, KeySignatureWrong."""
        field, device, me = "device_keys", caller.device_id, self._names.of(caller.user_id)
        if (document.get("user_id"), document.get("device_id")) != (me, device):
            raise Invalid("These are not the keys of this device.", details={"field": field})
        keys, algorithms = document.get("keys"), document.get("algorithms")
        if not isinstance(keys, dict) or keys.keys() != {f"ed25519:{device}", f"curve25519:{device}"}:
            raise Invalid(
                "A device has one Ed25519 and one Curve25519 key.", details={"field": f"{field}.keys"}
            )
        if not all(isinstance(key, str) for key in keys.values()):
            raise Invalid("A key is a text.", details={"field": f"{field}.keys"})
        if not isinstance(algorithms, list) or not all(isinstance(each, str) for each in algorithms):
            raise Invalid("Algorithms are a list of texts.", details={"field": f"{field}.algorithms"})
        identity = key_of(keys[f"ed25519:{device}"], f"{field}.keys", is_signing=True)
        key_of(keys[f"curve25519:{device}"], f"{field}.keys")
        require_signed_document(document, me, f"ed25519:{device}", identity, field)
        return identity

    async def _checked(
        self, caller: Principal, identity: bytes, given: Mapping[str, Document], field: str
    ) -> dict[KeyName, str]:
        """Documents by name. Raises Invalid, KeySignatureWrong."""
        if len(given) > self._config.one_time_keys:
            raise TooManyKeys(details={"limit": self._config.one_time_keys})
        keys: dict[KeyName, str] = {}
        me, signer = self._names.of(caller.user_id), f"ed25519:{caller.device_id}"
        for name, document in given.items():
            algorithm, _, key_id = name.partition(":")
            if algorithm != SIGNED or not 0 < len(key_id) <= KEY_ID_CHARS or not key_id.isprintable():
                raise Invalid(f"A key is named {SIGNED}:<id>.", details={"field": field})
            if not isinstance(document.get("key"), str):
                raise Invalid("A key is a text.", details={"field": f"{field}.key"})
            key_of(document["key"], f"{field}.key")
            require_signed_document(document, me, signer, identity, field)
            keys[KeyName(SIGNED, key_id)] = self._bounded(document, field)
            await trio.lowlevel.checkpoint()  # a signature takes a while
        return keys

    def _bounded(self, document: Document, field: str) -> str:
        text = written({name: value for name, value in document.items() if name != "unsigned"}, field)
        if len(text.encode()) > self._config.document_bytes:
            raise Invalid(f"A key has {self._config.document_bytes} bytes at most.", details={"field": field})
        return text

    async def query(self, caller: Principal, asked: Mapping[str, list[str]]) -> Document:
        """The documents of these people's devices (all, or those named) and their cross-signing keys, as an
        Olm client takes them. Whom the caller does not meet is left out."""

        async def unit(tx: Tx) -> Document:
            answer: Document = {
                "device_keys": {},
                "failures": {},
                "master_keys": {},
                "self_signing_keys": {},
                "user_signing_keys": {},
            }
            for user, devices in people.items():
                if user == caller.user_id or await company.meets(tx, caller.user_id, user):
                    await self._describe(tx, caller.user_id, user, devices, answer)
            return answer

        people = self._people(asked, "device_keys")
        return await self._db.read(unit)

    async def _describe(
        self, tx: Tx, viewer: UserId, user: UserId, wanted: list[str], answer: Document
    ) -> None:
        name = self._names.of(user)
        devices: dict[str, Document] = {
            each.device_id: msgspec.json.decode(each.document)
            for each in await store.devices_of(tx, user)
            if each.document is not None and (not wanted or each.device_id in wanted)
        }
        cross = await store.cross_keys(tx, user)
        documents = {usage: msgspec.json.decode(key.document) for usage, key in cross.items()}
        by_target: dict[str, Document] = dict(devices)
        if "master" in cross:
            by_target[cross["master"].public_key] = documents["master"]
        for each in await store.signatures_for(tx, user, viewer):
            if each.target in by_target:
                signatures = by_target[each.target].setdefault("signatures", {})
                signatures.setdefault(self._names.of(each.signer_id), {})[each.signing_key] = each.signature
        answer["device_keys"][name] = devices
        for usage, document in documents.items():
            if usage != "user_signing" or user == viewer:
                answer[f"{usage}_keys"][name] = document

    async def claim(
        self, caller: Principal, asked: Mapping[str, Mapping[str, str]], claim_key: str | None
    ) -> Document:
        """One key of each of these devices, by person and device; devices without any are left out, and so
        are people whom the caller does not meet or of whom too many were claimed."""

        async def visible(tx: Tx) -> set[UserId]:
            me = caller.user_id
            return {each for each in people if each == me or await company.meets(tx, me, each)}

        async def unit(tx: Tx) -> str:
            text = written({user: dict(people[user]) for user in sorted(people)}, "one_time_keys")
            return await self._claims.once(
                tx, caller.device_id, claim_key, text, lambda: self._claim(tx, chosen), now_us
            )

        people = {self._names.user(name, "one_time_keys"): dict(devices) for name, devices in asked.items()}
        self._require_few(sum(map(len, people.values())) + len(people), "one_time_keys")
        now_us = self._db.now_us()
        allowed = await self._claims.allowed(caller.user_id, sorted(await self._db.read(visible)))
        chosen = {user: devices for user, devices in people.items() if user in allowed}
        given: dict[str, Document] = msgspec.json.decode(await self._db.write(unit))
        self._news.stirred(
            [
                (self._names.user(name, "user"), DeviceId(each))
                for name, found in given.items()
                for each in found
            ]
        )
        return given

    async def _claim(self, tx: Tx, chosen: Mapping[UserId, Mapping[str, str]]) -> str:
        now_us = self._db.now_us()
        given: dict[str, Document] = {}
        for user, devices in sorted(chosen.items()):
            known = {each.device_id for each in await store.devices_of(tx, user)}
            for device in sorted(known & devices.keys()):
                key = await shelf.hand_out(tx, device, devices[device], now_us)
                if key is not None:
                    named = {f"{devices[device]}:{key.key_id}": msgspec.json.decode(key.document)}
                    given.setdefault(self._names.of(user), {})[device] = named
        return msgspec.json.encode(given).decode()

    def _people(self, asked: Mapping[str, list[str]], field: str) -> dict[UserId, list[str]]:
        self._require_few(len(asked) + sum(map(len, asked.values())), field)
        if not all(is_id(device) for devices in asked.values() for device in devices):
            raise Invalid("A device id is a UUID.", details={"field": field})
        return {self._names.user(name, field): devices for name, devices in asked.items()}

    def _require_few(self, number: int, field: str) -> None:
        if number > self._config.asked_people:
            raise Invalid(
                f"At most {self._config.asked_people} can be named at a time.", details={"field": field}
            )


def _require_fallbacks(given: Mapping[str, Document]) -> None:
    """Raises Invalid unless they say that they are some, and nothing else: a bundle shows no more of them."""
    if len(given) > 1 or any(
        document.get("fallback") is not True
        or document.keys() - {"key", "fallback", "signatures", "unsigned"}
        for document in given.values()
    ):
        raise Invalid(
            "There is one fallback key, and it says that it is one.", details={"field": "fallback_keys"}
        )
