"""HTTP/2 from clients that mean ill: what each costs is bounded, and nobody else notices."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
import trio
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from structlog.testing import capture_logs

from kit.wait import until
from secureconnect.config import GatewayConfig
from secureconnect.gateway.http2 import FRAMES, HEADER_TABLE_BYTES, RESETS, STREAM_WINDOW
from secureconnect.gateway.listener import PREFACE

from .peer import MOST, Peer, Server, open_peer, open_server

(
    NO_ERROR,
    PROTOCOL_ERROR,
    _,
    FLOW_CONTROL_ERROR,
    _,
    STREAM_CLOSED,
    FRAME_SIZE_ERROR,
    REFUSED,
    CANCEL,
    COMPRESSION_ERROR,
    _,
    CALM,
) = range(12)
MANY = FRAMES + 600
Attack = Callable[[Peer], Iterator[Frame | bytes]]


def pings(_: Peer) -> Iterator[Frame]:
    yield from (PingFrame(0, b"%08d" % number) for number in range(MANY))


async def test_a_client_does_not_size_our_table() -> None:
    async with open_peer() as (server, peer):
        await peer.send(SettingsFrame(settings={SettingsFrame.HEADER_TABLE_SIZE: MOST}))
        assert (await peer.get()).status == 200
        (connection,) = server.connections
        assert connection.connection.encoder.header_table_size == HEADER_TABLE_BYTES


def ping_answers(_: Peer) -> Iterator[Frame]:
    yield from (PingFrame(0, b"12345678", flags=["ACK"]) for _ in range(MANY))


def settings_again(_: Peer) -> Iterator[Frame]:
    yield from (SettingsFrame(settings={4: 65_535 + number}) for number in range(MANY))


def priorities(_: Peer) -> Iterator[Frame]:
    yield from (PriorityFrame(2 * n + 1, depends_on=0, stream_weight=1) for n in range(MANY))


def unknown_frames(_: Peer) -> Iterator[bytes]:
    yield from (b"\0\0\0\xbb\0\0\0\0\1" for _ in range(MANY))


def windows(_: Peer) -> Iterator[Frame]:
    yield from (WindowUpdateFrame(0, window_increment=1) for _ in range(MANY))


def empty_data(peer: Peer) -> Iterator[Frame]:
    yield (head := peer.head("/read", "POST", end=False))
    yield from (DataFrame(head.stream_id) for _ in range(MANY))


def padding_alone(peer: Peer) -> Iterator[Frame]:
    yield (head := peer.head("/read", "POST", end=False))
    yield from (DataFrame(head.stream_id, pad_length=1, flags=["PADDED"]) for _ in range(MANY))


def data_for_a_stream_that_is_over(peer: Peer) -> Iterator[Frame]:
    yield (head := peer.head("/read", "POST", end=False))
    yield RstStreamFrame(head.stream_id, CANCEL)
    yield from (DataFrame(head.stream_id, b"x") for _ in range(MANY))


def an_answer_byte_by_byte(peer: Peer) -> Iterator[Frame]:
    yield SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0})
    yield (head := peer.head("/large"))
    yield from (WindowUpdateFrame(head.stream_id, window_increment=1) for _ in range(MANY))


def requests_cancelled_at_once(peer: Peer) -> Iterator[Frame]:
    for _ in range(RESETS + 100):
        yield (head := peer.head("/hang"))
        yield RstStreamFrame(head.stream_id, CANCEL)


def resets_provoked_by_windows(peer: Peer) -> Iterator[Frame]:
    """CVE-2025-8671: the server resets them itself, and takes the next."""
    for _ in range(RESETS + 100):
        yield (head := peer.head("/hang"))
        yield WindowUpdateFrame(head.stream_id, window_increment=MOST)


def a_head_without_end(peer: Peer) -> Iterator[Frame]:
    head = peer.head()
    head.flags.discard("END_HEADERS")
    yield head
    yield from (ContinuationFrame(head.stream_id, b"") for _ in range(MANY))


def a_head_that_unpacks(peer: Peer) -> Iterator[Frame]:
    """A table entry of 4 kB, and then a thousand times one byte for it."""
    head = peer.head(headers=[("x-bomb", "x" * 4_000)])
    head.data += bytes([0x80 | 62]) * 1_000
    yield head


def rubbish_in_a_head(peer: Peer) -> Iterator[Frame]:
    yield HeadersFrame(1, b"\xff" * 30, flags=["END_HEADERS", "END_STREAM"])


def too_many_streams(peer: Peer) -> Iterator[Frame]:
    yield from (peer.head("/hang") for _ in range(101))


def a_frame_too_large(peer: Peer) -> Iterator[bytes]:
    yield b"\x00\x40\x01\x00\x00\x00\x00\x00\x01" + bytes(16_385)


def more_than_its_window(peer: Peer) -> Iterator[Frame]:
    yield (head := peer.head("/read", "POST", end=False))
    yield from (DataFrame(head.stream_id, bytes(16_384)) for _ in range(STREAM_WINDOW // 16_384 + 1))


def a_window_past_all_bounds(_: Peer) -> Iterator[Frame]:
    yield WindowUpdateFrame(0, window_increment=MOST)
    yield WindowUpdateFrame(0, window_increment=MOST)


def a_stream_of_the_servers(_: Peer) -> Iterator[Frame]:
    yield HeadersFrame(2, b"\x82\x86\x84\x41\x01x", flags=["END_HEADERS", "END_STREAM"])


def a_promise(peer: Peer) -> Iterator[Frame]:
    yield (head := peer.head(end=False))
    yield PushPromiseFrame(head.stream_id, 2, b"\x82\x86\x84", flags=["END_HEADERS"])


def a_stream_that_depends_on_itself(_: Peer) -> Iterator[Frame]:
    yield PriorityFrame(1, depends_on=1, stream_weight=1)


def data_before_a_head(_: Peer) -> Iterator[Frame]:
    yield DataFrame(1, b"x")


def a_body_that_is_too_short(peer: Peer) -> Iterator[Frame]:
    yield (head := peer.head("/read", "POST", [("content-length", "5")], end=False))
    yield DataFrame(head.stream_id, b"1234", flags=["END_STREAM"])


@pytest.mark.parametrize(
    ("attack", "code"),
    [
        (pings, CALM),
        (ping_answers, CALM),
        (settings_again, CALM),
        (priorities, CALM),
        (unknown_frames, CALM),
        (windows, CALM),
        (empty_data, CALM),
        (padding_alone, CALM),
        (data_for_a_stream_that_is_over, CALM),
        (an_answer_byte_by_byte, CALM),
        (requests_cancelled_at_once, CALM),
        (resets_provoked_by_windows, CALM),
        (a_head_without_end, PROTOCOL_ERROR),
        (a_head_that_unpacks, CALM),
        (rubbish_in_a_head, PROTOCOL_ERROR),
        (too_many_streams, PROTOCOL_ERROR),
        (a_frame_too_large, FRAME_SIZE_ERROR),
        (more_than_its_window, FLOW_CONTROL_ERROR),
        (a_window_past_all_bounds, FLOW_CONTROL_ERROR),
        (a_stream_of_the_servers, PROTOCOL_ERROR),
        (a_promise, PROTOCOL_ERROR),
        (a_stream_that_depends_on_itself, PROTOCOL_ERROR),
        (data_before_a_head, PROTOCOL_ERROR),
        (a_body_that_is_too_short, PROTOCOL_ERROR),
    ],
)
async def test_it_ends_the_connection(attack: Attack, code: int) -> None:
    """And no other: nobody waits, and every application has ended."""
    async with open_server() as (server, port):
        async with await port.connect() as good, await port.connect() as bad:
            bystander, peer = Peer(good), Peer(bad)
            await bystander.greet()
            await peer.greet(window=65_535)
            async with trio.open_nursery() as nursery:

                async def send() -> None:
                    with suppress(trio.BrokenResourceError):
                        await peer.send(*attack(peer))

                nursery.start_soon(send)
                assert await peer.over() == code
            await bad.aclose()
            server.go.set()
            await until(lambda: len(server.connections) == 1 and server.running == 0)
            assert (await bystander.get()).status == 200
        assert len(server.scopes) <= RESETS + 2


async def test_what_a_client_may_do() -> None:
    """Half of each flood is no flood, and data that was taken earns the windows for more."""
    async with open_peer(window=65_535) as (_, peer):
        for number in range(FRAMES // 2):
            await peer.send(PingFrame(0, b"%08d" % number))
        for _ in range(RESETS // 2):
            head = peer.head("/hang")
            await peer.send(head, RstStreamFrame(head.stream_id, CANCEL))
        for _ in range(2):
            number = await peer.ask("/large")
            taken = 0
            while not peer.replies.get(number) or not peer.replies[number].ended:
                await peer.read()
                reply = peer.replies.get(number)
                while reply is not None and len(reply.body) - taken >= 8_192:
                    taken += 8_192
                    await peer.send(
                        WindowUpdateFrame(number, window_increment=8_192),
                        WindowUpdateFrame(0, window_increment=8_192),
                    )
            assert len(peer.replies[number].body) == 5_000_000


async def test_a_head_that_comes_twice() -> None:
    async with open_peer() as (server, peer):
        head = peer.head("/hang")
        await peer.send(head)
        await until(lambda: server.running == 1)
        await peer.send(head)
        assert (await peer.reply(head.stream_id)).reset == STREAM_CLOSED
        await until(lambda: server.told == ["/hang"])


async def test_a_wrong_preface() -> None:
    async with open_server() as (server, port):
        for said in (b"GET / HTTP/1.1\r\n\r\n", PREFACE[:-1] + b"x", b"\0" * 100):
            async with await port.connect() as stream:
                peer = Peer(stream)
                await peer.send(said)
                await peer.over()
        await until(lambda: not server.connections)
        assert not server.scopes


def session() -> list[Frame]:
    """A request, a body in pieces with padding, a cancelled request, a head in parts."""
    plain = b"\x86\x41\x09localhost"
    end, whole, padded = "END_STREAM", "END_HEADERS", "PADDED"
    return [
        SettingsFrame(),
        HeadersFrame(1, b"\x82\x04\x04/one" + plain, flags=[end, whole]),
        HeadersFrame(3, b"\x83\x04\x05/echo" + plain, flags=[whole]),
        DataFrame(3, b"a", pad_length=3, flags=[padded]),
        HeadersFrame(5, b"\x82\x04\x05/hang" + plain, flags=[end, whole]),
        RstStreamFrame(5, CANCEL),
        DataFrame(3, b"bc", flags=[end]),
        HeadersFrame(7, b"\x82\x04\x07/par", flags=[end]),
        ContinuationFrame(7, b"ted" + plain, flags=[whole]),
    ]


async def test_the_same_bytes_however_they_are_split() -> None:
    data = PREFACE + b"".join(frame.serialize() for frame in session())
    async with open_server() as (_, port):
        for size in (1, 2, 3, 5, 7, 11, 13, 17, 64, len(data)):
            async with await port.connect() as stream:
                peer = Peer(stream)
                for start in range(0, len(data), size):
                    await peer.send(data[start : start + size])
                    await trio.lowlevel.checkpoint()
                bodies = [(await peer.reply(number)).body for number in (1, 3, 7)]
                assert bodies == [b"/one", b"abc", b"/parted"]
                assert 5 not in peer.replies or not peer.replies[5].ended


GRAINS: list[Frame | bytes] = [
    SettingsFrame(),
    SettingsFrame(flags=["ACK"]),
    SettingsFrame(settings={1: 0, 3: 1, 4: 10, 5: 16_384, 6: 10}),
    HeadersFrame(1, b"\x82\x86\x84\x41\x01x", flags=["END_HEADERS", "END_STREAM"]),
    HeadersFrame(3, b"\x83\x86\x84\x41\x01x", flags=["END_HEADERS"]),
    HeadersFrame(5, b"\x82\x86\x84", flags=["END_STREAM"]),
    HeadersFrame(7, b"\x82\x86\x04\x05/hang\x41\x01x", flags=["END_HEADERS", "END_STREAM"]),
    HeadersFrame(9, b"\x82\x86\x04\x08/endless\x41\x01x", flags=["END_HEADERS", "END_STREAM"]),
    HeadersFrame(3, b"\x00\x01a\x01b", flags=["END_HEADERS", "END_STREAM"]),
    ContinuationFrame(5, b"\x41\x01x", flags=["END_HEADERS"]),
    DataFrame(3, b"hello"),
    DataFrame(3, b"", flags=["END_STREAM"]),
    DataFrame(1, b"late"),
    RstStreamFrame(1, CANCEL),
    RstStreamFrame(7, NO_ERROR),
    WindowUpdateFrame(0, window_increment=100),
    WindowUpdateFrame(9, window_increment=MOST),
    PriorityFrame(11, depends_on=3, stream_weight=200, exclusive=True),
    PingFrame(0, b"12345678"),
    GoAwayFrame(0),
    b"\0\0\0\xbb\0\0\0\0\1",
]


async def test_rubbish_harms_nobody() -> None:
    """Frames in any order, and random bytes among them: everything ends, and nothing of ours breaks."""
    chance = random.Random(7)
    config = GatewayConfig(header_timeout_s=1, close_timeout_s=0.2, write_timeout_s=0.5)
    server: Server

    async def one(data: bytes) -> None:
        with suppress(trio.BrokenResourceError):
            async with await port.connect() as stream:
                await stream.send_all(data)
                await stream.send_eof()
                while await stream.receive_some(65_536):
                    pass

    with capture_logs() as logged:
        async with open_server(config) as (server, port):
            async with trio.open_nursery() as nursery:
                for _ in range(300):
                    parts = chance.choices([*GRAINS, chance.randbytes(20)], k=chance.randint(1, 12))
                    whole = b"".join(p.serialize() if isinstance(p, Frame) else p for p in parts)
                    nursery.start_soon(one, PREFACE + SettingsFrame().serialize() + whole)
            await until(lambda: not server.connections)
            assert server.running == 0
    assert logged == []
