"""What open sockets are told: at once, in order, once, and only what is theirs."""

from __future__ import annotations

import json
from math import inf

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from secureconnect.chat import Chat
from secureconnect.chat.inbound import Inbound, NotAFrame, decode
from secureconnect.chat.sockets import ChatQuery, admit_chat
from secureconnect.clock import HOUR_US, now_us
from secureconnect.config import ChatConfig
from secureconnect.deps.contracts import Database
from secureconnect.deps.memory import MemoryBus
from secureconnect.edge import Call, Close
from secureconnect.errors import InvalidToken, Malformed, NotFound, Problem
from secureconnect.identity import Principal, SessionId, UserId, new_id

from .rig import (
    Json,
    MemorySocket,
    dial,
    dialled,
    make_group,
    make_people,
    principal_of,
    resume_from,
    running,
    say,
)


def happened(socket: MemorySocket) -> list[Json]:
    """What it was told of conversations: presence is told each second, whatever happens there."""
    return [frame for frame in socket.seen[1:] if frame["type"] != "presence"]


async def test_members_hear_what_happens(nursery: trio.Nursery, room: Chat, people: list[UserId]) -> None:
    ann, bob, cid, dee = people
    where = await make_group(room, ann, bob)
    sockets = {user: await dialled(nursery, room, user) for user in (ann, bob, cid)}
    message = (await say(room, ann, where, "hello", "id-1")).message
    # whoever reads the table later finds it edited, then deleted, and is told that
    for user in (ann, bob):
        await sockets[user].wait_for("chat")
    await room.messages.edit(ann, message.message_id, "hello there")
    for user in (ann, bob):
        await sockets[user].wait_for("message_edited")
    await room.conversations.describe(ann, where, {"title": "new"})
    await room.messages.delete(ann, message.message_id)
    await room.conversations.add(ann, where, dee, "member")
    await room.conversations.set_role(ann, where, bob, "admin")
    await room.conversations.mark_read(bob, where, 1)
    for user in (ann, bob):
        await sockets[user].wait_for("read")
        told = happened(sockets[user])
        assert [frame["type"] for frame in told] == [
            "chat",
            "message_edited",
            "conversation_updated",
            "chat",
            "message_deleted",
            "user_joined",
            "chat",
            "member_updated",
            "read",
        ]
        assert [frame.get("change") for frame in told] == [2, 3, 4, 5, 6, 7, 8, 9, None]
    chat, edited, updated, _, deleted, joined, _, member, read = happened(sockets[bob])
    assert {key: chat[key] for key in ("message_id", "content", "seq", "sender_id", "client_message_id")} == {
        "message_id": message.message_id,
        "content": "hello",
        "seq": 1,
        "sender_id": ann,
        "client_message_id": "id-1",
    }
    assert (edited["content"], edited["seq"], edited["edited_at"] is not None) == ("hello there", 1, True)
    assert updated["conversation"]["title"] == "new"
    assert not {"my_role", "unread_count", "last_message", "participants"} & set(updated["conversation"])
    assert (deleted["message_id"], deleted["seq"]) == (message.message_id, 1)
    assert joined["user"] == {
        "user_id": dee,
        "username": "dee",
        "display_name": "dee",
        "avatar_url": None,
    }
    assert (member["user_id"], member["role"]) == (bob, "admin")
    assert (read["user_id"], read["seq"]) == (bob, 1)
    assert sockets[cid].seen[1:] == [], "strangers hear nothing"


async def test_joining_and_leaving_take_effect_at_once(
    nursery: trio.Nursery, room: Chat, people: list[UserId]
) -> None:
    ann, bob, cid, _ = people
    where = await make_group(room, ann, bob)
    early = (await say(room, ann, where, "before")).message
    socket = await dialled(nursery, room, cid)
    await room.conversations.add(ann, where, cid, "member")
    await socket.wait_for("user_joined")
    alone = await dialled(nursery, room, cid, only=where)
    await say(room, ann, where, "welcome")
    await alone.wait_for("chat")  # whoever reads the table later finds Cid gone
    await socket.wait_for("chat", 2)
    await room.messages.edit(ann, early.message_id, "not for Cid")
    await room.conversations.remove(ann, where, cid)
    await say(room, ann, where, "gone")
    listener = await dialled(nursery, room, bob)
    await say(room, ann, where, "really")
    await listener.wait_for("chat")
    told = [(frame["type"], frame.get("content")) for frame in socket.seen[1:]]
    assert told == [
        ("user_joined", None),
        ("chat", "Somebody was added."),
        ("chat", "welcome"),
        ("user_left", None),
    ]
    assert await alone.wait_closed() == Close.NOT_FOUND
    assert [frame["type"] for frame in alone.seen[1:]] == ["chat", "user_left"]


