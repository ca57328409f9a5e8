"""Polls: no vote is lost or counted twice, and everybody is told the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
import trio

from kit.wait import until
from secureconnect.chat import Chat
from secureconnect.chat.polls.polls import Question, Seen
from secureconnect.chat.polls.store import PollType
from secureconnect.chat.store import LAST_ID
from secureconnect.clock import SECOND_US
from secureconnect.config import ChatConfig
from secureconnect.deps.contracts import Database, Tx
from secureconnect.deps.memory import MemoryBus
from secureconnect.errors import (
    AlreadyVoted,
    Conflict,
    E2eeRequired,
    Forbidden,
    Invalid,
    NotFound,
    PollClosed,
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
    async with running(db, bus, ChatConfig(poll_pass_s=3_600)) as room:
        group = await make_group(room, ann, bob)
        ends_us = db.now_us() + SECOND_US
        poll = await asked(room, group, ann, question(ends_us=ends_us))
        await until(lambda: db.now_us() > ends_us)
        with pytest.raises(PollClosed):
            await room.polls.vote(bob, poll.poll.poll_id, ids(poll)[:1])


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


async def test_many_voters_on_two_nodes_lose_and_double_nothing(db: Database, bus: MemoryBus) -> None:
    """Each votes twice at the same time, on either node; which comes last decides, and the counts say so."""
    people = await make_people(db, *(f"voter{number}" for number in range(VOTERS)))
    async with running(db, bus) as here, running(db, bus) as there:
        group = await make_group(here, people[0], *people[1:])
        poll = await asked(here, group, people[0], question("multi"))

        async def vote(room: Chat, user: UserId, options: list[str]) -> None:
            await room.polls.vote(user, poll.poll.poll_id, options)

        async with trio.open_nursery() as nursery:
            for number, user in enumerate(people):
                nursery.start_soon(vote, here, user, ids(poll)[: 1 + number % 3])
                nursery.start_soon(vote, there, user, ids(poll)[number % 3 :])
        seen = await there.polls.get(people[0], poll.poll.poll_id)
        cast = await db.read(votes, poll.poll.poll_id)
        assert counts(seen) == [Counter(option for _, option in cast)[option] for option in ids(poll)]
        assert seen.poll.voter_count == len({user for user, _ in cast}) == VOTERS
        for number, user in enumerate(people):
            mine = {option for voter, option in cast if voter == user}
            assert mine in (set(ids(poll)[: 1 + number % 3]), set(ids(poll)[number % 3 :]))


async def votes(tx: Tx, poll: PollId) -> list[tuple[str, str]]:
    rows = await tx.all("SELECT user_id, option_id FROM poll_votes WHERE poll_id = $1", poll)
    return [(row[0], row[1]) for row in rows]
