"""What people are told by mail of what is done in their name."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
import trio

from secureconnect.auth.devicekeys.news import CHANNEL
from secureconnect.auth.sessions import Origin
from secureconnect.deps.contracts import Mail

from .harness import CHEAP, PASSWORD, Node, Person, Site, refused
from .mailing import confirmed, mail, mails, token_in
from .test_totp import DISABLE, App, turn_on

NEW = "another long password"
PASSWORD_OF_MINE = "POST /v1/users/me/password"
RENEW = "POST /v1/auth/totp/recovery-codes"
CHANGE = "POST /v1/users/me/email"
CHANGED = "POST /v1/users/me/email/verify"
ANN = "ann@example.org"


@pytest.fixture
async def node(site: Site) -> Node:
    """One with a mail server."""
    return await site.node(replace(CHEAP, mail_pause_s=60), confirms_email=True)


async def notice(node: Node, site: Site, subject: str) -> Mail:
    """The one mail there is: to ann, of that, by whom, as text and as HTML."""
    sent = await mail(node, site, ANN)
    assert sent.subject == subject
    for form in (sent.text, sent.html):
        assert "account ann on https://chat.example.org" in form
        assert "$" not in form
    return sent


async def test_a_new_password_is_told_of_and_signs_the_others_out(site: Site, node: Node) -> None:
    ann = await confirmed(node, site)
    phone = await node.login(device_id=ann.device_id, device_secret=ann.device_secret)
    other = await node.login()
    await mails(node, site)
    body = {"password": PASSWORD, "new_password": NEW}
    with site.signals.subscribe([CHANNEL]) as news:
        await node.ask(PASSWORD_OF_MINE, body, as_=phone)
        with trio.fail_after(5):
            async for said in news:
                assert ann.user_id in msgspec.msgpack.decode(said.payload), "devices have lost keys"
                break
    assert "192.0.2.1" in (await notice(node, site, "Your password has been changed")).text
    with refused("TOKEN_REVOKED"):
        await node.who(other)
    with refused("TOKEN_REVOKED"):
        await node.ask("POST /v1/auth/refresh", {"refresh_token": other.refresh_token})
    await node.who(phone)


async def test_the_second_factor_is_told_of_and_ends_what_was_opened_without(site: Site, node: Node) -> None:
    ann = await confirmed(node, site)
    phone = await node.login()
    await mails(node, site)
    app = await turn_on(node, site, ann)
    await notice(node, site, "The second factor is on")
    with refused("TOKEN_REVOKED"):
        await node.who(phone)
    await node.who(ann)
    phone = await node.login(totp_code=app.recovery[0])
    used, device = await mails(node, site)
    assert used.subject == "A recovery code has been used"
    assert f"left: {CHEAP.recovery_codes - 1}." in used.text
    assert device.subject == "A new device has signed in"
    await node.ask(DISABLE, {"password": PASSWORD, "totp_code": app.next()}, as_=ann)
    await notice(node, site, "The second factor is off")
    await node.who(phone)
    await node.ask(DISABLE, {"password": PASSWORD}, as_=ann)
    assert await mails(node, site) == [], "it was off"


async def test_new_recovery_codes_void_the_old_ones(site: Site, node: Node) -> None:
    ann = await confirmed(node, site)
    with refused("NOT_FOUND"):
        await node.ask(RENEW, {"password": PASSWORD}, as_=ann)
    app = await turn_on(node, site, ann)
    await mails(node, site)
    old, app.recovery = app.recovery, []
    with refused("TOTP_REQUIRED"):
        await node.ask(RENEW, {"password": PASSWORD}, as_=ann)
    answer = await node.ask(RENEW, {"password": PASSWORD, "totp_code": app.next()}, as_=ann)
    await notice(node, site, "Your recovery codes are new")
    assert len(set(answer["recovery_codes"]) - set(old)) == CHEAP.recovery_codes
    with refused("TOTP_INVALID"):
        await node.login(totp_code=old[0])
    await node.login(totp_code=answer["recovery_codes"][0])
    [told] = await site.rows("SELECT subject FROM audit WHERE action = 'auth:totp:codes_renewed'")
    assert str(told[0]) == ann.user_id


async def test_an_address_that_is_left_is_told_so(site: Site, node: Node) -> None:
    ann = await confirmed(node, site)
    await node.ask(CHANGE, {"email": "ann@new.example", "password": PASSWORD}, as_=ann)
    token = token_in(next(each for each in await mails(node, site) if each.to == "ann@new.example"))
    await node.ask(CHANGED, {"token": token}, as_=ann)
    sent = await notice(node, site, "Your e-mail address has been changed")
    assert "new.example" not in sent.text
    await node.ask(PASSWORD_OF_MINE, {"password": PASSWORD, "new_password": NEW}, as_=ann)
    assert (await mail(node, site, "ann@new.example")).subject == "Your password has been changed"


async def test_what_people_call_their_devices_makes_no_link(site: Site, node: Node) -> None:
    await confirmed(node, site)
    named = "[Set a new password] https://evil.example/"
    await node.login(device_name=named)
    sent = await notice(node, site, "A new device has signed in")
    assert f"Device: {named}\n" in sent.text
    assert "<a " not in sent.html


@pytest.mark.parametrize("what", ["enroll", "confirm", "renew", "disable", "request", "change"])
async def test_a_session_that_ends_meanwhile_changes_nothing(site: Site, node: Node, what: str) -> None:
    """Its token was good when the request came."""
    ann = await confirmed(node, site)
    app = await turn_on(node, site, ann) if what in ("renew", "disable") else None
    caller, home = await node.who(ann), Origin("192.0.2.1", "tests")
    totp, recovery = node.room.totp, node.room.recovery
    token = code = ""
    if what == "confirm":
        begun = await totp.enroll(caller, PASSWORD, None, home)
        code = App(site, begun.secret).code()
    if what == "change":
        await node.ask(CHANGE, {"email": "ann@new.example", "password": PASSWORD}, as_=ann)
        token = token_in(next(each for each in await mails(node, site) if each.to == "ann@new.example"))
    await end_elsewhere(site, ann)
    before = await kept(site)
    with refused("TOKEN_REVOKED"):
        match what:
            case "enroll":
                await totp.enroll(caller, PASSWORD, None, home)
            case "confirm":
                await totp.confirm(caller, code, home)
            case "renew":
                assert app is not None
                await totp.renew_codes(caller, PASSWORD, app.next(), home)
            case "disable":
                assert app is not None
                await totp.disable(caller, PASSWORD, app.next(), home)
            case "request":
                await recovery.request_change(
                    caller, "ann@new.example", password=PASSWORD, totp_code=None, origin=home
                )
            case "change":
                await recovery.change(caller, token, home)
    assert await kept(site) == before


async def end_elsewhere(site: Site, person: Person) -> None:
    """On another node, of which this one has not heard."""
    other = await site.node()
    await other.room.sessions.end_all(await other.who(person), "192.0.2.2")


async def kept(site: Site) -> list[list[object]]:
    return [
        list(await site.rows(sql))
        for sql in (
            "SELECT email FROM users",
            "SELECT sealed, confirmed_at FROM totps",
            "SELECT code_hash FROM recovery_codes ORDER BY code_hash",
            "SELECT token_hash FROM mail_tokens",
        )
    ]
