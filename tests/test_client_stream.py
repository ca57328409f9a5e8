"""The client's stream against a server that follows a script: every way a connection can end."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
import trio_websocket

from kit.people import next_event
from secureconnect.client import ApiError, Client, ConnectionLost, Credentials, Stream, StreamEnded
from secureconnect.client.wire import connect

Socket = trio_websocket.WebSocketConnection
Script = Callable[["Peer"], Awaitable[None]]

ME = Credentials("me", "me", "token", "refresh", 2e10, 2e10, "session", "device")
HELLO = {"type": "hello", "session_id": "s", "history_id": "h1", "server_time": "", "heartbeat_s": 25}


class Peer:
    """The server's end of one connection."""

    def __init__(self, socket: Socket) -> None:
        self.socket = socket

    async def say(self, *frames: dict[str, Any]) -> None:
        for frame in frames:
            await self.socket.send_message(json.dumps(frame))

    async def hear(self, kind: str) -> dict[str, Any]:
        frame: dict[str, Any] = json.loads(await self.socket.get_message())
        assert frame["type"] == kind, frame
        return frame

    async def greet(self, **heads: int) -> dict[str, Any]:
        """hello, resume, resumed. Returns the resume frame."""
        await self.say(HELLO)
        resume = await self.hear("resume")
        await self.say(
            {"type": "resumed", "conversations": {key: {"change": at} for key, at in heads.items()}}
        )
        return resume

    async def end(self, code: int, reason: str = "") -> None:
        await self.socket.aclose(code, reason)

    async def rest(self) -> None:
        """Until the client goes."""
        with pytest.raises(trio_websocket.ConnectionClosed):
            await self.socket.get_message()


@asynccontextmanager
async def following(*scripts: Script) -> AsyncIterator[Stream]:
    """A stream against a server that plays one script a connection. Each script must be played to its end."""
    waiting = list(scripts)
    played = 0

    async def serve(request: trio_websocket.WebSocketRequest) -> None:
        nonlocal played
        if not waiting:
            await request.reject(403, body=b"{}")
            return
        script = waiting.pop(0)
        await script(Peer(await request.accept()))
        played += 1

    async with trio.open_nursery() as nursery:
        server = await nursery.start(trio_websocket.serve_websocket, serve, "127.0.0.1", 0, None)
        client = Client(f"http://127.0.0.1:{server.port}", ME)
        with trio.fail_after(10):
            async with client, client.stream(outbox=3) as stream:
                yield stream
            while played < len(scripts):
                await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


def chat(change: int) -> dict[str, Any]:
    return {
        "type": "chat",
        "conversation_id": "c",
        "sender_id": "ann",
        "client_message_id": f"m{change}",
        "change": change,
        "seq": change,
    }


def ack(frame: dict[str, Any]) -> dict[str, Any]:
    key = frame["client_message_id"]
    return {"type": "ack", "ref": frame["ref"], "client_message_id": key, "status": "stored", "seq": 1}


async def test_resumes_where_it_was_and_drops_what_it_holds() -> None:
    async def first(peer: Peer) -> None:
        assert (await peer.greet())["conversations"] == {}
        await peer.say(chat(1), chat(2))
        await peer.end(1012)

    async def second(peer: Peer) -> None:
        await peer.say(HELLO)
        assert (await peer.hear("resume"))["conversations"] == {"c": 2}
        await peer.say(chat(2), chat(3), {"type": "resumed", "conversations": {"c": {"change": 3}}})
        await peer.say(chat(3), chat(4))
        await peer.rest()

    async with following(first, second) as stream:
        seen = [(await next_event(stream, "chat"))["change"] for _ in range(4)]
    assert seen == [1, 2, 3, 4]


async def test_sends_the_unacknowledged_again_in_order_before_anything_new() -> None:
    heard: list[str] = []

    async def first(peer: Peer) -> None:
        await peer.greet()
        await peer.say(ack(await peer.hear("chat")))
        await peer.hear("chat")
        await peer.end(1013)

    async def second(peer: Peer) -> None:
        await peer.greet()
        for _ in range(3):
            frame = await peer.hear("chat")
            heard.append(frame["content"])
            await peer.say(ack(frame))
        await peer.rest()

    async with following(first, second) as stream:
        one, two, three = (stream.post("c", text) for text in ("one", "two", "three"))
        await stream.stored(one)
        await next_event(stream, "offline")
        four = stream.post("c", "four")
        for entry in (two, three, four):
            assert (await stream.stored(entry))["status"] == "stored"
        await stream.drained()
    assert heard == ["two", "three", "four"]


def provisional(key: str, sender: str) -> dict[str, Any]:
    return {
        "type": "chat",
        "conversation_id": "c",
        "sender_id": sender,
        "client_message_id": key,
        "message_id": f"id-{key}",
        "change": None,
        "seq": None,
        "provisional": True,
    }


