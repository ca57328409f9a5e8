"""How calls outlive what carries them: by their rules, on both databases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio

from kit.outage import Interrupted
from kit.scrape import value
from kit.wait import until
from secureconnect.clock import SECOND_US
from secureconnect.deps.contracts import Database, Tx
from secureconnect.deps.memory import MemorySignals
from secureconnect.edge import Call, Close
from secureconnect.errors import Unavailable
from secureconnect.identity import CallId, ConversationId, PeerId, Principal, UserId
from secureconnect.signaling.rosters import Heard
from secureconnect.signaling.sockets import SignalingQuery, serve
from secureconnect.signaling.store import Called, Peer, peers_of_node

from .rig import CONFIG, Device, Node, renew, signals

LONG_AGO_US = -3_600 * SECOND_US


class Held(Interrupted):
    """The answers of writes stay on their way while `gate` is closed."""

    def __init__(self, inner: Database) -> None:
        super().__init__(inner)
        self.gate = trio.Event()
        self.gate.set()

    async def write(self, unit: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        value = await super().write(unit, *args, **kwargs)
        await self.gate.wait()
        return value


class Shut(Interrupted):
    """What has gone away is read all the same. Answers to looks at its node stay on their way while `gate` is
    closed.  looks: that do."""

    def __init__(self, inner: Database) -> None:
        super().__init__(inner)
        self.gate = trio.Event()
        self.gate.set()
        self.looks = 0

    async def read(self, unit: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        value = await self.inner.read(unit, *args, **kwargs)
        if unit is peers_of_node and not self.gate.is_set():
            self.looks += 1
            await self.gate.wait()
        return value


@pytest.fixture
def held(db: Database) -> Held:
    """The database as the first of two nodes reaches it."""
    return Held(db)


@pytest.fixture
async def nodes(db: Database, held: Held, between: MemorySignals, nursery: trio.Nursery) -> tuple[Node, Node]:
    return await Node.start(nursery, held, between), await Node.start(nursery, db, between)


async def stands(node: Node, call: Called) -> Called:
    return await node.room.calls.get(call.caller_id, call.call_id)


async def until_state(node: Node, call: Called, state: str) -> None:
    async def is_so() -> bool:
        return (await stands(node, call)).state == state

    await until(is_so)


async def peers_of(node: Node, call: Called) -> dict[UserId, Peer]:
    return {each.user_id: each for each in await node.room.peers.of(call.call_id)}


async def everybody(
    nodes: tuple[Node, Node], where: ConversationId, *people: Principal
) -> tuple[Called, list[Device]]:
    """The first has called the others, and is connected to the first node, they to the second."""
    call = await nodes[0].call(people[0], where, *people[1:])
    devices = [await nodes[0].attach(people[0], call.call_id)]
    for person in people[1:]:
        await nodes[1].room.calls.join(person, call.call_id)
        devices.append(await nodes[1].attach(person, call.call_id))
    for number, device in enumerate(devices):
        await until(lambda d=device, n=number: len(d.of("join")) == len(people) - 1 - n)  # type: ignore[misc]
    return call, devices


async def make_late(db: Database, call_id: CallId) -> None:
    """Whoever is lost, or has not come, is that for long."""

    async def unit(tx: Tx) -> None:
        await tx.run("UPDATE calls SET answered_at = $2 WHERE call_id = $1", call_id, 1)  # first, as rooms do
        lost = "UPDATE call_peers SET lost_at = $2 WHERE call_id = $1 AND lost_at IS NOT NULL"
        await tx.run(lost, call_id, 1)
        await tx.run("UPDATE call_people SET joined_at = $2 WHERE call_id = $1", call_id, 1)

    await db.write(unit)


async def test_devices_of_a_dead_node_are_waited_for(
    db: Database, held: Held, nodes: tuple[Node, Node], group: ConversationId, people: list[Principal]
) -> None:
    ann, bob, cid, *_ = people
    call, [one, two, three] = await everybody(nodes, group, ann, bob, cid)
    held.go_away()  # the first node does not learn that it is taken for dead
    await db.write(renew, nodes[0].id, LONG_AGO_US)
    for device in (two, three):
        told = await device.wait_for("peer_reconnecting")
        assert (told["peer_id"], told["epoch"]) == (one.peer_id, one.epoch + 1)
    assert (await stands(nodes[1], call)).state == "recovering"
    again = await nodes[1].come_back(one, call.call_id)
    assert (again.peer_id, again.epoch) == (one.peer_id, one.epoch + 1)
    assert await one.wait_closed() == Close.NORMAL
    for device in (two, three):
        told = await device.wait_for("peer_resumed")
        assert (told["peer"]["peer_id"], told["restart_ice"]) == (one.peer_id, True)
    assert (await stands(nodes[1], call)).state == "active"
    two.tell("offer", target_id=one.peer_id, epoch=two.epoch, sdp="of before", ref=1)
    two.tell("offer", target_id=one.peer_id, epoch=again.epoch, sdp="of now", ref=2)
    assert (await again.wait_for("offer"))["sdp"] == "of now"
    assert not any(device.of("leave") for device in (two, three, again))


async def test_a_node_that_was_taken_for_dead_says_that_it_is_not(
    db: Database, nodes: tuple[Node, Node], pair: ConversationId, people: list[Principal]
) -> None:
    ann, bob, *_ = people
    call, [one, two] = await everybody(nodes, pair, ann, bob)
    await db.write(renew, nodes[0].id, LONG_AGO_US)
    await two.wait_for("peer_reconnecting")
    as_lost = await nodes[1].room.peers.of_node()
    await db.write(renew, nodes[0].id)
    assert (await two.wait_for("peer_resumed"))["peer"]["peer_id"] == one.peer_id
    rosters = nodes[1].room.rosters
    rosters.take(as_lost, Heard(), trio.current_time(), frozenset(), CONFIG.grace_s)  # it hears later than we
    assert rosters.get(call.call_id).peers[PeerId(one.peer_id)].lost_us is None  # type: ignore[union-attr]
    await until_state(nodes[1], call, "active")

    def is_heard() -> bool:
        """Refused while the other node still holds what it read before."""
        two.tell("offer", target_id=one.peer_id, sdp="v=0")
        return bool(one.of("offer"))

    await until(is_heard)
    assert one.of("offer")[0]["epoch"] > one.epoch
    assert one.code is None


async def test_a_node_that_was_taken_for_dead_knows_its_devices_best(
    db: Database,
    between: MemorySignals,
    nursery: trio.Nursery,
    pair: ConversationId,
    people: list[Principal],
) -> None:
    """What they have said of their media meanwhile, and could not be written, is not taken back."""
    ann, bob, *_ = people
    shut = Shut(db)
    nodes = (await Node.start(nursery, shut, between), await Node.start(nursery, db, between))
    call, [one, two] = await everybody(nodes, pair, ann, bob)
    shut.go_away()
    one.tell("mute_audio", muted=True)
    await two.wait_for("mute_audio")
    await db.write(renew, nodes[0].id, LONG_AGO_US)
    await two.wait_for("peer_reconnecting")
    await db.write(renew, nodes[0].id)
    assert (await two.wait_for("peer_resumed"))["peer"]["audio"] is False
    shut.come_back()

    async def is_written() -> bool:
        row = (await peers_of(nodes[1], call))[ann.user_id]
        return (row.audio, row.lost_us) == (False, None)

    await until(is_written)


async def test_a_device_that_is_cut_off_as_it_comes_is_waited_for(
    held: Held,
    nodes: tuple[Node, Node],
    nursery: trio.Nursery,
    group: ConversationId,
    people: list[Principal],
) -> None:
    ann, bob, cid, *_ = people
    call, [one, two] = await everybody(nodes, group, ann, bob)
    await nodes[0].room.calls.join(cid, call.call_id)
    three, handling = Device(cid), trio.CancelScope()

    async def attend() -> None:
        asked = Call("request", "127.0.0.1", float("inf"), cid, query=SignalingQuery(call.call_id))
        with handling:
            await serve(nodes[0].room, asked, three)

    held.gate = trio.Event()
    nursery.start_soon(attend)
    three.tell("join", instance_id="page-1")

    async def is_there() -> bool:
        return cid.user_id in await peers_of(nodes[1], call)

    await until(is_there)
    for _ in range(2):
        await nodes[0].room.read_once()
    assert not two.of("peer_reconnecting"), "it is about to come"
    handling.cancel()
    held.gate.set()
    for device in (one, two):
        assert (await device.wait_for("peer_reconnecting"))["user_id"] == cid.user_id

    async def is_lost() -> bool:
        return (await peers_of(nodes[1], call))[cid.user_id].lost_us is not None

    await until(is_lost)


async def test_a_call_that_waits_for_nobody_any_more_is_active(
    db: Database, held: Held, nodes: tuple[Node, Node], group: ConversationId, people: list[Principal]
) -> None:
    ann, bob, cid, *_ = people
    call, [_, two, three] = await everybody(nodes, group, ann, bob, cid)
    held.go_away()
    await db.write(renew, nodes[0].id, LONG_AGO_US)
    await two.wait_for("peer_reconnecting")
    assert (await stands(nodes[1], call)).state == "recovering"
    left = await nodes[1].room.leave(ann.user_id, call.call_id)
    assert (left.state, left.joined) == ("active", sorted([bob.user_id, cid.user_id]))
    assert (await stands(nodes[1], call)).state == "active"
    await three.wait_for("leave")


async def test_a_node_that_starts_again_waits_for_its_devices(
    db: Database,
    held: Held,
    nodes: tuple[Node, Node],
    between: MemorySignals,
    nursery: trio.Nursery,
    pair: ConversationId,
    people: list[Principal],
) -> None:
    ann, bob, *_ = people
    call, [one, two] = await everybody(nodes, pair, ann, bob)
    held.go_away()
    later = await Node.start(nursery, db, between, node_id=nodes[0].id)
    assert (await two.wait_for("peer_reconnecting"))["peer_id"] == one.peer_id
    again = await later.come_back(one, call.call_id)
    assert again.epoch == one.epoch + 1
    assert (await two.wait_for("peer_resumed"))["peer"]["peer_id"] == one.peer_id
    assert (await stands(later, call)).state == "active"


async def test_who_does_not_come_back_is_out(
    db: Database, nodes: tuple[Node, Node], group: ConversationId, people: list[Principal]
) -> None:
    ann, bob, cid, *_ = people
    call, [one, two, three] = await everybody(nodes, group, ann, bob, cid)
    one.close(Close.INTERNAL, "the network went")
    await two.wait_for("peer_reconnecting")

    async def is_noted() -> bool:
        return (await peers_of(nodes[1], call))[ann.user_id].lost_us is not None

    await until(is_noted)
    for node in nodes:
        await node.room.recovery.pass_once()
    assert not two.of("leave"), "nobody is told so before the time is over"
    given_up = value("secureconnect_calls_given_up_total")
    await make_late(db, call.call_id)
    for device in (two, three):
        assert (await device.wait_for("leave"))["peer_id"] == one.peer_id
    assert value("secureconnect_calls_given_up_total") == given_up + 1
    assert (await stands(nodes[1], call)).joined == sorted([bob.user_id, cid.user_id])
    for device in (two, three):
        device.close(Close.INTERNAL, "the network went")
    await until(lambda: not nodes[1].room.rosters.get(call.call_id).sockets)  # type: ignore[union-attr]

    async def are_out() -> bool:
        await make_late(db, call.call_id)
        return (await stands(nodes[1], call)).state == "ended"

    await until(are_out)


async def test_a_caller_who_vanishes_while_it_rings_calls_nobody(
    db: Database, node: Node, pair: ConversationId, people: list[Principal]
) -> None:
    ann, bob, *_ = people
    call = await node.call(ann, pair)
    (await node.attach(ann, call.call_id)).close(Close.INTERNAL, "the network went")

    async def has_failed() -> bool:
        await make_late(db, call.call_id)
        return (await stands(node, call)).state == "failed"

    await until(has_failed)
    await until(lambda: node.heard(bob) == ["call_incoming", "call_missed"])


async def test_nobody_is_out_before_the_database_has_answered_for_a_lease(
    db: Database,
    between: MemorySignals,
    nursery: trio.Nursery,
    held: Held,
    pair: ConversationId,
    people: list[Principal],
) -> None:
    ann, bob, *_ = people
    node = await Node.start(nursery, held, between, lease_s=0.3)
    call = await node.call(ann, pair)
    await node.room.calls.join(bob, call.call_id)
    await node.attach(ann, call.call_id)
    await until(lambda: node.room.recovery.may_reap)
    held.go_away()
    await make_late(db, call.call_id)  # Bob has never come
    with pytest.raises(Unavailable):
        await node.room.recovery.pass_once()
    held.come_back()
    back_at = trio.current_time()
    await until_state(node, call, "ended")
    assert trio.current_time() - back_at >= 0.3


async def test_whatever_finds_the_database_away_nobody_is_out_for_it(
    held: Held, nodes: tuple[Node, Node]
) -> None:
    recovery = nodes[0].room.recovery
    await until(lambda: recovery.may_reap)
    held.go_away()
    await until(lambda: not recovery.may_reap)
    held.come_back()
    await until(lambda: recovery.may_reap)


async def test_who_has_no_device_in_it_holds_no_place(
    db: Database, nodes: tuple[Node, Node], group: ConversationId, people: list[Principal]
) -> None:
    ann, bob, cid, *_ = people
    call, [one, two] = await everybody(nodes, group, ann, bob)
    await nodes[1].room.calls.join(cid, call.call_id)
    await make_late(db, call.call_id)

    async def is_out() -> bool:
        return cid.user_id not in (await stands(nodes[0], call)).joined

    await until(is_out)
    assert (await stands(nodes[0], call)).state == "active"
    assert not one.of("leave", "peer_reconnecting") + two.of("leave", "peer_reconnecting")


async def test_who_is_not_in_the_conversation_is_not_in_its_call(
    db: Database, nodes: tuple[Node, Node], group: ConversationId, people: list[Principal]
) -> None:
    ann, bob, cid, *_ = people
    _, [one, two, three] = await everybody(nodes, group, ann, bob, cid)

    async def remove(tx: Tx) -> None:
        await tx.run("DELETE FROM members WHERE user_id = $1", cid.user_id)

    await db.write(remove)
    for device in (one, two):
        assert (await device.wait_for("leave"))["peer_id"] == three.peer_id
    assert await three.wait_closed() == Close.NORMAL

    async def dissolve(tx: Tx) -> None:
        await tx.run("DELETE FROM members WHERE conversation_id = $1", group)

    await db.write(dissolve)
    for device in (one, two):
        assert await device.wait_closed() == Close.NORMAL


async def test_who_is_put_out_of_the_conversation_rings_no_more(
    db: Database, node: Node, group: ConversationId, people: list[Principal]
) -> None:
    ann, bob, cid, *_ = people
    call = await node.call(ann, group, bob, cid)

    async def remove(tx: Tx) -> None:
        await tx.run("DELETE FROM members WHERE user_id = $1", bob.user_id)

    await db.write(remove)
    await until(lambda: node.heard(bob) == ["call_incoming", "call_missed"])
    assert (await stands(node, call)).ringing == [cid.user_id]


async def test_who_is_signed_out_is_out_at_once(
    nodes: tuple[Node, Node], group: ConversationId, people: list[Principal]
) -> None:
    ann, bob, cid, *_ = people
    call, [one, two, three] = await everybody(nodes, group, ann, bob, cid)
    nodes[1].ended.add(cid.user_id)
    three.close(Close.UNAUTHENTICATED, "the session has ended")
    for device in (one, two):
        assert (await device.wait_for("leave"))["peer_id"] == three.peer_id
        assert not device.of("peer_reconnecting")

    async def is_out() -> bool:
        return (await stands(nodes[0], call)).joined == sorted([ann.user_id, bob.user_id])

    await until(is_out)


async def test_while_the_database_is_away_a_call_goes_on(
    db: Database,
    between: MemorySignals,
    nursery: trio.Nursery,
    group: ConversationId,
    people: list[Principal],
) -> None:
    ann, bob, cid, dee, _ = people
    away = [Interrupted(db), Interrupted(db)]
    nodes = (await Node.start(nursery, away[0], between), await Node.start(nursery, away[1], between))
    call, [one, two, three, four] = await everybody(nodes, group, ann, bob, cid, dee)
    for each in away:
        each.go_away()
    one.tell("mute_audio", muted=True)
    two.tell("offer", target_id=one.peer_id, sdp="v=0")
    await two.wait_for("mute_audio")
    await one.wait_for("offer")
    one.close(Close.INTERNAL, "the network went")
    two.close(Close.INTERNAL, "the network went")
    assert {(await three.wait_for("peer_reconnecting", number))["peer_id"] for number in (1, 2)} == {
        one.peer_id,
        two.peer_id,
    }
    one_again = await nodes[0].come_back(one, call.call_id)
    two_again = await nodes[0].come_back(two, call.call_id)  # on the other node, which knows of it
    assert (one_again.peer_id, two_again.peer_id) == (one.peer_id, two.peer_id)
    await three.wait_for("peer_resumed", 2)
    two_again.tell("offer", target_id=three.peer_id, sdp="v=1")
    assert (await three.wait_for("offer"))["sdp"] == "v=1"
    with pytest.raises(Unavailable):
        await nodes[0].dial(people[4], call.call_id)
    four.tell("leave")
    for device in (three, one_again, two_again):
        assert (await device.wait_for("leave"))["peer_id"] == four.peer_id
    for each in away:
        tried = each.refused
        await until(lambda a=each, t=tried: a.refused >= t + 2)  # type: ignore[misc]
        each.come_back()

    async def is_written() -> bool:
        peers = await peers_of(nodes[1], call)
        rows = {each: peers.get(each.user_id) for each in (ann, bob, cid)}
        return dee.user_id not in peers and all(
            row is not None and row.lost_us is None and row.node_id == node.id
            for row, node in zip(rows.values(), (nodes[0], nodes[0], nodes[1]), strict=True)
        )

    await until(is_written)
    assert (await peers_of(nodes[1], call))[ann.user_id].audio is False
    await nodes[0].come_back(two_again, call.call_id)  # by the token of meanwhile
    assert {each["peer_id"] for each in three.of("leave")} == {four.peer_id}


async def test_what_is_said_while_a_device_comes_is_not_missed(
    held: Held, nodes: tuple[Node, Node], group: ConversationId, people: list[Principal]
) -> None:
    ann, bob, cid, *_ = people
    call, [_, two] = await everybody(nodes, group, ann, bob)
    await nodes[1].room.calls.join(cid, call.call_id)
    held.gate = trio.Event()
    one = await nodes[0].dial(ann, call.call_id)
    one.tell("join", instance_id="page-2")

    async def is_there() -> bool:
        return (await peers_of(nodes[1], call))[ann.user_id].instance_id == "page-2"

    await until(is_there)
    three = await nodes[1].attach(cid, call.call_id)
    mine = (await peers_of(nodes[1], call))[ann.user_id].peer_id
    three.tell("offer", target_id=mine, sdp="v=0", ref=1)
    await three.wait_for("ack")
    held.gate.set()
    assert {each["peer_id"] for each in (await one.wait_for("peers"))["peers"]} == {mine, two.peer_id}
    assert (await one.wait_for("join"))["peer"]["peer_id"] == three.peer_id
    assert (await one.wait_for("offer"))["sender_id"] == three.peer_id


async def test_a_page_that_is_loaded_anew_is_another_instance(
    nodes: tuple[Node, Node], pair: ConversationId, people: list[Principal]
) -> None:
    ann, bob, *_ = people
    call, [one, two] = await everybody(nodes, pair, ann, bob)
    one.tell("screen_share_started")
    await two.wait_for("screen_share_started")
    again = await nodes[0].come_back(one, call.call_id, "page-2")
    told = await two.wait_for("peer_resumed")
    assert (told["peer"]["peer_id"], told["peer"]["instance_id"]) == (one.peer_id, "page-2")
    assert (told["is_new_instance"], told["peer"]["screen"]) == (True, False)
    same = await nodes[1].attach(ann, call.call_id, "page-2")  # its token was lost on the way
    assert same.peer_id == one.peer_id
    assert (await two.wait_for("peer_resumed", 2))["is_new_instance"] is False
    assert await again.wait_closed() == Close.NORMAL
    other = await nodes[0].attach(ann, call.call_id, "page-3")
    assert (await two.wait_for("leave"))["peer_id"] == one.peer_id
    assert (await two.wait_for("join"))["peer"]["peer_id"] == other.peer_id


async def test_another_page_of_the_same_device_is_another_peer(
    nodes: tuple[Node, Node], group: ConversationId, people: list[Principal]
) -> None:
    ann, bob, cid, *_ = people
    call, [one, *others] = await everybody(nodes, group, ann, bob, cid)
    for number in (1, 2):  # first of another node's device, then of this one's own
        left, one = one, await nodes[1].attach(ann, call.call_id, f"tab-{number}")
        assert await left.wait_closed() == Close.NORMAL
        for device in others:
            assert (await device.wait_for("leave", number))["peer_id"] == left.peer_id
            assert device.of("join")[-1]["peer"]["peer_id"] == one.peer_id


async def test_words_that_were_missed_are_read(
    db: Database, nodes: tuple[Node, Node], pair: ConversationId, people: list[Principal]
) -> None:
    """Of a node that is told nothing: it looks into the table."""
    ann, bob, *_ = people
    call, [one, _] = await everybody(nodes, pair, ann, bob)

    async def end(tx: Tx) -> None:
        await tx.run("DELETE FROM call_peers WHERE call_id = $1", call.call_id)

    await db.write(end)
    assert await one.wait_closed() == Close.NORMAL
    assert CONFIG.roster_s < 1


async def test_who_went_without_a_word_has_left_all_the_same(
    db: Database, nodes: tuple[Node, Node], group: ConversationId, people: list[Principal]
) -> None:
    ann, bob, cid, *_ = people
    _, [one, two, three] = await everybody(nodes, group, ann, bob, cid)

    async def drop(tx: Tx) -> None:
        await tx.run("DELETE FROM call_peers WHERE peer_id = $1", one.peer_id)

    await db.write(drop)
    assert await one.wait_closed() == Close.NORMAL
    for device in (two, three):
        assert (await device.wait_for("leave"))["peer_id"] == one.peer_id
        assert device.code is None


async def test_who_has_connected_to_a_node_that_is_not_heard_has_one_socket(
    db: Database, nursery: trio.Nursery, pair: ConversationId, people: list[Principal]
) -> None:
    ann, bob, *_ = people
    nodes = await Node.start(nursery, db, signals()), await Node.start(nursery, db, signals())
    call = await nodes[0].call(ann, pair)
    await nodes[0].room.calls.join(bob, call.call_id)
    one, two = [await nodes[0].attach(each, call.call_id) for each in (ann, bob)]
    again = await nodes[1].come_back(one, call.call_id)
    assert await one.wait_closed() == Close.NORMAL
    assert (two.code, again.code) == (None, None)
    assert (await peers_of(nodes[1], call))[ann.user_id].lost_us is None


async def test_a_node_whose_devices_are_not_written_yet_has_them_in_the_call(
    db: Database,
    between: MemorySignals,
    nursery: trio.Nursery,
    group: ConversationId,
    people: list[Principal],
) -> None:
    ann, bob, cid, *_ = people
    shut = Shut(db)
    nodes = (await Node.start(nursery, shut, between), await Node.start(nursery, db, between))
    call, [one, two, three] = await everybody(nodes, group, ann, bob, cid)
    shut.go_away()
    two_again = await nodes[0].come_back(two, call.call_id)
    await nodes[1].come_back(one, call.call_id)
    assert await one.wait_closed() == Close.NORMAL
    await nodes[0].room.read_once()  # nothing in the table is of this node
    two_again.tell("offer", target_id=three.peer_id, sdp="v=0")
    await three.wait_for("offer")
    shut.gate = trio.Event()
    nursery.start_soon(nodes[0].room.read_once)
    await until(lambda: shut.looks > 0)
    shut.come_back()

    async def is_written() -> bool:
        return (await peers_of(nodes[1], call))[bob.user_id].node_id == nodes[0].id

    await until(is_written)
    shut.gate.set()
    await nodes[0].room.read_once()
    assert two_again.code is None
    assert not two_again.of("leave") + three.of("leave")
