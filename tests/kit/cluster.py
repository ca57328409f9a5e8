"""Several real nodes on one Postgres, one Redis and one S3 server, each behind tolls; HAProxy before them."""

from __future__ import annotations

import base64
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import trio

from kit.balancer import Balancer, Haproxy
from kit.freeze import freeze
from kit.http import plain
from kit.postgres import PostgresServer
from kit.redis import RedisServer
from kit.server import PROGRAM, Server
from kit.store import ACCESS_KEY, REGION, SECRET_KEY, ObjectStore
from kit.toll import Toll, toll_before
from kit.wait import until
from secureconnect.identity import new_id

T = TypeVar("T")

READY_S = 20.0
NAMES = "abcdefgh"


async def in_thread(act: Callable[..., T], *args: object) -> T:
    """What blocks, beside the tolls, which go on working."""
    return await trio.to_thread.run_sync(lambda: act(*args))


@dataclass(frozen=True)
class Member:
    """One node.  tolls: before each of its dependencies, by the dependency's name in /health."""

    name: str
    server: Server
    tolls: Mapping[str, Toll]

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def node_id(self) -> str:
        return (self.server.data_dir / "node.id").read_text().strip()

    async def start(self) -> None:
        await in_thread(self.server.start)

    async def kill(self) -> None:
        await in_thread(self.server.kill)

    async def drain(self) -> None:
        """SIGTERM, and the wait for its orderly end."""
        status = await in_thread(self.server.terminate)
        assert status == 0, "\n".join([f"exit status {status}", *self.server.output[-20:]])

    def freeze(self) -> None:
        freeze(self.server.pid)

    def thaw(self) -> None:
        self.server.signal(signal.SIGCONT)

    async def health(self) -> dict[str, Any]:
        async with plain(timeout=5) as http:
            said: dict[str, Any] = (await http.get(f"{self.url}/health")).json()
            return said

    async def is_whole(self) -> bool:
        """Whether it finds nothing amiss."""
        try:
            return str((await self.health())["status"]) == "healthy"
        except httpx.TransportError:
            return False

    async def sees(self, dependency: str, status: str) -> bool:
        return str((await self.health())["dependencies"][dependency]["status"]) == status


class Cluster:
    """Faults of the servers behind it are its own: those of Postgres strike all its processes."""

    def __init__(
        self,
        postgres: PostgresServer,
        database: str,
        redis: RedisServer | None,
        store: ObjectStore,
        nodes: Sequence[Member],
        balancer: Balancer | None,
    ) -> None:
        self.postgres = postgres
        self.redis = redis
        self.nodes = nodes
        self.balancer = balancer
        self._database = database
        self._store = store
        self._frozen = ExitStack()

    @property
    def url(self) -> str:
        """Of the balancer."""
        assert self.balancer is not None
        return self.balancer.url

    async def kill(self, dependency: str) -> None:
        """SIGKILL. Redis comes back empty, the others with all they have stored."""
        if dependency == "postgres":
            await in_thread(self.postgres.stop, signal.SIGKILL)
        else:
            await in_thread(self._single(dependency).kill)

    async def restart(self, dependency: str) -> None:
        """After `kill`."""
        await in_thread(self.postgres.start if dependency == "postgres" else self._single(dependency).start)

    def freeze(self, dependency: str) -> None:
        """SIGSTOP: it accepts connections and answers nobody."""
        if dependency == "postgres":
            self._frozen.enter_context(self.postgres.frozen())
        else:
            self._single(dependency).freeze()

    def thaw(self, dependency: str) -> None:
        if dependency == "postgres":
            self._frozen.close()
        else:
            self._single(dependency).thaw()

    def _single(self, dependency: str) -> RedisServer | ObjectStore:
        """Of one process."""
        if dependency == "minio":
            return self._store
        assert self.redis is not None, "there is no Redis"
        return self.redis

    def tolls(self, dependency: str) -> Iterator[Toll]:
        """Of every node."""
        return (node.tolls[dependency] for node in self.nodes)

    async def is_whole(self, within_s: float = READY_S) -> None:
        """Wait until no node finds anything amiss."""
        for node in self.nodes:
            await until(node.is_whole, within_s)

    async def all_see(self, dependency: str, status: str, within_s: float = READY_S) -> None:
        for node in self.nodes:

            async def sees(node: Member = node) -> bool:
                return await node.sees(dependency, status)

            await until(sees, within_s)

    async def ask(self, query: str) -> Any:
        """The one JSON value that a query gives, straight from the database, past every toll."""
        return json.loads(await in_thread(self.postgres.sql, query, self._database))

    async def sql(self, statement: str) -> None:
        await in_thread(self.postgres.sql, statement, self._database)


@asynccontextmanager
async def cluster(
    folder: Path,
    postgres: PostgresServer,
    store: ObjectStore,
    *,
    nodes: int = 2,
    with_redis: bool = True,
    balancer: type[Balancer] | None = Haproxy,
    program: Sequence[str] = PROGRAM,
    **settings: str,
) -> AsyncIterator[Cluster]:
    """Running nodes on a fresh database and bucket, and a Redis of their own.

    settings: of every node, like `GATEWAY__DRAIN_S="1"`. At the end those that run are drained, and the logs
    are checked.
    """
    database = await in_thread(postgres.create)
    shared = {
        "AUTH__MASTER_KEY": base64.b64encode(os.urandom(32)).decode(),
        "GATEWAY__TRUSTED_PROXIES": "127.0.0.1",
        "GATEWAY__DRAIN_S": "5",
        "MINIO__ACCESS_KEY": ACCESS_KEY,
        "MINIO__SECRET_KEY": SECRET_KEY,
        "MINIO__REGION": REGION,
        "MINIO__BUCKET": f"nodes-{new_id()}",
    } | settings
    async with AsyncExitStack() as stack:
        redis = None
        if with_redis:
            (folder / "redis").mkdir()
            redis = RedisServer(folder / "redis")
            stack.callback(redis.kill)
            await in_thread(redis.start)
        members: list[Member] = []
        for name in NAMES[:nodes]:
            tolls = {
                "postgres": await stack.enter_async_context(toll_before(postgres.url())),
                "minio": await stack.enter_async_context(toll_before(store.url)),
            }
            own = {
                "POSTGRES__URL": postgres.url(database, tolls["postgres"].port),
                "MINIO__ENDPOINT": f"127.0.0.1:{tolls['minio'].port}",
            }
            if redis is not None:
                tolls["redis"] = await stack.enter_async_context(toll_before(redis.url))
                own["REDIS__URL"] = f"redis://127.0.0.1:{tolls['redis'].port}/0"
            server = Server(folder / f"node-{name}", program, **shared | own)
            stack.callback(server.close)
            members.append(Member(name, server, tolls))
        async with trio.open_nursery() as nursery:
            for member in members:
                nursery.start_soon(member.start)
        front = None
        if balancer is not None:
            addresses = [f"127.0.0.1:{member.server.port}" for member in members]
            front = balancer(folder / balancer.program, addresses, [member.node_id for member in members])
            stack.callback(front.close)
            await in_thread(front.start)
        made = Cluster(postgres, database, redis, store, members, front)
        await made.is_whole()
        yield made
        for member in members:
            if member.server.is_running:
                await member.drain()
            member.server.check()
