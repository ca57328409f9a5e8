"""One connection and its client: kept, refused, cut, and never left behind."""

from __future__ import annotations

import errno
import random
import socket
import tracemalloc
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from kit.scrape import value
from kit.wait import until
from secureconnect.config import GatewayConfig, MemoryConfig, RateLimitsConfig
from secureconnect.deps.memory import MemoryCache
from secureconnect.edge import Audience, Call, Rate, Reply, Route
from secureconnect.errors import RateLimited
from secureconnect.gateway.admission import Gate
from secureconnect.gateway.faults import Fault
from secureconnect.gateway.http1 import Http1, Site
from secureconnect.gateway.listener import Listener, listen
from secureconnect.gateway.routing import Router
from secureconnect.gateway.seam import Seam
from secureconnect.gateway.tls import Certificates
from secureconnect.gateway.websocket import OpenSocket, Sockets

from .house import House, Raw, Seen, Tokens, counted, narrow_stream, open_house

JSON = {"content-type": "application/json"}


async def test_a_connection_is_kept_and_used_again(house: House) -> None:
    raw = await house.connect()
    async with raw.stream:
        for _ in range(3):
            await raw.request("GET", "/v1/open")
            response = await raw.response()
            assert response.status == 200
            assert "connection" not in response.headers
        await raw.request("POST", "/v1/notes", JSON, b'{"text": "x"}')
        assert (await raw.response()).status == 200
        await raw.request("GET", "/v1/open", {"connection": "close"})
        assert (await raw.response()).headers["connection"] == "close"
        assert await raw.ended() == b""


async def test_pipelined_requests_are_answered_in_order(house: House) -> None:
    raw = await house.connect()
    async with raw.stream:
        one = b"GET /v1/named/%d HTTP/1.1\r\nhost: x\r\n\r\n"
        await raw.send(b"".join(one % number for number in range(5)))
        for _ in range(5):
            assert (await raw.response()).status == 200
        await raw.send(b"GET /v1/open HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" + one % 6)
        assert (await raw.response()).status == 200
        assert await raw.ended() == b""
    await until(lambda: house.open_connections == 0)


async def test_a_request_that_comes_as_its_connection_ends_is_answered_or_not_begun() -> None:
    begun: list[Call] = []

    async def act(_: object, call: Call) -> Reply:
        begun.append(call)
        await trio.lowlevel.checkpoint()
        return Reply(Seen())

    route = Route("POST", "/v1/act", act, Audience.ANYONE, Rate.NONE, "Act", answer=Seen)
    async with open_house(routes=[route]) as house:
        for wait in (False, True) * 5:
            raw = await house.connect()
            async with raw.stream:
                await raw.request("GET", "/v1/open")
                await raw.response()
                (connection,) = house.gateway._listener._open
                await trio.testing.wait_all_tasks_blocked()
                raw.stream.socket._sock.send(  # type: ignore[attr-defined]
                    b"POST /v1/act HTTP/1.1\r\nhost: x\r\n\r\n"
                )
                if wait:  # until it was read, and its task is about to run
                    await trio.lowlevel.checkpoint()
                connection.end_if_idle()
                answered = b""
                with trio.fail_after(5), suppress(trio.BrokenResourceError):
                    answered = await raw.stream.receive_some(4096)
                assert answered.startswith(b"HTTP/1.1 200 ") or not begun
                begun.clear()
            await until(lambda: house.open_connections == 0)


async def test_a_long_pipeline_waits_as_bytes(house: House) -> None:
    """Made into requests, it would weigh twenty times as much."""
    pipeline = b"GET /v1/large HTTP/1.1\r\nhost:x\r\n\r\n" + b"GET / HTTP/1.1\r\nhost:x\r\n\r\n" * 2_000
    raw = Raw(await narrow_stream(house))
    async with raw.stream:
        await raw.send(pipeline)
        (connection,) = house.gateway._listener._open
        await until(lambda: connection._transport._draining is not None)
        assert isinstance(connection._engine, Http1)
        assert 0 < len(connection._engine._requests.waiting) < 100
    await until(lambda: house.open_connections == 0)


async def test_a_broken_body_for_a_page_harms_nothing(house: House) -> None:
    """Nobody reads it; the answer is the last on its connection."""
    raw = await house.connect()
    async with raw.stream:
        await raw.request("GET", "/docs", {"transfer-encoding": "chunked"}, data=b"zz\r\n")
        page = await raw.response()
        assert (page.status, page.headers["connection"]) == (200, "close")
        assert await raw.ended() == b""


# An answer before the body was read


