"""The rules for what people change about themselves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from ... import audit
from ...deps.contracts import Database, Tx, UniqueViolation
from ...errors import Invalid, NotFound, UsernameTaken
from ...identity import Principal, UserId
from .. import store as accounts
from ..accounts import checked_name, checked_password, checked_username, fold
from ..passwords import Passwords
from ..reauthentication import Reauthentication, require_open
from ..recovery import store as mailed
from ..recovery.letters import Letters
from ..sessions import Closed, Origin, Sessions
from . import store
from .store import Privacy

AVATAR_CHARS = 2_048
Hidden = Callable[[Tx, UserId], Awaitable[None]]


def checked_avatar(url: str) -> str:
    """Where a browser may load a picture from: http or https, or a path on this server. Raises Invalid."""
    try:
        parts = urlsplit(url)
        is_web = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None
    except ValueError:
        is_web = False
    is_path = url.startswith("/") and not url.startswith(("//", "/\\"))
    plain = url.isprintable() and not any(c in url for c in " \"'<>\\")
    if len(url) > AVATAR_CHARS or not plain or not (is_web or is_path):
        raise Invalid(
            "An avatar is at an http or https address, or a path here.", details={"field": "avatar_url"}
        )
    return url


async def _unkept(_: Tx, __: UserId) -> None:
    """Whoever keeps when people were last here is told once `connect` says who that is."""


class Profile:
    """hidden: in the transaction in which somebody ceases to show when they were last here."""

    def __init__(
        self,
        db: Database,
        passwords: Passwords,
        sessions: Sessions,
        reauthentication: Reauthentication,
        letters: Letters,
    ) -> None:
        self._letters = letters
        self._db = db
        self._passwords = passwords
        self._sessions = sessions
        self._reauthentication = reauthentication
        self.hidden: Hidden = _unkept

    async def change(
        self, caller: UserId, changes: Mapping[str, str | None], origin: Origin
    ) -> accounts.User:
        """changes: any of username, display_name, avatar_url. Raises Invalid, UsernameTaken."""
        checked: dict[str, Any] = {}
        for field, given in changes.items():
            if field == "avatar_url":
                checked[field] = None if given is None else checked_avatar(given)
            elif given is None:
                raise Invalid("This can be changed, not taken away.", details={"field": field})
            elif field == "username":
                checked[field] = checked_username(given)
            else:
                checked[field] = checked_name(given, field)
        try:
            return await self._db.write(self._change, caller, checked, origin)
        except UniqueViolation:
            raise UsernameTaken from None

    async def _change(
        self, tx: Tx, caller: UserId, changes: Mapping[str, Any], origin: Origin
    ) -> accounts.User:
        old = await _locked(tx, caller)
        new = old._replace(**changes)
        if new == old:
            return old
        now_us = self._db.now_us()
        await store.change(
            tx,
            caller,
            username=new.username,
            username_key=fold(new.username),
            display_name=new.display_name,
            display_key=fold(new.display_name),
            avatar_url=new.avatar_url,
            now_us=now_us,
        )
        if new.username != old.username:
            await audit.record(
                tx,
                action="auth:user:renamed",
                actor=caller,
                subject=caller,
                address=origin.address,
                facts={"username": new.username},
                now_us=now_us,
            )
        return new

    async def change_password(
        self, caller: Principal, password: str, totp_code: str | None, new_password: str, origin: Origin
    ) -> None:
        """Every other session of theirs ends. Raises Invalid, and as `Reauthentication.require` does."""

        async def unit(tx: Tx) -> Closed:
            await require_open(tx, caller)
            user = await _locked(tx, caller.user_id)
            now_us = self._db.now_us()
            await accounts.change_password(tx, caller.user_id, password_hash, now_us)
            await mailed.drop_tokens(tx, caller.user_id)  # asked for by somebody else, perhaps
            await audit.record(
                tx,
                action="auth:password:changed",
                actor=caller.user_id,
                subject=caller.user_id,
                address=origin.address,
                now_us=now_us,
            )
            await self._letters.warn(tx, user, "password_changed", origin, now_us)
            return await self._sessions.close(
                tx, caller.user_id, origin.address, now_us, but=caller.session_id
            )

        checked_password(new_password)
        await self._reauthentication.require(caller.user_id, password, totp_code, origin)
        password_hash = await self._passwords.hash(new_password)
        self._sessions.closed(await self._db.write(unit))

    async def privacy(self, caller: UserId) -> Privacy:
        found = await self._db.read(store.get_privacy, caller)
        if found is None:
            raise NotFound
        return found

    async def set_privacy(self, caller: UserId, changes: Mapping[str, bool]) -> Privacy:
        """changes: any of the choices."""

        async def unit(tx: Tx) -> Privacy:
            await _locked(tx, caller)
            old = await store.get_privacy(tx, caller)
            if old is None:
                raise NotFound
            new = old._replace(**changes)
            await store.set_privacy(tx, caller, new, self._db.now_us())
            if not new.last_seen:
                await self.hidden(tx, caller)
            return new

        return await self._db.write(unit)


async def _locked(tx: Tx, user: UserId) -> accounts.User:
    found = await accounts.get_user(tx, user) if await store.lock(tx, user) else None
    if found is None:
        raise NotFound
    return found
