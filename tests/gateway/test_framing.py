"""Frames: a table of cases, and `websockets` as a second opinion on any bytes."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Close as TheirClose
from websockets.headers import build_extension, parse_extension
from websockets.protocol import CLIENT

from secureconnect.gateway import framing
from secureconnect.gateway.framing import Inbound

from .frames import BINARY, CLOSE, CONT, MASK, PING, PONG, RSV1, RSV2, TEXT, closing, fragments, frame, header
from .framing_cases import BAD_TEXTS, CASES, HELLO, LIMIT, Case, Event, deflate
from .framing_oracle import Outcome, Theirs, assert_agreed, in_steps, ours


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_conformance(case: Case) -> None:
    expected = Outcome(case.events, case.code)
    assert ours([case.data], deflate=case.deflate)[0] == expected
    for step in (1, 2, 3, 7, 4096):
        if len(case.data) // step < 20_000:
            assert ours(in_steps(case.data, step), deflate=case.deflate)[0] == expected, step
    for at in range(min(len(case.data), 300)):
        assert ours([case.data[:at], case.data[at:]], deflate=case.deflate)[0] == expected, at


def test_a_violation_is_final() -> None:
    inbound = Inbound(LIMIT)
    assert inbound.feed(HELLO + frame(CONT)) == [(TEXT, b"hello")]
    violation = inbound.violation
    assert violation is not None
    assert violation.code == 1002
    assert inbound.feed(HELLO + frame(TEXT, b"\xff")) == []
    assert inbound.violation is violation


def test_frames_are_counted() -> None:
    inbound = Inbound(LIMIT)
    inbound.feed(HELLO * 2 + frame(PING) + fragments(b"", b"", b"x") + HELLO[:-1])
    assert inbound.frames == 6
    inbound.feed(HELLO[-1:])
    assert inbound.frames == 7
    inbound.feed(frame(CLOSE) + HELLO)
    assert inbound.frames == 8


# a second opinion


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_websockets_agrees_about(case: Case) -> None:
    assert_agreed(case.data, LIMIT, case.deflate)


OPCODES = st.sampled_from([CONT, CONT, TEXT, TEXT, BINARY, CLOSE, PING, PONG, 3, 15])
PAYLOADS = st.one_of(
    st.binary(max_size=12),
    st.text(max_size=8).map(str.encode),
    st.sampled_from([*BAD_TEXTS.values(), b"\x03\xe8", b"\x03\xe8ok", b"x" * 125, b"x" * 126, b"x" * 201]),
    st.text(max_size=8).map(lambda text: deflate(text.encode())),
)


@st.composite
def any_frame(draw: st.DrawFn) -> bytes:
    fin = draw(st.sampled_from([True, True, False]))
    rsv = draw(st.sampled_from([0, 0, 0, 0, RSV1, RSV2]))
    mask = draw(st.sampled_from([MASK, bytes(4), b"\xff\x00\xf0\x0f"]))
    return frame(draw(OPCODES), draw(PAYLOADS), fin=fin, rsv=rsv, mask=mask)


NOISE = st.one_of(st.binary(max_size=8), any_frame().map(lambda data: data[: len(data) // 2]))
STREAMS = st.builds(
    lambda frames, end: b"".join(frames) + end, st.lists(any_frame(), max_size=8), st.just(b"") | NOISE
)


@given(data=STREAMS, deflate=st.booleans())
@example(data=closing(1000) + b"\xff\xff", deflate=False)
@settings(max_examples=200, deadline=None)
def test_websockets_agrees_about_any_bytes(data: bytes, deflate: bool) -> None:
    assert_agreed(data, 200, deflate)


@given(data=STREAMS, deflate=st.booleans(), cuts=st.lists(st.integers(0, 400), max_size=12))
@settings(max_examples=150, deadline=None)
def test_reads_may_be_of_any_size(data: bytes, deflate: bool, cuts: list[int]) -> None:
    whole, at_once = ours([data], 200, deflate)
    places = [0, *sorted(cuts), len(data)]
    pieces = [data[start:end] for start, end in pairwise(places)]
    for parts in (pieces, in_steps(data, 1)):
        outcome, inbound = ours(parts, 200, deflate)
        assert outcome == whole
        assert (inbound.frames, inbound.violation) == (at_once.frames, at_once.violation)


# bounds


def grown_by(inbound: Inbound, pieces: Iterable[bytes]) -> int:
    """The most bytes held while these are fed, beside what they were before."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for piece in pieces:
            inbound.feed(piece)
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def test_nothing_is_held_between_messages() -> None:
    inbound = Inbound(1 << 20)
    inbound.feed(frame(TEXT, b"x" * 100_000) + fragments(b"x" * 100_000, b"y") + HELLO)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        idle = [Inbound(1 << 20) for _ in range(1000)]
        for each in idle:
            each.feed(HELLO)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / 1000 < 200
    assert inbound.violation is None


