"""One port: a connection may begin with a PROXY header, then TLS, then either version of HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from hyperframe.frame import GoAwayFrame
from structlog.testing import capture_logs

from kit.scrape import value
from kit.wait import until

from .house import House, Raw, Response, open_house
from .peer import Peer
from .port import authority

V1 = b"PROXY TCP4 203.0.113.7 198.51.100.2 56324 80\r\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes([203, 0, 113, 7, 198, 51, 100, 2, 0xDC, 4, 0, 80])
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
HERALDS: dict[str, Any] = {"proxy_protocol_from": ("127.0.0.1",)}
Ask = Callable[[trio.abc.Stream], Awaitable[str]]


def secured(folder: Path) -> dict[str, Any]:
    config = authority().issue(folder)
    return {"tls_certificate": config.tls_certificate, "tls_key": config.tls_key}


async def by_http1(stream: trio.abc.Stream) -> str:
    """Returns the address that the server took the client for."""
    raw = Raw(stream)  # type: ignore[arg-type]
    await raw.request("GET", "/v1/open")
    return str((await raw.response()).json["data"]["address"])


async def by_http2(stream: trio.abc.Stream) -> str:
    peer = Peer(stream)  # type: ignore[arg-type]
    await peer.greet()
    return str(Response(200, {}, (await peer.get("/v1/open")).body).json["data"]["address"])


@asynccontextmanager
async def through_tls(stream: trio.SocketStream, *protocols: str) -> AsyncIterator[trio.SSLStream[Any]]:
    context = authority().client(*protocols)
    async with trio.SSLStream(stream, context, server_hostname="localhost", https_compatible=True) as secure:
        with trio.fail_after(5):
            await secure.do_handshake()
        yield secure


@pytest.mark.parametrize("ask", [by_http1, by_http2])
@pytest.mark.parametrize(
    ("header", "address"), [(V1, "203.0.113.7"), (V2, "203.0.113.7"), (LOCAL, "127.0.0.1")]
)
@pytest.mark.parametrize("secure", [False, True])
async def test_a_proxy_says_who_it_speaks_for(
    tmp_path: Path, ask: Ask, header: bytes, address: str, secure: bool
) -> None:
    async with open_house(**HERALDS, **(secured(tmp_path) if secure else {})) as house:
        stream = (await house.connect()).stream
        await stream.send_all(header)
        if secure:
            async with through_tls(stream, "h2" if ask is by_http2 else "http/1.1") as inner:
                assert await ask(inner) == address
        else:
            assert await ask(stream) == address


async def test_everything_in_one_packet_or_byte_by_byte() -> None:
    request = b"GET /v1/open HTTP/1.1\r\nhost: x\r\n\r\n"
    async with open_house(**HERALDS) as house:
        for size in (1, 1000):
            for header in (V1, V2):
                raw = await house.connect()
                for start in range(0, len(header + request), size):
                    await raw.send((header + request)[start : start + size])
                assert (await raw.response()).json["data"]["address"] == "203.0.113.7"


async def test_a_connection_without_its_header_is_closed_unanswered() -> None:
    failed = value("secureconnect_gateway_connections_failed_total", step="proxy_header")
    with capture_logs() as logged:
        async with open_house(**HERALDS) as house:
            for said in (b"GET /v1/open HTTP/1.1\r\n\r\n", b"PROXY TCP4 x\r\n", V2[:-1]):
                raw = await house.connect()
                await raw.send(said)
                await raw.stream.send_eof()
                assert await raw.ended() == b""
            await until(lambda: house.open_connections == 0)
    assert value("secureconnect_gateway_connections_failed_total", step="proxy_header") == failed + 3
    told = [line for line in logged if line["event"] == "proxy_header_refused"]
    assert [(line["log_level"], line["peer"]) for line in told] == [("warning", "127.0.0.1")] * 3


async def test_a_proxy_speaks_for_as_many_as_there_is_room_for() -> None:
    request = b"GET /v1/open HTTP/1.1\r\nhost: x\r\n\r\n"
    async with open_house(max_connections=2, max_connections_per_address=1, **HERALDS) as house:
        first, second = await house.connect(), await house.connect()
        await first.send(V1 + request)
        assert (await first.response()).status == 200
        await second.send(V2 + request)  # of the same client
        refused = await second.response()
        assert (refused.status, refused.code) == (429, "RATE_LIMITED")
        assert await second.ended() == b""
        await until(lambda: house.open_connections == 1)
        third = await house.connect()
        await third.send(V1.replace(b"203.0.113.7", b"203.0.113.8") + request)  # the last place there is
        assert (await third.response()).status == 200


async def test_a_header_that_does_not_come_is_not_waited_for() -> None:
    async with open_house(header_timeout_s=0.2, **HERALDS) as house:
        raw = await house.connect()
        await raw.send(V1[:-1])
        assert await raw.ended() == b""


async def test_nobody_else_may_name_another_address(house: House) -> None:
    raw = await house.connect()
    await raw.send(V1)
    assert (await raw.response()).status == 400


async def test_the_preface_may_come_slowly(house: House) -> None:
    raw = await house.connect()
    peer = Peer(raw.stream)
    send = raw.stream.send_all

    async def slowly(data: bytes) -> None:
        for each in data:
            await send(bytes([each]))

    raw.stream.send_all = slowly  # type: ignore[method-assign,assignment]
    await peer.greet()
    assert (await peer.get("/v1/open")).status == 200


@pytest.mark.parametrize("said", [b"P", b"PRI", b"PRI * HTTP/2.0\r\n", b"PRI * HTTP/2.0\r\n\r\nS"])
async def test_half_a_preface_is_not_waited_for(said: bytes) -> None:
    async with open_house(header_timeout_s=0.2) as house:
        raw = await house.connect()
        await raw.send(said)
        await raw.ended()
        await until(lambda: house.open_connections == 0)


async def test_http2_over_tls_is_agreed_on_first(tmp_path: Path) -> None:
    async with open_house(**secured(tmp_path)) as house:
        stream = (await house.connect()).stream
        async with through_tls(stream, "http/1.1") as inner:
            await Peer(inner).greet()  # type: ignore[arg-type]
            assert (await inner.receive_some(1000)).startswith(b"HTTP/1.1 400 ")


async def test_a_certificate_is_reloaded_while_connections_live(tmp_path: Path) -> None:
    async with open_house(**secured(tmp_path)) as house:
        stream = (await house.connect()).stream
        async with through_tls(stream) as old:
            shown = old.getpeercert(binary_form=True)
            authority().issue(tmp_path)
            await house.gateway.reload()
            async with through_tls((await house.connect()).stream) as new:
                assert new.getpeercert(binary_form=True) != shown
                assert await by_http1(new) == "127.0.0.1"
            assert await by_http1(old) == "127.0.0.1"


@pytest.mark.parametrize("asks", [False, True])
async def test_http2_when_the_server_drains(asks: bool) -> None:
    async with open_house(drain_s=0.3) as house:
        peer = Peer((await house.connect()).stream)
        await peer.greet()
        await peer.get("/v1/open")
        number = await peer.ask("/v1/hang") if asks else 1
        if asks:
            with trio.fail_after(5):
                await house.room.entered.wait()
        started = trio.current_time()
        house.nursery.start_soon(house.gateway.drain)
        assert (await peer.frame(GoAwayFrame)).last_stream_id == number
        await peer.over()
        await until(lambda: house.open_connections == 0)
        assert trio.current_time() - started < 2


async def test_a_client_of_http2_that_leaves_ends_its_request(house: House) -> None:
    peer = Peer((await house.connect()).stream)
    await peer.greet()
    await peer.ask("/v1/hang")
    with trio.fail_after(5):
        await house.room.entered.wait()
    await peer.stream.aclose()
    await until(lambda: house.open_connections == 0)
