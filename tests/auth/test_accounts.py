"""Registering, signing in, profiles."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kit.olm import OlmDevice
from secureconnect.auth.accounts import checked_email, checked_name, checked_username, fold
from secureconnect.auth.admin import store as admin
from secureconnect.auth.admin.store import Ban
from secureconnect.auth.sessions import Origin
from secureconnect.deps.contracts import Tx
from secureconnect.errors import Invalid, Problem, Unavailable
from secureconnect.identity import UserId

from .harness import CHEAP, PASSWORD, Node, Site, refused

ORIGIN = Origin("192.0.2.1", "tests")


async def test_registering_signs_in(node: Node) -> None:
    body = {"email": "Ann@Example.org", "username": "Ann_1", "password": PASSWORD}
    data = await node.ask("POST /v1/auth/register", body)
    assert set(data) == {
        *("user", "access_token", "refresh_token", "token_type", "expires_in"),
        *("session_id", "device_id", "device_secret"),
    }
    assert data["token_type"] == "Bearer"
    assert data["expires_in"] == 900
    assert len(data["device_secret"]) == 43
    user = data["user"]
    assert user.pop("created_at").endswith("Z")
    assert user == {
        "user_id": data["user"]["user_id"],
        "username": "Ann_1",
        "display_name": "Ann_1",
        "avatar_url": None,
        "status": None,
        "email": "Ann@Example.org",
        "role": "user",
        "email_verified": False,
    }
    principal = await node.room.authenticate(data["access_token"])
    assert principal.user_id == user["user_id"]
    assert principal.role == "user"


async def test_login_by_email_or_username_in_any_case(node: Node) -> None:
    ann = await node.register("Ann", email="Ann@Example.org")
    for name in ({"username": "ANN"}, {"username": "ａｎｎ"}, {"email": "ann@EXAMPLE.org"}):
        data = await node.ask("POST /v1/auth/login", {"password": PASSWORD, **name})
        assert data["user"]["user_id"] == ann.user_id
        assert data["session_id"] != ann.session_id


async def test_same_letters_typed_differently_are_one_password(node: Node) -> None:
    composed, decomposed = "na\u00efvet\u00e9 12", "nai\u0308vete\u0301 12"
    await node.register("ann", password=composed)
    await node.login("ann", decomposed)
    with refused("INVALID_CREDENTIALS"):
        await node.login("ann", composed.upper())


async def test_unknown_user_and_wrong_password_look_alike(node: Node) -> None:
    ann = await node.register()
    said = []
    for username in ("ann", "nobody"):
        with pytest.raises(Problem) as caught:
            await node.login(username, "wrong password")
        problem = caught.value
        assert problem.denial == "auth:session:refused"
        said.append((problem.code, problem.status, problem.message, problem.details, problem.retry_after_s))
    assert said[0] == said[1]
    with pytest.raises(Problem) as caught:
        await node.login("ann", "wrong password")
    assert caught.value.subject == ann.user_id


@pytest.mark.parametrize("names", [{}, {"email": "ann@example.org", "username": "ann"}])
async def test_login_names_one_person(node: Node, names: dict[str, str]) -> None:
    await node.register()
    with refused("VALIDATION", field="username"):
        await node.ask("POST /v1/auth/login", {"password": PASSWORD, **names})


async def test_names_are_taken_whatever_their_case(node: Node) -> None:
    await node.register("Ann")
    with refused("USERNAME_TAKEN"):
        await node.register("aNN", email="other@example.org")
    with refused("EMAIL_TAKEN"):
        await node.register("other", email="ANN@EXAMPLE.ORG")
    assert await _count(node, "users") == 1
    assert await _count(node, "sessions") == 1


async def test_one_of_many_racers_gets_the_name(node: Node) -> None:
    codes: list[str] = []

    async def race(email: str, username: str) -> None:
        try:
            await node.register(username, email=email)
            codes.append("ok")
        except Problem as problem:
            codes.append(problem.code)

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(race, f"ann{number}@example.org", "ann")
            nursery.start_soon(race, "bob@example.org", f"bob{number}")
    assert sorted(codes) == ["EMAIL_TAKEN"] * 9 + ["USERNAME_TAKEN"] * 9 + ["ok"] * 2
    assert await _count(node, "users") == 2


async def test_registration_may_be_closed(site: Site) -> None:
    node = await site.node(replace(CHEAP, registration="closed"))
    with refused("REGISTRATION_CLOSED"):
        await node.register()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"username": "ann x"}, "username"),
        ({"username": ".ann"}, "username"),
        ({"username": "änn"}, "username"),
        ({"username": "ann\n"}, "username"),
        ({"email": "ann"}, "email"),
        ({"email": "ann@example"}, "email"),
        ({"email": "ann@@example.org"}, "email"),
        ({"email": "ann\ufe6bb@example.org"}, "email"),
        ({"email": "a\r\nBcc:x@example.org"}, "email"),
        ({"display_name": "   "}, "display_name"),
        ({"display_name": "a\u202eb"}, "display_name"),
        ({"display_name": "a\tb"}, "display_name"),
    ],
)
async def test_bad_fields_are_named(node: Node, body: dict[str, str], field: str) -> None:
    whole = {"email": "ann@example.org", "username": "ann"} | body
    with refused("VALIDATION", field=field):
        await node.room.accounts.register(
            email=whole["email"],
            username=whole["username"],
            password=PASSWORD,
            display_name=whole.get("display_name"),
            origin=ORIGIN,
        )
    assert await _count(node, "users") == 0


@pytest.mark.parametrize("password", ["1234567", "x" * 1025])
async def test_passwords_have_a_length(node: Node, password: str) -> None:
    with refused("VALIDATION", field="password"):
        await node.room.accounts.register(
            email="ann@example.org",
            username="ann",
            password=password,
            display_name=None,
            origin=ORIGIN,
        )


async def test_longest_password_is_compared_whole(node: Node) -> None:
    await node.register("ann", password="𝄞" * 1024)
    with refused("INVALID_CREDENTIALS"):
        await node.login("ann", "𝄞" * 1023 + "x")
    await node.login("ann", "𝄞" * 1024)


async def test_profiles_show_others_less(node: Node) -> None:
    ann, bob = await node.register("ann"), await node.register("bob", display_name="Bob B.")
    mine = await node.ask("GET /v1/auth/profile", as_=bob)
    assert mine == await node.ask("GET /v1/users/me", as_=bob)
    assert mine == await node.ask("GET /v1/users/{user_id}", as_=bob, path={"user_id": bob.user_id})
    assert mine["email"] == "bob@example.org"
    seen = await node.ask("GET /v1/users/{user_id}", as_=ann, path={"user_id": bob.user_id})
    assert seen == {
        "user_id": bob.user_id,
        "username": "bob",
        "display_name": "Bob B.",
        "avatar_url": None,
        "status": None,
    }
    with refused("NOT_FOUND"):
        await node.ask("GET /v1/users/{user_id}", as_=ann, path={"user_id": bob.device_id})


async def test_admins_see_whole_profiles(node: Node) -> None:
    await node.register("ann")
    bob = await node.register("bob")
    await node.db.write(_make_admin, "ann")
    ann = await node.login("ann")
    seen = await node.ask("GET /v1/users/{user_id}", as_=ann, path={"user_id": bob.user_id})
    assert seen["email"] == "bob@example.org"


async def test_status_is_asked_from_whoever_knows(node: Node) -> None:
    ann = await node.register()
    node.room.connect(ended=lambda _: None, status_of=lambda user: f"status of {user}")
    me = await node.ask("GET /v1/users/me", as_=ann)
    assert me["status"] == f"status of {ann.user_id}"


async def test_signing_in_does_not_need_presence(node: Node) -> None:
    def restarting(_: UserId) -> str:
        raise Unavailable

    node.room.connect(ended=lambda _: None, status_of=restarting)
    ann = await node.register()
    assert (await node.ask("GET /v1/users/me", as_=ann))["status"] is None


async def test_export_holds_everything_but_secrets(node: Node) -> None:
    ann = await node.register()
    await node.login(device_name="Ann's phone")
    export = (await node.export(ann))["account.json"]
    assert export["user"]["email"] == "ann@example.org"
    assert [each["name"] for each in export["devices"]] == [None, "Ann's phone"]
    assert {each["address"] for each in export["sessions"]} == {"192.0.2.1"}
    assert len(export["sessions"]) == 2
    assert "argon2" not in repr(export)
    assert export["ban"] is None


async def test_export_holds_keys_reports_and_a_ban(node: Node) -> None:
    ann, bob = await node.register("ann"), await node.register("bob")
    phone = OlmDevice(ann.user_id, ann.device_id, "example.org")
    await node.ask("POST /v1/e2ee/keys/upload", phone.upload(1), as_=ann)
    body = {"user_id": bob.user_id, "reason": "spam", "comment": "again and again"}
    await node.ask("POST /v1/reports", body, as_=ann, status=201)
    export = (await node.export(ann))["account.json"]
    [keys] = export["device_keys"]
    assert keys["identity_key"] in keys["document"]["keys"].values()
    assert export["signing_keys"] == {}
    [report] = export["reports"]
    assert (report["user_id"], report["comment"], report["state"]) == (bob.user_id, "again and again", "open")
    now_us = node.db.now_us()
    await node.db.write(admin.add_ban, UserId(ann.user_id), Ban("rude", now_us, now_us + 1, None))
    assert (await node.export(ann))["account.json"]["ban"]["reason"] == "rude"


async def test_what_is_done_is_audited(node: Node) -> None:
    ann = await node.register()
    rows = await node.rows("SELECT action, actor_id, subject FROM audit ORDER BY audit_id")
    assert rows == [
        ("auth:user:registered", ann.user_id, ann.user_id),
        ("auth:session:opened", ann.user_id, ann.session_id),
    ]


@given(st.text(max_size=40))
@example("\u0345\u1fb3")
@example("ﷺ")
@settings(max_examples=300, deadline=None)
def test_folding_twice_changes_nothing(text: str) -> None:
    assert fold(fold(text)) == fold(text)


@given(st.one_of(st.text(max_size=60), st.from_regex(r"[\w.]{1,5}@[\w.]{1,8}", fullmatch=True)))
@settings(max_examples=300, deadline=None)
def test_what_passes_as_a_name_is_harmless(text: str) -> None:
    for check in (checked_username, checked_email, lambda t: checked_name(t, "display_name")):
        try:
            kept = check(text)
        except Invalid:
            continue
        kept.encode()
        assert kept == kept.strip() != ""
        assert not any(character in kept for character in "\0\r\n\u2028\u202e")


async def _count(node: Node, table: str) -> int:
    [(count,)] = await node.rows(f"SELECT COUNT(*) FROM {table}")
    assert isinstance(count, int)
    return count


async def _make_admin(tx: Tx, username: str) -> None:
    await tx.run("UPDATE users SET role = 'admin' WHERE username = $1", username)
