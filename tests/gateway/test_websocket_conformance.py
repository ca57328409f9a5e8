"""The table of frames, and what is around it, on sockets: bytes in, bytes out, and how it ends."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from websockets.protocol import CLIENT

from kit.wait import until
from secureconnect.config import RateLimitsConfig
from secureconnect.edge import Frame

from .frames import BINARY, CLOSE, CONT, PING, PONG, RSV1, TEXT, closing, fragments, frame, header
from .framing_cases import CASES, HELLO, LIMIT, Case, Event, deflate
from .framing_oracle import Theirs
from .house import WITHIN_S, House, Raw, Response, open_house

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455, 1.3
OFFER = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
HANDSHAKE = (
    "Host: localhost",
    "Authorization: Bearer ann",
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    f"Sec-WebSocket-Key: {KEY}",
)
SERVER_LIMIT = 1 << 24


class Peer:
    """A client that says any bytes, and reads frames."""

    def __init__(self, raw: Raw, packs: bool) -> None:
        self.raw = raw
        self._heard = Theirs(CLIENT, SERVER_LIMIT, packs)

    @property
    def events(self) -> list[Event]:
        return self._heard.events

    async def send(self, data: bytes) -> None:
        await self.raw.send(data)

    async def read(self) -> bool:
        """Whether there was anything before the FIN."""
        data, self.raw.buffer = self.raw.buffer, b""
        if not data:
            with trio.fail_after(WITHIN_S):
                data = await self.raw.stream.receive_some(65_536)
        if data:
            self._heard.feed(data)
        assert self._heard.code is None, "the server's frames are wrong"
        return bool(data)

    async def hear(self, *expected: Event) -> None:
        """The next events are these, in any order: pongs do not wait for the room."""
        while len(self.events) < len(expected):
            assert await self.read(), f"the end instead of {expected}"
        heard, self._heard.events = self.events[: len(expected)], self.events[len(expected) :]
        assert sorted(heard) == sorted(expected)

    async def hear_close(self) -> int | None:
        """The code of the CLOSE, whatever is before it."""
        while not self.events or self.events[-1][0] != CLOSE:
            assert await self.read(), "an end without a CLOSE"
        return int.from_bytes(self.events[-1][1][:2], "big") or None

    async def hear_end(self) -> None:
        """The server's FIN, and nothing before it."""
        before = len(self.events)
        while await self.read():
            pass
        assert len(self.events) == before


async def shake(house: House, lines: Sequence[str], request: str = "GET /v1/ws/echo HTTP/1.1") -> Raw:
    raw = await house.connect()
    await raw.send("\r\n".join((request, *lines, "", "")).encode("latin-1"))
    return raw


@asynccontextmanager
async def open_peer(house: House, *lines: str, packs: bool = False) -> AsyncIterator[Peer]:
    raw = await shake(house, (*HANDSHAKE, *lines, *([OFFER] if packs else [])))
    async with raw.stream:
        response = await raw.response()
        assert response.status == 101
        assert ("sec-websocket-extensions" in response.headers) is packs
        yield Peer(raw, packs)


# the table


def code_for(case: Case) -> int | None:
    """What a case ends with on the server: it takes text alone."""
    codes = {BINARY: 4400, CLOSE: 0}
    for opcode, payload in case.events:
        if opcode in codes:
            return codes[opcode] or int.from_bytes(payload[:2], "big") or None
    return case.code or 1000


async def check(house: House, case: Case) -> None:
    async with open_peer(house, packs=case.deflate) as peer:
        expected = [
            (PONG if opcode == PING else opcode, payload)
            for opcode, payload in case.events
            if opcode in (TEXT, PING)
        ]
        with trio.fail_after(WITHIN_S):
            async with trio.open_nursery() as nursery:  # large cases are echoed while they are sent
                nursery.start_soon(peer.send, case.data)
                is_sound = case.code is None and all(
                    opcode in (TEXT, PING, PONG) for opcode, _ in case.events
                )
                if is_sound:
                    await peer.hear(*expected)
        if is_sound:
            await peer.send(closing(1000))
        assert await peer.hear_close() == code_for(case)
        assert all(event in expected for event in peer.events[:-1])
        await peer.raw.stream.send_eof()
        await peer.hear_end()


@pytest.mark.parametrize("deflates", [False, True])
async def test_every_case(deflates: bool) -> None:
    cases = [case for case in CASES if case.deflate is deflates]
    async with open_house(
        RateLimitsConfig(socket=10_000),
        ws_frame_limit_bytes=LIMIT,
        ws_compression=deflates,
        close_timeout_s=WITHIN_S,
    ) as house:
        for case in cases:
            try:
                await check(house, case)
            except BaseException as exc:
                exc.add_note(case.name)
                raise
        await until(lambda: house.open_connections == 0)


