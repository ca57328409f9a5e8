"""The two worlds are what they say."""

from __future__ import annotations

import pytest

from kit.fixtures import StartServer
from kit.http import plain

KINDS = {
    "embedded": {"postgres": "sqlite", "redis": "memory", "minio": "files", "smtp": "files", "push": "push"},
    "real": {"postgres": "postgres", "redis": "redis", "minio": "minio", "smtp": "files", "push": "push"},
}


async def test_a_server_stands_on_what_its_world_has(
    start_server: StartServer, request: pytest.FixtureRequest
) -> None:
    server = start_server()
    async with plain(base_url=server.url) as http:
        said = (await http.get("/health")).json()
    assert said["status"] == "healthy"
    kinds = {name: each["kind"] for name, each in said["dependencies"].items()}
    assert kinds == KINDS[request.node.callspec.params["world"]]
