from __future__ import annotations

from pathlib import Path

import pytest
import trio

from secureconnect.deps.sqlite import Sqlite
from secureconnect.node import Secrets

from .harness import Clocked, Node, Site


@pytest.fixture
async def site(db: Sqlite, data_dir: Path, nursery: trio.Nursery) -> Site:
    return Site(Clocked(db), await Secrets.open(db, data_dir, ""), nursery)


@pytest.fixture
async def node(site: Site) -> Node:
    return await site.node()
