"""Ending sessions: at once here, within a second on the other nodes."""

from __future__ import annotations

from dataclasses import replace

import trio

from kit.wait import until
from secureconnect.clock import HOUR_US, MINUTE_US
from secureconnect.deps.contracts import Tx
from secureconnect.identity import SessionId

from .harness import CHEAP, Clocked, Node, Site, refused


async def test_logout_is_effective_at_once(node: Node) -> None:
    ann = await node.register()
    phone = await node.login()
    principal = await node.who(ann)
    assert node.room.known(ann.access_token) == principal
    await node.ask("POST /v1/auth/logout", as_=ann)
    assert node.room.known(ann.access_token) is None
    with refused("TOKEN_REVOKED"):
        await node.who(ann)
    with refused("TOKEN_REVOKED"):
        await node.refresh(ann)
    assert node.closed == [ann.session_id]
    await node.who(phone)


async def test_logout_all_ends_every_session_of_one_person(node: Node) -> None:
    ann, bob = await node.register("ann"), await node.register("bob")
    phone = await node.login("ann")
    await node.ask("POST /v1/auth/logout-all", as_=phone)
    assert set(node.closed) == {ann.session_id, phone.session_id}
    for person in (ann, phone):
        with refused("TOKEN_REVOKED"):
            await node.who(person)
    await node.who(bob)
    ended = await node.rows("SELECT subject FROM audit WHERE action = 'auth:session:ended'")
    assert {subject for (subject,) in ended} == {ann.session_id, phone.session_id}


async def test_two_logouts_at_once_both_succeed(node: Node) -> None:
    ann = await node.register()
    caller = await node.who(ann)

    async def logout() -> None:
        await node.room.sessions.end(caller, caller.session_id, "192.0.2.1")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(logout)
        nursery.start_soon(logout)
    assert node.closed == [ann.session_id]


async def test_other_nodes_learn_it_within_a_second(node: Node, site: Site) -> None:
    other = await site.node()
    ann = await node.register()
    assert await other.who(ann)
    await node.ask("POST /v1/auth/logout", as_=ann)
    with trio.fail_after(1):
        await until(lambda: other.room.known(ann.access_token) is None)
    assert other.closed == [ann.session_id]
    with refused("TOKEN_REVOKED"):
        await other.who(ann)


async def test_a_late_commit_is_not_missed(node: Node, site: Site) -> None:
    """A revocation is stamped before its commit: polls in between must not skip it."""
    other = await site.node()
    ann = await node.register()
    await other.who(ann)
    site.db.forward(-20)
    await node.ask("POST /v1/auth/logout", as_=await node.refresh(ann))
    site.db.forward(20)
    await other.room.poll_once()
    assert other.room.known(ann.access_token) is None


async def test_a_commit_that_was_very_late_is_found_too(node: Node, site: Site) -> None:
    """Of a database that may take minutes for a statement."""
    ann = await node.register()
    await node.who(ann)
    late_us = site.db.now_us() - 5 * MINUTE_US

    async def insert(tx: Tx) -> None:
        row = (ann.session_id, late_us, late_us + HOUR_US)
        await tx.run("INSERT INTO revocations (session_id, revoked_at, until_at) VALUES ($1, $2, $3)", *row)

    await site.db.write(insert)
    site.db.forward(61)
    await node.room.poll_once()
    assert node.room.known(ann.access_token) is None


async def test_a_node_that_starts_later_knows_it(node: Node, site: Site) -> None:
    ann = await node.register()
    await node.ask("POST /v1/auth/logout", as_=ann)
    later = await site.node()
    with refused("TOKEN_REVOKED"):
        await later.who(ann)


async def test_revocation_during_authentication_is_seen(node: Node, site: Site) -> None:
    """The session's row was read while it lived; the answer comes after the logout."""
    ann = await node.register()
    phone = await node.who(await node.login())

    async def prove() -> None:
        with refused("TOKEN_REVOKED"):
            await node.who(ann)

    site.db.hold = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(prove)
        with trio.fail_after(1):
            await until(lambda: site.db.held > 0)
        await node.room.sessions.end(phone, SessionId(ann.session_id), "192.0.2.1")
        site.db.hold.set()
    assert node.room.known(ann.access_token) is None


async def test_only_news_close_sockets(node: Node) -> None:
    ann = await node.register()
    await node.ask("POST /v1/auth/logout", as_=ann)
    await node.room.poll_once()
    await node.room.poll_once()
    assert node.closed == [ann.session_id]


async def test_a_node_without_its_database_goes_on_and_catches_up(node: Node, site: Site) -> None:
    cut = Clocked(site.db.inner)
    other = await site.node(replace(CHEAP, revocation_poll_ms=50), db=cut)
    ann, bob = await node.register("ann"), await node.register("bob")
    for person in (ann, bob):
        await other.who(person)
    cut.refusing = True
    await node.ask("POST /v1/auth/logout", as_=ann)
    with trio.fail_after(1):
        await until(lambda: cut.refused > 2)
    assert other.room.known(ann.access_token)
    cut.refusing = False
    with trio.fail_after(1):
        await until(lambda: other.room.known(ann.access_token) is None)
    assert other.room.known(bob.access_token)


async def test_what_the_database_forgot_is_over_all_the_same(node: Node, site: Site) -> None:
    ann, bob = await node.register("ann"), await node.register("bob")
    await node.ask("POST /v1/auth/logout", as_=ann)

    async def go_back(tx: Tx) -> None:
        await tx.run("DELETE FROM revocations")
        await tx.run("UPDATE sessions SET ended_at = NULL")

    await site.db.write(go_back)
    await node.room.write_back()
    other = await site.node()
    for each in (node, other):
        with refused("TOKEN_REVOKED"):
            await each.who(ann)
        with refused("TOKEN_REVOKED"):
            await each.refresh(ann)
        assert await each.who(bob)
