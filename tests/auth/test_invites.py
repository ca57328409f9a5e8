"""Who may register, and what an invite is good for."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import trio

from secureconnect.auth.invites.invites import Invites
from secureconnect.deps.contracts import Tx
from secureconnect.errors import Problem
from secureconnect.gateway.web import PAGES
from secureconnect.identity import DeviceId, Principal, SessionId, UserId, new_id

from .harness import CHEAP, PASSWORD, Node, Person, Site, refused

BY_INVITE = replace(CHEAP, registration="invite")
LIST, MAKE, DELETE = "GET /v1/admin/invites", "POST /v1/admin/invites", "DELETE /v1/admin/invites/{invite_id}"


@pytest.fixture
async def admin(node: Node) -> Person:
    """Registered while everybody could."""

    async def promote(tx: Tx) -> None:
        await tx.run("UPDATE users SET role = 'admin' WHERE username = 'root'")

    await node.register("root")
    await node.db.write(promote)
    return await node.login("root")


@pytest.fixture
async def door(site: Site) -> Node:
    """A node that takes people by invite only."""
    return await site.node(BY_INVITE)


async def made(node: Node, admin: Person, **body: Any) -> dict[str, Any]:
    answer: dict[str, Any] = await node.ask(MAKE, body, as_=admin)
    return answer


async def test_an_invite_lets_in(door: Node, admin: Person, site: Site) -> None:
    with refused("INVITE_REQUIRED"):
        await door.register("ann")
    with refused("INVITE_INVALID"):
        await door.register("ann", invite_code="guessed")
    invite = await made(door, admin)
    assert invite["link"] == f"/invite#code={invite['invite_code']}"
    ann = await door.register("ann", invite_code=invite["invite_code"])
    with refused("INVITE_INVALID"):
        await door.register("bob", invite_code=invite["invite_code"])
    [told] = await site.rows(
        f"SELECT facts FROM audit WHERE action = 'auth:user:registered' AND subject = '{ann.user_id}'"
    )
    assert invite["invite_id"] in told[0]


async def test_an_invite_is_spent_before_the_address_is_confirmed(site: Site, admin: Person) -> None:
    door = await site.node(BY_INVITE, confirms_email=True)
    invite = await made(door, admin)
    ann = {"username": "ann", "email": "ann@example.org", "password": PASSWORD}
    with refused("INVITE_REQUIRED"):
        await door.ask("POST /v1/auth/register", ann)
    code = {"invite_code": invite["invite_code"]}
    await door.ask("POST /v1/auth/register", ann | code, status=202)
    with refused("INVITE_INVALID"):
        await door.ask("POST /v1/auth/register", ann | code | {"username": "bob"})
    await door.outbox.pass_once()
    found = re.search(r"/verify#token=(\S+)", site.postman.mails[-1].text)
    assert found is not None
    await door.ask("POST /v1/auth/email/verify", {"token": found[1]})
    told = await site.rows("SELECT facts FROM audit WHERE action = 'auth:user:registered' ORDER BY audit_id")
    assert invite["invite_id"] in told[-1][0]
    site.db.forward(BY_INVITE.verify_ttl_s + 1)
    await door.room.prune_once()
    assert await site.rows("SELECT uses FROM invites") == [(1,)], "who has come in has used it"


@pytest.mark.parametrize("by", ["time", "name"])
async def test_an_invite_whose_guest_confirms_no_address_is_given_back(
    site: Site, admin: Person, by: str
) -> None:
    """Once: by the pass, or by the next who wants that name."""
    door = await site.node(BY_INVITE, confirms_email=True)
    invites = [await made(door, admin), await made(door, admin, max_uses=2)]
    ann = {"username": "ann", "email": "ann@example.org", "password": PASSWORD}
    code = {"invite_code": invites[0]["invite_code"]}
    await door.ask("POST /v1/auth/register", ann | code, status=202)
    site.db.forward(BY_INVITE.verify_ttl_s + 1)
    if by == "name":
        other = {"invite_code": invites[1]["invite_code"]}
        await door.ask("POST /v1/auth/register", ann | other, status=202)
    for _ in range(2):
        await door.room.prune_once()
    uses = await site.rows("SELECT uses FROM invites ORDER BY max_uses")
    assert uses == [(0,), (0 if by == "time" else 1,)]
    await door.ask("POST /v1/auth/register", ann | code | {"username": "bob"}, status=202)


async def test_as_many_get_in_as_were_invited_however_they_race(
    door: Node, admin: Person, site: Site
) -> None:
    doors = [door, await site.node(BY_INVITE)]
    code = (await made(door, admin, max_uses=3))["invite_code"]
    said: Counter[str] = Counter()

    async def race(number: int) -> None:
        try:
            await doors[number % 2].register(f"guest{number}", invite_code=code)
            said["ok"] += 1
        except Problem as problem:
            said[problem.code] += 1

    async with trio.open_nursery() as nursery:
        for number in range(12):
            nursery.start_soon(race, number)
    assert said == {"ok": 3, "INVITE_INVALID": 9}
    assert await site.rows("SELECT COUNT(*) FROM users") == [(4,)]


async def test_who_does_not_get_in_spends_nothing(door: Node, admin: Person) -> None:
    code = (await made(door, admin))["invite_code"]
    with refused("USERNAME_TAKEN"):
        await door.register("root", email="other@example.org", invite_code=code)
    with refused("EMAIL_TAKEN"):
        await door.register("other", email="root@example.org", invite_code=code)
    with refused("INVITE_INVALID"):  # not whether the name is taken
        await door.register("root", invite_code="guessed")
    await door.register("ann", invite_code=code)


async def test_invites_end(door: Node, admin: Person, site: Site) -> None:
    short = await made(door, admin, expires_in=60)
    usual = await made(door, admin)
    site.db.forward(60)
    with refused("INVITE_INVALID"):
        await door.register("ann", invite_code=short["invite_code"])
    listed = await door.ask(LIST, as_=admin)
    assert [each["invite_id"] for each in listed["invites"]] == [usual["invite_id"]]
    await door.room.prune_once()
    assert await site.rows("SELECT invite_id FROM invites") == [(usual["invite_id"],)]


async def test_invites_are_taken_back(door: Node, admin: Person, site: Site) -> None:
    invite = await made(door, admin)
    path = {"invite_id": invite["invite_id"]}
    await door.ask(DELETE, as_=admin, path=path)
    with refused("INVITE_INVALID"):
        await door.register("ann", invite_code=invite["invite_code"])
    with refused("NOT_FOUND"):
        await door.ask(DELETE, as_=admin, path=path)
    done = await site.rows("SELECT action, subject FROM audit WHERE action LIKE 'auth:invite:%' ORDER BY 1")
    invited = invite["invite_id"]
    assert done == [("auth:invite:created", invited), ("auth:invite:deleted", invited)]


async def test_listed_newest_first_by_pages_and_without_codes(door: Node, admin: Person) -> None:
    invites = [await made(door, admin, max_uses=number) for number in (1, 2, 3)]
    await door.register("ann", invite_code=invites[2]["invite_code"])
    first = await door.ask(LIST, as_=admin, query={"limit": 2})
    rest = await door.ask(LIST, as_=admin, query={"limit": 2, "cursor": first["next_cursor"]})
    listed = first["invites"] + rest["invites"]
    assert [(each["max_uses"], each["uses"]) for each in listed] == [(3, 1), (2, 0), (1, 0)]
    assert rest["next_cursor"] is None
    assert all("invite_code" not in each and "link" not in each for each in listed)
    with refused("VALIDATION", field="cursor"):
        await door.ask(LIST, as_=admin, query={"cursor": "x"})


async def test_only_administrators_have_invites(node: Node, admin: Person) -> None:
    ann = await node.register("ann")
    invite = await made(node, admin)
    for what in (LIST, MAKE, DELETE):
        with pytest.raises(Problem) as caught:
            await node.ask(what, {}, as_=ann, path={"invite_id": invite["invite_id"]})
        assert (caught.value.code, caught.value.denial) == ("FORBIDDEN", "denied:admin")


async def test_a_code_does_no_harm_where_everybody_may_register(node: Node) -> None:
    await node.register("ann", invite_code="whatever")


async def test_the_link_begins_with_the_public_url(site: Site) -> None:
    invites = Invites(CHEAP, site.db, "https://chat.example.org")
    root = Principal(UserId(new_id()), SessionId(new_id()), DeviceId(new_id()), "admin", 0)
    made = await invites.make(root, 1, None, "192.0.2.1")
    assert "/invite" in PAGES
    assert made.link == f"https://chat.example.org/invite#code={made.code}"
    assert made.invite.expires_us - made.invite.created_us == CHEAP.invite_days * 86_400 * 1_000_000
