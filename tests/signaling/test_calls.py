"""The life of a call, by its rules: on both databases."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from itertools import product

import msgspec
import pytest
import trio

from chat.rig import principal_of
from kit.wait import until
from secureconnect.deps.contracts import Database, Tx
from secureconnect.deps.memory import MemorySignals
from secureconnect.errors import (
    CallCapacity,
    CallElsewhere,
    CallEngaged,
    CallOver,
    CallUnderWay,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Problem,
)
from secureconnect.identity import ConversationId, Principal, UserId, new_id
from secureconnect.signaling.steps import LEGAL, after
from secureconnect.signaling.store import Called, State

from .rig import CONFIG, Node, make_conversation


def states(call: Called) -> dict[str, str]:
    return {each.user_id: each.state for each in call.people}


async def settled(node: Node, call: Called) -> Called:
    """As it is stored."""
    return await node.room.calls.get(call.caller_id, call.call_id)


def test_what_is_over_stays_over() -> None:
    steps = {step for _, step in LEGAL}
    reached = set(LEGAL.values())
    over: set[State] = {"ended", "missed", "declined", "busy", "failed"}
    assert reached - {"active", "recovering"} == over
    for state, step in product(over, steps):
        assert after(state, step) is None
    assert after("active", "answer") is None


async def test_a_call_rings_is_answered_and_ends(
    node: Node, pair: ConversationId, people: list[Principal]
) -> None:
    ann, bob, *_ = people
    call = await node.call(ann, pair)
    assert (call.state, states(call)) == ("ringing", {ann.user_id: "joined", bob.user_id: "ringing"})
    await until(lambda: node.heard(bob) == ["call_incoming"])
    assert node.heard(ann) == []
    answered = await node.room.calls.join(bob, call.call_id)
    assert (answered.state, states(answered)[bob.user_id]) == ("active", "joined")
    await until(lambda: node.heard(bob)[-1] == "call_answered")  # his other devices ring no more
    over = await node.room.calls.leave(bob.user_id, call.call_id)
    assert over == await settled(node, call)
    assert (over.state, set(states(over).values())) == ("ended", {"left"})
    await until(lambda: node.heard(ann) == ["call_answered", "call_ended"])
    with pytest.raises(CallOver):
        await node.room.calls.join(bob, call.call_id)
    assert (await node.call(bob, pair)).state == "ringing"  # another one may begin


async def test_a_call_is_declined(node: Node, group: ConversationId, people: list[Principal]) -> None:
    ann, bob, cid, *_ = people
    call = await node.call(ann, group, bob, cid)
    assert (await node.room.calls.decline(bob.user_id, call.call_id)).state == "ringing"
    assert (await node.room.calls.decline(bob.user_id, call.call_id)).state == "ringing"  # the same again
    over = await node.room.calls.decline(cid.user_id, call.call_id)
    assert (over.state, over.duration_s) == ("declined", 0)
    with pytest.raises(CallOver):
        await node.room.calls.join(bob, call.call_id)


async def test_whoever_declined_may_come_after_all(
    node: Node, group: ConversationId, people: list[Principal]
) -> None:
    ann, bob, cid, *_ = people
    call = await node.call(ann, group, bob, cid)
    await node.room.calls.decline(bob.user_id, call.call_id)
    await node.room.calls.join(cid, call.call_id)
    assert states(await node.room.calls.join(bob, call.call_id))[bob.user_id] == "joined"


async def test_a_caller_who_hangs_up_has_called_in_vain(
    node: Node, pair: ConversationId, people: list[Principal]
) -> None:
    ann, bob, *_ = people
    call = await node.call(ann, pair)
    over = await node.room.calls.leave(ann.user_id, call.call_id)
    assert (over.state, states(over)) == ("missed", {ann.user_id: "left", bob.user_id: "missed"})
    await until(lambda: node.heard(bob) == ["call_incoming", "call_missed"])


async def test_nobody_answers(
    db: Database,
    between: MemorySignals,
    nursery: trio.Nursery,
    people: list[Principal],
    group: ConversationId,
) -> None:
    ann, bob, cid, *_ = people
    node = await Node.start(nursery, db, between)
    call = await node.call(ann, group, bob, cid)
    await node.room.calls.join(bob, call.call_id)
    later = await make_conversation(db, "direct", cid, people[3])
    other = await node.call(people[3], later)
    await db.write(ring_out_now)
    await until(lambda: node.heard(people[3]) == ["call_ended"])
    assert (await settled(node, other)).state == "missed"
    one = await settled(node, call)
    assert (one.state, states(one)[cid.user_id]) == ("active", "missed")  # those who talk talk on
    assert node.heard(cid).count("call_missed") == 2


async def ring_out_now(tx: Tx) -> None:
    await tx.run("UPDATE calls SET ring_until = started_at WHERE ring_until IS NOT NULL")


async def test_who_is_in_another_call_is_busy(
    db: Database, node: Node, pair: ConversationId, group: ConversationId, people: list[Principal]
) -> None:
    ann, bob, cid, dee, _ = people
    await node.call(ann, group, dee)
    with pytest.raises(CallEngaged):
        await node.call(ann, pair)
    call = await node.call(bob, pair)
    assert (call.state, call.is_over) == ("busy", True)
    await until(lambda: "call_missed" in node.heard(ann))
    other = await make_conversation(db, "group", cid, ann, bob)
    waits = await node.call(cid, other)
    assert (waits.state, states(waits)[ann.user_id]) == ("ringing", "busy")
    with pytest.raises(CallEngaged):
        await node.room.calls.join(ann, waits.call_id)


async def test_a_fifth_is_refused_before_anything_happens(
    node: Node, group: ConversationId, people: list[Principal]
) -> None:
    ann, bob, cid, dee, eve = people
    with pytest.raises(CallCapacity, match=r"call capacity limit reached \(max 4 participants\)"):
        await node.call(ann, group)
    with pytest.raises(CallCapacity):
        await node.call(ann, group, bob, cid, dee, eve)
    assert await node.room.calls.history(ann.user_id, group, "f" * 8 + "-ffff" * 3 + "-" + "f" * 12, 10) == []
    call = await node.call(ann, group, bob, cid, dee)
    for person in (bob, cid, dee):
        await node.room.calls.join(person, call.call_id)
    before = await settled(node, call)
    with pytest.raises(CallCapacity, match=r"call is at full capacity \(max 4 participants\)"):
        await node.room.calls.join(eve, call.call_id)
    assert await settled(node, call) == before
    await node.room.calls.leave(bob.user_id, call.call_id)
    assert len((await node.room.calls.join(eve, call.call_id)).joined) == 4


async def test_of_two_devices_that_answer_at_once_one_does(
    node: Node, pair: ConversationId, people: list[Principal]
) -> None:
    ann, bob, *_ = people
    call = await node.call(ann, pair)
    phones = [msgspec.structs.replace(bob, device_id=principal_of(bob.user_id).device_id) for _ in range(4)]
    refused: list[Problem] = []

    async def answer(phone: Principal) -> None:
        try:
            await node.room.calls.join(phone, call.call_id)
        except CallElsewhere as problem:
            refused.append(problem)

    async with trio.open_nursery() as answers:
        for phone in phones:
            answers.start_soon(answer, phone)
    assert len(refused) == 3
    assert (await settled(node, call)).joined == sorted([ann.user_id, bob.user_id])


async def test_of_two_calls_at_once_one_is_made(
    node: Node, pair: ConversationId, people: list[Principal]
) -> None:
    ann, bob, *_ = people
    made: list[Called] = []
    refused: list[Problem] = []

    async def ring(who: Principal) -> None:
        try:
            made.append(await node.call(who, pair))
        except CallUnderWay as problem:
            refused.append(problem)

    async with trio.open_nursery() as callers:
        callers.start_soon(ring, ann)
        callers.start_soon(ring, bob)
    [call], [problem] = made, refused
    assert problem.details == {"call_id": call.call_id}


async def test_ending_while_somebody_joins_leaves_nobody_in_it(
    node: Node, group: ConversationId, people: list[Principal]
) -> None:
    ann, bob, cid, *_ = people
    for _ in range(5):
        call = await node.call(ann, group, bob, cid)
        await node.room.calls.join(bob, call.call_id)

        async def come(call: Called = call) -> None:
            with suppress(CallOver):
                await node.room.calls.join(cid, call.call_id)

        async with trio.open_nursery() as steps:
            steps.start_soon(node.room.calls.end, ann, call.call_id)
            steps.start_soon(come)
        over = await settled(node, call)
        assert (over.state, over.joined) == ("ended", [])


async def test_who_may_do_what(
    db: Database, node: Node, group: ConversationId, pair: ConversationId, people: list[Principal]
) -> None:
    ann, bob, cid, dee, eve = people
    stranger = principal_of(UserId(new_id()))
    call = await node.call(bob, group, cid)
    rules = node.room.calls
    refused: list[Callable[[], Awaitable[Called]]] = [
        partial(rules.get, stranger.user_id, call.call_id),
        partial(rules.join, stranger, call.call_id),
        partial(rules.decline, stranger.user_id, call.call_id),
        partial(rules.leave, stranger.user_id, call.call_id),
        partial(rules.end, stranger, call.call_id),
        partial(node.call, stranger, group, ann),
        partial(node.call, cid, pair, ann),
    ]
    for attempt in refused:
        with pytest.raises(NotFound):
            await attempt()
    with pytest.raises(Invalid):
        await node.call(ann, pair, eve)
    with pytest.raises(Conflict):
        await rules.decline(dee.user_id, call.call_id)  # nobody calls her
    with pytest.raises(Forbidden):
        await rules.end(dee, call.call_id)
    assert (await rules.end(ann, call.call_id)).state == "missed"  # she owns the group


async def test_a_block_keeps_calls_away(
    db: Database, node: Node, group: ConversationId, pair: ConversationId, people: list[Principal]
) -> None:
    ann, bob, cid, *_ = people

    async def block(tx: Tx) -> None:
        await tx.run("INSERT INTO blocks VALUES ($1, $2, $3)", bob.user_id, ann.user_id, 1)

    await db.write(block)
    with pytest.raises(Forbidden):
        await node.call(ann, pair)
    call = await node.call(ann, group, bob, cid)
    assert states(call) == {ann.user_id: "joined", cid.user_id: "ringing"}
    assert node.heard(bob) == []


async def test_everybody_has_their_history(
    node: Node, group: ConversationId, pair: ConversationId, people: list[Principal]
) -> None:
    ann, bob, cid, dee, _ = people
    last = "ffffffff-ffff-ffff-ffff-ffffffffffff"
    first = await node.call(ann, pair)
    await node.room.calls.leave(ann.user_id, first.call_id)
    second = await node.call(ann, group, cid)
    listed = await node.room.calls.history(ann.user_id, None, last, 10)
    assert [each.call_id for each in listed] == [second.call_id, first.call_id]
    assert [each.state for each in await node.room.calls.history(bob.user_id, None, last, 10)] == ["missed"]
    assert await node.room.calls.history(dee.user_id, None, last, 10) == []
    assert [each.call_id for each in await node.room.calls.history(dee.user_id, group, last, 10)] == [
        second.call_id
    ]
    assert CONFIG.max_participants == 4
