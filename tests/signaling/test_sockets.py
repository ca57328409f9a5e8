"""What devices in a call say to each other, on one node and on two."""

from __future__ import annotations

import pytest
import trio

from kit.wait import until
from secureconnect.deps.contracts import Database
from secureconnect.deps.memory import MemorySignals
from secureconnect.edge import Close
from secureconnect.errors import CallNotJoined, NotFound, Overloaded
from secureconnect.identity import ConversationId, Principal

from .rig import Device, Json, Node


@pytest.fixture(params=["one node", "two nodes"])
async def nodes(
    request: pytest.FixtureRequest, db: Database, between: MemorySignals, node: Node, nursery: trio.Nursery
) -> tuple[Node, Node]:
    if request.param == "one node":
        return node, node
    return node, await Node.start(nursery, db, between)


async def in_call(
    nodes: tuple[Node, Node], where: ConversationId, ann: Principal, bob: Principal
) -> tuple[str, Device, Device]:
    """Both connected, each on a node, and each knows of the other."""
    here, there = nodes
    call = await here.call(ann, where)
    await there.room.calls.join(bob, call.call_id)
    one = await here.attach(ann, call.call_id)
    other = await there.attach(bob, call.call_id)
    await one.wait_for("join")
    return call.call_id, one, other


def content(frame: Json) -> Json:
    return {
        key: value for key, value in frame.items() if key not in ("type", "sender_id", "user_id", "epoch")
    }


async def test_frames_reach_whom_they_are_for(
    nodes: tuple[Node, Node], pair: ConversationId, people: list[Principal]
) -> None:
    ann, bob, *_ = people
    _, one, other = await in_call(nodes, pair, ann, bob)
    assert {peer["peer_id"] for peer in (await other.wait_for("peers"))["peers"]} == {
        one.peer_id,
        other.peer_id,
    }
    sealed = {"ciphertext": {"body": "AAA", "type": 0}, "n": [1, 2.5, None]}
    one.tell("offer", target_id=other.peer_id, epoch=one.epoch, ref="r1", sdp="v=0", sealed=sealed)
    offer = await other.wait_for("offer")
    assert (offer["sender_id"], offer["user_id"]) == (one.peer_id, ann.user_id)
    assert content(offer) == {"sdp": "v=0", "sealed": sealed}
    assert (await one.wait_for("ack"))["ref"] == "r1"
    other.tell("answer", target_id=ann.user_id, sdp="v=0", sender_id="somebody else")
    answer = await one.wait_for("answer")
    assert (answer["sender_id"], content(answer)) == (other.peer_id, {"sdp": "v=0"})
    for number in range(50):
        one.tell("ice_candidate", target_id=other.peer_id, candidate={"number": number})
    await other.wait_for("ice_candidate", 50)
    assert [each["candidate"]["number"] for each in other.of("ice_candidate")] == list(range(50))


async def test_what_a_device_says_of_its_media_is_kept(
    nodes: tuple[Node, Node], pair: ConversationId, people: list[Principal]
) -> None:
    ann, bob, *_ = people
    call_id, one, other = await in_call(nodes, pair, ann, bob)
    one.tell("mute_audio", muted=True)
    one.tell("screen_share_started", stream_id="s1")
    assert (await other.wait_for("screen_share_started"))["stream_id"] == "s1"

    async def is_stored() -> bool:
        peers = await nodes[0].room.peers.of(call_id)  # type: ignore[arg-type]
        return any((each.audio, each.screen) == (False, True) for each in peers)

    await until(is_stored)
    again = await nodes[1].attach(bob, call_id)  # type: ignore[arg-type]
    shown = {each["peer_id"]: each for each in (await again.wait_for("peers"))["peers"]}
    assert (shown[one.peer_id]["audio"], shown[one.peer_id]["screen"]) == (False, True)
    assert await other.wait_closed() == Close.NORMAL


async def test_a_device_that_loses_its_socket_comes_back(
    nodes: tuple[Node, Node], pair: ConversationId, people: list[Principal]
) -> None:
    ann, bob, *_ = people
    call_id, one, other = await in_call(nodes, pair, ann, bob)
    other.close(Close.INTERNAL, "the network went")
    assert (await one.wait_for("peer_reconnecting"))["peer_id"] == other.peer_id
    again = await nodes[0].come_back(other, call_id)  # type: ignore[arg-type]
    assert again.peer_id == other.peer_id
    assert again.resume_token != other.resume_token
    assert (await one.wait_for("peer_resumed"))["peer"]["peer_id"] == other.peer_id
    one.tell("offer", target_id=other.peer_id, sdp="v=0")
    await again.wait_for("offer")
    late = await nodes[0].dial(bob, call_id)  # type: ignore[arg-type]
    late.tell("resume", instance_id="page-1", resume_token=other.resume_token)  # it was good once
    assert (await late.wait_for("error"))["code"] == "INVALID_TOKEN"
    assert await late.wait_closed() == Close.FORBIDDEN