# the end


@asynccontextmanager
async def patient_house(**settings: Any) -> AsyncIterator[House]:
    """Nothing here ends because time is up."""
    async with open_house(close_timeout_s=2 * WITHIN_S, **settings) as house:
        yield house


@pytest.mark.parametrize(
    "payload", [b"", b"\x03\xe8", b"\x03\xe9going", b"\x0b\xb8", b"\x13\x87" + b"x" * 123]
)
async def test_the_client_closes(payload: bytes) -> None:
    """The code comes back, and the server ends the connection before the client does."""
    async with patient_house() as house, open_peer(house) as peer:
        await peer.send(frame(CLOSE, payload))
        await peer.hear((CLOSE, payload[:2]))
        await peer.hear_end()
        await peer.raw.stream.aclose()
        await until(lambda: house.open_connections == 0)


async def test_the_client_closes_and_hangs_up_at_once() -> None:
    async with patient_house() as house, open_peer(house) as peer:
        await peer.send(HELLO)
        await peer.hear((TEXT, b"hello"))
        await peer.send(closing(1000))
        await peer.raw.stream.send_eof()
        await peer.hear((CLOSE, b"\x03\xe8"))
        await peer.hear_end()
        await until(lambda: house.open_connections == 0)


async def test_the_client_hangs_up_without_closing() -> None:
    async with patient_house() as house, open_peer(house) as peer:
        await peer.send(HELLO)
        await peer.hear((TEXT, b"hello"))
        await peer.raw.stream.send_eof()
        while await peer.read():
            pass
        await until(lambda: house.open_connections == 0)
        assert not house.room.sockets[0].offer(Frame(b"x"))


async def test_nothing_is_heard_after_a_closing() -> None:
    async with patient_house() as house, open_peer(house) as peer:
        await peer.send(closing(1000) + HELLO + frame(PING) + b"\xff\xff")
        await peer.hear((CLOSE, b"\x03\xe8"))
        await peer.send(HELLO + frame(PING))
        await peer.hear_end()
        assert house.room.received == []


async def test_the_server_closes_and_hears_the_answer() -> None:
    """Messages that cross its CLOSE are thrown away; the FIN comes with the client's CLOSE."""
    async with patient_house() as house, open_peer(house) as peer:
        await peer.send(frame(TEXT, b"leave"))
        await peer.hear((CLOSE, b"\x03\xe8"))
        await peer.send(HELLO + frame(PING) + fragments(b"a", b"b") + closing(1000))
        await peer.hear_end()
        assert house.room.received == [b"leave"]


WRONG = {
    "no UTF-8": (frame(TEXT, b"\xff"), 1007),
    "too big": (header(TEXT, LIMIT + 1), 1009),
    "too big in fragments": (frame(TEXT, b"x" * LIMIT, fin=False) + header(CONT, 1), 1009),
    "not masked": (header(TEXT, 5, bit=0), 1002),
    "one inside another": (frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), 1002),
    "binary": (frame(BINARY), 4400),
}


@pytest.mark.parametrize("name", WRONG)
async def test_why_it_closed_arrives_though_the_client_goes_on(name: str) -> None:
    """Unread bytes must not become a reset that eats the CLOSE."""
    data, code = WRONG[name]
    async with open_house(ws_frame_limit_bytes=LIMIT, close_timeout_s=0.3) as house, open_peer(house) as peer:
        await peer.send(data + HELLO * 2000)
        assert await peer.hear_close() == code
        await peer.send(HELLO * 2000)
        await peer.hear_end()
        assert house.room.received == []


# while a message is under way


async def test_a_ping_is_answered_amid_a_message() -> None:
    async with patient_house() as house, open_peer(house) as peer:
        await peer.send(frame(TEXT, b"hel", fin=False))
        for payload in (b"", b"one", bytes(125)):
            await peer.send(frame(PING, payload))
            await peer.hear((PONG, payload))
        await peer.send(frame(PONG, b"unasked") + frame(CONT, b"lo"))
        await peer.hear((TEXT, b"hello"))


async def test_a_message_is_too_big_before_it_is_here() -> None:
    async with open_house(ws_frame_limit_bytes=2000) as house, open_peer(house) as peer:
        await peer.send(frame(TEXT, b"x" * 1500, fin=False) + frame(PING, b"p") + header(CONT, 501))
        await peer.hear((PONG, b"p"), (CLOSE, (1009).to_bytes(2, "big") + b"the message is too big"))


