"""What HTTP sees of the second factor."""

from __future__ import annotations

from msgspec import Struct

from ...edge import Audience, Call, Rate, Reply, Route
from ...errors import AccountLocked, NotFound, TotpEnabled, TotpInvalid
from ..room import Auth
from ..shapes import PROOF_ERRORS, Code, Proof, origin_of


class SecondFactor(Struct, frozen=True):
    """recovery_codes_left: that were not used yet; null while it is off."""

    is_on: bool
    recovery_codes_left: int | None


class Enrolled(Struct, frozen=True):
    """secret: base32, for typing.  otpauth_uri: the same as a QR code holds it."""

    secret: str
    otpauth_uri: str


class Confirm(Struct, frozen=True):
    code: Code


class RecoveryCodes(Struct, frozen=True):
    """Each replaces the app once. They are told this once."""

    recovery_codes: list[str]


async def get_factor(auth: Auth, call: Call) -> Reply:
    left = await auth.totp.recovery_codes_left(call.caller.user_id)
    return Reply(SecondFactor(left is not None, left))


async def enroll(auth: Auth, call: Call) -> Reply:
    body: Proof = call.body
    begun = await auth.totp.enroll(call.caller, body.password, body.totp_code, origin_of(call))
    return Reply(Enrolled(begun.secret, begun.uri))


async def confirm(auth: Auth, call: Call) -> Reply:
    body: Confirm = call.body
    return Reply(RecoveryCodes(await auth.totp.confirm(call.caller, body.code, origin_of(call))))


async def renew_codes(auth: Auth, call: Call) -> Reply:
    body: Proof = call.body
    renewed = await auth.totp.renew_codes(call.caller, body.password, body.totp_code, origin_of(call))
    return Reply(RecoveryCodes(renewed))


async def disable(auth: Auth, call: Call) -> Reply:
    body: Proof = call.body
    await auth.totp.disable(call.caller, body.password, body.totp_code, origin_of(call))
    return Reply()


_TOTP = "/v1/auth/totp"

ROUTES: tuple[Route, ...] = (
    Route(
        "GET",
        _TOTP,
        get_factor,
        Audience.USER,
        Rate.READ,
        "Whether I sign in with a second factor, and how many recovery codes are left",
        answer=SecondFactor,
    ),
    Route(
        "POST",
        f"{_TOTP}/enroll",
        enroll,
        Audience.USER,
        Rate.WRITE,
        "Begin to set up a second factor",
        body=Proof,
        answer=Enrolled,
        errors=(*PROOF_ERRORS, TotpEnabled, NotFound),
    ),
    Route(
        "POST",
        f"{_TOTP}/confirm",
        confirm,
        Audience.USER,
        Rate.WRITE,
        "Turn the second factor on with a first code, and end every other session of mine",
        body=Confirm,
        answer=RecoveryCodes,
        errors=(TotpInvalid, AccountLocked, NotFound),
    ),
    Route(
        "POST",
        f"{_TOTP}/recovery-codes",
        renew_codes,
        Audience.USER,
        Rate.WRITE,
        "Have new recovery codes made; those there were are void",
        body=Proof,
        answer=RecoveryCodes,
        errors=(*PROOF_ERRORS, NotFound),
    ),
    Route(
        "DELETE",
        _TOTP,
        disable,
        Audience.USER,
        Rate.WRITE,
        "Turn the second factor off",
        body=Proof,
        errors=PROOF_ERRORS,
    ),
)
