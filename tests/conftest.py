"""The embedded twins, opened afresh for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from secureconnect.config import MemoryConfig, SqliteConfig
from secureconnect.deps import migrate
from secureconnect.deps.files import FolderObjects
from secureconnect.deps.memory import MemoryBus, MemoryCache
from secureconnect.deps.sqlite import Sqlite

pytest_plugins = ("require_all", "kit.fixtures")


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """An empty data folder."""
    path = tmp_path / "data"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
async def db(data_dir: Path) -> AsyncIterator[Sqlite]:
    """An open database with the whole schema."""
    async with Sqlite.open(data_dir / "secureconnect.db", SqliteConfig()) as db:
        await migrate.apply(db)
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