async def test_bytes_may_come_one_by_one() -> None:
    async with patient_house() as house, open_peer(house) as peer:
        for byte in HELLO + fragments(b"wor", b"", b"ld") + frame(PING, b"p"):
            await peer.send(bytes((byte,)))
        await peer.hear((TEXT, b"hello"), (TEXT, b"world"), (PONG, b"p"))


@pytest.mark.parametrize(
    "flood",
    [
        frame(PING),
        frame(PONG, b"unasked"),
        frame(CONT, fin=False),
        frame(TEXT, b"x"),
        frame(TEXT, b"x", fin=False) + frame(CONT),
    ],
    ids=["pings", "pongs", "empty fragments", "messages", "messages in fragments"],
)
@pytest.mark.parametrize("at_once", [False, True])
async def test_too_many_frames(flood: bytes, at_once: bool) -> None:
    async with open_house(ws_frames_per_10s=50) as house, open_peer(house) as peer:
        if flood[0] == CONT:
            await peer.send(frame(TEXT, fin=False))
        if at_once:
            await peer.send(flood * 100)
        else:
            for _ in range(40):
                await peer.send(flood)
            await peer.send(flood * 20)
        assert await peer.hear_close() == 4429
        assert len(house.room.received) <= 50


async def test_as_many_frames_as_are_allowed() -> None:
    async with open_house(ws_frames_per_10s=50) as house, open_peer(house) as peer:
        await peer.send(frame(PING, b"p") * 40 + fragments(*[b"x"] * 9) + HELLO)
        await peer.hear(*[(PONG, b"p")] * 40, (TEXT, b"x" * 9), (TEXT, b"hello"))


# compression


async def test_compressed_both_ways() -> None:
    message = b"hello, " * 2000
    packed = frame(TEXT, deflate(message), rsv=RSV1)
    async with patient_house(ws_compression=True) as house, open_peer(house, packs=True) as peer:
        for _ in range(2):
            await peer.send(packed)
            assert (await peer.raw.stream.receive_some(1))[0] == 0x80 | RSV1 | TEXT
            peer.raw.buffer = bytes((0x80 | RSV1 | TEXT,))
            await peer.hear((TEXT, message))
        await peer.send(
            HELLO + frame(PING, b"p") + fragments(deflate(message)[:9], deflate(message)[9:], rsv=RSV1)
        )
        await peer.hear((TEXT, b"hello"), (PONG, b"p"), (TEXT, message))


async def test_a_compressed_and_a_plain_client_hear_the_same() -> None:
    async with (
        patient_house(ws_compression=True) as house,
        open_peer(house) as plain,
        open_peer(house, packs=True) as packing,
    ):
        for peer in (plain, packing):
            await peer.send(HELLO)
            await peer.hear((TEXT, b"hello"))


# the handshake


def without(name: str) -> list[str]:
    return [line for line in HANDSHAKE if not line.startswith(f"{name}:")]


def replaced(*lines: str) -> list[str]:
    names = {line.partition(":")[0].lower() for line in lines}
    return [*(line for line in HANDSHAKE if line.partition(":")[0].lower() not in names), *lines]


async def shaken(house: House, lines: Sequence[str], request: str = "GET /v1/ws/echo HTTP/1.1") -> Response:
    raw = await shake(house, lines, request)
    async with raw.stream:
        return await raw.response()


ACCEPTED: dict[str, Iterable[str]] = {
    "as it should be": HANDSHAKE,
    "in any case": replaced("CONNECTION: UPGRADE", "uPgRaDe: WebSocket"),
    "connection with other tokens": replaced("Connection: keep-alive, Upgrade"),
    "connection with empty tokens": replaced("Connection: ,keep-alive ,, upgrade,"),
    "connection on two lines": replaced("Connection: keep-alive", "Connection: Upgrade"),
    "upgrade among others": replaced("Upgrade: h2c, websocket"),
    "blanks around values": replaced("Sec-WebSocket-Version: \t13 ", f"Sec-WebSocket-Key:  {KEY}\t"),
    "an empty body": replaced("Content-Length: 0"),
}
REFUSED: dict[str, Iterable[str]] = {
    "no version": without("Sec-WebSocket-Version"),
    "version 8": replaced("Sec-WebSocket-Version: 8"),
    "version 14": replaced("Sec-WebSocket-Version: 14"),
    "version 13, 8": replaced("Sec-WebSocket-Version: 13, 8"),
    "version 013": replaced("Sec-WebSocket-Version: 013"),
    "the version twice": [*HANDSHAKE, "Sec-WebSocket-Version: 13"],
    "no key": without("Sec-WebSocket-Key"),
    "an empty key": replaced("Sec-WebSocket-Key:"),
    "a key of 15 bytes": replaced("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAA"),
    "a key of 17 bytes": replaced("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAA="),
    "a key without padding": replaced(f"Sec-WebSocket-Key: {KEY[:-2]}"),
    "a key that is no base64": replaced("Sec-WebSocket-Key: ~HNhbXBsZSBub25jZQ0000=="),
    "the key twice": [*HANDSHAKE, f"Sec-WebSocket-Key: {KEY}"],
    "no host": without("Host"),
    "a body": replaced("Content-Length: 5"),
    "a chunked body": replaced("Transfer-Encoding: chunked"),
    "no connection": without("Connection"),
    "another connection": replaced("Connection: keep-alive"),
    "a connection that only contains it": replaced("Connection: upgrades"),
    "no upgrade": without("Upgrade"),
    "another upgrade": replaced("Upgrade: websockets"),
}


