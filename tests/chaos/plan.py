"""What breaks, and how it is mended: each fault by name, and the seeded order in which they come."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass

import trio

from kit.cluster import Cluster
from kit.toll import Toll

Act = Callable[[Cluster], Awaitable[None]]

DELAY_S = 0.03  # a slow network, well within every limit


@dataclass(frozen=True)
class Fault:
    """away: the dependencies that must be noticed to be away.  node: the one that suffers itself.

    only: the one node for which they are away; None: for every node.
    passing: over at once, so that there is nothing to notice.
    """

    name: str
    begin: Act
    end: Act
    away: frozenset[str] = frozenset()
    node: int | None = None
    only: int | None = None
    passing: bool = False

    def is_away(self, dependency: str, node: int) -> bool:
        """Whether that node has to notice."""
        return dependency in self.away and self.only in (None, node)


def kill(name: str) -> Fault:
    """Redis comes back with empty data, Postgres with all it has committed."""

    async def begin(cluster: Cluster) -> None:
        await cluster.kill(name)

    async def end(cluster: Cluster) -> None:
        await cluster.restart(name)

    return Fault(f"kill {name}", begin, end, frozenset({name}))


def freeze(name: str) -> Fault:
    """Connections are accepted, nothing is answered."""

    async def begin(cluster: Cluster) -> None:
        cluster.freeze(name)

    async def end(cluster: Cluster) -> None:
        cluster.thaw(name)

    return Fault(f"freeze {name}", begin, end, frozenset({name}))


def refuse(name: str, only: int | None = None) -> Fault:
    """only: the one node that is refused; the others have it."""

    def tolls(cluster: Cluster) -> Iterable[Toll]:
        return cluster.tolls(name) if only is None else [cluster.nodes[only].tolls[name]]

    async def begin(cluster: Cluster) -> None:
        for toll in tolls(cluster):
            toll.refuses = True
            toll.cut()

    async def end(cluster: Cluster) -> None:
        for toll in tolls(cluster):
            toll.refuses = False

    whom = "" if only is None else f" to node {'ab'[only]}"
    return Fault(f"refuse {name}{whom}", begin, end, frozenset({name}), only=only)


def stall(name: str) -> Fault:
    """In the middle of a message."""

    async def begin(cluster: Cluster) -> None:
        for toll in cluster.tolls(name):
            toll.stall(half_way=True)

    async def end(cluster: Cluster) -> None:
        for toll in cluster.tolls(name):
            toll.flow()

    return Fault(f"stall {name}", begin, end, frozenset({name}))


def garble(name: str) -> Fault:
    async def begin(cluster: Cluster) -> None:
        for toll in cluster.tolls(name):
            toll.garbles = True

    async def end(cluster: Cluster) -> None:
        for toll in cluster.tolls(name):
            toll.garbles = False
            toll.cut()  # what has been read as noise leads nowhere

    return Fault(f"garble {name}", begin, end, frozenset({name}))


def cut(name: str) -> Fault:
    async def begin(cluster: Cluster) -> None:
        for toll in cluster.tolls(name):
            toll.cut()

    return Fault(f"cut {name}", begin, _nothing, passing=True)


def delay(name: str) -> Fault:
    async def begin(cluster: Cluster) -> None:
        for toll in cluster.tolls(name):
            toll.delay_s = DELAY_S

    async def end(cluster: Cluster) -> None:
        for toll in cluster.tolls(name):
            toll.delay_s = 0.0

    return Fault(f"delay {name}", begin, end, passing=True)


def node_killed(number: int) -> Fault:
    async def begin(cluster: Cluster) -> None:
        await cluster.nodes[number].kill()

    async def end(cluster: Cluster) -> None:
        await cluster.nodes[number].start()

    return Fault(f"kill node {'ab'[number]}", begin, end, node=number)


def node_frozen(number: int) -> Fault:
    async def begin(cluster: Cluster) -> None:
        cluster.nodes[number].freeze()

    async def end(cluster: Cluster) -> None:
        cluster.nodes[number].thaw()

    return Fault(f"freeze node {'ab'[number]}", begin, end, node=number)


def node_drained(number: int) -> Fault:
    async def begin(cluster: Cluster) -> None:
        await cluster.nodes[number].drain()

    async def end(cluster: Cluster) -> None:
        await cluster.nodes[number].start()

    return Fault(f"drain node {'ab'[number]}", begin, end, node=number)


def both(one: Fault, other: Fault) -> Fault:
    """Begun together, mended one after the other, the first one last."""

    async def begin(cluster: Cluster) -> None:
        await one.begin(cluster)
        await other.begin(cluster)

    async def end(cluster: Cluster) -> None:
        await other.end(cluster)
        await trio.sleep(0.5)
        await one.end(cluster)

    return Fault(
        f"{one.name} + {other.name}",
        begin,
        end,
        one.away | other.away,
        one.node if one.node is not None else other.node,
        passing=one.passing and other.passing,
    )


async def _nothing(_: Cluster) -> None:
    pass


ALONE = (kill, freeze, refuse, stall, garble, cut, delay)
NODES = (node_killed, node_frozen, node_drained)
DEPENDENCIES = ("postgres", "redis", "minio")


def every_kind(chance: random.Random) -> list[Fault]:
    """Each fault of each dependency, each of a node, those that only one node meets, and some pairs, in a
    random order."""
    alone = [make(name) for make in ALONE for name in DEPENDENCIES]
    nodes = [make(chance.randrange(2)) for make in NODES]
    one_sided = [refuse(name, chance.randrange(2)) for name in ("postgres", "redis")]
    pairs = [pair(chance) for _ in range(4)]
    found = alone + nodes + one_sided + pairs
    chance.shuffle(found)
    return found


def pair(chance: random.Random) -> Fault:
    """Two faults of different things at once."""
    away = (kill, freeze, refuse, stall, garble)
    postgres, redis = chance.choice(away)("postgres"), chance.choice(away)("redis")
    node = chance.choice((node_killed, node_drained))(chance.randrange(2))
    return both(*chance.choice([(postgres, redis), (redis, postgres), (redis, node), (postgres, node)]))


def brief(chance: random.Random) -> list[Fault]:
    """For a minute: an outage of each dependency in two ways, one that a single node meets, a pair, and a
    node; others each seed."""
    ways = [kill, freeze, refuse, stall, garble]
    chance.shuffle(ways)
    faults = [
        ways[0]("postgres"),
        ways[1]("postgres"),
        ways[2]("redis"),
        ways[3]("redis"),
        chance.choice((cut, delay))(chance.choice(DEPENDENCIES)),
        refuse("postgres", chance.randrange(2)),
        both(chance.choice((kill, refuse))("postgres"), chance.choice((freeze, stall))("redis")),
        chance.choice(NODES)(chance.randrange(2)),
    ]
    chance.shuffle(faults)
    return faults


def endless(seed: int) -> Iterator[Fault]:
    chance = random.Random(seed)
    while True:
        yield from every_kind(chance)