async def test_a_new_conversation_is_heard_of(
    nursery: trio.Nursery, room: Chat, people: list[UserId]
) -> None:
    ann, bob, *_ = people
    socket = await dialled(nursery, room, bob)
    where = await make_group(room, ann, bob)
    assert (await socket.wait_for("conversation_updated"))["conversation"]["conversation_id"] == where
    await say(room, ann, where, "first")
    assert (await socket.wait_for("chat"))["content"] == "first"
    assert socket.changes(where) == [1, 2]


async def test_a_socket_for_one_conversation(nursery: trio.Nursery, room: Chat, people: list[UserId]) -> None:
    ann, bob, cid, _ = people
    here, there = await make_group(room, ann, bob), await make_group(room, ann, bob)
    socket = await dialled(nursery, room, bob, only=here)
    both = await dialled(nursery, room, bob)
    await say(room, ann, there, "there")
    await say(room, ann, here, "here")
    await both.wait_for("chat", 2)
    assert [frame["content"] for frame in socket.of("chat")] == ["here"]
    for caller, where in ((bob, here), (bob, None)):
        await admit_chat(
            room, Call("request", "127.0.0.1", inf, principal_of(caller), query=ChatQuery(where))
        )
    with pytest.raises(NotFound) as refused:
        await admit_chat(room, Call("request", "127.0.0.1", inf, principal_of(cid), query=ChatQuery(here)))
    assert refused.value.denial == "denied:conversation"


async def test_each_frame_is_answered_once(nursery: trio.Nursery, room: Chat, people: list[UserId]) -> None:
    ann, bob, cid, _ = people
    where, secret = await make_group(room, ann, bob), await make_group(room, cid)
    message = (await say(room, bob, where, "not Ann's")).message
    denied: list[Problem] = []
    room.connect(authenticate=_refuse, deny=lambda problem, _: denied.append(problem))
    socket = await dialled(nursery, room, ann)
    socket.tell("chat", ref="1", conversation_id=where, content="one", client_message_id="id-1")
    socket.tell("chat", ref=2, conversation_id=where, content="one", client_message_id="id-1")
    socket.tell("chat", ref="3", conversation_id=secret, content="x")
    socket.tell("chat", ref="4", conversation_id=where, content="")
    socket.tell("chat", ref="5", conversation_id=where, content="x", message_type="system")
    socket.tell("edit", ref="6", message_id=message.message_id, content="x")
    socket.tell("read", ref="7", conversation_id=where, seq=1)
    socket.tell("typing", ref="8", conversation_id=secret, is_typing=True)
    socket.tell("presence", ref="9", status="busy")
    socket.tell("ping", ref="10")
    socket.tell("dance", ref="11")
    socket.tell("resume", ref="12", history_id="x", conversations={})
    socket.tell("auth", ref="13", token="forged")
    socket.tell("chat", conversation_id=where, content="no answer wanted")
    socket.tell_raw(
        b'{"type": "chat", "ref": "14", "conversation_id": "%s", "content": "\\u0000"}' % where.encode()
    )
    socket.tell("ping", ref="last")
    await socket.wait_for("pong", 2)
    await socket.wait_for("chat", 2)
    answers = {
        frame["ref"]: frame.get("code") or frame["type"] for frame in socket.of("ack", "error", "pong")
    }
    assert len(socket.of("ack", "error", "pong")) == len(answers) == 15
    assert answers == {
        "1": "ack",
        2: "ack",
        "3": "NOT_FOUND",
        "4": "VALIDATION",
        "5": "VALIDATION",
        "6": "FORBIDDEN",
        "7": "ack",
        "8": "NOT_FOUND",
        "9": "ack",
        "10": "pong",
        "11": "VALIDATION",
        "12": "CONFLICT",
        "13": "INVALID_TOKEN",
        "14": "VALIDATION",
        "last": "pong",
    }
    acks = {frame["ref"]: frame for frame in socket.of("ack")}
    assert acks["1"]["message_id"] == acks[2]["message_id"]
    assert {key: acks["1"][key] for key in ("status", "seq", "client_message_id", "conversation_id")} == {
        "status": "stored",
        "seq": 2,
        "client_message_id": "id-1",
        "conversation_id": where,
    }
    assert sorted(str(problem.denial) for problem in denied) == [
        "denied:conversation",
        "denied:conversation",
        "denied:forbidden",
    ]


