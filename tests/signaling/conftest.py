"""A running room on either database, and people who share a group."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio

from auth.harness import Clocked
from chat.rig import make_people, principal_of
from kit.databases import on_both
from secureconnect.config import StorageConfig
from secureconnect.deps.contracts import Database
from secureconnect.deps.files import FolderObjects
from secureconnect.deps.memory import MemorySignals
from secureconnect.identity import ConversationId, NodeId, Principal, new_id
from secureconnect.storage import Storage

from .rig import CONFIG, Node, make_conversation, signals
from .studio import Studio

pytest_generate_tests = on_both


@pytest.fixture
def between() -> MemorySignals:
    """What nodes of one test say to each other."""
    return signals()


@pytest.fixture
async def node(db: Database, between: MemorySignals, nursery: trio.Nursery) -> Node:
    return await Node.start(nursery, db, between)


@pytest.fixture
async def people(db: Database) -> list[Principal]:
    """Ann, Bob, Cid, Dee and Eve, each on a device."""
    return [principal_of(user) for user in await make_people(db, "ann", "bob", "cid", "dee", "eve")]


@pytest.fixture
async def group(db: Database, people: list[Principal]) -> ConversationId:
    """All five are in it, Ann its owner."""
    return await make_conversation(db, "group", *people)


@pytest.fixture
async def pair(db: Database, people: list[Principal]) -> ConversationId:
    """Ann and Bob alone."""
    return await make_conversation(db, "direct", *people[:2])


@pytest.fixture
async def studio(db: Database, between: MemorySignals, tmp_path: Path, nursery: trio.Nursery) -> Studio:
    clocked = Clocked(db)
    objects = FolderObjects(tmp_path / "files")
    config = replace(CONFIG, recording_part_mb=1, recording_mb=1, recordings_per_call=3)
    studio: Studio

    def is_away() -> bool:
        return studio.is_away

    storage = Storage(
        StorageConfig(quota_mb=1),
        clocked,
        objects,
        NodeId(new_id()),
        key=b"k" * 32,
        drafts=objects,
        is_store_away=is_away,
    )
    node = Node(clocked, between, config)
    node.room.recordings.shelf = lambda: storage.growing
    storage.files.is_shown = node.room.recordings.shows
    studio = Studio(node, clocked, objects, storage)
    return studio
