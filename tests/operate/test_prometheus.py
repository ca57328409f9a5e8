"""A real Prometheus on two nodes: Redis freezes, its alert fires and resolves; panels find their metrics."""

from __future__ import annotations

import re
from pathlib import Path

from kit.cluster import cluster
from kit.postgres import PostgresServer
from kit.prometheus import Prometheus
from kit.store import ObjectStore
from kit.wait import until

from .test_dashboard import expressions

FIRES_S = 30.0  # ten times what it takes
QUIET = (
    "NoNodes",
    "ModuleDown",
    "AuditChainBroken",
    "CertificateEndsNow",
    "JournalFillsUp",
    "ModuleCrashes",
    "FaultsOfOurs",
)


async def test_redis_freezes_and_its_alert_fires_and_resolves(
    tmp_path: Path, postgres_server: PostgresServer, shared_store: ObjectStore
) -> None:
    prometheus = Prometheus(tmp_path / "prometheus")
    async with cluster(tmp_path, postgres_server, shared_store, balancer=None) as nodes:
        addresses = [node.url.removeprefix("http://") for node in nodes.nodes]
        try:
            await prometheus.start(addresses)

            async def both_are_scraped() -> bool:
                found = (await prometheus.ask("query", query='dependency_up{dependency="redis"}'))["result"]
                return {each["metric"]["instance"] for each in found} == set(addresses)

            async def fire(*expected: str) -> bool:
                return {each["labels"]["instance"] for each in await prometheus.firing("RedisAway")} == set(
                    expected
                )

            await until(both_are_scraped, FIRES_S)
            assert await fire()
            nodes.freeze("redis")
            await until(lambda: fire(*addresses), FIRES_S)
            for told in await prometheus.firing("RedisAway"):
                assert told["labels"]["severity"] == "warning"
                assert told["annotations"]["summary"] == f"{told['labels']['instance']} does not reach Redis"
            nodes.thaw("redis")
            await until(fire, FIRES_S)
            for name in QUIET:
                assert not await prometheus.firing(name), name

            known = set(await prometheus.ask("label/__name__/values"))
            known |= set(await prometheus.ask("metadata"))
            for _, expression in expressions():
                await prometheus.ask("query", query=expression)
                named = set(re.findall(r"[a-z_]+(?=\{)", expression))
                assert named <= known, named - known
        finally:
            prometheus.close()
