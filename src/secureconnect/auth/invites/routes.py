"""What HTTP sees of the invites."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from ...clock import to_iso
from ...edge import Audience, Call, Rate, Reply, Route
from ...errors import Forbidden, NotFound
from ..room import Auth
from ..shapes import Page, id_place
from .invites import DAY_S
from .store import Invite as Row

MAX_DAYS = 365
MAX_USES = 10_000


class MakeInvite(Struct, frozen=True):
    """expires_in: seconds; `auth.invite_days` if left out."""

    max_uses: Annotated[int, Meta(ge=1, le=MAX_USES)] = 1
    expires_in: Annotated[int, Meta(ge=60, le=MAX_DAYS * DAY_S)] | None = None


class Invite(Struct, frozen=True):
    invite_id: str
    created_by: str
    created_at: str
    expires_at: str
    max_uses: int
    uses: int


class MadeInvite(Invite, frozen=True, kw_only=True):
    """invite_code, link: told this once."""

    invite_code: str
    link: str


class InviteList(Struct, frozen=True):
    invites: list[Invite]
    next_cursor: str | None


async def make(auth: Auth, call: Call) -> Reply:
    body: MakeInvite = call.body
    made = await auth.invites.make(call.caller, body.max_uses, body.expires_in, call.address)
    return Reply(MadeInvite(*_fields(made.invite), invite_code=made.code, link=made.link))


async def list_invites(auth: Auth, call: Call) -> Reply:
    query: Page = call.query
    found = await auth.invites.list(call.caller, id_place(query.cursor), query.limit)
    page = found[: query.limit]
    following = page[-1].invite_id if len(found) > len(page) else None
    return Reply(InviteList([Invite(*_fields(each)) for each in page], following))


async def delete(auth: Auth, call: Call) -> Reply:
    await auth.invites.delete(call.caller, call.path["invite_id"], call.address)
    return Reply()


def _fields(row: Row) -> tuple[str, str, str, str, int, int]:
    return (
        row.invite_id,
        row.created_by,
        to_iso(row.created_us),
        to_iso(row.expires_us),
        row.max_uses,
        row.uses,
    )


_INVITES = "/v1/admin/invites"

ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        _INVITES,
        list_invites,
        Audience.ADMIN,
        Rate.READ,
        "Invites that have not expired, the newest first",
        query=Page,
        answer=InviteList,
        errors=(Forbidden,),
    ),
    Route(
        "POST",
        _INVITES,
        make,
        Audience.ADMIN,
        Rate.WRITE,
        "Make an invite",
        body=MakeInvite,
        answer=MadeInvite,
        status=201,
        errors=(Forbidden,),
    ),
    Route(
        "DELETE",
        f"{_INVITES}/{{invite_id}}",
        delete,
        Audience.ADMIN,
        Rate.WRITE,
        "Take an invite back",
        errors=(Forbidden, NotFound),
    ),
)
