"""Each suite here runs embedded, and on Postgres and a real S3 server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from auth.harness import Clocked
from conftest import DATABASES
from kit.objects import keys, opened
from secureconnect.config import MinioConfig
from secureconnect.deps.files import FolderObjects
from secureconnect.identity import UserId

from .rig import Cut, Node, World

BUCKET = "storage-tests"  # of all tests here: to make one takes two seconds
BACKENDS = {"embedded": "sqlite", "servers": "postgres"}

embedded = pytest.mark.parametrize("world", ["embedded"], indirect=True)
on_servers = pytest.mark.parametrize("world", ["servers"], indirect=True)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    chosen = any(mark.args[0] == "world" for mark in metafunc.definition.iter_markers("parametrize"))
    if "world" in metafunc.fixturenames and not chosen:
        metafunc.parametrize("world", list(BACKENDS), indirect=True)


@pytest.fixture
async def world(
    request: pytest.FixtureRequest, data_dir: Path, tmp_path: Path, nursery: trio.Nursery
) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        db = await stack.enter_async_context(DATABASES[BACKENDS[request.param]](request))
        minio = None
        if request.param == "servers":
            config: MinioConfig = request.getfixturevalue("minio_config")
            minio = await stack.enter_async_context(opened(replace(config, bucket=BUCKET)))
        store = Cut(minio or FolderObjects(data_dir / "objects"))
        before = frozenset(await keys(store))
        yield World(request.param, Clocked(db), store, tmp_path, minio, nursery, before)
        nursery.cancel_scope.cancel()


@pytest.fixture
async def node(world: World) -> Node:
    return await world.node()


@pytest.fixture
def ann(world: World) -> UserId:
    return world.people[0]


@pytest.fixture
def bob(world: World) -> UserId:
    return world.people[1]
