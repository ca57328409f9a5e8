"""What several tables of routes of this room share."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from ..edge import Call
from ..errors import Invalid
from ..identity import is_id
from .accounts import PASSWORD_CHARS
from .sessions import NEWEST, Origin

USER_AGENT_CHARS = 256

Limit = Annotated[int, Meta(ge=1, le=100)]
Token = Annotated[str, Meta(max_length=128)]
GivenPassword = Annotated[str, Meta(max_length=PASSWORD_CHARS[1])]
Code = Annotated[str, Meta(max_length=32, description="of the authenticator app, or a recovery code")]


class Page(Struct, frozen=True):
    limit: Limit = 20
    cursor: Annotated[str, Meta(max_length=200)] | None = None


def origin_of(call: Call) -> Origin:
    return Origin(call.address, call.user_agent[:USER_AGENT_CHARS])


def id_place(cursor: str | None) -> str:
    """The id before which a page of a list goes on, the newest first. Raises Invalid."""
    if cursor is not None and not is_id(cursor):
        raise wrong_cursor()
    return NEWEST if cursor is None else cursor


def wrong_cursor() -> Invalid:
    return Invalid("This cursor was not given by this list.", details={"field": "cursor"})
