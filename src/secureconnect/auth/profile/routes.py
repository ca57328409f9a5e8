"""What HTTP sees of one's own profile."""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from ...edge import Audience, Call, Rate, Reply, Route
from ...errors import UsernameTaken
from ..room import Auth
from ..shapes import PROOF_ERRORS, Name, NewPassword, Proof, User, Username, origin_of, user_shape
from .profile import AVATAR_CHARS


class NewProfile(Struct, frozen=True):
    """What is left out stays; null takes the picture away."""

    username: Username | UnsetType = UNSET
    display_name: Name | UnsetType = UNSET
    avatar_url: Annotated[str, Meta(max_length=AVATAR_CHARS)] | UnsetType | None = UNSET


class PasswordChange(Proof, frozen=True, kw_only=True):
    new_password: NewPassword


class Privacy(Struct, frozen=True):
    """searchable: others find this account by its names.  last_seen: those who share a conversation see when
    this person was last there.  read_receipts: they see how far this person has read."""

    searchable: bool
    last_seen: bool
    read_receipts: bool


class NewPrivacy(Struct, frozen=True):
    """What is left out stays."""

    searchable: bool | UnsetType = UNSET
    last_seen: bool | UnsetType = UNSET
    read_receipts: bool | UnsetType = UNSET


async def change_me(auth: Auth, call: Call) -> Reply:
    asked: NewProfile = call.body
    given = ((name, getattr(asked, name)) for name in asked.__struct_fields__)
    changes = {name: value for name, value in given if value is not UNSET}
    user = await auth.profile.change(call.caller.user_id, changes, origin_of(call))
    return Reply(user_shape(user, auth.status_of(user.user_id), whole=True))


async def change_password(auth: Auth, call: Call) -> Reply:
    asked: PasswordChange = call.body
    await auth.profile.change_password(
        call.caller, asked.password, asked.totp_code, asked.new_password, origin_of(call)
    )
    return Reply()


async def get_privacy(auth: Auth, call: Call) -> Reply:
    return Reply(Privacy(*await auth.profile.privacy(call.caller.user_id)))


async def set_privacy(auth: Auth, call: Call) -> Reply:
    asked: NewPrivacy = call.body
    given = ((name, getattr(asked, name)) for name in asked.__struct_fields__)
    changes = {name: value for name, value in given if value is not UNSET}
    return Reply(Privacy(*await auth.profile.set_privacy(call.caller.user_id, changes)))


_ME = "/v1/users/me"

ROUTES: tuple[Route, ...] = (
    Route(
        "PATCH",
        _ME,
        change_me,
        Audience.USER,
        Rate.WRITE,
        "Change my names or my picture",
        body=NewProfile,
        answer=User,
        errors=(UsernameTaken,),
    ),
    Route(
        "POST",
        f"{_ME}/password",
        change_password,
        Audience.USER,
        Rate.LOGIN,
        "Change my password, and end every other session of mine",
        body=PasswordChange,
        errors=PROOF_ERRORS,
    ),
    Route("GET", f"{_ME}/privacy", get_privacy, Audience.USER, Rate.READ, "What I show", answer=Privacy),
    Route(
        "PUT",
        f"{_ME}/privacy",
        set_privacy,
        Audience.USER,
        Rate.WRITE,
        "Choose what I show",
        body=NewPrivacy,
        answer=Privacy,
    ),
)
