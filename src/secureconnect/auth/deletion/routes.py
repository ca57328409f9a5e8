"""What HTTP sees of deletion."""

from __future__ import annotations

from msgspec import Struct

from ...clock import to_iso
from ...edge import Audience, Call, Rate, Reply, Route
from ...errors import LastAdministrator
from ..room import Auth
from ..shapes import PROOF_ERRORS, Proof, User, origin_of, user_shape


class Leaving(Struct, frozen=True):
    """delete_at: until then, signing in and asking for it restores the account."""

    delete_at: str


async def delete_me(auth: Auth, call: Call) -> Reply:
    asked: Proof = call.body
    delete_us = await auth.deletion.request(call.caller, asked.password, asked.totp_code, origin_of(call))
    return Reply(Leaving(to_iso(delete_us)))


async def restore_me(auth: Auth, call: Call) -> Reply:
    await auth.deletion.restore(call.caller.user_id, call.address)
    user = await auth.accounts.get(call.caller.user_id)
    return Reply(user_shape(user, auth.status_of(user.user_id), whole=True))


ROUTES: tuple[Route, ...] = (
    Route(
        "DELETE",
        "/v1/users/me",
        delete_me,
        Audience.USER,
        Rate.LOGIN,
        "Delete my account after a time of grace, and end every session of mine",
        body=Proof,
        answer=Leaving,
        errors=(*PROOF_ERRORS, LastAdministrator),
    ),
    Route(
        "POST",
        "/v1/users/me/restore",
        restore_me,
        Audience.USER,
        Rate.WRITE,
        "Keep my account after all",
        answer=User,
    ),
)
