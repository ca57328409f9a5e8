"""Accounts: registering, signing in, and finding people.

A username is 3 to 50 of the ASCII letters, digits and `_ . -`, and begins with a letter, a digit or `_`:
names that look alike in other alphabets cannot pose as one another. The display name takes any script.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from .. import audit
from ..clock import to_iso
from ..config import AuthConfig
from ..deps.contracts import Database, Tx
from ..errors import (
    EmailTaken,
    Invalid,
    InvalidCredentials,
    NotFound,
    RegistrationClosed,
    Unavailable,
    UsernameTaken,
)
from ..identity import UserId, new_id
from . import store
from .attempts import counted
from .devices import DeviceClaim
from .passwords import Passwords
from .recovery.letters import Letters
from .sessions import Grant, Opened, Origin, Sessions

USERNAME = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{2,49}$"
NAME_CHARS = 100
EMAIL_CHARS = 254
PASSWORD_CHARS = (8, 1024)

# One @ between a local part and a name with a dot; whether mail arrives is another question.
_EMAIL = re.compile(r'[^\s@"(),:;<>\[\]\\]{1,64}@[^\W_](?:[\w-]*[^\W_])?(?:\.[^\W_](?:[\w-]*[^\W_])?)+')
# these turn around the text after them, other people's included
_TURNING = frozenset("\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def fold(text: str) -> str:
    """What uniqueness and search compare: equal for texts that differ in case, width or composition only.
    Source: Unicode 15, D146 (compatibility caseless match)."""
    text = unicodedata.normalize("NFD", text).casefold()
    text = unicodedata.normalize("NFKD", text).casefold()
    return unicodedata.normalize("NFKC", text)


def checked_name(text: str, field: str) -> str:
    """A name for people to read, without blanks around it. Raises Invalid."""
    name = unicodedata.normalize("NFC", text).strip()
    if not 0 < len(name) <= NAME_CHARS:
        raise Invalid(f"A name has 1 to {NAME_CHARS} characters.", details={"field": field})
    if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c in _TURNING for c in name):
        raise Invalid("A name must not contain control characters.", details={"field": field})
    return name


def checked_username(text: str) -> str:
    if re.fullmatch(USERNAME, text) is None:
        raise Invalid(
            "A username has 3 to 50 letters, digits, '_', '.' or '-', and begins with no '.' or '-'.",
            details={"field": "username"},
        )
    return text


def checked_email(text: str) -> str:
    for form in (text, fold(text)):
        if len(form) > EMAIL_CHARS or not form.isprintable() or _EMAIL.fullmatch(form) is None:
            raise Invalid("This is not an e-mail address.", details={"field": "email"})
    return text


def checked_password(text: str, field: str = "password") -> str:
    low, high = PASSWORD_CHARS
    if not low <= len(text) <= high:
        raise Invalid(f"A password has {low} to {high} characters.", details={"field": field})
    return text


# keeps a new account, the hash of its password and its owner's Accept-Language until its address is confirmed
Keep = Callable[[store.User, str, str], Awaitable[None]]


class Accounts:
    """keep_first: where e-mail addresses are confirmed before an account begins; None where they are not."""

    def __init__(
        self,
        config: AuthConfig,
        db: Database,
        passwords: Passwords,
        sessions: Sessions,
        letters: Letters,
        keep_first: Keep | None,
    ) -> None:
        self._letters = letters
        self._keep_first = keep_first
        self._config = config
        self._db = db
        self._passwords = passwords
        self._sessions = sessions

    async def register(
        self,
        *,
        email: str,
        username: str,
        password: str,
        display_name: str | None,
        origin: Origin,
        language: str = "",
    ) -> tuple[store.User, Grant] | None:
        """None: the account begins once its address is confirmed, or is somebody else's; which, is not told.
        Raises Invalid, UsernameTaken, RegistrationClosed; EmailTaken where addresses are not confirmed."""

        async def unit(tx: Tx) -> Opened:
            added = await store.add_user(
                tx,
                user,
                username_key=fold(user.username),
                email_key=fold(user.email),
                display_key=fold(user.display_name),
                password_hash=password_hash,
            )
            if not added:
                raise EmailTaken if await store.is_email_taken(tx, fold(user.email)) else UsernameTaken
            await audit.record(
                tx,
                action="auth:user:registered",
                actor=user.user_id,
                subject=user.user_id,
                address=origin.address,
                now_us=now_us,
            )
            return await self._sessions.open(tx, user.user_id, DeviceClaim(), origin, now_us)

        with counted("register"):
            if self._config.registration == "closed":
                raise RegistrationClosed
            checked_password(password)
            now_us = self._db.now_us()
            user = store.User(
                UserId(new_id()),
                checked_username(username),
                checked_email(email),
                checked_name(username if display_name is None else display_name, "display_name"),
                avatar_url=None,
                role="user",
                created_us=now_us,
            )
            password_hash = await self._passwords.hash(password)
            if self._keep_first is not None:
                await self._keep_first(user, password_hash, language)
                return None
            return user, self._sessions.grant(await self._db.write(unit))

    async def login(
        self,
        *,
        email: str | None,
        username: str | None,
        password: str,
        claim: DeviceClaim,
        origin: Origin,
        language: str = "",
    ) -> tuple[store.User, Grant]:
        """By e-mail address if given, else by username. Raises InvalidCredentials for an unknown user and for
        a wrong password, after the same work."""

        async def unit(tx: Tx) -> tuple[store.User, Opened]:
            now_us = self._db.now_us()
            user = await store.get_user(tx, held.user_id)
            if user is None:
                raise InvalidCredentials
            if renewed is not None:
                await store.replace_hash(tx, user.user_id, held.password_hash, renewed)
            is_first = not await store.has_device(tx, user.user_id)
            opened = await self._sessions.open(tx, user.user_id, claim, origin, now_us)
            if opened.device_secret is not None and user.email_verified_us is not None and not is_first:
                await self._tell_new_device(tx, user, claim, origin, language, now_us)
            return user, opened

        with counted("login"):
            email_key = None if email is None else fold(email)
            username_key = None if username is None else fold(username)
            found = await self._db.read(store.get_password, email_key, username_key)
            right = await self._passwords.verify(found.password_hash if found else None, password)
            if found is None or not right:
                subject = found.user_id if found else None
                raise InvalidCredentials(denial="auth:session:refused", subject=subject)
            held = found
            renewed: str | None = None
            if self._passwords.is_outdated(held.password_hash):
                with suppress(Unavailable):  # too busy: the next login renews it
                    renewed = await self._passwords.hash(password)
            user, opened = await self._db.write(unit)
            return user, self._sessions.grant(opened)

    async def _tell_new_device(
        self, tx: Tx, user: store.User, claim: DeviceClaim, origin: Origin, language: str, now_us: int
    ) -> None:
        await self._letters.notify(
            tx,
            user.user_id,
            "device",
            user.email,
            language,
            now_us=now_us,
            username=user.username,
            device=claim.name or origin.user_agent or "?",
            address=origin.address,
        )

    async def get(self, user: UserId) -> store.User:
        """Raises NotFound."""
        found = await self._db.read(store.get_user, user)
        if found is None:
            raise NotFound
        return found

    async def search(
        self, text: str, caller: UserId, after: tuple[int, str], limit: int
    ) -> list[store.Found]:
        """People whose username or display name contains `text`, those beginning with it first; one more
        than `limit` if there are more."""
        wanted = fold(text.strip())
        if not wanted:
            raise Invalid("There is nothing to search for.", details={"field": "q"})
        return await self._db.read(store.search_users, wanted, without=caller, after=after, limit=limit + 1)

    async def export_of(self, user: UserId) -> dict[str, Any]:
        """Everything this room holds of a person, as JSON; no hashes and no secrets."""
        return await self._db.read(_export, user)


async def _export(tx: Tx, user: UserId) -> dict[str, Any]:
    account = await store.get_user(tx, user)
    if account is None:
        raise NotFound
    return {
        "user": {
            "user_id": account.user_id,
            "username": account.username,
            "email": account.email,
            "display_name": account.display_name,
            "avatar_url": account.avatar_url,
            "role": account.role,
            "email_verified": account.email_verified_us is not None,
            "created_at": to_iso(account.created_us),
        },
        "devices": [
            {"device_id": each.device_id, "name": each.name, "created_at": to_iso(each.created_us)}
            for each in await store.list_devices(tx, user)
        ],
        "sessions": [
            {
                "session_id": each.session_id,
                "device_id": each.device_id,
                "address": each.address,
                "user_agent": each.user_agent,
                "created_at": to_iso(each.created_us),
                "last_seen_at": to_iso(each.last_seen_us),
            }
            for each in await store.list_every_session(tx, user)
        ],
        "blocked": [
            {"user_id": blocked, "created_at": to_iso(created_us)}
            for blocked, created_us in await store.list_blocked(tx, user)
        ],
    }
