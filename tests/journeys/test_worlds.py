"""The two worlds are what they say."""

from __future__ import annotations

import re

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
    world = request.node.callspec.params["world"]
    server = start_server()
    async with plain(base_url=server.url) as http:
        said = (await http.get("/health")).json()
        page = await http.get("/")
    assert said["status"] == "healthy"
    kinds = {name: each["kind"] for name, each in said["dependencies"].items()}
    assert kinds == KINDS[world]

    store = f" http://{request.getfixturevalue('store').endpoint}" if world == "real" else ""
    policy = page.headers["content-security-policy"]
    assert re.findall(r"(?:connect|img)-src ([^;]+)", policy) == [
        f"'self'{store} blob: data:",
        f"'self'{store}",
    ]
