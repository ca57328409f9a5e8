"""The JSON shapes that several parts of this room answer with, and how they are made from rows."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from ..clock import to_iso
from ..edge import Call
from ..errors import Invalid
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
Limit = Annotated[int, Meta(ge=1, le=100)]


class Page(Struct, frozen=True):
    limit: Limit = 20
    cursor: Annotated[str, Meta(max_length=200)] | None = None


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
    return Origin(call.address, call.user_agent[:USER_AGENT_CHARS])


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
        email_verified=False if whole else UNSET,
        created_at=to_iso(user.created_us) if whole else UNSET,
        delete_at=to_iso(user.delete_us) if whole and user.delete_us is not None else UNSET,
    )


def after_id(cursor: str | None) -> UserId:
    """The person after whom a page of a list ordered by id begins. Raises Invalid."""
    if cursor is None:
        return UserId(store.NO_ID)
    if not is_id(cursor):
        raise wrong_cursor()
    return UserId(cursor)


def wrong_cursor() -> Invalid:
    return Invalid("This cursor was not given by this list.", details={"field": "cursor"})
