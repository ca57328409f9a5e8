"""The second factor, from the first code to the last recovery code."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pyotp
import pytest
import trio

from secureconnect.auth.sessions import Origin
from secureconnect.auth.totp.codes import STEP_S
from secureconnect.clock import SECOND_US
from secureconnect.deps.contracts import Tx
from secureconnect.errors import Problem
from secureconnect.identity import UserId

from .harness import CHEAP, PASSWORD, Node, Person, Site, refused

LIMIT = CHEAP.lockout_failures
LOOSE = replace(CHEAP, lockout_failures=1_000)
FACTOR = "GET /v1/auth/totp"
ENROLL, CONFIRM, DISABLE = "POST /v1/auth/totp/enroll", "POST /v1/auth/totp/confirm", "DELETE /v1/auth/totp"


class App:
    """An authenticator app.  recovery: the codes told beside it."""

    def __init__(self, site: Site, secret: str) -> None:
        self._site = site
        self._totp = pyotp.TOTP(secret)
        self.recovery: list[str] = []

    def code(self, steps: int = 0) -> str:
        """Of now, or so many steps later."""
        return self._totp.generate_otp(self._site.db.now_us() // (STEP_S * SECOND_US) + steps)

    def next(self) -> str:
        """One that was not used yet, after enough time for it."""
        self._site.db.forward(STEP_S)
        return self.code()


async def begin(node: Node, site: Site, person: Person) -> App:
    """At the beginning of a step: none ends while a test counts them."""
    site.db.forward(STEP_S - site.db.now_us() / SECOND_US % STEP_S + 1)
    answer = await node.ask(ENROLL, {"password": PASSWORD}, as_=person)
    return App(site, answer["secret"])


async def turn_on(node: Node, site: Site, person: Person) -> App:
    app = await begin(node, site, person)
    answer = await node.ask(CONFIRM, {"code": app.code()}, as_=person)
    app.recovery = answer["recovery_codes"]
    return app


async def test_from_enrolling_to_signing_in(node: Node, site: Site) -> None:
    ann = await node.register()
    answer = await node.ask(ENROLL, {"password": PASSWORD}, as_=ann)
    uri = urlsplit(answer["otpauth_uri"])
    asked = parse_qs(uri.query)
    assert (uri.scheme, uri.netloc, uri.path) == ("otpauth", "totp", "/example.org:ann")
    assert asked["secret"] == [answer["secret"]]
    assert asked["issuer"] == ["example.org"]
    await node.login()  # nothing is asked for before it is confirmed
    app = App(site, answer["secret"])
    confirmed = await node.ask(CONFIRM, {"code": app.code()}, as_=ann)
    assert len(set(confirmed["recovery_codes"])) == CHEAP.recovery_codes
    assert {len(each.replace("-", "")) for each in confirmed["recovery_codes"]} == {24}, "120 bits in base32"
    with refused("TOTP_REQUIRED"):
        await node.login()
    await node.login(totp_code=app.next())
    spaced = app.next()
    await node.login(totp_code=f" {spaced[:3]} {spaced[3:]}")


async def test_a_code_that_is_missing_is_no_failure_and_one_that_is_wrong_is(node: Node, site: Site) -> None:
    app = await turn_on(node, site, await node.register())
    for _ in range(2 * LIMIT):
        with refused("TOTP_REQUIRED"):
            await node.login()
    for _ in range(LIMIT):
        with refused("TOTP_INVALID"):
            await node.login(totp_code=app.code(steps=9))
    with refused("ACCOUNT_LOCKED"):
        await node.login(totp_code=app.next())


async def test_only_the_right_password_is_asked_for_a_code(node: Node, site: Site) -> None:
    app = await turn_on(node, site, await node.register())
    for code in (None, app.next()):
        with refused("INVALID_CREDENTIALS"):
            await node.login("ann", "wrong password", totp_code=code)


async def test_a_code_is_good_once_and_none_before_it_afterwards(node: Node, site: Site) -> None:
    app = await turn_on(node, site, await node.register())
    with refused("TOTP_INVALID"):
        await node.login(totp_code=app.code())  # it confirmed
    site.db.forward(10 * STEP_S)
    before, ahead = app.code(steps=-1), app.code(steps=1)
    for far in (-2, 2):
        with refused("TOTP_INVALID"):
            await node.login(totp_code=app.code(far))
    await node.login(totp_code=before)
    await node.login(totp_code=ahead)
    with refused("TOTP_INVALID"):
        await node.login(totp_code=app.code())


@pytest.mark.parametrize("kind", ["app", "recovery"])
async def test_one_of_many_racers_uses_a_code(site: Site, kind: str) -> None:
    nodes = [await site.node(LOOSE), await site.node(LOOSE)]
    app = await turn_on(nodes[0], site, await nodes[0].register())
    code = app.next() if kind == "app" else app.recovery[0]
    said: Counter[str] = Counter()

    async def race(where: Node) -> None:
        try:
            await where.login(totp_code=code)
            said["ok"] += 1
        except Problem as problem:
            said[problem.code] += 1

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(race, nodes[number % 2])
    assert said == {"ok": 1, "TOTP_INVALID": 19}


async def test_recovery_codes_are_good_once_each_however_typed(node: Node, site: Site) -> None:
    app = await turn_on(node, site, await node.register())
    first, second, *_ = app.recovery
    await node.login(totp_code=first)
    with refused("TOTP_INVALID"):
        await node.login(totp_code=first)
    await node.login(totp_code=second.replace("-", "").upper())
    used = await site.rows("SELECT COUNT(*) FROM audit WHERE action = 'auth:totp:recovered'")
    assert used == [(2,)]


async def test_recovery_codes_are_one_person_s(node: Node, site: Site) -> None:
    ann_app = await turn_on(node, site, await node.register("ann"))
    bob = await node.register("bob")
    await turn_on(node, site, bob)
    with refused("TOTP_INVALID"):
        await node.login("bob", totp_code=ann_app.recovery[0])

    async def give_all_to_bob(tx: Tx) -> None:
        await tx.run("UPDATE recovery_codes SET user_id = $1", bob.user_id)

    await node.db.write(give_all_to_bob)  # nor does it help to move the rows
    with refused("TOTP_INVALID"):
        await node.login("bob", totp_code=ann_app.recovery[0])


async def test_who_sets_it_up_knows_the_password_and_has_the_app(node: Node, site: Site) -> None:
    ann = await node.register()
    with refused("INVALID_CREDENTIALS"):
        await node.ask(ENROLL, {"password": "wrong password"}, as_=ann)
    with refused("NOT_FOUND"):
        await node.ask(CONFIRM, {"code": "123456"}, as_=ann)
    forgotten, app = await begin(node, site, ann), await begin(node, site, ann)
    with refused("TOTP_INVALID"):
        await node.ask(CONFIRM, {"code": forgotten.code()}, as_=ann)
    await node.ask(CONFIRM, {"code": app.code()}, as_=ann)
    with refused("NOT_FOUND"):  # there is nothing left to confirm
        await node.ask(CONFIRM, {"code": app.next()}, as_=ann)
    with refused("TOTP_REQUIRED"):
        await node.ask(ENROLL, {"password": PASSWORD}, as_=ann)
    with refused("TOTP_ENABLED"):
        await node.ask(ENROLL, {"password": PASSWORD, "totp_code": app.next()}, as_=ann)
    await node.login(totp_code=app.next())


async def test_setting_up_has_an_end(node: Node, site: Site) -> None:
    ann = await node.register()
    app = await begin(node, site, ann)
    site.db.forward(CHEAP.totp_setup_s)
    with refused("NOT_FOUND"):
        await node.ask(CONFIRM, {"code": app.code()}, as_=ann)


async def test_guessing_the_first_code_is_counted(node: Node, site: Site) -> None:
    ann = await node.register()
    app = await begin(node, site, ann)
    for _ in range(LIMIT):
        with refused("TOTP_INVALID"):
            await node.ask(CONFIRM, {"code": app.code(steps=9)}, as_=ann)
    with refused("ACCOUNT_LOCKED"):
        await node.ask(CONFIRM, {"code": app.code()}, as_=ann)
    await node.login()


async def test_turned_off_with_both_factors(node: Node, site: Site) -> None:
    ann = await node.register()
    await node.ask(DISABLE, {"password": PASSWORD}, as_=ann)  # there is none: nothing happens
    app = await turn_on(node, site, ann)
    for body, code in (
        ({"password": PASSWORD}, "TOTP_REQUIRED"),
        ({"password": PASSWORD, "totp_code": "000000"}, "TOTP_INVALID"),
        ({"password": "wrong password", "totp_code": app.code()}, "INVALID_CREDENTIALS"),
    ):
        with refused(code):
            await node.ask(DISABLE, body, as_=ann)
    await node.ask(DISABLE, {"password": PASSWORD, "totp_code": app.recovery[0]}, as_=ann)
    await node.login()
    assert await site.rows("SELECT * FROM totps") == []
    assert await site.rows("SELECT * FROM recovery_codes") == []
    done = await site.rows("SELECT action FROM audit WHERE action LIKE 'auth:totp:%' ORDER BY audit_id")
    assert done == [("auth:totp:enabled",), ("auth:totp:recovered",), ("auth:totp:disabled",)]


async def test_reauthentication_uses_the_code_up(node: Node, site: Site) -> None:
    ann = await node.register()
    app = await turn_on(node, site, ann)
    user_id, home, code = UserId(ann.user_id), Origin("192.0.2.1", "tests"), app.next()
    with refused("TOTP_REQUIRED"):
        await node.room.reauthentication.require(user_id, PASSWORD, None, home)
    await node.room.reauthentication.require(user_id, PASSWORD, code, home)
    with refused("TOTP_INVALID"):
        await node.room.reauthentication.require(user_id, PASSWORD, code, home)


async def test_the_export_says_since_when(node: Node, site: Site) -> None:
    ann = await node.register()
    await begin(node, site, ann)
    assert (await node.export(ann))["account.json"]["user"]["second_factor_since"] is None
    await turn_on(node, site, ann)
    assert (await node.export(ann))["account.json"]["user"]["second_factor_since"].endswith("Z")


async def test_no_secret_lies_open(node: Node, site: Site) -> None:
    ann = await node.register()
    answer = await node.ask(ENROLL, {"password": PASSWORD}, as_=ann)
    app = App(site, answer["secret"])
    app.recovery = (await node.ask(CONFIRM, {"code": app.code()}, as_=ann))["recovery_codes"]
    rows: list[Any] = [*await site.rows("SELECT * FROM totps"), *await site.rows("SELECT * FROM audit")]
    rows += await site.rows("SELECT * FROM recovery_codes")
    kept = b"".join(_bytes(value) for row in rows for value in row).lower()
    for secret in (answer["secret"], *app.recovery):
        assert secret.lower().encode() not in kept
        assert secret.lower().replace("-", "").encode() not in kept


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


async def test_one_is_told_whether_it_is_on(node: Node, site: Site) -> None:
    ann = await node.register()
    off = {"is_on": False, "recovery_codes_left": None}
    assert await node.ask(FACTOR, as_=ann) == off
    app = await begin(node, site, ann)
    assert await node.ask(FACTOR, as_=ann) == off
    app.recovery = (await node.ask(CONFIRM, {"code": app.code()}, as_=ann))["recovery_codes"]
    assert await node.ask(FACTOR, as_=ann) == {"is_on": True, "recovery_codes_left": len(app.recovery)}
    await node.ask(DISABLE, {"password": PASSWORD, "totp_code": app.recovery[0]}, as_=ann)
    assert await node.ask(FACTOR, as_=ann) == off
