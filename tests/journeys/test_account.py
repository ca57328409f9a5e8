"""The life of an account: made, secured, used on several devices, taken back from a thief."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pyotp
import pytest

from kit.doors import end_of, socket, two_doors
from kit.fixtures import StartServer
from kit.people import PASSWORD
from kit.postbox import Postbox
from kit.smtp import SmtpServer
from secureconnect.client import ApiError, Client
from secureconnect.edge import Close

NEW_PASSWORD = "another long password"
STEP_S = 30
FAILURES = 5


@pytest.fixture
def postbox(request: pytest.FixtureRequest) -> Postbox:
    """Of a mail server beside real backends, of files beside the embedded ones."""
    smtp: SmtpServer | None = None
    if request.node.callspec.params["world"] == "real":
        smtp = request.getfixturevalue("smtp_server")
    return Postbox(smtp)


def codes(secret: str) -> Iterator[str]:
    """Of an authenticator app: of now and of the next half minute, for no code is good twice."""
    now = int(time.time()) // STEP_S
    app = pyotp.TOTP(secret)
    return (app.generate_otp(now + each) for each in (0, 1))


async def is_refused(client: Client, password: str, code: str, **given: str) -> None:
    with pytest.raises(ApiError) as refusal:
        await client.login("ann", password, **given)
    assert refusal.value.code == code


async def test_an_account_is_secured_and_taken_back(start_server: StartServer, postbox: Postbox) -> None:
    here, there = two_doors(start_server, **postbox.settings)
    async with AsyncExitStack() as stack:
        phone, laptop, tablet, thief = [
            await stack.enter_async_context(Client(server.url)) for server in (here, there, here, there)
        ]
        address = {"email": "ann@example.org"}
        if (
            await phone.register("ann", PASSWORD, address["email"]) is not None
        ):  # without a mail server: at once
            await phone.call("POST", "/v1/auth/email/verify/request", address)
        token = await postbox.token("Confirm your e-mail address", here, there)
        await laptop.call("POST", "/v1/auth/email/verify", {"token": token}, signed=False)
        await phone.login("ann", PASSWORD, device_name="phone")
        assert (await phone.profile())["email_verified"]

        begun = await phone.call("POST", "/v1/auth/totp/enroll", {"password": PASSWORD})
        app = codes(begun["secret"])
        confirmed = await phone.call("POST", "/v1/auth/totp/confirm", {"code": next(app)})
        recovery = iter(confirmed["recovery_codes"])
        await is_refused(laptop, PASSWORD, "TOTP_REQUIRED")
        used = next(app)
        await laptop.login("ann", PASSWORD, totp_code=used)
        await is_refused(tablet, PASSWORD, "TOTP_INVALID", totp_code=used)
        await tablet.login("ann", PASSWORD, totp_code=next(recovery))

        path = f"/v1/auth/sessions/{tablet.me.session_id}"
        await phone.call("PATCH", path, {"device_name": "old tablet"})
        named = {each["session_id"]: each["device_name"] for each in await laptop.sessions()}
        assert (named[phone.me.session_id], named[tablet.me.session_id]) == ("phone", "old tablet")
        async with socket(here, tablet) as old, socket(here, laptop) as kept:
            await laptop.call("DELETE", path)  # on the other node
            assert await end_of(old) == Close.UNAUTHENTICATED
            with pytest.raises(ApiError, match="TOKEN_REVOKED"):
                await tablet.profile()
            await kept.ping()
        assert tablet.me.session_id not in {each["session_id"] for each in await phone.sessions()}

        for _ in range(FAILURES - 1):  # a code that was spent is a failure, too
            await is_refused(thief, "a guess", "INVALID_CREDENTIALS")
        await is_refused(thief, PASSWORD, "ACCOUNT_LOCKED")
        async with (
            socket(here, phone) as first,
            socket(there, phone) as second,
            socket(there, laptop) as third,
        ):
            await thief.call("POST", "/v1/auth/password-reset/request", address, signed=False)
            token = await postbox.token("Set a new password", here, there)
            chosen = {"token": token, "new_password": NEW_PASSWORD}
            await phone.call("POST", "/v1/auth/password-reset/confirm", chosen, signed=False)
            for wire in (first, second, third):
                assert await end_of(wire) == Close.UNAUTHENTICATED
        with pytest.raises(ApiError, match="MAILED_TOKEN_INVALID"):
            await thief.call("POST", "/v1/auth/password-reset/confirm", chosen, signed=False)
        for each in (phone, laptop):
            with pytest.raises(ApiError, match="TOKEN_REVOKED"):
                await each.profile()
            with pytest.raises(ApiError, match="TOKEN_REVOKED"):
                await each.refresh()
        await is_refused(phone, PASSWORD, "INVALID_CREDENTIALS")
        await is_refused(phone, NEW_PASSWORD, "TOTP_REQUIRED")
        await phone.login("ann", NEW_PASSWORD, totp_code=next(recovery))
        assert [each["session_id"] for each in await phone.sessions()] == [phone.me.session_id]