@pytest.mark.parametrize("name", ACCEPTED)
async def test_a_handshake_is_accepted(house: House, name: str) -> None:
    response = await shaken(house, list(ACCEPTED[name]))
    assert response.status == 101
    assert response.headers["connection"].lower() == "upgrade"
    assert response.headers["upgrade"].lower() == "websocket"
    assert response.headers["sec-websocket-accept"] == ACCEPT
    assert not response.headers.keys() & {
        "sec-websocket-protocol",
        "sec-websocket-extensions",
        "content-length",
        "transfer-encoding",
    }


@pytest.mark.parametrize("name", REFUSED)
async def test_a_handshake_is_refused(house: House, name: str) -> None:
    response = await shaken(house, list(REFUSED[name]))
    assert (response.status, response.code) == (400, "MALFORMED")
    assert "sec-websocket-accept" not in response.headers


async def test_only_http_1_1_is_upgraded(house: House) -> None:
    response = await shaken(house, HANDSHAKE, "GET /v1/ws/echo HTTP/1.0")
    assert (response.status, response.code) == (400, "MALFORMED")


@pytest.mark.parametrize("method", ["POST", "PUT", "OPTIONS", "HEAD"])
async def test_only_get_is_upgraded(house: House, method: str) -> None:
    raw = await shake(house, HANDSHAKE, f"{method} /v1/ws/echo HTTP/1.1")
    async with raw.stream:
        response = await raw.response(method)
        assert response.status >= 400 or method == "OPTIONS"
        assert "sec-websocket-accept" not in response.headers
    await until(lambda: house.open_connections == 0)
    assert house.room.sockets == []


@pytest.mark.parametrize(
    ("lines", "chosen"),
    [
        (["secureconnect.v1"], "secureconnect.v1"),
        (["other, secureconnect.v1"], "secureconnect.v1"),
        (["other", "secureconnect.v1"], "secureconnect.v1"),
        (["other"], None),
        (["SecureConnect.v1"], None),
        (["secureconnect.v10"], None),
    ],
)
async def test_a_subprotocol_is_chosen(house: House, lines: list[str], chosen: str | None) -> None:
    response = await shaken(house, [*HANDSHAKE, *(f"Sec-WebSocket-Protocol: {line}" for line in lines)])
    assert response.status == 101
    assert response.headers.get("sec-websocket-protocol") == chosen


AGREED = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"


@pytest.mark.parametrize(
    ("lines", "agreed"),
    [
        (["permessage-deflate"], AGREED),
        (["permessage-deflate; server_max_window_bits=9", "permessage-deflate"], AGREED),
        (["x-unknown; a=1", "permessage-deflate; client_max_window_bits"], AGREED),
        (["permessage-deflate; server_max_window_bits=15"], f"{AGREED}; server_max_window_bits=15"),
        (["permessage-deflate; server_max_window_bits=9"], None),
        (["x-unknown"], None),
        ([""], None),
    ],
)
async def test_an_extension_is_agreed_on(lines: list[str], agreed: str | None) -> None:
    async with open_house(ws_compression=True) as house:
        given = [*HANDSHAKE, *(f"Sec-WebSocket-Extensions: {line}" for line in lines)]
        response = await shaken(house, given)
        assert response.status == 101
        assert response.headers.get("sec-websocket-extensions") == agreed


async def test_frames_may_come_with_the_handshake(house: House) -> None:
    """And be cut anywhere."""
    request = "\r\n".join(("GET /v1/ws/echo HTTP/1.1", *HANDSHAKE, "", "")).encode()
    data = request + HELLO + frame(PING, b"p")
    for at in itertools.chain(range(len(request) - 3, len(data), 3), [len(data)]):
        raw = await house.connect()
        async with raw.stream:
            await raw.send(data[:at])
            if data[at:]:
                await raw.send(data[at:])
            assert (await raw.response()).status == 101
            await Peer(raw, packs=False).hear((TEXT, b"hello"), (PONG, b"p"))
