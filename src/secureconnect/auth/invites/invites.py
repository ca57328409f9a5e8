"""Making, listing, taking back and spending invites."""

from __future__ import annotations

import msgspec

from ... import audit
from ...clock import SECOND_US, to_iso
from ...config import AuthConfig
from ...deps.contracts import Database, Tx
from ...edge import require_admin
from ...errors import InviteInvalid, NotFound
from ...identity import Principal, new_id
from ..tokens import digest, random_token
from . import store
from .store import Invite

DAY_S = 86_400


class Made(msgspec.Struct, frozen=True):
    """code: told this once.  link: where a browser registers with it; a path if the server has no URL. The
    code stands behind the `#`, which browsers keep to themselves: no log on the way sees it."""

    invite: Invite
    code: str
    link: str


class Invites:
    """public_url: of this server, may be empty."""

    def __init__(self, config: AuthConfig, db: Database, public_url: str) -> None:
        self._lasts_s = config.invite_days * DAY_S
        self._db = db
        self._public_url = public_url

    async def make(self, caller: Principal, max_uses: int, lasts_s: int | None, address: str) -> Made:
        """For `max_uses` people who register within `lasts_s`, or what is set. Raises Forbidden."""

        async def unit(tx: Tx) -> None:
            await store.add(tx, invite, digest(code))
            await audit.record(
                tx,
                action="auth:invite:created",
                actor=caller.user_id,
                subject=invite.invite_id,
                address=address,
                facts={"max_uses": max_uses, "expires_at": to_iso(invite.expires_us)},
                now_us=now_us,
            )

        require_admin(caller, "invites")
        now_us, code = self._db.now_us(), random_token()
        expires_us = now_us + (lasts_s or self._lasts_s) * SECOND_US
        invite = Invite(new_id(), caller.user_id, now_us, expires_us, max_uses, uses=0)
        await self._db.write(unit)
        return Made(invite, code, f"{self._public_url}/invite#code={code}")

    async def list(self, caller: Principal, before: str, limit: int) -> list[Invite]:
        """Those that have not expired, the newest first; one more than `limit` if there are more.
        Raises Forbidden."""
        require_admin(caller, "invites")
        return await self._db.read(store.list_live, before=before, limit=limit + 1, now_us=self._db.now_us())

    async def delete(self, caller: Principal, invite: str, address: str) -> None:
        """Nobody registers with it any more. Raises Forbidden, NotFound."""

        async def unit(tx: Tx) -> None:
            if not await store.delete(tx, invite):
                raise NotFound
            await audit.record(
                tx,
                action="auth:invite:deleted",
                actor=caller.user_id,
                subject=invite,
                address=address,
                now_us=self._db.now_us(),
            )

        require_admin(caller, "invites")
        await self._db.write(unit)


async def spend(tx: Tx, code: str, now_us: int) -> str:
    """Take one use, in the unit that makes the account. Returns the invite's id. Raises InviteInvalid."""
    invite = await store.spend(tx, digest(code), now_us)
    if invite is None:
        raise InviteInvalid
    return invite
