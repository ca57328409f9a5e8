"""TLS: the certificate, and a transport that keeps its promises through it."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from kit.wait import until
from secureconnect.config import GatewayConfig
from secureconnect.edge import Audience, Call, Rate, Reply, Route
from secureconnect.gateway import tls
from secureconnect.gateway.tls import RECORD_BYTES, UNTAKEN_BYTES, TlsTransport
from secureconnect.gateway.transport import Transport

from .house import open_house
from .port import WITHIN_S, Client, Port, authority, open_port


@pytest.fixture
def config(tmp_path: Path) -> GatewayConfig:
    return authority().issue(tmp_path)


async def echo(transport: Transport) -> None:
    while data := await transport.receive():
        await transport.send_all(data)
    transport.end()


@asynccontextmanager
async def shaken(
    config: GatewayConfig, serve: Callable[[Transport], Awaitable[None]] = echo
) -> AsyncIterator[Client]:
    async with open_port(serve, config) as port, await port.connect() as stream:
        client = Client(stream)
        await client.shake()
        yield client


async def test_a_look_takes_nothing_from_a_reader(config: GatewayConfig) -> None:
    """The listener looks at each connection once a second, also while somebody reads it."""
    got = bytearray()

    async def gather(transport: Transport) -> None:
        while data := await transport.receive():
            got.extend(data)

    async with open_port(gather, config) as port, await port.connect() as stream:
        client = Client(stream)
        await client.shake()
        sent = b""
        for number in range(20):
            await client.send(b"%04d" % number)
            sent += b"%04d" % number
            port.transports[0].look()
        await until(lambda: bytes(got) == sent)


async def test_a_look_at_a_client_that_resets(config: GatewayConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    peek = Transport.look

    async def busy(_: Transport) -> None:
        await trio.sleep_forever()

    async with open_port(busy, config) as port, await port.connect() as stream:
        client = Client(stream)
        await client.shake()
        (transport,) = port.transports

        def reset_after(self: Transport) -> None:
            peek(self)
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            stream.socket.close()

        monkeypatch.setattr(Transport, "look", reset_after)
        transport.look()
        assert transport.gone


async def test_many_bytes_come_through_while_they_are_looked_at(tmp_path: Path) -> None:
    """A large body over TLS takes longer than the second between two looks."""
    size, digest = 32 * 1024 * 1024, hashlib.sha256()

    async def take(_: object, call: Call) -> Reply:
        assert call.read is not None
        while data := await call.read():
            digest.update(data)
        return Reply()

    route = Route("PUT", "/v1/up", take, Audience.ANYONE, Rate.NONE, "Up", status=204, stream=size)
    issued = authority().issue(tmp_path)
    files: dict[str, Any] = {"tls_certificate": issued.tls_certificate, "tls_key": issued.tls_key}
    async with open_house(routes=[route], header_timeout_s=0.3, **files) as house:  # looks every 75 ms
        stream = (await house.connect()).stream
        client = Client(stream)
        await client.shake()
        await client.send(b"PUT /v1/up HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size)
        expected = hashlib.sha256()
        for number in range(size // 65_536):
            piece = number.to_bytes(4) * 16_384
            expected.update(piece)
            await client.send(piece)
        assert (await client.receive()).startswith(b"HTTP/1.1 204 ")
        assert digest.digest() == expected.digest()


async def test_who_makes_us_speak_and_does_not_read_is_cut(config: GatewayConfig) -> None:
    """OpenSSL answers each key update, whoever pays for it."""

    async def busy(_: Transport) -> None:
        await trio.sleep_forever()

    async with open_port(busy, config) as port, await port.connect(receive_buffer=4096) as stream:
        client = Client(stream)
        await client.shake()
        (transport,) = port.transports
        assert isinstance(transport, TlsTransport)
        waiting = 0
        with trio.fail_after(5):
            while not transport.gone:
                transport._outgoing.write(bytes(1000))
                transport._hand_out()
                waiting = max(waiting, sum(map(len, transport._waiting)))
                await trio.lowlevel.checkpoint()
        assert 0 < waiting <= UNTAKEN_BYTES


# what is agreed


def _openssl(port: Port, *options: str) -> list[str]:
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("no openssl")
    return [program, "s_client", "-connect", f"127.0.0.1:{port.number}", *options]


class Dialogue:
    """With `openssl s_client`, which takes a line like `K` as a command."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._in, self._out = process.stdin, process.stdout
        self._said = b""

    async def say(self, line: str) -> None:
        await self._in.send_all(line.encode() + b"\n")

    async def until(self, text: bytes) -> None:
        """Raises EOFError when that is never said."""
        with trio.fail_after(WITHIN_S):
            while text not in self._said:
                data = await self._out.receive_some()
                if not data:
                    raise EOFError(self._said)
                self._said += data
        self._said = self._said.partition(text)[2]