EARLY = [
    ("POST", "/v1/mine", {}, 401),
    ("POST", "/v1/nowhere", {}, 404),
    ("PUT", "/v1/open", {}, 405),
    ("OPTIONS", "/v1/open", {}, 204),
    ("POST", "/v1/notes", {"content-type": "text/plain"}, 415),
    ("POST", "/v1/notes", JSON | {"content-length": "99999999"}, 413),
    ("POST", "/v1/notes", JSON | {"origin": "null"}, 403),
    ("GET", "/v1/open", {}, 200),
]


@pytest.mark.parametrize(("method", "path", "headers", "status"), EARLY)
async def test_after_an_early_answer_the_connection_is_closed_properly(
    house: House, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    raw = await house.connect()
    async with raw.stream:
        await raw.request(method, path, {"content-length": "1000", **headers})
        await raw.send(b"the beginning of a body")
        response = await raw.response()
        assert (response.status, response.headers["connection"]) == (status, "close")
        assert await raw.ended() == b""
    await until(lambda: house.open_connections == 0)


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"), [each for each in EARLY if "content-length" not in each[2]]
)
async def test_with_its_body_there_the_connection_is_kept(
    house: House, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    raw = await house.connect()
    async with raw.stream:
        for _ in range(3):
            await raw.request(method, path, headers, b"x" * 1000)
            response = await raw.response(method)
            assert response.status == status
            assert "connection" not in response.headers
        await raw.request("GET", "/v1/open")
        assert (await raw.response()).status == 200


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_client_that_goes_on_sending_gets_the_whole_413(chunked: bool) -> None:
    async with open_house(body_limit_bytes=100_000, close_timeout_s=5) as house:
        raw = await house.connect()
        async with raw.stream:
            size = 20_000_000
            length = {"transfer-encoding": "chunked"} if chunked else {"content-length": str(size)}
            await raw.request("POST", "/v1/notes", JSON | length)
            piece = b"x" * 50_000
            if chunked:
                piece = b"%x\r\n%s\r\n" % (len(piece), piece)
            for _ in range(size // 50_000):
                await raw.send(piece)
            response = await raw.response()
            assert (response.status, response.code) == (413, "PAYLOAD_TOO_LARGE")
            assert await raw.ended() == b""
        await until(lambda: house.open_connections == 0)


async def test_many_early_answers_leave_nothing_behind() -> None:
    async with open_house(close_timeout_s=0.3) as house:
        before = _held()

        async def one(number: int) -> None:
            method, path, headers, status = EARLY[number % len(EARLY)]
            raw = await house.connect()
            async with raw.stream:
                await raw.request(method, path, {"content-length": "1000", **headers})
                assert (await raw.response()).status == status
                if number % 2:
                    await raw.ended()
                else:  # neither reads nor closes: the server has to
                    await until(lambda: house.open_connections == 0)

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(one, number)
        await until(lambda: house.open_connections == 0)
        assert _held() == before


async def test_expect_100_continue(house: House) -> None:
    raw = await house.connect()
    async with raw.stream:
        await raw.request("POST", "/v1/notes", JSON | {"expect": "100-continue", "content-length": "13"})
        assert (await raw.response()).status == 100
        await raw.send(b'{"text": "x"}')
        assert (await raw.response()).status == 200


# Slow clients


async def test_a_body_that_does_not_come_is_408() -> None:
    async with open_house(body_timeout_s=0.2) as house:
        raw = await house.connect()
        async with raw.stream:
            await raw.request("POST", "/v1/notes", JSON | {"content-length": "100"})
            response = await raw.response()
            assert (response.status, response.code) == (408, "REQUEST_TIMEOUT")
            assert await raw.ended() == b""


async def test_a_head_that_does_not_come_is_408() -> None:
    async with open_house(header_timeout_s=0.2) as house:
        raw = await house.connect()
        async with raw.stream:
            await raw.send(b"GET /v1/open HTTP/1.1\r\n")
            assert (await raw.response()).status == 408
            assert await raw.ended() == b""
        silent = await house.connect()
        async with silent.stream:
            assert await silent.ended() == b""


async def test_a_head_in_drops_does_not_earn_more_time() -> None:
    async with open_house(header_timeout_s=0.3, keep_alive_s=60) as house:
        raw = await house.connect()
        async with raw.stream:
            await raw.request("GET", "/v1/open")
            await raw.response()
            await raw.send(b"GET /v1/open HTTP/1.1\r\n")
            with trio.fail_after(3):
                while not raw.stream.socket.is_readable():
                    await raw.send(b"x-a: b\r\n")
                    await trio.sleep(0.01)
            assert (await raw.response()).status == 408


async def test_an_idle_connection_is_closed() -> None:
    async with open_house(keep_alive_s=0.2) as house:
        raw = await house.connect()
        async with raw.stream:
            await raw.request("GET", "/v1/open")
            await raw.response()
            assert await raw.ended() == b""


async def test_a_client_that_never_reads_is_cut() -> None:
    async with open_house(write_timeout_s=0.3) as house:
        raw = await house.connect()
        async with raw.stream:
            await raw.request("GET", "/v1/large")
            await until(lambda: house.open_connections == 0)
        # and nobody else has suffered
        assert (await house.ask("GET", "/v1/open")).status == 200


async def test_a_client_that_reads_gets_a_large_answer(house: House) -> None:
    assert len((await house.ask("GET", "/v1/large")).json["data"]["text"]) == 20_000_000


async def test_clients_that_never_read_share_what_they_are_sent(house: House) -> None:
    """Each would hold some megabytes otherwise, and nobody knows them."""
    bundle = "/docs/swagger-ui-bundle.js"
    size = len((await house.ask("GET", bundle)).body)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        async with AsyncExitStack() as stack:
            for _ in range(20):
                raw = Raw(await stack.enter_async_context(await narrow_stream(house)))
                await raw.request("GET", bundle)
            open_now = house.gateway._listener._open
            await until(lambda: sum(each._transport._draining is not None for each in open_now) == 20)
            after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 20 * size / 4


async def test_a_client_that_leaves_ends_its_request(house: House) -> None:
    raw = await house.connect()
    await raw.request("GET", "/v1/hang")
    with trio.fail_after(5):
        await house.room.entered.wait()
    await raw.stream.aclose()
    await until(lambda: house.open_connections == 0)


async def test_a_reset_during_the_body_leaves_nothing(house: House) -> None:
    for _ in range(20):
        raw = await house.connect()
        await raw.request("POST", "/v1/notes", JSON | {"content-length": "1000"})
        raw.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        await raw.stream.aclose()
    await until(lambda: house.open_connections == 0)


# Rubbish


async def test_rubbish_harms_nobody() -> None:
    """Random bytes, and requests with random bytes in them: everything ends, and nothing of ours breaks."""
    chance = random.Random(7)
    grains = [
        b"GET /v1/open HTTP/1.1\r\n",
        b"POST /v1/notes HTTP/1.1\r\n",
        b"host: x\r\n",
        b"content-length: 5\r\n",
        b"transfer-encoding: chunked\r\n",
        b"expect: 100-continue\r\n",
        b"upgrade: h2c\r\n",
        b"connection: upgrade, http2-settings\r\n",
        b"authorization: Bearer ann\r\n",
        b"\r\n",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /v1/ws/echo HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        b"\x81\x85\0\0\0\0hello\x88\x80\0\0\0\0",
        b"\x89\xff\xff\xc1\x80",
    ]

    async def one(house: House, data: bytes) -> None:
        raw = await house.connect()
        with suppress(trio.BrokenResourceError):
            await raw.send(data)
            await raw.stream.send_eof()
            await raw.ended()

    with capture_logs() as logged:
        async with open_house(header_timeout_s=1, body_timeout_s=1) as house:
            async with trio.open_nursery() as nursery:
                for _ in range(300):
                    parts = chance.choices([*grains, chance.randbytes(20)], k=chance.randint(1, 8))
                    nursery.start_soon(one, house, b"".join(parts))
            await until(lambda: house.open_connections == 0)
            assert (await house.ask("GET", "/v1/open")).status == 200
    assert [line for line in logged if line["log_level"] in ("warning", "error")] == []


# Errors of ours


async def test_an_error_of_ours_harms_its_own_connection_and_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a client is served, in the look at all who wait, and in the look at all open WebSockets."""
    unfit = set[str]()

    def fails_at(name: str, of: Any) -> None:
        once = getattr(of, name)

        def method(self: Any, *args: Any) -> Any:
            if name in unfit:
                unfit.remove(name)
                raise RuntimeError("a bug")
            return once(self, *args)

        monkeypatch.setattr(of, name, method)

    for name, of in (("serve", Http1), ("look", Http1), ("check", OpenSocket)):
        fails_at(name, of)
    faults: dict[str, Fault] = {"serve": "connection_failed", "look": "look_failed", "check": "check_failed"}
    before = {fault: counted(fault) for fault in faults.values()}
    with capture_logs() as logged:
        async with open_house(ws_ping_s=0.1, keep_alive_s=0.4) as house:
            await house.socket()
            for name in faults:
                unfit.add(name)
                raw = await house.connect()
                async with raw.stream:
                    if name == "serve":
                        await raw.send(b"GET / HTTP/1.1\r\n")
                        assert await raw.ended() == b""
                    await until(lambda: not unfit)
            assert (await house.ask("GET", "/v1/open")).status == 200
    assert [line["event"] for line in logged if line["log_level"] == "error"] == list(faults.values())
    assert {fault: counted(fault) - count for fault, count in before.items()} == dict.fromkeys(before, 1)


# Errors of the network


async def test_what_accept_says_of_others_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux tells errors of a connection that is not there yet to whoever accepts."""
    said = [errno.EPROTO, errno.EPERM, errno.ENETDOWN]

    class Listening(socket.socket):
        def accept(self) -> tuple[socket.socket, Any]:
            if said:
                raise OSError(said.pop(), "not for us")
            return super().accept()

    async def listen_badly(host: str, port: int) -> list[socket.socket]:
        return [Listening(fileno=each.detach()) for each in await listen(host, port)]

    monkeypatch.setattr("secureconnect.gateway.listen", listen_badly)
    with capture_logs() as logged:
        async with open_house() as house:
            assert (await house.ask("GET", "/v1/open")).status == 200
    failed = [line["error"] for line in logged if line["event"] == "accept_failed"]
    assert failed == ["ENETDOWN", "EPERM", "EPROTO"]


async def test_a_client_that_comes_as_the_door_is_closed_ends_nothing() -> None:
    """In half of the turns the listener is closed after it was found to be readable."""
    for _ in range(20):
        async with open_house() as house:
            with socket.create_connection(("127.0.0.1", house.port)):
                await trio.lowlevel.checkpoint()
                house.gateway._listener.stop()
                await trio.testing.wait_all_tasks_blocked()


# How many


async def test_the_number_of_connections_is_bounded() -> None:
    async with open_house(max_connections=2) as house:
        kept = [await house.connect() for _ in range(2)]
        for raw in kept:
            await raw.request("GET", "/v1/open")
            assert (await raw.response()).status == 200
        refused = value("secureconnect_gateway_connections_refused_total", reason="OVERLOADED")
        response = await house.ask("GET", "/v1/open")
        assert (response.status, response.code) == (503, "OVERLOADED")
        assert value("secureconnect_gateway_connections_refused_total", reason="OVERLOADED") == refused + 1
        assert "retry-after" in response.headers
        assert response.headers["x-request-id"] == response.json["meta"]["request_id"]
        assert response.headers["x-content-type-options"] == "nosniff"
        await kept[0].stream.aclose()
        await until(lambda: house.open_connections == 1)
        assert (await house.ask("GET", "/v1/open")).status == 200
        await kept[1].stream.aclose()


async def test_loopback_may_have_any_number() -> None:
    async with open_house(max_connections_per_address=1) as house:
        kept = [await house.connect() for _ in range(3)]
        for raw in kept:
            await raw.request("GET", "/v1/open")
            assert (await raw.response()).status == 200
            await raw.stream.aclose()


async def test_an_address_has_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    from secureconnect.gateway import listener

    # every client of this machine is loopback, which is excepted
    monkeypatch.setattr(listener, "is_loopback", lambda _: False)
    async with open_house(max_connections_per_address=1) as house:
        raw = await house.connect()
        async with raw.stream:
            await raw.request("GET", "/v1/open")
            assert (await raw.response()).status == 200
            response = await house.ask("GET", "/v1/open")
            assert (response.status, response.code) == (429, "RATE_LIMITED")
        await until(lambda: house.open_connections == 0)
        assert (await house.ask("GET", "/v1/open")).status == 200


def test_a_subscriber_has_one_share_whatever_its_addresses() -> None:
    """Who has IPv6 has 2^64 addresses."""

    config = GatewayConfig(max_connections_per_address=1)
    gate = Gate(config, RateLimitsConfig(), lambda: Tokens(), MemoryCache(MemoryConfig()), lambda *_: None)
    site = Site(config, gate, Router([]), Sockets(gate, config))
    listener = Listener(site, Seam(config, Router([]), gate), Certificates(config))
    listener.count("2001:db8::1", 1)
    assert isinstance(listener.refusal_of("2001:db8::2"), RateLimited)
    assert listener.refusal_of("2001:db8:0:1::1") is None
    listener.count("2001:db8::2", -1)
    assert listener.refusal_of("2001:db8::1") is None


def _held() -> tuple[int, int]:
    """Tasks and descriptors."""
    return trio.lowlevel.current_statistics().tasks_living, len(list(Path("/proc/self/fd").iterdir()))