async def test_accepted_messages_are_kept_sent_again_first_and_settled_by_what_becomes_of_them() -> None:
    heard: list[str] = []
    cut = trio.Event()

    async def first(peer: Peer) -> None:
        await peer.greet()
        for _ in range(2):
            frame = await peer.hear("chat")
            await peer.say(ack(frame) | {"status": "accepted", "seq": None})
            await peer.say(provisional(frame["client_message_id"], "me"))
        await peer.say(provisional("ann-1", "ann"))
        await cut.wait()
        await peer.end(1012)

    async def second(peer: Peer) -> None:
        await peer.greet()
        for _ in range(3):
            heard.append((await peer.hear("chat"))["content"])
        common = {"conversation_id": "c"}
        await peer.say(
            {"type": "stored", "client_message_id": "one", "seq": 5, **common},
            {"type": "rejected", "client_message_id": "two", "code": "FORBIDDEN", "message": "No.", **common},
            {"type": "message_withdrawn", "message_id": "id-two", **common},
            {"type": "stored", "client_message_id": "three", "seq": 6, **common},
        )
        await peer.rest()

    async with following(first, second) as stream:
        one, two = (stream.post("c", text, client_message_id=text) for text in ("one", "two"))
        await next_event(stream, "chat", message_id="id-ann-1")
        assert (one.answer, two.answer) == (None, None)
        cut.set()
        await next_event(stream, "offline")
        three = stream.post("c", "three", client_message_id="three")
        await next_event(stream, "message_withdrawn", message_id="id-ann-1")
        assert (await stream.stored(one))["seq"] == 5
        with pytest.raises(ApiError) as refusal:
            await stream.stored(two)
        assert refusal.value.code == "FORBIDDEN"
        assert (await stream.stored(three))["seq"] == 6
        await next_event(stream, "message_withdrawn", message_id="id-two")
    assert heard == ["one", "two", "three"]


async def test_a_full_outbox_makes_send_wait() -> None:
    go = trio.Event()

    async def script(peer: Peer) -> None:
        await peer.greet()
        await go.wait()
        for _ in range(4):
            await peer.say(ack(await peer.hear("chat")))
        await peer.rest()

    async with following(script) as stream, trio.open_nursery() as nursery:
        await next_event(stream, "online")
        for number in range(4):
            nursery.start_soon(stream.send, "c", str(number))
        await trio.testing.wait_all_tasks_blocked()
        go.set()


async def test_a_refusal_reaches_the_sender() -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        frame = await peer.hear("chat")
        await peer.say({"type": "error", "ref": frame["ref"], "code": "FORBIDDEN", "message": "No."})
        await peer.rest()

    async with following(script) as stream:
        with pytest.raises(ApiError) as refusal:
            await stream.send("c", "hello")
    assert (refusal.value.status, refusal.value.code) == (403, "FORBIDDEN")


async def test_a_question_without_an_answer_is_lost_with_its_connection() -> None:
    async def first(peer: Peer) -> None:
        await peer.greet()
        await peer.hear("edit")
        await peer.end(1012)

    async def second(peer: Peer) -> None:
        await peer.greet()
        frame = await peer.hear("edit")
        await peer.say({"type": "ack", "ref": frame["ref"]})
        await peer.rest()

    async with following(first, second) as stream:
        await next_event(stream, "online")
        with pytest.raises(ConnectionLost):
            await stream.edit("m", "x")
        await next_event(stream, "online")
        await stream.edit("m", "x")


async def test_a_question_waits_through_attempts_that_fail() -> None:
    async def first(peer: Peer) -> None:
        await peer.end(1012)

    async def second(peer: Peer) -> None:
        await peer.greet()
        frame = await peer.hear("edit")
        await peer.say({"type": "ack", "ref": frame["ref"]})
        await peer.rest()

    async with following(first, second) as stream:
        await stream.edit("m", "x")


async def test_comes_back_when_it_is_told_to() -> None:
    async def first(peer: Peer) -> None:
        await peer.greet()
        await peer.say({"type": "going_away", "reconnect_after_ms": 20})
        await peer.end(1012)

    async def second(peer: Peer) -> None:
        await peer.greet()
        await peer.rest()

    async with following(first, second) as stream:
        assert (await next_event(stream, "offline"))["retry_in_s"] == 0.02
        await next_event(stream, "online")


@pytest.mark.parametrize("code", [1009, 4400, 4403, 4404])
async def test_stays_away_when_coming_back_is_no_use(code: int) -> None:
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.end(code, "no")

    async with following(script) as stream:
        waiting = stream.post("c", "never stored")
        with pytest.raises(StreamEnded) as ended:
            await next_event(stream, "nothing")
        assert (ended.value.code, ended.value.reason) == (code, "no")
        with pytest.raises(StreamEnded):
            await stream.stored(waiting)
        with pytest.raises(StreamEnded):
            stream.post("c", "too late")


async def test_a_refused_handshake_ends_the_stream() -> None:
    async with following() as stream:
        with pytest.raises(StreamEnded) as ended:
            await next_event(stream, "nothing")
    assert ended.value.code == 403


async def test_a_connection_cut_in_the_middle_of_the_handshake_is_tried_again_at_once() -> None:
    connections = 0

    async def hang_up(stream: trio.SocketStream) -> None:
        nonlocal connections
        connections += 1
        await stream.receive_some()

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, hang_up, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        with trio.fail_after(5):
            async with Client(f"http://127.0.0.1:{port}", ME) as client, client.stream() as stream:
                while connections < 3:
                    await next_event(stream, "offline")
        nursery.cancel_scope.cancel()


async def test_what_the_block_raises_comes_out_bare() -> None:
    async def follow_and_fail() -> None:
        async with Client("http://127.0.0.1:1", ME) as client, client.stream() as stream:
            await next_event(stream, "offline")
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await follow_and_fail()


async def test_a_group_of_errors_of_the_block_comes_out_of_the_connection() -> None:
    """It is none of the reader's, which are passed over at the end."""

    async def serve(request: trio_websocket.WebSocketRequest) -> None:
        await Peer(await request.accept()).rest()

    async with trio.open_nursery() as nursery:
        server = await nursery.start(trio_websocket.serve_websocket, serve, "127.0.0.1", 0, None)
        with pytest.RaisesGroup(KeyError):
            async with connect(f"ws://127.0.0.1:{server.port}/", []):
                raise ExceptionGroup("of a nursery", [KeyError("x")])
        nursery.cancel_scope.cancel()
