"""Polls: no vote is lost or counted twice, and everybody is told the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
import trio
import trio.testing

from kit.databases import on_sqlite
from kit.outage import Interrupted
from kit.redis import RedisServer
from kit.wait import until
from secureconnect.chat import Chat
from secureconnect.chat.polls.polls import Question, Seen
from secureconnect.chat.polls.store import PollType
from secureconnect.chat.store import LAST_ID
from secureconnect.clock import DAY_US, SECOND_US
from secureconnect.config import ChatConfig, PostgresConfig, RedisConfig
from secureconnect.deps.asyncio_bridge import open_bridge
from secureconnect.deps.contracts import Database, Tx
from secureconnect.deps.memory import MemoryBus
from secureconnect.deps.postgres import Postgres
from secureconnect.deps.redis import open_redis
from secureconnect.deps.sqlite import Sqlite
from secureconnect.errors import (
    AlreadyVoted,
    Conflict,
    E2eeRequired,
    Forbidden,
    Invalid,
    NotFound,
    OutcomeUnknown,
    PollClosed,
    Problem,
    Unavailable,
)
from secureconnect.identity import ConversationId, PollId, UserId, new_id

from .rig import back, block, dialled, make_group, make_people, running, say

VOTERS = 200


def question(
    kind: PollType = "single",
    *,
    final: bool = False,
    ends_us: int | None = None,
    options: Sequence[str] = ("yes", "no", "perhaps"),
) -> Question:
    return Question("Shall we?", options, kind, not final, ends_us)


async def asked(room: Chat, conversation: ConversationId, by: UserId, what: Question) -> Seen:
    return await room.polls.get(by, await room.polls.create(by, conversation, what))


def ids(seen: Seen) -> list[str]:
    return [option.option_id for option in seen.poll.options]


def counts(seen: Seen) -> list[int]:
    return [option.vote_count for option in seen.poll.options]


async def test_votes_are_counted_changed_and_taken_back(room: Chat, people: list[UserId]) -> None:
    ann, bob, cid, _ = people
    poll = await asked(room, await make_group(room, ann, bob, cid), ann, question())
    yes, no, _ = ids(poll)
    await room.polls.vote(ann, poll.poll.poll_id, [yes])
    await room.polls.vote(bob, poll.poll.poll_id, [yes])
    seen = await room.polls.vote(bob, poll.poll.poll_id, [no, no])
    assert (counts(seen), seen.poll.voter_count, seen.mine) == ([1, 1, 0], 2, frozenset({no}))
    again = await room.polls.vote(bob, poll.poll.poll_id, [no])
    assert again.poll.change == seen.poll.change, "the same again is nothing new"
    seen = await room.polls.vote(ann, poll.poll.poll_id, [])
    assert (counts(seen), seen.poll.voter_count, seen.mine) == ([0, 1, 0], 1, frozenset())


async def test_several_options_or_one(room: Chat, people: list[UserId]) -> None:
    ann, bob, *_ = people
    group = await make_group(room, ann, bob)
    many, one = await asked(room, group, ann, question("multi")), await asked(room, group, ann, question())
    seen = await room.polls.vote(bob, many.poll.poll_id, ids(many)[:2])
    assert (counts(seen), seen.poll.voter_count) == ([1, 1, 0], 1)
    for wrong in (ids(one)[:2], [new_id()], ids(many)[:1]):
        with pytest.raises(Invalid):
            await room.polls.vote(bob, one.poll.poll_id, wrong)
    assert counts(await room.polls.get(ann, one.poll.poll_id)) == [0, 0, 0]


async def test_a_list_says_of_each_what_it_says_itself(room: Chat, people: list[UserId]) -> None:
    ann, bob, *_ = people
    group, other = await make_group(room, ann, bob), await make_group(room, ann, bob)
    made = []
    for number in range(5):
        poll = await asked(room, other if number == 2 else group, ann, question("multi"))
        await room.polls.vote(bob, poll.poll.poll_id, ids(poll)[: number % 3])
        if number != 2:
            made.append(poll.poll.poll_id)
    alone = [await room.polls.get(bob, poll) for poll in reversed(made)]
    assert await room.polls.page(bob, group, PollId(LAST_ID), 10, only_active=True) == alone
    assert await room.polls.page(bob, group, made[-1], 2, only_active=False) == alone[1:3]


async def test_a_final_vote_stays(room: Chat, people: list[UserId]) -> None:
    ann, bob, *_ = people
    poll = await asked(room, await make_group(room, ann, bob), ann, question(final=True))
    yes, no, _ = ids(poll)
    await room.polls.vote(bob, poll.poll.poll_id, [yes])
    await room.polls.vote(bob, poll.poll.poll_id, [yes])
    for other in ([no], []):
        with pytest.raises(AlreadyVoted):
            await room.polls.vote(bob, poll.poll.poll_id, other)


async def test_it_closes_by_itself(
    nursery: trio.Nursery, room: Chat, db: Database, people: list[UserId]
) -> None:
    ann, bob, *_ = people
    group = await make_group(room, ann, bob)
    live = await dialled(nursery, room, bob)
    poll = await asked(room, group, ann, question(ends_us=db.now_us() + SECOND_US // 2))
    told = await live.wait_for("poll_closed")
    assert told["poll"]["closed_at"] >= told["poll"]["expires_at"]
    with pytest.raises(PollClosed):
        await room.polls.vote(bob, poll.poll.poll_id, ids(poll)[:1])
    assert await room.polls.page(bob, group, PollId(LAST_ID), 10, only_active=True) == []
    assert len(await room.polls.page(bob, group, PollId(LAST_ID), 10, only_active=False)) == 1
    assert await room.polls.pass_once() == 0


async def test_no_vote_counts_after_the_end_though_nobody_has_closed_it(
    db: Database, bus: MemoryBus, people: list[UserId]
) -> None:
    ann, bob, *_ = people
    later = Interrupted(db)
    async with running(later, bus, ChatConfig(poll_pass_s=3_600)) as room:
        group = await make_group(room, ann, bob)
        poll = await asked(room, group, ann, question(ends_us=db.now_us() + DAY_US))
        later.ahead_us = DAY_US
        with pytest.raises(PollClosed):
            await room.polls.vote(bob, poll.poll.poll_id, ids(poll)[:1])
    async with running(later, bus, ChatConfig(poll_pass_s=0.05)) as room:  # as after an outage

        async def is_closed() -> bool:
            return (await room.polls.get(bob, poll.poll.poll_id)).poll.closed_us is not None

        await until(is_closed)


async def test_a_vote_stays_when_its_voter_leaves(room: Chat, people: list[UserId]) -> None:
    ann, bob, *_ = people
    group = await make_group(room, ann, bob)
    poll = await asked(room, group, ann, question())
    await room.polls.vote(bob, poll.poll.poll_id, ids(poll)[:1])
    await room.conversations.remove(bob, group, bob)
    with pytest.raises(NotFound):
        await room.polls.vote(bob, poll.poll.poll_id, [])
    seen = await room.polls.get(ann, poll.poll.poll_id)
    assert (counts(seen), seen.poll.voter_count) == ([1, 0, 0], 1)


async def test_it_goes_after_the_same_time_as_messages(
    nursery: trio.Nursery, db: Database, bus: MemoryBus, people: list[UserId]
) -> None:
    """Also where nothing was said since."""
    ann, bob, *_ = people
    async with running(db, bus, ChatConfig(retention_pass_s=3_600)) as room:
        group = await make_group(room, ann, bob)
        old, new = await asked(room, group, ann, question()), await asked(room, group, ann, question())
        await room.polls.vote(bob, old.poll.poll_id, ids(old)[:1])
        await room.conversations.configure(ann, group, {"message_retention_days": 1})
        live = await dialled(nursery, room, bob)
        await db.write(_age, old.poll.poll_id, db.now_us() - 2 * DAY_US)
        assert await room.retention.pass_once() == 1
        assert (await live.wait_for("poll_deleted"))["poll_id"] == old.poll.poll_id
        left = await room.polls.page(bob, group, PollId(LAST_ID), 10, only_active=False)
        assert [each.poll for each in left] == [new.poll]
        assert await db.read(votes, old.poll.poll_id) == []
        assert await room.retention.pass_once() == 0


async def _age(tx: Tx, poll: PollId, made_us: int) -> None:
    await tx.run("UPDATE polls SET created_at = $2 WHERE poll_id = $1", poll, made_us)


async def test_everybody_is_told_live_and_later_how_it_is_now(
    nursery: trio.Nursery, room: Chat, people: list[UserId]
) -> None:
    ann, bob, *_ = people
    group = await make_group(room, ann, bob)
    before = (await room.conversations.summary(ann, group)).seat.conversation.last_change
    live = await dialled(nursery, room, ann)
    poll = await asked(room, group, bob, question())
    await room.polls.vote(ann, poll.poll.poll_id, ids(poll)[:1])
    await room.polls.close(bob, poll.poll.poll_id)
    await room.polls.close(bob, poll.poll.poll_id)  # once is enough
    created, voted = await live.wait_for("poll_created"), await live.wait_for("poll_voted")
    closed = await live.wait_for("poll_closed")
    assert [told["change"] for told in (created, voted, closed)] == [before + 1, before + 2, before + 3]
    assert (created["poll"]["total_votes"], voted["poll"]["total_votes"]) == (0, 1)
    assert "my_option_ids" not in voted["poll"]
    later = await back(nursery, room, ann, {group: before})
    kinds = ("poll_created", "poll_voted", "poll_closed")
    assert later.of(*kinds) == [told | {"poll": closed["poll"]} for told in (created, voted, closed)]
    await room.polls.delete(bob, poll.poll.poll_id)
    gone = await live.wait_for("poll_deleted")
    assert (gone["poll_id"], gone["change"]) == (poll.poll.poll_id, before + 4)
    last = await back(nursery, room, ann, {group: before})
    assert [told["change"] for told in last.of("poll_deleted")] == [before + each for each in (1, 2, 3, 4)]
    assert not last.of(*kinds), "nothing of it is left"


async def test_who_may_not(room: Chat, db: Database, people: list[UserId]) -> None:
    ann, bob, cid, dee = people
    group = await make_group(room, ann, bob)
    poll = (await asked(room, group, ann, question())).poll.poll_id
    for refused in (
        lambda: room.polls.get(dee, poll),
        lambda: room.polls.vote(dee, poll, []),
        lambda: room.polls.create(dee, group, question()),
        lambda: room.polls.get(ann, PollId(new_id())),
    ):
        with pytest.raises(NotFound):
            await refused()
    with pytest.raises(Forbidden):
        await room.polls.close(bob, poll)
    with pytest.raises(Forbidden):
        await room.polls.delete(bob, poll)
    await say(room, ann, group, "before cid came")
    await room.conversations.add(ann, group, cid, "member")
    with pytest.raises(NotFound):
        await room.polls.get(cid, poll)
    direct, _ = await room.conversations.create(ann, "direct", None, [bob], False)
    between = await asked(room, direct, bob, question())
    await block(db, bob, ann)
    with pytest.raises(Forbidden):
        await room.polls.vote(ann, between.poll.poll_id, ids(between)[:1])
    secret, _ = await room.conversations.create(ann, "group", None, [cid], True)
    with pytest.raises(E2eeRequired):
        await room.polls.create(ann, secret, question())
    with pytest.raises(Invalid):
        await room.polls.create(ann, group, question(options=["same", "same"]))
    with pytest.raises(Invalid):
        await room.polls.create(ann, group, question(ends_us=db.now_us()))


async def test_so_many_are_open(db: Database, bus: MemoryBus, people: list[UserId]) -> None:
    ann, bob, *_ = people
    async with running(db, bus, ChatConfig(max_open_polls=2)) as room:
        group = await make_group(room, ann, bob)
        first = await room.polls.create(ann, group, question())
        await room.polls.create(ann, group, question())
        with pytest.raises(Conflict):
            await room.polls.create(ann, group, question())
        await room.polls.close(ann, first)
        await room.polls.create(ann, group, question())


class Held(Interrupted):
    """A database that keeps votes waiting."""

    def __init__(self, inner: Database) -> None:
        super().__init__(inner)
        self.waiting = 0

    async def write(self, unit: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if unit.__name__ == "_vote":
            self.waiting += 1
            await trio.sleep_forever()
        return await super().write(unit, *args, **kwargs)


@on_sqlite
async def test_who_votes_as_the_room_ends_is_told_what_is_known_of_it(
    nursery: trio.Nursery, db: Database, bus: MemoryBus, people: list[UserId]
) -> None:
    """Of a vote on its way to the database that is nothing."""
    ann, bob, *_ = people
    held = Held(db)
    told: dict[UserId, type[Problem]] = {}
    async with running(held, bus) as room:
        poll = await asked(room, await make_group(room, ann, bob), ann, question())

        async def vote(user: UserId) -> None:
            try:
                await room.polls.vote(user, poll.poll.poll_id, ids(poll)[:1])
            except Problem as problem:
                told[user] = type(problem)

        nursery.start_soon(vote, ann)
        await until(lambda: held.waiting == 1)
        nursery.start_soon(vote, bob)
        await trio.testing.wait_all_tasks_blocked()
    await until(lambda: len(told) == 2)
    assert told == {ann: OutcomeUnknown, bob: Unavailable}


@pytest.fixture
async def nodes(
    request: pytest.FixtureRequest, db: Database, bus: MemoryBus
) -> AsyncIterator[tuple[Chat, Chat]]:
    """Two, on what is embedded; or each with connections of its own to Postgres and Redis."""
    if isinstance(db, Sqlite):
        async with running(db, bus) as here, running(db, bus) as there:
            yield here, there
        return
    redis: RedisServer = request.getfixturevalue("redis_server")
    config = RedisConfig(url=redis.url)
    async with (
        open_bridge() as bridge,
        Postgres.open(PostgresConfig(url=request.getfixturevalue("migrated_url")), bridge) as other,
        open_redis(config, bridge) as this_redis,
        open_redis(config, bridge) as other_redis,
        running(db, this_redis.bus) as here,
        running(other, other_redis.bus) as there,
    ):
        yield here, there


async def test_many_voters_on_two_nodes_lose_and_double_nothing(
    nursery: trio.Nursery, db: Database, nodes: tuple[Chat, Chat]
) -> None:
    """Each votes twice at the same time, on either node; which comes last decides, and the counts say so."""
    here, there = nodes
    people = await make_people(db, *(f"voter{number}" for number in range(VOTERS)))
    group = await make_group(here, people[0], *people[1:])
    poll = await asked(here, group, people[0], question("multi"))
    live = await dialled(nursery, there, people[0])

    async def vote(room: Chat, user: UserId, options: list[str]) -> None:
        await room.polls.vote(user, poll.poll.poll_id, options)

    async with trio.open_nursery() as voting:
        for number, user in enumerate(people):
            voting.start_soon(vote, here, user, ids(poll)[: 1 + number % 3])
            voting.start_soon(vote, there, user, ids(poll)[number % 3 :])
    seen = await there.polls.get(people[0], poll.poll.poll_id)
    cast = await db.read(votes, poll.poll.poll_id)
    assert counts(seen) == [Counter(option for _, option in cast)[option] for option in ids(poll)]
    assert seen.poll.voter_count == len({user for user, _ in cast}) == VOTERS
    for number, user in enumerate(people):
        mine = {option for voter, option in cast if voter == user}
        assert mine in (set(ids(poll)[: 1 + number % 3]), set(ids(poll)[number % 3 :]))
    await until(lambda: seen.poll.change in [told["change"] for told in live.of("poll_voted")])
    last = live.of("poll_voted")[-1]["poll"]
    assert [option["vote_count"] for option in last["options"]] == counts(seen)


async def votes(tx: Tx, poll: PollId) -> list[tuple[str, str]]:
    rows = await tx.all("SELECT user_id, option_id FROM poll_votes WHERE poll_id = $1", poll)
    return [(row[0], row[1]) for row in rows]
