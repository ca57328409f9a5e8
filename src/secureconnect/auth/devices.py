"""Devices: what people sign in from. A device is known by its id together with its secret, and outlives its
sessions, so that others cannot pretend to be it by knowing its id."""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from ..deps.contracts import Tx
from ..identity import DeviceId, UserId, new_id
from . import store
from .tokens import digest, random_token


@dataclass(frozen=True, slots=True)
class DeviceClaim:
    """What a login says of its device.  name: for people, like "Ann's phone"."""

    device_id: str | None = None
    secret: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class KnownDevice:
    """secret: told once, when the device is new."""

    device_id: DeviceId
    secret: str | None


async def recognise(tx: Tx, user: UserId, claim: DeviceClaim, now_us: int) -> KnownDevice:
    """The device the claim proves, else a new one."""
    if claim.device_id is not None and claim.secret is not None:
        stored = await store.get_device_secret(tx, claim.device_id, user)
        if stored is not None and hmac.compare_digest(stored, digest(claim.secret)):
            device = DeviceId(claim.device_id)
            if claim.name is not None:
                await store.rename_device(tx, device, claim.name)
            return KnownDevice(device, None)
    device, secret = DeviceId(new_id()), random_token()
    await store.add_device(tx, device, user, claim.name, digest(secret), now_us)
    return KnownDevice(device, secret)