@asynccontextmanager
async def dialogue(port: Port, *options: str) -> AsyncIterator[Dialogue]:
    pipe = subprocess.PIPE
    run = partial(trio.run_process, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, check=False)
    async with trio.open_nursery() as nursery:
        yield Dialogue(await nursery.start(run, _openssl(port, *options)))
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("options", "agreed"),
    [
        (["-tls1_3"], "New, TLSv1.3, Cipher is TLS_"),
        (["-tls1_2"], "New, TLSv1.2, Cipher is ECDHE-ECDSA-AES256-GCM-SHA384"),
        (["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], None),
        (["-tls1", "-cipher", "ALL:@SECLEVEL=0"], None),
        (["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256"], None),
        (["-alpn", "h2,http/1.1"], "ALPN protocol: h2"),
        (["-alpn", "http/1.1,h2"], "ALPN protocol: h2"),
        (["-alpn", "http/1.1"], "ALPN protocol: http/1.1"),
        (["-alpn", "spdy/1"], "No ALPN negotiated"),
        ([], "No ALPN negotiated"),
        (["-comp"], "Compression: NONE"),
    ],
)
async def test_what_openssl_agrees_on(config: GatewayConfig, options: list[str], agreed: str | None) -> None:
    async with open_port(echo, config) as port:
        done = await trio.run_process(
            _openssl(port, *options), capture_stdout=True, capture_stderr=True, check=False
        )
        said, complained = done.stdout.decode(), done.stderr.decode()
        if agreed is None:
            assert "Cipher is (NONE)" in said
            assert "alert" in complained
        else:
            assert agreed in said
        await until(lambda: not port.transports)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_session_is_resumed(config: GatewayConfig, version: ssl.TLSVersion) -> None:
    context = authority().client()
    context.minimum_version = context.maximum_version = version
    session, resumed = None, []
    async with open_port(echo, config) as port:
        for _ in range(2):
            async with await port.connect() as stream:
                client = Client(stream, context=context, session=session)
                await client.shake()
                await client.send(b"x")
                await client.receive_exactly(1)  # a ticket comes before
                session = client.tls.session
                resumed.append(client.tls.session_reused)
    assert resumed == [False, True]


async def test_a_client_that_renegotiates_is_told_no(config: GatewayConfig) -> None:
    async with open_port(echo, config) as port, dialogue(port, "-tls1_2") as openssl:
        await openssl.until(b"Verify return code")
        await openssl.say("R")
        await openssl.until(b"no renegotiation")


# the transport


async def test_small_and_large_data(config: GatewayConfig) -> None:
    sizes = [1, 2, 100, RECORD_BYTES - 1, RECORD_BYTES, RECORD_BYTES + 1, 65_536, 300_000]
    async with shaken(config) as client:
        for size in sizes:
            data = os.urandom(size)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.send, data)
                assert await client.receive_exactly(size) == data


async def test_everything_byte_by_byte(config: GatewayConfig) -> None:
    async def slowly(data: bytes) -> None:
        for each in data:
            await client.stream.send_all(bytes([each]))
            await trio.lowlevel.checkpoint()

    async with open_port(echo, config) as port, await port.connect() as stream:
        client = Client(stream)
        await client.shake(slowly)
        for _ in range(3):
            await slowly(client.seal(b"hello"))
            assert await client.receive_exactly(5) == b"hello"


async def test_data_that_comes_with_the_handshakes_end(config: GatewayConfig) -> None:
    kept = b""

    async def keep(data: bytes) -> None:
        nonlocal kept
        kept += data
        if b"\x14\x03\x03" not in kept:  # only the ClientHello goes at once
            await client.stream.send_all(kept)
            kept = b""

    async with open_port(echo, config) as port, await port.connect() as stream:
        client = Client(stream)
        await client.shake(keep)
        assert kept
        await stream.send_all(kept + client.seal(b"at once"))
        assert await client.receive_exactly(7) == b"at once"


