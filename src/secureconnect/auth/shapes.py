"""The JSON shapes that several parts of this room answer with, and how they are made from rows."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from ..clock import from_iso, to_iso
from ..edge import Call
from ..errors import AccountLocked, Invalid, InvalidCredentials, TotpInvalid, TotpRequired
from ..identity import Role, UserId, is_id
from . import store
from .accounts import EMAIL_CHARS, NAME_CHARS, PASSWORD_CHARS, USERNAME
from .sessions import Origin

USER_AGENT_CHARS = 256

Email = Annotated[str, Meta(min_length=3, max_length=EMAIL_CHARS, description="e-mail address")]
# the pattern is documented here and judged by the rule, which says what is wrong in words
Username = Annotated[str, Meta(min_length=3, max_length=50, extra_json_schema={"pattern": USERNAME})]
NewPassword = Annotated[str, Meta(min_length=PASSWORD_CHARS[0], max_length=PASSWORD_CHARS[1])]
Name = Annotated[str, Meta(min_length=1, max_length=NAME_CHARS)]
Token = Annotated[str, Meta(max_length=128)]
GivenPassword = Annotated[str, Meta(max_length=PASSWORD_CHARS[1])]
Code = Annotated[str, Meta(max_length=32, description="of the authenticator app, or a recovery code")]
Limit = Annotated[int, Meta(ge=1, le=100)]
Id = Annotated[
    str,
    Meta(
        pattern="^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
        min_length=36,
        max_length=36,
    ),
]
Moment = Annotated[str, Meta(max_length=40, extra_json_schema={"format": "date-time"})]

NEWEST = "ffffffff-ffff-ffff-ffff-ffffffffffff"  # after every id: where a list begins
LATEST_US = 253_402_300_799_000_000  # the end of the year 9999

PROOF_ERRORS = (InvalidCredentials, TotpRequired, TotpInvalid, AccountLocked)


class Page(Struct, frozen=True):
    limit: Limit = 20
    cursor: Annotated[str, Meta(max_length=200)] | None = None


class Proof(Struct, frozen=True, kw_only=True):
    """That it is the person themselves who asks, which a stolen token does not show.  totp_code: where
    sign-ins need one."""

    password: GivenPassword
    totp_code: Code | None = None


class User(Struct, frozen=True):
    """What follows `status` stands there only for oneself and for admins.  status: presence, null when it is
    unknown or not for the caller.  delete_at: when the account is erased, if that was asked for."""

    user_id: str
    username: str
    display_name: str
    avatar_url: str | None
    status: str | None
    email: str | UnsetType = UNSET
    role: Role | UnsetType = UNSET
    email_verified: bool | UnsetType = UNSET
    created_at: str | UnsetType = UNSET
    delete_at: str | UnsetType = UNSET


class UserList(Struct, frozen=True):
    users: list[User]
    next_cursor: str | None


def origin_of(call: Call) -> Origin:
    return Origin(call.address, call.user_agent[:USER_AGENT_CHARS], call.language)


def user_shape(user: store.User, status: str | None, *, whole: bool) -> User:
    """whole: with what only the user and admins may see."""
    return User(
        user.user_id,
        user.username,
        user.display_name,
        user.avatar_url,
        status,
        email=user.email if whole else UNSET,
        role=user.role if whole else UNSET,
        email_verified=(user.email_verified_us is not None) if whole else UNSET,
        created_at=to_iso(user.created_us) if whole else UNSET,
        delete_at=to_iso(user.delete_us) if whole and user.delete_us is not None else UNSET,
    )


def iso_or_none(us: int | None) -> str | None:
    return None if us is None else to_iso(us)


def moment_of(text: str | None, field: str) -> int | None:
    """Microseconds of a time with a zone, up to the year 9999. Raises Invalid."""
    if text is None:
        return None
    try:
        us = from_iso(text)
    except (ValueError, OverflowError):
        us = -1
    if not 0 <= us <= LATEST_US:
        raise Invalid("Give a time like 2026-01-19T05:25:00Z.", details={"field": field})
    return us


def id_place(cursor: str | None) -> str:
    """The id before which a page of a list goes on, the newest first. Raises Invalid."""
    if cursor is not None and not is_id(cursor):
        raise wrong_cursor()
    return NEWEST if cursor is None else cursor


def after_id(cursor: str | None) -> UserId:
    """The person after whom a page of a list ordered by id begins. Raises Invalid."""
    if cursor is None:
        return UserId(store.NO_ID)
    if not is_id(cursor):
        raise wrong_cursor()
    return UserId(cursor)


def wrong_cursor() -> Invalid:
    return Invalid("This cursor was not given by this list.", details={"field": "cursor"})