def test_empty_fragments_hold_nothing() -> None:
    inbound = Inbound(LIMIT)
    inbound.feed(frame(TEXT, b"a", fin=False))
    flood = frame(CONT, fin=False) * 1000
    assert grown_by(inbound, [flood] * 20) < 5_000
    assert inbound.frames == 20_001
    assert inbound.feed(frame(CONT, b"b")) == [(TEXT, b"ab")]


def test_what_is_too_big_is_never_held() -> None:
    assert grown_by(Inbound(LIMIT), [header(TEXT, LIMIT + 1) + bytes(60_000)] * 10) < 5_000
    endless = frame(TEXT, b"x" * 40_000, fin=False), *[frame(CONT, b"x" * 40_000, fin=False)] * 10
    assert grown_by(Inbound(LIMIT), endless) < 3 * LIMIT


def test_a_bomb_is_not_inflated() -> None:
    bomb = frame(TEXT, deflate(bytes(20_000_000)), rsv=RSV1)
    inbound = Inbound(LIMIT, deflate=True)
    assert grown_by(inbound, [bomb]) < 4 * LIMIT
    assert inbound.violation is not None
    assert inbound.violation.code == 1009


def test_little_bombs_are_inflated_one_by_one() -> None:
    """Each is allowed; all at once they would hold up the loop, and the inbox nobody bounds by bytes."""
    message = bytes(LIMIT)
    data = frame(BINARY, deflate(message), rsv=RSV1) * 50 + frame(PING, b"p")
    inbound = Inbound(LIMIT, deflate=True)
    events = inbound.feed(data)
    assert len(events) == 2
    while inbound.is_holding:
        more = inbound.feed(b"")
        assert 1 <= len(more) <= 3
        events += more
    assert events == [(BINARY, message)] * 50 + [(PING, b"p")]


def test_what_is_skipped_is_not_inflated() -> None:
    inbound = Inbound(LIMIT, deflate=True)
    inbound.skip()
    data = frame(TEXT, deflate(bytes(20_000_000)), rsv=RSV1) + closing(1000)
    assert inbound.feed(data)[-1][0] == CLOSE