async def test_the_protocol_agreed_on(config: GatewayConfig) -> None:
    agreed: list[object] = []

    async def note(transport: Transport) -> None:
        assert isinstance(transport, TlsTransport)
        assert transport.is_secure
        agreed.append(transport.alpn)

    async with open_port(note, config) as port:
        for offered in (["h2", "http/1.1"], ["http/1.1"], ["other"], []):
            async with await port.connect() as stream:
                await Client(stream, *offered).shake()
                await until(lambda: not port.transports)
    assert agreed == ["h2", "http/1.1", None, None]


async def test_an_end_is_said_before_it_comes(config: GatewayConfig) -> None:
    async with shaken(config) as client:
        await client.send(b"x")
        await client.receive_exactly(1)
        with suppress(ssl.SSLWantReadError):
            client.tls.unwrap()
        await client.stream.send_all(client.outgoing.read())
        assert await client.receive() == b""
        assert await client.stream.receive_some(100) == b""


async def test_our_end_is_said_too(config: GatewayConfig) -> None:
    async def bye(transport: Transport) -> None:
        await transport.send_all(b"bye")
        transport.end()
        transport.end()
        assert transport.send(b"too late")
        await transport.linger(WITHIN_S)

    async with shaken(config, bye) as client:
        assert await client.receive_exactly(3) == b"bye"
        assert await client.receive() == b""


async def test_a_client_may_end_and_still_be_answered(config: GatewayConfig) -> None:
    async def answer(transport: Transport) -> None:
        asked = b""
        while data := await transport.receive():
            asked += data
        assert transport.hung_up
        await transport.send_all(asked * 2)
        transport.end()

    async with shaken(config, answer) as client:
        await client.stream.send_all(client.seal(b"abc"))
        with suppress(ssl.SSLWantReadError):
            client.tls.unwrap()
        await client.stream.send_all(client.outgoing.read())
        assert b"".join([await client.receive_exactly(6)]) == b"abcabc"


async def test_a_connection_that_is_cut_off_has_hung_up(config: GatewayConfig) -> None:
    ended = trio.Event()

    async def read(transport: Transport) -> None:
        while await transport.receive():
            pass
        assert transport.hung_up
        ended.set()

    async with shaken(config, read) as client:
        sealed = client.seal(b"x" * 100)
        await client.stream.send_all(sealed[:50])
        await client.stream.send_eof()
        with trio.fail_after(WITHIN_S):
            await ended.wait()


@pytest.mark.parametrize(
    "said",
    [b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"PROXY UNKNOWN\r\n"],
)
async def test_plain_text_is_not_answered(config: GatewayConfig, said: bytes) -> None:
    async with open_port(echo, config) as port, await port.connect() as stream:
        await stream.send_all(said)
        with trio.fail_after(WITHIN_S):
            answer = await stream.receive_some(100)
        # nothing, or the alert that this is not TLS
        assert not answer or (answer[0] == 0x15 and len(answer) == 7)
        await until(lambda: not port.transports)


