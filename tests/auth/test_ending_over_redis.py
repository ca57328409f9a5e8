"""Two nodes without their database, joined by a real Redis."""

from __future__ import annotations

from dataclasses import replace

import trio

from contracts.test_revocation_feed import redis_feed
from kit.redis import RedisServer
from kit.toll import toll_before
from kit.wait import until

from .harness import CHEAP, Clocked, Site, refused

QUICK = replace(CHEAP, revocation_poll_ms=200)


async def test_a_logout_reaches_the_other_node_within_a_second(site: Site, redis_server: RedisServer) -> None:
    """And one while Redis does not answer is pending, until it does."""
    dbs = Clocked(site.db.inner), Clocked(site.db.inner)
    async with (
        toll_before(f"http://127.0.0.1:{redis_server.port}") as toll,
        redis_feed(toll.url.replace("http", "redis", 1)) as near,
        redis_feed(redis_server.url) as far,
    ):
        here = await site.node(QUICK, db=dbs[0], feed=near)
        there = await site.node(QUICK, db=dbs[1], feed=far)
        ann, bob = await here.register("ann"), await here.register("bob")
        for person in (ann, bob):
            await there.who(person)
        for db in dbs:
            db.take_away()
        assert await here.ask("POST /v1/auth/logout", as_=ann) == {"status": "ended"}
        await until(lambda: there.room.known(ann.access_token, outage=True) is None, within_s=1)
        assert there.closed == [ann.session_id]
        with refused("TOKEN_REVOKED"):
            await there.who(ann, outage=True)
        toll.stall()
        began_s = trio.current_time()
        pending = await here.ask("POST /v1/auth/logout-all", as_=bob, status=202)
        assert pending == {"status": "pending"}
        assert trio.current_time() - began_s < 2
        assert there.room.known(bob.access_token, outage=True)
        toll.flow()
        toll.cut()
        await until(lambda: there.room.known(bob.access_token, outage=True) is None, within_s=5)
        assert there.signed_out == [bob.user_id]
        await here.stop()
        await there.stop()