@pytest.mark.parametrize("step", [16, 65_536])
def test_a_large_message_costs_what_its_bytes_cost(step: int) -> None:
    """Copied with each read it would take minutes."""
    size = 8_000_000
    data = header(TEXT, size) + bytes(4) + b"x" * size
    parts = in_steps(data, step)
    started = time.perf_counter()
    assert ours(parts, size)[0] == Outcome([(TEXT, b"x" * size)], None)
    small = frame(CONT, b"x" * 10, fin=False)
    data = frame(TEXT, fin=False) + small * (size // 100) + frame(CONT)
    assert ours(in_steps(data, step), size)[0].events == [(TEXT, b"x" * (size // 10))]
    assert time.perf_counter() - started < 5


# what we send


def client(packs: bool = False) -> Theirs:
    return Theirs(CLIENT, 1 << 20, packs)


MESSAGES = ["", "hello", "é" * 63, "x" * 125, "x" * 126, "x" * 65_535, "x" * 65_536, "é" * 100_000]


@pytest.mark.parametrize("message", MESSAGES, ids=len)
def test_clients_read_what_we_send(message: str) -> None:
    payload = message.encode()
    plain, packing = client(), client(packs=True)
    plain.feed(framing.text(payload))
    packing.feed(framing.deflated(payload) + framing.text(payload) + framing.deflated(payload))
    assert (plain.events, plain.code) == ([(TEXT, payload)], None)
    assert (packing.events, packing.code) == ([(TEXT, payload)] * 3, None)


@pytest.mark.parametrize("message", MESSAGES, ids=len)
def test_we_read_what_clients_send(message: str) -> None:
    for packs in (False, True):
        sender = client(packs).protocol
        sender.send_text(message.encode())
        sender.send_ping(b"p")
        sender.send_text(message.encode()[:0], fin=False)
        sender.send_continuation(message.encode(), fin=True)
        sender.send_close(1001, "going")
        expected: list[Event] = [(TEXT, message.encode()), (PING, b"p"), (TEXT, message.encode())]
        outcome, _ = ours(sender.data_to_send(), 1 << 20, packs)
        assert outcome == Outcome([*expected, (CLOSE, b"\x03\xe9going")], None)


def test_compression_is_worth_it() -> None:
    payload = b'{"type":"message","conversation_id":"c-1","text":"the quick brown fox"}' * 5
    assert len(framing.deflated(payload)) < len(payload) / 3


def test_control_frames() -> None:
    receiver = client()
    receiver.feed(framing.control(PING, b"") + framing.control(PONG, b"p" * 125))
    assert (receiver.events, receiver.code) == ([(PING, b""), (PONG, b"p" * 125)], None)


@pytest.mark.parametrize(
    ("reason", "kept"), [("", ""), ("bye", "bye"), ("x" * 200, "x" * 123), ("é" * 62, "é" * 61)]
)
def test_a_reason_is_cut_between_characters(reason: str, kept: str) -> None:
    receiver = client()
    receiver.feed(framing.close(4429, reason))
    assert receiver.protocol.close_rcvd == TheirClose(4429, kept)


@pytest.mark.parametrize(
    ("payload", "found"),
    [(b"", None), (b"\x03\xe8", 1000), (b"\x11\x30bye", 4400), (b"\x03", 1002), (b"\x03\xe8\xff", 1007)],
)
def test_the_code_of_a_closing(payload: bytes, found: int | None) -> None:
    told = framing.close_of(payload)
    assert (told.code if isinstance(told, framing.Violation) else told) == found


# the handshake


def test_accept_key() -> None:
    """RFC 6455, 1.3."""
    assert framing.accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize(
    "offers",
    [
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits",  # browsers
        "permessage-deflate;client_max_window_bits=9",
        'permessage-deflate ; client_max_window_bits="10"\t; server_max_window_bits=15',
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        "permessage-deflate; server_max_window_bits=10, permessage-deflate",
        "x-webkit-deflate-frame, , permessage-deflate; unknown,permessage-deflate",
    ],
)
def test_an_offer_is_taken(offers: str) -> None:
    answer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
    if "server_max_window_bits=15" in offers:
        answer += "; server_max_window_bits=15"
    assert framing.negotiate(offers) == answer


@pytest.mark.parametrize(
    "offers",
    [
        "",
        ",",
        ";",
        "x-webkit-deflate-frame",
        "permessage-deflate-x",
        "permessage-deflate; unknown",
        "permessage-deflate;",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=14",
        "permessage-deflate; server_max_window_bits=015",
        "permessage-deflate; client_max_window_bits=7",
        "permessage-deflate; client_max_window_bits=16",
        "permessage-deflate; client_max_window_bits=",
        "permessage-deflate; client_max_window_bits=x",
        'permessage-deflate; client_max_window_bits="',
        "permessage-deflate; client_max_window_bits; client_max_window_bits",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; client_no_context_takeover=",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
    ],
)
def test_an_offer_is_declined(offers: str) -> None:
    assert framing.negotiate(offers) is None


@pytest.mark.parametrize("server_bits", [None, 10, 15])
@pytest.mark.parametrize("client_bits", [None, True, 9, 15])
@pytest.mark.parametrize("no_takeover", [False, True])
def test_a_client_accepts_the_answer(
    server_bits: int | None, client_bits: int | bool | None, no_takeover: bool
) -> None:
    """What it then sends and reads is as we have it."""
    factory = ClientPerMessageDeflateFactory(no_takeover, no_takeover, server_bits, client_bits)
    offer = build_extension([(factory.name, list(factory.get_request_params()))])
    answer = framing.negotiate(offer)
    if server_bits == 10:
        assert answer is None
        return
    assert answer is not None
    ((_, parameters),) = parse_extension(answer)
    extension = factory.process_response_params(parameters, [])
    peer = client()
    peer.protocol.extensions = [extension]
    for _ in range(2):
        peer.protocol.send_text(b"hello, hello, hello")
        peer.feed(framing.deflated(b"hello, hello, hello"))
    assert peer.events == [(TEXT, b"hello, hello, hello")] * 2
    assert ours(peer.protocol.data_to_send(), deflate=True)[0].events == [(TEXT, b"hello, hello, hello")] * 2
