"""HTTP/2: what is asked is answered, one stream harms no other, and nothing is left behind."""

from __future__ import annotations

import gc
import inspect
import tracemalloc
from importlib.metadata import version
from pathlib import Path

import pytest
import trio
from h2.connection import H2Connection
from h2.events import StreamReset
from h2.stream import H2Stream
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.trio.worker_context import WorkerContext
from hyperframe.frame import (
    DataFrame,
    GoAwayFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from structlog.testing import capture_logs

from kit.wait import until
from secureconnect.config import GatewayConfig
from secureconnect.gateway.http2 import CONNECTION_WINDOW, STREAM_WINDOW
from secureconnect.gateway.listener import PREFACE

from .house import counted, open_house
from .peer import MOST, Peer, open_peer, open_server, reset_now

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, REFUSED, CANCEL = 0, 1, 2, 7, 8


def test_the_names_we_rest_on() -> None:
    """An upgrade that renames one of these would bring defects back in silence."""
    assert version("hypercorn").startswith("0.18.")
    assert version("h2").startswith("4.")
    protocol = [
        "app",
        "config",
        "context",
        "task_group",
        "connection_state",
        "ssl",
        "client",
        "server",
        "send",
    ]
    assert list(inspect.signature(H2Protocol.__init__).parameters)[1:] == protocol
    for name in (
        "handle",
        "stream_send",
        "_flush",
        "_handle_events",
        "_create_stream",
        "_close_stream",
        "_window_updated",
        "_priority_updated",
    ):
        assert inspect.iscoroutinefunction(getattr(H2Protocol, name)), name
    handles = inspect.getsource(H2Protocol._handle_events) + inspect.getsource(H2Protocol.handle)
    for call in (
        "self._create_stream(event)",
        "self._close_stream(event.stream_id)",
        "self._window_updated(event.stream_id)",
        "self._window_updated(None)",
        "self._priority_updated(event)",
        "self.connection.receive_data(event.data)",
        "await self.send(Closed())",
        "self._flush()",
    ):
        assert call in handles, call
    assert "self.task_group" not in handles
    assert "self.stream_buffers" not in handles + inspect.getsource(H2Protocol._close_stream)
    assert "self.send(RawData(data=data))" in inspect.getsource(H2Protocol._flush)
    handed = "app config context task_group ssl client server send stream_id"
    assert list(inspect.signature(HTTPStream.__init__).parameters)[1:] == handed.split()
    handle = inspect.getsource(HTTPStream.handle)
    assert handle.count("self.task_group.") == 1
    assert "self.app, self.config, self.scope, self.app_send" in handle
    assert "self.closed = True" in handle
    assert list(inspect.signature(WorkerContext.__init__).parameters)[1:] == ["max_requests"]
    assert list(inspect.signature(H2Connection._receive_frame).parameters) == ["self", "frame"]
    assert "self._receive_frame(frame)" in inspect.getsource(H2Connection.receive_data)
    assert "self.MAX_CLOSED_STREAMS" in inspect.getsource(H2Connection.__init__)
    for name in ("closed", "open"):
        assert isinstance(inspect.getattr_static(H2Stream, name), property), name
    assert "outbound_flow_control_window" in inspect.getsource(H2Stream.__init__)
    assert "remote_reset" in inspect.getsource(StreamReset)


# what is said first


async def test_what_the_server_says_of_itself() -> None:
    async with open_peer(GatewayConfig(h2_streams=7, uri_limit_bytes=1000, header_limit_bytes=2000)) as (
        _,
        peer,
    ):
        settings = (await peer.frame(SettingsFrame)).settings
        assert settings[SettingsFrame.MAX_CONCURRENT_STREAMS] == 7
        assert settings[SettingsFrame.MAX_HEADER_LIST_SIZE] == 3000
        assert settings[SettingsFrame.INITIAL_WINDOW_SIZE] == STREAM_WINDOW
        # WebSockets come by HTTP/1.1 (RFC 8441 would let them in here)
        assert not settings.get(SettingsFrame.ENABLE_CONNECT_PROTOCOL, 0)
        room = await peer.frame(WindowUpdateFrame, stream_id=0)
        assert room.window_increment == CONNECTION_WINDOW - 65_535


async def test_the_request_an_application_sees() -> None:
    async with open_peer() as (server, peer):
        cookies = [("cookie", "a=1"), ("x-a", "b"), ("cookie", "c=2")]
        await peer.send(head := peer.head("/caf%C3%A9?x=%20y", "get", cookies))
        assert (await peer.reply(head.stream_id)).body == "/café".encode()
    scope = server.scopes[0]
    assert (scope["type"], scope["http_version"], scope["method"]) == ("http", "2", "get")
    assert (scope["raw_path"], scope["query_string"]) == (b"/caf%C3%A9", b"x=%20y")
    assert (scope["scheme"], scope["client"][0]) == ("http", "127.0.0.1")
    assert scope["headers"] == [(b"host", b"localhost"), (b"x-a", b"b"), (b"cookie", b"a=1; c=2")]


# answers


async def test_a_small_answer_is_two_frames() -> None:
    async with open_peer() as (_, peer):
        reply = await peer.get("/hello")
        assert (reply.status, reply.body) == (200, b"/hello")
        kinds = [type(each).__name__ for each in peer.frames if each.stream_id == 1]
        assert kinds == ["HeadersFrame", "DataFrame"]


async def test_many_requests_on_one_connection() -> None:
    async with open_peer() as (server, peer):
        for number in range(300):
            assert (await peer.get(f"/{number}")).body == b"/%d" % number
        assert len(server.scopes) == 300
        http2 = server.connections[0]
        await until(lambda: http2.is_idle and not http2.streams)
        assert server.running == 0


async def test_streams_are_answered_as_they_are_ready() -> None:
    async with open_peer() as (server, peer):
        waiting = [await peer.ask("/wait") for _ in range(50)]
        assert (await peer.get()).status == 200
        server.go.set()
        assert {(await peer.reply(each)).body for each in waiting} == {b"waited"}


async def test_the_head_of_a_stream_does_not_wait_for_its_body() -> None:
    async with open_peer() as (server, peer):
        number = await peer.ask("/stream")
        await peer.until(lambda: number in peer.replies and peer.replies[number].body == b"half")
        server.go.set()
        assert (await peer.reply(number)).body == b"halfhalf"


async def test_large_answers_side_by_side() -> None:
    async with open_peer() as (_, peer):
        numbers = [await peer.ask("/large") for _ in range(3)]
        for each in numbers:
            assert len((await peer.reply(each)).body) == 5_000_000


async def test_a_head_request_has_no_body() -> None:
    async with open_peer() as (_, peer):
        await peer.send(head := peer.head("/hello", "HEAD"))
        reply = await peer.reply(head.stream_id)
        assert (reply.headers["content-length"], reply.body) == ("6", b"")


async def test_windows_are_respected() -> None:
    """One byte, then the rest: what came never exceeds what was allowed."""
    async with open_peer(window=1) as (_, peer):
        number = await peer.ask("/large")
        await peer.until(lambda: number in peer.replies and len(peer.replies[number].body) == 1)
        await peer.send(PingFrame(0, b"12345678"))
        await peer.frame(PingFrame)
        assert len(peer.replies[number].body) == 1
        await peer.send(WindowUpdateFrame(number, window_increment=MOST - 1))
        await peer.until(lambda: len(peer.replies[number].body) == 65_535)
        await peer.send(WindowUpdateFrame(0, window_increment=MOST - 65_535))
        assert len((await peer.reply(number)).body) == 5_000_000


# requests that go wrong


@pytest.mark.parametrize(
    ("path", "status", "reset"),
    [("/break", 500, None), ("/silent", 500, None), ("/half", 200, INTERNAL_ERROR)],
)
async def test_an_application_that_fails_harms_no_other(path: str, status: int, reset: int | None) -> None:
    async with open_peer() as (server, peer):
        waiting = await peer.ask("/wait")
        before = counted("application_failed")
        with capture_logs() as logged:
            reply = await peer.get(path)
        assert (reply.status, reply.reset) == (status, reset)
        assert [line["event"] for line in logged] == (["application_failed"] if path != "/silent" else [])
        assert counted("application_failed") - before == len(logged)
        server.go.set()
        assert (await peer.reply(waiting)).body == b"waited"


LOCAL = [(":scheme", "http"), (":authority", "localhost")]


@pytest.mark.parametrize(
    "fields",
    [
        [(":method", "CONNECT"), (":authority", "localhost:22")],
        [(":method", "CONNECT"), (":protocol", "websocket"), (":path", "/v1/ws/chat"), *LOCAL],
        [(":method", "GET"), (":path", b"/caf\xe9"), *LOCAL],
        [(":method", b"G\xcbT"), (":path", "/"), *LOCAL],
    ],
)
async def test_what_is_no_request_for_us_is_reset(fields: list[tuple[str, str | bytes]]) -> None:
    async with open_peer() as (server, peer):
        await peer.send(head := peer.head(fields=fields))
        assert (await peer.reply(head.stream_id)).reset == PROTOCOL_ERROR
        assert (await peer.get()).status == 200
    assert len(server.scopes) == 1


async def test_an_early_answer_stops_the_body() -> None:
    async with open_peer() as (_, peer):
        await peer.send(head := peer.head("/early", "POST", end=False))
        await peer.send(DataFrame(head.stream_id, bytes(1000)))
        reply = await peer.reply(head.stream_id)
        assert (reply.status, reply.body) == (200, b"/early")
        assert (await peer.frame(RstStreamFrame, stream_id=head.stream_id)).error_code == NO_ERROR
        # what was under way does no harm, and its room comes back
        for _ in range(CONNECTION_WINDOW // 16_384 // 2):
            await peer.send(DataFrame(head.stream_id, bytes(16_384)))
        assert (await peer.get()).status == 200
        assert await peer.reply(await peer.ask("/echo", bytes(STREAM_WINDOW)))


async def test_headers_past_the_limit_are_the_gates_to_refuse() -> None:
    async with (
        open_house(header_limit_bytes=2048) as house,
        await trio.open_tcp_stream("127.0.0.1", house.port) as stream,
    ):
        peer = Peer(stream)
        await peer.greet()
        number = await peer.ask("/v1/open", x_large="x" * 3_000)
        assert (await peer.reply(number)).status == 431
        assert (await peer.get("/v1/open")).status == 200


# bodies


async def test_a_body_of_many_windows() -> None:
    async with open_peer() as (server, peer):
        server.go.set()
        head = peer.head("/read", "POST", end=False)
        await peer.send(head)
        room = STREAM_WINDOW
        for _ in range(200):
            await peer.send(DataFrame(head.stream_id, bytes(10_000)))
            room -= 10_000
            while room < 10_000:
                seen = len(peer.frames)
                await peer.until(lambda seen=seen: len(peer.frames) > seen)  # type: ignore[misc]
                for frame in peer.frames[seen:]:
                    if isinstance(frame, WindowUpdateFrame) and frame.stream_id == head.stream_id:
                        room += frame.window_increment
        await peer.send(DataFrame(head.stream_id, flags=["END_STREAM"]))
        assert (await peer.reply(head.stream_id)).body == b"2000000"


async def test_an_unread_body_holds_nobody_up_and_does_not_pile_up() -> None:
    async with open_peer() as (server, peer):
        tracemalloc.start()
        try:
            heads = [peer.head("/read", "POST", end=False) for _ in range(4)]
            await peer.send(*heads)
            await peer.frame(SettingsFrame)
            gc.collect()
            before, _ = tracemalloc.get_traced_memory()
            for head in heads:  # as unkindly as can be: a byte in a frame, and then the rest of the window
                await peer.send(b"".join(DataFrame(head.stream_id, b"x").serialize() for _ in range(500)))
                await peer.send(*(DataFrame(head.stream_id, bytes(16_384)) for _ in range(15)))
            assert (await peer.get()).status == 200
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert after - before < 2 * CONNECTION_WINDOW
        assert not [each for each in peer.frames if isinstance(each, WindowUpdateFrame) and each.stream_id]
        server.go.set()
        for head in heads:
            await peer.send(DataFrame(head.stream_id, flags=["END_STREAM"]))
            assert (await peer.reply(head.stream_id)).body == b"%d" % (500 + 15 * 16_384)


async def test_a_body_nobody_read_gives_its_room_back() -> None:
    async with open_peer() as (server, peer):
        heads = [peer.head("/read", "POST", end=False) for _ in range(4)]
        for head in heads:
            frames = [DataFrame(head.stream_id, bytes(16_384)) for _ in range(STREAM_WINDOW // 16_384)]
            await peer.send(head, *frames)
        await peer.send(*(RstStreamFrame(head.stream_id, CANCEL) for head in heads))
        # the connection's window was full; it is not any more
        assert len((await peer.reply(await peer.ask("/echo", bytes(100_000)))).body) == 100_000
        server.go.set()
        await until(lambda: server.running == 0)


async def test_padding_counts_and_comes_back() -> None:
    async with open_peer() as (_, peer):
        await peer.send(head := peer.head("/echo", "POST", end=False))
        padded = DataFrame(head.stream_id, b"x", pad_length=255, flags=["PADDED"]).serialize()
        for number in range(2 * CONNECTION_WINDOW // 100_000):
            await peer.send(padded * 400, PingFrame(0, b"%08d" % number))
            await peer.frame(PingFrame, opaque_data=b"%08d" % number)
        await peer.send(DataFrame(head.stream_id, flags=["END_STREAM"]))
        assert len((await peer.reply(head.stream_id)).body) == 400 * (number + 1)


# clients that leave


async def test_a_client_that_resets_a_stream_is_noticed() -> None:
    async with open_peer() as (server, peer):
        number = await peer.ask("/hang")
        await peer.ask("/endless")
        await until(lambda: len(server.scopes) == 2)
        await peer.send(RstStreamFrame(number, CANCEL), RstStreamFrame(number + 2, CANCEL))
        await until(lambda: sorted(server.told) == ["/endless", "/hang"] and server.running == 0)
        assert (await peer.get()).status == 200


@pytest.mark.parametrize("how", ["fin", "reset", "goaway"])
async def test_a_client_that_leaves_is_told_of_to_all(how: str) -> None:
    async with open_peer() as (server, peer):
        for path in ("/hang", "/endless", "/hang"):
            await peer.ask(path)
        await until(lambda: len(server.scopes) == 3)
        if how == "fin":
            await peer.stream.send_eof()
        elif how == "reset":
            reset_now(peer.stream)
        else:
            await peer.send(GoAwayFrame(0))
        await until(lambda: sorted(server.told) == ["/endless", "/hang", "/hang"])
        await until(lambda: not server.connections)
        assert server.running == 0


async def test_a_window_that_never_opens_ends_the_stream_alone() -> None:
    async with open_peer(GatewayConfig(write_timeout_s=0.2), window=0) as (server, peer):
        number = await peer.ask("/endless")
        small = await peer.ask()
        await peer.send(WindowUpdateFrame(small, window_increment=100))
        assert (await peer.reply(small)).status == 200
        assert (await peer.reply(number)).reset == CANCEL
        await until(lambda: server.told == ["/endless"] and server.running == 0)
        assert (await peer.reply(await peer.ask())).reset == CANCEL


async def test_a_connection_window_that_never_opens_ends_its_streams() -> None:
    async with open_peer(GatewayConfig(write_timeout_s=0.2), window=65_535) as (server, peer):
        await peer.send(SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: MOST}))
        numbers = [await peer.ask("/large") for _ in range(3)]
        for each in numbers:
            assert (await peer.reply(each)).reset == CANCEL
        assert sum(len(peer.replies[each].body) for each in numbers) == 65_535
        await until(lambda: server.running == 0)


async def test_a_client_that_reads_no_bytes_is_cut() -> None:
    config = GatewayConfig(write_timeout_s=0.3)
    async with open_server(config) as (server, port), await port.connect(receive_buffer=4096) as stream:
        peer = Peer(stream)
        await peer.greet()
        for _ in range(10):
            await peer.ask("/endless")
        await until(lambda: server.running == 10)
        await until(lambda: not server.connections)
        assert server.running == 0


async def test_clients_that_take_nothing_cost_little() -> None:
    async with open_peer(window=0) as (server, peer):
        await peer.get("/silent")
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for _ in range(50):
                await peer.ask("/endless")
            await until(lambda: server.running == 50)
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert after - before < 50 * 150_000  # the 100 000 bytes of the application, and little more


# time, and the end


async def test_a_connection_that_says_nothing_is_ended() -> None:
    config = GatewayConfig(header_timeout_s=0.2, close_timeout_s=0.2)
    async with open_server(config) as (server, port):
        for said in (b"", PREFACE[:10], PREFACE):
            async with await port.connect() as stream:
                peer = Peer(stream)
                await peer.send(said)
                assert await peer.over() == NO_ERROR
        await until(lambda: not server.connections)


async def test_an_idle_connection_is_ended() -> None:
    config = GatewayConfig(keep_alive_s=0.3, close_timeout_s=0.2)
    async with open_server(config) as (_, port):
        for asks in (False, True):
            async with await port.connect() as stream:
                peer = Peer(stream)
                await peer.greet()
                if asks:
                    await peer.get()
                with trio.fail_after(5):
                    while not peer.ended:  # pings do not keep it
                        await peer.send(PingFrame(0, b"12345678"))
                        await peer.read()
                        await trio.sleep(0.02)
                assert peer.goaway is not None
                assert peer.goaway.error_code == NO_ERROR
                assert peer.goaway.last_stream_id == (1 if asks else 0)


async def test_a_request_keeps_its_connection() -> None:
    async with open_peer(GatewayConfig(keep_alive_s=0.1, header_timeout_s=0.1)) as (server, peer):
        number = await peer.ask("/wait")
        await until(lambda: server.running == 1)
        started = trio.current_time()
        await until(lambda: trio.current_time() > started + 0.3)
        server.go.set()
        assert (await peer.reply(number)).body == b"waited"


async def test_an_idle_connection_that_is_to_end_ends() -> None:
    async with open_peer() as (server, peer):
        await peer.get()
        server.connections[0].end_if_idle()
        assert await peer.over() == NO_ERROR


async def test_what_runs_is_answered_before_the_end() -> None:
    async with open_peer() as (server, peer):
        numbers = [await peer.ask("/wait"), await peer.ask("/stream")]
        await until(lambda: server.running == 2)
        server.connections[0].end_if_idle()
        assert (await peer.frame(GoAwayFrame)).last_stream_id == numbers[-1]
        assert (await peer.get()).reset == REFUSED
        server.go.set()
        assert (await peer.reply(numbers[0])).body == b"waited"
        assert (await peer.reply(numbers[1])).body == b"halfhalf"
        assert await peer.over() == NO_ERROR
        assert len(server.scopes) == 2


async def test_a_connection_is_over_by_its_deadline() -> None:
    async with open_peer(GatewayConfig(close_timeout_s=5)) as (server, peer):
        number = await peer.ask("/hang")
        await peer.ask("/endless")
        await until(lambda: server.running == 2)
        server.connections[0].end_by(trio.current_time() + 0.2)
        await until(lambda: not server.connections, within_s=2)
        assert (server.running, len(server.told)) == (0, 2)
        assert not peer.replies.get(number)


def held() -> tuple[int, int]:
    """Tasks and descriptors."""
    return trio.lowlevel.current_statistics().tasks_living, len(list(Path("/proc/self/fd").iterdir()))


async def test_nothing_is_left_behind() -> None:
    async with open_server() as (server, port):
        before = held()
        for number in range(20):
            stream = await port.connect()
            peer = Peer(stream)
            await peer.greet()
            for path in ("/", "/hang", "/endless", "/silent", "/large"):
                await peer.ask(path)
            if number % 2:
                await until(lambda: server.running >= 2)
            await stream.aclose()
        await until(lambda: not server.connections and not port.transports)
        assert held() == before
    assert server.running == 0
