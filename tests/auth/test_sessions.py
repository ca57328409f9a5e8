"""Refresh tokens, devices, the list of sessions, tickets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio

from kit.databases import on_sqlite
from secureconnect.auth.attempts import ATTEMPTS, FAILURES, SUCCESS
from secureconnect.errors import Problem
from secureconnect.identity import is_id, new_id

from .harness import CHEAP, PASSWORD, Node, Person, Site, refused

# refreshing


async def test_refresh_rotates(node: Node) -> None:
    ann = await node.register()
    fresh = await node.refresh(ann)
    assert fresh.refresh_token != ann.refresh_token
    assert (await node.who(fresh)).session_id == ann.session_id
    again = await node.refresh(fresh)
    assert again.refresh_token not in (ann.refresh_token, fresh.refresh_token)
    assert node.closed == []


async def test_spent_token_gets_the_same_successor_while_that_is_unspent(node: Node, site: Site) -> None:
    ann = await node.register()
    first = await node.refresh(ann)
    site.db.forward(29)
    second = await node.refresh(ann)
    assert second.refresh_token == first.refresh_token
    assert second.access_token != first.access_token
    await node.refresh(second)


async def test_spent_token_after_the_grace_ends_the_session(node: Node, site: Site) -> None:
    ann = await node.register()
    thief = await node.refresh(ann)
    site.db.forward(31)
    await _is_stolen(node, ann, ann, thief)


async def test_spent_token_whose_successor_is_spent_ends_the_session(node: Node) -> None:
    ann = await node.register()
    thief = await node.refresh(ann)
    await node.refresh(thief)
    await _is_stolen(node, ann, ann, thief)


async def test_without_grace_every_repetition_is_theft(site: Site) -> None:
    node = await site.node(replace(CHEAP, refresh_grace_s=0))
    ann = await node.register()
    thief = await node.refresh(ann)
    await _is_stolen(node, ann, ann, thief)


async def _is_stolen(node: Node, presented: Person, *others: Person) -> None:
    """The presented token ends the session: its access tokens, its refresh tokens, its sockets."""
    other_device = await node.login()
    with refused("TOKEN_REVOKED"):
        await node.refresh(presented)
    for person in others:
        with refused("TOKEN_REVOKED"):
            await node.refresh(person)
        with refused("TOKEN_REVOKED"):
            await node.who(person)
    assert node.closed == [presented.session_id]
    stolen = await node.rows("SELECT subject FROM audit WHERE action = 'auth:session:stolen'")
    assert stolen == [(presented.session_id,)]
    await node.refresh(other_device)


async def test_many_at_once_agree_on_one_successor(node: Node) -> None:
    ann = await node.register()
    got: list[Person] = []

    async def tab() -> None:
        got.append(await node.refresh(ann))

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(tab)
    assert len({person.refresh_token for person in got}) == 1
    assert len(got) == 50
    await node.refresh(got[0])
    assert node.closed == []


async def test_two_nodes_agree_on_one_successor(node: Node, site: Site) -> None:
    other = await site.node()
    ann = await node.register()
    assert (await node.refresh(ann)).refresh_token == (await other.refresh(ann)).refresh_token


async def test_refresh_tokens_expire_from_their_last_use(node: Node, site: Site) -> None:
    ann = await node.register()
    site.db.forward(CHEAP.refresh_ttl_s - 1)
    fresh = await node.refresh(ann)
    site.db.forward(CHEAP.refresh_ttl_s - 1)
    fresh = await node.refresh(fresh)
    site.db.forward(CHEAP.refresh_ttl_s + 1)
    with refused("TOKEN_EXPIRED"):
        await node.refresh(fresh)


@pytest.mark.parametrize("token", ["", "x" * 43, "ä", "\ud800"])
async def test_unknown_refresh_token_is_refused(node: Node, token: str) -> None:
    ann = await node.register()
    with refused("INVALID_TOKEN"):
        await node.refresh(replace(ann, refresh_token=token))


async def test_an_access_token_refreshes_nothing(node: Node) -> None:
    ann = await node.register()
    with refused("INVALID_TOKEN"):
        await node.room.sessions.refresh(ann.access_token, origin=None)  # type: ignore[arg-type]


@on_sqlite
async def test_no_token_is_stored_in_clear(node: Node, data_dir: Path) -> None:
    ann = await node.refresh(await node.register())
    ticket = (await node.ask("POST /v1/auth/ws-ticket", as_=ann))["ticket"]
    stored = await trio.to_thread.run_sync(_bytes_of, data_dir)
    assert b"ann@example.org" in stored
    for secret in (ann.refresh_token, ann.device_secret, ann.access_token, ticket, PASSWORD):
        assert secret is not None
        assert secret.encode() not in stored


def _bytes_of(folder: Path) -> bytes:
    return b"".join(part.read_bytes() for part in folder.glob("secureconnect.db*"))


# devices


async def test_device_is_known_by_its_secret_even_after_logout(node: Node) -> None:
    ann = await node.register()
    await node.ask("POST /v1/auth/logout", as_=ann)
    back = await node.login(device_id=ann.device_id, device_secret=ann.device_secret)
    assert back.device_id == ann.device_id
    assert back.device_secret is None


async def test_device_id_alone_makes_a_new_device(node: Node) -> None:
    ann, bob = await node.register("ann"), await node.register("bob")
    claims = (
        {"device_id": ann.device_id},
        {"device_id": ann.device_id, "device_secret": "x" * 43},
        {"device_id": ann.device_id, "device_secret": bob.device_secret},
        {"device_id": bob.device_id, "device_secret": bob.device_secret},
        {"device_id": new_id(), "device_secret": ann.device_secret},
        {"device_secret": ann.device_secret},
    )
    for claim in claims:
        back = await node.login("ann", **claim)
        assert back.device_id not in (ann.device_id, bob.device_id, claim.get("device_id"))
        assert is_id(back.device_id)
        assert back.device_secret
    assert (await node.who(ann)).device_id == ann.device_id


async def test_device_id_is_a_uuid(node: Node) -> None:
    await node.register()
    with refused("VALIDATION", field="device_id"):
        await node.login(device_id="my-phone")


async def test_signing_in_again_on_a_device_replaces_its_session(node: Node) -> None:
    ann = await node.register()
    back = await node.login(device_id=ann.device_id, device_secret=ann.device_secret)
    assert node.closed == [ann.session_id]
    with refused("TOKEN_REVOKED"):
        await node.who(ann)
    assert (await node.who(back)).device_id == ann.device_id


# the list


async def test_sessions_are_listed_newest_first_in_pages(node: Node) -> None:
    ann = await node.register()
    await node.register("bob")
    for number in range(4):
        await node.login(device_name=f"Device {number}")
    names: list[str | None] = []
    cursor = None
    for expected in (2, 2, 1):
        query = {"limit": 2, "cursor": cursor}
        page = await node.ask("GET /v1/auth/sessions", as_=ann, query=query)
        assert len(page["sessions"]) == expected
        names += [each["device_name"] for each in page["sessions"]]
        cursor = page["next_cursor"]
    assert cursor is None
    assert names == ["Device 3", "Device 2", "Device 1", "Device 0", None]
    assert page["sessions"][0] | {"created_at": "", "last_seen_at": "", "expires_at": ""} == {
        "session_id": ann.session_id,
        "device_id": ann.device_id,
        "device_name": None,
        "user_agent": "tests",
        "address": "192.0.2.1",
        "created_at": "",
        "last_seen_at": "",
        "expires_at": "",
        "is_current": True,
    }
    with refused("VALIDATION", field="cursor"):
        await node.ask("GET /v1/auth/sessions", as_=ann, query={"cursor": "x"})


async def test_a_refresh_is_seen(node: Node, site: Site) -> None:
    ann = await node.register()
    site.db.forward(60)
    await node.refresh(ann)
    [session] = (await node.ask("GET /v1/auth/sessions", as_=ann))["sessions"]
    assert session["last_seen_at"] > session["created_at"]


async def test_devices_are_renamed_through_their_session(node: Node) -> None:
    ann, bob = await node.register("ann"), await node.register("bob")
    path = {"session_id": ann.session_id}
    what = "PATCH /v1/auth/sessions/{session_id}"
    session = await node.ask(what, {"device_name": " Laptop "}, as_=ann, path=path)
    assert session["device_name"] == "Laptop"
    [listed] = (await node.ask("GET /v1/auth/sessions", as_=ann))["sessions"]
    assert listed == session
    with refused("NOT_FOUND") as caught:
        await node.ask(what, {"device_name": "Mine"}, as_=bob, path=path)
    assert (caught.value.denial, caught.value.subject) == ("denied:session", path["session_id"])
    with refused("VALIDATION", field="device_name"):
        await node.ask(what, {"device_name": "a\nb"}, as_=ann, path=path)


async def test_one_session_ends_without_the_others(node: Node) -> None:
    ann, bob = await node.register("ann"), await node.register("bob")
    phone = await node.login("ann")
    what, path = "DELETE /v1/auth/sessions/{session_id}", {"session_id": phone.session_id}
    with refused("NOT_FOUND") as caught:
        await node.ask(what, as_=bob, path=path)
    assert (caught.value.denial, caught.value.subject) == ("denied:session", phone.session_id)
    assert node.closed == []
    await node.ask(what, as_=ann, path=path)
    assert node.closed == [phone.session_id]
    with refused("TOKEN_REVOKED"):
        await node.who(phone)
    with refused("NOT_FOUND"):
        await node.ask(what, as_=ann, path=path)
    [left] = (await node.ask("GET /v1/auth/sessions", as_=ann))["sessions"]
    assert left["session_id"] == ann.session_id


# tickets


async def test_ticket_opens_one_socket(node: Node) -> None:
    ann = await node.register()
    answer = await node.ask("POST /v1/auth/ws-ticket", as_=ann)
    assert 0 < answer["expires_in"] <= 30
    assert await node.room.redeem(answer["ticket"]) == await node.who(ann)
    with refused("INVALID_TOKEN"):
        await node.room.redeem(answer["ticket"])


async def test_one_of_many_racers_spends_the_ticket(node: Node, site: Site) -> None:
    nodes = [node, await site.node()]
    ticket = (await node.ask("POST /v1/auth/ws-ticket", as_=await node.register()))["ticket"]
    outcomes: list[str] = []

    async def race(where: Node) -> None:
        try:
            await where.room.redeem(ticket)
            outcomes.append("ok")
        except Problem as problem:
            outcomes.append(problem.code)

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(race, nodes[number % 2])
    assert sorted(outcomes) == ["INVALID_TOKEN"] * 19 + ["ok"]


async def test_ticket_expires(node: Node, site: Site) -> None:
    ticket = (await node.ask("POST /v1/auth/ws-ticket", as_=await node.register()))["ticket"]
    site.db.forward(31)
    with refused("INVALID_TOKEN"):
        await node.room.redeem(ticket)


async def test_ticket_does_not_outlive_its_token(node: Node, site: Site) -> None:
    ann = await node.register()
    site.db.forward(CHEAP.access_ttl_s - 10)
    answer = await node.ask("POST /v1/auth/ws-ticket", as_=ann)
    assert answer["expires_in"] <= 10
    site.db.forward(11)
    with refused("INVALID_TOKEN"):
        await node.room.redeem(answer["ticket"])


async def test_ticket_of_an_ended_session_is_worth_nothing(node: Node) -> None:
    ann = await node.register()
    ticket = (await node.ask("POST /v1/auth/ws-ticket", as_=ann))["ticket"]
    await node.ask("POST /v1/auth/logout", as_=ann)
    with refused("INVALID_TOKEN"):
        await node.room.redeem(ticket)


# counting and pruning


async def test_attempts_are_counted_with_their_outcome(node: Node) -> None:
    def counts() -> list[float]:
        return [
            ATTEMPTS.labels("login")._value.get(),
            SUCCESS.labels("login")._value.get(),
            FAILURES.labels("login", "credentials")._value.get(),
            FAILURES.labels("refresh", "stolen")._value.get(),
        ]

    before = counts()
    ann = await node.register()
    await node.login()
    with refused("INVALID_CREDENTIALS"):
        await node.login("ann", "wrong")
    await node.refresh(await node.refresh(ann))
    with refused("TOKEN_REVOKED"):
        await node.refresh(ann)
    assert [after - start for after, start in zip(counts(), before, strict=True)] == [2, 1, 1, 1]


async def test_what_has_expired_is_pruned_and_nothing_else(node: Node, site: Site) -> None:
    tables = ("tickets", "refresh_tokens", "sessions", "revocations")

    async def counts() -> list[object]:
        return [(await node.rows(f"SELECT COUNT(*) FROM {table}"))[0][0] for table in tables]

    ann, gone = await node.register("ann"), await node.register("gone")
    await node.ask("POST /v1/auth/ws-ticket", as_=ann)
    await node.ask("POST /v1/auth/logout", as_=gone)
    await node.room.prune_once()
    assert await counts() == [1, 2, 2, 1]
    site.db.forward(CHEAP.access_ttl_s + CHEAP.outage_grace_s + 3700)
    await node.room.prune_once()
    assert await counts() == [0, 2, 2, 0]
    ann = await node.refresh(ann)
    site.db.forward(CHEAP.refresh_ttl_s - 60)
    await node.room.prune_once()
    assert await counts() == [0, 1, 1, 0]
    await node.refresh(ann)
