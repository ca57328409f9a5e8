"""What HTTP sees of the second factor."""

from __future__ import annotations

from msgspec import Struct

from ...edge import Audience, Call, Rate, Reply, Route
from ...errors import AccountLocked, InvalidCredentials, NotFound, TotpEnabled, TotpInvalid, TotpRequired
from ..room import Auth
from ..shapes import Code, GivenPassword, origin_of


class Enroll(Struct, frozen=True):
    """The password once more; what a stolen token must not do."""

    password: GivenPassword
    totp_code: Code | None = None


class Enrolled(Struct, frozen=True):
    """secret: base32, for typing.  otpauth_uri: the same as a QR code holds it."""

    secret: str
    otpauth_uri: str


class Confirm(Struct, frozen=True):
    code: Code


class Confirmed(Struct, frozen=True):
    """Each replaces the app once. They are told this once."""

    recovery_codes: list[str]


class Disable(Struct, frozen=True):
    password: GivenPassword
    totp_code: Code | None = None


async def enroll(auth: Auth, call: Call) -> Reply:
    body: Enroll = call.body
    begun = await auth.totp.enroll(call.caller, body.password, body.totp_code, origin_of(call))
    return Reply(Enrolled(begun.secret, begun.uri))


async def confirm(auth: Auth, call: Call) -> Reply:
    body: Confirm = call.body
    return Reply(Confirmed(await auth.totp.confirm(call.caller, body.code, origin_of(call))))


async def disable(auth: Auth, call: Call) -> Reply:
    body: Disable = call.body
    await auth.totp.disable(call.caller, body.password, body.totp_code, origin_of(call))
    return Reply()


_TOTP = "/v1/auth/totp"
_REFUSED = (InvalidCredentials, TotpRequired, TotpInvalid, AccountLocked)

ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        f"{_TOTP}/enroll",
        enroll,
        Audience.USER,
        Rate.WRITE,
        "Begin to set up a second factor",
        body=Enroll,
        answer=Enrolled,
        errors=(*_REFUSED, TotpEnabled, NotFound),
    ),
    Route(
        "POST",
        f"{_TOTP}/confirm",
        confirm,
        Audience.USER,
        Rate.WRITE,
        "Turn the second factor on with a first code",
        body=Confirm,
        answer=Confirmed,
        errors=(TotpInvalid, AccountLocked, NotFound),
    ),
    Route(
        "DELETE",
        _TOTP,
        disable,
        Audience.USER,
        Rate.WRITE,
        "Turn the second factor off",
        body=Disable,
        errors=_REFUSED,
    ),
)
