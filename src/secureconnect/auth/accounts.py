"""Accounts: registering, signing in, and finding people.

A username is 3 to 50 of the ASCII letters, digits and `_ . -`, and begins with a letter, a digit or `_`:
names that look alike in other alphabets cannot pose as one another. The display name takes any script.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Awaitable, Callable

from .. import audit
from ..config import AuthConfig
from ..deps.contracts import Database, Tx
from ..errors import (
    EmailTaken,
    Invalid,
    InviteRequired,
    NotFound,
    RegistrationClosed,
    UsernameTaken,
)
from ..identity import Role, UserId, new_id
from . import devices, store
from .admin.standing import require_welcome
from .attempts import counted
from .devices import DeviceClaim
from .invites.invites import spend
from .lockout import Lockout
from .passwords import Passwords
from .proofs import Claim, Proofs
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


# keeps a new account, the hash of its password, its owner's Accept-Language and the invite that it needs
# until its address is confirmed
Keep = Callable[[store.User, str, str, str | None], Awaitable[None]]


class Accounts:
    """keep_first: where e-mail addresses are confirmed before an account begins; None where they are not."""

    def __init__(
        self,
        config: AuthConfig,
        db: Database,
        passwords: Passwords,
        sessions: Sessions,
        lockout: Lockout,
        proofs: Proofs,
        letters: Letters,
        keep_first: Keep | None,
    ) -> None:
        self._letters = letters
        self._keep_first = keep_first
        self._config = config
        self._db = db
        self._passwords = passwords
        self._sessions = sessions
        self._lockout = lockout
        self._proofs = proofs

    async def register(
        self,
        *,
        email: str,
        username: str,
        password: str,
        display_name: str | None,
        origin: Origin,
        invite_code: str | None = None,
    ) -> tuple[store.User, Grant] | None:
        """None: the account begins once its address is confirmed, or is somebody else's; which, is not told.

        invite_code: of use only where registration is by invite; spent with the account.
        Raises Invalid, UsernameTaken, RegistrationClosed, InviteRequired, InviteInvalid; EmailTaken where
        addresses are not confirmed."""

        async def unit(tx: Tx) -> Opened:
            # first, so that who is not invited does not learn which names are taken
            invite = None if needed_code is None else await spend(tx, needed_code, now_us)
            await add_account(tx, user, password_hash)
            await audit.record(
                tx,
                action="auth:user:registered",
                actor=user.user_id,
                subject=user.user_id,
                address=origin.address,
                facts={} if invite is None else {"invite_id": invite},
                now_us=now_us,
            )
            return await self._sessions.open(tx, user.user_id, DeviceClaim(), origin, now_us)

        with counted("register"):
            needed_code = self._needed_code(invite_code)
            checked_password(password)
            now_us = self._db.now_us()
            user = checked_account(email, username, display_name, now_us)
            password_hash = await self._passwords.hash(password)
            if self._keep_first is not None:
                await self._keep_first(user, password_hash, origin.language, needed_code)
                return None
            return user, self._sessions.grant(await self._db.write(unit))

    def _needed_code(self, invite_code: str | None) -> str | None:
        """The code that registering here must spend, None where it needs none.
        Raises RegistrationClosed, InviteRequired."""
        if self._config.registration == "closed":
            raise RegistrationClosed
        if self._config.registration == "open":
            return None
        if invite_code is None:
            raise InviteRequired
        return invite_code

    async def login(
        self,
        *,
        email: str | None,
        username: str | None,
        password: str,
        totp_code: str | None,
        claim: DeviceClaim,
        origin: Origin,
    ) -> tuple[store.User, Grant]:
        """By e-mail address if given, else by username. Raises InvalidCredentials for an unknown user and for
        a wrong password, AccountLocked for either that has failed too often, after the same work; and
        TotpRequired, TotpInvalid. AccountBanned only to whoever knows the password."""

        async def reserve(tx: Tx) -> Claim:
            now_us = self._db.now_us()
            held = await store.get_password(tx, email_key, username_key)
            device = await devices.proved(tx, held and held.user_id, claim)
            if held is None:
                name = f"username:{username_key}" if email_key is None else f"email:{email_key}"
                return Claim(None, await self._lockout.reserve_by_name(tx, name, origin.address, now_us))
            if device is None:
                attempt = await self._lockout.reserve_by_account(tx, held.user_id, origin.address, now_us)
            else:
                attempt = await self._lockout.reserve_by_device(
                    tx, held.user_id, device, origin.address, now_us
                )
            return Claim(held, attempt)

        async def accept(tx: Tx, user: store.User) -> tuple[store.User, Opened]:
            now_us = self._db.now_us()
            await require_welcome(tx, user.user_id, now_us)
            opened = await self._sessions.open(tx, user.user_id, claim, origin, now_us)
            is_new = opened.device_secret is not None
            if is_new and await store.has_another_device(tx, user.user_id, opened.device_id):
                device = claim.name or origin.user_agent or "?"
                await self._letters.warn(tx, user, "device", origin, now_us, device=device)
            return user, opened

        with counted("login"):
            email_key = None if email is None else fold(email)
            username_key = None if username is None else fold(username)
            user, opened = await self._proofs.require(reserve, password, totp_code, origin, accept)
            return user, self._sessions.grant(opened)

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
        return await self._db.read(
            store.search_users,
            wanted,
            without=caller,
            after=after,
            limit=limit + 1,
            now_us=self._db.now_us(),
        )


def checked_account(
    email: str, username: str, display_name: str | None, now_us: int, role: Role = "user"
) -> store.User:
    """An account fit to be made. Raises Invalid."""
    return store.User(
        UserId(new_id()),
        checked_username(username),
        checked_email(email),
        checked_name(username if display_name is None else display_name, "display_name"),
        avatar_url=None,
        role=role,
        created_us=now_us,
    )


async def add_account(tx: Tx, user: store.User, password_hash: str) -> None:
    """Raises EmailTaken, UsernameTaken."""
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
