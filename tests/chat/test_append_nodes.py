"""Two nodes append to the same few conversations of one Postgres, all the time."""

from __future__ import annotations

import random
from collections import Counter
from itertools import count

import pytest
import trio

from secureconnect.chat import archive, changes
from secureconnect.chat.append import Draft, Stored, append
from secureconnect.chat.changes import Event
from secureconnect.config import PostgresConfig
from secureconnect.deps import migrate
from secureconnect.deps.asyncio_bridge import open_bridge
from secureconnect.deps.contracts import Database, Row, Tx
from secureconnect.deps.memory import MemoryBus
from secureconnect.deps.postgres import Postgres
from secureconnect.identity import ConversationId, MessageId, UserId, new_id

from .rig import make_group, make_people, running

BATCHES = 500
WRITERS = 6  # of each node: more than a server has, whose one writer task appends at a time
LARGEST = 6  # messages of a batch


class Storm:
    """What all writers do. sent: what may be sent again; told: what became of each client_message_id."""

    def __init__(self, people: list[UserId], places: list[ConversationId], seed: int) -> None:
        self.people = people
        self.places = places
        self.chance = random.Random(seed)
        self.batches = count()
        self.numbers = count()
        self.sent: list[Draft] = []
        self.told: dict[str, set[MessageId]] = {}
        self.fresh: Counter[str] = Counter()
        self.edits = 0

    async def write(self, db: Database) -> None:
        while next(self.batches) < BATCHES:
            if self.chance.random() < 0.2 and self.told:
                await self._edit(db)
            drafts = [self._draft() for _ in range(self.chance.randint(1, LARGEST))]
            self.sent += drafts
            for draft, outcome in zip(drafts, await db.write(append, drafts, db.now_us), strict=True):
                assert isinstance(outcome, Stored)
                self.told.setdefault(draft.client_message_id, set()).add(outcome.message.message_id)
                self.fresh[draft.client_message_id] += outcome.fresh

    def _draft(self) -> Draft:
        if self.sent and self.chance.random() < 0.3:  # also one that the other node has under way
            return self.chance.choice(self.sent[-20:])._replace(message_id=MessageId(new_id()))
        where, who = self.chance.choice(self.places), self.chance.choice(self.people)
        number = str(next(self.numbers))
        return Draft(MessageId(new_id()), where, who, number, "text", number, False, None, "[]", None)

    async def _edit(self, db: Database) -> None:
        chosen = self.chance.choice(self.sent)
        stored = self.told.get(chosen.client_message_id)
        if stored:
            await db.write(edit, chosen.conversation_id, next(iter(stored)), db.now_us())
            self.edits += 1


async def edit(tx: Tx, where: ConversationId, message: MessageId, now_us: int) -> None:
    change = await changes.number(tx, where, now_us)
    await archive.edit(tx, message, "edited", False, None, now_us)
    await changes.record(tx, Event("message_edited", where, change, now_us, message_id=message), None)


async def rows(tx: Tx, sql: str) -> list[Row]:
    return await tx.all(sql)


@pytest.mark.parametrize("seed", [1])
async def test_numbers_are_dense_whoever_writes(postgres_url: str, bus: MemoryBus, seed: int) -> None:
    config = PostgresConfig(url=postgres_url, connections=WRITERS)
    async with (
        open_bridge() as bridge,
        Postgres.open(config, bridge) as one,
        Postgres.open(config, bridge) as other,
    ):
        await migrate.apply(one)
        people = await make_people(one, "ann", "bob", "cid")
        async with running(one, bus) as room:
            places = [await make_group(room, *people) for _ in range(4)]
        storm = Storm(people, places, seed)
        async with trio.open_nursery() as nursery:
            for db in (one, other) * WRITERS:
                nursery.start_soon(storm.write, db)

        said = await one.read(
            rows, "SELECT conversation_id, seq, change, client_message_id, sent_at FROM messages ORDER BY seq"
        )
        happened = await one.read(rows, "SELECT conversation_id, change FROM changes")
        deadlocks = await one.read(
            rows, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        )
        heads = await other.read(rows, "SELECT conversation_id, last_seq, last_change FROM conversations")
    for where, last_seq, last_change in heads:
        mine = [row for row in said if row[0] == where]
        assert [row[1] for row in mine] == list(range(1, last_seq + 1))
        changes = [row[2] for row in mine] + [change for place, change in happened if place == where]
        assert sorted(changes) == list(range(1, last_change + 1))
        assert [row[4] for row in mine] == sorted(row[4] for row in mine)
    assert {row[3]: 1 for row in said} == storm.fresh == dict.fromkeys(storm.told, 1)
    assert deadlocks == [(0,)], "conversations are locked in one order"
    assert all(len(messages) == 1 for messages in storm.told.values())
    assert len(happened) >= storm.edits > BATCHES / 10
