"""Bundles: what another device needs to begin, as clients of the original calls know it."""

from __future__ import annotations

from typing import Literal

import msgspec

from ...clock import DAY_US
from ...config import KeysConfig
from ...deps.contracts import Database, Tx
from ...errors import Invalid, KeyIdReused, KeysMissing, NotFound
from ...identity import DeviceId, Principal, UserId
from . import company, shelf, store
from .claims import Claims
from .names import Names
from .news import News
from .shelf import PLAIN, SIGNED, KeyName
from .signing import key_of, require_signed, signable, text_of, written

Format = Literal["raw", "fallback_json"]
_PRE_KEY = "signed_pre_key"


class PreKey(msgspec.Struct, frozen=True):
    """format: what the signature covers: the 32 bytes of the key, or the document an Olm client signs."""

    key_id: str
    public_key: str
    signature: str
    format: Format


class GivenPreKey(msgspec.Struct, frozen=True):
    key_id: str
    public_key: str
    signature: str
    signature_format: Format
    created_us: int
    is_stale: bool


class Bundle(msgspec.Struct, frozen=True):
    """curve25519_key: of an Olm client.  one_time_pre_key: id and key, None when none is left."""

    device_id: str
    devices: list[str]
    identity_key: str
    curve25519_key: str | None
    signed_pre_key: GivenPreKey | None
    one_time_pre_key: tuple[str, str] | None


class Stock(msgspec.Struct, frozen=True):
    """pre_key_us: since when the signed pre-key is handed out, None without one."""

    one_time_keys: int
    pre_key_us: int | None
    is_stale: bool


_bundles = msgspec.json.Decoder(Bundle)