async def _refuse(_: str) -> Principal:
    raise InvalidToken


async def test_messages_of_one_socket_keep_their_order(
    nursery: trio.Nursery, room: Chat, people: list[UserId]
) -> None:
    ann, *_ = people
    where = await make_group(room, ann)
    socket = await dialled(nursery, room, ann)
    for number in range(300):
        socket.tell("chat", ref=number, conversation_id=where, content=str(number))
    await socket.wait_for("ack", 300)
    await socket.wait_for("chat", 300)
    assert [frame["content"] for frame in socket.of("chat")] == [str(number) for number in range(300)]
    assert [frame["ref"] for frame in socket.of("ack")] == list(range(300))


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff", b'{"type": "ping", "x": ' + b"[" * 100_000, b'{"type": "ping"} {}']
)
async def test_what_is_no_json_ends_the_socket(
    nursery: trio.Nursery, room: Chat, people: list[UserId], data: bytes
) -> None:
    socket = await dialled(nursery, room, people[0])
    socket.tell_raw(data)
    assert await socket.wait_closed() == Close.BAD_FRAME


@pytest.mark.parametrize(
    ("data", "ref"),
    [
        (b"[]", None),
        (b'{"ref": "a"}', "a"),
        (b'{"type": 5, "ref": 7}', 7),
        (b'{"type": "read", "ref": "a", "conversation_id": "x", "seq": 1}', "a"),
        (b'{"type": "typing", "ref": {"deep": []}}', None),
        (b'{"type": "ping", "ref": "a\\u0000"}', "a\0"),
        (
            b'{"type": "chat", "ref": 1, "conversation_id": "0190a2b4-0000-7000-8000-000000000000",'
            b' "content": "x", "client_message_id": "a\\n"}',
            1,
        ),
    ],
)
def test_a_frame_that_is_none_is_answered_by_its_ref(data: bytes, ref: str | int | None) -> None:
    with pytest.raises(NotAFrame) as refused:
        decode(data)
    assert refused.value.ref == ref


_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**63, 10**40, "\0", "x" * 70, "\ud800", new_id()]),
    st.floats(),
    st.text(max_size=8),
)
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
)
_FIELDS = [
    "ref", "conversation_id", "content", "message_type", "client_message_id", "is_encrypted", "reply_to",
    "file_ids", "metadata", "message_id", "seq", "is_typing", "status", "history_id", "conversations", "more",
    "token",
]  # fmt: skip
_KINDS = ["chat", "edit", "delete", "read", "typing", "presence", "resume", "auth", "ping", "react", ""]


async def test_no_frame_breaks_the_room(nursery: trio.Nursery, room: Chat, people: list[UserId]) -> None:
    """Whatever the fields hold, the socket answers or is closed 4400, and the room goes on."""
    ann, *_ = people
    where = await make_group(room, ann)
    tried: list[bytes] = []

    @settings(max_examples=300, deadline=None, derandomize=True, database=None)
    @given(st.sampled_from(_KINDS), st.dictionaries(st.sampled_from(_FIELDS), _values, max_size=6))
    def collect(kind: str, fields: dict[str, object]) -> None:
        whole = {"conversation_id": where, "content": "x", "ref": 1} | fields | {"type": kind}
        tried.append(json.dumps(whole).encode())

    collect()
    socket = await dialled(nursery, room, ann)
    for data in tried:
        answered = len(socket.seen)
        socket.tell_raw(data)
        with trio.fail_after(5):
            while socket.code is None and len(socket.seen) == answered:
                await trio.lowlevel.checkpoint()
                if b'"ref": null' in data:
                    break
        if socket.code is not None:
            assert socket.code == Close.BAD_FRAME, data
            socket = await dialled(nursery, room, ann)
    socket.tell("ping", ref="alive")
    while (await socket.wait_for("pong", len(socket.of("pong")) + 1)).get("ref") != "alive":
        pass


