"""The embedded twins, opened afresh for each test; `db` on Postgres too where a suite asks for both."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kit.databases import open_sqlite
from secureconnect.config import MemoryConfig, PostgresConfig
from secureconnect.deps.asyncio_bridge import open_bridge
from secureconnect.deps.contracts import Database
from secureconnect.deps.files import FolderObjects
from secureconnect.deps.memory import MemoryBus, MemoryCache
from secureconnect.deps.postgres import Postgres

TESTS = Path(__file__).parent

pytest_plugins = ("require_all", "kit.fixtures")

# Hundreds of servers start here: where the environment forbids bytecode, each would compile the product anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


# where tests take long; "": those beside the folders
LONG = ("web", "chaos", "", "journeys", "move", "storage", "signaling", "doctor")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long ones come first: short ones are left at the end, so that all processes end at about the same
    time."""

    def place(item: pytest.Item) -> int:
        *folders, _ = item.path.relative_to(TESTS).parts
        folder = folders[0] if folders else ""
        return LONG.index(folder) if folder in LONG else len(LONG)

    items.sort(key=place)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """An empty data folder."""
    path = tmp_path / "data"
    path.mkdir(mode=0o700)
    return path


@asynccontextmanager
async def sqlite(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    async with open_sqlite(request.getfixturevalue("data_dir")) as db:
        yield db


@asynccontextmanager
async def postgres(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    config = PostgresConfig(url=request.getfixturevalue("migrated_url"))
    async with open_bridge() as bridge, Postgres.open(config, bridge) as db:
        yield db


DATABASES = {"sqlite": sqlite, "postgres": postgres}


@pytest.fixture
async def db(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    """An open database with the whole schema: the embedded one, or as `kit.databases` asks."""
    async with DATABASES[getattr(request, "param", "sqlite")](request) as db:
        yield db


@pytest.fixture
def cache() -> MemoryCache:
    return MemoryCache(MemoryConfig())


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus(MemoryConfig())


@pytest.fixture
def objects(data_dir: Path) -> FolderObjects:
    return FolderObjects(data_dir / "objects")