async def test_leaving_is_told_and_the_call_ends(
    nodes: tuple[Node, Node], group: ConversationId, people: list[Principal]
) -> None:
    ann, bob, cid, *_ = people
    here, there = nodes
    call = await here.call(ann, group, bob, cid)
    devices = [await here.attach(ann, call.call_id)]
    for person in (bob, cid):
        await there.room.calls.join(person, call.call_id)
        devices.append(await there.attach(person, call.call_id))
    one, two, three = devices
    two.tell("leave", ref=1)
    assert (await two.wait_for("ack"))["ref"] == 1
    for device in (one, three):
        assert (await device.wait_for("leave"))["peer_id"] == two.peer_id
    assert await two.wait_closed() == Close.NORMAL
    await there.room.calls.end(ann, call.call_id)
    for device in (one, three):
        assert (await device.wait_for("call_ended"))["call"]["status"] == "ended"
        assert await device.wait_closed() == Close.NORMAL
    assert not any(device.of("peer_reconnecting") for device in devices)


async def test_what_a_device_says_after_it_has_left_is_void(
    node: Node, group: ConversationId, people: list[Principal]
) -> None:
    ann, bob, cid, *_ = people
    call = await node.call(ann, group, bob, cid)
    devices = [await node.attach(ann, call.call_id)]
    for person in (bob, cid):
        await node.room.calls.join(person, call.call_id)
        devices.append(await node.attach(person, call.call_id))
    one, two, three = devices
    two.tell("leave", ref=1)
    two.tell("mute_audio", ref=2)
    two.tell("offer", target_id=one.peer_id, sdp="v=0", ref=3)
    assert await two.wait_closed() == Close.NORMAL
    one.tell("mute_video", ref=1)
    await three.wait_for("mute_video")
    assert [each["ref"] for each in two.of("ack")] == [1]
    assert not one.of("mute_audio", "offer") + three.of("mute_audio")


async def test_who_has_left_is_not_brought_back_by_what_is_heard_late(
    nodes: tuple[Node, Node], group: ConversationId, people: list[Principal]
) -> None:
    ann, bob, cid, *_ = people
    here, there = nodes
    call = await here.call(ann, group, bob, cid)
    devices = [await here.attach(ann, call.call_id)]
    for person in (bob, cid):
        await there.room.calls.join(person, call.call_id)
        devices.append(await there.attach(person, call.call_id))
    one, two, three = devices
    mine = next(each for each in await here.room.peers.of(call.call_id) if each.peer_id == two.peer_id)
    two.tell("leave")
    await one.wait_for("leave")
    there.room.shown(mine, mine, b'{"type":"mute_audio"}')
    three.tell("mute_video")
    await one.wait_for("mute_video")
    for node in nodes:
        roster = node.room.rosters.get(call.call_id)
        assert roster is not None
        assert roster.find(two.peer_id) is None
    assert not one.of("mute_audio") + three.of("mute_audio")


async def test_who_may_connect(node: Node, group: ConversationId, people: list[Principal]) -> None:
    ann, bob, cid, *_ = people
    call = await node.call(ann, group, bob)
    with pytest.raises(CallNotJoined):
        await node.dial(bob, call.call_id)
    with pytest.raises(CallNotJoined):
        await node.dial(cid, call.call_id)
    await node.room.calls.leave(ann.user_id, call.call_id)
    with pytest.raises(NotFound):
        await node.dial(bob, bob.session_id)  # type: ignore[arg-type]


async def test_there_are_so_many_sockets_and_no_more(
    node: Node, group: ConversationId, people: list[Principal]
) -> None:
    ann, *_ = people
    call = await node.call(ann, group, people[1])
    node.room.sockets = node.room.config.sockets
    with pytest.raises(Overloaded):
        await node.dial(ann, call.call_id)


async def test_frames_that_are_none(node: Node, pair: ConversationId, people: list[Principal]) -> None:
    ann, bob, *_ = people
    _, one, other = await in_call((node, node), pair, ann, bob)
    one.tell("offer", ref=1, target_id="nobody", sdp="")
    one.tell("offer", ref=2, sdp="")
    one.tell("dance", ref=3)
    one.tell("offer", ref=4, target_id=7)
    one.tell("offer", ref=5, target_id=other.peer_id, epoch=one.epoch - 1)
    await one.wait_for("ack")
    assert [(each.get("ref"), each["code"]) for each in one.of("error")] == [
        (1, "NOT_FOUND"),
        (2, "NOT_FOUND"),
        (3, "VALIDATION"),
        (4, "VALIDATION"),
    ]
    assert other.of("offer") == []
    one.tell_raw(b"{")
    assert await one.wait_closed() == Close.BAD_FRAME