def test_a_backslash_is_not_a_nul() -> None:
    frame: Inbound = decode(b'{"type": "ping", "ref": "\\\\u0000"}')
    assert frame.ref == "\\u0000"
    with pytest.raises(Malformed):
        decode(b"nonsense")
    with pytest.raises(Malformed):  # broken behind a field that is wrong, where no `ref` can be read
        decode(b'{"type": "delete", "message_id": ["\\ud800"], "ref": "0"}')


async def test_a_token_is_renewed_by_the_same_session_only(
    nursery: trio.Nursery, room: Chat, people: list[UserId]
) -> None:
    ann, bob, *_ = people
    mine = principal_of(ann)
    fresh = Principal(ann, mine.session_id, mine.device_id, "user", now_us() + 2 * HOUR_US)
    tokens = {
        "fresh": fresh,
        "other session": Principal(ann, SessionId(new_id()), mine.device_id, "user", fresh.expires_us),
        "other user": principal_of(bob),
    }

    async def authenticate(token: str) -> Principal:
        return tokens[token]

    room.connect(authenticate=authenticate)
    for token in ("other session", "other user"):
        socket = dial(nursery, room, mine)
        socket.tell("auth", ref="a", token="fresh")
        await socket.wait_for("ack")
        assert socket.principal == fresh
        socket.tell("auth", ref="b", token=token)
        assert await socket.wait_closed() == Close.UNAUTHENTICATED


async def test_a_slow_reader_is_dropped_and_loses_nothing(
    nursery: trio.Nursery, room: Chat, people: list[UserId]
) -> None:
    ann, bob, *_ = people
    where = await make_group(room, ann, bob)
    slow = await dialled(nursery, room, bob, outbox=10)
    swift = await dialled(nursery, room, ann)
    for number in range(30):
        await say(room, ann, where, str(number))
    assert await slow.wait_closed() == Close.TOO_SLOW
    await swift.wait_changes(where, 31)
    back = dial(nursery, room, bob, resume=True)
    resume_from(back, {where: slow.changes(where)[-1]})
    await say(room, ann, where, "last")
    await back.wait_changes(where, 32)
    assert slow.changes(where) + back.changes(where) == list(range(2, 33))


async def test_a_hundred_sockets_of_one_person(
    nursery: trio.Nursery, room: Chat, people: list[UserId]
) -> None:
    ann, *_ = people
    where = await make_group(room, ann)
    sockets: list[MemorySocket] = [await dialled(nursery, room, ann) for _ in range(100)]
    for number in range(5):
        await say(room, ann, where, str(number))
    for socket in sockets:
        assert await socket.wait_changes(where, 6) == [2, 3, 4, 5, 6]


async def test_closed_sockets_are_forgotten(room: Chat, people: list[UserId]) -> None:
    async with trio.open_nursery() as nursery:
        await dialled(nursery, room, people[0])
        assert room.hub.is_connected(people[0])
        nursery.cancel_scope.cancel()
    assert not room.hub.is_connected(people[0])
    assert list(room.hub.connections()) == []


async def test_the_hub_forgets_and_reads_again(db: Database, bus: MemoryBus, nursery: trio.Nursery) -> None:
    """More conversations than it may keep: nothing is lost, nothing comes out of order."""
    ann, bob = await make_people(db, "ann", "bob")
    async with running(db, bus, ChatConfig(hub_conversations=16)) as room:
        places = [await make_group(room, ann, bob) for _ in range(40)]
        socket = await dialled(nursery, room, bob)
        for _ in range(3):
            for where in places:
                await say(room, ann, where, "x")
        for where in places:
            changes = await socket.wait_changes(where, 4)
            assert [change for change in dict.fromkeys(changes) if change > 1] == [2, 3, 4]


async def test_what_the_call_says_of_a_socket_is_passed_on(
    nursery: trio.Nursery, room: Chat, people: list[UserId]
) -> None:
    calls: list[Call] = []
    room.connect(authenticate=_refuse, deny=lambda _, call: calls.append(call))
    stranger = await dialled(nursery, room, people[1])
    stranger.tell("typing", ref=1, conversation_id=await make_group(room, people[0]), is_typing=True)
    await stranger.wait_for("error")
    assert [call.request_id for call in calls] == ["request"]
