"""What HTTP sees of recovery."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from ...edge import Audience, Call, Rate, Reply, Route
from ...errors import (
    EmailTaken,
    MailedTokenInvalid,
    RateLimited,
    UsernameTaken,
)
from ..room import Auth
from ..shapes import PROOF_ERRORS, Email, NewPassword, Proof, Token, origin_of


class Address(Struct, frozen=True):
    email: Email


class MailedToken(Struct, frozen=True):
    """What a mail told, behind its link's `=` or as a code."""

    token: Annotated[Token, Meta(min_length=1)]


class NewEmail(Proof, frozen=True, kw_only=True):
    email: Email


class NewSecret(Struct, frozen=True):
    token: Annotated[Token, Meta(min_length=1)]
    new_password: NewPassword


class Asked(Struct, frozen=True):
    """The same whether a mail was sent or not."""

    status: Literal["accepted"]


class Verified(Struct, frozen=True):
    status: Literal["verified"]


class Changed(Struct, frozen=True):
    status: Literal["changed"]


async def request_verification(auth: Auth, call: Call) -> Reply:
    body: Address = call.body
    await auth.recovery.request_verification(body.email, call.language)
    return Reply(Asked("accepted"))


async def verify(auth: Auth, call: Call) -> Reply:
    body: MailedToken = call.body
    await auth.recovery.verify(body.token, origin_of(call))
    return Reply(Verified("verified"))


async def request_reset(auth: Auth, call: Call) -> Reply:
    body: Address = call.body
    await auth.recovery.request_reset(body.email, origin_of(call))
    return Reply(Asked("accepted"))


async def reset(auth: Auth, call: Call) -> Reply:
    body: NewSecret = call.body
    await auth.recovery.reset(body.token, body.new_password, origin_of(call))
    return Reply(Changed("changed"))


async def request_change(auth: Auth, call: Call) -> Reply:
    body: NewEmail = call.body
    await auth.recovery.request_change(
        call.caller,
        body.email,
        password=body.password,
        totp_code=body.totp_code,
        origin=origin_of(call),
    )
    return Reply(Asked("accepted"))


async def change(auth: Auth, call: Call) -> Reply:
    body: MailedToken = call.body
    await auth.recovery.change(call.caller, body.token, origin_of(call))
    return Reply(Changed("changed"))


ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        "/v1/auth/email/verify/request",
        request_verification,
        Audience.ANYONE,
        Rate.MAIL,
        "Have the mail sent again that confirms an address",
        body=Address,
        answer=Asked,
        status=202,
    ),
    Route(
        "POST",
        "/v1/auth/email/verify",
        verify,
        Audience.ANYONE,
        Rate.LOGIN,
        "Confirm an e-mail address",
        body=MailedToken,
        answer=Verified,
        errors=(MailedTokenInvalid, EmailTaken, UsernameTaken),
    ),
    Route(
        "POST",
        "/v1/auth/password-reset/request",
        request_reset,
        Audience.ANYONE,
        Rate.MAIL,
        "Have a mail sent that sets a new password",
        body=Address,
        answer=Asked,
        status=202,
    ),
    Route(
        "POST",
        "/v1/auth/password-reset/confirm",
        reset,
        Audience.ANYONE,
        Rate.LOGIN,
        "Set a new password, and end every session",
        body=NewSecret,
        answer=Changed,
        errors=(MailedTokenInvalid,),
    ),
    Route(
        "POST",
        "/v1/users/me/email",
        request_change,
        Audience.USER,
        Rate.WRITE,
        "Change my e-mail address, once the new one is confirmed",
        body=NewEmail,
        answer=Asked,
        status=202,
        errors=(*PROOF_ERRORS, RateLimited),
    ),
    Route(
        "POST",
        "/v1/users/me/email/verify",
        change,
        Audience.USER,
        Rate.WRITE,
        "Confirm my new e-mail address",
        body=MailedToken,
        answer=Changed,
        errors=(MailedTokenInvalid, EmailTaken),
    ),
)
