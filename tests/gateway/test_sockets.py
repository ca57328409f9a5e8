"""WebSockets: the gate before them, their messages, and every way they end."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest
import trio
import trio.testing
from structlog.testing import capture_logs
from trio_websocket import ConnectionClosed, WebSocketConnection

from kit.wait import until
from secureconnect.clock import SECOND_US, now_us
from secureconnect.config import RateLimitsConfig
from secureconnect.edge import Frame
from secureconnect.identity import SessionId
from secureconnect.metrics import REGISTRY

from .house import UPGRADE, House, Raw, narrow_stream, open_house, principal

ANN = {"authorization": "Bearer ann"}
HELLO = b"\x81\x85\0\0\0\0hello"  # a text message, masked with zeros


async def close_code(client: WebSocketConnection) -> int:
    """The code the server closes with, whatever it sends before."""
    with pytest.raises(ConnectionClosed) as closed, trio.fail_after(5):
        await _forever(client.get_message)
    assert closed.value.reason is not None
    return int(closed.value.reason.code)


async def _forever(act: Callable[[], Awaitable[object]]) -> None:
    while True:
        await act()


async def upgrade(house: House, path: str, headers: dict[str, str] | None = None, data: bytes = b"") -> Raw:
    """A WebSocket of which we see every byte, and need read none.  data: sent in one go with the request."""
    raw = await house.connect()
    await raw.request("GET", path, {**UPGRADE, **ANN, **(headers or {})}, data=data)
    return raw


@asynccontextmanager
async def never_reading(house: House, path: str) -> AsyncIterator[trio.SocketStream]:
    """A WebSocket whose client reads the upgrade and then nothing, behind the smallest buffers."""
    async with await narrow_stream(house) as stream:
        raw = Raw(stream)
        await raw.request("GET", path, {**UPGRADE, **ANN})
        assert (await raw.response()).status == 101
        yield stream


@pytest.mark.parametrize("rude", [b"\x89\x82\0\0\0\0pp", b"\x85\x80\0\0\0\0"])
async def test_nothing_is_said_after_the_close(house: House, rude: bytes) -> None:
    """Whoever is signed out hears that, whatever came meanwhile."""
    raw = await upgrade(house, "/v1/ws/deaf")
    await raw.receive_until(b"\r\n\r\n")
    await until(lambda: len(house.room.sockets) == 1)
    (socket,) = house.room.sockets
    house.gateway.close_sessions(frozenset({socket.principal.session_id}))
    socket.feed(rude)  # type: ignore[attr-defined]  # as it was on its way in that moment
    said = await raw.ended()
    assert said[:1] == b"\x88"
    assert (len(said), said[2:4]) == (2 + said[1], (4401).to_bytes(2))


async def test_nothing_of_the_handshake_is_kept(house: House) -> None:
    pongs = (b"\x8a\xfd" + bytes(4) + b"p" * 125) * 400

    async def open_one() -> None:
        raw = await upgrade(house, "/v1/ws/deaf", data=pongs)
        await raw.receive_until(b"\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()

    await open_one()  # fills what is kept for all
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(5):
            await open_one()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 5 * len(pongs) / 2


async def test_echo(house: House) -> None:
    client = await house.socket()
    for text in ("hello", "é€😀", "x" * 100_000):
        await client.send_message(text)
        assert await client.get_message() == text
    await client.aclose()
    await until(lambda: house.open_connections == 0)


# before the upgrade


async def test_three_ways_to_tell_who_is_asking(house: House) -> None:
    await house.socket(token="ann")
    await house.socket("/v1/ws/echo?ticket=ticket-ann", token=None)
    client = await house.socket(token=None, subprotocols=["secureconnect.v1", "bearer.ann"])
    assert client.subprotocol == "secureconnect.v1"
    client = await house.socket(subprotocols=["other"])
    assert client.subprotocol is None
    await until(lambda: len(house.room.sockets) == 4)
    assert {each.principal.user_id for each in house.room.sockets} == {"user-ann"}


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        ("/v1/ws/echo", {"authorization": ""}, 401, "UNAUTHENTICATED"),
        ("/v1/ws/echo", {"authorization": "Bearer eve"}, 401, "INVALID_TOKEN"),
        ("/v1/ws/echo?ticket=eve", {"authorization": ""}, 401, "INVALID_TOKEN"),
        ("/v1/ws/echo?token=ann", {"authorization": ""}, 401, "UNAUTHENTICATED"),
        ("/v1/ws/echo", {"authorization": "", "sec-websocket-protocol": "bearer.eve"}, 401, "INVALID_TOKEN"),
        ("/v1/ws/echo", {"origin": "null"}, 403, "ORIGIN_FORBIDDEN"),
        ("/v1/ws/echo", {"origin": "http://evil.example"}, 403, "ORIGIN_FORBIDDEN"),
        ("/v1/ws/nowhere", {}, 404, "NOT_FOUND"),
        ("/v1/open", {}, 404, "NOT_FOUND"),
        ("/v1/ws/members", {}, 404, "NOT_FOUND"),
        ("/v1/ws/echo?limit=x", {}, 422, "VALIDATION"),
        ("/v1/ws/echo?" + "a" * 9000, {}, 414, "URI_TOO_LONG"),
    ],
)
async def test_refused_before_the_upgrade(
    house: House, path: str, headers: dict[str, str], status: int, code: str
) -> None:
    raw = await upgrade(house, path, headers)
    async with raw.stream:
        response = await raw.response()
        assert (response.status, response.code) == (status, code)
        assert response.json["meta"]["request_id"] == response.headers["x-request-id"]
        assert response.headers["x-content-type-options"] == "nosniff"
        assert await raw.ended() == b""
    await until(lambda: house.open_connections == 0)


@pytest.mark.parametrize(
    ("version", "headers"),
    [
        ("1.0", {}),
        ("1.1", {"sec-websocket-version": "12"}),
        ("1.1", {"sec-websocket-key": ""}),
        ("1.1", {"sec-websocket-key": "short"}),
        ("1.1", {"connection": "Upgrade, \xe9"}),
        ("1.1", {"sec-websocket-protocol": "secureconnect.v1, bearer.\xe9"}),
        ("1.1", {"transfer-encoding": "chunked"}),
    ],
)
async def test_an_invalid_handshake_is_malformed(house: House, version: str, headers: dict[str, str]) -> None:
    given = {"host": "localhost", **UPGRADE, **ANN, **headers}
    head = [f"GET /v1/ws/echo HTTP/{version}", *(f"{name}: {value}" for name, value in given.items()), "", ""]
    with capture_logs() as logged:
        raw = await house.connect()
        async with raw.stream:
            await raw.send("\r\n".join(head).encode("latin-1") + HELLO)
            response = await raw.response()
            assert (response.status, response.code) == (400, "MALFORMED")
            assert response.headers["x-request-id"] == response.json["meta"]["request_id"]
            assert await raw.ended() == b""
        await until(lambda: house.open_connections == 0)
    assert [line for line in logged if line["log_level"] == "error"] == []


async def test_a_socket_outlives_the_times_of_requests() -> None:
    async with open_house(header_timeout_s=0.1, keep_alive_s=0.1, ws_frames_per_10s=100_000) as house:
        client = await house.socket()
        until_s = trio.current_time() + 0.5
        while trio.current_time() < until_s:
            await client.send_message("still here")
            assert await client.get_message() == "still here"


async def test_what_is_sent_before_the_answer_waits_for_it(house: House) -> None:
    raw = await upgrade(house, "/v1/ws/echo", data=HELLO)
    async with raw.stream:
        assert (await raw.response()).status == 101
        await raw.receive_until(b"\x81\x05hello")


async def test_what_is_sent_before_a_refusal_is_thrown_away(house: House) -> None:
    house.tokens.may_redeem = trio.Event()
    with capture_logs() as logged:
        raw = await house.connect()
        async with raw.stream:
            await raw.request("GET", "/v1/ws/echo?ticket=forged", UPGRADE)
            with trio.fail_after(5):
                await house.tokens.redeeming.wait()
            await raw.send(HELLO * 3)
            house.tokens.may_redeem.set()
            response = await raw.response()
            assert (response.status, response.code) == (401, "INVALID_TOKEN")
            assert await raw.ended() == b""
        await until(lambda: house.open_connections == 0)
    assert [line for line in logged if line["log_level"] == "error"] == []


async def test_the_own_origin_may_open_a_socket(house: House) -> None:
    client = await house.socket(headers={"Origin": f"http://127.0.0.1:{house.port}"})
    await client.send_message("x")
    assert await client.get_message() == "x"


async def test_sockets_have_a_rate() -> None:
    async with open_house(RateLimitsConfig(socket=2)) as house:
        for _ in range(2):
            await house.socket()
        raw = await upgrade(house, "/v1/ws/echo")
        response = await raw.response()
        assert (response.status, response.code) == (429, "RATE_LIMITED")
        assert int(response.headers["retry-after"]) >= 1


async def test_a_request_without_upgrade_is_told(house: House) -> None:
    response = await house.ask("GET", "/v1/ws/echo", ANN)
    assert (response.status, response.code) == (400, "MALFORMED")


async def test_the_upgrade_carries_the_request_id(house: House) -> None:
    raw = await upgrade(house, "/v1/ws/echo/", {"x-request-id": "r-1"})
    async with raw.stream:
        response = await raw.response()
        assert (response.status, response.headers["x-request-id"]) == (101, "r-1")


async def test_no_compression_is_agreed(house: House) -> None:
    raw = await upgrade(house, "/v1/ws/echo", {"sec-websocket-extensions": "permessage-deflate"})
    async with raw.stream:
        response = await raw.response()
        assert response.status == 101
        assert "sec-websocket-extensions" not in response.headers


# messages we do not take


async def test_text_only(house: House) -> None:
    client = await house.socket()
    await client.send_message(b"binary")
    assert await close_code(client) == 4400


@pytest.mark.parametrize("text", ["x" * 10_000, "€" * 800])
async def test_a_message_too_big(text: str) -> None:
    """Its bytes count, not its characters."""
    async with open_house(ws_frame_limit_bytes=2000) as house:
        client = await house.socket()
        await client.send_message("€" * 600)
        assert await client.get_message() == "€" * 600
        await client.send_message(text)
        assert await close_code(client) == 1009
        await until(lambda: house.open_connections == 0)


async def test_a_client_that_ignores_its_close_is_cut() -> None:
    async with open_house(ws_frame_limit_bytes=2000) as house:
        raw = await upgrade(house, "/v1/ws/echo")
        async with raw.stream:
            assert (await raw.response()).status == 101
            size = b"\xfe" + (60_000).to_bytes(2, "big") + bytes(4)
            await raw.send(b"\x01" + size + b"x" * 60_000)  # the beginning of an endless message
            piece = b"\x00" + size + b"x" * 60_000
            with pytest.raises(trio.BrokenResourceError), trio.fail_after(5):
                await _forever(lambda: raw.stream.send_all(piece))
        await until(lambda: house.open_connections == 0)


async def test_too_many_messages() -> None:
    async with open_house(ws_frames_per_10s=10) as house:
        client = await house.socket()
        with trio.fail_after(5):
            for _ in range(50):
                try:
                    await client.send_message("x")
                except ConnectionClosed:
                    break
        assert await close_code(client) == 4429
        assert len(house.room.received) == 10
        await until(lambda: house.open_connections == 0)


# how a socket ends


@pytest.mark.parametrize(
    ("said", "code"), [("leave", 1000), ("break", 1011), ("deny", 4403), ("close", 4404)]
)
async def test_the_room_ends_it(house: House, said: str, code: int) -> None:
    client = await house.socket()
    await client.send_message(said)
    assert await close_code(client) == code
    await until(lambda: house.open_connections == 0)


async def test_the_client_leaves(house: House) -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    for _ in range(20):
        raw = await upgrade(house, "/v1/ws/echo")
        assert (await raw.response()).status == 101
        await raw.stream.aclose()
    await until(lambda: house.open_connections == 0)
    await until(lambda: trio.lowlevel.current_statistics().tasks_living == before)
    assert not house.room.sockets[0].offer(Frame(b"x"))


async def test_a_handler_that_never_receives_ends_too(house: House) -> None:
    raw = await upgrade(house, "/v1/ws/deaf")
    assert (await raw.response()).status == 101
    for _ in range(30):  # more than fit between connection and handler
        await raw.send(b"\x81\x81" + bytes(4) + b"x")
    await raw.stream.aclose()
    await until(lambda: len(house.room.sockets) == 1)
    house.gateway.close_sessions(frozenset({SessionId("session-ann")}))
    await until(lambda: house.open_connections == 0)


async def test_a_revoked_session_is_closed_at_once(house: House) -> None:
    ann, ann_too, bob = await house.socket(), await house.socket(), await house.socket(token="bob")
    await until(lambda: len(house.room.sockets) == 3)
    house.gateway.close_sessions(frozenset({SessionId("session-ann"), SessionId("session-eve")}))
    assert await close_code(ann) == 4401
    assert await close_code(ann_too) == 4401
    await bob.send_message("still here")
    assert await bob.get_message() == "still here"


async def test_a_session_that_ends_while_its_socket_opens_is_closed(house: House) -> None:
    house.tokens.may_redeem = trio.Event()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            assert await close_code(await house.socket("/v1/ws/echo?ticket=ticket-ann", token=None)) == 4401

        with trio.fail_after(5):
            await house.tokens.redeeming.wait()
        house.tokens.ended.add(SessionId("session-ann"))
        house.gateway.close_sessions(frozenset(house.tokens.ended))
        house.tokens.may_redeem.set()


async def test_an_expired_token_closes_unless_renewed(house: House) -> None:
    house.tokens.people["ann"] = house.tokens.people["bob"] = principal("ann", expires_in_s=1.2)
    lazy, eager = await house.socket(), await house.socket(token="bob")
    await until(lambda: len(house.room.sockets) == 2)
    with trio.fail_after(5):
        assert json.loads(await eager.get_message())["type"] == "token_expiring"
    renewed = next(each for each in house.room.sockets if each is not house.room.sockets[0])
    fresh = msgspec.structs.replace(renewed.principal, expires_us=now_us() + 900 * SECOND_US)
    renewed.renew(fresh)
    assert await close_code(lazy) == 4401
    await eager.send_message("still here")
    assert await eager.get_message() == "still here"


async def test_a_silent_client_is_closed() -> None:
    async with open_house(ws_ping_s=0.1, ws_silence_s=1.0) as house:
        lively = await house.socket()  # answers pings, as every client library does
        raw = await upgrade(house, "/v1/ws/echo")
        async with raw.stream:
            assert (await raw.response()).status == 101
            frames = await raw.ended()
            assert b"\x89\x00" in frames
            assert (4408).to_bytes(2, "big") in frames
        await lively.send_message("still here")
        assert await lively.get_message() == "still here"


async def test_a_slow_reader_is_evicted(house: House) -> None:
    """It gets what the network holds for it, and if it reads in time the code that says: come back."""
    client = await house.socket("/v1/ws/deaf")
    await until(lambda: len(house.room.sockets) == 1)
    frame = Frame(b"x" * 100_000)
    offered = 0
    while house.room.sockets[0].offer(frame):
        offered += 1
    assert 10 <= offered <= 11
    assert await close_code(client) == 1013
    await until(lambda: house.open_connections == 0)


async def test_a_client_that_never_reads_is_evicted_quickly() -> None:
    async with (
        open_house(write_timeout_s=60, close_timeout_s=0.3) as house,
        never_reading(house, "/v1/ws/deaf"),
    ):
        await until(lambda: len(house.room.sockets) == 1)
        frame = Frame(b"x" * 50_000)
        await until(lambda: not house.room.sockets[0].offer(frame))  # the network takes no more
        await until(lambda: house.open_connections == 0, within_s=2)


async def test_send_waits_for_the_client_and_ends_with_it() -> None:
    async with open_house(write_timeout_s=0.5) as house, never_reading(house, "/v1/ws/echo") as stream:
        mask = bytes(4)
        message = b"\x81\xfe" + (50_000).to_bytes(2, "big") + mask + b"x" * 50_000
        with pytest.raises(trio.BrokenResourceError), trio.fail_after(5):
            await _forever(lambda: stream.send_all(message))
        await until(lambda: house.open_connections == 0)


async def test_offers_stay_in_order(house: House) -> None:
    client = await house.socket("/v1/ws/deaf")
    await until(lambda: len(house.room.sockets) == 1)
    for number in range(1000):
        assert house.room.sockets[0].offer(Frame(b"%d" % number))
    assert [await client.get_message() for _ in range(1000)] == [str(number) for number in range(1000)]


async def test_what_was_queued_is_sent_before_the_close(house: House) -> None:
    client = await house.socket()
    await until(lambda: len(house.room.sockets) == 1)
    for number in range(100):
        house.room.sockets[0].offer(Frame(b"%d" % number))
    await client.send_message("leave")
    assert [await client.get_message() for _ in range(100)] == [str(number) for number in range(100)]
    assert await close_code(client) == 1000


async def test_a_crashed_room_closes_its_sockets_and_answers_503(house: House) -> None:
    client = await house.socket()
    raw = await house.connect()
    await raw.request("GET", "/v1/hang")
    with trio.fail_after(5):
        await house.room.entered.wait()
    house.room.crash.set()
    assert await close_code(client) == 1012
    response = await raw.response()
    assert (response.status, response.code) == (503, "UNAVAILABLE")
    response = await house.ask("GET", "/v1/open")
    assert (response.status, response.code) == (503, "UNAVAILABLE")
    assert "retry-after" in response.headers
    assert (await house.ask("GET", "/v1/other")).status == 200
    assert (await house.ask("GET", "/health")).json["status"] == "degraded"
    await until(lambda: house.rooms["chat"].state == "running")
    assert (await house.ask("GET", "/v1/open")).status == 200


async def test_sockets_are_counted(house: House) -> None:
    def value(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(name, labels) or 0.0

    before = (
        value("websocket_messages_total", direction="in"),
        value("websocket_messages_total", direction="out"),
    )
    client = await house.socket()
    assert value("websocket_connections_active") >= 1
    await client.send_message("x")
    await client.get_message()
    after = (
        value("websocket_messages_total", direction="in"),
        value("websocket_messages_total", direction="out"),
    )
    assert after == (before[0] + 1, before[1] + 1)
