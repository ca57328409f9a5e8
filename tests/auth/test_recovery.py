"""What people prove by mail: that an address is theirs, and who they are without their password."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

import pyotp
import pytest
import trio

from secureconnect.auth.admin import store as admin
from secureconnect.auth.admin.store import Ban
from secureconnect.auth.deletion import store as deletion_store
from secureconnect.auth.sessions import Origin
from secureconnect.errors import Problem
from secureconnect.identity import UserId
from secureconnect.outbox import DECOY

from .harness import CHEAP, PASSWORD, Node, Site, refused
from .mailing import REGISTER, VERIFY, ask_for, confirmed, mail, mails, registration, token_in

NEW = "another long password"
VERIFY_AGAIN = "POST /v1/auth/email/verify/request"
RESET = "POST /v1/auth/password-reset/request"
CONFIRM = "POST /v1/auth/password-reset/confirm"
CHANGE = "POST /v1/users/me/email"
CHANGED = "POST /v1/users/me/email/verify"


@pytest.fixture
async def node(site: Site) -> Node:
    """One with a mail server."""
    return await site.node(replace(CHEAP, mail_pause_s=60), confirms_email=True)


# registering


async def test_an_account_begins_once_its_address_is_confirmed(site: Site, node: Node) -> None:
    said = await ask_for(node, REGISTER, registration(display_name="Ann"))
    assert said == {"status": "verification_required"}
    with refused("INVALID_CREDENTIALS"):
        await node.login()
    assert await node.rows("SELECT user_id FROM users") == []
    token = token_in(await mail(node, site))
    assert await node.ask(VERIFY, {"token": token}) == {"status": "verified"}
    ann = await node.login()
    me = await node.ask("GET /v1/users/me", as_=ann)
    assert (me["display_name"], me["email"], me["email_verified"]) == ("Ann", "ann@example.org", True)
    with refused("MAILED_TOKEN_INVALID"):
        await node.ask(VERIFY, {"token": token})
    assert await node.rows("SELECT user_id FROM registrations") == []


async def test_an_address_that_has_an_account_is_answered_the_same(site: Site, node: Node) -> None:
    ann = await confirmed(node, site)
    known = await ask_for(node, REGISTER, registration("eve", "ANN@example.org"))
    unknown = await ask_for(node, REGISTER, registration("bob", "bob@example.org"))
    assert known == unknown
    notice, token = await mails(node, site)
    assert (notice.to, notice.subject) == ("ann@example.org", "You already have an account")
    assert "ann" in notice.text
    assert token.to == "bob@example.org"
    # neither is told by the username, nor by signing in
    for name in ("eve", "bob"):
        with refused("USERNAME_TAKEN"):
            await node.ask(REGISTER, registration(name, "third@example.org"))
        with refused("INVALID_CREDENTIALS"):
            await node.login(name)
    await ask_for(node, REGISTER, registration("eve2", "ann@example.org"))
    assert await mails(node, site) == [], "the owner is not written to again and again"
    await node.who(ann)


async def test_what_is_written_is_the_same_whether_there_is_an_account(site: Site, node: Node) -> None:
    """So that the time of the answer tells nothing."""
    await confirmed(node, site)

    async def written(what: str, body: dict[str, Any]) -> list[int]:
        counts = "SELECT (SELECT COUNT(*) FROM outbox), (SELECT COUNT(*) FROM mail_tokens)"
        [before] = await node.rows(counts)
        await ask_for(node, what, body)
        [after] = await node.rows(counts)
        return [now - then for now, then in zip(after, before, strict=True)]

    assert await written(RESET, {"email": "ann@example.org"}) == [1, 1]
    assert await written(RESET, {"email": "nobody@example.org"}) == [1, 1]
    assert await written(VERIFY_AGAIN, {"email": "ann@example.org"}) == [1, 1]
    assert await written(VERIFY_AGAIN, {"email": "nobody@example.org"}) == [1, 1]
    kinds = sorted(row[0] for row in await node.rows("SELECT kind FROM outbox"))
    assert kinds == [DECOY] * 3 + ["reset"]
    assert [each.to for each in await mails(node, site)] == ["ann@example.org"]
    site.db.forward(3_601)
    await node.room.prune_once()
    assert await node.rows("SELECT user_id FROM mail_tokens") == []


async def test_a_username_is_free_again_once_the_time_is_over(site: Site, node: Node) -> None:
    await ask_for(node, REGISTER, registration())
    token = token_in(await mail(node, site))
    site.db.forward(86_401)
    with refused("MAILED_TOKEN_INVALID"):
        await node.ask(VERIFY, {"token": token})
    await ask_for(node, REGISTER, registration())
    token_in(await mail(node, site))
    site.db.forward(86_401)
    await node.room.prune_once()
    assert await node.rows("SELECT user_id FROM registrations") == []


async def test_nobody_can_hold_an_address_by_registering_it(site: Site, node: Node) -> None:
    await ask_for(node, REGISTER, registration("squatter"))
    stale = token_in(await mail(node, site))
    site.db.forward(61)
    await ask_for(node, REGISTER, registration("ann"))
    await node.ask(VERIFY, {"token": token_in(await mail(node, site))})
    with refused("EMAIL_TAKEN"):
        await node.ask(VERIFY, {"token": stale})
    await node.login("ann")


async def test_an_address_is_written_to_once_however_many_register_it_at_once(site: Site, node: Node) -> None:
    nodes = [node, await site.node(replace(CHEAP, mail_pause_s=60), confirms_email=True)]
    await confirmed(node, site)
    await mails(node, site)
    site.db.forward(61)
    for email in ("new@example.org", "ann@example.org"):
        async with trio.open_nursery() as nursery:
            for number in range(8):
                body = registration(f"{email[:3]}{number}", email)
                nursery.start_soon(ask_for, nodes[number % 2], REGISTER, body)
        assert [each.to for each in await mails(node, site)] == [email]
    site.db.forward(61)
    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(ask_for, nodes[number % 2], VERIFY_AGAIN, {"email": "new@example.org"})
    assert len(await mails(node, site)) == 1


async def test_the_mail_can_be_asked_for_again_but_not_too_soon(site: Site, node: Node) -> None:
    await ask_for(node, REGISTER, registration())
    first = token_in(await mail(node, site))
    await ask_for(node, VERIFY_AGAIN, {"email": "ann@example.org"})
    assert await mails(node, site) == []
    site.db.forward(61)
    await ask_for(node, VERIFY_AGAIN, {"email": "ann@example.org"})
    second = token_in(await mail(node, site))
    with refused("MAILED_TOKEN_INVALID"):
        await node.ask(VERIFY, {"token": first})
    await node.ask(VERIFY, {"token": second})


async def test_an_account_of_a_time_without_mail_can_confirm_its_address(site: Site, node: Node) -> None:
    plain = await site.node()
    ann = await plain.register()
    assert not (await plain.ask("GET /v1/users/me", as_=ann))["email_verified"]
    await ask_for(node, VERIFY_AGAIN, {"email": "ann@example.org"})
    token = token_in(await mail(node, site))
    await node.ask(VERIFY, {"token": token})
    with refused("MAILED_TOKEN_INVALID"):
        await node.ask(VERIFY, {"token": token})
    assert (await node.ask("GET /v1/users/me", as_=ann))["email_verified"]
    noted = await node.rows("SELECT subject FROM audit WHERE action = 'auth:email:verified'")
    assert noted == [(ann.user_id,)]
    await ask_for(node, VERIFY_AGAIN, {"email": "ann@example.org"})
    assert await mails(node, site) == [], "it is confirmed"


async def test_of_two_who_use_a_token_at_once_one_succeeds(site: Site, node: Node) -> None:
    await ask_for(node, REGISTER, registration())
    token = token_in(await mail(node, site))
    assert sorted(await at_once(node, VERIFY, {"token": token})) == ["MAILED_TOKEN_INVALID", "ok"]
    await ask_for(node, RESET, {"email": "ann@example.org"})
    body = {"token": token_in(await mail(node, site)), "new_password": NEW}
    assert sorted(await at_once(node, CONFIRM, body)) == ["MAILED_TOKEN_INVALID", "ok"]


async def at_once(node: Node, what: str, body: dict[str, Any]) -> list[str]:
    got: list[str] = []

    async def one() -> None:
        try:
            await node.ask(what, body)
        except Problem as problem:
            got.append(problem.code)
        else:
            got.append("ok")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one)
        nursery.start_soon(one)
    return got


# a new password


async def test_a_reset_ends_every_session_and_works_once(site: Site, node: Node) -> None:
    ann = await confirmed(node, site)
    other = await site.node()
    again = await other.login()
    assert [each.subject for each in await mails(node, site)] == ["A new device has signed in"]
    assert await ask_for(node, RESET, {"email": "Ann@Example.org"}) == {"status": "accepted"}
    token = token_in(await mail(node, site))
    with refused("VALIDATION", field="new_password"):
        await node.room.recovery.reset(token, "short", origin())
    await node.ask(CONFIRM, {"token": token, "new_password": NEW})
    for person in (ann, again):
        with refused("TOKEN_REVOKED"):
            await node.who(person)
    await other.room.poll_once()
    with refused("TOKEN_REVOKED"):
        await other.who(again)
    with refused("INVALID_CREDENTIALS"):
        await node.login()
    await node.login(password=NEW)
    with refused("MAILED_TOKEN_INVALID"):
        await node.ask(CONFIRM, {"token": token, "new_password": PASSWORD})
    subjects = [each.subject for each in await mails(node, site)]
    assert subjects[0] == "Your password has been changed"
    actions = [row[0] for row in await node.rows("SELECT action FROM audit ORDER BY audit_id")]
    assert {"auth:password:reset_requested", "auth:password:reset"} <= set(actions)


def origin() -> Origin:
    return Origin("192.0.2.1", "tests")


async def test_a_reset_is_no_way_around_the_second_factor(site: Site, node: Node) -> None:
    ann = await confirmed(node, site)
    secret = (await node.ask("POST /v1/auth/totp/enroll", {"password": PASSWORD}, as_=ann))["secret"]
    app = pyotp.TOTP(secret)
    code = app.at(site.db.now_us() // 1_000_000)
    await node.ask("POST /v1/auth/totp/confirm", {"code": code}, as_=ann)
    await mails(node, site)  # that it is on
    await ask_for(node, RESET, {"email": "ann@example.org"})
    await node.ask(CONFIRM, {"token": token_in(await mail(node, site)), "new_password": NEW})
    with refused("TOTP_REQUIRED"):
        await node.login(password=NEW)
    site.db.forward(30)
    await node.login(password=NEW, totp_code=app.at(site.db.now_us() // 1_000_000))


async def test_a_reset_voids_a_change_of_address(site: Site, node: Node) -> None:
    """Which whoever knew the old password may have asked for."""
    ann = await confirmed(node, site)
    await ask_for(node, CHANGE, {"email": "eve@example.org", "password": PASSWORD}, as_=ann)
    token = token_in(next(each for each in await mails(node, site) if each.to == "eve@example.org"))
    await ask_for(node, RESET, {"email": "ann@example.org"})
    await node.ask(CONFIRM, {"token": token_in(await mail(node, site)), "new_password": NEW})
    with refused("MAILED_TOKEN_INVALID"):
        await node.ask(CHANGED, {"token": token}, as_=await node.login(password=NEW))


async def test_a_reset_forgets_failed_logins(site: Site, node: Node) -> None:
    await confirmed(node, site)
    for _ in range(CHEAP.lockout_failures):
        with refused("INVALID_CREDENTIALS"):
            await node.login(password="wrong password")
    with refused("ACCOUNT_LOCKED"):
        await node.login()
    await ask_for(node, RESET, {"email": "ann@example.org"})
    await node.ask(CONFIRM, {"token": token_in(await mail(node, site)), "new_password": NEW})
    await node.login(password=NEW)


async def test_a_reset_token_ends_and_a_later_one_takes_its_place(site: Site, node: Node) -> None:
    await confirmed(node, site)
    await ask_for(node, RESET, {"email": "ann@example.org"})
    first = token_in(await mail(node, site))
    await ask_for(node, RESET, {"email": "ann@example.org"})
    assert await mails(node, site) == [], "not again within the pause"
    site.db.forward(61)
    await ask_for(node, RESET, {"email": "ann@example.org"})
    second = token_in(await mail(node, site))
    with refused("MAILED_TOKEN_INVALID"):
        await node.ask(CONFIRM, {"token": first, "new_password": NEW})
    site.db.forward(3_601)
    with refused("MAILED_TOKEN_INVALID"):
        await node.ask(CONFIRM, {"token": second, "new_password": NEW})
    await node.login()


async def test_a_token_is_for_one_purpose_and_kept_as_its_hash(site: Site, node: Node) -> None:
    ann = await confirmed(node, site)
    await ask_for(node, RESET, {"email": "ann@example.org"})
    token = token_in(await mail(node, site))
    for what, caller in ((VERIFY, None), (CHANGED, ann)):
        with refused("MAILED_TOKEN_INVALID"):
            await node.ask(what, {"token": token}, as_=caller)
    [kept] = await node.rows("SELECT token_hash FROM mail_tokens WHERE purpose = 'reset'")
    assert token.encode() not in bytes(kept[0])
    await node.ask(CONFIRM, {"token": token, "new_password": NEW})


# another address


async def test_an_address_changes_once_the_new_one_is_confirmed(site: Site, node: Node) -> None:
    ann = await confirmed(node, site)
    body = {"email": "ann@new.example", "password": PASSWORD}
    assert await ask_for(node, CHANGE, body, as_=ann) == {"status": "accepted"}
    by_address = {each.to: each for each in await mails(node, site)}
    assert by_address.keys() == {"ann@new.example", "ann@example.org"}
    assert "token" not in by_address["ann@example.org"].text
    assert "new.example" not in by_address["ann@example.org"].text
    token = token_in(by_address["ann@new.example"])
    assert (await node.ask("GET /v1/users/me", as_=ann))["email"] == "ann@example.org"
    bob = await confirmed(node, site, "bob")
    with refused("MAILED_TOKEN_INVALID"):
        await node.ask(CHANGED, {"token": token}, as_=bob)
    await ask_for(node, RESET, {"email": "ann@example.org"})
    old = token_in(await mail(node, site))
    await node.ask(CHANGED, {"token": token}, as_=ann)
    me = await node.ask("GET /v1/users/me", as_=ann)
    assert (me["email"], me["email_verified"]) == ("ann@new.example", True)
    noted = await node.rows(
        "SELECT action, subject FROM audit WHERE action LIKE 'auth:email:change%' ORDER BY 1"
    )
    assert noted == [("auth:email:change_requested", ann.user_id), ("auth:email:changed", ann.user_id)]
    with refused("MAILED_TOKEN_INVALID"):
        await node.ask(CONFIRM, {"token": old, "new_password": NEW})
    with refused("MAILED_TOKEN_INVALID"):
        await node.ask(CHANGED, {"token": token}, as_=ann)


async def test_a_change_wants_the_password_and_another_address_and_some_patience(
    site: Site, node: Node
) -> None:
    ann = await confirmed(node, site)
    with refused("INVALID_CREDENTIALS"):
        await node.ask(CHANGE, {"email": "ann@new.example", "password": "wrong password"}, as_=ann)
    for email in ("ANN@example.org", "no address", "ann@new.example\nBcc: eve@example.org"):
        with refused("VALIDATION", field="email"):
            await node.ask(CHANGE, {"email": email, "password": PASSWORD}, as_=ann)
    assert await mails(node, site) == []
    await ask_for(node, CHANGE, {"email": "ann@new.example", "password": PASSWORD}, as_=ann)
    with refused("RATE_LIMITED"):
        await node.ask(CHANGE, {"email": "ann@newer.example", "password": PASSWORD}, as_=ann)


async def test_many_who_change_to_an_address_do_not_flood_it(site: Site, node: Node) -> None:
    people = [await confirmed(node, site, f"ann{number}") for number in range(2)]
    for person in people:
        body = {"email": "victim@example.org", "password": PASSWORD}
        assert await ask_for(node, CHANGE, body, as_=person) == {"status": "accepted"}
    await ask_for(node, REGISTER, registration("eve", "victim@example.org"))
    assert [each.to for each in await mails(node, site)].count("victim@example.org") == 1


async def test_an_address_of_someone_else_is_not_told_from_a_free_one(site: Site, node: Node) -> None:
    ann, bob = await confirmed(node, site), await confirmed(node, site, "bob")
    taken = {"email": "bob@example.org", "password": PASSWORD}
    free = {"email": "free@example.org", "password": PASSWORD}
    assert await ask_for(node, CHANGE, taken, as_=ann) == await ask_for(node, CHANGE, free, as_=bob)
    told = [(each.to, each.subject) for each in await mails(node, site)]
    assert ("bob@example.org", "You already have an account") in told
    assert len(told) == 4


async def test_whoever_confirms_first_has_the_address(site: Site, node: Node) -> None:
    ann, bob = await confirmed(node, site), await confirmed(node, site, "bob")
    tokens = []
    for person in (ann, bob):
        await ask_for(node, CHANGE, {"email": "both@example.org", "password": PASSWORD}, as_=person)
        sent = await mails(node, site)
        tokens.append(next(token_in(each) for each in sent if each.to == "both@example.org"))
        site.db.forward(61)  # the pause of the address
    await node.ask(CHANGED, {"token": tokens[0]}, as_=ann)
    with refused("EMAIL_TAKEN"):
        await node.ask(CHANGED, {"token": tokens[1]}, as_=bob)


# notices


async def test_a_new_device_is_told_of_and_a_known_one_is_not(site: Site, node: Node) -> None:
    ann = await confirmed(node, site)
    assert await mails(node, site) == [], "the first device is no surprise"
    await node.login(device_id=ann.device_id, device_secret=ann.device_secret)
    assert await mails(node, site) == []
    await node.login(device_name="Ann's <phone> $x")
    sent = await mail(node, site)
    assert "Ann's <phone> $x" in sent.text
    assert "192.0.2.1" in sent.text
    assert "Ann&#x27;s &lt;phone&gt; $x" in sent.html


async def test_an_address_that_is_not_confirmed_gets_no_notices(site: Site) -> None:
    plain = await site.node()
    await plain.register()
    await plain.login()
    assert await mails(plain, site) == []


async def test_letters_speak_the_language_of_who_asks(site: Site, node: Node) -> None:
    await confirmed(node, site)
    await ask_for(node, RESET, {"email": "ann@example.org"}, language="fr, VI-vn;q=0.9, en;q=0.8")
    assert (await mail(node, site)).subject == "Đặt mật khẩu mới"
    site.db.forward(61)
    await ask_for(node, RESET, {"email": "ann@example.org"}, language="fr")
    assert (await mail(node, site)).subject == "Set a new password"


async def test_nothing_is_left_for_someone_who_is_forgotten(site: Site, node: Node) -> None:
    ann = await confirmed(node, site)
    await ask_for(node, RESET, {"email": "ann@example.org"})
    await node.db.write(node.room.recovery.forget, UserId(ann.user_id))
    assert await mails(node, site) == []
    assert await node.rows("SELECT user_id FROM mail_tokens") == []


async def test_too_much_mail_waiting_is_told_to_everybody_alike(site: Site, node: Node) -> None:
    await confirmed(node, site)
    node.outbox._is_full = True
    for email in ("ann@example.org", "nobody@example.org"):
        for what in (RESET, VERIFY_AGAIN):
            with refused("UNAVAILABLE"):
                await node.ask(what, {"email": email})
    with refused("UNAVAILABLE"):
        await node.ask(REGISTER, registration("bob", "bob@example.org"))


# at the same moment, and at the wrong one


async def test_an_address_raced_for_is_one_account_s(site: Site, node: Node) -> None:
    """Somebody changes to it while somebody else registers it."""
    nodes = [node, await site.node(replace(CHEAP, mail_pause_s=60), confirms_email=True)]
    for number in range(4):
        ann, email = await confirmed(node, site, f"ann{number}"), f"both{number}@example.org"
        await ask_for(node, CHANGE, {"email": email, "password": PASSWORD}, as_=ann)
        changing = token_in(next(each for each in await mails(node, site) if each.to == email))
        site.db.forward(61)  # the pause of the address
        await ask_for(node, REGISTER, registration(f"bob{number}", email))
        registering = token_in(await mail(node, site, email))
        said: dict[str, str] = {}
        async with trio.open_nursery() as nursery:
            changed = nodes[0].ask(CHANGED, {"token": changing}, as_=ann)
            nursery.start_soon(note, said, "ann", changed)
            nursery.start_soon(note, said, "bob", nodes[1].ask(VERIFY, {"token": registering}))
        assert sorted(said.values()) == ["EMAIL_TAKEN", "ok"]
        [owner] = await node.rows(f"SELECT username FROM users WHERE email = '{email}'")
        assert owner == (f"{'ann' if said['ann'] == 'ok' else 'bob'}{number}",)
        await mails(node, site)


async def note(said: dict[str, str], who: str, asked: Awaitable[Any]) -> None:
    try:
        await asked
    except Problem as problem:
        said[who] = problem.code
    else:
        said[who] = "ok"


async def test_a_new_password_lifts_no_ban_and_keeps_nobody(site: Site, node: Node) -> None:
    ann = await confirmed(node, site)
    user = UserId(ann.user_id)
    await node.ask("DELETE /v1/users/me", {"password": PASSWORD}, as_=ann)
    await node.db.write(admin.add_ban, user, Ban("spam", node.db.now_us(), None, None))
    await ask_for(node, RESET, {"email": "ann@example.org"})
    await node.ask(CONFIRM, {"token": token_in(await mail(node, site)), "new_password": NEW})
    with refused("TOKEN_REVOKED"):
        await node.refresh(ann)
    with refused("ACCOUNT_BANNED"):
        await node.login(password=NEW)
    [kept] = await node.rows("SELECT delete_at FROM users")
    assert kept[0] is not None


async def test_nobody_is_written_to_who_was_erased(site: Site, node: Node) -> None:
    """What stands in the place of their address is none, and no way to them."""
    ann = await confirmed(node, site)
    user, now_us = UserId(ann.user_id), node.db.now_us()
    await node.db.write(deletion_store.schedule, user, now_us, now_us)
    await node.room.deletion.erase_at_once(user)
    await mails(node, site)
    for what in (RESET, VERIFY_AGAIN):
        await ask_for(node, what, {"email": f"!{ann.user_id}"})
    assert [row[0] for row in await node.rows("SELECT kind FROM outbox")] == [DECOY, DECOY]
    assert await node.rows(f"SELECT purpose FROM mail_tokens WHERE user_id = '{ann.user_id}'") == []
