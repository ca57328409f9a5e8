"""Devices: what people sign in from. A device is known by its id together with its secret, and outlives its
sessions, so that others cannot pretend to be it by knowing its id."""

from __future__ import annotations

import hmac

import msgspec

from ..deps.contracts import Tx
from ..identity import DeviceId, UserId, new_id
from . import store
from .tokens import digest, random_token

NOBODY = UserId("00000000-0000-0000-0000-000000000000")


class DeviceClaim(msgspec.Struct, frozen=True):
    """What a login says of its device.  name: for people, like "Ann's phone"."""

    device_id: str | None = None
    secret: str | None = None
    name: str | None = None


class KnownDevice(msgspec.Struct, frozen=True):
    """secret: told once, when the device is new."""

    device_id: DeviceId
    secret: str | None


async def proved(tx: Tx, user: UserId | None, claim: DeviceClaim) -> DeviceId | None:
    """The device of this user that the claim proves. For nobody the same is done, in vain."""
    if claim.device_id is None or claim.secret is None:
        return None
    stored = await store.get_device_secret(tx, claim.device_id, user or NOBODY)
    if stored is None or not hmac.compare_digest(stored, digest(claim.secret)):
        return None
    return DeviceId(claim.device_id)


async def recognise(tx: Tx, user: UserId, claim: DeviceClaim, now_us: int) -> KnownDevice:
    """The device the claim proves, else a new one."""
    known = await proved(tx, user, claim)
    if known is not None:
        if claim.name is not None:
            await store.rename_device(tx, known, claim.name)
        return KnownDevice(known, None)
    device, secret = DeviceId(new_id()), random_token()
    await store.add_device(tx, device, user, claim.name, digest(secret), now_us)
    return KnownDevice(device, secret)
