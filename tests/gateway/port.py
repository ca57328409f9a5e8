"""A port whose connections a test serves itself, an authority that signs its certificate, and a client."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import trio
import trustme

from secureconnect.config import GatewayConfig
from secureconnect.gateway.tls import Certificates, TlsTransport
from secureconnect.gateway.transport import Transport

WITHIN_S = 5


@dataclass
class Port:
    number: int
    transports: list[Transport]  # of open connections

    async def connect(self, receive_buffer: int | None = None) -> trio.SocketStream:
        """receive_buffer: a small one soon stops a server whose client does not read."""
        sock = trio.socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await sock.connect(("127.0.0.1", self.number))
        return trio.SocketStream(sock)


@asynccontextmanager
async def open_port(
    serve: Callable[[Transport], Awaitable[None]], config: GatewayConfig | None = None
) -> AsyncIterator[Port]:
    """serve: called in a task for each connection, after its handshake; the connection is closed when it
    returns.  config: with TLS, if it names a certificate."""
    config = config or GatewayConfig()
    certificates = Certificates(config)
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    port = Port(listening.getsockname()[1], [])

    async def one(sock: socket.socket) -> None:
        transport = Transport(sock, "127.0.0.1", config)
        if certificates.context is not None:
            transport = TlsTransport(sock, "127.0.0.1", config, certificates.context)
        port.transports.append(transport)
        try:
            if isinstance(transport, TlsTransport):
                await transport.handshake(b"")
            if not transport.gone:
                await serve(transport)
        finally:
            transport.close()
            port.transports.remove(transport)

    async def accept(nursery: trio.Nursery) -> None:
        while True:
            await trio.lowlevel.wait_readable(listening)
            sock, _ = listening.accept()
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
            nursery.start_soon(one, sock)

    with listening:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept, nursery)
            yield port
            nursery.cancel_scope.cancel()


class Authority:
    """Signs certificates for localhost and 127.0.0.1."""

    def __init__(self) -> None:
        self._ca = trustme.CA()

    def issue(self, folder: Path, name: str = "server") -> GatewayConfig:
        """Writes certificate and key to the folder. Returns the settings that name them."""
        issued = self._ca.issue_cert("localhost", "127.0.0.1")
        certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        key.write_bytes(issued.private_key_pem.bytes())
        return GatewayConfig(tls_certificate=str(certificate), tls_key=str(key))

    def trust(self, folder: Path) -> Path:
        """A file for clients that are programs."""
        path = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(str(path))
        return path

    def client(self, *protocols: str) -> ssl.SSLContext:
        """Trusts what was issued here.  protocols: offered by ALPN."""
        context = ssl.create_default_context()
        self._ca.configure_trust(context)
        context.set_alpn_protocols(list(protocols))
        return context


@cache
def authority() -> Authority:
    return Authority()


class Client:
    """A TLS client that may be slow, rude or cut off: what it says goes out when the test says so."""

    def __init__(
        self,
        stream: trio.SocketStream,
        *protocols: str,
        context: ssl.SSLContext | None = None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        self.stream = stream
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = context or authority().client(*protocols)
        self.tls = context.wrap_bio(
            self.incoming, self.outgoing, server_hostname="localhost", session=session
        )

    async def shake(self, send: Callable[[bytes], Awaitable[None]] | None = None) -> None:
        with trio.fail_after(WITHIN_S):
            while True:
                try:
                    self.tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    await (send or self.stream.send_all)(self.outgoing.read())
                    self.incoming.write(await self.stream.receive_some(65_536))
            await (send or self.stream.send_all)(self.outgoing.read())

    def seal(self, data: bytes) -> bytes:
        self.tls.write(data)
        return self.outgoing.read()

    async def send(self, data: bytes) -> None:
        with trio.fail_after(WITHIN_S):
            await self.stream.send_all(self.seal(data))

    async def receive(self) -> bytes:
        """b"" at close_notify; raises SSLEOFError where the connection was cut off."""
        with trio.fail_after(WITHIN_S):
            while True:
                try:
                    return self.tls.read(65_536)
                except ssl.SSLZeroReturnError:  # so after its own
                    return b""
                except ssl.SSLWantReadError:
                    data = await self.stream.receive_some(65_536)
                    self.incoming.write(data)
                    if not data:
                        self.incoming.write_eof()

    async def receive_exactly(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            data = await self.receive()
            assert data, f"only {len(parts)} bytes came"
            parts += data
        return bytes(parts)
