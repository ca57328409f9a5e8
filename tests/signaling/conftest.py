"""A running room on either database, and people who share a group."""

from __future__ import annotations

import pytest
import trio

from chat.rig import make_people, principal_of
from kit.databases import on_both
from secureconnect.deps.contracts import Database
from secureconnect.deps.memory import MemorySignals
from secureconnect.identity import ConversationId, Principal

from .rig import Node, make_conversation, signals

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
