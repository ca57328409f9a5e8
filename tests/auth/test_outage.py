"""Tokens while the database is away: what was valid when it went stays good for a while."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from kit.wait import until
from secureconnect.auth import keys, store
from secureconnect.auth.kept import SNAPSHOT
from secureconnect.auth.outage import Outage
from secureconnect.config import AuthConfig
from secureconnect.deps.contracts import Tx
from secureconnect.errors import PoolExhausted, Unavailable
from secureconnect.identity import Principal, SessionId

from .harness import CHEAP, Node, Site, refused

LIFE_S, GRACE_S, RENEW_S = CHEAP.access_ttl_s, CHEAP.outage_grace_s, CHEAP.outage_renew_s
QUICK = replace(CHEAP, revocation_poll_ms=50)


async def _take_away(site: Site) -> None:
    """With every reading that had begun before through."""
    site.db.take_away()
    refused_before = site.db.refused
    await until(lambda: site.db.refused > refused_before + 1)


async def test_a_token_outlives_its_end_where_that_is_asked_for(node: Node, site: Site) -> None:
    ann = await node.register()
    principal = await node.who(ann)
    site.db.forward(LIFE_S - 10)
    site.db.take_away()
    site.db.forward(20)
    assert await node.who(ann, outage=True) == principal
    assert node.room.known(ann.access_token, outage=True) == principal
    assert node.room.known(ann.access_token) is None
    with refused("UNAVAILABLE"):
        await node.who(ann)
    site.db.forward(GRACE_S - 21)
    assert await node.who(ann, outage=True) == principal
    site.db.forward(2)
    for outage in (True, False):
        assert node.room.known(ann.access_token, outage=outage) is None
        with refused("TOKEN_EXPIRED"):
            await node.who(ann, outage=outage)


async def test_a_token_that_had_ended_before_stays_ended(node: Node, site: Site) -> None:
    ann = await node.register()
    await node.who(ann)
    site.db.forward(LIFE_S + 1)
    site.db.take_away()
    with refused("TOKEN_EXPIRED"):
        await node.who(ann, outage=True)


async def test_a_token_that_has_not_ended_needs_no_session_either(node: Node, site: Site) -> None:
    """And one longer than the grace is not taken unread after it."""
    long = await site.node(replace(CHEAP, access_ttl_s=86_400))
    ann = await long.register()
    site.db.take_away()
    assert (await node.who(ann, outage=True)).session_id == ann.session_id
    site.db.forward(GRACE_S + 1)
    with refused("UNAVAILABLE"):
        await node.who(ann, outage=True)


async def test_it_goes_away_while_a_session_is_read(node: Node, site: Site) -> None:
    ann, other = await node.register(), await site.node()
    site.db.hold, site.db.holds = trio.Event(), store.get_session
    taken: list[Principal] = []
    turned_away = 0

    async def ask(outage: bool) -> None:
        nonlocal turned_away
        try:
            taken.append(await other.who(ann, outage=outage))
        except Unavailable:
            turned_away += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, True)
        nursery.start_soon(ask, False)
        await until(lambda: site.db.held == 2)
        site.db.take_away()
        site.db.hold.set()
    assert [each.session_id for each in taken] == [ann.session_id]
    assert turned_away == 1


async def test_after_it_the_usual_rule_holds(node: Node, site: Site) -> None:
    ann = await node.register()
    await node.who(ann)
    site.db.take_away()
    site.db.forward(LIFE_S + 1)
    assert await node.who(ann, outage=True)
    site.db.bring_back()
    assert node.room.known(ann.access_token, outage=True) is None
    with refused("TOKEN_EXPIRED"):
        await node.who(ann, outage=True)
    ann = await node.refresh(ann)
    assert await node.who(ann)


async def test_a_role_that_was_read_is_kept_and_others_are_users(node: Node, site: Site) -> None:
    other = await site.node()
    ann = await node.register()

    async def promote(tx: Tx) -> None:
        await tx.run("UPDATE users SET role = 'admin'")

    await site.db.write(promote)
    assert (await node.who(ann)).role == "admin"
    again = await node.refresh(ann)
    site.db.take_away()
    assert (await node.who(ann, outage=True)).role == "admin"
    assert (await node.who(again, outage=True)).role == "admin"
    assert (await other.who(ann, outage=True)).role == "user"
    site.db.bring_back()
    assert (await other.who(ann)).role == "admin"


async def test_until_it_is_found_to_be_away_a_failed_reading_counts_as_that(node: Node, site: Site) -> None:
    """And for that one call alone."""
    other = await site.node(QUICK)
    ann, bob = await node.register("ann"), await node.register("bob")
    await node.ask("POST /v1/auth/logout", as_=bob)
    await until(lambda: bob.session_id in other.room._revocations._sessions)
    site.db.refusing = True
    for _ in range(2):
        refused_before = site.db.refused
        assert (await other.who(ann, outage=True)).user_id == ann.user_id
        assert site.db.refused > refused_before
    with refused("UNAVAILABLE"):
        await other.who(ann)
    with refused("TOKEN_REVOKED"):
        await other.who(bob, outage=True)
    site.db.forward(LIFE_S + 1)
    with refused("TOKEN_EXPIRED"):
        await other.who(ann, outage=True)


async def test_a_session_that_ends_while_it_cannot_be_read_is_over(node: Node, site: Site) -> None:
    ann = await node.register()
    other = await site.node()
    site.db.hold = trio.Event()

    async def fails() -> None:
        with refused("TOKEN_REVOKED"):
            await other.who(ann, outage=True)

    async with trio.open_nursery() as nursery:
        held_before = site.db.held
        nursery.start_soon(fails)
        await until(lambda: site.db.held > held_before)
        site.db.take_away()
        await other.room._revocations.end_session(SessionId(ann.session_id))
        site.db.hold.set()


async def test_a_busy_database_is_no_absent_one(node: Node, site: Site) -> None:
    ann = await node.register()
    other = await site.node()
    site.db.refusal = PoolExhausted
    site.db.refusing = True
    with refused("DB_POOL_EXHAUSTED"):
        await other.who(ann, outage=True)


async def test_forged_tokens_get_nothing_from_it(node: Node, site: Site) -> None:
    ann, bob = await node.register("ann"), await node.register("bob")
    site.db.take_away()
    head, _, signature = ann.access_token.split(".")
    forged = replace(ann, access_token=f"{head}.{bob.access_token.split('.')[1]}.{signature}")
    with refused("INVALID_TOKEN"):
        await node.who(forged, outage=True)


async def test_a_key_retired_meanwhile_goes_on_verifying(node: Node, site: Site) -> None:
    """What it signed was valid when the database went away."""
    await keys.rotate(site.db, site.secrets, CHEAP, site.db.now_us())
    site.db.forward(CHEAP.key_lead_s - 10)
    ann = await node.register()
    site.db.forward(LIFE_S - 50)
    other = await site.node()
    site.db.take_away()
    site.db.forward(200)
    assert (await other.who(ann, outage=True)).session_id == ann.session_id
    site.db.bring_back()
    await other.room.poll_once()
    with refused("INVALID_TOKEN"):
        await other.who(ann)


async def test_no_tickets_and_no_tokens_are_given_out(node: Node, site: Site) -> None:
    ann = await node.register()
    await node.who(ann)
    site.db.take_away()
    with refused("UNAVAILABLE"):
        await node.ask("POST /v1/auth/ws-ticket", as_=ann)
    with refused("UNAVAILABLE"):
        await node.refresh(ann)
    with refused("UNAVAILABLE"):
        await node.login()
    with refused("UNAVAILABLE"):
        await node.room.redeem("x" * 43)


# the clock of it


class Away:
    def __init__(self) -> None:
        self.now_us = 1_000_000_000_000
        self.since_us: int | None = None
        config = AuthConfig(outage_grace_s=100, outage_renew_s=10)
        self.outage = Outage(config, lambda: self.now_us, lambda: self.since_us)

    def forward(self, seconds: float) -> None:
        self.now_us += int(seconds * 1_000_000)

    def go(self) -> None:
        self.since_us = self.now_us
        self.outage.since_us()

    def back(self) -> None:
        self.since_us = None
        self.outage.since_us()

    def left_s(self, expires_us: int) -> tuple[float, bool]:
        left_us, may_renew = self.outage.left_us(expires_us)
        return left_us / 1_000_000, may_renew


def test_an_open_socket_has_the_grace_and_then_a_moment_to_renew() -> None:
    away = Away()
    ends_us = away.now_us + 5_000_000
    assert away.left_s(ends_us) == (5, True)
    away.go()
    assert away.left_s(ends_us) == (100, False)
    away.forward(40)
    assert away.left_s(ends_us) == (60, False)
    assert away.left_s(away.now_us + 90_000_000) == (90, False)
    away.back()
    assert away.left_s(ends_us) == (10, True)
    away.forward(4)
    assert away.left_s(ends_us) == (6, True)
    assert away.left_s(away.now_us + 90_000_000) == (90, True)


def test_what_had_ended_before_gets_neither() -> None:
    away = Away()
    ended_us = away.now_us - 1
    away.go()
    assert not away.outage.accepts(ended_us)
    assert away.left_s(ended_us)[0] < 0
    away.back()
    assert away.left_s(ended_us)[0] < 0


def test_after_the_grace_there_is_nothing_left() -> None:
    away = Away()
    ends_us = away.now_us + 5_000_000
    away.go()
    away.forward(99)
    assert away.outage.accepts(ends_us)
    away.forward(1)
    assert not away.outage.accepts(ends_us)
    assert away.left_s(ends_us) == (0, False)
    away.forward(1)
    away.back()
    assert away.left_s(ends_us)[0] < 0


def test_a_database_that_flickers_is_one_outage() -> None:
    """Else a token would die because the database was back for a second."""
    away = Away()
    ends_us = away.now_us + 5_000_000
    away.go()
    away.forward(20)
    away.back()
    away.forward(9)
    away.go()
    assert away.outage.accepts(ends_us)
    assert away.left_s(ends_us) == (71, False)
    away.back()
    away.forward(10)
    away.go()
    assert not away.outage.accepts(ends_us)
    assert away.left_s(away.now_us + 1_000_000) == (100, False)


# starting without it


async def _stopped(site: Site, node: Node) -> None:
    """Once all it knows is in its folder."""
    path = node.folder / SNAPSHOT
    await until(path.exists)
    await node.stop()


async def test_a_start_without_database_accepts_what_a_young_snapshot_vouches_for(site: Site) -> None:
    node = await site.node(QUICK)
    ann, bob = await node.register("ann"), await node.register("bob")
    await node.ask("POST /v1/auth/logout", as_=bob)
    await until(lambda: bob.session_id in _text(node, SNAPSHOT))
    await node.stop()
    site.db.take_away()
    with capture_logs() as logged:
        again = await site.node(QUICK, folder=node.folder)
    assert {"trusted": True}.items() <= _said(logged, "auth_without_database").items()
    assert (await again.who(ann, outage=True)).user_id == ann.user_id
    with refused("TOKEN_REVOKED"):
        await again.who(bob, outage=True)
    with refused("UNAVAILABLE"):
        await again.refresh(ann)
    site.db.bring_back()
    await until(lambda: again.room._is_prepared)
    assert await again.who(await again.refresh(ann))


@pytest.mark.parametrize("what", ["none", "old", "future", "damaged", "open"])
async def test_a_start_without_database_and_snapshot_accepts_nothing(site: Site, what: str) -> None:
    node = await site.node(QUICK)
    ann = await node.register()
    await _stopped(site, node)
    path = node.folder / SNAPSHOT
    if what == "none":
        path.unlink()
    elif what == "old":
        site.db.forward(LIFE_S - 1)
        ann = await (await site.node()).login()
        site.db.forward(2)
    elif what == "future":
        site.db.forward(-300)
    elif what == "damaged":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        path.chmod(0o644)
    site.db.take_away()
    with capture_logs() as logged:
        again = await site.node(QUICK, folder=node.folder)
    assert {"trusted": False}.items() <= _said(logged, "auth_without_database").items()
    with refused("UNAVAILABLE"):
        await again.who(ann, outage=True)
    before = path.read_bytes() if path.exists() else None
    await until(lambda: site.db.refused > 5)
    assert (path.read_bytes() if path.exists() else None) == before  # its age goes on to tell
    site.db.bring_back()
    await until(lambda: again.room._revocations.trusted)
    assert await again.who(ann)


@pytest.mark.parametrize("written_s", [0, 70])
async def test_a_restart_goes_on_with_the_outage_it_began_in(site: Site, written_s: int) -> None:
    """Also when the snapshot was due: it tells of an outage that lasted then."""
    node = await site.node(QUICK)
    ann = await node.register()
    await node.who(ann)
    await _take_away(site)
    began_us = site.db.now_us()
    site.db.forward(LIFE_S + 5)
    await until(lambda: site.db.now_us() - _written_us(node) < 5_000_000)
    await node.stop()
    site.db.forward(written_s)
    site.db.take_away()
    again = await site.node(QUICK, folder=node.folder)
    principal = await again.who(ann, outage=True)
    left_us, may_renew = again.room.left_us(principal)
    assert not may_renew
    assert abs(left_us - (began_us + GRACE_S * 1_000_000 - site.db.now_us())) < 5_000_000


def _written_us(node: Node) -> int:
    return int(json.loads(_text(node, SNAPSHOT).partition("\n")[2])["written_us"])


def _text(node: Node, name: str) -> str:
    path = node.folder / name
    return path.read_text() if path.exists() else ""


def _said(logged: list[Any], event: str) -> Any:
    return next(line for line in logged if line["event"] == event)