class Bundles:
    def __init__(self, config: KeysConfig, db: Database, names: Names, claims: Claims, news: News) -> None:
        self._config = config
        self._db = db
        self._names = names
        self._claims = claims
        self._news = news

    async def upload(
        self, caller: Principal, identity_key: str, pre_key: PreKey, one_time_keys: list[tuple[str, str]]
    ) -> int:
        """Publish the caller's device. Returns how many one-time keys wait now.

        one_time_keys: id and key.  Raises Invalid, KeySignatureWrong, IdentityKeyChanged, KeyIdReused,
        TooManyKeys.
        """

        async def unit(tx: Tx) -> tuple[int, bool]:
            held = await shelf.publish(tx, self._config, caller, text_of(identity), None, now_us)
            await shelf.put_fallback(tx, self._config, caller.device_id, *fallback, now_us)
            await shelf.add_one_time_keys(tx, self._config, caller.device_id, keys, now_us)
            is_new = held.published_us == now_us
            if is_new:
                await company.note_change(tx, caller.device_id, caller.user_id, now_us)
            return sum((await store.count_keys(tx, caller.device_id)).values()), is_new

        identity = key_of(identity_key, "identity_key", is_signing=True)
        fallback = self._checked_pre_key(caller, identity, pre_key)
        keys = _checked_keys(one_time_keys)
        now_us = self._db.now_us()
        waiting, is_new = await self._db.write(unit)
        if is_new:
            self._news.changed(caller.user_id, now_us)
        return waiting

    async def rotate(self, caller: Principal, pre_key: PreKey, one_time_keys: list[tuple[str, str]]) -> int:
        """Replace the signed pre-key, and add keys. Raises KeysMissing, and as `upload` does."""

        async def unit(tx: Tx) -> int:
            held = await store.lock(tx, caller.device_id)
            if held is None:
                raise KeysMissing
            identity = key_of(held.identity_key, "identity_key", is_signing=True)
            fallback = self._checked_pre_key(caller, identity, pre_key)
            await shelf.put_fallback(tx, self._config, caller.device_id, *fallback, now_us)
            await shelf.add_one_time_keys(tx, self._config, caller.device_id, keys, now_us)
            return sum((await store.count_keys(tx, caller.device_id)).values())

        keys = _checked_keys(one_time_keys)
        now_us = self._db.now_us()
        return await self._db.write(unit)

    async def count(self, caller: Principal) -> Stock:
        async def unit(tx: Tx) -> Stock:
            found = await store.fallbacks(tx, caller.device_id)
            since_us = max((each.added_us for each in found), default=None)
            keys = sum((await store.count_keys(tx, caller.device_id)).values())
            return Stock(keys, since_us, since_us is not None and self._is_stale(since_us))

        return await self._db.read(unit)

    async def get(
        self, caller: Principal, user: UserId, device: DeviceId | None, claim_key: str | None
    ) -> Bundle:
        """A bundle of that device, else of the newest; a one-time key in it is gone with that. Raises
        NotFound when the two do not meet, RateLimited."""

        async def unit(tx: Tx) -> str:
            return await self._claims.once(
                tx,
                caller.device_id,
                claim_key,
                f"{user} {device}",
                lambda: self._get(tx, user, device),
                now_us,
            )

        now_us = self._db.now_us()
        if user != caller.user_id and not await self._db.read(company.meets, caller.user_id, user):
            raise NotFound(denial="denied:keys", subject=user)
        await self._claims.allowed(caller.user_id, [user])
        bundle = _bundles.decode(await self._db.write(unit))
        self._news.stirred([(user, DeviceId(bundle.device_id))])
        return bundle

    async def _get(self, tx: Tx, user: UserId, wanted: DeviceId | None) -> str:
        devices = await store.devices_of(tx, user)
        chosen = next((each for each in devices if wanted in (None, each.device_id)), None)
        if chosen is None:
            raise NotFound
        now_us = self._db.now_us()
        document = msgspec.json.decode(chosen.document) if chosen.document else None
        signed = {each.algorithm: each for each in await store.fallbacks(tx, chosen.device_id)}
        pre_key = signed.get(SIGNED) or signed.get(PLAIN)
        key = await store.claim(tx, chosen.device_id, SIGNED, now_us)
        key = key or await store.claim(tx, chosen.device_id, PLAIN, now_us)
        if key is None and pre_key is not None:
            await store.use_fallback(tx, chosen.device_id, pre_key.algorithm, now_us)
        return msgspec.json.encode(
            Bundle(
                chosen.device_id,
                [each.device_id for each in devices],
                chosen.identity_key,
                document and document["keys"][f"curve25519:{chosen.device_id}"],
                pre_key and self._given(user, chosen.device_id, pre_key),
                key and (key.key_id, str(msgspec.json.decode(key.document)["key"])),
            )
        ).decode()

    def _given(self, user: UserId, device: DeviceId, pre_key: store.Fallback) -> GivenPreKey:
        document = msgspec.json.decode(pre_key.document)
        is_raw = pre_key.algorithm == PLAIN
        return GivenPreKey(
            pre_key.key_id,
            document["key"],
            document["signature"]
            if is_raw
            else document["signatures"][self._names.of(user)][f"ed25519:{device}"],
            "raw" if is_raw else "fallback_json",
            pre_key.added_us,
            self._is_stale(pre_key.added_us),
        )

    def _is_stale(self, added_us: int) -> bool:
        return self._db.now_us() - added_us > self._config.pre_key_stale_days * DAY_US

    def _checked_pre_key(self, caller: Principal, identity: bytes, given: PreKey) -> tuple[KeyName, str]:
        """Its name and document. Raises Invalid, KeySignatureWrong."""
        key = key_of(given.public_key, f"{_PRE_KEY}.public_key")
        if given.format == "raw":
            require_signed(key, given.signature, identity, f"{_PRE_KEY}.signature")
            return KeyName(PLAIN, given.key_id), written(
                {"key": text_of(key), "signature": given.signature}, _PRE_KEY
            )
        document = {"key": given.public_key, "fallback": True}
        covered = signable(document, _PRE_KEY)
        require_signed(covered, given.signature, identity, f"{_PRE_KEY}.signature")
        mine = {f"ed25519:{caller.device_id}": given.signature}
        signed = document | {"signatures": {self._names.of(caller.user_id): mine}}
        return KeyName(SIGNED, given.key_id), written(signed, _PRE_KEY)


def _checked_keys(given: list[tuple[str, str]]) -> dict[KeyName, str]:
    """Raises Invalid, KeyIdReused."""
    keys: dict[KeyName, str] = {}
    for key_id, public_key in given:
        document = written({"key": text_of(key_of(public_key, "one_time_pre_keys"))}, "one_time_pre_keys")
        if keys.setdefault(KeyName(PLAIN, key_id), document) != document:
            raise KeyIdReused(details={"key_id": key_id})
    if len(set(keys.values())) != len(keys):
        raise Invalid("A one-time key is there twice.", details={"field": "one_time_pre_keys"})
    return keys
