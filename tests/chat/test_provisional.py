"""A message that is accepted and not stored yet: what can be done with it, and what only later."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from secureconnect.chat.pledges import Accepted
from secureconnect.deps.memory import MemoryBus
from secureconnect.deps.sqlite import Sqlite
from secureconnect.errors import Unavailable

from .rig import history
from .test_pledges import Scene, scene


@pytest.fixture
async def here(db: Sqlite, bus: MemoryBus, data_dir: Path, nursery: trio.Nursery) -> AsyncIterator[Scene]:
    async with scene(db, bus, data_dir, nursery) as here:
        yield here


async def test_a_provisional_message_cannot_be_changed_yet(here: Scene) -> None:
    here.db.go_away()
    accepted = await here.accept("one")
    here.anns.tell("edit", ref=1, message_id=accepted.message_id, content="two")
    here.anns.tell("delete", ref=2, message_id=accepted.message_id)
    here.anns.tell("react", ref=3, message_id=accepted.message_id, emoji="+1")
    for number in (1, 2, 3):
        error = await here.anns.wait_for("error", number)
        assert (error["ref"], error["code"]) == (number, "UNAVAILABLE")
        assert "not stored yet" in error["message"]
    for refused in (
        here.room.pins.set(here.ann, here.group, accepted.message_id, on=True),
        here.room.forwards.send(here.ann, accepted.message_id, [here.group], "id"),
    ):
        with pytest.raises(Unavailable, match="not stored yet"):
            await refused
    here.db.come_back()
    await here.settled()
    edited = await here.room.messages.edit(here.ann, accepted.message_id, "two")
    assert edited.content == "two"


async def test_an_answer_to_one_that_is_not_stored_yet(here: Scene) -> None:
    here.db.go_away()
    accepted = await here.accept("well?")
    answer = here.room.messages.draft(here.bob, here.group, "well!", reply_to=accepted.message_id)
    assert isinstance(await here.room.messages.send(answer), Accepted)
    here.db.come_back()
    await here.settled()
    [question, reply] = (await history(here.room, here.bob, here.group))[1:]
    assert (question.content, reply.content) == ("well?", "well!")
    assert reply.reply_to == question.message_id