async def test_rubbish_ends_the_handshake_and_harms_nobody(config: GatewayConfig) -> None:
    async def one(data: bytes) -> None:
        async with await port.connect() as stream:
            with suppress(trio.BrokenResourceError):
                await stream.send_all(data)
                await stream.send_eof()
                while await stream.receive_some(65_536):
                    pass

    with capture_logs() as logged:
        async with open_port(echo, config) as port:
            hello = Client(await port.connect())
            with suppress(ssl.SSLWantReadError):
                hello.tls.do_handshake()
            whole = hello.outgoing.read()
            await hello.stream.aclose()
            async with trio.open_nursery() as nursery:
                for place in range(0, len(whole), 7):
                    nursery.start_soon(one, whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
                    nursery.start_soon(one, whole[:place])
                for size in (0, 1, 5, 100, 70_000):
                    nursery.start_soon(one, os.urandom(size))
            await until(lambda: not port.transports)
    assert [line for line in logged if line["log_level"] != "info"] == []


async def test_rubbish_after_the_handshake_is_told_and_ends_it(config: GatewayConfig) -> None:
    async with shaken(config) as client:
        await client.send(b"x")
        await client.receive_exactly(1)
        sealed = client.seal(b"forged")
        await client.stream.send_all(sealed[:-1] + bytes([sealed[-1] ^ 1]))
        with pytest.raises(ssl.SSLError, match="bad record mac"):
            await client.receive()


async def test_a_handshake_has_the_time_of_a_head(config: GatewayConfig) -> None:
    async with open_house(
        header_timeout_s=0.2, tls_certificate=config.tls_certificate, tls_key=config.tls_key
    ) as house:
        raw = await house.connect()
        await raw.send(b"\x16\x03\x01")
        assert await raw.ended() == b""
        await until(lambda: house.open_connections == 0)


async def test_what_the_socket_does_not_take_waits_in_order(config: GatewayConfig) -> None:
    blocked, read = trio.Event(), trio.Event()
    numbers = b"".join(b"%08d" % number for number in range(100_000))

    async def write(transport: Transport) -> None:
        for start in range(0, len(numbers), 1_000):
            if not transport.send(memoryview(numbers)[start : start + 1_000]):
                blocked.set()
        await read.wait()
        await transport.drain()
        await transport.send_all(numbers)
        transport.end()

    async with open_port(write, config) as port:
        stream = await port.connect(receive_buffer=4096)
        async with stream:
            client = Client(stream)
            await client.shake()
            with trio.fail_after(WITHIN_S):
                await blocked.wait()
            read.set()
            assert await client.receive_exactly(2 * len(numbers)) == numbers * 2
            assert await client.receive() == b""


async def test_a_client_that_takes_nothing_is_cut(config: GatewayConfig) -> None:
    told = trio.Event()

    async def write(transport: Transport) -> None:
        transport.on_gone = told.set
        await transport.send_all(bytes(20_000_000))
        assert transport.gone

    brief = dataclasses.replace(config, write_timeout_s=0.2)
    async with open_port(write, brief) as port, await port.connect(receive_buffer=4096) as stream:
        await Client(stream).shake()
        with trio.fail_after(WITHIN_S):
            await told.wait()


@pytest.mark.parametrize("size", [0, 10, 1_000_000])
async def test_a_file(config: GatewayConfig, tmp_path: Path, size: int) -> None:
    data = os.urandom(size + 20)
    path = tmp_path / "file"
    path.write_bytes(data)

    async def write(transport: Transport) -> None:
        with path.open("rb") as file:
            await transport.send_file(file, 10, size)
        transport.end()

    async with shaken(config, write) as client:
        assert await client.receive_exactly(size) == data[10 : 10 + size]
        assert await client.receive() == b""


async def test_a_file_that_turns_out_shorter_ends_the_connection(
    config: GatewayConfig, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"short")

    async def write(transport: Transport) -> None:
        with path.open("rb") as file:
            await transport.send_file(file, 0, 100)
        assert transport.gone

    async with shaken(config, write) as client:
        with pytest.raises((ssl.SSLEOFError, trio.BrokenResourceError)):
            await client.receive_exactly(100)


async def test_a_client_that_leaves_is_seen_while_nobody_reads(config: GatewayConfig) -> None:
    """It says goodbye before its FIN, and that looks like data."""
    left = trio.Event()

    async def wait(transport: Transport) -> None:
        assert await transport.receive() == b"ask"
        while not transport.hung_up:
            transport.look()
            await trio.lowlevel.checkpoint()
        left.set()

    async with shaken(config, wait) as client:
        await client.send(b"ask")
        with suppress(ssl.SSLWantReadError):
            client.tls.unwrap()
        await client.stream.send_all(client.outgoing.read())
        with trio.fail_after(WITHIN_S):
            await left.wait()


async def test_what_was_looked_at_is_still_read(config: GatewayConfig) -> None:
    async def look(transport: Transport) -> None:
        came = transport.last_read
        transport.send(b"go")
        while transport.last_read == came:
            transport.look()
            await trio.lowlevel.checkpoint()
        for _ in range(3):
            transport.look()
        assert not transport.hung_up
        await echo(transport)

    async with shaken(config, look) as client:
        await client.receive_exactly(2)
        await client.send(b"ask")
        assert await client.receive_exactly(3) == b"ask"


async def test_records_that_bring_nothing_are_bounded(
    config: GatewayConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Key updates above all: each costs us new keys, and an answer."""
    monkeypatch.setattr(tls, "OVERHEAD_BYTES", 1_000)
    async with open_port(echo, config) as port, dialogue(port, "-tls1_3") as openssl:
        await openssl.until(b"Verify return code")
        for number in range(100):
            await openssl.say(f"echo {number}")  # data pays for them
            await openssl.until(b"echo %d" % number)
            await openssl.say("K")
            await openssl.until(b"KEYUPDATE")
        updates = 0
        with suppress(trio.BrokenResourceError, EOFError):
            while port.transports:
                await openssl.say("K")
                await openssl.until(b"KEYUPDATE")
                updates += 1
        assert 20 < updates < 60
