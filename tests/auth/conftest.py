from __future__ import annotations

from pathlib import Path

import pytest
import trio

from kit.databases import on_both
from secureconnect.deps.contracts import Database
from secureconnect.node import Secrets

from .harness import Clocked, Node, Site

pytest_generate_tests = on_both


@pytest.fixture
async def site(db: Database, data_dir: Path, tmp_path: Path, nursery: trio.Nursery) -> Site:
    return Site(Clocked(db), await Secrets.open(db, data_dir, ""), nursery, tmp_path)


@pytest.fixture
async def node(site: Site) -> Node:
    return await site.node()
