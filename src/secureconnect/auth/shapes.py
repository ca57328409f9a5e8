"""Fields that the routes of several nouns share, and where a call came from."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from ..edge import Call
from .accounts import EMAIL_CHARS, PASSWORD_CHARS
from .sessions import Origin

USER_AGENT_CHARS = 256

Email = Annotated[str, Meta(min_length=3, max_length=EMAIL_CHARS, description="e-mail address")]
NewPassword = Annotated[str, Meta(min_length=PASSWORD_CHARS[0], max_length=PASSWORD_CHARS[1])]
GivenPassword = Annotated[str, Meta(max_length=PASSWORD_CHARS[1])]
Token = Annotated[str, Meta(max_length=128)]
Code = Annotated[str, Meta(max_length=32, description="of the authenticator app, or a recovery code")]


def origin_of(call: Call) -> Origin:
    return Origin(call.address, call.user_agent[:USER_AGENT_CHARS])
