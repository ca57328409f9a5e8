"""Ending sessions while the database is away: refused here at once, elsewhere once anything can tell."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace

import pytest
import trio
from structlog.testing import capture_logs

from kit.wait import until
from secureconnect.auth.kept import JOURNAL, SNAPSHOT
from secureconnect.config import MemoryConfig
from secureconnect.deps.contracts import Tx
from secureconnect.deps.memory import MemoryBus, MemoryFeed

from .harness import CHEAP, Clocked, CutFeed, Node, Person, Site, refused

QUICK = replace(CHEAP, revocation_poll_ms=200)
LOGOUT, LOGOUT_ALL = "POST /v1/auth/logout", "POST /v1/auth/logout-all"
ENDED, PENDING = {"status": "ended"}, {"status": "pending"}


@dataclass
class Two:
    """Two nodes on one database and one feed; each has its own way to either."""

    site: Site
    here: Node
    there: Node
    here_db: Clocked
    there_db: Clocked
    here_feed: CutFeed
    there_feed: CutFeed

    def take_databases_away(self) -> None:
        self.here_db.take_away()
        self.there_db.take_away()


@pytest.fixture
async def two(site: Site) -> Two:
    inner = MemoryFeed(86_400)
    dbs = Clocked(site.db.inner), Clocked(site.db.inner)
    feeds = CutFeed(inner), CutFeed(inner)
    here, there = [await site.node(QUICK, db=db, feed=feed) for db, feed in zip(dbs, feeds, strict=True)]
    return Two(site, here, there, *dbs, *feeds)


async def known_to(two: Two, name: str = "ann") -> Person:
    """A person whose token both nodes have seen."""
    person = await two.here.register(name)
    await two.here.who(person)
    await two.there.who(person)
    return person


async def is_refused(node: Node, person: Person) -> None:
    """At once, in every way."""
    for outage in (True, False):
        assert node.room.known(person.access_token, outage=outage) is None
        with refused("TOKEN_REVOKED"):
            await node.who(person, outage=outage)


async def is_refused_within_a_second(node: Node, person: Person) -> None:
    await until(lambda: node.room.known(person.access_token, outage=True) is None, within_s=1)
    await is_refused(node, person)


async def has_ended(site: Site, person: Person) -> None:
    """In the database, with one row in the audit log."""
    where = f"= '{person.session_id}'"
    assert await site.rows(f"SELECT 1 FROM revocations WHERE session_id {where}")
    assert not await site.rows(f"SELECT 1 FROM sessions WHERE session_id {where} AND ended_at IS NULL")
    told = "SELECT actor_id FROM audit WHERE action = 'auth:session:ended' AND subject"
    assert await site.rows(f"{told} {where}") == [(person.user_id,)]


async def test_the_feed_tells_a_node_that_has_no_database_either(two: Two) -> None:
    ann = await known_to(two)
    two.take_databases_away()
    assert await two.here.ask(LOGOUT, as_=ann) == ENDED
    await is_refused(two.here, ann)
    assert two.here.closed == [ann.session_id]
    await is_refused_within_a_second(two.there, ann)
    assert two.there.closed == [ann.session_id]
    two.here_db.bring_back()
    two.there_db.bring_back()
    with refused("TOKEN_REVOKED"):  # whoever is first: the row may not be there yet
        await two.here.refresh(ann)
    await until(lambda: not two.here.room._revocations._pending and not two.there.room._revocations._pending)
    await has_ended(two.site, ann)
    await is_refused(two.here, ann)
    await is_refused(two.there, ann)


async def test_the_feed_tells_a_node_that_has_the_database_and_that_one_stores_it(two: Two) -> None:
    """The one that was asked may never come back."""
    ann = await known_to(two)
    two.here_db.take_away()
    assert await two.here.ask(LOGOUT, as_=ann) == ENDED
    await two.here.stop()
    await is_refused_within_a_second(two.there, ann)
    await until(lambda: not two.there.room._revocations._pending)
    await has_ended(two.site, ann)
    with refused("TOKEN_REVOKED"):
        await two.there.refresh(ann)


async def test_what_the_database_has_the_feed_tells_those_without(two: Two) -> None:
    ann = await known_to(two)
    two.there_db.take_away()
    assert await two.here.ask(LOGOUT, as_=ann) == ENDED
    await is_refused_within_a_second(two.there, ann)


async def test_with_neither_it_is_pending_and_told_once_the_database_is_back(two: Two) -> None:
    ann, bob = await known_to(two), await known_to(two, "bob")
    two.take_databases_away()
    two.here_feed.cut = two.there_feed.cut = True
    assert await two.here.ask(LOGOUT, as_=ann, status=202) == PENDING
    await is_refused(two.here, ann)
    assert two.there.room.known(ann.access_token, outage=True)
    two.there_db.bring_back()
    two.here_db.bring_back()
    await is_refused_within_a_second(two.there, ann)
    await has_ended(two.site, ann)
    for node in (two.here, two.there):
        with refused("TOKEN_REVOKED"):
            await node.refresh(ann)
        assert await node.who(bob)


async def test_with_neither_it_is_told_once_the_feed_is_back(two: Two) -> None:
    ann = await known_to(two)
    two.take_databases_away()
    two.here_feed.cut = True
    assert await two.here.ask(LOGOUT, as_=ann, status=202) == PENDING
    two.here_feed.cut = False
    await until(lambda: two.there.room.known(ann.access_token, outage=True) is None, within_s=3)
    await is_refused(two.there, ann)


async def test_a_feed_that_lost_its_memory_is_told_again(two: Two) -> None:
    ann = await known_to(two)
    two.take_databases_away()
    two.there_feed.cut = True
    assert await two.here.ask(LOGOUT, as_=ann) == ENDED
    two.here_feed.inner = two.there_feed.inner = MemoryFeed(86_400)
    two.there_feed.cut = False
    two.here.room._revocations._retell_s = 0  # the ten seconds are over
    await two.here.room._revocations.tell_once()
    await is_refused_within_a_second(two.there, ann)


async def test_logout_all_ends_sessions_that_this_node_never_saw(two: Two) -> None:
    ann, bob = await known_to(two), await known_to(two, "bob")
    phone = await two.there.login("ann")
    await two.there.who(phone)
    two.take_databases_away()
    assert await two.here.ask(LOGOUT_ALL, as_=ann) == ENDED
    assert two.here.signed_out == [ann.user_id]
    for person in (ann, phone):
        await is_refused(two.here, person)
        await is_refused_within_a_second(two.there, person)
    assert two.there.room.has_ended(await two.there.who(bob, outage=True)) is False
    two.there_db.bring_back()
    await until(lambda: not two.there.room._revocations._pending)
    for person in (ann, phone):
        await has_ended(two.site, person)
    fresh = await two.there.login("ann")
    assert await two.there.who(fresh)
    two.here_db.bring_back()
    assert await two.here.who(fresh)
    assert await two.there.who(bob)
    for person in (ann, phone):
        await is_refused(two.here, person)


async def test_pending_outlives_the_process(two: Two) -> None:
    ann, bob = await known_to(two), await known_to(two, "bob")
    await until((two.here.folder / SNAPSHOT).exists)
    two.take_databases_away()
    two.here_feed.cut = two.there_feed.cut = True
    assert await two.here.ask(LOGOUT, as_=ann, status=202) == PENDING
    assert await two.here.ask(LOGOUT_ALL, as_=bob, status=202) == PENDING
    await two.here.stop()
    with capture_logs():
        again = await two.site.node(QUICK, db=two.here_db, feed=two.here_feed, folder=two.here.folder)
    for person in (ann, bob):
        await is_refused(again, person)
    await again.stop()
    two.here_db.bring_back()
    once_more = await two.site.node(QUICK, db=two.here_db, feed=two.here_feed, folder=two.here.folder)
    two.there_db.bring_back()
    for person in (ann, bob):
        await is_refused(once_more, person)
        await is_refused_within_a_second(two.there, person)
        await has_ended(two.site, person)
    await until(lambda: _size(once_more, JOURNAL) == 0)


async def test_the_journal_goes_into_the_snapshot(two: Two) -> None:
    ann = await known_to(two)
    two.take_databases_away()
    assert await two.here.ask(LOGOUT, as_=ann) == ENDED
    assert _size(two.here, JOURNAL) or ann.session_id in (two.here.folder / SNAPSHOT).read_text()
    await until(lambda: _size(two.here, JOURNAL) == 0)
    assert ann.session_id in (two.here.folder / SNAPSHOT).read_text()


async def test_what_can_be_kept_nowhere_is_no_success_and_refused_all_the_same(two: Two) -> None:
    ann = await known_to(two)
    two.take_databases_away()
    two.here_feed.cut = True
    shutil.rmtree(two.here.folder)
    with capture_logs(), refused("UNAVAILABLE"):
        await two.here.ask(LOGOUT, as_=ann)
    await is_refused(two.here, ann)


async def test_told_but_not_kept_is_pending(two: Two) -> None:
    ann = await known_to(two)
    two.take_databases_away()
    shutil.rmtree(two.here.folder)
    with capture_logs():
        assert await two.here.ask(LOGOUT, as_=ann, status=202) == PENDING
        await is_refused_within_a_second(two.there, ann)


async def test_of_other_sessions_only_the_database_knows_whose_they_are(two: Two) -> None:
    ann, bob = await known_to(two), await known_to(two, "bob")
    two.take_databases_away()
    end = "DELETE /v1/auth/sessions/{session_id}"
    with refused("UNAVAILABLE"):
        await two.here.ask(end, as_=ann, path={"session_id": bob.session_id})
    assert await two.here.ask(end, as_=ann, path={"session_id": ann.session_id}) == ENDED
    await is_refused(two.here, ann)
    assert await two.here.who(bob, outage=True)


async def test_two_logouts_without_database_both_succeed(two: Two) -> None:
    ann = await known_to(two)
    two.take_databases_away()
    caller = await two.here.who(ann, outage=True)
    said: list[bool] = []

    async def logout() -> None:
        said.append(await two.here.room.sessions.end(caller, caller.session_id, "192.0.2.1"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(logout)
        nursery.start_soon(logout)
    assert said == [True, True]
    assert two.here.closed == [ann.session_id]


async def test_the_bus_tells_at_once(site: Site) -> None:
    """A node that neither polls nor reads a feed learns it all the same."""
    bus = MemoryBus(MemoryConfig())
    cut = Clocked(site.db.inner)
    here = await site.node(bus=bus)
    there = await site.node(db=cut, bus=bus)
    ann = await here.register()
    await there.who(ann)
    cut.take_away()
    await until(lambda: len(bus._subscribers.of("auth.revoked")) == 2)
    assert await here.ask(LOGOUT, as_=ann) == ENDED
    await is_refused_within_a_second(there, ann)
    assert there.closed == [ann.session_id]
    with capture_logs() as logged:
        await bus.publish("auth.revoked", b"{}")
        await until(lambda: any(line["event"] == "revocations_unreadable" for line in logged))
    cut.bring_back()
    await there.room.poll_once()
    await has_ended(site, ann)


async def test_a_node_that_starts_on_an_older_copy_of_the_database_mends_it(site: Site) -> None:
    node = await site.node(QUICK)
    ann, bob = await node.register("ann"), await node.register("bob")
    await node.ask(LOGOUT, as_=ann)
    await until(lambda: ann.session_id in _text(node, SNAPSHOT))
    await node.stop()

    async def go_back(tx: Tx) -> None:
        await tx.run("DELETE FROM revocations")
        await tx.run("DELETE FROM audit")
        await tx.run("UPDATE sessions SET ended_at = NULL")

    await site.db.write(go_back)
    again = await site.node(QUICK, folder=node.folder)
    await is_refused(again, ann)
    with refused("TOKEN_REVOKED"):
        await again.refresh(ann)
    await has_ended(site, ann)
    other = await site.node()
    await is_refused(other, ann)
    assert await other.who(bob)


async def test_what_is_pending_is_not_forgotten_with_its_tokens(two: Two) -> None:
    """Its refresh token lives on for weeks."""
    ann = await known_to(two)
    two.take_databases_away()
    assert await two.here.ask(LOGOUT, as_=ann) == ENDED
    for db in (two.here_db, two.there_db):
        db.forward(CHEAP.access_ttl_s + CHEAP.outage_grace_s + 3_700)
    two.here.room._revocations.forget_expired()
    two.here_db.bring_back()
    await until(lambda: not two.here.room._revocations._pending)
    with refused("TOKEN_REVOKED"):
        await two.here.refresh(ann)
    await has_ended(two.site, ann)


async def test_a_feed_that_is_away_for_long_is_owed_no_more_than_still_matters(two: Two) -> None:
    ann = await known_to(two)
    two.here_feed.cut = True
    assert await two.here.ask(LOGOUT, as_=ann) == ENDED
    held = two.here.room._revocations
    assert [each.id for each in held._untold] == [ann.session_id]
    two.here_db.forward(QUICK.revocations_kept_s + 1)

    async def is_forgotten() -> bool:
        """A poll that was under way as the clock moved brings it once more."""
        await two.here.room.prune_once()
        return not held._untold and not held._sessions

    await until(is_forgotten)


def _text(node: Node, name: str) -> str:
    path = node.folder / name
    return path.read_text() if path.exists() else ""


def _size(node: Node, name: str) -> int:
    path = node.folder / name
    return path.stat().st_size if path.exists() else 0
