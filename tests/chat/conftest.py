"""A running room and a nursery for its sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from kit.databases import on_both
from kit.pushservice import push_service
from secureconnect.chat import Chat
from secureconnect.deps.contracts import Database
from secureconnect.deps.memory import MemoryBus
from secureconnect.identity import UserId

from .pushing import Site
from .rig import make_people, running

pytest_generate_tests = on_both


@pytest.fixture
async def room(db: Database, bus: MemoryBus) -> AsyncIterator[Chat]:
    async with running(db, bus) as room:
        yield room


@pytest.fixture
async def site(nursery: trio.Nursery, db: Database, bus: MemoryBus, tmp_path: Path) -> AsyncIterator[Site]:
    async with push_service(tmp_path) as service:
        yield Site(db, bus, service, nursery)


@pytest.fixture
async def people(db: Database) -> list[UserId]:
    """Ann, Bob, Cid and Dee."""
    return await make_people(db, "ann", "bob", "cid", "dee")
