"""The keys a device has laid out for others: one-time keys, each handed out once, and the fallback behind.

Functions of a unit that holds the device (`store.publish`, `store.lock`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ...config import KeysConfig
from ...deps.contracts import Tx
from ...errors import IdentityKeyChanged, KeyIdReused, TooManyKeys
from ...identity import DeviceId, Principal
from . import store

PLAIN = "curve25519"  # one-time keys without, and pre-keys with a signature of their own beside them
SIGNED = "signed_curve25519"  # documents of Olm clients, signed within
ALGORITHMS = (SIGNED, PLAIN)


class KeyName(NamedTuple):
    algorithm: str
    key_id: str


async def publish(
    tx: Tx, config: KeysConfig, caller: Principal, identity_key: str, document: str | None, now_us: int
) -> store.Published:
    """What is published of the caller's device, held by this transaction: this, unless there was something.
    Raises IdentityKeyChanged, TooManyKeys when too many devices of this person have keys."""
    await store.lock_user(tx, caller.user_id)
    held = await store.publish(tx, caller.device_id, caller.user_id, identity_key, document, now_us)
    if held.identity_key != identity_key:
        raise IdentityKeyChanged
    if await store.count_devices(tx, caller.user_id) > config.devices:
        raise TooManyKeys(details={"limit": config.devices})
    return held


async def add_one_time_keys(
    tx: Tx, config: KeysConfig, device: DeviceId, keys: Mapping[KeyName, str], now_us: int
) -> None:
    """Keys that are there already are left as they are, also after they were claimed. Raises KeyIdReused for
    another key of the same id, TooManyKeys."""
    fresh: list[tuple[str, str, str]] = []
    for name, document in keys.items():
        held = await store.get_one_time_key(tx, device, *name)
        if held is None:
            fresh.append((*name, document))
        elif held != document:
            raise _reused(name)
    waiting = sum((await store.count_keys(tx, device)).values())
    if waiting + len(fresh) > config.one_time_keys:
        raise TooManyKeys(details={"limit": config.one_time_keys, "waiting": waiting})
    await store.add_one_time_keys(tx, device, fresh, now_us)


async def put_fallback(
    tx: Tx, config: KeysConfig, device: DeviceId, name: KeyName, document: str, now_us: int
) -> None:
    """The same again changes nothing. Raises KeyIdReused for another of the same id, and for one replaced."""
    held = await store.held_fallback(tx, device, *name)
    if held is None:
        await store.put_fallback(
            tx,
            device,
            *name,
            document,
            now_us=now_us,
            kept=config.pre_keys_kept,
        )
    elif held != (document, None):
        raise _reused(name)


async def hand_out(tx: Tx, device: DeviceId, algorithm: str, now_us: int) -> store.Handed | None:
    """A one-time key, else the fallback, which is used from then on."""
    key = await store.claim(tx, device, algorithm, now_us)
    return key or await store.use_fallback(tx, device, algorithm, now_us)


def _reused(name: KeyName) -> KeyIdReused:
    return KeyIdReused(details={"key_id": ":".join(name)})
