"""What devices may say, how much of it, and what the others get of it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from kit.databases import on_sqlite
from secureconnect.config import SignalingConfig
from secureconnect.edge import Close
from secureconnect.errors import Malformed
from secureconnect.identity import ConversationId, Principal
from secureconnect.signaling import frames

from .rig import Device, Node

OURS = {"sender_id", "user_id", "epoch"}
CONFIG = SignalingConfig()
DEEP = 300  # levels that pass; some hundred more, and it is no frame

fields_of = msgspec.json.Decoder(dict[str, Raw])


def values_in(data: bytes) -> dict[str, bytes]:
    return {name: bytes(value) for name, value in fields_of.decode(data).items()}


async def in_call(node: Node, group: ConversationId, people: list[Principal]) -> list[Device]:
    """Three of them, who know of each other."""
    first, *others = people[:3]
    call = await node.call(first, group, *others)
    devices = [await node.attach(first, call.call_id)]
    for person in others:
        await node.room.calls.join(person, call.call_id)
        devices.append(await node.attach(person, call.call_id))
    await devices[0].wait_for("join", 2)
    return devices


@pytest.mark.parametrize(
    "value",
    [
        "9007199254740993",
        "123456789012345678901234567890.12345678901234567890e-7",
        r'"\u00e9\/\ud83d\ude00 é 😀"',
        '{"a":1,"a":2, "a" : 3}',
        "[" * DEEP + "]" * DEEP,
        '"' + "A" * 60_000 + '"',
        "[1,  2 ,\t3]",
    ],
    ids=["integer", "number", "unicode", "names twice", "deep", "60 kB", "spaces"],
)
@on_sqlite
async def test_what_is_sealed_passes_as_it_is(
    node: Node, group: ConversationId, people: list[Principal], value: str
) -> None:
    one, other, _ = await in_call(node, group, people)
    one.tell_raw(f'{{"type":"offer","target_id":"{other.peer_id}","sealed":{value}}}'.encode())
    await other.wait_for("offer")
    assert values_in(other.raw[-1])["sealed"] == value.encode()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
names = st.sampled_from(
    ["type", "ref", "target_id", "epoch", "muted", "sender_id", "user_id", "peer_id", "peer", "instance_id"]
)
documents = st.dictionaries(names | st.text(max_size=8), json_values, max_size=8).map(json.dumps)
types = st.sampled_from(["offer", "answer", "ice_candidate", "renegotiate", "mute_audio", "join"])
likely = st.builds(
    lambda kind, rest: json.dumps(json.loads(rest) | {"type": kind}),
    types,
    documents,
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.binary(max_size=60) | st.builds(str.encode, documents) | st.builds(str.encode, likely))
def test_whatever_comes_is_a_frame_or_is_refused(data: bytes) -> None:
    """And what is passed on tells who has sent it, whatever was in it."""
    try:
        frames.decode(data)
    except (Malformed, frames.NotAFrame):
        return
    before, after = values_in(data), values_in(frames.passed_on(data, "sender", "user", 7))
    assert (after["sender_id"], after["user_id"], after["epoch"]) == (b'"sender"', b'"user"', b"7")
    for name in before.keys() - OURS - {"ref", "target_id"}:
        assert after[name] == before[name]
    assert after.keys() - OURS <= before.keys() - {"ref", "target_id"}


def test_what_is_nested_without_end_is_no_frame() -> None:
    for data in (b'{"type":"offer","x":' + b"[" * 30_000, b'{"type":"offer","x":' + b'{"a":' * 10_000):
        with pytest.raises(Malformed):
            frames.decode(data)


@on_sqlite
async def test_one_may_ask_all_to_negotiate_anew(
    node: Node, group: ConversationId, people: list[Principal]
) -> None:
    one, two, three = await in_call(node, group, people)
    one.tell("renegotiate", ref=1, why="bandwidth")
    for other in (two, three):
        frame = await other.wait_for("renegotiate")
        assert (frame["sender_id"], frame["why"]) == (one.peer_id, "bandwidth")
    two.tell("renegotiate", target_id=three.peer_id)
    await three.wait_for("renegotiate", 2)
    assert not one.of("renegotiate")
    assert len(two.of("renegotiate")) == 1


@on_sqlite
async def test_a_device_that_goes_on_and_on_is_put_out(
    node: Node, group: ConversationId, people: list[Principal]
) -> None:
    one, two, three = await in_call(node, group, people)
    for _ in range(CONFIG.frames_per_10s):
        one.tell("ice_candidate", target_id=two.peer_id)
    assert await one.wait_closed() == Close.TOO_MANY_FRAMES
    assert len(two.of("ice_candidate")) == CONFIG.frames_per_10s - 1  # its join has counted, too
    large = "A" * 50_000
    for _ in range(CONFIG.bytes_per_10s // len(large) + 1):
        three.tell("offer", target_id=two.peer_id, sealed=large)
    assert await three.wait_closed() == Close.TOO_MANY_FRAMES
    assert len(two.of("offer")) == CONFIG.bytes_per_10s // len(large)
    assert len(two.of("peer_reconnecting")) == 2  # they may come back
    assert two.code is None


@on_sqlite
async def test_a_frame_may_not_be_larger_than_nodes_can_pass_on(
    node: Node, group: ConversationId, people: list[Principal]
) -> None:
    one, two, _ = await in_call(node, group, people)
    one.tell("offer", target_id=two.peer_id, sealed="A" * CONFIG.frame_bytes)
    assert await one.wait_closed() == Close.TOO_BIG


@on_sqlite
async def test_whoever_does_not_keep_up_is_spared_by_the_others(
    node: Node, pair: ConversationId, people: list[Principal]
) -> None:
    """Whatever they send, it is not what fills an outbox; and what the server itself says gets through."""
    ann, bob, *_ = people
    call = await node.call(ann, pair)
    await node.room.calls.join(bob, call.call_id)
    one = await node.attach(ann, call.call_id)
    slow = await node.attach(bob, call.call_id, outbox=20)
    for number in range(100):
        one.tell("ice_candidate", ref=number, target_id=slow.peer_id)
        one.tell("mute_audio", ref=number, muted=bool(number % 2))
    await one.wait_for("ack", 105)
    assert len(slow.seen) == 11  # a little more than half
    assert {each["code"] for each in one.of("error")} == {"UNAVAILABLE"}
    answered = [each["ref"] for each in one.of("error", "ack")]
    assert sorted(answered) == sorted([*range(100)] * 2)
    await node.room.calls.end(ann, call.call_id)
    await slow.wait_for("call_ended")


@on_sqlite
async def test_each_frame_has_one_answer(node: Node, pair: ConversationId, people: list[Principal]) -> None:
    ann, bob, *_ = people
    call = await node.call(ann, pair)
    await node.room.calls.join(bob, call.call_id)
    one = await node.dial(ann, call.call_id)
    asked: list[dict[str, Any]] = [
        {"type": "join", "instance_id": "a"},
        {"type": "join", "instance_id": "a"},
        {"type": "offer"},
        {"type": "offer", "target_id": 1},
        {"type": "offer", "target_id": bob.user_id},
        {"type": "offer", "target_id": ann.user_id},
        {"type": "mute_video"},
        {"type": "renegotiate", "epoch": 0},
        {"type": "recording_started"},
        {"type": "call_ended"},
        {"type": "peers", "peers": []},
        {"type": "ping"},
        {"type": None},
    ]
    for ref, frame in enumerate(asked):
        one.tell_raw(msgspec.json.encode(frame | {"ref": ref}))
    await one.wait_for("error", 9)
    answers = [(each["ref"], each["type"]) for each in one.of("ack", "error", "pong")]
    assert answers == [
        (0, "ack"),
        *((ref, "error") for ref in range(1, 6)),
        (6, "ack"),
        (7, "ack"),
        (8, "error"),
        (9, "error"),
        (10, "error"),
        (11, "pong"),
        (12, "error"),
    ]


@on_sqlite
async def test_a_token_is_renewed_by_a_fresh_one_of_the_same_session(
    node: Node, group: ConversationId, people: list[Principal]
) -> None:
    one, two, _ = await in_call(node, group, people)
    fresh = msgspec.structs.replace(one.principal, expires_us=one.principal.expires_us + 1)
    node.tokens = {"fresh": fresh, "another's": two.principal}
    one.tell("auth", ref=1, token="forged")
    assert (await one.wait_for("error"))["code"] == "INVALID_TOKEN"
    one.tell("auth", ref=2, token="fresh")
    assert (await one.wait_for("ack"))["ref"] == 2
    assert one.principal == fresh
    one.tell("auth", ref=3, token="another's")
    assert await one.wait_closed() == Close.UNAUTHENTICATED
