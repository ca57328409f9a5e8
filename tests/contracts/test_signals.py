"""What contracts.Signals promises, in one process and between two nodes whose servers come and go."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trio

from kit.postgres import PostgresServer
from kit.redis import RedisServer
from kit.toll import Toll, toll_before
from kit.wait import until
from secureconnect.clock import SECOND_US
from secureconnect.config import (
    BreakerConfig,
    Config,
    MemoryConfig,
    PostgresConfig,
    RedisConfig,
    SignalsConfig,
)
from secureconnect.deps.contracts import Backlog, Database, Deps, Row, Signals, Tx
from secureconnect.deps.memory import MemorySignals
from secureconnect.deps.policy import open_deps
from secureconnect.deps.signals import NodeSignals
from secureconnect.errors import TooLarge, Unavailable
from secureconnect.identity import new_id

BACKLOG = 2_000
SIGNALS = SignalsConfig(payload_bytes=65_536, poll_ms=100)
BREAKER = BreakerConfig(probe_ms=100)
WITHIN_S = 5.0  # five times what is promised, on a busy machine


@dataclass(eq=False)
class Node:
    """tolls: before its own Postgres and Redis."""

    deps: Deps
    postgres: Toll
    redis: Toll

    @property
    def signals(self) -> Signals:
        return self.deps.signals

    def sees(self, name: str, status: str) -> bool:
        return any(each.name == name and each.status == status for each in self.deps.status())


@dataclass(eq=False)
class Site:
    here: Node
    there: Node
    redis: RedisServer

    async def see(self, name: str, status: str) -> None:
        for node in (self.here, self.there):
            await until(lambda node=node: node.sees(name, status))  # type: ignore[misc]


@asynccontextmanager
async def node(
    folder: Path, postgres_url: str, redis_url: str, signals: SignalsConfig
) -> AsyncIterator[Node]:
    async with toll_before(postgres_url) as postgres, toll_before(redis_url) as redis:
        base, _, database = postgres_url.rpartition("/")
        config = Config(
            data_dir=str(folder),
            postgres=PostgresConfig(url=f"{base.rpartition(':')[0]}:{postgres.port}/{database}"),
            redis=RedisConfig(url=f"redis://127.0.0.1:{redis.port}/0"),
            memory=MemoryConfig(bus_backlog=BACKLOG),
            signals=signals,
            breaker=BREAKER,
        )
        async with open_deps(config) as deps:
            await deps.ready(_itself)
            yield Node(deps, postgres, redis)


async def _itself(db: Database) -> Database:
    return db


@asynccontextmanager
async def two_nodes(
    tmp_path: Path, server: PostgresServer, redis: RedisServer, signals: SignalsConfig = SIGNALS
) -> AsyncIterator[Site]:
    name = server.create()
    try:
        async with AsyncExitStack() as stack:
            here, there = [
                await stack.enter_async_context(node(tmp_path / each, server.url(name), redis.url, signals))
                for each in ("here", "there")
            ]
            await hear_each_other(here, there)
            yield Site(here, there, redis)
    finally:
        server.drop(name)


async def hear_each_other(here: Node, there: Node) -> None:
    """Returns when both listen to the bus: what is sent before is for nobody."""
    for speaker, listener in ((here, there), (there, here)):
        with listener.signals.subscribe(["hello"]) as heard, trio.fail_after(2 * WITHIN_S):
            is_heard = False
            while not is_heard:
                speaker.signals.send("hello", b"")
                with trio.move_on_after(0.05):
                    await anext(aiter(heard))
                    is_heard = True


@pytest.fixture
async def site(
    tmp_path: Path, postgres_server: PostgresServer, redis_server: RedisServer
) -> AsyncIterator[Site]:
    async with two_nodes(tmp_path, postgres_server, redis_server) as site:
        yield site


async def gather(backlog: Backlog, count: int) -> list[bytes]:
    found: list[bytes] = []
    with trio.fail_after(WITHIN_S):
        async for delivery in backlog:
            found.append(delivery.payload)
            if len(found) == count:
                break
    return found


# in one process, and on each of two nodes


@asynccontextmanager
async def world(kind: str, request: pytest.FixtureRequest) -> AsyncIterator[tuple[Signals, Signals]]:
    if kind == "memory":
        signals = MemorySignals(MemoryConfig(bus_backlog=BACKLOG), SIGNALS.payload_bytes)
        yield signals, signals
        return
    arguments = [request.getfixturevalue(each) for each in ("tmp_path", "postgres_server", "redis_server")]
    async with two_nodes(*arguments) as site:
        yield site.here.signals, site.there.signals


@pytest.mark.parametrize("kind", ["memory", "nodes"])
async def test_what_is_promised(kind: str, request: pytest.FixtureRequest) -> None:
    async with world(kind, request) as (here, there):
        with there.subscribe(["a", "b", "b"]) as both, here.subscribe(["a"]) as own:
            for number in range(300):
                here.send("ab"[number % 2], b"%d" % number)
                here.send("c", b"for nobody")
            assert len(await gather(own, 150)) == 150
            found = await gather(both, 300)
            for turn in (0, 1):
                assert [each for each in found if int(each) % 2 == turn] == [
                    b"%d" % number for number in range(turn, 300, 2)
                ]
            here.send("a", b"\xff" * SIGNALS.payload_bytes)
            assert await gather(both, 1) == [b"\xff" * SIGNALS.payload_bytes]
            with pytest.raises(TooLarge):
                here.send("a", b"\xff" * (SIGNALS.payload_bytes + 1))
            for number in range(BACKLOG + 10):
                here.send("b", b"%d" % number)
            await until(lambda: both.lost == 10)
            assert await gather(both, BACKLOG) == [b"%d" % number for number in range(BACKLOG)]
        here.send("a", b"after the end")
        with trio.fail_after(1):
            assert [each async for each in both] == []


# between nodes, when servers go and come back


async def say(site: Site, what: bytes, heard: Backlog) -> None:
    site.here.signals.send("a", what)
    assert await gather(heard, 1) == [what]


async def test_whatever_goes_away_it_arrives_once_and_in_order(site: Site) -> None:
    here, there = site.here, site.there
    with there.signals.subscribe(["a"]) as heard:
        await say(site, b"by the bus", heard)

        site.redis.freeze()
        await say(site, b"while nobody has noticed", heard)
        await site.see("redis", "down")
        await say(site, b"by the table", heard)
        assert await senders(site) != []
        site.redis.thaw()
        await site.see("redis", "up")
        await say(site, b"after the thaw", heard)

        site.redis.kill()
        await say(site, b"into the void", heard)
        await site.see("redis", "down")

        here.postgres.stall()
        await until(lambda: here.sees("postgres", "down"))
        with here.signals.subscribe(["a"]) as own:
            with pytest.raises(Unavailable) as refused:
                here.signals.send("a", b"nobody can hear this")
            assert await gather(own, 1) == [b"nobody can hear this"], "but this node"
        assert refused.value.details == {"dependency": "redis"}

        site.redis.start()
        await site.see("redis", "up")
        await hear_each_other(here, there)  # nothing makes up now for what is sent before
        await say(site, b"without the database", heard)
        here.postgres.flow()
        await until(lambda: here.sees("postgres", "up"))
        assert heard.lost == 0


async def test_a_node_that_alone_has_lost_the_bus_is_heard_and_hears(
    tmp_path: Path, postgres_server: PostgresServer, redis_server: RedisServer
) -> None:
    """Nothing tells the other one but the table, which is left again when all is well."""
    async with two_nodes(tmp_path, postgres_server, redis_server, replace(SIGNALS, kept_s=3)) as site:
        await _one_alone(site)


async def _one_alone(site: Site) -> None:
    here, there = site.here, site.there
    old = new_id()
    await here.deps.db.write(_leave, old, here.deps.db.now_us() - 61 * SECOND_US)
    here.redis.refuses = True
    here.redis.cut()
    with there.signals.subscribe(["a"]) as far, here.signals.subscribe(["b"]) as near:
        here.signals.send("a", b"1")
        there.signals.send("b", b"2")
        await until(lambda: here.sees("redis", "down"))
        assert there.sees("redis", "up")
        there.signals.send("b", b"3")
        assert await gather(far, 1) == [b"1"]
        assert await gather(near, 2) == [b"2", b"3"]

        async def is_swept() -> bool:
            return old not in await senders(site)

        await until(is_swept)
        here.redis.refuses = False
        await until(lambda: not doubts(here) and not doubts(there))
        rows = len(await senders(site))
        here.signals.send("a", b"4")
        assert await gather(far, 1) == [b"4"]
        assert len(await senders(site)) == rows


async def _leave(tx: Tx, sender: str, sent_us: int) -> None:
    await tx.run("INSERT INTO signals VALUES ($1, 1, 'a', $2, $3)", sender, b"of another time", sent_us)


async def _senders(tx: Tx) -> list[Row]:
    return await tx.all("SELECT sender FROM signals")


async def senders(site: Site) -> list[str]:
    """Of every row in the table."""
    return [sender for (sender,) in await site.here.deps.db.read(_senders)]


def doubts(node: Node) -> bool:
    assert isinstance(node.signals, NodeSignals)
    return node.signals._doubts()


async def test_random_faults_lose_and_double_nothing(site: Site) -> None:
    """As long as one of the two ways is there, or is back soon."""
    chance = random.Random(1)
    sent = {site.here: 0, site.there: 0}
    done = trio.Event()

    async def speak(node: Node) -> None:
        while not done.is_set():
            sent[node] += 1
            try:
                node.signals.send("a" if node is site.here else "b", b"%d" % sent[node])
            except Unavailable:  # a busy machine, and both look as if they were away
                sent[node] -= 1
            await trio.sleep(chance.uniform(0, 0.02))

    with site.there.signals.subscribe(["a"]) as far, site.here.signals.subscribe(["b"]) as near:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(speak, site.here)
            nursery.start_soon(speak, site.there)
            for fault in chance.sample(FAULTS, len(FAULTS)):
                await inflict(site, fault, chance)
            done.set()
        for backlog, node in ((far, site.here), (near, site.there)):
            expected = [b"%d" % number for number in range(1, sent[node] + 1)]
            assert await gather(backlog, sent[node]) == expected
            assert backlog.lost == 0


FAULTS = ["kill", "freeze", "cut here", "cut there", "lose here", "stall postgres", "blink"]


async def inflict(site: Site, fault: str, chance: random.Random) -> None:
    """And mend it after a while, which may be before or after anybody has noticed."""
    lasts_s = chance.uniform(0.05, 0.5)
    match fault:
        case "kill":
            site.redis.kill()
            await trio.sleep(lasts_s)
            await trio.to_thread.run_sync(site.redis.start)
        case "freeze":
            site.redis.freeze()
            await trio.sleep(lasts_s)
            site.redis.thaw()
        case "blink":
            for _ in range(3):
                site.here.redis.cut()
                site.there.redis.cut()
                await trio.sleep(0.05)
        case "cut here" | "cut there":
            (site.here if fault == "cut here" else site.there).redis.cut()
        case "lose here":
            site.here.redis.refuses = True
            site.here.redis.cut()
            await trio.sleep(lasts_s)
            site.here.redis.refuses = False
        case "stall postgres":
            site.here.postgres.stall()
            await trio.sleep(lasts_s)
            site.here.postgres.flow()
            await until(lambda: site.here.sees("postgres", "up"))
    await until(lambda: site.here.sees("redis", "up") and site.there.sees("redis", "up"))
